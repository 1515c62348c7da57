"""Scans that can be searched: the pages as they are, with the transcribed text behind them."""

import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from langchain_glm4v.errors import MediaError
from langchain_glm4v.grounding import SIDE, Box
from langchain_glm4v.media import document, image, pool, sniffing, text_layer
from langchain_glm4v.media.document import FailedPage
from langchain_glm4v.media.scan import Turn
from langchain_glm4v.media.source import Given, local_file, name_of, read_begin
from langchain_glm4v.media.text_layer import Layer, LayerWord
from langchain_glm4v.transcription import placing
from langchain_glm4v.transcription.checks import is_good_layer
from langchain_glm4v.transcription.outputs import part_folder
from langchain_glm4v.transcription.placing import PlacedText, Word
from langchain_glm4v.transcription.records import PageResult, Reading

_KIND = "document"
_THIN = 4.0  # thousandths of the page: height of words of which nobody knows where they stand
_MARGIN = 100.0  # thousandths of the page beside them


def write_searchable(
    source: Given,
    results: Iterable[PageResult],
    out: str | Path,
    *,
    password: str | None = None,
    name: str | None = None,
) -> int:
    """Write a PDF of scanned pages whose transcribed text can be searched, marked and copied.

    Pages of a PDF stay as they are, bookmarks and metadata too; a picture becomes a page. The text
    is invisible and lies over the print, word by word. What is no print, such as marks of Markdown,
    is left out. Scripts that run from right to left are copied in the wrong order. No text is added
    to a page that could not be read, or that has text of its own.

    Only a few pages are in memory at any time. The file appears when it is whole.

    Args:
        source: What was read: a PDF, a document that `office` converts, or a picture.
        results: What became of its pages; those that are left out stay without text. They are taken
            one by one, so they may be those of a `Transcriber` at work.
        out: The PDF; what is there is replaced, which may be the source.
        password: The password of an encrypted PDF, which `out` is encrypted with too.
        name: What error messages call the source. Default: its path.

    Returns:
        How many pages have got text.

    Raises:
        MediaError: If the source cannot be read, a result is of a page that it lacks, or the PDF
            cannot be written.
    """
    out = Path(out).absolute()  # decoding processes may have another current folder
    shown = repr(name) if name else name_of(source, _KIND)
    try:
        with part_folder(out.parent) as folder:
            # By its name, it is no document that would be read with the folder it is in.
            made, layers = folder / "searchable", folder / "layers"
            _copy(source, made, password, name)
            with local_file(made, _KIND) as pdf:
                found = _layers(pdf, results, password, name or shown.strip("'"))
                with closing(found):
                    count = text_layer.spool(found, layers)
            if count:
                text_layer.write(made, layers, password=password, name=shown, pages=count)
            made.replace(out)
    except OSError as error:
        if isinstance(error, MediaError):  # one that is also a FileNotFoundError
            raise
        raise MediaError(
            f"cannot write {str(out)!r}: {error.strerror}; name another file, or free the disk"
        ) from error
    return count


def _copy(source: Given, made: Path, password: str | None, name: str | None) -> None:
    """The source as a PDF that may be changed."""
    if sniffing.medium_kind(read_begin(source, _KIND, sniffing.HEAD)) == "picture":
        image.write_pdf(source, made)
        return
    with document.as_pdf(source, password=password, name=name) as pdf:
        shutil.copyfile(pdf, made)


def _layers(
    pdf: Path, results: Iterable[PageResult], password: str | None, name: str
) -> Generator[Layer]:
    """The texts of the pages, in the order of the results; some are placed at once."""
    taken: dict[int, Reading] = {}
    seen: set[int] = set()

    def numbers() -> Iterator[int]:
        for result in results:
            number, reading = result.number, result.reading
            if number is None or number in seen:  # a page may have been asked for twice
                continue
            if reading.origin == "model" and reading.text.strip():
                seen.add(number)
                taken[number] = reading
                yield number

    def layer(number: int) -> Layer | None:
        reading = taken.pop(number)
        (page,) = document.tried_pages(pdf, pages=[number], password=password, name=name)
        if isinstance(page, FailedPage) or is_good_layer(page.text, 0.0):
            return None
        turn = cast("Turn", reading.turn)
        placed = placing.place(reading.text, page.data, f"page {number + 1} of {name!r}", turn)
        return Layer(number, turn, placed.slope, [*_layer_words(placed)])

    with closing(pool.each(layer, numbers())) as made:  # type: ignore[type-var]
        for one in made:
            if one is not None and one.words:
                yield one


@dataclass(frozen=True, slots=True)
class _Placed:
    word: Word
    box: Box


def _layer_words(placed: PlacedText) -> Iterator[LayerWord]:
    """The words, each with the space up to the next one in its line, or as wide as a letter."""
    words = [*_all_placed(placed.words)]
    for one, after in zip(words, [*words[1:], None], strict=True):
        text, right = one.word.text, one.box.right
        if after is not None and after.word.space:
            text += " "
            if after.word.line == one.word.line and after.box.left > right:
                right = after.box.left
            else:
                right += (right - one.box.left) / len(one.word.text)
        left, top, _, bottom = (side / SIDE for side in one.box)
        yield LayerWord(text, left, top, right / SIDE, bottom)


def _all_placed(words: Iterable[Word]) -> Iterator[_Placed]:
    """The words, also those without a place: they are found all the same, below those before."""
    waiting: list[Word] = []
    last = 0.0
    for word in words:
        if word.box is None:
            waiting.append(word)
            continue
        yield from _below(waiting, last)
        waiting.clear()
        yield _Placed(word, word.box)
        last = word.box.bottom
    yield from _below(waiting, last)


def _below(words: list[Word], top: float) -> Iterator[_Placed]:
    """Words side by side, in a line as thin as a hair."""
    top = min(top, SIDE - _THIN)
    each = (SIDE - 2 * _MARGIN) / max(1, len(words))
    for number, word in enumerate(words):
        left = _MARGIN + number * each
        yield _Placed(word, Box(left, top, left + each, top + _THIN))
