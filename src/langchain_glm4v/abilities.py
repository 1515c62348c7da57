"""What a server can do, found out by asking it once.

Questions are yielded and answers sent in, so that sync and async callers share this code:

    steps = look_up("glm")
    question = next(steps)
    question = steps.send(answer)  # … until StopIteration carries the result
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar, cast

from langchain_glm4v.grammar import TAGS
from langchain_glm4v.media import stopping
from langchain_glm4v.profiles import Host
from langchain_glm4v.server.probes import CONVERSATION

Result = TypeVar("Result")
Asked = TypeVar("Asked")
Told = TypeVar("Told")

_TOKENS_OF_THINKING = 4  # the tag, perhaps a line break, and a word


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
        refused: Keys of the grammars that it could not read.
        parses: Whether it takes the reasoning off the output by itself, as `--reasoning-parser`
            lets it: a grammar then binds only what follows the thinking. None: not looked up yet.
        frames: Whether it takes a video as frames, and the request's word on their seconds.
        medium_tokens: Tokens of one picture or video, at most; None: it refused none yet.
        settled: Whether it answered all that it was asked; else it is worth asking again.
    """

    context_tokens: int | None = None
    ids: Mapping[str, int] | None = None
    renders: bool = True
    is_vllm: bool = False
    continues: bool = False
    budget: bool = False
    refused: frozenset[str] = frozenset()
    parses: bool | None = None
    frames: bool = False
    medium_tokens: int | None = None
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


def look_for_parser(model: str, abilities: Abilities) -> Steps[Abilities]:
    """Find out whether the server parses the reasoning.

    Nothing but an answer shows it, if one of a few tokens. So it is asked only once a grammar is
    wanted.
    """
    request = {
        "model": model,
        "messages": CONVERSATION[-1:],
        "max_tokens": _TOKENS_OF_THINKING,
        "temperature": 0,
    }
    reply = yield Question("/v1/chat/completions", request)
    match reply:
        case {"choices": [{"message": {"reasoning": str(text)}}, *_]} if text:
            return replace(abilities, parses=True)
    return abilities if reply is FAILED else replace(abilities, parses=False)


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


def run(steps: Generator[Asked, Told, Result], ask: Callable[[Asked], Told]) -> Result:
    """Answer the questions of `steps` by `ask`; returns the result."""
    state = _advanced(steps, None)
    while not isinstance(state, _End):
        state = _advanced(steps, ask(state))
    return state.result


async def arun(
    steps: Generator[Asked, Told, Result],
    ask: Callable[[Asked], Awaitable[Told]],
    *,
    in_thread: bool = False,
) -> Result:
    """As `run`; the steps themselves in a thread, if they take long, as reading media does."""

    async def advanced(answer: Told | None) -> Asked | _End[Result]:
        if in_thread:
            return await stopping.in_thread(_advanced, steps, answer)
        return _advanced(steps, answer)

    state = await advanced(None)
    while not isinstance(state, _End):
        state = await advanced(await ask(state))
    return state.result


@dataclass(frozen=True, slots=True)
class _End(Generic[Result]):
    """The end of some steps. A `StopIteration` cannot leave a thread."""

    result: Result


def _advanced(steps: Generator[Asked, Told, Result], answer: Told | None) -> Asked | _End[Result]:
    try:
        # The first answer, to no question, is None, as generators want it.
        return steps.send(cast("Told", answer))
    except StopIteration as end:
        return _End(end.value)
