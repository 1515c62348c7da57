"""The errors of `errors` that are also OpenAI's or LangChain's."""

from typing import Any

import openai
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelConnectionError,
    ModelTimeoutError,
)

from langchain_glm4v.errors import RequestError, ServerError


class ServerUnreachableError(ServerError, openai.APIConnectionError, ModelConnectionError):
    """Nothing answers at the server's address, or the connection broke.

    Attributes:
        request: The HTTP request that failed; None if none was made.
    """

    def __init__(self, message: str, request: Any = None) -> None:
        openai.APIConnectionError.__init__(self, message=message, request=request)


class ServerTimeoutError(ServerError, openai.APITimeoutError, ModelTimeoutError):
    """The server did not answer in time.

    Attributes:
        request: The HTTP request that failed.
    """

    def __init__(self, message: str, request: Any) -> None:
        openai.APIConnectionError.__init__(self, message=message, request=request)


class ContextLengthError(RequestError, ContextOverflowError):
    """The conversation leaves no room for an answer."""
