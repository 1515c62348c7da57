"""A limit on thinking for servers that keep none: two requests that read like one reply.

The first request ends with the budget. If the thinking has not ended by then, the second continues
it behind `</think><answer>`; if it has, the second just goes on.
"""

from collections.abc import Mapping
from typing import Any

from langchain_glm4v.replies import reasoning_of, text_of

FORCED_END = "</think><answer>"
_THINK, _THINK_END, _ANSWER = "<think>", "</think>", "<answer>"
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")


def first(payload: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """The first request: as `payload`, but as long as the budget allows."""
    return {**payload, "max_tokens": length(budget)}


def length(budget: int) -> int:
    """Tokens of the first reply, at most: the tag that opens the thinking is none of it."""
    return budget + 1


def second(payload: Mapping[str, Any], begun: str, budget: int) -> dict[str, Any]:
    """The second request.

    Args:
        payload: What was wanted in the first place.
        begun: The text of the first reply, which ended at its limit.
        budget: Tokens of thinking, at most.
    """
    end = forced_end(begun)
    opened = begun if _THINK in begun or not end else _THINK + begun
    # Blanks in front would make the template's renderer cut those at the end.
    turn = {"role": "assistant", "content": opened.lstrip() + end}
    body = {**payload["extra_body"], "continue_final_message": True, "add_generation_prompt": False}
    wanted = payload.get("max_tokens")
    left = {} if wanted is None else {"max_tokens": wanted - length(budget)}
    return {**payload, **left, "messages": [*payload["messages"], turn], "extra_body": body}


def is_cut(finish_reason: str | None) -> bool:
    """Whether a first reply ended at its limit."""
    return finish_reason == "length"


def forced_end(begun: str) -> str:
    """What must follow a first reply that was cut; nothing if its thinking is over."""
    return "" if _THINK_END in begun or _ANSWER in begun else FORCED_END


def raw(message: Mapping[str, Any]) -> str:
    """What the model wrote, also where the server has taken the reasoning off."""
    reasoning, text = reasoning_of(message), text_of(message.get("content"))
    if not reasoning:
        return text
    return f"{_THINK}{reasoning}{_THINK_END if text else ''}{text}"


def joined(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Two replies as one."""
    choice = two["choices"][0]
    begun = raw(one["choices"][0]["message"])
    content = begun + forced_end(begun) + _continued(choice["message"])
    message = {**_without_reasoning(choice["message"]), "content": content}
    logprobs = _joined_logprobs(one["choices"][0].get("logprobs"), choice.get("logprobs"))
    return {
        **two,
        "choices": [{**choice, "message": message, "logprobs": logprobs}],
        "usage": _added(one.get("usage"), two.get("usage")),
    }


def _continued(message: Mapping[str, Any]) -> str:
    """Text of a second reply, all of which a parser may take for reasoning."""
    return reasoning_of(message) + text_of(message.get("content"))


def _without_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if not name.startswith("reasoning")}


def _joined_logprobs(
    one: Mapping[str, Any] | None, two: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Those of both replies; the tags between them were forced, and have none."""
    if not one or not two:
        return one or two
    return {**two, "content": [*(one.get("content") or ()), *(two.get("content") or ())]}


class Splice:
    """Two streams as one: the events of the first that count, then those of the second.

    Attributes:
        cut: Whether the first stream ended at its limit.
    """

    def __init__(self) -> None:
        self.cut = False
        self._parsed = False
        self._ended = False
        self._texts: list[str] = []
        self._usage: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """Text of the first stream so far."""
        return "".join(self._texts)

    def of_first(self, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """An event of the first stream as it is to be read; None to leave it out."""
        choices = event.get("choices") or []
        if choices and not self.cut:
            delta = choices[0].get("delta") or {}
            self._texts.append(self._raw(delta))
            delta = {**_without_reasoning(delta), "content": self._texts[-1]}
            self.cut = is_cut(choices[0].get("finish_reason"))
            if not self.cut:
                return {**event, "choices": [{**choices[0], "delta": delta}]}
            content = self._texts[-1] + forced_end(self.text)
            last = {**choices[0], "delta": {**delta, "content": content}, "finish_reason": None}
            self._usage = event.get("usage")
            return {**event, "choices": [last], "usage": None}
        if self.cut:
            self._usage = event.get("usage") or self._usage
            return None
        return event

    def _raw(self, delta: Mapping[str, Any]) -> str:
        """What the model wrote, tags put where the server has taken the reasoning off."""
        reasoning, text = reasoning_of(delta), text_of(delta.get("content"))
        begin = _THINK if reasoning and not self._parsed else ""
        self._parsed = self._parsed or bool(reasoning)
        end = _THINK_END if text and self._parsed and not self._ended else ""
        self._ended = self._ended or bool(text)
        return f"{begin}{reasoning}{end}{text}"

    def of_second(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """An event of the second stream, its usage added to the first one's."""
        if event.get("choices"):
            choice = event["choices"][0]
            delta = choice.get("delta") or {}
            delta = {**_without_reasoning(delta), "content": _continued(delta)}
            event = {**event, "choices": [{**choice, "delta": delta}]}
        if event.get("usage"):
            return {**event, "usage": _added(self._usage, event["usage"])}
        return event


def _added(one: Mapping[str, Any] | None, two: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not one or not two:
        return dict(two) if two else None
    return {**two, **{key: (one.get(key) or 0) + (two.get(key) or 0) for key in _USAGE}}
