"""The output language of GLM-4.1V-Thinking: thinking, answer and boxes in one text.

The model writes `<think>…</think><answer>…</answer>`, and marks verifiable answers and coordinates
with `<|begin_of_box|>…<|end_of_box|>`. Much of that may be missing: `</answer>` is an end token
and normally stays out of the text, a prompt may already hold `<think>`, a host may remove tags,
and a limit may cut anywhere.

`parse` reads a finished text, `Splitter` a stream; both follow the same rules, because `parse` is a
`Splitter` fed once:

1. Text behind `<think>` is reasoning, up to the last `</think>` before the answer.
2. The answer runs from the first `<answer>` behind the thinking to the first `</answer>` behind
   that, or to the end. Whatever follows `</answer>` restates the answer and is dropped.
3. Without `<answer>`, the text behind `</think>` is the answer; without any tag, the whole text is.
4. A `<think>` that is never closed leaves reasoning alone and an empty answer, unless `<answer>`
   occurs in it: then the answer starts there.
5. Box tags vanish, their text stays. Other tags inside the answer are literal text.
6. White space and role tokens (`<|user|>` …) at either end of reasoning and answer vanish.

Where the text seen so far leaves open what it is (text before any tag, text between `</think>` and
`<answer>`, text behind an `<answer>` inside the thinking), a `Splitter` holds it back.

An output that our own grammar guarded (`strict`) leaves nothing open: everything behind its first
`<answer>` is the answer as it stands, everything in front of it is reasoning.
"""

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["reasoning", "answer"]
Piece: TypeAlias = tuple[Kind, str]

_Phase: TypeAlias = Literal[
    "start", "unsure", "think", "thought", "between", "answer", "done", "guarded", "verbatim"
]

_THINK, _THINK_END = "<think>", "</think>"
_ANSWER, _ANSWER_END = "<answer>", "</answer>"
# The model misspells its box tags now and then; the second spellings are the ones seen.
_BOXES = ("<|begin_of_box|>", "<|start_of_box|>")
_BOX_ENDS = ("<|end_of_box|>", "</|end_of_box|>")
_ROLES = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")

_TAGS = (_THINK, _THINK_END, _ANSWER, _ANSWER_END, *_BOXES, *_BOX_ENDS, *_ROLES)
_TAG = re.compile("(" + "|".join(map(re.escape, _TAGS)) + ")")
_TAG_STARTS = frozenset(tag[:length] for tag in _TAGS for length in range(1, len(tag)))
_LONGEST_START = max(map(len, _TAG_STARTS))
_TEXT_LIKE = len("</")

# Left out of reasoning. A spelled-out `<answer>` stays: there the model talks about it.
_HIDDEN_IN_REASONING = frozenset((_THINK, _THINK_END, *_BOXES, *_BOX_ENDS))
# Finish reasons of an output that was not cut; None: the server gave no reason.
_ENDED = (None, "stop", "tool_calls")
# vLLM's `stop_reason` of an output that its repetition guard cut.
_REPETITION = "repetition_detected"


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """A finished output, taken apart.

    Attributes:
        reasoning: The thinking, without tags.
        answer: The answer, without tags; the text of boxes stays in place.
        boxes: The text inside each box of the answer, in order.
        complete: Whether the model got to its answer and, as far as is known, nothing cut that
            answer.
        raw: The text as the model wrote it.
    """

    reasoning: str
    answer: str
    boxes: tuple[str, ...]
    complete: bool
    raw: str


def parse(
    text: str,
    *,
    finish_reason: str | None = None,
    stop_reason: int | str | None = None,
    eager: bool = False,
    strict: bool = False,
) -> ParsedOutput:
    """Take a finished output apart. Never raises; linear in the length of the text.

    Args:
        text: What the model wrote, special tokens included.
        finish_reason: The server's `finish_reason`, such as `"stop"` or `"length"`.
        stop_reason: vLLM's `stop_reason`: the token or string that ended the output, or the guard
            that cut it.
        eager: As for `Splitter`.
        strict: As for `Splitter`.

    Returns:
        Reasoning, answer and boxes.
    """
    splitter = Splitter(eager=eager, strict=strict)
    pieces = splitter.feed(text)
    pieces += splitter.flush(finish_reason=finish_reason, stop_reason=stop_reason)
    return ParsedOutput(
        reasoning="".join(piece for kind, piece in pieces if kind == "reasoning"),
        answer="".join(piece for kind, piece in pieces if kind == "answer"),
        boxes=splitter.boxes,
        complete=splitter.complete,
        raw=text,
    )


class Splitter:
    """Splits a stream into reasoning and answer.

    Feed every chunk, then flush once. All reasoning comes before all of the answer. The joined
    pieces are the same however the text is cut into chunks, and no piece ever holds a part of a
    tag.

    Args:
        eager: Take text outside any tag for the answer at once instead of holding it back until
            its place is known. Right for servers that send the reasoning in a field of its own.
        strict: Take everything behind the first `<answer>` for the answer, tags and blanks too, and
            everything in front of it for reasoning. Right where a grammar wrote the tags.
    """

    def __init__(self, *, eager: bool = False, strict: bool = False) -> None:
        self._eager = eager
        self._phase: _Phase = "guarded" if strict else "start"
        self._tail = ""  # the end of the last chunk, while it may be the start of a tag
        self._held: list[str] = []  # tokens whose place is not known yet
        self._trims: dict[Kind, _Trim] = {"reasoning": _Trim(), "answer": _Trim()}
        self._pieces: list[Piece] = []
        self._boxes: list[str] = []
        self._box: list[str] | None = None  # the text of the box that is open now
        self._complete = False

    @property
    def boxes(self) -> tuple[str, ...]:
        """The text of each box of the answer so far; one that never closes counts after `flush`."""
        return tuple(self._boxes)

    @property
    def complete(self) -> bool:
        """As `ParsedOutput.complete`; known after `flush`."""
        return self._complete

    def feed(self, chunk: str) -> list[Piece]:
        """Take the next chunk in.

        Args:
            chunk: Any number of characters.

        Returns:
            What is settled by now as (kind, text), in order; often nothing.
        """
        if self._phase == "verbatim":
            return [("answer", chunk)] if chunk else []
        if not self._tail and "<" not in chunk:  # most chunks of a stream
            if chunk:
                self._step(chunk)
            return self._take()
        text = self._tail + chunk
        if self._phase == "guarded" and _ANSWER in text:
            return self._begin_verbatim(*text.split(_ANSWER, 1))
        cut = _end_of_whole_tags(text)
        self._tail = text[cut:]
        self._read(text[:cut])
        return self._take()

    def flush(
        self, *, finish_reason: str | None = None, stop_reason: int | str | None = None
    ) -> list[Piece]:
        """End the stream.

        Args:
            finish_reason: The server's `finish_reason`, such as `"stop"` or `"length"`.
            stop_reason: vLLM's `stop_reason`: the token or string that ended the output, or the
                guard that cut it.

        Returns:
            What was still held back, as (kind, text).
        """
        # "<" and "</" may be text; more of a tag than that is a tag that was cut in two.
        if len(self._tail) <= _TEXT_LIKE:
            self._read(self._tail)
        self._tail = ""
        self._settle_at_end()
        self._close_box()
        self._complete = self._phase == "done" or (
            self._phase in ("start", "answer", "verbatim")
            and finish_reason in _ENDED
            and stop_reason != _REPETITION
        )
        return self._take()

    def _begin_verbatim(self, reasoning: str, answer: str) -> list[Piece]:
        self._tail = ""
        self._read(reasoning)
        self._phase = "verbatim"
        return self._take() + self.feed(answer)

    def _take(self) -> list[Piece]:
        if not self._pieces:
            return []
        pieces, self._pieces = self._pieces, []
        if len(pieces) == 1:
            return pieces
        return [
            (kind, "".join(text for _, text in group))
            for kind, group in groupby(pieces, key=itemgetter(0))
        ]

    def _read(self, text: str) -> None:
        for token in _TAG.split(text):
            if token:
                self._step(token)

    def _step(self, token: str) -> None:
        match self._phase:
            case "start":
                self._start(token)
            case "unsure":
                self._unsure(token)
            case "think":
                self._think(token)
            case "thought":
                self._thought(token)
            case "between":
                self._between(token)
            case "answer":
                self._answer(token)
            case "guarded":
                self._emit("reasoning", token)
            case "done" | "verbatim":
                pass

    def _start(self, token: str) -> None:
        """Nothing but blanks so far."""
        if token == _THINK:
            self._phase = "think"
        elif token == _THINK_END:
            self._phase = "thought"
        elif token == _ANSWER:
            self._phase = "answer"
        elif not _is_blank(token):
            self._guess(token, "unsure")

    def _unsure(self, token: str) -> None:
        """Text came first: an answer without tags, or thinking whose `<think>` is in the prompt."""
        if token == _THINK_END:
            self._settle_as_reasoning("thought")
        else:
            self._held.append(token)

    def _think(self, token: str) -> None:
        """Behind `<think>`; from an `<answer>` on it may be the answer of a thinking left open."""
        if token == _THINK_END:
            self._settle_as_reasoning("thought")
        elif self._held or token == _ANSWER:
            self._held.append(token)
        else:
            self._emit("reasoning", token)

    def _thought(self, token: str) -> None:
        """Nothing but blanks behind `</think>`."""
        if token == _ANSWER:
            self._phase = "answer"
        elif token == _THINK:
            self._phase = "think"
        elif _is_blank(token) or token == _THINK_END:
            self._emit("reasoning", token)
        else:
            self._guess(token, "between")

    def _between(self, token: str) -> None:
        """Text behind `</think>`: an answer without its tag, or the thinking goes on."""
        if token == _THINK_END:
            self._settle_as_reasoning("thought")
        elif token == _ANSWER:
            self._settle_as_reasoning("answer")
        else:
            self._held.append(token)

    def _answer(self, token: str) -> None:
        if token == _ANSWER_END:
            self._close_box()
            self._phase = "done"
        elif token in _BOXES:
            self._box = []
        elif token in _BOX_ENDS:
            self._close_box()
        else:
            if self._box is not None:
                self._box.append(token)
            self._emit("answer", token)

    def _guess(self, token: str, phase: _Phase) -> None:
        """Text outside any tag: the answer if `eager`, else held until its place is known."""
        if self._eager:
            self._phase = "answer"
            self._answer(token)
        else:
            self._phase = phase
            self._held.append(token)

    def _settle_as_reasoning(self, phase: _Phase) -> None:
        for token in self._held:
            self._emit("reasoning", token)
        self._held.clear()
        self._phase = phase

    def _settle_at_end(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        # Without the tag, everything held is the answer.
        at = held.index(_ANSWER) if _ANSWER in held else -1
        for token in held[: max(at, 0)]:
            self._emit("reasoning", token)
        self._phase = "answer"
        for token in held[at + 1 :]:
            self._step(token)

    def _close_box(self) -> None:
        if self._box is not None:
            self._boxes.append("".join(self._box).strip())
            self._box = None

    def _emit(self, kind: Kind, token: str) -> None:
        if kind == "reasoning" and token in _HIDDEN_IN_REASONING:
            return
        if text := self._trims[kind].add(token):
            self._pieces.append((kind, text))


class _Trim:
    """Takes blanks off both ends of a text that comes token by token."""

    def __init__(self) -> None:
        self._begun = False
        self._blanks: list[str] = []  # dropped unless more text follows

    def add(self, token: str) -> str:
        """Take the next token; returns the text that is certain to stay."""
        body = "" if token in _ROLES else token.rstrip()
        if not body:
            if self._begun:
                self._blanks.append(token)
            return ""
        blanks = "".join(self._blanks)
        self._blanks = [token[len(body) :]]
        if not self._begun:
            self._begun = True
            return body.lstrip()
        return blanks + body


def _is_blank(token: str) -> bool:
    return token in _ROLES or token.isspace()


def _end_of_whole_tags(text: str) -> int:
    """Where the part of `text` ends that no further character can turn into a tag."""
    # A tag has its only "<" in front, so just the last one can start an unfinished tag.
    at = text.rfind("<", max(0, len(text) - _LONGEST_START))
    return at if at >= 0 and text[at:] in _TAG_STARTS else len(text)
