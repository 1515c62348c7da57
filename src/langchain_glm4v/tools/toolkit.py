"""All tools at once."""

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import Field

from langchain_glm4v.allowed import AllowedDirs
from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.tools.document import DocumentTool
from langchain_glm4v.tools.image import ImageTool
from langchain_glm4v.tools.locate import LocateTool
from langchain_glm4v.tools.read import ReadTool
from langchain_glm4v.tools.texts import Language
from langchain_glm4v.tools.video import VideoTool


class GLM4VToolkit(BaseToolkit):
    """The tools by which an agent sees pictures, videos and documents.

    Example:
        ```python
        tools = GLM4VToolkit(llm=model, allowed_dirs=["/srv/files"]).get_tools()
        agent = create_agent(text_model, tools)
        ```
    """

    llm: ChatGLM4V
    """The model that sees."""

    allowed_dirs: AllowedDirs = ()
    """Directories in or below which local files may be read. Default: no local file is read."""

    language: Language = "en"
    """Language of descriptions, prompts and of what the tools write: English ("en") or Chinese
    ("zh"). Errors of what lies below the tools (files, network) are in English."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds that a call of a tool may take. Default: no limit but those of the model's own
    requests."""

    max_concurrency: int = Field(default=4, ge=1)
    """Requests of one call that are made at once, at most."""

    def get_tools(self) -> list[BaseTool]:
        """The tools, one of each kind."""
        shared = {name: getattr(self, name) for name in type(self).model_fields}
        kinds = (ImageTool, VideoTool, DocumentTool, LocateTool, ReadTool)
        return [kind(**shared) for kind in kinds]
