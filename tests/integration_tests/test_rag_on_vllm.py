"""Questions over scanned documents: the right page is found, answered from, and cited."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
from langchain_core.documents import Document
from langgraph.graph.state import CompiledStateGraph
from PIL import Image, ImageChops
from qdrant_client import QdrantClient

import ask_scans
import slips
from langchain_glm4v import Box, ChatGLM4V, GLM4VLoader
from langchain_glm4v.citations import page_picture
from langchain_glm4v.document_loaders import LoadOptions

Graph: TypeAlias = CompiledStateGraph[ask_scans.State, None, ask_scans.State, ask_scans.State]

SHOPS = ("Green Garden Shop", "Blue Harbor Hotel", "Corner Bakery", "City Book Store", "River Cafe")
FIRST = ("Ada", "Ben", "Clara", "David", "Elena", "Felix", "Grace", "Henry", "Ida", "Julia")
LAST = ("Baker", "Clark", "Evans", "Fischer", "Hall", "King", "Lopez", "Meyer", "Novak", "Silva")
PAGES = 3  # of each document


@dataclass(frozen=True)
class Scan:
    """A page of a document, and what stands on it."""

    path: Path
    number: int
    lines: list[str]

    @property
    def fields(self) -> dict[str, str]:
        return {"Shop": self.lines[0], **dict(line.split(": ") for line in self.lines[1:])}

    def box(self, line: str) -> Box:
        edges = slips.edges(self.lines.index(line), line)
        return Box.from_pixels(edges, *slips.SIZE)


@dataclass(frozen=True)
class Question:
    """A question, and the line of the page that answers it."""

    text: str
    scan: Scan
    label: str

    @property
    def answer(self) -> str:
        return self.scan.fields[self.label]

    @property
    def line(self) -> str:
        return f"{self.label}: {self.answer}"


def scanned(folder: Path) -> list[Scan]:
    """Five documents, each of one shop; nobody was in two of them."""
    rng = random.Random(7)
    guests = iter(rng.sample([f"{one} {other}" for one in FIRST for other in LAST], 30))
    scans = []
    for shop in SHOPS:
        path = folder / f"{shop.replace(' ', '-').lower()}.pdf"
        for number in range(PAGES):
            lines = [
                shop,
                f"Invoice: {rng.randrange(10_000, 100_000)}",
                f"Guest: {next(guests)}",
                f"Date: 2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
                f"Bread: {rng.randrange(100, 1_000) / 100:.2f}",
                f"Tea: {rng.randrange(100, 1_000) / 100:.2f}",
                f"Total: {rng.randrange(1_000, 10_000) / 100:.2f}",
            ]
            scans.append(Scan(path, number, lines))
        slips.save(path, [slips.drawn(scan.lines) for scan in scans[-PAGES:]])
    return scans


def asked(scans: list[Scan]) -> list[Question]:
    """Two questions about each page, one of them by a number alone."""
    questions = []
    for scan in scans:
        fields = scan.fields
        guest = f"{fields['Guest']} was at the {fields['Shop']}. What is the Total?"
        questions.append(Question(guest, scan, "Total"))
        label = "Bread" if scan.number % 2 else "Date"
        number = f"What is the {label} of invoice {fields['Invoice']}?"
        questions.append(Question(number, scan, label))
    return questions


@pytest.fixture(scope="module")
def graph(model: ChatGLM4V, scans: list[Scan]) -> Iterator[Graph]:
    """The example over an index of the scans, in files."""
    folder = scans[0].path.parent
    cache = folder / "pages.sqlite"
    options: LoadOptions = {**ask_scans.MINIATURE, "llm": model, "cache": cache}
    loader = GLM4VLoader(folder, **options)
    with closing(QdrantClient(path=str(folder / "index"))) as client:
        store = ask_scans.open_store(client)
        ask_scans.index(loader.lazy_load(), store)
        yield ask_scans.build(
            model,
            store,
            folder,
            ask=ask_scans.ask_miniature,
            longest_side=ask_scans.SIDE_MINIATURE,
        )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    return scanned(tmp_path_factory.mktemp("scans"))


def is_of(scan: Scan, page: Document) -> bool:
    place = page.metadata["source"], page.metadata["page"]
    return place == (str(scan.path), scan.number)


def test_answers_cite_the_line_that_holds_them(graph: Graph, scans: list[Scan]) -> None:
    """30 questions: page retrieved, page cited, answer and box, each right for 95 % and more."""
    questions = asked(scans)
    found = graph.batch([{"question": question.text} for question in questions])
    right = Counter[str]()
    for question, state in zip(questions, found, strict=True):
        answer: ask_scans.Finding = state["answer"]
        wanted = question.scan.box(question.line)
        right["retrieved"] += is_of(question.scan, state["pages"][0])
        right["cited"] += is_of(question.scan, answer.citation.passage)
        right["answered"] += answer.answer == question.answer
        right["boxed"] += [box.iou(wanted) >= 0.5 for box in answer.citation.boxes] == [True]
        right["confirmed"] += not answer.doubts
    assert len(questions) == 30
    assert {name: count for name, count in right.items() if count < 0.95 * 30} == {}


def test_what_cannot_be_confirmed_says_so(graph: Graph) -> None:
    state = graph.invoke({"question": "What is the Total of invoice 12?"})
    assert len(state["findings"]) == ask_scans.PAGES
    assert state["answer"].doubts == ["12 is not on the page"]
    assert "Not confirmed: 12 is not on the page." in Path(state["written"]).read_text()


def test_what_no_page_says_is_not_answered(graph: Graph) -> None:
    state = graph.invoke({"question": "What is the Phone?"})
    told = Path(state["written"])
    assert told.read_text() == "What is the Phone?\n\nNo page that was found answers this.\n"
    assert not told.with_suffix(".png").exists()


def test_a_picture_shows_the_line(graph: Graph, scans: list[Scan]) -> None:
    question = asked(scans)[0]
    state = graph.invoke({"question": question.text})
    shown = Image.open(Path(state["written"]).with_suffix(".png")).convert("RGB")
    plain = page_picture(state["answer"].citation.passage, longest_side=784)
    assert shown.size == plain.size == slips.SIZE
    left, top, right, bottom = ImageChops.difference(shown, plain).getbbox() or (0, 0, 0, 0)
    around = Box.from_pixels((left, top, right, bottom), *shown.size)
    assert around.iou(question.scan.box(question.line)) > 0.4
