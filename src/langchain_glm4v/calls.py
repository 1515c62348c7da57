"""A call on its way: which requests a plan makes, and how their replies become one.

Mostly one request. A second follows where the client itself must end the thinking. Streams of
servers that have no guard against endless repetition are watched, and ended, here.
"""

from collections.abc import Mapping
from typing import Any

from langchain_core.outputs import ChatGenerationChunk

from langchain_glm4v import two_rounds
from langchain_glm4v.repetition import RepetitionGuard
from langchain_glm4v.replies import StreamReader, reasoning_of, text_of, well_formed
from langchain_glm4v.request import Plan

_REPETITION = {"delta": {}, "finish_reason": "repetition", "stop_reason": "repetition_detected"}


def first(plan: Plan) -> dict[str, Any]:
    """The first request."""
    return plan.payload if plan.budget is None else two_rounds.first(plan.payload, plan.budget)


def second(plan: Plan, reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request that `reply` calls for; None if it is all there is."""
    if plan.budget is None or not reply.get("choices"):
        return None
    with well_formed("chat.completion", reply):
        choice = reply["choices"][0]
        if not two_rounds.is_cut(choice.get("finish_reason")):
            return None
        begun = two_rounds.raw(choice["message"])
        return two_rounds.second(plan.payload, begun, plan.budget)


def both(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """The replies to the first and the second request as one."""
    with well_formed("chat.completion", two):
        return two_rounds.joined(one, two)


class RunningStream:
    """The chunks of a call, from the events of its requests.

    Attributes:
        is_over: Whether the events that may still come are of no use.
    """

    def __init__(self, plan: Plan, headers: Mapping[str, str] | None) -> None:
        self.is_over = False
        self._plan = plan
        self._reader = StreamReader(plan.reading, headers=headers)
        self._splice = None if plan.budget is None else two_rounds.Splice()
        self._in_second = False
        self._guard = RepetitionGuard() if plan.watched else None

    def read(self, event: Mapping[str, Any]) -> list[ChatGenerationChunk]:
        """Read the next event of the request that runs now."""
        spliced = event if self._splice is None else self._spliced(self._splice, event)
        if spliced is None:
            return []
        chunks = [self._reader.read(spliced)]
        if self._guard is not None and _repeats(self._guard, spliced):
            self.is_over = True
            chunks.append(self._reader.read({**spliced, "choices": [{"index": 0, **_REPETITION}]}))
        return [chunk for chunk in chunks if chunk is not None]

    def _spliced(
        self, splice: two_rounds.Splice, event: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        with well_formed("chat.completion.chunk", event):
            return splice.of_second(event) if self._in_second else splice.of_first(event)

    def second(self) -> dict[str, Any] | None:
        """The second request, once the first has ended; None if there is none to make."""
        splice, budget = self._splice, self._plan.budget
        if splice is None or budget is None or not splice.cut or self._in_second:
            return None
        self._in_second = True
        return two_rounds.second(self._plan.payload, splice.text, budget)

    def rest(self) -> list[ChatGenerationChunk]:
        """What is still held back at the end."""
        return self._reader.rest()


def _repeats(guard: RepetitionGuard, event: Mapping[str, Any]) -> bool:
    with well_formed("chat.completion.chunk", event):
        return guard.repeats(_text(event))


def _text(event: Mapping[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return text_of(delta.get("content")) or reasoning_of(delta)
