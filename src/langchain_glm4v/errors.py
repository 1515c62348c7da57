"""Every error this package raises, in one tree.

GLM4VError
├── ServerError                  the managed vLLM server
│   ├── ServerOptionError        an option's value is not accepted (also a ValueError)
│   ├── EngineNotInstalledError  no vLLM in this environment
│   ├── ModelNotFoundError       no such checkpoint (also a ValueError)
│   ├── WeightsError             a checkpoint cannot be fetched, or is damaged
│   ├── PortInUseError           the wanted port is taken
│   ├── GpuError                 the GPUs do not work, or are too small or too old for the model
│   ├── ServerStartError         something it needs is missing, it died, or took too long
│   ├── TemplateError            the server renders prompts wrongly
│   ├── SelfCheckError           the server answers nothing of use
│   ├── ServerUnreachableError   nothing answers a call (also OpenAI's and LangChain's)
│   ├── ServerTimeoutError       no answer in time (also OpenAI's and LangChain's)
│   └── ReplyError               the answer to a call is no chat completion (also a ValueError)
├── ActionError                  an action on a screen that cannot be understood or done
├── RequestError                 a call that cannot be made (also a ValueError)
│   ├── ContextLengthError       too long for the model (also LangChain's)
│   └── UnsupportedByServerError the server cannot do what was asked for
├── CacheError                   the file of pages that were read cannot be used
├── PageError                    a page could not be read
└── MediaError                   a picture, document or video (also a ValueError)
    ├── MediaNotFoundError       the path or URL leads nowhere (also a FileNotFoundError)
    ├── UnsupportedMediaError    the bytes are not of a kind the model takes
    └── TooManyImagesError       the last turn alone has more than the server takes

Those that are also OpenAI's and LangChain's are in `call_errors`, because those libraries take a
second to import, and the processes that decode media need none of it.
"""


class GLM4VError(Exception):
    """Base of every error raised by this package.

    Args:
        *args: The message: what happened, and what whoever asked can do.
        setting: What whoever writes the program can do besides, such as raising a limit: not for
            agents, who cannot. Default: nothing.

    Attributes:
        setting: As given; a part of the error's text.
    """

    setting = ""

    def __init__(self, *args: object, setting: str = "") -> None:
        super().__init__(*args)
        if setting:
            self.setting = setting

    def __str__(self) -> str:
        return ", or ".join(filter(None, (super().__str__(), self.setting)))


class ServerError(GLM4VError):
    """The managed vLLM server cannot be used."""


class ServerOptionError(ServerError, ValueError):
    """An option of the server has a value that is not accepted."""


class EngineNotInstalledError(ServerError):
    """No vLLM is installed in the Python that should run the server."""


class ModelNotFoundError(ServerError, ValueError):
    """There is no such checkpoint, neither here nor on the model hub."""


class WeightsError(ServerError):
    """A checkpoint exists but cannot be fetched, or its files are damaged."""


class PortInUseError(ServerError):
    """The port asked for is taken by another program."""


class GpuError(ServerError):
    """The GPUs do not work, or are too small or too old for what was asked for."""


class ServerStartError(ServerError):
    """Something that the server needs is missing, its process ended, or it was not ready in time.

    Attributes:
        log_tail: Last lines of the server's log; empty if it was not begun.
    """

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


class TemplateError(ServerError):
    """The server renders a conversation differently from the chat template."""


class SelfCheckError(ServerError):
    """A server that is up does not answer, or answers senselessly."""


class ReplyError(ServerError, ValueError):
    """What the server sent is no chat completion, so no message can be made of it."""


class ActionError(GLM4VError):
    """What a model wants done on a screen cannot be understood, or cannot be done there."""


class RequestError(GLM4VError, ValueError):
    """A call cannot be made as it was asked for."""


class UnsupportedByServerError(RequestError):
    """The server, or the model on it, cannot do what was asked for."""


class CacheError(GLM4VError):
    """The file that keeps pages which were read already cannot be read or written."""


class PageError(GLM4VError):
    """A page could not be read, or what was read is not to be trusted."""


class MediaError(GLM4VError, ValueError):
    """A picture, document or video cannot be sent to the model, or not as it was asked for."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """The path or URL of a picture, document or video leads nowhere."""


class UnsupportedMediaError(MediaError):
    """The bytes are not of a kind the model takes."""


class TooManyImagesError(MediaError):
    """The turns to be answered have more pictures than the server takes in a request."""
