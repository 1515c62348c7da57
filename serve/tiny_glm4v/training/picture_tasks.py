"""Exercises about pictures: read, find a field, count, locate, compare, describe."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import pictures as draw
from . import words
from .pictures import Picture, Shape
from .sample import IMAGE, Sample, ask
from .toolkit import TEXTS

Size = tuple[int, int]

ZH_COLOURS = dict(
    zip(draw.COLOURS, ["红色", "绿色", "蓝色", "黄色", "橙色", "紫色", "黑色"], strict=True)
)
ZH_KINDS = dict(zip(draw.KINDS, ["圆形", "正方形", "三角形", "星形", "十字形"], strict=True))
MANY = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
}

TRANSCRIBE = (
    "Transcribe the text.",
    "Transcribe the text in this image.",
    "Read the text.",
    "What does it say?",
    "Read this page.",
    "What is written here?",
    "Convert this page to Markdown.",
    TEXTS["read_prompt"],
    "OCR",
)
FIELD = (
    "What is the {}?",
    "What is the {}?",
    "Read the {}.",
    "{}?",
    "Give me the {}.",
    "What does the page say for {}?",
    "Find the {}.",
    "Tell me the {}.",
)
LOCATE = (
    "Help me to locate the {} in the image and give me its bounding boxes.",
    "Please pinpoint the bounding box [[x1,y1,x2,y2], …] in the image as per the given "
    "description. the {}",
    "Where is the {}?",
    "Locate the {}.",
    "Give me the bounding box of the {}.",
)
DESCRIBE = (
    "Give a concise description of this image.",
    "Describe the picture.",
    "Describe this image.",
    "What is this?",
    "What is in the picture?",
    "Summarize this document:",
    "What do you see?",
)
LARGEST_OF_SEVERAL = 448 * 336  # pixels of a page, where a document has several
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def _some_lines(rng: random.Random, most: int) -> list[str]:
    """Lines of a slip: fields, a receipt, or free text."""
    count = rng.randint(1, most)
    kind = rng.random()
    if kind < 0.55:
        labels: list[str] = []
        while len(labels) < count:
            label = words.label(rng)
            if label.lower() not in [known.lower() for known in labels]:
                labels.append(label)
        lines = [f"{label}: {words.value(rng, label)}" for label in labels]
        if count > 2 and rng.random() < 0.3:
            lines[0] = words.words(rng, 1, 2)
        return lines
    if kind < 0.7:
        items = [f"{words.words(rng, 1, 2)} {words.amount(rng)}" for _ in range(count)]
        if count > 2:
            items[-1] = f"Total: {words.money(rng)}"
        return items
    return [words.mixed_text(rng) for _ in range(count)]


def slip(rng: random.Random, size: Size, fonts: Sequence[Path], most: int = 12) -> Picture:
    """A page of up to `most` lines, fewer where the page is small."""
    fitting = max(1, min(most, size[1] // 24))
    while True:
        page = draw.slip(
            rng, size, _some_lines(rng, fitting), list(fonts), columns=rng.random() < 0.15
        )
        if page.lines:  # else no line fitted
            return page


def transcribe(rng: random.Random, page: Picture) -> Sample:
    count = len(page.lines)
    if rng.random() < 0.06:
        question = rng.choice(("请转写图中的文字。", "图中写了什么?", "读出这一页的文字。"))
        thinking = f"共有{count}行。"
    else:
        question, thinking = rng.choice(TRANSCRIBE), f"There {_are(count, 'line')}."
    return ask(
        "transcribe",
        question,
        thinking,
        "\n".join(page.lines),
        [page],
        text_first=rng.random() < 0.12,
    )


def _are(count: int, noun: str) -> str:
    return f"is 1 {noun}" if count == 1 else f"are {count} {noun}s"


def fields(page: Picture) -> dict[str, str]:
    """The page's fields, label to value."""
    return dict(line.split(": ", 1) for line in page.lines if ": " in line)


def field(rng: random.Random, page: Picture) -> Sample | None:
    """Ask for one field by its label; now and then for one that is not there."""
    known = fields(page)
    if not known:
        return None
    if rng.random() < 0.05:
        label = words.label(rng)
        if label not in known and not any(label.lower() in line.lower() for line in page.lines):
            answer = f"There is no {label} on the page."
            return ask(
                "absent", rng.choice(FIELD).format(label), f"No line reads {label}.", answer, [page]
            )
    label, value = rng.choice(list(known.items()))
    if rng.random() < 0.07:
        question = rng.choice(("{}是什么?", "图中的{}是多少?", "请读出{}。")).format(label)
        return ask("field", question, f"这一行是“{label}: {value}”。", value, [page])
    question = rng.choice(FIELD).format(label if rng.random() < 0.8 else label.lower())
    thinking = f'The line reads "{label}: {value}".'
    return ask("field", question, thinking, value, [page], text_first=rng.random() < 0.12)


def line(rng: random.Random, page: Picture) -> Sample:
    """Ask for one line by its place, or how many there are."""
    count = len(page.lines)
    thinking = f"There {_are(count, 'line')}."
    if rng.random() < 0.2:
        question = rng.choice(
            ("How many lines of text are there?", "How many lines are there?", "图中有几行文字?")
        )
        return ask("line", question, thinking, str(count), [page])
    k = rng.randrange(count)
    places = [f"line {k + 1}", f"the {ORDINALS[k]} line" if k < len(ORDINALS) else f"line {k + 1}"]
    places += ["the last line"] * (k == count - 1) + ["the title"] * (k == 0)
    place = rng.choice(places)
    question = rng.choice(("Read {}.", "What does {} say?", "What is {}?")).format(place)
    return ask("line", question, thinking, page.lines[k], [page])


def describe(rng: random.Random, picture: Picture) -> Sample:
    """Say in a sentence what the picture shows."""
    if rng.random() < 0.15:
        question = rng.choice(("这张图是什么", "请描述这张图片。", "这是什么?"))
        if picture.shapes:
            return ask(
                "describe",
                question,
                "有几个图形。",
                f"图中有{len(picture.shapes)}个图形。",
                [picture],
            )
        return ask(
            "describe", question, "有文字。", f"这是一页文字,共{len(picture.lines)}行。", [picture]
        )
    question = rng.choice(DESCRIBE)
    if picture.shapes:
        listed = ", ".join(f"a {s}".replace("a orange", "an orange") for s in picture.shapes)
        answer = f"A picture with {listed}."
        return ask(
            "describe", question, "I see shapes.", answer, [picture], text_first=rng.random() < 0.5
        )
    count = len(picture.lines)
    answer = f'A page with {count} line{"s" * (count > 1)} of text. It begins "{picture.lines[0]}".'
    return ask(
        "describe", question, "I see text.", answer, [picture], text_first=rng.random() < 0.5
    )


def blank(rng: random.Random, size: Size) -> Sample:
    """An empty page, asked about as if it were not."""
    page = draw.blank(rng, size)
    if rng.random() < 0.15:
        question = rng.choice(("请转写图中的文字。", "图中写了什么?", "这张图是什么"))
        return ask("blank", question, "没有文字。", "这一页是空白的。", [page])
    question = rng.choice(
        (*TRANSCRIBE, *DESCRIBE, "Is the page blank?", f"What is the {words.label(rng)}?")
    )
    return ask(
        "blank",
        question,
        "There is no text.",
        "The page is blank.",
        [page],
        text_first=rng.random() < 0.12,
    )


Pick = tuple[str | None, str | None]  # kind and colour asked for; None: any


def _matches(shape: Shape, pick: Pick) -> bool:
    return pick[0] in (None, shape.kind) and pick[1] in (None, shape.colour)


def _plural(pick: Pick) -> str:
    return " ".join(part for part in (pick[1], MANY.get(pick[0] or "", "shapes")) if part)


def _zh(pick: Pick) -> str:
    return (f"{ZH_COLOURS[pick[1]]}" if pick[1] else "") + (
        ZH_KINDS[pick[0]] if pick[0] else "图形"
    )


def _percent(shape: Shape, size: Size) -> str:
    """Where a shape's centre is, in hundredths of the width and height."""
    x, y = shape.centre
    return f"{int(100 * x / size[0])},{int(100 * y / size[1])}"


def _numbered(found: Sequence[Shape], size: Size) -> str:
    """The shapes one by one: counting aloud."""
    return ", ".join(f"{k} at {_percent(s, size)}" for k, s in enumerate(found, 1)) or "none"


def shapes(rng: random.Random, size: Size, most: int = 10) -> Picture:
    """A picture of 1 to `most` shapes; kinds and colours repeat often, so that counting is work."""
    kinds = rng.sample(draw.KINDS, rng.randint(1, len(draw.KINDS)))
    colours = rng.sample(list(draw.COLOURS), rng.randint(1, len(draw.COLOURS)))
    wanted = [(rng.choice(kinds), rng.choice(colours)) for _ in range(rng.randint(1, most))]
    return draw.shapes(rng, size, wanted)


def _pick(rng: random.Random, picture: Picture) -> Pick:
    """What to count: mostly something that is there."""
    shape = rng.choice(picture.shapes)
    kind, colour = shape.kind, shape.colour
    if rng.random() < 0.12:
        kind, colour = rng.choice(draw.KINDS), rng.choice(list(draw.COLOURS))
    return rng.choice(
        ((kind, colour), (kind, colour), (kind, None), (kind, None), (None, colour), (None, None))
    )


def count(rng: random.Random, picture: Picture) -> Sample:
    pick = _pick(rng, picture)
    found = [s for s in picture.shapes if _matches(s, pick)]
    listed = _numbered(found, picture.size)
    if rng.random() < 0.08:
        question = rng.choice(("图中有几个{}?", "图里有多少个{}?")).format(_zh(pick))
        return ask(
            "count",
            question,
            f"{_zh(pick)}:{listed}",
            f"图中有{len(found)}个{_zh(pick)}。",
            [picture],
        )
    question = rng.choice(
        ("How many {} are there?", "How many {} are in the picture?", "Count the {}.")
    )
    thinking = f"{_plural(pick)}: {listed}"
    return ask(
        "count",
        question.format(_plural(pick)),
        thinking,
        str(len(found)),
        [picture],
        text_first=rng.random() < 0.12,
    )


def box_text(found: Sequence[Shape], size: Size) -> str:
    """Boxes as the model family writes them: thousandths of width and height, in box tokens."""

    def scaled(shape: Shape) -> str:
        x1, y1, x2, y2 = shape.box
        values = (x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1])
        return "[" + ",".join(str(min(999, max(0, round(1000 * v)))) for v in values) + "]"

    return f"<|begin_of_box|>[{','.join(map(scaled, found))}]<|end_of_box|>"


def locate(rng: random.Random, picture: Picture) -> Sample:
    """Ask for the box of a shape that is there once, or for all of a kind."""
    shape = rng.choice(picture.shapes)
    picks: list[Pick] = [(shape.kind, shape.colour), (shape.kind, None)]
    for pick in picks:
        found = [s for s in picture.shapes if _matches(s, pick)]
        if len(found) == 1 and (pick[1] or rng.random() < 0.5):
            break
    else:
        pick = picks[0]
        found = [s for s in picture.shapes if _matches(s, pick)][:4]
        if len([s for s in picture.shapes if _matches(s, pick)]) > 4:
            return count(rng, picture)
    what = " ".join(p for p in (pick[1], pick[0]) if p) if len(found) == 1 else _plural(pick)
    thinking = f"{what}: {_numbered(found, picture.size)}"
    question = rng.choice(LOCATE).format(what)
    if rng.random() < 0.06:
        question, thinking = (
            f"请给出{_zh(pick)}的位置。",
            f"{_zh(pick)}:{_numbered(found, picture.size)}",
        )
    return ask(
        "locate",
        question,
        thinking,
        box_text(found, picture.size),
        [picture],
        text_first=rng.random() < 0.12,
    )


def compare_counts(rng: random.Random, size: Size) -> Sample:
    """Which of two pictures has more of something?"""
    kind, colour = rng.choice(draw.KINDS), rng.choice(list(draw.COLOURS))
    pick: Pick = rng.choice(((kind, None), (kind, None), (None, colour), (None, None)))
    pair = []
    for _ in range(2):
        others = [
            (rng.choice(draw.KINDS), rng.choice(list(draw.COLOURS)))
            for _ in range(rng.randint(0, 3))
        ]
        asked = [
            (pick[0] or rng.choice(draw.KINDS), pick[1] or rng.choice(list(draw.COLOURS)))
        ] * rng.randint(0, 4)
        wanted = others + asked or [(kind, colour)]
        rng.shuffle(wanted)
        pair.append(draw.shapes(rng, size, wanted))
    found = [[s for s in p.shapes if _matches(s, pick)] for p in pair]
    a, b = map(len, found)
    chinese = rng.random() < 0.08
    if chinese:
        question = f"哪张图的{_zh(pick)}更多?"
        answer = "第一张图。" if a > b else "第二张图。" if b > a else "一样多。"
        thinking = f"第一张:{_numbered(found[0], size)}。第二张:{_numbered(found[1], size)}。"
    else:
        question = rng.choice(("Which picture has more {}?", "Which image has more {}?")).format(
            _plural(pick)
        )
        answer = "The first." if a > b else "The second." if b > a else "Both have the same number."
        thinking = f"First: {_numbered(found[0], size)}. Second: {_numbered(found[1], size)}."
    return ask("pair", question, thinking, answer, pair)


def compare_common(rng: random.Random, size: Size) -> Sample:
    """What do two pictures have in common? Exactly one kind in one colour."""
    all_shapes = [(k, c) for k in draw.KINDS for c in draw.COLOURS]
    rng.shuffle(all_shapes)
    shared, rest = all_shapes[0], all_shapes[1:]
    pair = []
    for _ in range(2):
        wanted = [shared] + [rest.pop() for _ in range(rng.randint(0, 3))]
        rng.shuffle(wanted)
        pair.append(draw.shapes(rng, size, wanted))
    common = [s for s in pair[0].shapes if any(str(s) == str(t) for t in pair[1].shapes)]
    listed = ["; ".join(map(str, p.shapes)) for p in pair]
    if rng.random() < 0.08:
        question = rng.choice(("这两张图有什么共同点?", "这两张图像之间可能有哪些关联?"))
        answer = f"两张图中都有{_zh((shared[0], shared[1]))}。" if common else "没有共同点。"
        thinking = f"第一张:{listed[0]}。第二张:{listed[1]}。"
    else:
        question = rng.choice(
            ("What do the two pictures have in common?", "What do these images have in common?")
        )
        article = "an" if shared[1].startswith("o") else "a"
        answer = (
            f"Both show {article} {shared[1]} {shared[0]}."
            if common
            else "They have nothing in common."
        )
        thinking = f"First: {listed[0]}. Second: {listed[1]}."
    return ask("pair", question, thinking, answer, pair)


def compare_slips(rng: random.Random, size: Size, fonts: Sequence[Path]) -> Sample:
    """Read a field from one of two slips, or say which one has the larger amount."""
    label = rng.choice(("Total", "Total", "Price", "Balance", "Amount"))
    pair, values = [], []
    for _ in range(2):
        lines = [
            text
            for text in _some_lines(rng, max(1, min(4, size[1] // 28)))
            if label not in text and "Total" not in text
        ]
        value = words.amount(rng)
        lines.insert(rng.randint(0, len(lines)), f"{label}: {value}")
        pair.append(draw.slip(rng, size, lines, list(fonts)))
        values.append(value)
    read = [fields(p).get(label) for p in pair]
    thinking = " ".join(
        f"{place}: {value}." for place, value in zip(("First", "Second"), read, strict=True)
    )
    if None in read or read[0] == read[1] or rng.random() < 0.4:
        which = rng.choice([k for k in (0, 1) if read[k] is not None] or [0])
        if read[which] is None:
            return compare_counts(rng, size)
        place, noun = rng.choice(("of", "on", "in")), rng.choice(("picture", "slip", "receipt"))
        question = f"What is the {label} {place} the {ORDINALS[which]} {noun}?"
        return ask(
            "pair", question, f'The line reads "{label}: {read[which]}".', str(read[which]), pair
        )
    larger = float(read[0] or 0) > float(read[1] or 0)
    question = f"Which {rng.choice(('picture', 'slip', 'receipt'))} has the larger {label}?"
    return ask("pair", question, thinking, "The first." if larger else "The second.", pair)


def on_slip(rng: random.Random, size: Size, fonts: Sequence[Path], most: int) -> list[Sample]:
    """Two or three exercises about one page of text."""
    page = slip(rng, size, fonts, most)
    asked: list[Sample | None] = [transcribe(rng, page)]
    asked += [field(rng, page), field(rng, page) if rng.random() < 0.5 else line(rng, page)]
    if rng.random() < 0.08:
        asked.append(describe(rng, page))
    return [sample for sample in asked if sample]


def on_shapes(rng: random.Random, size: Size, most: int) -> list[Sample]:
    """Three exercises about one picture of shapes."""
    picture = shapes(rng, size, most)
    asked = [count(rng, picture), count(rng, picture), locate(rng, picture)]
    if rng.random() < 0.15:
        asked.append(describe(rng, picture))
    return asked


def on_pair(rng: random.Random, size: Size, fonts: Sequence[Path]) -> list[Sample]:
    """One exercise about two pictures, at times labelled as an agent's tool does."""
    make: Callable[[], Sample] = rng.choice(
        (
            lambda: compare_counts(rng, size),
            lambda: compare_common(rng, size),
            lambda: compare_slips(rng, size, fonts),
        )
    )
    sample = make()
    if rng.random() < 0.2:
        texts = [p for p in sample.messages[0]["content"] if p != IMAGE]
        labelled = _labelled(TEXTS["image_label"], [1, 2])
        message = {"role": "user", "content": labelled + texts}
        sample = replace(sample, messages=[message])
    return [sample]


def _labelled(label: str, numbers: Sequence[int]) -> list[dict[str, str]]:
    """Pictures, each behind its label."""
    return [
        part
        for number in numbers
        for part in ({"type": "text", "text": label.format(number=number, page=number)}, IMAGE)
    ]


def on_document(rng: random.Random, size: Size, fonts: Sequence[Path]) -> list[Sample]:
    """Two questions about one to three pages, as the tool for documents asks them."""
    count = rng.randint(1, 3) if size[0] * size[1] <= LARGEST_OF_SEVERAL else 1
    pages = [slip(rng, size, fonts, 8) for _ in range(count)]
    first = rng.choice((1, 1, rng.randint(1, 40)))
    made = [_of_document(rng, pages, first) for _ in range(2)]
    return [sample for sample in made if sample] or [transcribe(rng, pages[0])]


def _of_document(rng: random.Random, pages: Sequence[Picture], first: int) -> Sample | None:
    """Ask for a field that is on one page; now and then for one that is on none."""
    numbers = range(first, first + len(pages))
    places = [
        (label, number) for number, p in zip(numbers, pages, strict=True) for label in fields(p)
    ]
    labels = [label for label, _ in places]
    places = [(label, number) for label, number in places if labels.count(label) == 1]
    finds = rng.random() < 0.3
    label = words.label(rng)
    text = "\n".join(line.lower() for page in pages for line in page.lines)
    if rng.random() < (0.4 if finds else 0.06) and label.lower() not in text:
        thinking = f"No line reads {label}."
        answer = TEXTS["nothing"] if finds else f"There is no {label} on the page."
    elif places:
        label, number = rng.choice(places)
        value = fields(pages[number - first])[label]
        thinking = f'The line on page {number} reads "{label}: {value}".'
        answer = f"{value} [page {number}]"
    else:
        return None
    prompt = TEXTS["find_prompt" if finds else "document_prompt"]
    shown = f"{first}-{numbers[-1]}" if len(pages) > 1 else str(first)
    asked = prompt.format(
        question=rng.choice(FIELD).format(label if rng.random() < 0.8 else label.lower()),
        pages=shown,
        count=numbers[-1] + rng.randint(0, 9),
    )
    content = [*_labelled(TEXTS["page_label"], numbers), {"type": "text", "text": asked}]
    messages = [{"role": "user", "content": content}]
    return Sample("document", messages, thinking, answer, list(pages))
