"""Documents: pages of PDFs, and slides of decks, as pictures.

A document is judged by its content, never by its name. PyMuPDF runs in decoding processes alone
(`pool`): it holds the interpreter's lock, and must not run in two threads at once.
"""

import functools
import io
import operator
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import office, pool
from langchain_glm4v.media.budget import (
    CELL,
    DEFAULT_IMAGE_TOKENS,
    MAX_ASPECT,
    check_count,
    check_limits,
    image_tokens,
)
from langchain_glm4v.media.source import Given, local_file, name_of, version

LONGEST_SIDE = 1540
"""Pixels of the longer side of a page, unless told otherwise.

It shows an A4 page in 1092x1540 pixels, 2,145 tokens, where print of 8 points can be read.
"""

CHOOSE_PAGES = 'choose some, as in pages="1-10"'
"""What to do about a document of too many pages."""

_KIND = "document"  # in error messages
_JPEG_QUALITY = 90
# Percent of the 256 MiB for fonts and pictures that are freed after a page, of those first that
# were used longest ago: the fonts of a text stay, the pictures of a scan go. Without fonts it takes
# twice the time.
_FORGOTTEN = 90
# What MuPDF says where it drew a picture in part; it says much of pages that look as they should.
_IN_PART = ("padding truncated image", "premature end of file in jpeg")
_RANGE = re.compile(r"(\d{0,18})(-?)(\d{0,18})")  # of many more digits, Python makes no number
# D:20260308101530+01'00', of which all behind the year may be missing
_DATE = re.compile(r"D?:?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:([-+Z])(\d\d)?'?(\d\d)?)?")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document.

    Attributes:
        number: Its number, counted from 0.
        width: Pixels of the picture, a multiple of 28, so that the model does not scale it again.
        height: Pixels, likewise.
        data: The picture, a JPEG.
        text: The document's own text of the page; "" if it has none, as in a scan.
        pictured: Share of the page that its pictures cover, 0 to 1; 0 if it has no text.
        notes: The speaker's notes of a slide of a PPTX; else "".
        rotation: Degrees by which the page is shown turned, clockwise; the picture is turned.
        tokens: What the picture costs in the prompt, without the two marks around it.
        damage: What MuPDF says is missing of the page, for data of a picture on it are damaged;
            "" if nothing is known to be.
    """

    number: int
    width: int
    height: int
    data: bytes = field(repr=False)
    text: str = field(repr=False)
    pictured: float
    notes: str = field(repr=False)
    rotation: int
    tokens: int
    damage: str


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page of a document that cannot be shown.

    Attributes:
        number: Its number, counted from 0.
        error: Why.
    """

    number: int
    error: MediaError


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What a document says of itself.

    Attributes:
        format: "PDF", or what LibreOffice made the PDF of: "PPTX", "PPT", "ODP", "DOCX", "DOC" or
            "ODT".
        page_count: Its pages, or slides.
        encrypted: Whether it is encrypted, be it that it opens without a password.
        title: "" if none is given, as are those below.
        author: Who wrote it.
        subject: What it is about.
        creator: The program it was written with.
        producer: The program that made the PDF of it.
        created: When; None if that is not given, or in no form that PDF knows, or if it was
            converted. It has a time zone if the document gives one.
        modified: When it was last changed, likewise.
    """

    format: str
    page_count: int
    encrypted: bool
    title: str
    author: str
    subject: str
    creator: str
    producer: str
    created: datetime | None
    modified: datetime | None


def info(source: Given, *, password: str | None = None, name: str | None = None) -> DocumentInfo:
    """Read what a document says of itself; no page is rendered.

    Args:
        source: A PDF, or a document that `office` converts: a path, a `file://`, `data:` or
            `http(s)://` URL, its bytes, or a `Blob` of LangChain's.
        password: The password of an encrypted PDF.
        name: What error messages call the document. Default: its path.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If the file is no document, or damaged.
        MediaError: If the password is missing or wrong, PyMuPDF or LibreOffice is needed and not
            installed, or the document crashes them or takes too long.
    """
    with _opened(source, password, name) as (_, found, _):
        return found


def pages(
    source: Given,
    *,
    pages: str | Iterable[int] | None = None,
    longest_side: int = LONGEST_SIDE,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    password: str | None = None,
    name: str | None = None,
    at_most: int | None = None,
    workers: int = pool.SIZE,
    timeout: int = pool.TIMEOUT,
) -> Iterator[Page]:
    """Render pages of a document as pictures for the model, one by one as they are taken.

    Only a few pages are in memory at any time, however many the document has.

    Args:
        source: A PDF, or a document that `office` converts: a path, a `file://`, `data:` or
            `http(s)://` URL, its bytes, or a `Blob` of LangChain's.
        pages: Which ones, in the order wanted. A string counts them from 1, as people do:
            "1,3,5-7", "-3" the first three, or all if there are fewer, "5-" from the fifth on.
            Numbers count from 0, as `Page.number` does. Default: all.
        longest_side: Pixels of the longer side, rounded down to a multiple of 28; less where the
            page would cost more than `max_tokens`.
        max_tokens: Tokens of a page, at most: 16 to 6,144. Default: 6,084, which every server
            takes.
        password: The password of an encrypted PDF.
        name: What error messages call the document. Default: its path.
        at_most: Pages that may be asked for. Default: any number.
        workers: Processes that render at once, `pool.SIZE` at most.
        timeout: Whole seconds that a page may take.

    Yields:
        The pages. The errors below come when the first one is taken, or the page they are about.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If the file is no document, or damaged.
        MediaError: If the password is missing or wrong, a page does not exist, cannot be rendered
            or is too long and narrow, there is no page or more than `at_most`, the file changes
            meanwhile, PyMuPDF or LibreOffice is needed and not installed, the document crashes
            them or takes too long, or an option has a value that is not accepted.
    """
    for page in tried_pages(
        source,
        pages=pages,
        longest_side=longest_side,
        max_tokens=max_tokens,
        password=password,
        name=name,
        at_most=at_most,
        workers=workers,
        timeout=timeout,
    ):
        if isinstance(page, FailedPage):
            raise page.error
        yield page


def tried_pages(
    source: Given,
    *,
    pages: str | Iterable[int] | None = None,
    longest_side: int = LONGEST_SIDE,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    password: str | None = None,
    name: str | None = None,
    at_most: int | None = None,
    workers: int = pool.SIZE,
    timeout: int = pool.TIMEOUT,
) -> Iterator[Page | FailedPage]:
    """As `pages`, but a page that cannot be shown does not keep back those after it.

    Args:
        source: As for `pages`, as are those below.
        pages: Which ones.
        longest_side: Pixels of the longer side.
        max_tokens: Tokens of a page, at most.
        password: The password of an encrypted PDF.
        name: What error messages call the document.
        at_most: Pages that may be asked for.
        workers: Processes that render at once.
        timeout: Whole seconds that a page may take.

    Yields:
        The pages, and in the place of each that cannot be shown, why.

    Raises:
        MediaError: As `pages`, where it is not about one page alone.
    """
    check_limits(max_tokens, longest_side)
    if not isinstance(workers, int) or workers < 1:
        raise MediaError(f"workers is {workers!r}: give a whole number above 0")
    with _opened(source, password, name) as (file, found, notes):
        numbers = page_numbers(pages, found.page_count, file.name)
        check_count(file.name, len(numbers), at_most, CHOOSE_PAGES)

        def rendered(number: int) -> Page | FailedPage:
            try:
                page = pool.call(
                    _render,
                    *(file, number, longest_side, max_tokens),
                    subject=f"page {number + 1} of {file.name}",
                    timeout=timeout,
                )
            except MediaError as error:
                return FailedPage(number, error)
            return replace(page, notes=notes[number]) if notes else page

        yield from pool.each(rendered, numbers, at_once=workers)


@contextmanager
def as_pdf(
    source: Given, *, password: str | None = None, name: str | None = None
) -> Iterator[Path]:
    """A document as a PDF: the file itself, or what `office` makes of it.

    Args:
        source: As for `pages`, as are those below.
        password: The password of an encrypted PDF.
        name: What error messages call the document.

    Yields:
        The path of a file that is only to be read.

    Raises:
        MediaError: As for `info`.
    """
    with _opened(source, password, name) as (file, _, _):
        yield Path(file.path)


def page_numbers(
    pages: str | Iterable[int] | None, count: int, name: str, *, cuts_spans: bool = False
) -> list[int]:
    """Find the numbers of the pages asked for, from 0.

    Args:
        pages: As for `pages`.
        count: Pages of the document.
        name: What error messages call it.
        cuts_spans: Whether "4-9" are the last two pages of five, and no error: where several
            documents are asked for the same pages.

    Raises:
        MediaError: If a page does not exist, or there is none.
    """
    if count == 0:
        raise MediaError(f"{name} has no pages: give a document with at least one")
    if pages is None:
        return [*range(count)]
    if not isinstance(pages, str):
        numbers = []
        for number in _whole_numbers(pages):
            _check(number + 1, count, name, f" (number {number} counted from 0)")
            numbers.append(number)
        if not numbers:
            raise MediaError(f"pages={pages!r} names no pages of {name}: give at least one")
        return numbers
    return [
        number
        for begin, end in _ranges(pages)
        for number in _range(begin, end, count, name, is_cut=not begin or cuts_spans)
    ]


def check_pages(pages: str | Iterable[int] | None) -> None:
    """Refuse what names no pages of any document.

    Raises:
        MediaError: If it does not.
    """
    if isinstance(pages, str):
        _ranges(pages)
    elif pages is not None:
        [*_whole_numbers(pages)]


@dataclass(frozen=True, slots=True)
class _File:
    """A PDF that is there, as decoding processes are told of it."""

    path: str
    version: tuple[int, ...]
    name: str
    password: str | None = field(repr=False)


@contextmanager
def _opened(
    source: Given, password: str | None, name: str | None
) -> Iterator[tuple[_File, DocumentInfo, list[str]]]:
    """The PDF, what it says of itself, and the notes of each slide if there are such."""
    name = repr(name) if name else name_of(source, _KIND)
    with local_file(source, _KIND) as path:
        kind = pool.call(office.detect, str(path), name, subject=name)
        if kind is None:
            file = _File(str(path), version(path), name, password)
            yield file, pool.call(_inspect, file, subject=name), []
            return
        converted = office.to_pdf(path, kind, name)
        notes = pool.call(office.notes, str(path), name, subject=name) if kind.has_notes else []
        file = _File(str(converted.path), version(converted.path), name, None)
        made = pool.call(_inspect, file, subject=name)
        if kind.has_notes and not notes:  # LibreOffice makes a blank page of no slides
            made = replace(made, page_count=0)
        # Without hidden slides, as old versions of LibreOffice leave them out, none can be placed.
        numbered = notes if len(notes) == made.page_count else []
        # Of the conversion, and not of the document.
        own = replace(made, creator="", producer="", created=None, modified=None)
        yield file, replace(own, format=kind.name), numbered


def _whole_numbers(pages: Iterable[Any]) -> Iterator[int]:
    try:
        yield from map(operator.index, pages)
    except TypeError as error:
        raise MediaError(
            f"pages={pages!r} is no list of whole numbers: write it so, counted from 0, or as in "
            '"1,3,5-7"'
        ) from error


def _ranges(pages: str) -> list[tuple[str, str]]:
    """First and last page of each part, counted from 1; "" where a part leaves it open."""
    found = [_RANGE.fullmatch(part) for part in pages.replace(" ", "").split(",")]
    if not all(part and part[1] + part[3] for part in found):
        raise MediaError(
            f'pages={pages!r} names no pages: write it as in "1,3,5-7", "-3" or "5-", from 1'
        )
    ranges = [(part[1], part[3]) if part[2] else (part[0], part[0]) for part in found if part]
    for begin, end in ranges:
        first, last = int(begin or 1), int(end or begin)
        if not 1 <= first <= last:
            wrong = "they are counted from 1" if 0 in (first, last) else "turn them round"
            raise MediaError(f"pages={pages!r}: pages {first} to {last} are none: {wrong}")
    return ranges


def _range(begin: str, end: str, count: int, name: str, *, is_cut: bool) -> range:
    first, last = int(begin or 1), int(end or count)
    if is_cut and begin != end:
        last = min(last, count)
    _check(first, count, name)
    _check(last, count, name)
    return range(first - 1, last)


def _check(page: int, count: int, name: str, note: str = "") -> None:
    """Refuse a page, counted from 1, that the document lacks."""
    if not 1 <= page <= count:
        raise MediaError(
            f"{name} has {count} pages, so there is no page {page}{note}: choose others"
        )


# What follows runs in a decoding process.


def _inspect(file: _File) -> DocumentInfo:
    with _told(file):
        document = _document(file)
        given = {key: value or "" for key, value in (document.metadata or {}).items()}
        return DocumentInfo(
            format="PDF",
            page_count=document.page_count,
            encrypted=bool(given.get("encryption")),
            title=given.get("title", ""),
            author=given.get("author", ""),
            subject=given.get("subject", ""),
            creator=given.get("creator", ""),
            producer=given.get("producer", ""),
            created=_date(given.get("creationDate", "")),
            modified=_date(given.get("modDate", "")),
        )


def _render(file: _File, number: int, longest_side: int, max_tokens: int) -> Page:
    from PIL import Image  # noqa: PLC0415 - only in a decoding process

    pymupdf = import_pymupdf()
    name = f"page {number + 1} of {file.name}"
    with _told(file, name):
        page = _document(file)[number]
        shape = page.rect
        if max(shape.width, shape.height) > MAX_ASPECT * min(shape.width, shape.height):
            raise MediaError(
                f"{name} has {shape.width:g}x{shape.height:g} points: one side is more than "
                f"{MAX_ASPECT} times the other, which the model does not take; leave it out"
            )
        width, height = _size(shape.width, shape.height, longest_side, max_tokens)
        # A matrix as MuPDF takes it; the scales differ by a rounding, so that cells are filled.
        scale = (width / shape.width, 0, 0, height / shape.height, 0, 0)
        pymupdf.TOOLS.reset_mupdf_warnings()
        # Reading the page once for both saves a tenth of the time.
        drawn = page.get_displaylist()
        pixels = drawn.get_pixmap(matrix=scale, alpha=False)
        warnings = pymupdf.TOOLS.mupdf_warnings()
        flags = pymupdf.TEXTFLAGS_TEXT | pymupdf.TEXT_PRESERVE_IMAGES
        written = pymupdf.TextPage(drawn.get_textpage(flags))
        text = written.extractText()
        pictured = _pictured(written, shape) if text.strip() else 0.0
    shown = Image.frombuffer(
        "RGB", (pixels.width, pixels.height), pixels.samples_mv, "raw", "RGB", 0, 1
    )
    damage = _damage(warnings, shown) if warnings else ""
    jpeg = io.BytesIO()
    # Pillow writes a JPEG in a tenth of the time that MuPDF takes. Full colour resolution keeps
    # thin coloured print sharp, for 5 to 15 % more bytes.
    shown.save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    # A damaged picture that is kept is drawn a second time without a word.
    pymupdf.TOOLS.store_shrink(100 if damage else _FORGOTTEN)
    return Page(
        number=number,
        width=pixels.width,
        height=pixels.height,
        data=jpeg.getvalue(),
        text=text,
        pictured=pictured,
        notes="",
        rotation=page.rotation,
        tokens=image_tokens(pixels.width, pixels.height),
        damage=damage,
    )


def _damage(warnings: str, shown: Any) -> str:
    """What is missing of a page, as MuPDF says; on a page that shows something, little is sure."""
    shows_nothing = all(darkest == lightest for darkest, lightest in shown.getextrema())
    is_sure = shows_nothing or any(words in warnings for words in _IN_PART)
    return "; ".join(dict.fromkeys(warnings.splitlines())) if is_sure else ""


def _pictured(written: Any, shape: Any) -> float:
    """Share of a page that its pictures cover; where they overlap, it counts twice."""
    covered = 0.0
    for left, top, right, bottom, _, _, is_picture in written.extractBLOCKS():
        if is_picture:
            width = min(right, shape.width) - max(left, 0.0)
            height = min(bottom, shape.height) - max(top, 0.0)
            covered += max(width, 0.0) * max(height, 0.0)
    return float(min(1.0, covered / (shape.width * shape.height)))


def _size(width: float, height: float, longest_side: int, max_tokens: int) -> tuple[int, int]:
    """Pixels of the picture of a page: whole cells, of which the model takes so many."""
    longer = max(width, height)
    # No side has more, however narrow the page is: the model takes no longer strip of one cell.
    cells = min(longest_side // CELL, MAX_ASPECT)
    while True:
        sides = [max(1, round(cells * side / longer)) for side in (width, height)]
        if sides[0] * sides[1] <= max_tokens:
            return sides[0] * CELL, sides[1] * CELL
        cells = min(cells - 1, int(cells * (max_tokens / (sides[0] * sides[1])) ** 0.5))


@contextmanager
def _told(file: _File, subject: str | None = None) -> Iterator[None]:
    """Errors of MuPDF as errors of this package."""
    pymupdf = import_pymupdf()
    try:
        yield
    except pymupdf.FileDataError as error:
        raise UnsupportedMediaError(
            f"{file.name} is not a document that can be read, or a damaged one: accepted are PDF, "
            f"{office.ACCEPTED}"
        ) from error
    except MediaError:
        raise
    # MuPDF's errors, and those of PyMuPDF where it stumbles over what MuPDF makes of a document.
    except Exception as error:
        raise MediaError(
            f"cannot render {subject or file.name}: {error}; save the document anew, or leave the "
            "page out"
        ) from error


# Kept open for the next page.
@functools.lru_cache(maxsize=1)
def _open(file: _File) -> Any:
    try:
        file.path.encode()
        given: dict[str, Any] = {"filename": file.path}
    except UnicodeEncodeError:  # MuPDF takes no path that is no UTF-8
        given = {"stream": Path(file.path).read_bytes()}
    document = import_pymupdf().open(**given, filetype="pdf")
    # MuPDF goes by the content and reads pictures and e-books too.
    if not document.is_pdf:
        raise UnsupportedMediaError(
            f"{file.name} is not a document that can be read: accepted are PDF, {office.ACCEPTED}"
        )
    if document.needs_pass and not document.authenticate(file.password or ""):
        reason = (
            "does not open with this password: give another"
            if file.password
            else "needs a password: give its password"
        )
        raise MediaError(f"{file.name} {reason}")
    return document


def _document(file: _File) -> Any:
    with suppress(FileNotFoundError):
        if version(file.path) == file.version:
            return _open(file)
    raise MediaError(f"{file.name} was changed while it was read: read it again")


@functools.cache
def import_pymupdf() -> ModuleType:
    """PyMuPDF, in a decoding process.

    Raises:
        MediaError: If it is not installed.
    """
    try:
        import pymupdf  # noqa: PLC0415 - heavy, and only documents need it
    except ImportError as error:
        raise MediaError(
            "reading a document needs PyMuPDF, which is not installed: give pictures of its pages",
            setting="pip install 'pymupdf<2'",
        ) from error
    # MuPDF would write its own view of a damaged file to standard error.
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    module: ModuleType = pymupdf
    return module


def _date(text: str) -> datetime | None:
    if (found := _DATE.match(text)) is None:
        return None
    year, month, day, hour, minute, second = (
        int(digits or least)
        for digits, least in zip(found.groups()[:6], (0, 1, 1, 0, 0, 0), strict=True)
    )
    zone = None
    try:
        if found[7]:
            offset = timedelta(hours=int(found[8] or 0), minutes=int(found[9] or 0))
            zone = timezone(-offset if found[7] == "-" else offset) if offset else UTC
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:  # such as the 31st of February
        return None
