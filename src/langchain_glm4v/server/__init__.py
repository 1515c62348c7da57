"""A vLLM server for GLM-4.1V, started, checked and stopped by this package."""

from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.process import GLM4VServer, find_leftovers

__all__ = ["GLM4VServer", "ServerOptions", "find_leftovers"]
