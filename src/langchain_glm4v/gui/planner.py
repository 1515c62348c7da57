"""A planner that asks the model, in the words that it was trained on."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable

from langchain_glm4v import reasoning
from langchain_glm4v.drawing import draw
from langchain_glm4v.endings import cut_of
from langchain_glm4v.errors import ActionError
from langchain_glm4v.grounding import Box
from langchain_glm4v.gui.agent import Situation, Step
from langchain_glm4v.gui.dialects import DIALECTS, Dialect, Kind, Plan
from langchain_glm4v.gui.screen import Observation
from langchain_glm4v.media import image, sniffing

# What is told of the history and the page, at most: characters, steps and elements. The first two
# keep a step at some 100 tokens; the makers' example for websites tells 15 steps too.
_MOST_TEXT = 500
_MOST_MEMORY = 2000
_MOST_STEPS = 15
_MOST_MARKS = 200
_MARK_TEXT = 100


class ModelPlanner:
    """Asks a model for the next action.

    One user turn holds everything: the screen, the task, the history as text. So was the model
    trained, and so old screens cost nothing.

    Args:
        llm: `ChatGLM4V`, with `sampling="gui"` as its makers have it; or any other chat model.
        dialect: "mobile", "pc", "web", or a `Dialect` with a prompt of one's own.
    """

    def __init__(
        self, llm: Runnable[LanguageModelInput, BaseMessage], dialect: Kind | Dialect
    ) -> None:
        self._llm = llm
        self._dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect

    def plan(self, situation: Situation) -> Plan:
        """Ask for the next action.

        Raises:
            ActionError: The answer was cut off, or has not exactly one action that makes sense.
            Exception: As the model's own calls.
        """
        reply = self._llm.invoke([self.question(situation)])
        if cut := cut_of(reply.response_metadata):
            raise ActionError(f"it was cut off ({cut}): think less, answer sooner")
        # Tags are still in the text where the client does not know them.
        found = reasoning.parse(str(reply.text))
        boxes = reply.additional_kwargs.get("boxes") or found.boxes
        return self._dialect.read(found.answer, boxes, situation.observation.marks)

    def question(self, situation: Situation) -> HumanMessage:
        """The message that asks for the next action."""
        steps = [step for step in situation.steps if step.plan is not None]
        dialect, now = self._dialect, situation.observation
        earlier = [step.observation for step in steps][-dialect.earlier_pictures or len(steps) :]
        text = dialect.prompt.substitute(
            actions=dialect.actions,
            task=situation.task,
            place=_line(now.place, _MOST_TEXT) or "unknown",
            elements=_elements(now.marks),
            history=self._history(steps),
            memory=next((_memory(step) for step in reversed(steps)), "") or "none",
            problem=_problem(situation.steps),
        )
        picture = _marked(now) if dialect.needs_marks else now.picture
        blocks = [_block(picture), *(_block(one.picture, _half(one)) for one in earlier)]
        return HumanMessage([*blocks, {"type": "text", "text": text}])

    def _history(self, steps: Sequence[Step]) -> str:
        left_out = len(steps) - _MOST_STEPS
        told = [f"({left_out} earlier steps are left out)"] if left_out > 0 else []
        for number, step in enumerate(steps, 1):
            if number > left_out and step.plan:
                told.append(
                    self._dialect.step.substitute(
                        number=number,
                        memory=_memory(step),
                        reason=_line(step.plan.reason, _MOST_TEXT),
                        action=_line(step.plan.written, _MOST_TEXT),
                        result=": ".join(
                            filter(None, (step.result, _line(step.detail, _MOST_TEXT)))
                        ),
                    )
                )
        return "\n".join(told) or "nothing yet"


def _memory(step: Step) -> str:
    return _line(step.plan.memory, _MOST_MEMORY) if step.plan else ""


def _problem(steps: Sequence[Step]) -> str:
    """What was wrong with the latest answer, as a rule of its own."""
    if not steps or steps[-1].result != "unusable":
        return ""
    return f"- Your latest answer was of no use: {_line(steps[-1].detail, _MOST_TEXT)}.\n"


def _elements(marks: Sequence[Box]) -> str:
    lines = [
        f"[{number}] {_line(mark.label, _MARK_TEXT)}"
        for number, mark in enumerate(marks[:_MOST_MARKS], 1)
    ]
    return "\n".join(lines) or "none"


def _line(text: str, most: int) -> str:
    """A text in one line, for it may repeat what a page says."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[:most]}…"


def _marked(observation: Observation) -> bytes:
    boxes = [
        replace(mark, label=str(number))
        for number, mark in enumerate(observation.marks[:_MOST_MARKS], 1)
    ]
    return image.to_png(draw(observation.picture, boxes)) if boxes else observation.picture


def _half(observation: Observation) -> int:
    return max(28, observation.width // 2, observation.height // 2)


def _block(picture: bytes, longest_side: int | None = None) -> dict[str, Any]:
    block = {
        "type": "image",
        "base64": base64.b64encode(picture).decode("ascii"),
        "mime_type": sniffing.mime_type(picture),
    }
    return block if longest_side is None else {**block, "longest_side": longest_side}
