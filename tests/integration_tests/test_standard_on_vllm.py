"""LangChain's own tests of a chat model, in full, on the real vLLM."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_glm4v import ChatGLM4V, GLM4VServer

MEDIA = Path(__file__).resolve().parents[2] / "examples" / "media"


class Answer:
    """What a test downloads, from a file of ours: the tests' own pictures are on the network."""

    def __init__(self, url: str) -> None:
        self.content = (MEDIA / ("scan.pdf" if url.endswith(".pdf") else "shapes.png")).read_bytes()

    def raise_for_status(self) -> None:
        """There is nothing to raise."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda url, **_: Answer(url))


class TestChatGLM4V(ChatModelIntegrationTests):
    """All standard tests but those of audio, which the model does not hear."""

    @pytest.fixture(autouse=True)
    def _server(self, server: GLM4VServer) -> Iterator[None]:
        type(self).address = {"base_url": server.base_url, "api_key": server.api_key}
        yield

    address: dict[str, str]

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatGLM4V

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.address, "model": "tiny", "temperature": 0, "max_tokens": 1024}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str | None:
        return "tiny-alias"
