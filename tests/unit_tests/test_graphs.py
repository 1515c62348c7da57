"""The graphs that the documentation shows are those of the examples.

Their pictures are made of the `.mmd` files by `mmdc` of mermaid-cli: -i … -o … --scale 2.
"""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph.state import CompiledStateGraph
from pydantic import SecretStr
from qdrant_client import QdrantClient

import ask_scans
import page_workflow
from langchain_glm4v import ChatGLM4V

GRAPHS = Path(__file__).parents[2] / "docs/graphs"
EDGE = re.compile(r"^\s*(\w+) (-->|-\.->) (\w+);$", re.MULTILINE)


def drawn(name: str) -> set[tuple[str, str, bool]]:
    """The edges of a drawing, and whether each is taken under a condition."""
    edges = EDGE.findall((GRAPHS / f"{name}.mmd").read_text())
    assert (GRAPHS / f"{name}.png").is_file()
    return {(begin, end, arrow == "-.->") for begin, arrow, end in edges}


def edges(graph: CompiledStateGraph[Any, Any, Any, Any]) -> set[tuple[str, str, bool]]:
    return {(edge.source, edge.target, edge.conditional) for edge in graph.get_graph().edges}


@pytest.fixture(scope="module")
def model() -> ChatGLM4V:
    at = "http://127.0.0.1:1/v1"
    return ChatGLM4V(base_url=at, api_key=SecretStr("key"), model="glm")


def test_page_workflow(model: ChatGLM4V, tmp_path: Path) -> None:
    assert drawn("page_workflow") == edges(page_workflow.build(model, tmp_path))


def test_ask_scans(model: ChatGLM4V, tmp_path: Path) -> None:
    with closing(QdrantClient(":memory:")) as client:
        graph = ask_scans.build(model, ask_scans.open_store(client), tmp_path)
    assert drawn("ask_scans") == edges(graph)
