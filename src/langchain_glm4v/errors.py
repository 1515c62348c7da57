"""Every error this package raises, in one tree.

GLM4VError
├── ServerError                  the managed vLLM server
│   ├── EngineNotInstalledError  no vLLM in this environment
│   ├── ModelNotFoundError       no such checkpoint (also a ValueError)
│   ├── PortInUseError           the wanted port is taken
│   ├── ServerStartError         the server died, or was not ready in time
│   └── TemplateError            the server renders prompts wrongly
└── MediaError                   a picture or document (also a ValueError)
    ├── MediaNotFoundError       the path leads nowhere (also a FileNotFoundError)
    └── UnsupportedMediaError    the bytes are not of a kind the model takes
"""


class GLM4VError(Exception):
    """Base of every error raised by this package."""


class ServerError(GLM4VError):
    """The managed vLLM server cannot be used."""


class EngineNotInstalledError(ServerError):
    """No vLLM is installed in the Python that should run the server."""


class ModelNotFoundError(ServerError, ValueError):
    """The model is neither a known name nor a checkpoint directory."""


class PortInUseError(ServerError):
    """The port asked for is taken by another program."""


class ServerStartError(ServerError):
    """The server process ended, or was not ready in time.

    Attributes:
        log_tail: Last lines of the server's log.
    """

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


class TemplateError(ServerError):
    """The server renders a conversation differently from the chat template."""


class MediaError(GLM4VError, ValueError):
    """A picture or document cannot be sent to the model."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """The path of a picture or document leads nowhere."""


class UnsupportedMediaError(MediaError):
    """The bytes are not of a kind the model takes."""
