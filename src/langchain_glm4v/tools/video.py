"""A tool that watches videos."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v.media_plan import MediumPlan, planned
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import Named, Question, Second
from langchain_glm4v.tools.base import (
    Answer,
    Request,
    Steps,
    VisionTool,
    answer_of,
    filled,
    text_block,
    told,
)
from langchain_glm4v.tools.sources import source

_TIME = r"\d{1,6}(?:\.\d{1,3})?"
_SPAN = rf"{_TIME}(?:\s?[-–]\s?{_TIME})?"
_LIST = rf"{_SPAN}(?:(?:,|\sand|\sto)\s{_SPAN}){{0,50}}"
# "second 3", "seconds 3-5 and 9"; "(3-5)"; "3-5: …" in a timeline; "3 s"
_NAMED = re.compile(
    rf"\bseconds?\s({_LIST})|\(({_LIST})\)|(?<![\d.:-])({_SPAN})(?=:\s|\s?s\b|\sseconds?\b)",
    re.IGNORECASE,
)
_FIRST_AND_LAST = re.compile(rf"({_TIME})(?:(?:\s?[-–]\s?|\sto\s)({_TIME}))?")


class VideoArguments(BaseModel):
    """Arguments of `VideoTool`."""

    video: Named = Field(
        description="Path or http(s) URL of the video, exactly as the user gave it."
    )
    question: Question = Field(
        default="Describe this video.",
        description="What to find out, in one clear sentence, such as: At which second does a dog "
        "appear?",
    )
    start: Second = Field(
        default=0.0,
        description="Second at which to begin. Leave it out to watch from the start.",
    )
    end: Second = Field(
        default=None,
        description="Second at which to end. Leave it out to watch to the end. A short part is "
        "seen in more detail.",
    )


class VideoArtifact(Answer):
    """Artifact of `VideoTool`.

    Attributes:
        video: Path or URL, as the agent gave it.
        frames: Seconds of the video at which the model saw a frame.
        seconds: First and last second of each stretch that the answer names, as far as its wording
            shows them.
    """

    video: str
    frames: list[float]
    seconds: list[list[float]]


class VideoTool(VisionTool[VideoArguments]):
    """Answers questions about a video, with the seconds at which things are to be seen.

    Example:
        ```python
        tool = VideoTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"video": "/srv/files/film.mp4", "question": "When does a dog appear?"})
        ```
    """

    name: str = "watch_video"
    description: str = (
        "Watch a video, or a part of it, and answer a question about it: what happens, when "
        "something appears, what is written. Answers name the seconds. It has no sound."
    )
    args_schema: ArgsSchema | None = VideoArguments

    prompt: str = "Watch the video and answer. Name the seconds.\n{question}"
    """What the model is asked."""

    watched: str = "(Watched second {first} to {last}, a frame every {step} s.)"
    """Tells the agent what the model saw; "" for nothing."""

    shifted: str = "(The seconds above count from second {start} of the video.)"
    """Tells the agent that the model read other seconds, as it does where a server takes no frames
    and the video is not watched from its start."""

    fps: float | None = Field(default=None, gt=0)
    """Frames a second. Default: 2, or fewer where the video is long."""

    def _steps(self, arguments: VideoArguments, media: Preparation) -> Steps:
        found = source(arguments.video, self.allowed_dirs)
        start = arguments.start or 0.0
        options = {"start": start, "end": arguments.end, "fps": self.fps}
        block: dict[str, Any] = {
            "type": "video",
            **found.fields,
            **{name: value for name, value in options.items() if value is not None},
        }
        seen = planned(block, replace(media, allowed_dirs=found.folders))
        question = text_block(filled(self.prompt, question=arguments.question))
        (reply,) = yield [Request([block, question], found.folders)]
        answer = answer_of(reply)
        shift = start if media.video == "mp4" else 0.0
        artifact = VideoArtifact(
            **answer,
            video=arguments.video,
            frames=list(seen.seconds),
            seconds=_named(answer["answer"], shift, seen.seconds),
        )
        return "\n".join(filter(None, (told(answer), *self._notes(seen, shift)))), artifact

    def _notes(self, seen: MediumPlan, shift: float) -> list[str]:
        first, last = seen.seconds[0], seen.seconds[-1]
        step = f"{1 / seen.fps:.3g}" if seen.fps else "?"
        watched = filled(self.watched, first=f"{first:.4g}", last=f"{last:.4g}", step=step)
        return [*([filled(self.shifted, start=f"{shift:g}")] if shift else []), watched]


def _named(answer: str, shift: float, frames: Sequence[float]) -> list[list[float]]:
    """First and last second of each stretch that an answer names, of those that were seen."""
    found = []
    for place in _NAMED.finditer(answer):
        for span in _FIRST_AND_LAST.finditer(place[1] or place[2] or place[3]):
            first = float(span[1]) + shift
            last = float(span[2] or span[1]) + shift
            # The model reads whole seconds, so that of the first frame may be before it.
            if int(frames[0]) <= first <= last <= frames[-1] + 1 and [first, last] not in found:
                found.append([first, last])
    return found
