"""One real server on the miniature for the whole run: a start takes most of a minute."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.server import GLM4VServer


@pytest.fixture(scope="session")
def server() -> Iterator[GLM4VServer]:
    """A running server of the miniature."""
    names = ("--served-model-name", "tiny", "tiny-alias")  # the second is for tests of overrides
    with GLM4VServer("tiny", extra_args=names) as running:
        yield running


@pytest.fixture(scope="module")
def model(server: GLM4VServer) -> Iterator[ChatGLM4V]:
    """A greedy model on that server; modules that want other options have their own."""
    with ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        temperature=0,
    ) as chat:
        yield chat
