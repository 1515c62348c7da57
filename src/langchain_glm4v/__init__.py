"""GLM-4.1V-Thinking in LangChain: a chat model, and the vLLM server behind it.

The names are imported when they are first used: LangChain and OpenAI's client take a second, and
the command `glm4v` and the processes that decode media need neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

from langchain_glm4v._version import __version__

if TYPE_CHECKING:
    from langchain_glm4v.call_errors import (
        ContextLengthError,
        ServerTimeoutError,
        ServerUnreachableError,
    )
    from langchain_glm4v.chat_models import ChatGLM4V
    from langchain_glm4v.document_loaders import GLM4VBlobParser, GLM4VLoader
    from langchain_glm4v.drawing import crop, draw
    from langchain_glm4v.errors import (
        ActionError,
        CacheError,
        EngineNotInstalledError,
        GLM4VError,
        GpuError,
        MediaError,
        MediaNotFoundError,
        ModelNotFoundError,
        PageError,
        PortInUseError,
        ReplyError,
        RequestError,
        SelfCheckError,
        ServerError,
        ServerOptionError,
        ServerStartError,
        TemplateError,
        TooManyImagesError,
        UnsupportedByServerError,
        UnsupportedMediaError,
        WeightsError,
    )
    from langchain_glm4v.grounding import Box, find_boxes
    from langchain_glm4v.media_plan import MediaPlan, MediumPlan, plan
    from langchain_glm4v.output_parsers import (
        BoxOutputParser,
        JsonAnswerOutputParser,
        ThinkAnswerOutputParser,
    )
    from langchain_glm4v.questions import question_about
    from langchain_glm4v.server import GLM4VServer
    from langchain_glm4v.tools import (
        DocumentTool,
        GLM4VToolkit,
        ImageTool,
        LocateTool,
        ReadTool,
        VideoTool,
    )

__all__ = [
    "ActionError",
    "Box",
    "BoxOutputParser",
    "CacheError",
    "ChatGLM4V",
    "ContextLengthError",
    "DocumentTool",
    "EngineNotInstalledError",
    "GLM4VBlobParser",
    "GLM4VError",
    "GLM4VLoader",
    "GLM4VServer",
    "GLM4VToolkit",
    "GpuError",
    "ImageTool",
    "JsonAnswerOutputParser",
    "LocateTool",
    "MediaError",
    "MediaNotFoundError",
    "MediaPlan",
    "MediumPlan",
    "ModelNotFoundError",
    "PageError",
    "PortInUseError",
    "ReadTool",
    "ReplyError",
    "RequestError",
    "SelfCheckError",
    "ServerError",
    "ServerOptionError",
    "ServerStartError",
    "ServerTimeoutError",
    "ServerUnreachableError",
    "TemplateError",
    "ThinkAnswerOutputParser",
    "TooManyImagesError",
    "UnsupportedByServerError",
    "UnsupportedMediaError",
    "VideoTool",
    "WeightsError",
    "__version__",
    "crop",
    "draw",
    "find_boxes",
    "plan",
    "question_about",
]

# Name -> module that has it; all others are in `errors`.
_MODULES = {
    "Box": "grounding",
    "BoxOutputParser": "output_parsers",
    "ChatGLM4V": "chat_models",
    "ContextLengthError": "call_errors",
    "DocumentTool": "tools",
    "GLM4VBlobParser": "document_loaders",
    "GLM4VLoader": "document_loaders",
    "GLM4VServer": "server",
    "GLM4VToolkit": "tools",
    "ImageTool": "tools",
    "JsonAnswerOutputParser": "output_parsers",
    "LocateTool": "tools",
    "MediaPlan": "media_plan",
    "MediumPlan": "media_plan",
    "ReadTool": "tools",
    "ServerTimeoutError": "call_errors",
    "ServerUnreachableError": "call_errors",
    "ThinkAnswerOutputParser": "output_parsers",
    "VideoTool": "tools",
    "crop": "drawing",
    "draw": "drawing",
    "find_boxes": "grounding",
    "plan": "media_plan",
    "question_about": "questions",
}

if not TYPE_CHECKING:  # a checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
        value = getattr(module, name)
        globals()[name] = value  # found here from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
