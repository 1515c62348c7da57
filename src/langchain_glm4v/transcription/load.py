"""How many pages are asked about at once: as many as the server answers, and few in its queue.

vLLM tells at `/metrics` how many requests it answers and how many wait. A queue that is never empty
keeps it busy, and a short one keeps few pictures in memory and lets others have their turn.
"""

from typing import TYPE_CHECKING

import openai

from langchain_glm4v.clients import root_of
from langchain_glm4v.server import metrics
from langchain_glm4v.server.metrics import Load

if TYPE_CHECKING:
    from langchain_glm4v.chat_models import ChatGLM4V

FIRST_LIMIT = 16
"""Requests at once to begin with, and as long as the server does not tell its load."""

INTERVAL = 0.5
"""Seconds between two looks at the load."""

LONGEST_INTERVAL = 60.0
"""Seconds, at most, between two looks at a server that did not tell its load; each is twice as long
after the last."""

_TIMEOUT = 5.0  # seconds
_QUEUE = 4  # requests that should wait, so that one that ends is followed by another at once
_GROWTH = 2  # by which the limit is multiplied at most, at a look


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
