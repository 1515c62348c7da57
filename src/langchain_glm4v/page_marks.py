"""Where an answer cites: marks such as `[page 3]`, `(see pages 3-5, 7)`, `【第3至5页】`, `[2]`.

All patterns are bounded: no text takes long.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

# The inside of brackets.
_SQUARE, _ROUND = ("[]", "【】", "［］", "〔〕"), ("()", "（）")
_BRACKETS = re.escape("".join((*_SQUARE, *_ROUND)))
_OPENING = re.escape("".join(pair[0] for pair in (*_SQUARE, *_ROUND)))
_WITHOUT_BRACKETS = str.maketrans(dict.fromkeys("".join((*_SQUARE, *_ROUND)), "|"))
_BRACKETED = re.compile(rf"(?<=[{_OPENING}])[^{_BRACKETS}\n]{{1,200}}+(?=[{_BRACKETS}])")
_NUMBERS = r"\d{1,6}+(?:\s?页)?(?:\s?(?:[-–—~～至到]|to\b|through\b)\s?第?\s?\d{1,6}+(?:\s?页)?)?"
_AND = r"\s?(?:[,，、;；]\s?(?:(?:and\b|&)\s?)?|(?:and\b|[&和与及])\s?)"
_LIST = rf"{_NUMBERS}(?:{_AND}{_NUMBERS}){{0,50}}"
_PAGES = re.compile(rf"(?:\bpages?|\bpp?\.|\bp)\s?({_LIST})|第\s?({_LIST})(?<=页)", re.IGNORECASE)
_RANGE = re.compile(
    r"(\d{1,6}+)(?:\s?页?\s?(?:[-–—~～至到]|to|through)\s?第?\s?(\d{1,6}+))?", re.IGNORECASE
)
_ITEMS = re.compile(rf"\^?({_LIST})(?:†.*)?")  # [2], a footnote's [^2], and 【2†source】
_OF_ITEMS = tuple(pair[0] for pair in _SQUARE)
_AROUND = ",，、;；:：\"'`*_"  # names, beside blanks
# What leads to a name, and what parts it from others.
_LEADS = re.compile(
    rf"(?:[\s{_AROUND}]|(?:see|cf|on|of|in|from|source|passage)s?\b\.?|参见|见|来源|段落)*+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that cites.

    Attributes:
        begin: Where it begins in the answer, its bracket included.
        end: Where it ends.
        name: What stands beside the pages, such as the name of a document; often "". Brackets in
            it are as `without_brackets` writes them.
        pages: The pages, counted from 1; empty if it names none.
        items: The numbers, if it has only such and its brackets are square, as `[2, 4]` has.
    """

    begin: int
    end: int
    name: str = ""
    pages: tuple[range, ...] = ()
    items: tuple[range, ...] = ()


def without_brackets(name: str) -> str:
    """A name with a stroke in the place of each bracket, for that would end a mark."""
    return name.translate(_WITHOUT_BRACKETS)


def find_marks(answer: str, sources: Iterable[str] = ()) -> Iterator[Mark]:
    """The marks of an answer, in order; one that names two documents is two.

    Args:
        answer: The answer.
        sources: Paths or URLs of the documents that it may name, as in `[scan (1).pdf p. 2]`.
    """
    for source in {*sources}:
        parts = PurePath(source).parts
        for name in (source, *parts, *(PurePath(part).stem for part in parts)):
            # One that is all in brackets, such as a folder [2], is a mark more often.
            if name[:1] + name[-1:] not in (*_SQUARE, *_ROUND):
                answer = answer.replace(name, without_brackets(name))
    for bracketed in _BRACKETED.finditer(answer):
        begin, end = bracketed.start() - 1, bracketed.end() + 1
        inside = bracketed[0]
        places = [*_PAGES.finditer(inside)]
        for place, name in zip(places, _names(inside, places), strict=True):
            yield Mark(begin, end, name, pages=_ranges(place[1] or place[2]))
        items = None if places else _ITEMS.fullmatch(_name(inside))
        if items and answer[begin] in _OF_ITEMS:
            yield Mark(begin, end, items=_ranges(items[1]))


def _names(inside: str, places: Sequence[re.Match[str]]) -> list[str]:
    """What stands beside each of the pages."""
    ends = [0, *(place.end() for place in places)]
    begins = [*(place.start() for place in places), len(inside)]
    between = [_name(inside[end:begin]) for end, begin in zip(ends, begins, strict=True)]
    # In front, as in "a.pdf p. 1, b.pdf p. 2", or behind, as in "page 1 of a.pdf".
    return between[:-1] if between[0] else between[1:]


def _name(text: str) -> str:
    return text[_LEADS.match(text).end() :].rstrip(" " + _AROUND)  # type: ignore[union-attr]


def _ranges(numbers: str) -> tuple[range, ...]:
    return tuple(
        range(int(span[1]), int(span[2] or span[1]) + 1) for span in _RANGE.finditer(numbers)
    )
