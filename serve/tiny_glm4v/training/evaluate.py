"""Scores the miniature on pictures and clips it was never trained on, through the real vLLM.

python -m training.evaluate                      # prints the table of the model card
python -m training.evaluate --card README.md     # and writes it there
"""

import argparse
import ast
import asyncio
import base64
import io
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from openai import AsyncOpenAI
from PIL import Image

from langchain_glm4v import GLM4VServer
from tiny_glm4v import checkpoint_path

from . import dialogues, fonts, planning, video_tasks, videos
from . import picture_tasks as tasks
from .batches import CLIP_SIZES, SIZES
from .pictures import Picture
from .reference import Reference
from .sample import Sample, held_out
from .videos import Clip

COUNT = 300  # samples of each skill
AT_ONCE = 16
MARKS = ("<!-- evaluation -->", "<!-- /evaluation -->")


@dataclass(frozen=True)
class Skill:
    """A row of the table: how to make one sample and how to score an answer from 0 to 1."""

    name: str
    measure: str
    goal: float
    make: Callable[[random.Random], Sample | None]
    score: Callable[[str, str], float]


def exact(answer: str, truth: str) -> float:
    return float(answer.strip() == truth.strip())


def characters(answer: str, truth: str) -> float:
    """Share of the characters that are right: 1 - edit distance / length, never below 0."""
    previous = list(range(len(truth) + 1))
    for i, a in enumerate(answer, 1):
        current = [i]
        for j, b in enumerate(truth, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return max(0.0, 1 - previous[-1] / max(1, len(truth)))


def _boxes(text: str) -> list[list[float]]:
    found = re.search(r"\[\[.*\]\]", text)
    try:
        boxes = ast.literal_eval(found.group()) if found else []
    except (SyntaxError, TypeError, ValueError):
        return []
    return sorted(box for box in boxes if isinstance(box, list) and len(box) == 4)


def overlap(answer: str, truth: str) -> float:
    """1 if there are as many boxes as wanted and each covers its own by IoU >= 0.5."""
    said, wanted = _boxes(answer), _boxes(truth)
    if not wanted or len(said) != len(wanted):
        return 0.0
    left = list(said)
    for box in wanted:
        best = max(left, key=lambda other: _iou(box, other))
        if _iou(box, best) < 0.5:
            return 0.0
        left.remove(best)
    return 1.0


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = w * h
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both or 1)


def _size(rng: random.Random, column: int) -> tasks.Size:
    return rng.choices(list(SIZES), weights=[weights[column] for weights in SIZES.values()])[0]


def _unseen(make: Callable[[], Picture]) -> Picture:
    while True:
        picture = make()
        if held_out(picture):
            return picture


def _only(skill: str, sample: Sample | None) -> Sample | None:
    """The sample, if it is of the skill: a generator may turn to another where its own fails."""
    return sample if sample is not None and sample.skill == skill else None


VIDEO_SKILLS: dict[str, Callable[[random.Random, Clip], Sample]] = {
    "list what happens, with seconds": video_tasks.describe,
    "at which second something appears": video_tasks.when,
    "whether something appears": video_tasks.appears,
    "what is there or written at a second": video_tasks.at,
    "what happens between two seconds": video_tasks.stretch,
    "all that is written": video_tasks.written,
    "how many scenes": video_tasks.scenes,
    "what comes first, last, before, after": video_tasks.order,
}


# What a session of an agent is about, which of its exercises to score, and the goal.
PLAN_SKILLS: dict[str, tuple[planning.Session, int, float]] = {
    "call a tool of the toolkit": (planning.single, 0, 0.90),
    "answer from its result": (planning.single, -1, 0.90),
    "call several at once": (planning.several, 0, 0.85),
    "answer from several results": (planning.several, -1, 0.85),
    "find the page, then read it": (planning.page_then_read, 1, 0.85),
    "add two amounts": (planning.sum_of_two, -1, 0.80),
    "talk, no tool": (planning.no_call, 0, 0.90),
}


def _planned(make: planning.Session, place: int, rng: random.Random) -> Sample:
    while True:
        session = make(rng, planning.NAMES)
        if make is planning.no_call or planning.is_held_out(session):
            return planning.under_toolkit(session[place])


def _on_clip(
    make: Callable[[random.Random, Clip], Sample],
    clip: Callable[[random.Random], Clip],
    rng: random.Random,
) -> Sample:
    return make(rng, clip(rng))


def skills() -> list[Skill]:
    """The rows of the table."""
    seen, strange = fonts.paths(), fonts.paths(held_out=True)

    def page(rng: random.Random, font_paths: list[Path] = seen) -> Picture:
        size = _size(rng, 0)
        return _unseen(lambda: tasks.slip(rng, size, font_paths))

    def figure(rng: random.Random) -> Picture:
        size = _size(rng, 1)
        return _unseen(lambda: tasks.shapes(rng, size))

    def pair(rng: random.Random) -> Sample:
        size = _size(rng, 2)
        while True:
            sample = tasks.on_pair(rng, size, seen)[0]
            if any(held_out(p) for p in sample.pictures):
                return sample

    def clip(rng: random.Random) -> Clip:
        size = rng.choices(list(CLIP_SIZES), weights=list(CLIP_SIZES.values()))[0]
        while True:
            made = videos.clip(rng, size, seen)
            if held_out(made) and made.seconds[0] == 0:  # a file begins at second 0
                return made

    def document(rng: random.Random) -> Sample:
        size = _size(rng, 0)
        while True:
            sample = tasks.on_document(rng, size, seen)[0]
            if sample.skill == "document" and any(held_out(p) for p in sample.pictures):
                return sample

    def json_of_page(rng: random.Random) -> Sample | None:
        shown = page(rng)
        known = tasks.fields(shown)
        return dialogues.json_from_page(rng, shown, known) if known else None

    def system(rng: random.Random) -> Sample:
        return dialogues.obey(rng, dialogues.small_talk(rng))

    return [
        Skill(
            "Read a field",
            "exact",
            0.90,
            lambda rng: _only("field", tasks.field(rng, page(rng))),
            exact,
        ),
        Skill("Transcribe", "exact", 0.85, lambda rng: tasks.transcribe(rng, page(rng)), exact),
        Skill("Count shapes", "exact", 0.90, lambda rng: tasks.count(rng, figure(rng)), exact),
        Skill(
            "Locate shapes",
            "IoU >= 0.5",
            0.80,
            lambda rng: _only("locate", tasks.locate(rng, figure(rng))),
            overlap,
        ),
        Skill("Compare two pictures", "exact", 0.85, pair, exact),
        Skill(
            "Transcribe, fonts never trained on",
            "characters",
            0.90,
            lambda rng: tasks.transcribe(rng, page(rng, strange)),
            characters,
        ),
        Skill(
            "Read a line by its place", "exact", 0.85, lambda rng: tasks.line(rng, page(rng)), exact
        ),
        Skill("Blank page", "exact", 0.90, lambda rng: tasks.blank(rng, _size(rng, 0)), exact),
        Skill("Small talk", "exact", 0.90, dialogues.small_talk, exact),
        Skill("Remember earlier turns", "exact", 0.90, dialogues.memory, exact),
        Skill("Obey a system prompt", "exact", 0.85, system, exact),
        Skill("Call a tool", "exact", 0.85, dialogues.call_tool, exact),
        Skill("Use a tool's result", "exact", 0.85, dialogues.after_result, exact),
        Skill("Answer in JSON", "exact", 0.85, dialogues.record, exact),
        Skill("Answer in JSON from a page", "exact", 0.85, json_of_page, exact),
        Skill("Describe a page", "exact", 0.85, lambda rng: tasks.describe(rng, page(rng)), exact),
        Skill("Describe shapes", "exact", 0.5, lambda rng: tasks.describe(rng, figure(rng)), exact),
        Skill("Documents: a field, with its page", "exact", 0.85, document, exact),
        *(
            Skill(f"Plan: {name}", "exact", goal, partial(_planned, make, place), exact)
            for name, (make, place, goal) in PLAN_SKILLS.items()
        ),
        *(
            Skill(f"Video: {name}", "exact", 0.85, partial(_on_clip, make, clip), exact)
            for name, make in VIDEO_SKILLS.items()
        ),
    ]


def samples(skill: Skill, count: int = COUNT) -> list[Sample]:
    """The evaluation set of a skill: the same on every run."""
    rng = random.Random(f"evaluation/{skill.name}")
    made: list[Sample] = []
    while len(made) < count:
        sample = skill.make(rng)
        if sample is not None:
            made.append(sample)
    return made


def data_url(picture: Picture) -> str:
    """The picture as a PNG in a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def video_url(clip: Clip) -> str:
    """The clip as H.264 in an MP4 file, in a data URL.

    Two frames a step at a constant rate, so that a server that takes 2 frames a second takes them
    all and stamps them with the clip's seconds.
    """
    buffer = io.BytesIO()
    rate = Fraction(videos.FRAMES, clip.stride)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = clip.steps[0].size
        stream.pix_fmt = "yuv420p"
        for pixels in np.concatenate([step.pixels for step in clip.steps]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return f"data:video/mp4;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def wire(sample: Sample) -> list[dict[str, Any]]:
    """The exercise's messages in the form of chat completions."""
    kind = "video_url" if sample.clip else "image_url"
    urls = iter([video_url(sample.clip)] if sample.clip else map(data_url, sample.pictures))
    messages: list[dict[str, Any]] = []
    for message in sample.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                part if part["type"] == "text" else {"type": kind, kind: {"url": next(urls)}}
                for part in content
            ]
        messages.append({"role": message["role"], "content": content})
    return messages


def answer_of(output: str) -> str:
    """The answer in a raw output, box tokens kept out."""
    answer = output.rsplit("<answer>", 1)[-1].removesuffix("</answer>")
    return answer.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "")


async def _ask(client: AsyncOpenAI, model: str, gate: asyncio.Semaphore, sample: Sample) -> str:
    messages: list[Any] = wire(sample)
    async with gate:
        reply = await client.chat.completions.create(
            model=model,
            messages=messages,
            temperature=0,
            max_tokens=600,
            extra_body={"skip_special_tokens": False, "spaces_between_special_tokens": False},
        )
    return reply.choices[0].message.content or ""


async def outputs(server: GLM4VServer, exercises: Sequence[Sample]) -> list[str]:
    """Raw outputs of the served model, greedy."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, timeout=600) as client:
        model = server.served_model_name
        return await asyncio.gather(*(_ask(client, model, gate, s) for s in exercises))


def table(server: GLM4VServer, count: int, only: str, misses: Path | None) -> str:
    """Score every skill; the table in Markdown."""
    rows = [
        "| Skill | Measure | Held-out samples | Score | Goal |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for skill in skills():
        if only and only not in skill.name:
            continue
        exercises = samples(skill, count)
        said = asyncio.run(outputs(server, exercises))
        scores = [
            skill.score(answer_of(o), answer_of(s.answer))
            for o, s in zip(said, exercises, strict=True)
        ]
        mean = sum(scores) / len(scores)
        rows.append(
            f"| {skill.name} | {skill.measure} | {len(scores)} | {mean:.1%} | {skill.goal:.0%} |"
        )
        print(rows[-1], flush=True)
        if misses:
            _note_misses(misses, skill, exercises, said, scores)
    return "\n".join(rows)


def _note_misses(
    folder: Path,
    skill: Skill,
    exercises: Sequence[Sample],
    said: Sequence[str],
    scores: Sequence[float],
) -> None:
    """Write what went wrong, for looking at."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{skill.name.replace(' ', '_')}.txt").open("w") as file:
        for sample, output, score in zip(exercises, said, scores, strict=True):
            if score < 1:
                size = sample.shown[0].size if sample.shown else ""
                file.write(
                    f"--- {score:.2f} {size} {sample.messages[-1]['content']}\n"
                    f"{sample.target}\n{output}\n"
                )


def agreement(server: GLM4VServer, count: int) -> float:
    """Share of greedy answers that transformers gives just as vLLM does."""
    named = server.options.model
    reference = Reference(checkpoint_path() if named == "tiny" else Path(named))
    exercises = [s for skill in skills()[:5] for s in samples(skill, count // 5)]
    said = asyncio.run(outputs(server, exercises))
    same = [answer_of(reference(s)) == answer_of(o) for s, o in zip(exercises, said, strict=True)]
    return sum(same) / len(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="tiny", help="what to serve: tiny, or a checkpoint folder"
    )
    parser.add_argument("--count", type=int, default=COUNT, help="samples of each skill")
    parser.add_argument("--only", default="", help="score only the skills whose name holds this")
    parser.add_argument("--misses", type=Path, help="folder for what went wrong")
    parser.add_argument("--card", type=Path, help="model card to write the table into")
    parser.add_argument(
        "--agreement", type=int, default=100, help="answers to compare with transformers; 0: none"
    )
    args = parser.parse_args()
    with GLM4VServer(args.model) as server:
        text = table(server, args.count, args.only, args.misses)
        if args.agreement:
            share = agreement(server, args.agreement)
            line = (
                f"vLLM and transformers give the same greedy answer to {share:.1%} of "
                f"{args.agreement} questions (goal: 95%)."
            )
            print(line)
            text += f"\n\n{line}"
    if args.card:
        card = args.card.read_text(encoding="utf-8")
        head, tail = card.split(MARKS[0])[0], card.split(MARKS[1])[1]
        args.card.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
