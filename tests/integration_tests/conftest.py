"""One real server on the miniature for the whole run: a start takes most of a minute."""

from collections.abc import Iterator

import pytest

from langchain_glm4v.server import GLM4VServer


@pytest.fixture(scope="session")
def server() -> Iterator[GLM4VServer]:
    """A running server of the miniature."""
    names = ("--served-model-name", "tiny", "tiny-alias")  # the second is for tests of overrides
    with GLM4VServer("tiny", extra_args=names) as running:
        yield running
