"""LangChain's own tests of tools that need no server, and a call on one that a test speaks for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.unit_tests import ToolsUnitTests
from vision_server import serving

from langchain_glm4v import (
    ChatGLM4V,
    DocumentTool,
    ImageTool,
    LocateTool,
    ReadTool,
    VideoTool,
)

MEDIA = Path(__file__).resolve().parents[2] / "examples" / "media"


class Tools(ToolsUnitTests):
    """All tests, of one tool."""

    kind: ClassVar[type[BaseTool]]
    arguments: ClassVar[dict[str, Any]]
    model: ClassVar[ChatGLM4V]

    @pytest.fixture(autouse=True)
    def _server(self, vllm: Any) -> Iterator[None]:
        with serving(vllm, lambda _: "<think>I see.</think><answer>[[1,2,3,4]]</answer>") as server:
            type(self).model = server.model()
            yield

    @property
    def tool_constructor(self) -> type[BaseTool]:
        return self.kind

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"llm": self.model, "allowed_dirs": [MEDIA]}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.arguments

    async def test_it_succeeds_and_describes_every_argument(self, tool: BaseTool) -> None:
        call = {"name": tool.name, "args": self.arguments, "id": "1", "type": "tool_call"}
        assert (await tool.ainvoke(call)).status == "success"
        assert all(argument["description"] for argument in tool.args.values())

    def test_its_schema_has_nothing_that_burdens_a_prompt(self, tool: BaseTool) -> None:
        told = json.dumps(tool.get_input_jsonschema())
        assert "Length" not in told
        assert "anyOf" not in told


class TestImageTool(Tools):
    kind = ImageTool
    arguments: ClassVar = {"images": [str(MEDIA / "receipt.png")], "question": "Total?"}


class TestVideoTool(Tools):
    kind = VideoTool
    arguments: ClassVar = {"video": str(MEDIA / "film.mp4"), "question": "What?", "end": 2}


class TestDocumentTool(Tools):
    kind = DocumentTool
    arguments: ClassVar = {"document": str(MEDIA / "scan.pdf"), "question": "?", "pages": "1"}


class TestLocateTool(Tools):
    kind = LocateTool
    arguments: ClassVar = {"image": str(MEDIA / "shapes.png"), "target": "the red circle"}


class TestReadTool(Tools):
    kind = ReadTool
    arguments: ClassVar = {"source": str(MEDIA / "scan.pdf"), "pages": "1"}


del Tools  # has no tool
