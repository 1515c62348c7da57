"""GLM-4.1V-Thinking in LangChain: a chat model, and the vLLM server behind it."""

from langchain_glm4v._version import __version__
from langchain_glm4v.call_errors import (
    ContextLengthError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.errors import (
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
from langchain_glm4v.grounding import Box
from langchain_glm4v.media_plan import MediaPlan, MediumPlan, plan
from langchain_glm4v.questions import question_about
from langchain_glm4v.server import GLM4VServer

__all__ = [
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
    "plan",
    "question_about",
]
