"""One exercise: a conversation, its pictures and what the model should say."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .pictures import Picture
from .videos import Clip

Message = dict[str, Any]  # as the chat template takes them: {"role", "content"}
IMAGE = {"type": "image"}
VIDEO = {"type": "video"}
HELD_OUT_SHARE = 16  # one picture or clip in 16 is kept for the evaluation


@dataclass(frozen=True)
class Sample:
    """An exercise; `thinking` and `answer` make the target, of which `given` is in the prompt."""

    skill: str
    messages: list[Message]
    thinking: str
    answer: str
    pictures: list[Picture] = field(default_factory=list)
    given: str = ""
    clip: Clip | None = None  # instead of pictures: the model sees the one or the others

    @property
    def shown(self) -> list[Picture]:
        """What goes through the vision tower: the pictures, or the steps of the clip."""
        return self.clip.steps if self.clip else self.pictures

    @property
    def held_out(self) -> bool:
        """Whether the clip, or one of the pictures, is never trained on."""
        return any(map(held_out, [self.clip] if self.clip else self.pictures))

    @property
    def target(self) -> str:
        """What the model should say after the generation prompt, `given` left out."""
        whole = f"<think>{self.thinking}</think><answer>{self.answer}</answer>"
        if whole.startswith(self.given):
            return whole.removeprefix(self.given)
        return f"{self.answer}</answer>"  # the thinking was broken off


def ask(
    skill: str,
    question: str,
    thinking: str,
    answer: str,
    pictures: Sequence[Picture] = (),
    *,
    text_first: bool = False,
    clip: Clip | None = None,
) -> Sample:
    """A one-turn exercise: pictures or a clip and a question, in either order."""
    images: list[Any] = [VIDEO] if clip else [IMAGE] * len(pictures)
    text: list[Any] = [{"type": "text", "text": question}]
    content = text + images if text_first else images + text
    messages = [{"role": "user", "content": content}]
    return Sample(skill, messages, thinking, answer, list(pictures), clip=clip)


def with_system(sample: Sample, text: str) -> Sample:
    """The same exercise under a system prompt."""
    return replace(sample, messages=[{"role": "system", "content": text}, *sample.messages])


def cut_thinking(rng: random.Random, sample: Sample) -> Sample:
    """The exercise with the thinking left out, or broken off at a word and the answer forced."""
    if rng.random() < 0.6:
        return replace(sample, given="<think></think><answer>")
    words = sample.thinking.split(" ")
    broken = " ".join(words[: rng.randint(0, len(words) - 1)])
    return replace(sample, given=f"<think>{broken}</think><answer>")


def held_out(shown: Picture | Clip) -> bool:
    """Whether a picture or clip, by what it shows, is for the evaluation and never trained on."""
    return hashlib.sha256(repr(shown.truth).encode()).digest()[0] % HELD_OUT_SHARE == 0
