"""Exercises about clips: when, what at a second, a timeline, a stretch of it, scenes, order."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from . import videos, words
from .picture_tasks import ORDINALS, ZH_COLOURS, ZH_KINDS, Size
from .pictures import COLOURS, KINDS
from .sample import Sample, ask
from .videos import Clip, Scene

LIST = (
    "Describe the video.",
    "Describe this video.",
    "What happens in the video?",
    "What happens in this video?",
    "List what happens, with seconds.",
    "List what happens in the video, with seconds.",
    "Give a timeline of the video.",
    "Summarize the video.",
    "What does the video show?",
    "What do you see in the video?",
)
WHEN = (
    "At which second does {} appear?",
    "At which second does {} appear?",
    "At what second does {} appear?",
    "When does {} appear?",
    "When does {} first appear?",
    "In which second do you first see {}?",
    "Find the second at which {} appears.",
)
SPAN = (
    "From which second to which second is {} shown?",
    "During which seconds is {} shown?",
    "At which seconds do you see {}?",
    "When is {} shown?",
)
AT = (
    "What is shown at second {}?",
    "What do you see at second {}?",
    "What is there at second {}?",
    "What can be seen at second {}?",
    "Describe second {} of the video.",
)
WRITTEN_AT = (
    "What is written at second {}?",
    "What is written at second {}?",
    "What does it say at second {}?",
    "Read the text at second {}.",
    "Which word or number is shown at second {}?",
)
WRITTEN = (
    "What is written in the video?",
    "Read all text in the video.",
    "Transcribe the text in the video.",
    "Which words and numbers appear in the video?",
)
STRETCH = (
    "What happens between second {} and second {}?",
    "What happens from second {} to second {}?",
    "Describe seconds {} to {}.",
    "Describe the video from second {} to second {}.",
    "List what happens between seconds {} and {}.",
)
SCENES = (
    "How many scenes?",
    "How many scenes are there?",
    "How many scenes does the video have?",
    "Count the scenes.",
)
# An agent's tool asks like this: every answer then names its seconds.
TOOL = (
    "Watch the video and answer. Name the seconds.\n{}",
    "{} Name the seconds.",
    "{} Name the seconds at which you see it.",
    "Answer with seconds: {}",
    "Question about the video: {}\nName the seconds.",
)


def span(first: int, last: int) -> str:
    """`3` or `3-5`."""
    return str(first) if first == last else f"{first}-{last}"


def timeline(clip: Clip, tell: Callable[[Scene], str] = lambda scene: scene.caption) -> str:
    """Every scene behind its seconds: `0-2: red circle; 3-5: 42`."""
    told = zip(clip.spans, clip.scenes, strict=True)
    return "; ".join(f"{span(*seconds)}: {tell(scene)}" for seconds, scene in told)


def _chinese(scene: Scene) -> str:
    shape = [f"{ZH_COLOURS[scene.shape[1]]}{ZH_KINDS[scene.shape[0]]}"] if scene.shape else []
    things = shape + ([scene.text] if scene.text else [])
    return "和".join(things) or f"{ZH_COLOURS.get(scene.screen, '白色')}画面"


def _article(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _named(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """One thing of a scene, and how a question names it."""
    thing = rng.choice(scene.things)
    if thing != scene.text:
        ways = [f"the {thing}", f"the {thing}", _article(thing)]
    else:
        noun = "number" if thing.isdigit() else "word" if thing.isalpha() else "text"
        ways = [f"the {noun} {thing}", f"the {noun} {thing}", f'the {noun} "{thing}"']
        ways += [f'"{thing}"', thing, f"the text {thing}"]
    return thing, rng.choice(ways)


def _with(clip: Clip, thing: str) -> list[tuple[int, int]]:
    """The seconds of all scenes that show a thing."""
    told = zip(clip.spans, clip.scenes, strict=True)
    return [seconds for seconds, scene in told if thing in scene.things]


def _spans(spans: Sequence[tuple[int, int]]) -> str:
    return ", ".join(span(*seconds) for seconds in spans)


def _ask(
    rng: random.Random, skill: str, clip: Clip, question: str, answer: str, *, thinking: str = ""
) -> Sample:
    """The exercise; a timeline is the thinking, unless it is the answer."""
    thinking = thinking or timeline(clip)
    return ask(skill, question, thinking, answer, clip=clip, text_first=rng.random() < 0.12)


def _as_tool(rng: random.Random, question: str) -> str:
    """The question, at times in a tool's words; for answers that name seconds anyway."""
    return rng.choice(TOOL).format(question) if rng.random() < 0.2 else question


def _ask_timed(
    rng: random.Random, skill: str, clip: Clip, question: str, answer: str, *, spans: str
) -> Sample:
    """An answer that names seconds only where the question asks for them, as a tool does."""
    if rng.random() < 0.3:
        question, answer = rng.choice(TOOL).format(question), f"{answer} ({spans})"
    return _ask(rng, skill, clip, question, answer)


def describe(rng: random.Random, clip: Clip) -> Sample:
    """The timeline of the clip."""
    count = len(clip.scenes)
    if rng.random() < 0.08:
        question = rng.choice(("请描述这个视频。", "视频里发生了什么?"))
        return _ask(
            rng, "timeline", clip, question, timeline(clip, _chinese), thinking=f"有{count}个场景。"
        )
    thinking = "There is 1 scene." if count == 1 else f"There are {count} scenes."
    question = _as_tool(rng, rng.choice(LIST))
    return _ask(rng, "timeline", clip, question, timeline(clip), thinking=thinking)


def when(rng: random.Random, clip: Clip) -> Sample:
    """The seconds at which something is to be seen; at times something that is not."""
    if rng.random() < 0.08:
        name, spans = _anything(rng, clip)
    else:
        thing, name = _named(rng, rng.choice(clip.scenes))
        spans = _with(clip, thing)
        if rng.random() < 0.06 and any(thing == scene.text for scene in clip.scenes):
            question = rng.choice(("第几秒出现{}?", "{}在第几秒出现?")).format(thing)
            return _ask(rng, "when", clip, question, f"第{spans[0][0]}秒。")
    question, answer = rng.choice(WHEN).format(name), "It does not appear."
    if spans:
        answer = f"At second {spans[0][0]}."
    if rng.random() < 0.3:
        question = rng.choice(SPAN).format(name)
        if spans:
            answer = f"Second{'s' * (len(spans) > 1 or spans[0][0] < spans[0][1])} {_spans(spans)}."
    return _ask(rng, "when", clip, _as_tool(rng, question), answer)


def _anything(rng: random.Random, clip: Clip) -> tuple[str, list[tuple[int, int]]]:
    """How a question names something that hardly ever is in the clip, and its seconds."""
    shape = f"{rng.choice(list(COLOURS))} {rng.choice(KINDS)}"
    thing = rng.choice((shape, words.word(rng)))
    return f"the {thing}" if thing == shape else f"the word {thing}", _with(clip, thing)


def appears(rng: random.Random, clip: Clip) -> Sample:
    """Whether something is in the clip."""
    if rng.random() < 0.4:
        name, spans = _anything(rng, clip)
    else:
        thing, name = _named(rng, rng.choice(clip.scenes))
        spans = _with(clip, thing)
    question = rng.choice(("Does {} appear?", "Is {} in the video?", "Do you see {}?"))
    answer = f"Yes, at second {spans[0][0]}." if spans else "No."
    return _ask(rng, "appears", clip, _as_tool(rng, question.format(name)), answer)


def at(rng: random.Random, clip: Clip) -> Sample:
    """What is there at a second; at times behind the clip's end."""
    end = clip.seconds[-1] + clip.stride - 1
    if rng.random() < 0.04:
        question = rng.choice(AT + WRITTEN_AT).format(end + rng.randint(1, 9))
        return _ask(rng, "at", clip, question, f"The video ends at second {end}.")
    number = rng.randrange(len(clip.scenes))
    scene, (first, last) = clip.scenes[number], clip.spans[number]
    second = rng.randint(first, last + clip.stride - 1)
    if rng.random() < 0.06:
        question = rng.choice(("第{}秒有什么?", "第{}秒显示什么?")).format(second)
        return _ask(rng, "at", clip, question, f"{_chinese(scene)}。")
    if rng.random() < 0.5:
        question, answer = rng.choice(WRITTEN_AT).format(second), scene.text or "Nothing"
    else:
        question, answer = rng.choice(AT).format(second), scene.caption
    return _ask_timed(rng, "at", clip, question, answer, spans=span(first, last))


def written(rng: random.Random, clip: Clip) -> Sample:
    """All text of the clip, one line a scene."""
    question, form = rng.choice(WRITTEN), "{}"
    if rng.random() < 0.3:
        question, form = rng.choice(TOOL).format(question), "{} ({})"
    told = zip(clip.spans, clip.scenes, strict=True)
    found = [form.format(s.text, span(*seconds)) for seconds, s in told if s.text]
    return _ask(rng, "written", clip, question, "\n".join(found) or "There is no text.")


def stretch(rng: random.Random, clip: Clip) -> Sample:
    """What happens between two seconds, both included."""
    first, last = sorted((rng.choice(clip.seconds), rng.choice(clip.seconds)))
    question = rng.choice(STRETCH).format(first, last)
    if rng.random() < 0.3:
        question = f"Look at seconds {first} to {last} only. {rng.choice(LIST)}"
    seen = "; ".join(
        f"{span(max(a, first), min(b, last))}: {scene.caption}"
        for (a, b), scene in zip(clip.spans, clip.scenes, strict=True)
        if b >= first and a <= last
    )
    return _ask(rng, "stretch", clip, _as_tool(rng, question), seen)


def scenes(rng: random.Random, clip: Clip) -> Sample:
    """How many scenes there are."""
    count = len(clip.scenes)
    if rng.random() < 0.1:
        return _ask(rng, "scenes", clip, "视频有几个场景?", f"{count}个。")
    return _ask_timed(rng, "scenes", clip, rng.choice(SCENES), str(count), spans=_spans(clip.spans))


def order(rng: random.Random, clip: Clip) -> Sample:
    """What comes first, last, or by its number; what comes behind or before something."""
    count = len(clip.scenes)
    k = rng.randrange(count)
    questions = [f"What is the {ORDINALS[k]} scene?", f"What does the {ORDINALS[k]} scene show?"]
    questions += ["What comes first?", "What is shown first?"] * (k == 0)
    questions += ["What comes last?", "How does the video end?"] * (k == count - 1)
    for other, place in ((k - 1, "after"), (k + 1, "before")):
        if 0 <= other < count:
            thing, name = _named(rng, clip.scenes[other])
            if len(_with(clip, thing)) == 1:
                questions += [f"What comes {place} {name}?", f"What is shown {place} {name}?"]
    caption, seconds = clip.scenes[k].caption, span(*clip.spans[k])
    return _ask_timed(rng, "order", clip, rng.choice(questions), caption, spans=seconds)


def on_clip(rng: random.Random, size: Size, fonts: Sequence[Path]) -> list[Sample]:
    """Four exercises about one clip."""
    clip = videos.clip(rng, size, fonts)
    another = rng.choice((stretch, scenes, order, written, appears))
    return [make(rng, clip) for make in (describe, when, at, another)]
