"""One real server on the miniature for the whole run: a start takes most of a minute."""

from collections.abc import Iterator

import pytest

from langchain_glm4v.server import GLM4VServer


@pytest.fixture(scope="session")
def server() -> Iterator[GLM4VServer]:
    """A running server of the miniature."""
    with GLM4VServer("tiny") as running:
        yield running
