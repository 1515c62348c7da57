"""How many pages are asked about at once: as many as the server answers, and few in its queue.

vLLM tells at `/metrics` how many requests it answers and how many wait. A queue that is never empty
keeps it busy, and a short one keeps few pictures in memory and lets others have their turn. Others
tell nothing, but refuse what is too much: they get as much as they took, and a little more in time.
"""

import random
from typing import TYPE_CHECKING

import openai

from langchain_glm4v.clients import root_of
from langchain_glm4v.server import metrics
from langchain_glm4v.server.metrics import Load

if TYPE_CHECKING:
    from langchain_glm4v.chat_models import ChatGLM4V

FIRST_LIMIT = 16
"""Requests at once to begin with, and at most as long as the server does not tell its load."""

PATIENCE = 600.0
"""Seconds without an answer after a refusal, at most, until no more is asked."""

INTERVAL = 0.5
"""Seconds between two looks at the load."""

LONGEST_INTERVAL = 60.0
"""Seconds, at most, between two looks at a server that did not tell its load; each is twice as long
after the last."""

_TIMEOUT = 5.0  # seconds
_QUEUE = 4  # requests that should wait, so that one that ends is followed by another at once
_GROWTH = 2  # by which the limit is multiplied at most, at a look
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds; each is twice as long as the last
_JITTER = 0.25  # of a pause at most, lest all who were refused come back together
_ANSWERS = 4  # in each place, before there is one more place after a refusal


class Pace:
    """How many requests there may be at once, and when the next.

    Args:
        most: How many there may be at any time.

    Attributes:
        resumes: Time before which none is made.
    """

    def __init__(self, most: int) -> None:
        self.resumes = 0.0
        self._most = most
        self._by_load = min(FIRST_LIMIT, most)
        self._by_refusals = most
        self._least = 1  # for the refusals of this pause
        self._answers = 0  # since the limit by refusals was changed
        self._pauses = 0  # since the last answer
        self._refused_since: float | None = None

    @property
    def limit(self) -> int:
        """How many requests there may be at once from now on."""
        return min(self._by_load, self._by_refusals)

    def told(self, load: Load, in_flight: int) -> None:
        """Follow what the server tells, while there are so many of our requests."""
        self._by_load = next_limit(self._by_load, in_flight, load, self._most)

    def answered(self) -> None:
        """Note that a request was answered."""
        self._refused_since = None
        self._pauses = 0
        self._answers += 1
        if self._answers >= _ANSWERS * self._by_refusals:
            self._by_refusals = min(self._most, self._by_refusals + 1)
            self._answers = 0

    def refused(self, now: float, others: int, wait: float) -> bool:
        """Note that the server refused a request.

        Args:
            now: The time.
            others: How many requests there are beside it: as many as the server took.
            wait: Seconds for which it wants to be left alone; 0 if it does not say.

        Returns:
            Whether it is of use to ask again; if not, it has answered nothing for too long.
        """
        if now >= self.resumes:  # else it is of those that were made before the pause
            # At most halved: a limit of requests a minute refuses all of those at once.
            self._least = max(1, min(self.limit, others + 1) // 2)
        self._by_refusals = max(self._least, min(self.limit, others))
        self._answers = 0
        if self._refused_since is None:
            self._refused_since = now
        if not wait and now >= self.resumes:
            wait = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._pauses)
            wait *= random.uniform(1, 1 + _JITTER)
            self._pauses += 1
        resumes = max(self.resumes, now + wait)
        if resumes - self._refused_since > PATIENCE:
            return False
        self.resumes = resumes
        return True


def next_limit(limit: int, in_flight: int, load: Load, most: int) -> int:
    """How many requests there may be at once from now on.

    Args:
        limit: How many there might be so far.
        in_flight: How many of ours there are.
        load: What the server tells.
        most: How many there may be at any time.
    """
    waiting = load.waiting or 0
    if waiting > _QUEUE:
        # Others' requests wait too; ours go back until the queue is short.
        return max(1, min(most, in_flight - (waiting - _QUEUE)))
    if in_flight < limit:
        return limit
    return min(most, limit * _GROWTH, limit + _GROWTH * max(_QUEUE, load.running or 0))


async def load_of(llm: "ChatGLM4V") -> Load | None:
    """How busy the server of a model is; None if it does not tell, as others than vLLM do not."""
    client = llm.root_async_client.current
    try:
        text = await client.get(
            root_of(client) + "/metrics",
            cast_to=str,
            options={"timeout": _TIMEOUT, "max_retries": 0},
        )
    except openai.OpenAIError:
        return None
    found = metrics.load(metrics.parse(text))
    return None if found.waiting is None else found
