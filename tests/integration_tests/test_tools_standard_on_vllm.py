"""LangChain's own tests of tools, on the real vLLM."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from pydantic import SecretStr

from langchain_glm4v import (
    ChatGLM4V,
    DocumentTool,
    GLM4VServer,
    ImageTool,
    LocateTool,
    ReadTool,
    VideoTool,
)

MEDIA = Path(__file__).resolve().parents[2] / "examples" / "media"


class Tools(ToolsIntegrationTests):
    """All tests, of one tool."""

    kind: ClassVar[type[BaseTool]]
    arguments: ClassVar[dict[str, Any]]
    options: ClassVar[dict[str, Any]] = {}
    model: ClassVar[ChatGLM4V]

    @pytest.fixture(autouse=True)
    def _server(self, server: GLM4VServer) -> Iterator[None]:
        type(self).model = ChatGLM4V(
            base_url=server.base_url,
            api_key=SecretStr(server.api_key),
            model=server.served_model_name,
            sampling="deterministic",
            max_tokens=256,
        )
        yield

    @property
    def tool_constructor(self) -> type[BaseTool]:
        return self.kind

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"llm": self.model, "allowed_dirs": [MEDIA], **self.options}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.arguments


class TestImageTool(Tools):
    kind = ImageTool
    arguments: ClassVar = {"images": [str(MEDIA / "receipt.png")], "question": "What is the Total?"}


class TestVideoTool(Tools):
    kind = VideoTool
    arguments: ClassVar = {"video": str(MEDIA / "film.mp4"), "question": "What comes first?"}


class TestDocumentTool(Tools):
    kind = DocumentTool
    arguments: ClassVar = {"document": str(MEDIA / "scan.pdf"), "question": "What is the Total?"}
    options: ClassVar = {"longest_side": 784}


class TestLocateTool(Tools):
    kind = LocateTool
    arguments: ClassVar = {"image": str(MEDIA / "more_shapes.png"), "target": "the yellow star"}


class TestReadTool(Tools):
    kind = ReadTool
    arguments: ClassVar = {"source": str(MEDIA / "receipt.png")}


del Tools  # has no tool
