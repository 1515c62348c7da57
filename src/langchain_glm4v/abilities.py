"""What a server can do, found out by asking it once.

Questions are yielded and answers sent in, so that sync and async callers share this code:

    steps = look_up("glm")
    question = next(steps)
    question = steps.send(answer)  # … until StopIteration carries the result
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from langchain_glm4v.grammar import TAGS
from langchain_glm4v.profiles import Host
from langchain_glm4v.server.probes import CONVERSATION

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Question:
    """A request beside the real one.

    Attributes:
        path: Path of the server; those of OpenAI's API begin with `/v1`.
        body: Sent as JSON by POST; None: a GET.
    """

    path: str
    body: Mapping[str, Any] | None = None


Answer: TypeAlias = Mapping[str, Any] | None
"""The JSON object of a reply; None if the server refused or does not know the path."""

FAILED: Answer = MappingProxyType({})
"""The answer of a server that failed just now, and may know better the next time."""

Steps: TypeAlias = Generator[Question, Answer, Result]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server can do.

    Attributes:
        context_tokens: Prompt and output together, at most; None: unknown.
        ids: Token id of each of `grammar.TAGS`; None if they are not one token each, or cannot be
            asked for. Without them there is no grammar.
        renders: Whether system prompts and earlier turns reach the model as text.
        is_vllm: Whether it has vLLM's own paths and fields: it counts tokens, and guards against
            endless repetition.
        continues: Whether it continues an answer that the prompt begins.
        budget: Whether it ends a thinking that becomes too long.
        frames: Whether it takes a video as frames, and the request's word on their seconds.
        settled: Whether it answered all that it was asked; else it is worth asking again.
    """

    context_tokens: int | None = None
    ids: Mapping[str, int] | None = None
    renders: bool = True
    is_vllm: bool = False
    continues: bool = False
    budget: bool = False
    frames: bool = False
    settled: bool = True


def look_up(model: str, host: Host | None) -> Steps[Abilities]:
    """Find out what the server can do.

    Args:
        model: Name under which it offers the model.
        host: The known service that it is; those are not asked.
    """
    if host is not None:
        return Abilities()
    models = yield Question("/v1/models")
    context = _context(model, models)
    chat = yield Question("/tokenize", {"model": model, "messages": CONVERSATION})
    if chat is None or "count" not in chat:  # no vLLM; others have a path of this name too
        return Abilities(context, settled=models is not FAILED and chat is not FAILED)
    prompt = yield Question("/detokenize", {"model": model, "tokens": chat.get("tokens")})
    tags = yield Question(
        "/tokenize", {"model": model, "prompt": "".join(TAGS), "add_special_tokens": False}
    )
    tokens = (tags or {}).get("tokens") or []
    renders = _renders(str((prompt or {}).get("prompt")))
    return Abilities(
        context_tokens=context,
        ids=dict(zip(TAGS, tokens, strict=True)) if len(tokens) == len(TAGS) else None,
        renders=renders,
        is_vllm=True,
        # A template that prints lists would print the beginning of the answer as one.
        continues=renders,
        budget=True,
        frames=True,
        settled=not any(answer is FAILED for answer in (models, prompt, tags)),
    )


def _context(model: str, models: Answer) -> int | None:
    match models:
        case {"data": [*cards]}:
            for card in cards:
                match card:
                    case {"id": name, "max_model_len": int(length)} if name == model:
                        return length
    return None


def _renders(prompt: str) -> bool:
    """Whether the turns of `CONVERSATION` stand in its prompt as texts.

    A template for single strings prints the lists that vLLM makes of them, with their "type".
    Those of later models of the family differ from ours in other ways, which do no harm.
    """
    texts: list[str] = [turn["content"] for turn in CONVERSATION[:-1]]
    listed = "'type'" in prompt or '"type"' in prompt
    return not listed and all(text in prompt for text in texts)


def run(steps: Steps[Result], ask: Callable[[Question], Answer]) -> Result:
    """Answer the questions of `steps` by `ask`; returns the result."""
    answer: Answer = None
    try:
        while True:
            answer = ask(steps.send(answer))
    except StopIteration as end:
        result: Result = end.value
        return result


async def arun(steps: Steps[Result], ask: Callable[[Question], Awaitable[Answer]]) -> Result:
    """As `run`."""
    answer: Answer = None
    try:
        while True:
            answer = await ask(steps.send(answer))
    except StopIteration as end:
        result: Result = end.value
        return result
