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
    from langchain_glm4v.drawing import crop, draw
    from langchain_glm4v.errors import (
        ActionError,
        EngineNotInstalledError,
        GLM4VError,
        GpuError,
        MediaError,
        MediaNotFoundError,
        ModelNotFoundError,
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
    from langchain_glm4v.questions import question_about
    from langchain_glm4v.server import GLM4VServer

__all__ = [
    "ActionError",
    "Box",
    "ChatGLM4V",
    "ContextLengthError",
    "EngineNotInstalledError",
    "GLM4VError",
    "GLM4VServer",
    "GpuError",
    "MediaError",
    "MediaNotFoundError",
    "MediaPlan",
    "MediumPlan",
    "ModelNotFoundError",
    "PortInUseError",
    "ReplyError",
    "RequestError",
    "SelfCheckError",
    "ServerError",
    "ServerOptionError",
    "ServerStartError",
    "ServerTimeoutError",
    "ServerUnreachableError",
    "TemplateError",
    "TooManyImagesError",
    "UnsupportedByServerError",
    "UnsupportedMediaError",
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
    "ChatGLM4V": "chat_models",
    "ContextLengthError": "call_errors",
    "GLM4VServer": "server",
    "MediaPlan": "media_plan",
    "MediumPlan": "media_plan",
    "ServerTimeoutError": "call_errors",
    "ServerUnreachableError": "call_errors",
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
