"""What one call sends: from a conversation and its options to the body of a request.

    options + messages -> system prompts for tools and JSON -> pictures pruned, history folded
    -> prefix that turns thinking off -> grammar -> lengths fitted -> what the host refuses dropped

Pure; where the server must be asked (only to count tokens near its limit), it yields questions as
`abilities` does.
"""

import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from langchain_glm4v import counting, grammar, two_rounds, uploads
from langchain_glm4v.abilities import Abilities, Question, Steps
from langchain_glm4v.call_errors import ContextLengthError
from langchain_glm4v.conversation import fold, prune_images
from langchain_glm4v.errors import RequestError, UnsupportedByServerError
from langchain_glm4v.media.video import LEAST_STEP_TOKENS
from langchain_glm4v.messages import neutralise, to_wire
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.profiles import SAMPLING, Host, Profile, Sampling
from langchain_glm4v.replies import Reading
from langchain_glm4v.tool_protocol import (
    BOXES,
    NO_CHOICE,
    Choice,
    Schema,
    choices_prompt,
    dumps,
    format_prompt,
    tools_prompt,
)
from langchain_glm4v.turns import Turn, VideoPart, parts_of

NO_THINKING = "<think></think><answer>"
# Tokens in a pattern, and how often it follows itself: at least 160 tokens of nothing new.
REPETITION_GUARD = {"min_pattern_size": 4, "max_pattern_size": 64, "min_count": 40}
# Room for an answer that is asked for when the conversation all but fills the context.
_LEAST_OUTPUT = 16  # tokens
_EXTRA_TURN = 16  # tokens, at most, that a server's template may put around a conversation
# How vLLM refuses a picture or video of more tokens than it makes room for (`input_processor.py`).
_MEDIUM_TOO_LARGE = re.compile(r"exceeds the pre-allocated encoder cache size (\d+)")
# Fields of a request on which its prompt depends.
_SHAPING = ("tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


@dataclass(frozen=True)
class Server:
    """Whom a request is for.

    Attributes:
        model: Name under which the server offers the model.
        profile: What is known of the model.
        host: The known service, which fetches pictures itself; None for a server of one's own,
            for which we fetch them.
        abilities: What the server can do.
    """

    model: str
    profile: Profile
    host: Host | None
    abilities: Abilities


@dataclass(frozen=True)
class Options:
    """What a call asks for, beside the fields that a request just carries.

    Attributes:
        sampling: Values for what the call leaves open.
        thinking: "off": answer at once.
        thinking_budget: Tokens of thinking, at most; None: no limit.
        repetition_guard: Whether an output that repeats itself endlessly is cut.
        max_images: Pictures in a request, at most; older ones are left out.
        allow_hosts: Hosts that may be fetched from though they are not public.
        allowed_dirs: Directories in which all local files must lie; None: see `Preparation`.
        tools: Name, description and parameters of each tool.
        choice: Which of them may be called.
        parallel: Whether several calls may be made at once.
        schema: JSON schema of the answer; None: words.
        described: Whether the model must be told the schema.
        choices: The answer is one of these, word for word.
        boxes: Whether the answer is a list of boxes.
    """

    sampling: Sampling
    thinking: Literal["auto", "off"] = "auto"
    thinking_budget: int | None = None
    repetition_guard: bool = True
    max_images: int = 32
    allow_hosts: Collection[str] = ()
    allowed_dirs: Collection[str | os.PathLike[str]] | None = None
    tools: Sequence[Schema] = ()
    choice: Choice = NO_CHOICE
    parallel: bool = True
    schema: Schema | None = None
    described: bool = True
    choices: Sequence[str] = ()
    boxes: bool = False

    @property
    def may_call(self) -> bool:
        """Whether the model may call a tool."""
        return bool(self.tools) and self.choice.kind != "none"

    @property
    def has_form(self) -> bool:
        """Whether the answer is to have a form that a grammar can bind it to."""
        return self.may_call or self.schema is not None or bool(self.choices) or self.boxes


@dataclass(frozen=True)
class Plan:
    """A request, and how to read what comes back.

    Attributes:
        payload: The request, as OpenAI's client takes it.
        reading: How the text of the reply is to be read.
        abilities: What the server was taken to be able to.
        grammar: Key of the grammar that binds the output; "": none does.
        budget: Tokens of thinking after which the client itself goes on with the answer, in a
            second request; None: the server keeps the budget, or there is none.
        watched: Whether the client itself must watch for endless repetition.
    """

    payload: dict[str, Any]
    reading: Reading
    abilities: Abilities
    grammar: str = ""
    budget: int | None = None
    watched: bool = False


def read_options(fields: dict[str, Any], wishes: Mapping[str, Any]) -> Options:
    """Take what concerns tools and the form of the answer out of a request's fields.

    Args:
        fields: LangChain's and OpenAI's; `tools`, `tool_choice`, `parallel_tool_calls`,
            `response_format`, `choices` and `boxes` are removed.
        wishes: The other fields of `Options`, `sampling` as the name of a preset.

    Raises:
        RequestError: One of them has no form that is known.
    """
    choice = Choice.read(fields.pop("tool_choice", None))
    tools = [_function(tool) for tool in fields.pop("tools", None) or []]
    names = [tool["name"] for tool in tools]
    if choice.kind == "named" and choice.name not in names:
        raise RequestError(
            f"tool_choice names {choice.name!r}, which is none of the tools: "
            f"{', '.join(names) or 'there are none'}"
        )
    preset = wishes["sampling"]
    if preset not in SAMPLING:
        raise RequestError(f"sampling is {preset!r}: accepted are {', '.join(SAMPLING)}")
    budget = wishes["thinking_budget"]
    if budget is not None and (type(budget) is not int or budget < 1):
        raise RequestError(
            f"thinking_budget is {budget!r}: give at least 1 token, or thinking='off' for none"
        )
    if wishes["thinking"] not in ("auto", "off"):
        raise RequestError(f"thinking is {wishes['thinking']!r}: accepted are 'auto' and 'off'")
    most = wishes["max_images"]
    if type(most) is not int or most < 1:
        raise RequestError(f"max_images is {most!r}: it must be a whole number above 0")
    choices = fields.pop("choices", None) or ()
    if isinstance(choices, str) or not all(isinstance(text, str) for text in choices):
        raise RequestError(f"choices are {choices!r}: give a list of texts")
    parallel = fields.pop("parallel_tool_calls", None)
    schema, described = _wanted_schema(fields.pop("response_format", None))
    return Options(
        **{**wishes, "sampling": SAMPLING[preset]},
        tools=tools,
        choice=choice if tools else NO_CHOICE,
        parallel=parallel is not False,
        schema=schema,
        described=described,
        choices=tuple(choices),
        boxes=bool(fields.pop("boxes", False)),
    )


def _function(tool: Any) -> Schema:
    """Name, description and parameters of a tool, from any form LangChain knows."""
    try:
        known = convert_to_openai_tool(tool).get("function")
    except ValueError:
        known = None
    if known is None or _is_of_a_service(tool):
        raise RequestError(
            f"{tool!r} is a tool that only another service runs: give functions, tools of "
            "LangChain's, classes or schemas"
        )
    return {
        key: known[key]
        for key in ("name", "description", "parameters")
        if known.get(key) is not None
    }


def _is_of_a_service(tool: Any) -> bool:
    """Whether a tool is one that OpenAI or Anthropic run themselves, or know the schema of."""
    if not isinstance(tool, Mapping) or "input_schema" in tool:
        return False
    return tool.get("type", "function") not in ("function", "object")


def _wanted_schema(response_format: Any) -> tuple[Schema | None, bool]:
    """The JSON schema in a `response_format`, and whether the model must be told it."""
    match response_format:
        case None | {"type": "text"}:
            return None, False
        case {"type": "json_object"}:
            return {"type": "object"}, False  # the caller's own words describe it
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema, True
        case type():
            return convert_to_json_schema(response_format), True
        case _:
            raise RequestError(
                f"response_format is {response_format!r}: accepted are json_schema, json_object, "
                "and a class; pass others, such as a structural tag, in extra_body"
            )


def plan(
    messages: Sequence[BaseMessage],
    options: Options,
    fields: Mapping[str, Any],
    server: Server,
    *,
    fit: bool = True,
    always: Collection[str] = (),
) -> Steps[Plan]:
    """Plan the request for a call.

    Args:
        messages: The conversation.
        options: What is asked for.
        fields: Fields that the request carries as they are, `extra_body` among them.
        server: Whom it is for.
        fit: Whether the request must fit into what the server takes.
        always: Fields of `extra_body` that are sent whatever the host is known to take.

    Raises:
        ContextLengthError: The conversation leaves no room for an answer.
        TooManyImagesError: The last turn alone has more pictures than allowed.
        UnsupportedByServerError: The server cannot do what the options ask for.
        MediaError: A picture cannot be sent.
    """
    media = preparation(
        server,
        allow_hosts=options.allow_hosts,
        allowed_dirs=options.allowed_dirs,
        max_images=options.max_images,
    )
    wire = to_wire(messages, media, native_tools=server.profile.native_tools)
    form = _answer_format(options, server)
    wire = prune_images(
        _instructed(wire, options, server, is_bound=form is not None), options.max_images
    )
    if not server.abilities.renders:
        wire = fold(wire)
    extras, reading, client_budget = _steering(options, server, form)
    if client_budget is not None and (fields.get("n") or 1) > 1:
        raise UnsupportedByServerError(
            f"thinking_budget={client_budget} cannot be kept for n={fields['n']} replies at once "
            "on this server: ask once for each"
        )
    if "continue_final_message" in extras:
        wire = [*wire, {"role": "assistant", "content": NO_THINKING}]
    preset = options.sampling
    payload = {
        "temperature": preset.temperature,
        "top_p": preset.top_p,
        **{name: value for name, value in fields.items() if value is not None},
        **_native_tools(options, server),
        "messages": wire,
        "extra_body": {
            "top_k": preset.top_k,
            **extras,
            **_seconds_of_video(wire),
            **(fields.get("extra_body") or {}),
        },
    }
    if server.abilities.is_vllm:
        payload["messages"] = uploads.named(wire, payload["extra_body"].get("cache_salt"))
    first = 0 if client_budget is None else two_rounds.length(client_budget)
    if fit:
        payload = yield from _fitted(payload, server, first)
    in_one = payload.get("max_tokens") is not None and payload["max_tokens"] <= first
    return Plan(
        payload=_accepted(payload, server.host, always),
        reading=reading,
        abilities=server.abilities,
        grammar="" if form is None else _key(form),
        budget=None if in_one else client_budget,
        watched=options.repetition_guard and not server.abilities.is_vllm,
    )


def preparation(
    server: Server,
    *,
    allow_hosts: Collection[str],
    allowed_dirs: Collection[str | os.PathLike[str]] | None,
    max_images: int,
) -> Preparation:
    """How media are made ready for a server; the options are those of a call."""
    return Preparation(
        video="frames" if server.abilities.frames else "mp4",
        fetches=server.host is None,
        allow_hosts=allow_hosts,
        allowed_dirs=allowed_dirs,
        max_pages=max_images,
        max_tokens=server.abilities.medium_tokens,
        context_tokens=server.abilities.context_tokens,
    )


def _seconds_of_video(wire: Sequence[Turn]) -> dict[str, Any]:
    """The field that tells the server when the frames of a video are shown."""
    for part in (part for turn in wire for part in parts_of(turn)):
        if isinstance(part, VideoPart) and part.clip.media_io_kwargs:
            return {"media_io_kwargs": {"video": dict(part.clip.media_io_kwargs)}}
    return {}


def _instructed(
    wire: list[dict[str, Any]], options: Options, server: Server, *, is_bound: bool
) -> list[dict[str, Any]]:
    """The conversation with what the model must be told about tools and the form of its answer.

    Boxes it knows how to write: they need words only where no grammar binds the answer.
    """
    texts = []
    if options.may_call and not server.profile.native_tools:
        texts.append(tools_prompt([*map(_neutral, options.tools)], options.choice))
    if options.schema is not None and options.described:
        texts.append(format_prompt(_neutral(options.schema)))
    if options.choices:
        texts.append(choices_prompt([*map(neutralise, options.choices)]))
    if options.boxes and not is_bound:
        texts.append(BOXES)
    if not texts:
        return wire
    if wire and wire[0]["role"] == "system":
        first, *rest = wire
        return [{**first, "content": _appended(first["content"], "\n\n".join(texts))}, *rest]
    return [{"role": "system", "content": "\n\n".join(texts)}, *wire]


def _neutral(schema: Schema) -> Schema:
    """The same without control tokens: tools may come from others, as all texts of a prompt may."""
    neutral: Schema = json.loads(neutralise(dumps(schema)))
    return neutral


def _appended(content: str | list[dict[str, Any]], text: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return f"{content}\n\n{text}" if content else text
    return [*content, {"type": "text", "text": f"\n\n{text}"}]


def _steering(
    options: Options, server: Server, answer: grammar.Format | None
) -> tuple[dict[str, Any], Reading, int | None]:
    """Fields that bind thinking and answer, how to read the reply, and the client's own budget."""
    abilities, profile = server.abilities, server.profile
    calls = options.may_call and not profile.native_tools
    must_call = calls and options.choice.kind != "auto"
    extras: dict[str, Any] = {}
    given = ""
    if options.thinking == "off":
        extras |= _no_thinking(server)
        given = "<think></think>" if "continue_final_message" in extras else ""
    if options.repetition_guard and abilities.is_vllm:
        extras["repetition_detection"] = REPETITION_GUARD
    if answer is not None and abilities.ids is not None:
        extras["response_format"] = grammar.response_format(
            answer,
            abilities.ids,
            thinking=options.thinking == "auto",
            budget=options.thinking_budget,
            parsed=bool(abilities.parses),
        )
        if abilities.parses and options.thinking_budget is not None and not given:
            extras["thinking_token_budget"] = options.thinking_budget
        words = calls and not must_call and options.schema is None
        reading = Reading(
            given=NO_THINKING if given else "",
            strict=not (options.boxes or words),  # words may have boxes in them
            calls=calls,
        )
        return extras, reading, None
    if options.schema is not None and not profile.answer_tag and not options.may_call:
        extras["response_format"] = _json_schema(options.schema)
    eager = bool(given) or (server.host is not None and server.host.splits)
    reading = Reading(given=given, eager=eager, calls=calls, bare_calls=must_call)
    if options.thinking_budget is None or options.thinking == "off":
        return extras, reading, None
    if abilities.budget:
        extras["thinking_token_budget"] = options.thinking_budget
        return extras, reading, None
    if not (abilities.continues and profile.answer_tag):
        raise UnsupportedByServerError(
            f"thinking_budget={options.thinking_budget} cannot be kept: this server neither ends a "
            "thinking nor continues a message; use a vLLM started with this package's chat "
            "template, or leave thinking_budget out"
        )
    return extras, reading, options.thinking_budget


def _no_thinking(server: Server) -> dict[str, Any]:
    match server.profile.thinking_off:
        case "prefill" if server.abilities.continues:
            return {"continue_final_message": True, "add_generation_prompt": False}
        case "template" if server.host is not None and server.host.thinking_field:
            return {"thinking": {"type": "disabled"}}
        case "template" if server.host is None:
            return {"chat_template_kwargs": {"enable_thinking": False}}
        case _:
            raise UnsupportedByServerError(
                f"thinking cannot be turned off for {server.model!r} on this server: use a vLLM "
                "started with this package's chat template, or thinking='auto'"
            )


def _answer_format(options: Options, server: Server) -> grammar.Format | None:
    """The form that a grammar binds the answer to; None if none does."""
    abilities = server.abilities
    ids = abilities.ids
    if ids is None or not server.profile.answer_tag:
        return None
    # Behind a parser, the grammar cannot keep the budget.
    if abilities.parses and options.thinking_budget is not None and not abilities.budget:
        return None
    form = _wanted_format(options, ids)
    return None if form is None or _key(form) in abilities.refused else form


def _key(form: grammar.Format) -> str:
    return sha256(dumps(form).encode()).hexdigest()


def _wanted_format(options: Options, ids: Mapping[str, int]) -> grammar.Format | None:
    if options.boxes:
        return grammar.boxes_answer(ids)
    if options.choices:
        return grammar.choice_answer(options.choices)
    form = None if options.schema is None else grammar.json_answer(options.schema)
    if options.may_call:
        if form is None:
            return grammar.calls_answer(options.tools, options.choice, parallel=options.parallel)
        must = Choice("any") if options.choice.kind == "auto" else options.choice
        calls = grammar.calls_answer(options.tools, must, parallel=options.parallel)
        return grammar.either(calls, form) if options.choice.kind == "auto" else calls
    return form


def _json_schema(schema: Schema) -> dict[str, Any]:
    name = str(schema.get("title") or "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def _native_tools(options: Options, server: Server) -> dict[str, Any]:
    if not options.tools or not server.profile.native_tools:
        return {}
    names = {"any": "required", "auto": "auto", "none": "none"}
    named = {"type": "function", "function": {"name": options.choice.name}}
    return {
        "tools": [{"type": "function", "function": dict(tool)} for tool in options.tools],
        "tool_choice": names.get(options.choice.kind, named),
        **({} if options.parallel else {"parallel_tool_calls": False}),
    }


def _fitted(payload: dict[str, Any], server: Server, first: int) -> Steps[dict[str, Any]]:
    """The payload with `max_tokens` lowered to what the context leaves.

    Args:
        payload: The request.
        server: Whom it is for.
        first: Tokens of output that the first of two requests asks for; 0: there is one alone.
    """
    limit = server.abilities.context_tokens or server.profile.context_tokens
    wanted = max(payload.get("max_tokens") or first, _LEAST_OUTPUT)
    tools = dumps(payload.get("tools", "")).encode()
    length = counting.upper_bound(payload["messages"]) + len(tools) + _EXTRA_TURN
    if length + wanted <= limit or not server.abilities.is_vllm:
        return payload
    try:
        length = yield from count(payload, server)
    except UnsupportedByServerError:
        return payload  # the server itself will tell if it is too long
    left = limit - length
    if left < _LEAST_OUTPUT:
        raise ContextLengthError(
            f"the conversation has {length} tokens and {server.model!r} takes {limit} with the "
            "answer: shorten it, or send fewer or smaller pictures"
        )
    return payload if wanted <= left else {**payload, "max_tokens": left}


def count(payload: Mapping[str, Any], server: Server) -> Steps[int]:
    """Tokens of a request's prompt as the server counts them; pictures are not uploaded.

    Raises:
        UnsupportedByServerError: The server does not count.
    """
    masked, pictures = counting.masked(payload["messages"])
    fields = {**payload, **payload["extra_body"]}
    shaping = {name: fields[name] for name in _SHAPING if name in fields}
    reply = None
    if server.abilities.is_vllm:
        question = {"model": server.model, "messages": masked, **shaping}
        reply = yield Question("/tokenize", question)
    if reply is None or not isinstance(reply.get("count"), int):
        raise UnsupportedByServerError("this server does not count tokens (no /tokenize, as vLLM)")
    return int(reply["count"]) + pictures


def _accepted(
    payload: dict[str, Any], host: Host | None, always: Collection[str]
) -> dict[str, Any]:
    """The payload without what a known service refuses."""
    if host is None:
        return payload
    kept = {name: value for name, value in payload.items() if name not in host.refuses}
    accepted = {*host.accepts, *always}
    body = {name: value for name, value in payload["extra_body"].items() if name in accepted}
    return {**kept, "extra_body": body}


def without(refusal: str, attempt: Plan) -> Abilities | None:
    """What the server can do, now that it has refused a request; None if that tells nothing.

    Args:
        refusal: What it said.
        attempt: What it refused.
    """
    abilities = attempt.abilities
    text = refusal.lower()
    if "thinking_token_budget" in text and abilities.budget:
        return replace(abilities, budget=False)
    if "media_io_kwargs" in text and abilities.frames:
        return replace(abilities, frames=False)
    if found := _MEDIUM_TOO_LARGE.search(text):
        most = int(found[1])
        # No less than all media can be made small enough for.
        if LEAST_STEP_TOKENS <= most < (abilities.medium_tokens or math.inf):
            return replace(abilities, medium_tokens=most)
        return None
    said = ("structural", "response_format", "grammar", "guided", "structured")
    new = attempt.grammar and attempt.grammar not in abilities.refused
    if new and any(word in text for word in said):
        return replace(abilities, refused=abilities.refused | {attempt.grammar})
    return None
