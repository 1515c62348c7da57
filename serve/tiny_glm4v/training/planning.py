"""Exercises of an agent with the package's own tools: which to call, and what to answer then.

A session is what a user asks, the calls it takes, what the tools say, and the answer. It gives one
exercise for each time that the model speaks. The tools' schemas are long, so the exercises of one
`group` share them.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from . import dialogues, protocol, words
from .picture_tasks import MANY, ORDINALS
from .pictures import COLOURS, KINDS
from .protocol import Schema
from .sample import HELD_OUT_SHARE, Message, Sample
from .toolkit import TEXTS, TOOLS
from .video_tasks import span

Call = tuple[str, dict[str, Any]]  # name of the tool, arguments

SESSIONS_OF_A_GROUP = 4
NAMES = [tool["name"] for tool in TOOLS]
ENDINGS = {
    "image": ("png", "png", "png", "jpg", "jpg", "jpeg", "webp", "gif", "bmp", "PNG", "JPG"),
    "document": ("pdf", "pdf", "pdf", "pdf", "pptx", "docx", "ppt", "doc", "odt", "odp", "PDF"),
    "video": ("mp4", "mp4", "mp4", "mov", "webm", "mkv", "avi", "MP4"),
}
STEMS = {
    "image": "receipt invoice photo picture shapes more_shapes page note ticket slip image one",
    "document": "scan report letter invoice slides paper contract pages document offer manual deck",
    "video": "film clip movie video recording trip lesson camera screen talk",
}


def path(rng: random.Random, kind: str) -> str:
    """A file name, at times with folders or as a URL."""
    word = rng.choice(STEMS[kind].split())
    other = rng.choice((word, rng.choice(words.NOUNS), words.pseudo_word(rng)))
    stem = rng.choice(
        (
            word,
            word,
            other,
            other,
            f"{other}{rng.choice(('-', '_', ''))}{rng.randint(1, 99)}",
            f"{other}{rng.choice('-_')}{rng.choice(words.NOUNS)}",
            f"{word}-20{rng.randint(10, 35)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
            f"IMG_{rng.randint(1, 9999):04}",
            words.code(rng).strip("#").replace("/", "-"),
        )
    )
    stem = stem.capitalize() if rng.random() < 0.1 else stem
    chance = rng.random()
    folder = ""
    if chance < 0.45:
        made = (rng.choice(words.NOUNS), words.pseudo_word(rng), str(rng.randint(0, 2030)))
        parts = [rng.choice((*made, "files", "media", "tmp", "srv", "home", "data", "docs"))]
        parts += [
            rng.choice((*made, f"{made[0]}-{made[2]}", f"{made[1]}_{made[0]}{made[2]}"))
            for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))
        ]
        start = rng.choice(("", "", "/", "/", "./", "../", "https://example.com/"))
        folder = f"{start}{'/'.join(parts)}/"
    return f"{folder}{stem}.{rng.choice(ENDINGS[kind])}"


# --- Errands: one thing to find out about one file ---


@dataclass(frozen=True)
class Errand:
    """One thing to find out.

    Attributes:
        said: How the user asks.
        file: The file that it is about, as the user writes it.
        call: What to call for it.
        result: What the tool says then.
        answer: What to tell the user.
    """

    said: str
    file: str
    call: Call
    result: str
    answer: str


FIELD = (
    "What is the {x} of {f}?",
    "What is the {x} of {f}?",
    "What is the {x} in {f}?",
    "What is the {x} on {f}?",
    "Which {x} does {f} show?",
    "What does {f} say for {x}?",
    "In {f}, what is the {x}?",
    "Look at {f}. What is the {x}?",
    "{f}: what is the {x}?",
    "Read the {x} of {f}.",
    "Read the {x} from {f}.",
    "Tell me the {x} of {f}.",
    "Find the {x} in {f}.",
    "Give me the {x} of {f}.",
)
PAGE_OF = (
    "On which page of {f} is the {x}?",
    "Which page of {f} has the {x}?",
    "Which page of {f} shows the {x}?",
    "Find the page of {f} with the {x}.",
)
COUNT = (
    "How many {x} are in {f}?",
    "How many {x} are there in {f}?",
    "How many {x} does {f} show?",
    "Count the {x} in {f}.",
    "Look at {f}. How many {x} are there?",
)
LOCATE = (
    "Where is the {x} in {f}?",
    "Where is the {x} in {f}?",
    "Where in {f} is the {x}?",
    "Where do you see the {x} in {f}?",
    "Locate the {x} in {f}.",
    "Give me the box of the {x} in {f}.",
)
DESCRIBE = (
    "What does {f} show?",
    "What is in {f}?",
    "What do you see in {f}?",
    "Describe {f}.",
    "Look at {f} and describe it.",
    "Describe the picture {f}.",
)
READ = (
    "What is written in {f}?",
    "What does {f} say?",
    "Read {f}.",
    "Read all text of {f}.",
    "Read the text in {f}.",
    "Transcribe {f}.",
    "Give me the text of {f}.",
    "Convert {f} to Markdown.",
)
READ_PAGES = (
    "What is written on {p} of {f}?",
    "What does {p} of {f} say?",
    "Read {p} of {f}.",
    "Transcribe {p} of {f}.",
)
WHEN = (
    "When does {x} appear in {f}?",
    "When does {x} appear in {f}?",
    "At which second does {x} appear in {f}?",
    "At which second of {f} does {x} appear?",
    "When do you see {x} in {f}?",
    "Watch {f}. When does {x} appear?",
    "Find the second of {f} at which {x} appears.",
)
APPEARS = ("Does {x} appear in {f}?", "Is {x} in {f}?", "Do you see {x} in {f}?")
AT = (
    "What is shown at second {x} of {f}?",
    "What do you see at second {x} of {f}?",
    "What is there at second {x} in {f}?",
)
STRETCH = (
    "What happens between second {a} and second {b} of {f}?",
    "What happens from second {a} to second {b} of {f}?",
    "Describe seconds {a} to {b} of {f}.",
    "Watch seconds {a} to {b} of {f} and describe them.",
)
HAPPENS = (
    "What happens in {f}?",
    "What happens in {f}?",
    "What does {f} show?",
    "Describe {f}.",
    "Describe the video {f}.",
    "Watch {f} and tell me what happens.",
    "Give a timeline of {f}.",
)
SCENES = (
    "How many scenes are in {f}?",
    "How many scenes does {f} have?",
    "Count the scenes of {f}.",
)
WRITTEN = (
    "What is written in {f}?",
    "Read all text in {f}.",
    "Which words appear in {f}?",
)
RELAY = (
    "Look at {f}. {q}",
    "{f}: {q}",
    "{q} The file is {f}.",
    "Answer from {f}: {q}",
    "{q} See {f}.",
)


def _look(file: str | Sequence[str], question: str) -> Call:
    files = [file] if isinstance(file, str) else list(file)
    return "look_at_images", {"images": files, "question": question}


def _watch(file: str, question: str, **more: Any) -> Call:
    return "watch_video", {"video": file, "question": question, **more}


def _ask(file: str, question: str, **more: str) -> Call:
    return "ask_document", {"document": file, "question": question, **more}


def _rests_on(rng: random.Random, answer: str, pages: Sequence[int] = ()) -> tuple[str, int]:
    """What `ask_document` gives, and the page that the answer cites, 0 for none."""
    count = rng.choice((1, 1, 2, 3, rng.randint(1, 40)))
    first, last = (pages[0], pages[-1]) if pages else (1, count)
    cited = rng.randint(first, last) if rng.random() < 0.85 else 0
    rests = TEXTS["rests_on"].format(
        cited=cited or TEXTS["no_pages"],
        pages=span(first, last),
        count=max(count, last),
    )
    return f"{answer}{f' [page {cited}]' if cited else ''}\n\n{rests}", cited


def _watched(rng: random.Random, answer: str, first: int = 0, last: int = 0) -> str:
    end = last or rng.randint(2, 30)
    step = rng.choice(("0.5", "0.5", "0.5", "1", "2"))
    end_text = f"{end - rng.choice((0.5, 0.5, 0, 0.1)):.4g}"
    return f"{answer}\n{TEXTS['watched'].format(first=first, last=end_text, step=step)}"


def field(rng: random.Random) -> Errand:
    """The value of a field of a picture."""
    file, label = path(rng, "image"), words.label(rng)
    label = label if rng.random() < 0.8 else label.lower()
    value = words.value(rng, label)
    said = rng.choice(FIELD).format(x=label, f=file)
    call = _look(file, f"What is the {label}?")
    if rng.random() < 0.08:
        missing = f"There is no {label} on the page."
        return Errand(said, file, call, missing, missing)
    return Errand(said, file, call, value, f"The {label} of {file} is {value}.")


def field_of_document(rng: random.Random) -> Errand:
    """The value of a field of a document, at times of some of its pages."""
    file, label = path(rng, "document"), words.label(rng)
    value = words.value(rng, label)
    call = _ask(file, f"What is the {label}?")
    chance = rng.random()
    where, pages = _some_pages(rng) if chance < 0.2 else ("", [])
    said = rng.choice(FIELD if chance < 0.65 else PAGE_OF)
    said = said.format(x=label, f=f"{where} of {file}" if where else file)
    if pages:
        call[1]["pages"] = span(pages[0], pages[-1])
    elif rng.random() < 0.06:
        password = rng.choice((words.code, words.word, words.number))(rng)
        said += f" The password is {password}."
        call[1]["password"] = password
    if rng.random() < 0.06:
        missing = f"There is no {label} on the page."
        return Errand(said, file, call, _rests_on(rng, missing, pages)[0], missing)
    result, cited = _rests_on(rng, value, pages)
    told = f"The {label} of {file} is {value}" + (f" (page {cited})." if cited else ".")
    return Errand(said, file, call, result, told)


def _some_pages(rng: random.Random) -> tuple[str, list[int]]:
    """Pages as a user names them."""
    first = rng.randint(1, 20)
    if rng.random() < 0.6:
        return f"page {first}", [first]
    last = first + rng.randint(1, 9)
    return f"pages {first} to {last}", [first, last]


def count(rng: random.Random) -> Errand:
    file, kind = path(rng, "image"), rng.choice(KINDS)
    colour = rng.choice((*COLOURS, ""))
    one, many = f"{colour} {kind}".strip(), f"{colour} {MANY[kind]}".strip()
    number = rng.choice((0, 1, 1, 2, 3, 4, 5, 6, 7, 8))
    told = f"There is 1 {one}" if number == 1 else f"There are {number} {many}"
    return Errand(
        rng.choice(COUNT).format(x=many, f=file),
        file,
        _look(file, f"How many {many} are there?"),
        str(number),
        f"{told} in {file}.",
    )


def locate(rng: random.Random) -> Errand:
    file = path(rng, "image")
    thing = rng.choice(
        (f"{rng.choice(list(COLOURS))} {rng.choice(KINDS)}",) * 3 + (rng.choice(KINDS),)
    )
    if rng.random() < 0.25:
        thing = rng.choice((words.words(rng, 1, 2).lower(), rng.choice(words.NOUNS)))
    wide, high = rng.randint(100, 2000), rng.randint(100, 2000)
    boxes = []
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        left, top = rng.randint(0, wide - 30), rng.randint(0, high - 30)
        box = (left, top, rng.randint(left + 9, wide), rng.randint(top + 9, high))
        boxes.append(", ".join(map(str, box)))
    said = rng.choice(LOCATE).format(x=thing, f=file)
    call = ("locate_in_image", {"image": file, "target": f"the {thing}"})
    if rng.random() < 0.1:
        seen = rng.choice((f"There is no {thing}.", "I see none.", "Not there."))
        result = TEXTS["not_found"].format(
            width=wide, height=high, target=f"the {thing}", answer=seen
        )
        return Errand(said, file, call, result, f"I did not find the {thing} in {file}.")
    lines = [f"{n}. the {thing}: {box}" for n, box in enumerate(boxes, 1)]
    result = "\n".join((TEXTS["found"].format(width=wide, height=high), *lines))
    told = " and at ".join(boxes)
    return Errand(said, file, call, result, f"The {thing} is at {told} in {file}.")


def describe(rng: random.Random) -> Errand:
    file = path(rng, "image")
    if rng.random() < 0.5:
        shapes = [f"a {rng.choice(list(COLOURS))} {rng.choice(KINDS)}" for _ in range(3)]
        seen = f"A picture with {', '.join(shapes[: rng.randint(1, 3)])}."
    else:
        seen = f'A page with {rng.randint(2, 12)} lines of text. It begins "{words.words(rng)}".'
    said = rng.choice(DESCRIBE).format(f=file)
    return Errand(said, file, _look(file, "Describe this image."), seen, seen)


def _lines(rng: random.Random) -> str:
    made = []
    for _ in range(rng.randint(1, 5)):
        label = words.label(rng)
        made.append(rng.choice((f"{label}: {words.value(rng, label)}", words.mixed_text(rng))))
    return "\n".join(made)


def read(rng: random.Random) -> Errand:
    """All that is written in a picture or document, or on some of its pages."""
    kind, text = rng.choice(("image", "document")), _lines(rng)
    file = path(rng, kind)
    arguments = {"source": file}
    said = rng.choice(READ).format(f=file)
    if kind == "document" and rng.random() < 0.6:
        where, pages = _some_pages(rng)
        said = rng.choice(READ_PAGES).format(p=where, f=file)
        arguments["pages"] = span(pages[0], pages[-1])
        text = f"## Page {pages[0]}\n\n{text}"
    return Errand(said, file, ("read_text", arguments), text, text)


def _thing_in_clip(rng: random.Random) -> str:
    shape = f"the {rng.choice(list(COLOURS))} {rng.choice((*KINDS, 'screen'))}"
    return rng.choice((shape, f"the word {words.word(rng)}", f"the number {words.number(rng)}"))


def when(rng: random.Random) -> Errand:
    file, thing = path(rng, "video"), _thing_in_clip(rng)
    name, second = f"{thing[0].upper()}{thing[1:]}", rng.randint(0, 20)
    call = _watch(file, f"At which second does {thing} appear?")
    said = rng.choice(WHEN).format(x=thing, f=file)
    if rng.random() < 0.12:
        result = _watched(rng, "It does not appear.")
        return Errand(said, file, call, result, f"{name} does not appear in {file}.")
    told = f"At second {second}."
    seen = (
        f"{told[:-1]} ({span(second, second + rng.randint(0, 4))})" if rng.random() < 0.2 else told
    )
    answer = f"{name} appears in {file} at second {second}."
    return Errand(said, file, call, _watched(rng, seen), answer)


def appears(rng: random.Random) -> Errand:
    file, thing = path(rng, "video"), _thing_in_clip(rng)
    seen = rng.choice((f"Yes, at second {rng.randint(0, 20)}.", "No."))
    said = rng.choice(APPEARS).format(x=thing, f=file)
    return Errand(said, file, _watch(file, f"Does {thing} appear?"), _watched(rng, seen), seen)


def _caption(rng: random.Random) -> str:
    shape = f"{rng.choice(list(COLOURS))} {rng.choice((*KINDS, 'screen'))}"
    return rng.choice((shape, words.word(rng), words.number(rng), f"{shape} and {words.word(rng)}"))


def _timeline(rng: random.Random, first: int, last: int) -> str:
    cuts = sorted(rng.sample(range(first + 1, last + 1), min(last - first, rng.randint(0, 3))))
    spans = zip((first, *cuts), (*(cut - 1 for cut in cuts), last), strict=True)
    return "; ".join(f"{span(a, b)}: {_caption(rng)}" for a, b in spans)


def happens(rng: random.Random) -> Errand:
    """What happens in a video, or between two of its seconds."""
    file = path(rng, "video")
    if rng.random() < 0.5:
        first, last = 0, rng.randint(2, 20)
        call = _watch(file, "Describe this video.")
        said = rng.choice(HAPPENS).format(f=file)
    else:
        first = rng.randint(0, 60)
        last = first + rng.randint(1, 30)
        call = _watch(file, "Describe this video.", start=first, end=last)
        said = rng.choice(STRETCH).format(a=first, b=last, f=file)
    seen = _timeline(rng, first, last)
    return Errand(said, file, call, _watched(rng, seen, first, last), seen)


def at(rng: random.Random) -> Errand:
    file, second = path(rng, "video"), rng.randint(0, 30)
    seen = _caption(rng)
    told = f"{seen} ({span(second, second + rng.randint(0, 4))})"
    said = rng.choice(AT).format(x=second, f=file)
    call = _watch(file, f"What is shown at second {second}?")
    return Errand(said, file, call, _watched(rng, told), f"At second {second} {file} shows {seen}.")


def scenes(rng: random.Random) -> Errand:
    file, number = path(rng, "video"), rng.randint(1, 8)
    ends = sorted(rng.sample(range(20), number))
    begins = [0, *(end + 1 for end in ends[:-1])]
    told = f"{number} ({', '.join(map(span, begins, ends))})"
    noun = "scene" if number == 1 else "scenes"
    return Errand(
        rng.choice(SCENES).format(f=file),
        file,
        _watch(file, "How many scenes are there?"),
        _watched(rng, told),
        f"{file} has {number} {noun}.",
    )


def written(rng: random.Random) -> Errand:
    file = path(rng, "video")
    lines = [f"{words.word(rng)} ({rng.randint(0, 20)})" for _ in range(rng.randint(1, 3))]
    seen = "\n".join(lines) if rng.random() < 0.9 else "There is no text."
    said = rng.choice(WRITTEN).format(f=file)
    call = _watch(file, "Read all text in the video.")
    return Errand(said, file, call, _watched(rng, seen), seen)


def relay(rng: random.Random) -> Errand:
    """Any question, handed on word for word."""
    kind = rng.choice(("image", "image", "document", "video"))
    file = path(rng, kind)
    starts = ("What is", "How many", "Which", "Who is", "What does", "Is there", "Where are")
    line = rng.choice(
        (f"Read line {rng.randint(1, 9)}.", f"What is the {rng.choice(ORDINALS)} line?")
    )
    question = rng.choice(
        (
            f"{rng.choice(starts)} {words.words(rng, 1, 4)}?",
            f"Read the {words.label(rng)}.",
            line if kind == "image" else "How many scenes are there?" if kind == "video" else line,
        )
    )
    seen = rng.choice((words.words, words.number, words.amount, words.name, words.mixed_text))(rng)
    make: dict[str, Callable[[], tuple[Call, str]]] = {
        "image": lambda: (_look(file, question), seen),
        "document": lambda: (_ask(file, question), _rests_on(rng, seen)[0]),
        "video": lambda: (_watch(file, question), _watched(rng, seen)),
    }
    call, result = make[kind]()
    answer = result.split("\n\n(Pages", 1)[0] if kind == "document" else seen
    return Errand(rng.choice(RELAY).format(f=file, q=question), file, call, result, answer)


LARGER = (
    "Which has the larger {x}, {a} or {b}?",
    "Which receipt has the larger {x}, {a} or {b}?",
    "Is the {x} of {a} or of {b} larger?",
    "Compare {a} and {b}: which has the larger {x}?",
)
MORE = (
    "Which has more {x}, {a} or {b}?",
    "Which picture has more {x}, {a} or {b}?",
    "Are there more {x} in {a} or in {b}?",
    "Compare {a} and {b}: which has more {x}?",
)
COMMON = (
    "What do {a} and {b} have in common?",
    "Compare {a} and {b}. What do they have in common?",
    "What is in both {a} and {b}?",
)


def compare(rng: random.Random) -> Errand:
    """Two pictures in one call."""
    a, b = path(rng, "image"), path(rng, "image")
    which = rng.choice((0, 1))
    seen, file = ("The first.", "The second.")[which], (a, b)[which]
    kind = rng.random()
    if kind < 0.45:
        label = rng.choice(("Total", "Total", "Price", "Balance", "Amount", words.label(rng)))
        said = rng.choice(LARGER).format(x=label, a=a, b=b)
        question, answer = (
            f"Which receipt has the larger {label}?",
            f"{file} has the larger {label}.",
        )
    elif kind < 0.8:
        thing = f"{rng.choice((*COLOURS, '', ''))} {rng.choice(list(MANY.values()))}".strip()
        said = rng.choice(MORE).format(x=thing, a=a, b=b)
        question, answer = f"Which picture has more {thing}?", f"{file} has more {thing}."
        if rng.random() < 0.15:
            seen = answer = "Both have the same number."
    else:
        said = rng.choice(COMMON).format(a=a, b=b)
        question = "What do the two pictures have in common?"
        seen = f"Both show a {rng.choice(list(COLOURS))} {rng.choice(KINDS)}."
        answer = seen
    return Errand(said, f"{a} and {b}", _look((a, b), question), seen, answer)


ERRANDS: dict[Callable[[random.Random], Errand], float] = {
    field: 4,
    field_of_document: 4,
    count: 2,
    locate: 3,
    describe: 1,
    read: 2.5,
    when: 3,
    appears: 0.7,
    happens: 2,
    at: 1,
    scenes: 0.7,
    written: 0.7,
    relay: 2,
    compare: 2,
}


def errand(rng: random.Random, tools: Sequence[str] = NAMES) -> Errand:
    """An errand for which a tool is there."""
    while True:
        made = rng.choices(list(ERRANDS), weights=list(ERRANDS.values()))[0](rng)
        if made.call[0] in tools:
            return made


def failing(rng: random.Random, made: Errand) -> Errand:
    """The same, but the tool says what is wrong."""
    file = made.file.split(" and ")[0]
    folder = f"/{rng.choice(('srv', 'tmp', 'home', 'work'))}/{rng.choice(words.NOUNS)}"
    why, advice = rng.choice(
        (
            (f"no file at '{file}'", f"give the path of one in {folder}"),
            (f"no file at '{file}'", f"give the path of one in {folder}"),
            (
                f"'{file}' is outside the allowed directories, which are {folder}",
                "give a path in one of them, or name its directory in allowed_dirs",
            ),
            (
                f"{made.call[0]} took more than {rng.randint(5, 300)} s and was stopped",
                "ask about less at once, such as fewer pages, a shorter part or smaller pictures",
            ),
        )
    )
    return replace(made, result=f"{why}: {advice}", answer=f"That failed: {why}.")


# --- Sessions ---


def _calls(errands: Sequence[Errand]) -> str:
    return "".join(protocol.call(*one.call) for one in errands)


def _turns(said: str, *steps: Sequence[Errand]) -> list[Message]:
    """The conversation up to the results of the last step, as the package sends it."""
    turns: list[Message] = [{"role": "user", "content": said}]
    for step in steps:
        turns.append({"role": "assistant", "content": _calls(step)})
        turns += [{"role": "user", "content": protocol.result(one.result)} for one in step]
    return turns


def _calling(errands: Sequence[Errand]) -> str:
    return " ".join(f"For {one.file} I call {one.call[0]}." for one in errands)


def session(
    skill: str, said: str, steps: Sequence[Sequence[Errand]], thinking: str, answer: str
) -> list[Sample]:
    """What the model says at each step, and in the end."""
    made = [
        Sample(skill, _turns(said, *steps[:k]), _calling(step), _calls(step))
        for k, step in enumerate(steps)
    ]
    last = "plan answer" if skill == "plan" else skill
    return [*made, Sample(last, _turns(said, *steps), thinking, answer)]


def single(rng: random.Random, tools: Sequence[str] = NAMES) -> list[Sample]:
    """One errand."""
    one = errand(rng, tools)
    if rng.random() < 0.12:
        one = failing(rng, one)
        return session("plan", one.said, [[one]], "The tool failed.", one.answer)
    return session("plan", one.said, [[one]], "I have the answer.", one.answer)


def several(rng: random.Random, tools: Sequence[str] = NAMES) -> list[Sample]:
    """Two or three errands in one turn, with a call each."""
    wanted = rng.choice((2, 2, 3))
    errands: list[Errand] = []
    while len(errands) < wanted:
        one = errand(rng, tools)
        if "\n" not in one.answer and one.said.count("?") + one.said.count(". ") < 2:
            errands.append(failing(rng, one) if rng.random() < 0.06 else one)
    said = " ".join(one.said for one in errands)
    if all(one.said.endswith("?") and one.said[0] in "WHAD" for one in errands):
        first, *others = (one.said[:-1] for one in errands)
        others = [f"{text[0].lower()}{text[1:]}" for text in others]
        comma = "," if len(errands) > 2 and rng.random() < 0.7 else ""
        said = f"{', '.join((first, *others[:-1]))}{comma} and {others[-1]}?"
    answer = " ".join(one.answer for one in errands)
    return session("plan several", said, [errands], "I have the answers.", answer)


PAGE_THEN_READ = (
    "Which page of {f} has the {x}, and what does the page say?",
    "On which page of {f} is the {x}? Read that page.",
    "Find the page of {f} with the {x} and read it.",
)


def page_then_read(rng: random.Random, tools: Sequence[str] = NAMES) -> list[Sample]:
    """Ask for the page first, then read it."""
    if not {"ask_document", "read_text"} <= set(tools):
        return single(rng, tools)
    file, label = path(rng, "document"), words.label(rng)
    value = words.value(rng, label)
    page = 0
    while not page:
        result, page = _rests_on(rng, value)
    text = "\n".join((f"{label}: {value}", _lines(rng)))
    asked = Errand("", file, _ask(file, f"What is the {label}?"), result, "")
    call = ("read_text", {"source": file, "pages": str(page)})
    reading = Errand("", file, call, rng.choice((text, f"## Page {page}\n\n{text}")), "")
    said = rng.choice(PAGE_THEN_READ).format(f=file, x=label)
    answer = f"It is page {page}:\n{reading.result}"
    return session("plan several", said, [[asked], [reading]], f"It is page {page}.", answer)


SUM = (
    "What is the sum of the {x} of {a} and of {b}?",
    "What do {a} and {b} come to together?",
    "Add the {x} of {a} and {b}.",
    "What is the {x} of {a} and {b} together?",
)


def sum_of_two(rng: random.Random, tools: Sequence[str] = NAMES) -> list[Sample]:
    """Two amounts, added digit by digit in the thinking."""
    if "look_at_images" not in tools:
        return single(rng, tools)
    files = path(rng, "image"), path(rng, "image")
    said = rng.choice(SUM)
    label = (
        rng.choice(("Total", "Total", "Price", "Balance", "Amount")) if "{x}" in said else "Total"
    )
    amounts = [Decimal(words.amount(rng)) for _ in files]
    errands = [
        Errand("", file, _look(file, f"What is the {label}?"), str(amount), "")
        for file, amount in zip(files, amounts, strict=True)
    ]
    answer = f"Together it is {sum(amounts)}."
    said = said.format(x=label, a=files[0], b=files[1])
    return session("plan sum", said, [errands], added(*amounts), answer)


def added(a: Decimal, b: Decimal) -> str:
    """An addition as on paper, from the last digit on: `2.50 + 0.70: 0+0=0, 5+7=12, 2+0+1=3`."""
    cents = [str(int(100 * amount)) for amount in (a, b)]
    wide = max(3, *map(len, cents))
    columns = list(zip(*(text.zfill(wide)[::-1] for text in cents), strict=True))
    steps, carry = [], 0
    for one, other in columns:
        total = int(one) + int(other) + carry
        steps.append(f"{one}+{other}{'+1' * carry}={total}")
        carry = total // 10
    shown = [f"{text.zfill(wide)[:-2]}.{text[-2:].zfill(2)}" for text in cents]
    return f"{shown[0]} + {shown[1]}: {', '.join(steps)}."


def no_call(rng: random.Random, tools: Sequence[str] = NAMES) -> list[Sample]:  # noqa: ARG001
    """The user only talks."""
    made = dialogues.small_talk(rng) if rng.random() < 0.6 else dialogues.unknown(rng)
    turns = [turn for turn in made.messages if turn["role"] != "system"]
    return [replace(made, skill="plan talk", messages=turns)]


Session = Callable[[random.Random, Sequence[str]], list[Sample]]
SESSIONS: dict[Session, float] = {
    single: 60,
    several: 16,
    page_then_read: 6,
    sum_of_two: 10,
    no_call: 6,
}


def is_held_out(samples: Sequence[Sample]) -> bool:
    """Whether a session, by what the user says, is never trained on; of talk, nothing is."""
    said = samples[0].messages[0]["content"]
    digest = hashlib.sha256(said.encode()).digest()
    return samples[0].skill != "plan talk" and digest[0] % HELD_OUT_SHARE == 0


def _offered(rng: random.Random) -> list[Schema]:
    """Mostly all tools in their order; at times some, in any order, with others among them."""
    if rng.random() < 0.65:
        return TOOLS
    tools = rng.sample(TOOLS, rng.choice((1, 2, 3, 4, 5, 5)))
    if rng.random() < 0.3:
        tools.insert(rng.randint(0, len(tools)), rng.choice(dialogues.KNOWN_TOOLS))
    return tools


def group(rng: random.Random, *, held_out: bool = False) -> list[Sample]:
    """Exercises under the same system prompt."""
    tools = _offered(rng)
    names = [tool["name"] for tool in tools]
    text = protocol.tools_prompt(tools)
    if rng.random() < 0.2:
        text = f"{rng.choice(dialogues.PLAIN_SYSTEM)}\n\n{text}"
    system: Message = {"role": "system", "content": text}
    made: list[Sample] = []
    sessions = 0
    while sessions < SESSIONS_OF_A_GROUP:
        samples = rng.choices(list(SESSIONS), weights=list(SESSIONS.values()))[0](rng, names)
        if is_held_out(samples) == held_out:
            made += [replace(one, messages=[system, *one.messages]) for one in samples]
            sessions += 1
    return made


def under_toolkit(sample: Sample) -> Sample:
    """The exercise as an agent with the whole toolkit meets it."""
    system = {"role": "system", "content": protocol.tools_prompt(TOOLS)}
    return replace(sample, messages=[system, *sample.messages])
