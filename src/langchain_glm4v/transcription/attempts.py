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


Steps: TypeAlias = Generator[Attempt, Reply, Reading]


def read(*, temperatures: Sequence[float | None] = TEMPERATURES, finds_turn: bool = True) -> Steps:
    """The attempts at a page.

    A page that is read with little confidence is tried on its head and on its sides too, once; it
    stays turned if that is clearly better.

    Args:
        temperatures: Of each attempt, as for `TEMPERATURES`; at least one.
        finds_turn: Whether the page may be turned.

    Yields:
        Each attempt; what it came to must be sent in.

    Returns:
        The best of them: with the fewest problems, and of these with the most confidence.
    """
    made: list[tuple[Attempt, Reply]] = []
    turn: Turn = 0
    for temperature in temperatures:
        attempt = Attempt(turn, temperature)
        made.append((attempt, (yield attempt)))
        if finds_turn and len(made) == 1 and _is_doubtful(made[0][1]):
            for other in _TURNS:
                attempt = Attempt(other, temperature)
                made.append((attempt, (yield attempt)))
            turn = max(made, key=_goodness)[0].turn
        if not max(made, key=_goodness)[1].problems:
            break
    return _reading(made)


def _is_doubtful(reply: Reply) -> bool:
    return reply.confidence is not None and reply.confidence < DOUBTFUL


def _goodness(made: tuple[Attempt, Reply]) -> tuple[int, float]:
    attempt, reply = made
    confidence = reply.confidence or 0.0
    return -len(reply.problems), confidence - (_CLEARLY if attempt.turn else 0.0)


def _reading(made: Sequence[tuple[Attempt, Reply]]) -> Reading:
    attempt, best = max(made, key=_goodness)
    replies = [reply for _, reply in made]
    return Reading(
        text=best.text,
        origin="model",
        problems=best.problems,
        confidence=best.confidence,
        turn=attempt.turn,
        attempts=len(replies),
        model=best.model,
        input_tokens=sum(reply.input_tokens for reply in replies),
        output_tokens=sum(reply.output_tokens for reply in replies),
        seconds=sum(reply.seconds for reply in replies),
    )
