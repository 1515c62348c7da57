"""Where a transcribed text stands on its page, though the model gave the text alone.

The text is laid along the lines of print that are found in the picture (`media.text_lines`): each
line takes as many words as are as wide as it is, so that a paragraph is spread over its lines, and
a line of Markdown, a cell or a row begins a new one. Marks of Markdown, HTML and LaTeX have no ink.
"""

import bisect
import functools
import heapq
import html
import json
import math
import re
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple

from langchain_glm4v.grounding import Box
from langchain_glm4v.media import text_lines
from langchain_glm4v.media.scan import Turn
from langchain_glm4v.media.text_lines import Line, PageLines

# What is no ink, and what ends a word, a cell or a line. In the order in which they are tried.
_MARKUP = re.compile(
    r"""
    (?P<line>\r?\n[^\S\n]*(?:\|?[^\S\n]*:?-{2,}:?[^\S\n]*(?:\|[^\S\n]*:?-+:?[^\S\n]*)*\|?[^\S\n]*$
        |(?P<bullet>[-*+])[^\S\n]+|(?:\#{1,6}|>|```\w*)(?:[^\S\n]+|$))?)
    |(?P<hidden><!--[^>]{0,1000}-->|!\[[^\]\n]{0,500}\]\([^)\s]{0,2000}\))
    |(?P<target>\]\([^)\s]{0,2000}\))
    |</?(?P<tag>[A-Za-z][A-Za-z0-9]{0,15})\b[^<>]{0,500}>
    |(?P<formula>\$\$?(?=\S)[^$\n]{1,500}(?<=\S)\$\$?(?!\d))
    |\\(?P<escaped>[!"\#$%&'*+,./:;<=>?@^_`{|}~\-])
    |(?P<mark>\\[()\[\]\\]|(?<!\d)\*+|\*\*+|\*(?!\d)|__|~~|`+)
    |(?P<cell>\|)
    |(?P<entity>&\#?\w{1,10};)
    |(?P<space>\s)
    |(?P<ink>.)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_JSON = re.compile(r'"(?P<string>(?:[^"\\]|\\.)*)"(?P<key>\s*:)?|(?P<number>-?\d[-+.\w]*)')
_JSON_CHARACTER = re.compile(
    r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\u\w{4}|\\.|[^\\]", re.DOTALL
)
_OF_FORMULAS = re.compile(r"\\[A-Za-z]+\*?|\\.|[{}^_$&]")
_LINE_TAGS = frozenset(
    (
        *("table", "thead", "tbody", "tr", "caption", "br", "hr", "p", "div", "pre"),
        *("ul", "ol", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6"),
    )
)
_CELL_TAGS = frozenset(("td", "th"))
_RAISED_TAGS = frozenset(("sup", "sub"))
# Han, Kana, Hangul and full-width signs: each may begin a line, but for digits in a number.
_WIDE = re.compile("[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f"
                   "\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003ffff]")  # fmt: skip

# Widths in the size of the print, as usual fonts have them.
_NARROW = frozenset("iljIftr.,;:'’|!()[]-/\\ ")
_BROAD = frozenset("mwMW@%—…")
_HALF_EMPTY = frozenset("、。，：；！？」』）】》〉")
_BULLET = "•"
_SPACE = 0.27
_CELL_GAP = 1.0
_FULL_HEIGHT = 0.9  # height of a line with ascenders and descenders

# Costs of an alignment: half squares of deviations, as of a normal distribution.
_IN_LINE = 12.0  # a line of text that ends within a line of the page
_IN_CELL = 0.5  # the same of a cell
_SKIPPED, _SKIPPED_WIDTH, _MOST_SKIPPED = 1.5, 0.3, 8.0  # a line of the page without text
_WORD, _MOST_WORDS = 1.0, 6.0  # a word more or less than the line has
# What makes it unlikely that a line is print: it is narrower than high, covers others, or is of
# another size than most.
_NARROWER, _ON_OTHERS, _OTHER_SIZE = 2.0, 3.0, 0.5
_PARTED = 0.5  # share of the words of a text that have space before them, where words are parted
_NEAR = 3  # lines before and after one, by which the size of its print is told
_ALIKE = (0.75, 1.35)  # heights of lines of the same print
_UNPLACED, _UNPLACED_WIDTH, _MOST_UNPLACED = (
    3.0,
    0.3,
    10.0,
)  # a line of the text that is not on the page
_DEVIATION, _OF_WIDTH = 0.25, 0.03  # standard deviation: by the root of the width, and by it
_EVEN = 0.4  # how much less it is where all characters are as wide, as in Chinese
_FARTHEST = 4.0  # deviations that are tried
_BEAM, _WORST = 24, 30.0  # ways that are followed, and how much worse than the best they may be
_SCALES = (0.65, 1.5)  # how broad the print may be
_SAME_SCALE = 0.02
_TRIES = 4

_COLUMN = 4  # lines that stand on both sides of what parts two columns


class Token(NamedTuple):
    """A word, or a character of a script without spaces.

    Attributes:
        text: Its ink.
        space: Whether there is space before it.
        begins: What begins with it.
        start: Where its first character is in the text.
    """

    text: str
    space: bool
    begins: Literal["", "cell", "line"]
    start: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text of a page.

    Attributes:
        text: Its ink, without marks.
        space: Whether there is space, a new cell or a new line before it.
        line: The number of the line of the page that it stands in; None if it has no place.
        box: Where it stands, in thousandths of the page as it was read; None likewise.
        start: Where its first character is in the text.
    """

    text: str
    space: bool
    line: int | None
    box: Box | None
    start: int


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A text and where it stands on its page.

    Attributes:
        words: All of its words, in order.
        slope: By how much the lines of the page fall for each thousandth to the right, in
            thousandths of the page's height.
    """

    words: tuple[Word, ...]
    slope: float = 0.0
    _index: list["Index"] = field(default_factory=list, repr=False, compare=False)

    def find_quote(self, quote: str) -> list[Box]:
        """Where a quote stands: a box for each line that it covers, in order.

        Case, space, punctuation and marks do not matter, but in numbers and between them. Where
        the quote leaves something out ("…", "..."), the parts must follow each other.

        Args:
            quote: As a model cites it.

        Returns:
            The boxes of its first occurrence, in thousandths of the page as it was read; none if
            it does not stand there, or nobody knows where.
        """
        if not self._index:
            self._index.append(Index((word.text, word.space) for word in self.words))
        boxes: dict[int, Box] = {}
        for at in self._index[0].find(quote):
            word = self.words[at]
            if word.line is not None and word.box is not None:
                known = boxes.get(word.line)
                boxes[word.line] = word.box if known is None else _around(known, word.box)
        return [*boxes.values()]


def place(text: str, picture: bytes, name: str, turn: Turn = 0) -> PlacedText:
    """Find out where the text of a page stands in its picture.

    Args:
        text: As it was transcribed: Markdown, or JSON.
        picture: The picture of the page.
        name: What error messages call it.
        turn: Degrees by which it was turned to be read: `Reading.turn`.

    Returns:
        The boxes are those of the turned picture.

    Raises:
        MediaError: If the picture cannot be decoded.
    """
    return along(text, text_lines.find(picture, name, turn))


def along(text: str, lines: PageLines) -> PlacedText:
    """Lay a text along lines that were found already."""
    found = tokens(text)
    if not found:
        return PlacedText(())
    best = None
    for order in _orders(lines.lines):
        way = _scaled(found, order)
        if best is None or way.cost < best[0].cost:
            best = way, order
    if best is None:
        return PlacedText(tuple(map(_unplaced, found)))
    words = tuple(_words(found, *best, lines))
    return PlacedText(words, lines.slope * lines.width / lines.height)


# --- what of a text is ink ---


def tokens(text: str) -> list[Token]:
    """The words of a text in Markdown, or of the values of one in JSON, without marks."""
    return list(_Reader(*_plain(text)).tokens())


def _plain(text: str) -> tuple[str, Sequence[int]]:
    """Markdown; of JSON the values, one in a line. And where each character is in the text."""
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return _values(text)
    return text, range(len(text))


def _values(text: str) -> tuple[str, Sequence[int]]:
    """The strings and numbers of a text in JSON that are no keys."""
    characters: list[str] = []
    places: list[int] = []
    for value in _JSON.finditer(text):
        if not value["key"]:
            for found in _JSON_CHARACTER.finditer(text, *value.span(value.lastgroup or 0)):
                written = found[0]
                characters.append(json.loads(f'"{written}"') if len(written) > 1 else written)
                places.append(found.start())
            characters.append("\n")
            places.append(value.end())
    return "".join(characters), places


class _Reader:
    """Reads the words of a text in Markdown."""

    def __init__(self, text: str, places: Sequence[int]) -> None:
        self._text = "\n" + text
        self._places = places
        self._start = 0
        self._word: list[str] = []
        self._space = False
        self._begins: Literal["", "cell", "line"] = "line"

    def tokens(self) -> Iterator[Token]:
        for found in _MARKUP.finditer(self._text):
            yield from self._read(str(found.lastgroup), found)
        yield from self._end()

    def _read(self, kind: str, found: re.Match[str]) -> Iterator[Token]:
        match kind:
            case "line":
                yield from self._end("line")
                if found["bullet"]:
                    yield from self._put(_BULLET, found.start("bullet"))
                    yield from self._end()
                    self._space = True
            case "cell":
                yield from self._end("cell")
            case "space":
                yield from self._end()
                self._space = True
            case "tag":
                yield from self._tag(found["tag"].lower())
            case "formula":
                ink = _OF_FORMULAS.sub(lambda mark: " " * len(mark[0]), found["formula"])
                for at, character in enumerate(ink, found.start()):
                    yield from self._put(character, at)
            case "entity":
                for character in html.unescape(found["entity"]):
                    yield from self._put(character, found.start())
            case "escaped" | "ink":
                # "[" of a link may stay: it is narrow, and often a mark of ink.
                yield from self._put(found[kind], found.start())

    def _tag(self, name: str) -> Iterator[Token]:
        if name in _LINE_TAGS:
            yield from self._end("line")
        elif name in _CELL_TAGS:
            yield from self._end("cell")
        elif name in _RAISED_TAGS and self._word and self._word[-1].isdecimal():
            yield from self._end()  # 10<sup>3</sup> is not 103
            self._space = True

    def _put(self, character: str, at: int) -> Iterator[Token]:
        is_wide = bool(_WIDE.match(character)) and not character.isdecimal()
        if character.isspace() or is_wide:
            yield from self._end()
        if character.isspace():
            self._space = True
        elif is_wide or character.isprintable():
            if not self._word:
                self._start = at - 1  # for the text begins with a line feed here
            self._word.append(character)
        if is_wide:
            yield from self._end()

    def _end(self, begins: Literal["", "cell", "line"] = "") -> Iterator[Token]:
        """End the word, and tell what the next one begins."""
        if self._word:
            start = self._places[self._start]
            yield Token("".join(self._word), self._space, self._begins, start)
            self._word.clear()
            self._space, self._begins = False, ""
        if begins == "line" or not self._begins:
            self._begins = begins or self._begins


def _parted(token: Token) -> bool:
    return token.space or bool(token.begins)


@functools.lru_cache(maxsize=8192)
def _width(text: str) -> float:
    """How wide a word is, in the size of its print."""
    return sum(map(_width_of, text))


def _width_of(character: str) -> float:
    if character in _NARROW:
        return 0.3
    if character in _BROAD:
        return 0.85
    if _WIDE.match(character):
        return 1.0
    if unicodedata.combining(character):
        return 0.0
    return 0.66 if character.isupper() else 0.52


# --- in which order the lines of a page are read ---


def _orders(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines by rows, and by columns if that is another order."""
    orders = [_by_rows(lines), _by_columns(lines)]
    return orders[: 1 + (orders[0] != orders[1])] if lines else []


def _middle(line: Line) -> float:
    return (line.top + line.bottom) / 2


def _by_rows(lines: Sequence[Line]) -> list[Line]:
    rows: list[list[Line]] = []
    for line in sorted(lines, key=_middle):
        if (
            rows
            and _middle(line) < statistics.fmean(other.bottom for other in rows[-1])
            and all(line.left >= other.right or line.right <= other.left for other in rows[-1])
        ):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.left)]


def _by_columns(lines: Sequence[Line]) -> list[Line]:
    """What is above two columns, the left one, the right one, and what is below them."""
    found = _gutter(lines)
    if found is None:
        return _by_rows(lines)
    x, top, bottom = found
    parts: list[list[Line]] = [[], [], [], []]
    for line in lines:
        middle = _middle(line)
        part = 0 if middle <= top else 3 if middle >= bottom else 1 if line.right <= x else 2
        parts[part].append(line)
    return [line for part in parts for line in _by_columns(part)]


def _gutter(lines: Sequence[Line]) -> tuple[float, float, float] | None:
    """Where two columns are parted: at which x, from which y to which."""
    best, found = (0, 0), None
    for x in sorted({line.right for line in lines}):
        crossing = sorted(_middle(line) for line in lines if line.left < x < line.right)
        edges = [-math.inf, *crossing, math.inf]
        left = sorted(_middle(line) for line in lines if line.right <= x)
        right = sorted(_middle(line) for line in lines if line.left >= x)
        for top, bottom in pairwise(edges):
            counts = [
                bisect.bisect_left(side, bottom) - bisect.bisect(side, top)
                for side in (left, right)
            ]
            if min(counts) >= _COLUMN and (rank := (min(counts), max(counts))) > best:
                best, found = rank, (float(x), top, bottom)
    return found


# --- which words stand in which line ---


class _Way(NamedTuple):
    """A way to lay words along lines.

    Attributes:
        cost: How bad it is.
        spans: Line -> its first word, and the one after its last; without those that have none.
    """

    cost: float
    spans: dict[int, tuple[int, int]]


class _Ink:
    """The widths of words in a text."""

    def __init__(self, found: Sequence[Token]) -> None:
        self.count = len(found)
        # Where each word is in an endless line, with the spaces between, and without.
        self.starts: list[float] = []
        self.ends: list[float] = []
        self._solid = [0.0]
        self._lines = [0]  # that begin with one of the words before
        self._cells = [0]
        self._spaces = [0]  # or what else parts words
        at = 0.0
        for token in found:
            at += {"line": 0.0, "cell": _CELL_GAP, "": _SPACE * token.space}[token.begins]
            self.starts.append(at)
            width = _width(token.text)
            # At the end of a line, nothing is seen of the space that is part of the sign.
            self.ends.append(at + (width / 2 if token.text in _HALF_EMPTY else width))
            at += width
            self._solid.append(self._solid[-1] + width)
            self._lines.append(self._lines[-1] + (token.begins == "line"))
            self._cells.append(self._cells[-1] + (token.begins == "cell"))
            self._spaces.append(self._spaces[-1] + _parted(token))
        self._begins = [i for i, token in enumerate(found) if token.begins == "line"]
        # Where words are not parted, as in Chinese, gaps in a line say nothing. Where they are, the
        # gaps of justified print are left out.
        share = self._spaces[-1] / max(1, self.count)
        self._by_words = _WORD * share**2
        self.is_parted = share > _PARTED
        self.measured = self._solid[1:] if self.is_parted else self.ends

    def measured_from(self, first: int) -> float:
        return self._solid[first] if self.is_parted else self.starts[first]

    def measure(self, first: int, end: int) -> float:
        """The width of words as lines are measured."""
        return self.measured[end - 1] - self.measured_from(first)

    def width(self, first: int, end: int) -> float:
        return self.ends[end - 1] - self.starts[first]

    def breaks(self, first: int, end: int, words: int) -> float:
        """What it costs that lines and cells end within, and that there are so many words."""
        lines = self._lines[end] - self._lines[first + 1]
        cells = self._cells[end] - self._cells[first + 1]
        off = abs(1 + self._spaces[end] - self._spaces[first + 1] - words) * self._by_words
        return _IN_LINE * lines + _IN_CELL * cells + min(_MOST_WORDS, off)

    def unplaced(self, first: int, end: int) -> float:
        """What it costs that words are nowhere."""
        return min(_MOST_UNPLACED, _UNPLACED + _UNPLACED_WIDTH * self.width(first, end))

    def is_begin(self, first: int) -> bool:
        return self._lines[first + 1] > self._lines[first]

    def next_line(self, first: int) -> int:
        at = bisect.bisect(self._begins, first)
        return self._begins[at] if at < len(self._begins) else self.count


def _scaled(found: Sequence[Token], order: Sequence[Line]) -> _Way:
    """The best way; how broad the print is, is found out too."""
    ink = _Ink(found)
    places = [*_places(order, solid=ink.is_parted)]
    whole = sum(place.width for place in places) / ink.measure(0, ink.count)
    ways: dict[float, _Way] = {}
    scale = 1.0
    for _ in range(_TRIES):
        ways[scale] = _aligned(ink, [place._replace(width=place.width / scale) for place in places])
        ratios = [
            places[i].width / max(ink.measure(*span), 0.1) for i, span in ways[scale].spans.items()
        ]
        found_scale = statistics.median(ratios) if ratios else whole
        found_scale = min(_SCALES[1], max(_SCALES[0], found_scale))
        if any(abs(found_scale - tried) < _SAME_SCALE for tried in ways):
            found_scale = min(_SCALES[1], max(_SCALES[0], whole))
            if any(abs(found_scale - tried) < 2 * _SAME_SCALE for tried in ways):
                break
        scale = found_scale
    return min(ways.values(), key=lambda way: way.cost)


class _Place(NamedTuple):
    """A line as words are laid along it.

    Attributes:
        width: Its width, in the size of its print; of words with gaps between them, theirs.
        words: How many words it seems to have.
        unlikely: What it costs to take it for print.
    """

    width: float
    words: int
    unlikely: float

    @property
    def skipped(self) -> float:
        """What it costs that it has no words of the text."""
        cost = min(_MOST_SKIPPED, _SKIPPED + _SKIPPED_WIDTH * self.width)
        return cost / (1 + self.unlikely)


def _places(lines: Sequence[Line], *, solid: bool) -> Iterator[_Place]:
    """How wide lines are, with the gaps in them or without."""
    usual = _median([(_height(line), line.right - line.left) for line in lines])
    for number, line in enumerate(lines):
        width, height = line.right - line.left, _height(line)
        near = [
            (_height(other), other.right - other.left)
            for other in lines[max(0, number - _NEAR) : number + _NEAR + 1]
            if _ALIKE[0] * height <= _height(other) <= _ALIKE[1] * height
        ]
        unlikely = _NARROWER * (width < height) + _ON_OTHERS * _is_on_others(line, lines)
        unlikely += _OTHER_SIZE * (not 0.6 * usual <= height <= 1.6 * usual)
        inked = sum(right - left for left, right in line.words) if solid else width
        yield _Place(inked / _median(near) * _FULL_HEIGHT, len(line.words), unlikely)


def _height(line: Line) -> int:
    return line.bottom - line.top


def _median(weighted: Sequence[tuple[int, int]]) -> int:
    """The median of numbers that have weights."""
    ordered = sorted(weighted)
    sums = list(accumulate(weight for _, weight in ordered))
    return ordered[bisect.bisect_left(sums, sums[-1] / 2)][0]


def _is_on_others(line: Line, lines: Sequence[Line]) -> bool:
    """Whether a line covers a part of others, as parts of pictures do."""
    for other in lines:
        if other is not line and other.top < line.bottom and other.bottom > line.top:
            across = min(line.right, other.right) - max(line.left, other.left)
            down = min(line.bottom, other.bottom) - max(line.top, other.top)
            if across > 0 and 3 * down > min(_height(line), _height(other)):
                return True
    return False


def _aligned(ink: _Ink, places: Sequence[_Place]) -> _Way:
    """Lay words along lines of some widths, in order, so that it costs least."""
    # Number of words that are laid -> cost, and the spans so far, the last one first.
    states: dict[int, tuple[float, Any]] = {0: (0.0, None)}
    for line, place in enumerate(places):
        width, words, unlikely = place
        states = _pruned(_with_unplaced(ink, states))
        reached: dict[int, tuple[float, Any]] = {
            first: (cost + place.skipped, spans) for first, (cost, spans) in states.items()
        }
        deviation = _DEVIATION * math.sqrt(width) + _OF_WIDTH * width
        deviation *= 1.0 if ink.is_parted else _EVEN
        for first, (cost, spans) in states.items():
            if first == ink.count:
                continue
            end = ink.measured_from(first) + width
            low = bisect.bisect_left(ink.measured, end - _FARTHEST * deviation, first)
            high = bisect.bisect_right(ink.measured, end + _FARTHEST * deviation, first)
            for last in range(low, high):
                off = (ink.measured[last] - end) / deviation
                total = cost + off * off / 2 + unlikely + ink.breaks(first, last + 1, words)
                known = reached.get(last + 1)
                if known is None or total < known[0]:
                    reached[last + 1] = total, (spans, line, first, last + 1)
        states = reached
    return _best(ink, _with_unplaced(ink, states))


def _with_unplaced(ink: _Ink, states: dict[int, tuple[float, Any]]) -> dict[int, tuple[float, Any]]:
    """The states, and those in which lines of the text are left out next."""
    heap = list(states)
    heapq.heapify(heap)
    states = dict(states)
    while heap:
        first = heapq.heappop(heap)
        if first == ink.count or not ink.is_begin(first):
            continue
        cost, spans = states[first]
        after = ink.next_line(first)
        cost += ink.unplaced(first, after)
        if after not in states or cost < states[after][0]:
            if after not in states:
                heapq.heappush(heap, after)
            states[after] = cost, spans
    return states


def _pruned(states: dict[int, tuple[float, Any]]) -> dict[int, tuple[float, Any]]:
    best = heapq.nsmallest(_BEAM, states.items(), key=lambda state: state[1][0])
    worst = best[0][1][0] + _WORST
    return {first: state for first, state in best if state[0] <= worst}


def _best(ink: _Ink, states: dict[int, tuple[float, Any]]) -> _Way:
    def whole(first: int) -> float:
        rest = ink.unplaced(first, ink.count) if first < ink.count else 0.0
        return states[first][0] + rest

    end = min(states, key=whole)
    spans: dict[int, tuple[int, int]] = {}
    chain = states[end][1]
    while chain is not None:
        chain, line, first, after = chain
        spans[line] = first, after
    return _Way(whole(end), spans)


def _words(
    found: Sequence[Token], way: _Way, order: Sequence[Line], lines: PageLines
) -> Iterator[Word]:
    """The words with their boxes."""
    ink = _Ink(found)
    at = 0
    for number, (first, end) in sorted(way.spans.items()):
        for token in found[at:first]:
            yield _unplaced(token)
        line = order[number]
        edges = _edges(ink, found, first, end, line)
        for token, (begin, after) in zip(found[first:end], edges, strict=True):
            lower = lines.slope * (begin + after - lines.width) / 2
            box = Box.from_pixels(
                (begin, line.top + lower, after, line.bottom + lower), lines.width, lines.height
            )
            yield Word(token.text, _parted(token), number, box, token.start)
        at = end
    for token in found[at:]:
        yield _unplaced(token)


def _unplaced(token: Token) -> Word:
    return Word(token.text, _parted(token), None, None, token.start)


def _edges(
    ink: _Ink, found: Sequence[Token], first: int, end: int, line: Line
) -> Iterator[tuple[float, float]]:
    """Left and right edge of each word in a line.

    If the line has as many words as the text, they are the same; else each word of the text has its
    share of the width.
    """
    begins = [at for at in range(first, end) if at == first or _parted(found[at])]
    if len(begins) == len(line.words):
        places: Sequence[tuple[int, int]] = line.words
    else:
        begins, places = [first], [(line.left, line.right)]
    for begin, after, (left, right) in zip(begins, [*begins[1:], end], places, strict=True):
        start = ink.starts[begin]
        each = (right - left) / max(ink.width(begin, after), 1e-9)
        for at in range(begin, after):
            yield left + (ink.starts[at] - start) * each, left + (ink.ends[at] - start) * each


# --- where a quote stands ---

_LEFT_OUT = re.compile(r"\[?(?:…|\.{3,})\]?")
# What is left of signs, for numbers are told apart by it; of the others, a space.
_SIGNS = {"\u2212": "-", "\u2044": "/", "\u2215": "/", "\u2019": "'"} | {
    sign: sign for sign in ".,:/'"
}
_MINUS = "\u2212"  # of a number, not a hyphen
_OF_NUMBER = re.compile(r"(?<!-)-(?:\$ ?)?$")  # a minus before digits, also before "$"
_PIECE = re.compile(r"(?P<gap>[ .,:/'$-]+)|.", re.DOTALL)
_THOUSANDS = re.compile(r"(?<!\d)(?<!\d[.,])\d{1,3}[ ']\d{3}(?!\d)")
_RAISED = re.compile("(?<=[0-9])(?=[²³¹⁰⁴-₎¼-¾⅐-⅞])")  # a power, a footnote or a fraction


class Index:
    """The letters and digits of a text, in which quotes are looked for."""

    def __init__(self, texts: Iterable[tuple[str, bool]]) -> None:
        """Index words, lines or other pieces of a text, each with whether space is before it."""
        found = [*_letters(texts)]
        self._letters = "".join(letter for letter, _, _ in found)
        self._pieces = [piece for _, piece, _ in found]
        self._begins = [is_begin for _, _, is_begin in found]

    def find(self, quote: str) -> list[int]:
        """The numbers of the pieces that a quote covers; none if it does not stand there."""
        covered: list[int] = []
        start = 0
        for part in _LEFT_OUT.split(quote):
            words = ((token.text, _parted(token)) for token in tokens(part))
            wanted = "".join(letter for letter, _, _ in _letters(words))
            if not wanted:
                continue
            at = self._at(wanted, start)
            if at is None:
                return []
            start = at + len(wanted)
            covered += range(self._pieces[at], self._pieces[start - 1] + 1)
        return covered

    def _at(self, wanted: str, start: int) -> int | None:
        at = self._letters.find(wanted, start)
        while at >= 0:
            end = at + len(wanted)
            if self._begins[at] and (end == len(self._letters) or self._begins[end]):
                return at
            at = self._letters.find(wanted, at + 1)
        return None


def _letters(pieces: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, int, bool]]:
    """Letters, digits and what is between these, each with its piece, and if a quote may begin."""
    text, owners = _signs(pieces)
    is_begin = True
    for found in _PIECE.finditer(text):
        owner = owners[found.start()]
        if not found["gap"]:
            is_wide = bool(_WIDE.match(found[0]))
            yield found[0], owner, is_begin or is_wide
            is_begin = is_wide
            continue
        between, has_minus, is_begin = _between(text, *found.span())
        if between:
            yield between, owner, is_begin
        if has_minus:
            yield _MINUS, owners[found.end()], True
            is_begin = False


def _signs(pieces: Iterable[tuple[str, bool]]) -> tuple[str, list[int]]:
    """Letters, digits, signs of numbers and spaces, and the piece that each is of."""
    signs: list[str] = []
    owners: list[int] = []
    for number, (piece, space) in enumerate(pieces):
        plain = unicodedata.normalize("NFKC", _RAISED.sub(" ", piece)).casefold()
        signs += [" " * space, *map(_sign, plain)]
        owners += [number] * (space + len(plain))
    return "".join(signs), owners


def _sign(character: str) -> str:
    category = unicodedata.category(character)
    if character.isalnum() or category in ("Mn", "Mc"):
        return character
    return {"Pd": "-", "Sc": "$"}.get(category) or _SIGNS.get(character, " ")


def _between(text: str, start: int, end: int) -> tuple[str, bool, bool]:
    """What a gap leaves between two digits, if a minus is at its end, and if a quote may begin."""
    if not text[end : end + 1].isdecimal():
        return "", False, True
    gap = text[start:end]
    minus = _OF_NUMBER.search(gap)
    has_minus = minus is not None and (minus.start() > 0 or start == 0)
    if start == 0 or not text[start - 1].isdecimal():
        return "", has_minus, True
    if gap in (".", ","):
        return gap, False, False
    if gap in (" ", "'") and _THOUSANDS.search(text, max(0, start - 3), end + 4):
        return "", False, gap == " "
    rest = gap[: minus.start()] if minus and has_minus else gap
    return (rest.strip(" .,'$") or " ")[0], has_minus, True


def _around(one: Box, other: Box) -> Box:
    return Box(
        min(one.left, other.left),
        min(one.top, other.top),
        max(one.right, other.right),
        max(one.bottom, other.bottom),
    )
