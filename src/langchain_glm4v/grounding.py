"""Where things are in a picture: boxes in the model's own units, thousandths of each side.

The model writes a box as four numbers, in brackets of any kind, as it likes: `[[1,2,3,4]]`,
`red circle (1, 2, 3, 4)`, `[{"label": "red circle", "bbox_2d": [1, 2, 3, 4]}]`, a Python dict, the
argument of a call. So what makes a box here is four numbers with commas between them, each of which
may have the name of a side (`"x1": 1` …), or two corners in brackets of their own, and its label is
looked for in the text around it.
"""

import bisect
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIDE = 1000
"""Units along each side of a picture, whatever its size in pixels."""

LOCATE_PROMPT = "Help me to locate {target} in the image and give me its bounding boxes."
"""Asks where something is, in the makers' own words (README of zai-org/GLM-V).

The model was trained on it: others may bring an answer without a box. Labels come only when they
are asked for, as by `LABEL_PROMPT`.
"""

PINPOINT_PROMPT = (
    "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given "
    "description. {target}"
)
"""The same for a longer description, from the same source."""

LABEL_PROMPT = (
    "Help me to locate {target} in the image and give me their bounding boxes, each with its "
    'label, as JSON: [{{"label": "…", "bbox_2d": [x1,y1,x2,y2]}}, …]'
)
"""Asks where several things are, and which is which: "the red circle, the blue square"."""

_NUMBER = r"-?\d{1,9}+(?:\.\d++)?"
_NUMBERS = re.compile(_NUMBER)
# Names of sides, and which of the four they are. Not x0 and y0, beside which x1 is another one.
_SIDES = {
    name: side
    for side, names in enumerate(
        (
            ("x1", "xmin", "left"),
            ("y1", "ymin", "top"),
            ("x2", "xmax", "right"),
            ("y2", "ymax", "bottom"),
        )
    )
    for name in names
}
_KEY = r"[\"']?(?<!\w)([xy]_?(?:[12]|min|max)|left|top|right|bottom)[\"']?\s*+[:=：]\s*+"
_KEYS = re.compile(_KEY, re.IGNORECASE)
_QUOTE = r"[\"']?"  # of numbers that are texts
_COMMA = rf"{_QUOTE}\s*+[,，]\s*+{_QUOTE}"
_PAIR = rf"{_NUMBER}{_COMMA}{_NUMBER}{_QUOTE}\s*+(?=[\])])"
_NEXT_PAIR = rf"[\])]\s*+[,，]\s*+[\[(]\s*+{_QUOTE}{_PAIR}"
# Begins at the begin of a number or a key only, so that no text takes long. Two pairs are corners,
# more are another shape; in prose the Chinese comma lists anything.
_FOUR = re.compile(
    rf"(?<![\d.])(?<![,，])(?<![,，]\s){_PAIR}{_NEXT_PAIR}(?P<more>(?:{_NEXT_PAIR})++)?"
    rf"|(?<![\d.]){_NUMBER}(?:{_COMMA}{_NUMBER}){{3}}(?!\d)"
    rf"|(?<=[\[({{（【]){_NUMBER}(?:\s*+、\s*+{_NUMBER}){{3}}(?!\d)"
    rf"|{_KEY}{_QUOTE}{_NUMBER}(?:{_COMMA}{_KEY}{_QUOTE}{_NUMBER}){{3}}(?!\w)",
    re.IGNORECASE,
)
# One number, as "1,234,567,890.12", unless it is opened as a box is.
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3}){3,}+(?![\d,]*+\d)")
_OPENED = re.compile(
    r"(?:[\[({<（【]|(?:box|坐标)\w*+(?:\|?>|[\"']?\s*+[=:：]\s*+[\"']?))\s*+\Z", re.IGNORECASE
)
_OPENING_LENGTH = 40  # characters that are looked at for it
_TAG = re.compile(r"</?\|\w++\|>")  # of boxes
# What stands between boxes that share one label.
_JOINT = re.compile(rf"(?:{_TAG.pattern}|[\s\[\](){{}}<>,;，；、（）【】])*+")

# Keys whose value is a label, in JSON, Python or the arguments of a call.
_NAMED = re.compile(
    r"(?<!\w)(?:label|name|object|category|class(?:_name)?|description|text|title|caption|target"
    r"|element_info|标签|名称)[\"']?\s*+[:=：]\s*+"
    r"(\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+')",
    re.IGNORECASE | re.DOTALL,
)
_BRACE = re.compile("[{}]")
_NESTED = re.compile(r"[:=：]\s*+\{\s*+\Z")  # an object that is the value of a key
_LINE_END = re.compile(r"[\n{}。！？!?]|\.\s")
_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]\Z|(?<!\w)'([^']+)'\Z|「([^「」]+)」\Z")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# What ends here has nothing to do with the next box: a clause, a cell, a list, the name of a call.
_CLAUSE = re.compile(r"[\n|\]}。!?,;:、！？，；：]|\.\s|\((?=\w++\Z)")
_UNOPENED = re.compile(r"[^()]*+\)")
_MARKUP = re.compile(r"</?\w++[^<>]*+>")
_OPENING = " \t\r\n[({<'\"（【《“"
_AROUND = " \t\r\n:=:—–-*_#`|<>,;：，；、"
_IN_CHINESE = re.compile(r"(?:的?(?:位置|坐标|边界框|检测框))?(?:位于|是|为|在)?\Z")
# Words that lead to a box and do not say what is in it.
_FILLER = re.compile(
    r"(?:an?|and|answer|are|as|at|b?box|bboxes|boxes|b?box_2ds?|(?:start|end)_box|bounding(?:_box)?"
    r"|by|coord(?:inate)?s?|final|for|found|from|has|have|here|image|in|is|it|its|json|located"
    r"|location|of|on|picture|position|region|result|that|the|there|this|to|visible|was|were|with)",
    re.IGNORECASE,
)
_LONGEST_LABEL = 100  # characters; what is longer is no label


# No tuple: the label would be a fifth item of what is taken for four numbers.
@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a picture, in thousandths of the picture's sides.

    It iterates over its four sides, so that `left, top, right, bottom = box`. They are put in
    order, because a model may write the corners the other way round.

    Attributes:
        left: Left edge, 0 to 1000.
        top: Upper edge, 0 to 1000.
        right: Right edge, 0 to 1000.
        bottom: Lower edge, 0 to 1000.
        label: What is in it; "" if nobody said.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""

    def __post_init__(self) -> None:
        for low, high in (("left", "right"), ("top", "bottom")):
            first, last = sorted((getattr(self, low), getattr(self, high)))
            object.__setattr__(self, low, first)  # it is frozen
            object.__setattr__(self, high, last)

    @classmethod
    def from_pixels(
        cls, pixels: Sequence[float], width: int, height: int, label: str = ""
    ) -> "Box":
        """The box of a rectangle in a picture of `width` times `height` pixels.

        Args:
            pixels: Left, top, right and bottom.
            width: Pixels of the picture.
            height: Pixels of the picture.
            label: What is in it.
        """
        left, top, right, bottom = pixels
        return cls(
            left * SIDE / width,
            top * SIDE / height,
            right * SIDE / width,
            bottom * SIDE / height,
            label,
        )

    def __iter__(self) -> Iterator[float]:
        return iter((self.left, self.top, self.right, self.bottom))

    @property
    def center(self) -> tuple[float, float]:
        """The point in the middle: its distance from the left and from the top, in thousandths."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def to_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The rectangle in pixels of a picture of `width` times `height` pixels.

        Returns:
            Left, top, right and bottom, rounded.
        """
        return (
            round(self.left * width / SIDE),
            round(self.top * height / SIDE),
            round(self.right * width / SIDE),
            round(self.bottom * height / SIDE),
        )

    def clipped(self) -> "Box | None":
        """The part that is in the picture; None if there is none."""
        left, top, right, bottom = self
        if right < 0 or bottom < 0 or left > SIDE or top > SIDE:
            return None
        return Box(max(left, 0), max(top, 0), min(right, SIDE), min(bottom, SIDE), self.label)

    def iou(self, other: "Box") -> float:
        """Intersection over union with another box: 0.0 (apart) to 1.0 (the same rectangle)."""
        shared = _area(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )
        union = _area(*self) + _area(*other) - shared
        return shared / union if union > 0 else float([*self] == [*other])


def _area(left: float, top: float, right: float, bottom: float) -> float:
    return max(0.0, right - left) * max(0.0, bottom - top)


def find_boxes(text: str, tagged: Sequence[str] = ()) -> list[Box]:
    """Find the boxes in a text such as `"[[10,20,30,40],[50,60,70,80]]"`, brackets of any kind.

    Linear in the length of the text, whatever it is.

    Args:
        text: The inside of a box tag, or any answer.
        tagged: Parts of the text that stood in box tags, in order: if there are any, only the boxes
            in them count.

    Returns:
        Each four numbers that stand together, in order, also outside the picture. Their labels
        are the values beside them of keys such as "label" and "name", or their own key, or the
        words in front of them: `red circle [[10,20,30,40]]`; never words behind them.
    """
    if not any(tagged):
        return [box for _, box in _located(text)]
    if (spans := _spans(text, tagged)) is None:
        return find_boxes("\n".join(tagged))
    begins = [begin for begin, _ in spans]
    found = []
    for at, box in _located(text, begins):
        span = bisect.bisect(begins, at) - 1
        if span >= 0 and at < spans[span][1]:
            found.append(box)
    return found


def _spans(text: str, parts: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where each part begins and ends in a text, in order; None if one is not there."""
    spans = []
    end = 0
    for part in filter(None, parts):
        begin = text.find(part, end)
        if begin < 0:
            return None
        end = begin + len(part)
        spans.append((begin, end))
    return spans


def _located(text: str, begins: Sequence[int] = ()) -> Iterator[tuple[int, Box]]:
    """The boxes of a text, and where their numbers begin; `begins` are those of tagged parts."""
    runs: list[list[re.Match[str]]] = []  # those that share a label
    for found in _fours(text, begins):
        if runs and _JOINT.fullmatch(text, runs[-1][-1].end(), found.start()):
            runs[-1].append(found)
        else:
            runs.append([found])
    ends = [0, *(run[-1].end() for run in runs)]
    nexts = [*(run[0].start() for run in runs[1:]), len(text)]
    labels_follow = False  # behind their boxes; then those in front belong to others
    for run, before, after in zip(runs, ends, nexts, strict=False):
        own, behind = text[before : run[0].start()], text[run[-1].end() : after]
        label = _named(own, behind) or ("" if labels_follow else _in_front(own, follows=before > 0))
        if run is runs[0]:
            labels_follow = not label and _words_behind(behind)
        for found in run:
            if box := _box(found[0], label):
                yield found.start(), box


def _fours(text: str, begins: Sequence[int]) -> Iterator[re.Match[str]]:
    """Four numbers that stand together, and are not one large number."""
    opened = frozenset(begins)
    end = 0
    for found in _FOUR.finditer(text):
        at = found.start()
        if at < end or found["more"]:
            continue
        number = _THOUSANDS.match(text, at)
        before = text[max(0, at - _OPENING_LENGTH) : at]
        if number and at not in opened and not _OPENED.search(before):
            end = number.end()
        else:
            yield found


def _box(written: str, label: str) -> Box | None:
    """The box of four numbers; None if they have names that are not those of the four sides."""
    names = [_SIDES[name.lower().replace("_", "")] for name in _KEYS.findall(written)]
    numbers = map(float, _NUMBERS.findall(_KEYS.sub("", written)))
    if names and len({*names}) < 4:
        return None
    left, top, right, bottom = (
        number for _, number in sorted(zip(names or range(4), numbers, strict=True))
    )
    return Box(left, top, right, bottom, label)


def _named(before: str, after: str) -> str:
    """The label of boxes that a key beside them names, such as "label"; "" if none does."""
    whole = _TAG.sub("", before)
    before = whole.rstrip(_OPENING + ",，")
    own = before.rpartition("{")[2]  # what is in the same object
    if _NESTED.search(whole[-_OPENING_LENGTH:]):
        after = after.lstrip().removeprefix("}")
    named = _NAMED.search(whole, len(before) - len(own)) or _NAMED.search(
        _BRACE.split(after, maxsplit=1)[0]
    )
    return _plain(_unquoted(named[1])) if named else ""


def _in_front(before: str, *, follows: bool) -> str:
    """The label of boxes by the words in front of them; `follows`: there is a box before those."""
    before = _TAG.sub("", before)
    words = before.rstrip(_OPENING + _AROUND)
    gap = before[len(words) :]
    # In another line than their box, they may belong to the box before, or head a table.
    if "\n" in gap and ("|" in gap or (follows and "\n" not in words)):
        return ""
    return _leading(before.rstrip(_OPENING + ",，").rpartition("{")[2])


def _words_behind(after: str) -> bool:
    """Whether a box has words behind it, in its own line, sentence and object."""
    line = _LINE_END.split(after, maxsplit=1)[0]
    return any(map(str.isalnum, _MARKUP.sub("", _TAG.sub("", line))))


def _leading(text: str) -> str:
    """The label that the end of a text is, such as `red circle` in `1. **red circle**: `."""
    text = _MARKUP.sub("\n", text).rstrip(_AROUND)
    if text.endswith((".", "!", "?", "。", "！", "？")):  # the sentence is over
        return ""
    if quoted := _QUOTED.search(text[-_LONGEST_LABEL - 2 :]):
        text = quoted[1] or quoted[2] or quoted[3]
    else:
        *_, text = _CLAUSE.split(text)
        text = text.removeprefix(found[0]) if (found := _UNOPENED.match(text)) else text
    if len(text) > 2 * _LONGEST_LABEL:
        return ""
    words = _IN_CHINESE.sub("", text.strip(_AROUND + _OPENING)).split()
    while words and words != ["A"] and _FILLER.fullmatch(words[0]):  # "A" may be a name
        del words[0]
    while words and words != ["A"] and _FILLER.fullmatch(words[-1]):
        del words[-1]
    return _plain(" ".join(words))


def _unquoted(literal: str) -> str:
    """The text of a string literal of JSON or Python."""
    with contextlib.suppress(ValueError):
        return str(json.loads(literal, strict=False))
    return _ESCAPE.sub(r"\1", literal[1:-1])


def _plain(label: str) -> str:
    """A label in one line; "" for what is none."""
    label = "".join(" " if c.isspace() else c for c in label if c.isprintable() or c.isspace())
    label = " ".join(label.split()).strip("*`")
    return label if len(label) <= _LONGEST_LABEL and any(map(str.isalnum, label)) else ""


def match(
    found: Sequence[Box], wanted: Sequence[Box], iou: float = 0.5
) -> list[tuple[Box, Box, float]]:
    """Pair found boxes with wanted ones, the best overlap first; labels do not matter.

    Args:
        found: Boxes of an answer.
        wanted: Where the things are. Each box is in one pair at most.
        iou: How much a pair must overlap, at least: 0.0 to 1.0. Default: 0.5, as is usual in the
            evaluation of detectors.

    Returns:
        A found box, the wanted one, and their overlap, the best first. Precision is the number of
        pairs over that of `found`, recall over that of `wanted`.
    """
    overlaps = [
        (one.iou(other), i, k) for i, one in enumerate(found) for k, other in enumerate(wanted)
    ]
    pairs: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for overlap, i, k in sorted(overlaps, key=lambda pair: -pair[0]):
        if overlap >= iou and i not in pairs and k not in taken:
            pairs[i] = k, overlap
            taken.add(k)
    return [(found[i], wanted[k], overlap) for i, (k, overlap) in pairs.items()]
