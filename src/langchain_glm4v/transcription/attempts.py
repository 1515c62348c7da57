"""How a page is read: which attempts are made, and which of their answers counts.

The attempts are yielded, and what the model replied is sent in, so that this knows nothing of how a
model is asked.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from langchain_glm4v.media.scan import Turn
from langchain_glm4v.transcription.records import Problem, Reading

TEMPERATURES: Sequence[float | None] = (None, 0.2, 0.5, 0.8)
"""Temperature of each attempt, until a text has no problem; None: the model's own. A text that was
cut off, or repeats itself, mostly does so again at the same temperature."""

DOUBTFUL = 0.9
"""Confidence below which a page may stand on its side or on its head."""

_TURNS: Sequence[Turn] = (180, 90, 270)
_CLEARLY = 0.05  # by which a turned page must be read with more confidence


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the model is asked.

    Attributes:
        turn: Degrees by which the page is turned, clockwise.
        temperature: Of the sampling; None: the model's own.
    """

    turn: Turn
    temperature: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What it replied.

    Attributes:
        text: The answer.
        problems: What is wrong with it.
        confidence: Mean probability of the tokens, 0 to 1; None: not known.
        model: The model's name.
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the output.
        seconds: How long it took.
    """

    text: str
    problems: tuple[Problem, ...]
    confidence: float | None
    model: str
    input_tokens: int
    output_tokens: int
    seconds: float


Steps: TypeAlias = Generator[Attempt, Reply | None, Reading]


def read(*, temperatures: Sequence[float | None] = TEMPERATURES, finds_turn: bool = True) -> Steps:
    """The attempts at a page.

    A page that is read with little confidence is tried on its head and on its sides too, once; it
    stays turned if that is read with clearly more confidence.

    Args:
        temperatures: Of each attempt, as for `TEMPERATURES`; at least one.
        finds_turn: Whether the page may be turned.

    Yields:
        Each attempt; what it came to must be sent in, None if it failed: then no more are made. The
        first must not fail.

    Returns:
        The best of those at this turn: with a text, with the fewest problems, and of these with the
        most confidence.
    """
    made: list[tuple[Attempt, Reply]] = []
    turn: Turn = 0
    for temperature in temperatures:
        attempt = Attempt(turn, temperature)
        reply = yield attempt
        if reply is None:
            break
        made.append((attempt, reply))
        if finds_turn and len(made) == 1 and _is_doubtful(reply):
            for other in _TURNS:
                attempt = Attempt(other, temperature)
                reply = yield attempt
                if reply is None:
                    return _reading(made, 0)
                made.append((attempt, reply))
            turn = _found_turn(made)
        if not _best(made, turn).problems:
            break
    return _reading(made, turn)


def _is_doubtful(reply: Reply) -> bool:
    return reply.confidence is not None and reply.confidence < DOUBTFUL


def _found_turn(made: Sequence[tuple[Attempt, Reply]]) -> Turn:
    """The turn that is read with clearly more confidence than the page as it is; else 0."""
    (_, upright), *others = made
    found, turn = max((_confidence_at_turn(reply), attempt.turn) for attempt, reply in others)
    return turn if found >= (upright.confidence or 0.0) + _CLEARLY else 0


def _confidence_at_turn(reply: Reply) -> float:
    # A model is sure of nothing, and of what it repeats, however a page is turned.
    is_telling = not {"empty", "repetition"}.intersection(reply.problems)
    return reply.confidence or 0.0 if is_telling else 0.0


def _best(made: Sequence[tuple[Attempt, Reply]], turn: Turn) -> Reply:
    return max((reply for attempt, reply in made if attempt.turn == turn), key=_goodness)


def _goodness(reply: Reply) -> tuple[bool, int, float]:
    # Half a text is of more use than none.
    return "empty" not in reply.problems, -len(reply.problems), reply.confidence or 0.0


def _reading(made: Sequence[tuple[Attempt, Reply]], turn: Turn) -> Reading:
    best = _best(made, turn)
    replies = [reply for _, reply in made]
    return Reading(
        text=best.text,
        origin="model",
        problems=best.problems,
        confidence=best.confidence,
        turn=turn,
        attempts=len(replies),
        model=best.model,
        input_tokens=sum(reply.input_tokens for reply in replies),
        output_tokens=sum(reply.output_tokens for reply in replies),
        seconds=sum(reply.seconds for reply in replies),
    )
