"""Tools by which an agent sees: pictures, videos, documents, places, text."""

from langchain_glm4v.tools.document import DocumentTool
from langchain_glm4v.tools.image import ImageTool
from langchain_glm4v.tools.locate import LocateTool
from langchain_glm4v.tools.read import ReadTool
from langchain_glm4v.tools.toolkit import GLM4VToolkit
from langchain_glm4v.tools.video import VideoTool

__all__ = ["DocumentTool", "GLM4VToolkit", "ImageTool", "LocateTool", "ReadTool", "VideoTool"]
