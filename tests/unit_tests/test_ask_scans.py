"""The parts of the example that need no model."""

from contextlib import closing
from pathlib import Path

from langchain_core.documents import Document
from PIL import Image
from pydantic import SecretStr
from qdrant_client import QdrantClient

import ask_scans
from langchain_glm4v import ChatGLM4V


def test_words_are_those_of_the_script() -> None:
    assert ask_scans.words("Total: 75.55, on 2026-03-08") == {"total", "75.55", "on", "2026-03-08"}
    assert ask_scans.words("总金额4500.00元") == {*"总金额元", "4500.00"}
    assert ask_scans.words("…!") == set()


def test_the_line_that_holds_an_answer_is_cited() -> None:
    text = "一、甲方：蓝港酒店\n二、总金额：人民币四千五百元整\n三、日期：2026年3月8日"
    rows = [
        f'["{line}", 0, {100 * number}, 900, {100 * number + 90}]'
        for number, line in enumerate(text.splitlines())
    ]
    metadata = {"source": "a.pdf", "page": 0, "lines": f"[{', '.join(rows)}]"}
    found = ask_scans.cite("四千五百元", "总金额是多少？", [Document(text, metadata=metadata)])
    assert found.quote == "二、总金额：人民币四千五百元整"
    assert [box.top for box in found.boxes] == [100]


def test_answers_come_from_the_scans_that_are_given(tmp_path: Path) -> None:
    chunks = [
        Document("Total: 75.55", metadata={"source": name, "page": 0, "start_index": 0})
        for name in ("now.pdf", "before.pdf")
    ]
    model = ChatGLM4V(base_url="http://127.0.0.1:1/v1", api_key=SecretStr("key"), model="glm")
    with closing(QdrantClient(":memory:")) as client:
        store = ask_scans.open_store(client)
        store.add_documents(chunks)
        found = []
        for sources in (None, ["now.pdf"], []):
            graph = ask_scans.build(model, store, tmp_path, sources=sources)
            state = graph.nodes["retrieve"].invoke({"question": "What is the Total?"})
            found.append({page.metadata["source"] for page in state["pages"]})
    assert found == [{"now.pdf", "before.pdf"}, {"now.pdf"}, set()]


def test_a_scan_that_changed_is_indexed_anew(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.new("RGB", (560, 784), "white").save(path)

    def page(lines: int) -> Document:
        text = "\n".join(f"Line {number}: of {lines} lines" for number in range(lines))
        return Document(text, metadata={"source": str(path), "page": 0})

    with closing(QdrantClient(":memory:")) as client:
        store = ask_scans.open_store(client)
        for lines in (100, 3):
            ask_scans.index([page(lines)], store)
        (chunk,) = ask_scans.chunks_of(page(3), store)
    assert chunk.page_content == page(3).page_content
