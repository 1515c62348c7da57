"""A tool that watches videos."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v.media_plan import MediumPlan, planned
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import End, Named, OptionalQuestion, Second
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
from langchain_glm4v.tools.sources import at_hand, source
from langchain_glm4v.tools.texts import VIDEO

_ENGLISH = VIDEO["en"].fields
_CLOCK = r"\d{1,3}(?::[0-5]\d){1,2}(?!:?\d)(?:\.\d{1,3})?"
_TIME = rf"(?:{_CLOCK}|\d{{1,6}}(?:\.\d{{1,3}})?)"
_DASH = r"(?:\s?秒)?\s?(?:[-–—~～至到]|to\b|through\b)\s?(?:第\s?)?"
_SPAN = rf"{_TIME}(?:{_DASH}{_TIME})?"
_LIST = rf"{_SPAN}(?:(?:(?:,|\sand)\s|\s?[、，和]\s?){_SPAN}){{0,50}}+"
# "second 3", "seconds 3-5 and 9"; "(3-5)"; "3-5: …" in a timeline; "3 s"; "第3秒至第5秒", "3、5秒";
# "0:03", "0:03-0:05"
_NAMED = re.compile(
    rf"\bseconds?\s({_LIST})|[(（]({_LIST})[)）]"
    rf"|(?<![\d.:-])({_SPAN})(?=:\s|：|\s?s\b|\sseconds?\b)|(?<![\d.:-])({_LIST})(?=\s?秒)"
    rf"|(?<![\d.:-])({_CLOCK}(?:{_DASH}{_CLOCK})?)",
    re.IGNORECASE,
)
_FIRST_AND_LAST = re.compile(rf"({_TIME})(?:{_DASH}({_TIME}))?", re.IGNORECASE)


class VideoArguments(BaseModel):
    """Arguments of `VideoTool`."""

    video: Named
    question: OptionalQuestion = ""
    start: Second = 0.0
    end: End = None


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

    _texts: ClassVar = VIDEO

    name: str = "watch_video"
    description: str = _ENGLISH["description"]
    args_schema: ArgsSchema | None = VideoArguments

    prompt: str = _ENGLISH["prompt"]
    """What the model is asked."""

    watched: str = _ENGLISH["watched"]
    """Tells the agent what the model saw; "" for nothing."""

    shifted: str = _ENGLISH["shifted"]
    """Tells the agent that the model read other seconds, as it does where a server takes no frames
    and the video is not watched from its start."""

    fps: float | None = Field(default=None, gt=0)
    """Frames a second. Default: 2, or fewer where the video is long."""

    def _steps(self, arguments: VideoArguments, media: Preparation) -> Steps:
        found = source(arguments.video, self.allowed_dirs, self._words)
        start = arguments.start or 0.0
        options = {"start": start, "end": arguments.end, "fps": self.fps}
        given = {name: value for name, value in options.items() if value is not None}
        question = text_block(filled(self.prompt, question=arguments.question))
        with at_hand(found, "video", allow_hosts=media.allow_hosts) as here:
            block = {"type": "video", **here.fields, **given}
            seen = planned(block, replace(media, allowed_dirs=here.folders))
            (reply,) = yield [Request([block, question], here.folders)]
        answer = answer_of(reply, self._words)
        shift = start if media.video == "mp4" else 0.0
        artifact = VideoArtifact(
            **answer,
            video=arguments.video,
            frames=list(seen.seconds),
            seconds=_named(answer["answer"], shift, seen.seconds),
        )
        said = (told(answer, self._words), *self._notes(seen, shift))
        return "\n".join(filter(None, said)), artifact

    def _notes(self, seen: MediumPlan, shift: float) -> list[str]:
        first, last = seen.seconds[0], seen.seconds[-1]
        step = f"{1 / seen.fps:.3g}" if seen.fps else "?"
        watched = filled(self.watched, first=f"{first:.4g}", last=f"{last:.4g}", step=step)
        return [*([filled(self.shifted, start=f"{shift:g}")] if shift else []), watched]


def _named(answer: str, shift: float, frames: Sequence[float]) -> list[list[float]]:
    """First and last second of each stretch that an answer names, of those that were seen."""
    found = []
    for place in _NAMED.finditer(answer):
        for span in _FIRST_AND_LAST.finditer(place[place.lastindex or 0]):
            first = _seconds(span[1]) + shift
            last = _seconds(span[2] or span[1]) + shift
            # The model reads whole seconds, so that of the first frame may be before it.
            if int(frames[0]) <= first <= last <= frames[-1] + 1 and [first, last] not in found:
                found.append([first, last])
    return found


def _seconds(time: str) -> float:
    """The seconds of "62.5", "1:02.5" or "0:01:02.5"."""
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
