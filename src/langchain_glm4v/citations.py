"""Citations of pages: from what `GLM4VLoader` reads to the lines of a scan that an answer rests on.

What is whose in retrieval over scans: pages are read by `GLM4VLoader`. Splitters, embeddings,
vector stores and graphs are LangChain's and others', as you like; none of them is needed here. From
here come chunks that know where they stand on their page (`split_pages`), the numbered passages
that a model is asked about (`numbered`), the citations in its answer (`find_citations`), and their
pictures (`citation_picture`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from langchain_core.documents import BaseDocumentTransformer, Document

from langchain_glm4v.drawing import draw
from langchain_glm4v.errors import MediaError, RequestError
from langchain_glm4v.grounding import Box
from langchain_glm4v.media import document, image, pool, scan
from langchain_glm4v.media.source import HIDDEN
from langchain_glm4v.page_marks import Mark, find_marks, without_brackets
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.transcription import placing, sources

if TYPE_CHECKING:
    from PIL import Image

PROMPT = (
    "{passages}\n\nAnswer the question from these passages alone. After each fact, quote the words "
    'that say so and cite their passage, as in "Total: 12.50" [2]. If they do not say it, say so.'
    "\n\nQuestion: {question}"
)
"""Asks for an answer whose citations `find_citations` reads."""

LINES = "lines"
"""Key of a chunk's metadata: its lines of print, as JSON, for a vector store may take nothing else
than texts and numbers."""

_ROOM = 0.25  # between a line and what is drawn around it, in heights of the line
_APART = " ,，、;；"  # what may stand between marks side by side
_PAIRS = ("“”", "„“", "‘’", "「」", "『』", "«»", "``")
# A quote may go over the ends of lines, but not of paragraphs.
_QUOTED = r"((?:[^{0}\n]|\n(?!\s*\n)){{1,2000}}){0}"
_QUOTES = re.compile(
    "|".join(
        (
            r'(?<!\d)"' + _QUOTED.format('"'),  # behind a digit it stands for inches
            # Else an apostrophe; and between two of these stand other quotes, and marks.
            r"(?<!\w)'((?:[^'\"“\[【\n]|'(?=\w)|\n(?!\s*\n)){2,2000})'(?!\w)",
            *(pair[0] + _QUOTED.format(pair[1]) for pair in _PAIRS),
        )
    )
)


def split_pages(
    pages: Iterable[Document],
    splitter: BaseDocumentTransformer | None = None,
    *,
    password: str | None = None,
    allow_hosts: Sequence[str] = (),
) -> Iterator[Document]:
    """Split pages into chunks that know where they stand.

    Their pictures are rendered again, some at once, to see where their lines are.

    Args:
        pages: From `GLM4VLoader` in mode "page", with the metadata "source" and "page".
        splitter: Such as `RecursiveCharacterTextSplitter` of `langchain-text-splitters`. It must
            cut the text of a page and not change it. Where chunks overlap and rows are the same,
            only `add_start_index=True` tells which is which. Default: a page is a chunk.
        password: Of encrypted PDFs.
        allow_hosts: Hosts that may be fetched from though they are not public.

    Yields:
        The chunks, with the metadata of their page; "start_index", the place of their first
        character in the text of the page; and "lines", which `Citation` reads. A page without text
        has none.

    Raises:
        RequestError: If a page has no "source" or "page" or came as bytes, or the splitter changes
            the text.
        MediaError: If a page cannot be rendered again.
    """
    taken: dict[int, Document] = {}

    def numbers() -> Iterator[int]:
        for number, page in enumerate(pages):
            if page.page_content.strip():
                taken[number] = page
                yield number

    def chunks(number: int) -> list[Document]:
        return _chunks(taken.pop(number), splitter, password, allow_hosts)

    for found in pool.each(chunks, numbers()):
        yield from found


def _chunks(
    page: Document,
    splitter: BaseDocumentTransformer | None,
    password: str | None,
    allow_hosts: Sequence[str],
) -> list[Document]:
    text = page.page_content
    shown = _rendered(page, document.LONGEST_SIDE, password, allow_hosts)
    words = placing.place(text, shown.picture, _name(page), _turn(page)).words
    parts = [page] if splitter is None else splitter.transform_documents([page])
    chunks, start, end = [], -1, 0
    for part in parts:
        start = part.metadata.get("start_index", _start(text, part.page_content, start, end))
        end = start + len(part.page_content)
        if start < 0 or text[start:end] != part.page_content:
            raise RequestError(
                f"{part.page_content[:40]!r} does not stand so in {_name(page)}: use a splitter "
                "that cuts texts and does not change them"
            )
        lines = _lines([word for word in words if start <= word.start < end])
        metadata = {**part.metadata, "start_index": start, LINES: lines}
        chunks.append(Document(part.page_content, metadata=metadata))
    return chunks


def _start(text: str, part: str, last: int, end: int) -> int:
    """Where a chunk begins: as near as can be to the end of the last one, before it or after."""
    places = [text.rfind(part, last + 1, end + len(part) - 1), text.find(part, end)]
    return min((at for at in places if at >= 0), key=lambda at: abs(at - end), default=-1)


def _lines(words: Iterable[placing.Word]) -> str:
    """Words by the lines of print in which they stand: the text of each, and its box if known."""
    lines: list[tuple[int | None, list[placing.Word]]] = []
    for word in words:
        if not lines or lines[-1][0] != word.line:
            lines.append((word.line, []))
        lines[-1][1].append(word)
    return json.dumps([_line(line) for _, line in lines], ensure_ascii=False)


def _line(words: Sequence[placing.Word]) -> list[Any]:
    text = "".join(" " * word.space + word.text for word in words).strip()
    boxes = [word.box for word in words if word.box is not None]
    if not boxes:
        return [text]
    sides = [*zip(*boxes, strict=True)]
    edges = (min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3]))
    return [text, *(round(edge, 1) for edge in edges)]


@dataclass(frozen=True, slots=True)
class Citation:
    """What an answer rests on.

    Attributes:
        passage: A chunk of `split_pages`.
        quote: The words that are cited, as the model wrote them; "" for the whole passage.
    """

    passage: Document
    quote: str = ""

    @property
    def source(self) -> str:
        """Path or URL of the document; "" if the passage does not tell."""
        return _source(self.passage)

    @property
    def page(self) -> int | None:
        """The page, counted from 0; None if the passage has none."""
        return _page(self.passage)

    @property
    def boxes(self) -> list[Box]:
        """The lines that the quote stands in, in thousandths of the page as it was read.

        There are none if the quote does not stand in the passage (the model made it up), or if
        nobody knows where.

        Raises:
            RequestError: If the passage is no chunk of `split_pages`.
        """
        if LINES not in self.passage.metadata:
            raise RequestError(f"{_name(self.passage)} has no lines: make chunks by split_pages")
        lines = json.loads(self.passage.metadata[LINES])
        if self.quote:
            index = placing.Index((text, True) for text, *_ in lines)
            lines = [lines[at] for at in dict.fromkeys(index.find(self.quote))]
        return [Box(*sides) for _, *sides in lines if sides]

    def __str__(self) -> str:
        quoted = f'"{self.quote}" ' if self.quote else ""
        page = "" if self.page is None else f" p. {self.page + 1}"
        return f"{quoted}[{PurePath(self.source).name}{page}]"


def numbered(passages: Sequence[Document]) -> str:
    """Write passages for a prompt, each with its number, source and page, as `PROMPT` wants them.

    Args:
        passages: Chunks of `split_pages`, as a retriever gives them.
    """
    return "\n\n".join(
        f"[{number}] {_name(passage)}\n{passage.page_content}"
        for number, passage in enumerate(passages, 1)
    )


def find_citations(answer: str, passages: Sequence[Document]) -> list[Citation]:
    """Find what an answer cites.

    A mark is the number of a passage, `[2]`, or a page, `[scan.pdf p. 3]`, in whatever words. It
    cites what is quoted before it: since the last mark, in its line, or in that above if it has a
    line for itself. If nothing is, it cites what is quoted behind it, as in `[2] says "12.50"`, if
    that stands in its passage. Marks side by side cite the same. Marks in a quote are its own.

    Args:
        answer: The text of an answer to `PROMPT`, or to another that asks for such marks.
        passages: Those that it is about, in the order of their numbers.

    Returns:
        Each citation once, in order. Marks that lead to none of the passages are left out. A quote
        that stands in none of the passages of its mark has no boxes. A citation without a quote
        says that the answer names the passage, and nothing of what is in it.
    """
    quoted = [*_QUOTES.finditer(answer)]
    groups = _side_by_side(answer, quoted, passages)
    citations: list[Citation] = []
    last = 0
    for group, next_one in zip_longest(groups, groups[1:]):
        line = _line_of(answer, group)
        quotes = [
            found for found in quoted if last <= found.start() and line < found.end() <= group.begin
        ] or _behind(answer, quoted, group, next_one)
        last = max(group.end, quotes[-1].end() if quotes else 0)
        for cited, quote in product(group.cited, map(_words_of, quotes) if quotes else [""]):
            citations += _those(cited, quote)
    return [one for at, one in enumerate(citations) if one not in citations[:at]]


@dataclass(slots=True)
class _Group:
    """Marks side by side: where they are in the answer, and the passages that each leads to."""

    begin: int
    end: int
    cited: list[list[Document]]

    def holds(self, quote: str) -> bool:
        """Whether a quote stands in one of the passages."""
        return any(_holds(one, quote) for passages in self.cited for one in passages)


def _side_by_side(
    answer: str, quoted: Sequence[re.Match[str]], passages: Sequence[Document]
) -> list[_Group]:
    """The marks that lead to passages and are in no quote."""
    groups: list[_Group] = []
    for mark in find_marks(answer, map(_source, passages)):
        if any(found.start() < mark.begin and mark.end < found.end() for found in quoted):
            continue
        if not (cited := _meant(mark, passages)):
            continue
        if not groups or answer[groups[-1].end : mark.begin].strip(_APART):
            groups.append(_Group(mark.begin, mark.end, []))
        groups[-1].end = mark.end
        groups[-1].cited.append(cited)
    return groups


def _line_of(answer: str, group: _Group) -> int:
    """Where the line of marks begins; of those that have one for themselves, the line above."""
    line, end = answer.rfind("\n", 0, group.begin) + 1, answer.find("\n", group.end)
    around = answer[line : group.begin] + answer[group.end : end if end >= 0 else None]
    return line if around.strip(" .") else answer.rfind("\n", 0, max(line - 1, 0)) + 1


def _behind(
    answer: str, quoted: Iterable[re.Match[str]], group: _Group, next_one: _Group | None
) -> list[re.Match[str]]:
    """What is quoted behind marks, in their line, stands in their passages, and is no other's."""
    until = next_one.begin if next_one else len(answer)
    line, line_feed, _ = answer[group.end : until].partition("\n")
    end = group.end + len(line)
    # Right before the next marks, it is theirs.
    theirs = group.end + len(line.rstrip(_APART)) if next_one and not line_feed else None
    return [
        found
        for found in quoted
        if group.end <= found.start()
        and found.end() <= end
        and found.end() != theirs
        and group.holds(_words_of(found))
    ]


def _words_of(quoted: re.Match[str]) -> str:
    return str(next(filter(None, quoted.groups())))


def _those(passages: Sequence[Document], quote: str) -> list[Citation]:
    """A quote of each passage in which it stands; of all, if it stands in none."""
    meant = [passage for passage in passages if _holds(passage, quote)] or passages
    return [Citation(passage, quote) for passage in meant]


def _holds(passage: Document, quote: str) -> bool:
    if LINES in passage.metadata:
        return bool(Citation(passage, quote).boxes)
    return quote in passage.page_content


def _meant(mark: Mark, passages: Sequence[Document]) -> list[Document]:
    """The passages that a mark leads to."""
    if mark.items:
        return [
            passage
            for number, passage in enumerate(passages, 1)
            if any(number in span for span in mark.items)
        ]
    on_page = [
        passage
        for passage in passages
        if (page := _page(passage)) is not None and any(page + 1 in span for span in mark.pages)
    ]
    named = [one for one in on_page if _is_named(_source(one), mark.name)]
    if not named and mark.name.isdecimal():  # the number of a passage, as in [2, page 3]
        return [one for one in passages[int(mark.name) - 1 : int(mark.name)] if one in on_page]
    return named


def _is_named(source: str, name: str) -> bool:
    """Whether a name is that of a source; a mark without one may mean any."""
    path, name = str(PurePath(without_brackets(source).casefold())), name.casefold()
    # Models leave out what is in front, or behind; a relative path may be told in full.
    told = (f"/{path}", f"/{path.removesuffix(PurePath(path).suffix)}")
    return not name or any(one.endswith(f"/{name}") or name.endswith(one) for one in told)


def page_picture(
    passage: Document,
    *,
    longest_side: int = document.LONGEST_SIDE,
    password: str | None = None,
    allow_hosts: Sequence[str] = (),
) -> "Image.Image":
    """Render the page that a passage is of, turned as it was read.

    Args:
        passage: A page, or a chunk of one.
        longest_side: Pixels of the longer side of a page of a document. Default: 1540.
        password: Of an encrypted PDF.
        allow_hosts: As for `split_pages`.

    Raises:
        RequestError: If it has no metadata "source" and "page", or came as bytes.
        MediaError: If its document is gone, or cannot be rendered any more.
    """
    found = _rendered(passage, longest_side, password, allow_hosts)
    turn = _turn(passage)
    return image.upright(
        scan.turned(found.picture, turn, _name(passage)) if turn else found.picture
    )


def citation_picture(
    citation: Citation,
    *,
    longest_side: int = document.LONGEST_SIDE,
    password: str | None = None,
    allow_hosts: Sequence[str] = (),
) -> "Image.Image":
    """Render the page that is cited, with boxes around the lines that are quoted.

    Args:
        citation: Of whose boxes there may be none.
        longest_side: As for `page_picture`.
        password: Likewise.
        allow_hosts: Likewise.

    Raises:
        MediaError: As for `page_picture`.
    """
    page = page_picture(
        citation.passage, longest_side=longest_side, password=password, allow_hosts=allow_hosts
    )
    return draw(page, [_with_room(box, page.width / page.height) for box in citation.boxes])


def _with_room(box: Box, aspect: float) -> Box:
    """A box whose outline does not hide what is in it."""
    down = (box.bottom - box.top) * _ROOM
    across = down / aspect
    return Box(box.left - across, box.top - down, box.right + across, box.bottom + down, box.label)


def _rendered(
    page: Document, longest_side: int, password: str | None, allow_hosts: Sequence[str]
) -> sources.SourcePage:
    number, name = _page(page), _source(page)
    if number is None or not name:
        raise RequestError(
            'a document without the metadata "source" and "page" is no page: load it with '
            'mode="page"'
        )
    rendering = sources.Rendering(pages=[number], password=password, longest_side=longest_side)
    if name in sources.NAMELESS or name.endswith(HIDDEN):
        raise RequestError(
            f"{_name(page)} cannot be shown again, for {name!r} leads to no file: save what came "
            "as bytes, or from a URL with a query, as a file, and load that"
        )
    media = Preparation(allow_hosts=allow_hosts)
    (found,) = sources.pages(sources.Source(name, name), rendering, media)
    if found.error:
        raise MediaError(found.error)
    return found


def _turn(page: Document) -> scan.Turn:
    return cast("scan.Turn", int(page.metadata.get("turn", 0)))


def _page(passage: Document) -> int | None:
    """Number of a page, from 0; some vector stores make a float of it, and not all have one."""
    number = passage.metadata.get("page")
    return int(number) if isinstance(number, int | float) else None


def _source(passage: Document) -> str:
    return str(passage.metadata.get("source", ""))


def _name(passage: Document) -> str:
    page, source = _page(passage), _source(passage)
    return repr(source) if page is None else f"page {page + 1} of {source!r}"
