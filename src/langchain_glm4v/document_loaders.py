"""Documents and pictures as LangChain's `Document`s, read by the model: scans, slides, photos."""

import logging
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from langchain_core.document_loaders import BaseBlobParser, BaseLoader, Blob
from langchain_core.documents import Document

from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.errors import PageError
from langchain_glm4v.transcription.records import PageResult
from langchain_glm4v.transcription.sources import Rendering, Sources
from langchain_glm4v.transcription.transcriber import Options, Transcriber

_logger = logging.getLogger(__name__)

Mode: TypeAlias = Literal["page", "single"]
OnError: TypeAlias = Literal["raise", "warn", "skip"]

PAGES_DELIMITER = "\n\f"
"""Between the pages of a document that is one `Document`, as PyMuPDF's loaders have it."""


class LoadOptions(TypedDict, total=False):
    """Options of `GLM4VLoader` and `GLM4VBlobParser`.

    Attributes:
        llm: The model that reads. Default: `ChatGLM4V()`.
        mode: "page" (default): a `Document` for each page. "single": one for each file.
        pages: Which pages of each file: "1,3,5-7" counted from 1, or numbers from 0. Default: all.
        password: Of encrypted PDFs.
        pages_delimiter: Between pages, if `mode="single"`. Default: `PAGES_DELIMITER`.
        on_error: What becomes of a page that cannot be read, or whose text is not to be trusted.
            "raise" (default): a `PageError`. "warn": a warning, and a `Document` with what text
            there is and the metadata "error". "skip": nothing, in mode "single" an empty place, and
            a line in the log. The other pages keep their numbers.
        prompt: What the model is asked about each page. Default: for Markdown with tables as HTML
            and formulas as LaTeX; with a schema, for JSON.
        schema: What the answer about each page is bound to: a pydantic class or a JSON schema. The
            content is JSON then.
        longest_side: Pixels of the longer side of a page of a document. Default: 1540. Pictures are
            as large as `page_tokens` lets them be.
        page_tokens: Tokens of a page, at most. Default: 6084, which every server takes.
        text_layer: "ignore" (default): the model reads all pages. "auto": a page whose own text is
            good, which is no scan, is taken from the document: see `checks.is_good_layer`. Not
            with `schema`.
        scripts: Scripts that are expected, by their names in Unicode, such as `["cjk"]`, or of
            Japanese `["cjk", "hiragana", "katakana"]`; a page with many letters of others is
            read again. Default: any.
        temperatures: Temperature of each attempt at a page, None for the model's own: see
            `attempts.TEMPERATURES`.
        finds_turn: Whether a page that is hard to read is tried on its head and sides too. Default:
            it is.
        max_concurrency: Requests at once, at most. Default: 128. As many are made as the server can
            answer, if it tells; else 16, and fewer of one that refuses some with 429, or with 503
            and Retry-After. Pages that it refuses are asked for again; that is no attempt at them.
        cache: File of the pages that were read already: a run that was killed goes on from it.
            Default: none.
    """

    llm: ChatGLM4V
    mode: Mode
    pages: str | Sequence[int] | None
    password: str | None
    pages_delimiter: str
    on_error: OnError
    prompt: str
    schema: Any
    longest_side: int
    page_tokens: int
    text_layer: Literal["auto", "ignore"]
    scripts: Sequence[str]
    temperatures: Sequence[float | None]
    finds_turn: bool
    max_concurrency: int
    cache: str | os.PathLike[str] | None


# Option -> values that it may have.
_ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "mode": ("page", "single"),
    "on_error": ("raise", "warn", "skip"),
}
_RENDERING = {
    "pages": "pages",
    "password": "password",
    "longest_side": "longest_side",
    "page_tokens": "max_tokens",
}
_READING = (
    *("prompt", "schema", "text_layer", "scripts", "temperatures", "finds_turn"),
    "max_concurrency",
)


class _Reader:
    """What the loader and the parser have in common: results as `Document`s."""

    def __init__(self, options: LoadOptions) -> None:
        given: dict[str, Any] = dict(options)
        if unknown := sorted(given.keys() - LoadOptions.__annotations__.keys()):
            raise TypeError(f"there is no option {', '.join(unknown)}: see LoadOptions")
        for name, accepted in _ACCEPTED.items():
            if given.get(name, accepted[0]) not in accepted:
                raise ValueError(
                    f"{name} is {given[name]!r}: it must be one of {', '.join(accepted)}"
                )
        self._mode: Mode = given.get("mode", "page")
        self._delimiter: str = given.get("pages_delimiter", PAGES_DELIMITER)
        self._on_error: OnError = given.get("on_error", "raise")
        rendering = Rendering(
            **{field: given[name] for name, field in _RENDERING.items() if name in given}
        )
        cache = given.get("cache")
        self._transcriber = Transcriber(
            given.get("llm") or ChatGLM4V(),
            Options(
                rendering=rendering,
                cache=None if cache is None else Path(cache),
                **{name: given[name] for name in _READING if name in given},
            ),
        )

    def documents(self, given: Sources) -> Generator[Document]:
        steps = _Joined(self._delimiter) if self._mode == "single" else _Apart()
        with closing(self._transcriber.pages(given)) as results:
            for result in results:
                yield from steps.add(result, is_kept=self._is_kept(result))
        yield from steps.rest()

    async def adocuments(self, given: Sources) -> AsyncGenerator[Document]:
        steps = _Joined(self._delimiter) if self._mode == "single" else _Apart()
        async with aclosing(self._transcriber.apages(given)) as results:
            async for result in results:
                for document in steps.add(result, is_kept=self._is_kept(result)):
                    yield document
        for document in steps.rest():
            yield document

    def _is_kept(self, result: PageResult) -> bool:
        """Whether a result becomes a document, or part of one; tells of its error."""
        if not result.error:
            return True
        told = f"{result.name}: {result.error}"
        if self._on_error == "raise":
            raise PageError(f'{told}; or go on with on_error="warn" or "skip"')
        if self._on_error == "warn":
            warnings.warn(told, stacklevel=3)
            return True
        _logger.warning("left out: %s", told)
        return False


class GLM4VLoader(BaseLoader):
    """Loads documents and pictures through the model that reads them.

    Pages are read many at once, as many as the server can answer, and come in order. Memory does
    not grow with their number.

    Example:
        ```python
        from langchain_glm4v import ChatGLM4V, GLM4VLoader

        with ChatGLM4V.managed("zai-org/GLM-4.1V-9B-Thinking") as model:
            loader = GLM4VLoader("scans/", llm=model, cache="pages.sqlite", on_error="warn")
            for document in loader.lazy_load():
                print(document.metadata["source"], document.metadata["page"])
        ```

    Args:
        source: A path, a URL, a pattern such as `"scans/**/*.pdf"`, a folder, bytes or a `Blob`, or
            several of these. PDF, slides, office documents, and pictures.
        **options: See `LoadOptions`.

    The metadata of a document are `source`, `total_pages`, `format`, `title`, `author`, `subject`,
    `creator`, `producer`, `creationdate`, `moddate`; `page` (counted from 0, in mode "page");
    `origin` of the text ("model", "text layer", "blank" or "none"), `model`, `confidence` (0 to 1,
    the least of all pages; only where a model told), `turn` (degrees, in mode "page"), `attempts`,
    `input_tokens`, `output_tokens`, `seconds`, `from_cache`; and `error` where there is one. Those
    of a `Blob` are kept, but where the document tells of itself.

    Raises:
        ValueError: If an option has a value that is not accepted; as a `RequestError` if it is one
            of the reading.
        PageError: By loading, if a page cannot be read and `on_error="raise"`.
        MediaNotFoundError: By loading, if a path leads to nothing.
        CacheError: By loading, if the cache cannot be used.
        ServerUnreachableError: By loading, if no server answers; what was read is in the cache.
    """

    def __init__(self, source: Sources, **options: Unpack[LoadOptions]) -> None:
        # What can be taken but once is kept: it may be loaded again. Open files are no sources.
        is_once = isinstance(source, Iterator) and not hasattr(source, "read")
        self._source = [*source] if is_once else source
        self._reader = _Reader(options)

    def lazy_load(self) -> Iterator[Document]:
        """Load one document after the other; the next pages are read meanwhile."""
        return self._reader.documents(self._source)

    def alazy_load(self) -> AsyncIterator[Document]:
        """As `lazy_load`."""
        return self._reader.adocuments(self._source)


class GLM4VBlobParser(BaseBlobParser):
    """Parses blobs of documents and pictures, for loaders that find files by themselves.

    Pages of a blob are read many at once, but one blob after the other: for many pictures,
    `GLM4VLoader`, which takes blobs too, is faster.

    Args:
        **options: See `LoadOptions`.
    """

    def __init__(self, **options: Unpack[LoadOptions]) -> None:
        self._reader = _Reader(options)

    def lazy_parse(self, blob: Blob) -> Iterator[Document]:
        """Parse a blob, as `GLM4VLoader.lazy_load` does."""
        return self._reader.documents(blob)

    def alazy_parse(self, blob: Blob) -> AsyncIterator[Document]:
        """As `lazy_parse`."""
        return self._reader.adocuments(blob)


class _Apart:
    """Makes a document of each page."""

    def add(self, result: PageResult, *, is_kept: bool) -> Iterator[Document]:
        if not is_kept:
            return
        page = {} if result.number is None else {"page": result.number}
        metadata = {**_facts(result), **page, **_told(result)}
        yield Document(result.reading.text, metadata=metadata)

    def rest(self) -> Iterator[Document]:
        yield from ()


class _Joined:
    """Makes a document of the pages of each file; one that is left out leaves its place empty."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._pages: list[tuple[PageResult, bool]] = []

    def add(self, result: PageResult, *, is_kept: bool) -> Iterator[Document]:
        if self._pages and self._pages[0][0].document is not result.document:
            yield from self.rest()
        self._pages.append((result, is_kept))

    def rest(self) -> Iterator[Document]:
        pages, self._pages = self._pages, []
        if kept := [page for page, is_kept in pages if is_kept]:
            yield Document(
                self._delimiter.join(
                    page.reading.text if is_kept else "" for page, is_kept in pages
                ),
                metadata={**_facts(kept[0]), **_together(kept)},
            )


def _facts(result: PageResult) -> dict[str, Any]:
    document = result.document
    told = {
        "source": document.source,
        "total_pages": document.total_pages,
        "format": document.format,
        "title": document.title,
        "author": document.author,
        "subject": document.subject,
        "creator": document.creator,
        "producer": document.producer,
        "creationdate": document.created,
        "moddate": document.modified,
    }
    # What the document does not tell of itself, whoever made a blob of it may know.
    known = document.metadata
    return {**known, **{k: v for k, v in told.items() if v != "" or k not in known}}


def _told(result: PageResult) -> dict[str, Any]:
    """What is told of a page; no value is None, which some vector stores refuse."""
    reading = result.reading
    confidence = {} if reading.confidence is None else {"confidence": reading.confidence}
    return {
        "origin": reading.origin,
        "model": reading.model,
        **confidence,
        "turn": reading.turn,
        "attempts": reading.attempts,
        "input_tokens": reading.input_tokens,
        "output_tokens": reading.output_tokens,
        "seconds": reading.seconds,
        "from_cache": result.from_cache,
        **({"error": result.error} if result.error else {}),
    }


_SUMMED = ("attempts", "input_tokens", "output_tokens", "seconds")


def _together(results: Sequence[PageResult]) -> dict[str, Any]:
    """What is told of several pages as one."""
    pages = [_told(result) for result in results]
    confidences = [page["confidence"] for page in pages if "confidence" in page]
    errors = [f"{result.name}: {result.error}" for result in results if result.error]
    return {
        "origin": ", ".join(dict.fromkeys(page["origin"] for page in pages)),
        "model": ", ".join(dict.fromkeys(filter(None, (page["model"] for page in pages)))),
        **({"confidence": min(confidences)} if confidences else {}),
        **{name: sum(page[name] for page in pages) for name in _SUMMED},
        "from_cache": all(page["from_cache"] for page in pages),
        **({"error": "; ".join(errors)} if errors else {}),
    }
