"""The graphs that the documentation shows are those of the examples.

Their pictures are made of the `.mmd` files by `mmdc` of mermaid-cli: -i … -o … --scale 2.
"""

import re
from pathlib import Path

from pydantic import SecretStr

import page_workflow
from langchain_glm4v import ChatGLM4V

GRAPHS = Path(__file__).parents[2] / "docs/graphs"
EDGE = re.compile(r"^\s*(\w+) (-->|-\.->) (\w+);$", re.MULTILINE)


def drawn(name: str) -> set[tuple[str, str, bool]]:
    """The edges of a drawing, and whether each is taken under a condition."""
    edges = EDGE.findall((GRAPHS / f"{name}.mmd").read_text())
    assert (GRAPHS / f"{name}.png").is_file()
    return {(begin, end, arrow == "-.->") for begin, arrow, end in edges}


def test_page_workflow(tmp_path: Path) -> None:
    at = "http://127.0.0.1:1/v1"
    model = ChatGLM4V(base_url=at, api_key=SecretStr("key"), model="glm")
    graph = page_workflow.build(model, tmp_path).get_graph()
    assert drawn("page_workflow") == {
        (edge.source, edge.target, edge.conditional) for edge in graph.edges
    }
