"""Calls of several requests, and streams that are ended, through `ChatGLM4V`."""

import asyncio
import base64
import io
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import httpx
import openai
import pymupdf
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from PIL import Image

from langchain_glm4v import ChatGLM4V, question_about
from langchain_glm4v.abilities import Answer, Question
from langchain_glm4v.errors import MediaError, ReplyError
from langchain_glm4v.media.budget import image_tokens, video_tokens

Ask = Callable[[Question], Answer]
Body = dict[str, Any]

NO_BUDGET = "thinking_token_budget is set but reasoning_config is not configured."
NO_GRAMMAR = "Invalid response_format structural_tag specification"


async def in_every_way(model: ChatGLM4V, **options: Any) -> list[AIMessage]:
    return [
        model.invoke("Hi", **options),
        await model.ainvoke("Hi", **options),
        add_ai_message_chunks(*model.stream("Hi", **options)),
        add_ai_message_chunks(*[c async for c in model.astream("Hi", **options)]),
    ]


# --- a budget in two rounds ---

WORDS = "I look very hard at it now."
TEXT = f"<think>{WORDS}</think>\n<answer>It is 42 euros."
TOKENS = 1 + 14 + 1 + 1 + 1 + 8


def refuses_budget(body: Body) -> str | None:
    return NO_BUDGET if "thinking_token_budget" in body else None


@pytest.mark.parametrize("budget", [*range(1, TOKENS + 2)])
async def test_every_budget_gives_thinking_and_the_whole_answer(
    writer: type[Any], vllm: Ask, budget: int
) -> None:
    server = writer(vllm, TEXT, refuses_budget)
    messages = await in_every_way(server.model(), thinking_budget=budget)

    for message in messages:
        assert message.text == "It is 42 euros."
        kept = "".join(re.findall(r"\w+|\W", WORDS)[:budget]).strip()
        assert message.additional_kwargs["reasoning_content"] == kept
        assert message.response_metadata["finish_reason"] == "stop"
        assert message.usage_metadata == messages[0].usage_metadata
    # The refusal is noted: it comes once.
    assert sum("thinking_token_budget" in body for body in server.bodies) == 1
    rounds = 1 if budget + 1 >= TOKENS else 2
    assert len(server.bodies) == 1 + 4 * rounds
    usage = messages[0].usage_metadata
    assert usage is not None
    assert usage["input_tokens"] == 5 * rounds
    # Behind a thinking that was ended by force, the model need not write the tags.
    forced = budget <= 14
    assert usage["output_tokens"] == (budget + 1 + 8 if forced else TOKENS)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_the_two_requests(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, TEXT, refuses_budget)
    server.model().invoke("Hi", thinking_budget=3, max_tokens=20, temperature=0.5, stop=["x"])
    _, one, two = server.bodies

    assert (one["max_tokens"], two["max_tokens"]) == (4, 16)
    assert two["messages"] == [
        *one["messages"],
        {"role": "assistant", "content": "<think>I look</think><answer>"},
    ]
    assert (two["continue_final_message"], two["add_generation_prompt"]) == (True, False)
    others = ("continue_final_message", "add_generation_prompt", "messages", "max_tokens")
    assert {name: value for name, value in two.items() if name not in others} == {
        name: value for name, value in one.items() if name not in others
    }


@pytest.mark.parametrize("max_tokens", [*range(1, TOKENS + 3)])
async def test_max_tokens_counts_for_both(writer: type[Any], vllm: Ask, max_tokens: int) -> None:
    server = writer(vllm, TEXT, refuses_budget)
    messages = await in_every_way(server.model(), thinking_budget=5, max_tokens=max_tokens)

    for message in messages:
        assert message.text == messages[0].text
        assert message.additional_kwargs == messages[0].additional_kwargs
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_tokens"] == min(max_tokens, 5 + 1 + 8)
        cut = max_tokens < 5 + 1 + 8
        assert message.response_metadata["finish_reason"] == ("length" if cut else "stop")
        assert "It is 42 euros.".startswith(message.text)


@pytest.mark.parametrize(
    "text",
    [
        "\n<think> I look.</think><answer>It is 42 euros.",
        "I look hard.</think><answer>It is 42 euros.",  # the opening tag may be in the prompt
        "<think></think><answer>It is 42 euros.",
    ],
)
async def test_other_shapes_in_two_rounds(writer: type[Any], vllm: Ask, text: str) -> None:
    for budget in range(1, 22):
        server = writer(vllm, text, refuses_budget)
        for message in await in_every_way(server.model(), thinking_budget=budget):
            assert message.text == "It is 42 euros."
            assert "<" not in str(message.additional_kwargs)


async def test_logprobs_of_both_rounds(writer: type[Any], vllm: Ask) -> None:
    class Sure(writer):  # type: ignore[misc]
        def reply(self, path: str, content: bytes) -> httpx.Response:
            response: httpx.Response = super().reply(path, content)
            reply = response.json()
            for choice in reply.get("choices", ()):
                choice["logprobs"] = {"content": [{"token": str(len(self.bodies))}]}
            return httpx.Response(response.status_code, json=reply)

    server = Sure(vllm, TEXT, refuses_budget)
    message = await server.model().ainvoke("Hi", thinking_budget=3)

    told = message.response_metadata["logprobs"]["content"]
    assert [entry["token"] for entry in told] == ["2", "3"]  # the first was refused


# --- media ---


async def test_media_are_read_beside_the_event_loop(
    writer: type[Any], vllm: Ask, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (56, 56)).save(picture)
    readers = []

    class Watched(PathLike[str]):
        def __fspath__(self) -> str:
            readers.append(threading.get_ident())
            return str(picture)

    model = writer(vllm, TEXT).model()
    question = HumanMessage([{"type": "image", "path": Watched()}])
    await model.ainvoke([question])
    async for _ in model.astream([question]):
        pass

    assert readers
    assert threading.get_ident() not in readers


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": [{"finish_reason": "length"}]},
        {"choices": ["x"]},
        {"choices": [{"finish_reason": "length", "message": {"content": 5}}]},
    ],
)
def test_a_misshapen_first_reply(writer: type[Any], vllm: Ask, reply: Body) -> None:
    class Strange(writer):  # type: ignore[misc]
        def reply(self, path: str, content: bytes) -> httpx.Response:
            response: httpx.Response = super().reply(path, content)
            written = response.status_code == 200 and "choices" in response.json()
            return httpx.Response(200, json=reply) if written else response

    model = Strange(vllm, TEXT, refuses_budget).model()
    with pytest.raises(ReplyError, match=r"sent no chat\.completion"):
        model.invoke("Hi", thinking_budget=3)


@pytest.mark.parametrize("choices", [[], None, [{"message": None}], ["x"]])
def test_a_misshapen_second_reply(writer: type[Any], vllm: Ask, choices: Any) -> None:
    class Strange(writer):  # type: ignore[misc]
        def reply(self, path: str, content: bytes) -> httpx.Response:
            response: httpx.Response = super().reply(path, content)
            again = b"continue_final_message" in content and path.endswith("/chat/completions")
            return httpx.Response(200, json={"choices": choices}) if again else response

    model = Strange(vllm, TEXT, refuses_budget).model()
    with pytest.raises(ReplyError, match=r"sent no chat\.completion"):
        model.invoke("Hi", thinking_budget=3)


@pytest.mark.parametrize("event", [5, ["x"], {"choices": ["x"]}, {"choices": {"a": 1}}])
@pytest.mark.parametrize("options", [{}, {"thinking_budget": 3}, {"model": "other"}])
def test_misshapen_events(
    writer: type[Any], vllm: Ask, event: Any, options: dict[str, Any]
) -> None:
    class Strange(writer):  # type: ignore[misc]
        def events(self, *_: Any) -> list[Any]:
            return [event]

    model = Strange(vllm, TEXT, refuses_budget).model()
    with pytest.raises(ReplyError, match=r"sent no chat\.completion\.chunk"):
        list(model.stream("Hi", **options))


async def test_many_calls_at_once_learn_the_same(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, TEXT, refuses_budget)
    model = server.model()
    messages = await asyncio.gather(*[model.ainvoke("Hi", thinking_budget=3) for _ in range(8)])

    assert {message.text for message in messages} == {"It is 42 euros."}


# --- a parser ---


def parsed(text: str) -> Body:
    """What vLLM's reasoning parser makes of a text: without a closing tag, all is reasoning."""
    thought, end, answer = text.removeprefix("<think>").partition("</think>")
    return {"reasoning": thought or None, "content": answer or None if end else None}


def parsing(writer: type[Any]) -> type[Any]:
    class Parsing(writer):  # type: ignore[misc]
        def reply(self, path: str, content: bytes) -> httpx.Response:
            response: httpx.Response = super().reply(path, content)
            if response.headers["content-type"] != "application/json":
                return response
            reply = response.json()
            for choice in reply.get("choices", ()):
                choice["message"] |= parsed(choice["message"]["content"])
            return httpx.Response(response.status_code, json=reply)

    return Parsing


def test_thinking_off_behind_a_parser(writer: type[Any], vllm: Ask) -> None:
    model = parsing(writer)(vllm, "<think></think><answer>It is 42 euros.").model()
    message = model.invoke("Hi", thinking="off")

    assert message.text == "It is 42 euros."
    assert "reasoning_content" not in message.additional_kwargs


@pytest.mark.parametrize("budget", [3, 7, 14, 20])
def test_a_budget_in_two_rounds_behind_a_parser(writer: type[Any], vllm: Ask, budget: int) -> None:
    plain = writer(vllm, TEXT, refuses_budget).model()
    behind = parsing(writer)(vllm, TEXT, refuses_budget).model()
    expected = plain.invoke("Hi", thinking_budget=budget)
    message = behind.invoke("Hi", thinking_budget=budget)

    assert message.text == expected.text == "It is 42 euros."
    assert message.additional_kwargs == expected.additional_kwargs


async def test_a_parser_is_looked_for_once_and_only_for_an_answer_with_a_form(
    writer: type[Any], vllm: Any
) -> None:
    model = writer(vllm, JSON).model()
    await in_every_way(model)
    assert probes(vllm) == 0
    await in_every_way(model, response_format=SCHEMA)
    assert probes(vllm) == 1


def probes(vllm: Any) -> int:
    return [question.path for question in vllm.asked].count("/v1/chat/completions")


# --- refusals ---

SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "title": "A"}}}
JSON = '<think>I look.</think><answer>{"a":1}'


async def test_a_refused_grammar_falls_back_to_words(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, JSON, lambda body: NO_GRAMMAR if "response_format" in body else None)
    model = server.model()
    with pytest.warns(UserWarning, match=f"refuses the grammar .* in words now.*{NO_GRAMMAR}"):
        messages = await in_every_way(model, response_format=SCHEMA)

    assert [message.text for message in messages] == ['{"a":1}'] * 4
    # Asked for in vain once, and then no more.
    assert ["response_format" in body for body in server.bodies] == [True, *[False] * 4]
    told = [body["messages"][0]["content"] for body in server.bodies]
    assert len(set(told)) == 1
    assert "# Format" in told[0]


def test_one_refused_schema_costs_no_other_its_grammar(writer: type[Any], vllm: Ask) -> None:
    def refuses(body: Body) -> str | None:
        return NO_GRAMMAR if "pattern" in str(body.get("response_format")) else None

    server = writer(vllm, JSON, refuses)
    model = server.model()
    bad = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}
    with pytest.warns(UserWarning, match="refuses the grammar"):
        model.invoke("Hi", response_format={"type": "json_schema", "json_schema": {"schema": bad}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.invoke("Hi", response_format=SCHEMA)

    assert ["response_format" in body for body in server.bodies] == [True, False, True]


async def test_a_grammar_and_then_a_budget_are_refused(writer: type[Any], vllm: Ask) -> None:
    def refuses(body: Body) -> str | None:
        return NO_GRAMMAR if "response_format" in body else refuses_budget(body)

    server = writer(vllm, '<think>I look hard at it.</think>\n<answer>{"a":1}', refuses)
    options = {"response_format": SCHEMA, "thinking_budget": 3}
    with pytest.warns(UserWarning, match="refuses the grammar"):
        messages = await in_every_way(server.model(), **options)

    assert [message.text for message in messages] == ['{"a":1}'] * 4
    assert {m.additional_kwargs["reasoning_content"] for m in messages} == {"I look"}


async def test_another_refusal_is_an_error_at_once(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, TEXT, lambda _: "temperature must be non-negative")
    model = server.model()
    for call in (model.invoke, lambda text: list(model.stream(text))):
        with pytest.raises(openai.BadRequestError, match="temperature must be"):
            call("Hi")
    with pytest.raises(openai.BadRequestError, match="temperature must be"):
        await model.ainvoke("Hi")

    assert len(server.bodies) == 3


# --- endless repetition ---


def no_vllm(_: Question) -> Answer:
    return None


LOOP = "<think>I look.</think><answer>" + "the same again and " * 5000


async def test_the_client_ends_a_stream_that_repeats_itself(writer: type[Any]) -> None:
    server = writer(no_vllm, LOOP)
    model = server.model()
    first = add_ai_message_chunks(*model.stream("Hi"))
    sent = server.sent
    second = add_ai_message_chunks(*[c async for c in model.astream("Hi")])

    for message in (first, second):
        assert message.response_metadata["finish_reason"] == "repetition"
        assert message.response_metadata["stop_reason"] == "repetition_detected"
        assert message.additional_kwargs["reasoning_content"] == "I look."
        assert len(message.text) < 2000
    assert sent < 1000
    assert server.sent < 2000


@pytest.mark.parametrize("options", [{"repetition_guard": False}, {}])
def test_streams_that_are_not_to_be_ended(
    writer: type[Any], vllm: Ask, options: Mapping[str, Any]
) -> None:
    server = writer(vllm if not options else no_vllm, LOOP[:4000])
    message = add_ai_message_chunks(*server.model().stream("Hi", **options))

    assert message.response_metadata["finish_reason"] == "stop"
    assert message.text == LOOP[:4000].partition("<answer>")[2].strip()
    # vLLM has a guard of its own.
    assert ("repetition_detection" in server.bodies[0]) is (not options)


# --- what is known of a server ---


async def test_a_server_is_asked_once(writer: type[Any], vllm: Any) -> None:
    server = writer(vllm, TEXT)
    await in_every_way(server.model())
    assert len(vllm.asked) == 4
    server.model(base_url="http://glm.invalid/v1").invoke("Hi")
    server.model(api_key="another").invoke("Hi")
    server.model().invoke("Hi", model="b")
    assert len(vllm.asked) == 16


def test_building_a_model_asks_nothing(writer: type[Any], vllm: Any) -> None:
    model = writer(vllm, TEXT).model(thinking="off", thinking_budget=5)
    model.bind_tools([{"name": "f", "description": "F."}], tool_choice="any")
    for method in ("json_schema", "json_mode", "function_calling"):
        model.with_structured_output({"title": "A", "type": "object"}, method=method)
    model.with_choices(["a", "b"])
    model.with_boxes()

    assert vllm.asked == []


def tokens_of(body: dict[str, Any]) -> list[int]:
    """Tokens of the pictures, or of the frames of the video, that a request has."""
    found = []
    for part in body["messages"][0]["content"][:-1]:
        if (shown_part := part[part["type"]]) is None:  # the server has it
            continue
        url = shown_part["url"]
        sizes = []
        for data in url.partition(",")[2].split(","):
            with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
                sizes.append(shown.size)
        video = part["type"] == "video_url"
        found.append(video_tokens(len(sizes), *sizes[0]) if video else image_tokens(*sizes[0]))
    return found


@pytest.fixture
def small_cache(vllm: Any, writer: Any) -> Any:
    """A server that takes 300 tokens of one medium, and says so as vLLM does."""

    def refuse(body: dict[str, Any]) -> str | None:
        too_large = [tokens for tokens in tokens_of(body) if tokens > 300]
        if not too_large:
            return None
        return (
            f"The decoder prompt contains a(n) image item with {too_large[0]} embedding tokens, "
            "which exceeds the pre-allocated encoder cache size 300. Please reduce the input size "
            "or increase the encoder cache size by setting --limit-mm-per-prompt at startup."
        )

    return writer(vllm, TEXT, refuse)


@pytest.mark.parametrize("kind", ["picture", "document", "video"])
def test_media_too_large_for_the_server(
    kind: str, small_cache: Any, large_film: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (700, 700)).save(picture)
    with pymupdf.open() as pdf:
        pdf.new_page(width=500, height=500)
        pdf.save(tmp_path / "a.pdf")
    media = {"picture": picture, "document": tmp_path / "a.pdf", "video": large_film}
    model = small_cache.model()
    for text in ("What is it?", "And who?"):
        assert model.invoke([question_about(text, media[kind])]).text == "It is 42 euros."

    refused, again, *_ = map(tokens_of, small_cache.bodies[:2])
    assert refused[0] > 300 >= again[0] > 100
    assert len(small_cache.bodies) == 3


async def test_media_too_large_for_the_server_of_an_async_call(
    small_cache: Any, large_film: Path
) -> None:
    reply = await small_cache.model().ainvoke([question_about("What?", large_film)])

    assert reply.text == "It is 42 euros."
    assert len(small_cache.bodies) == 2


def test_own_sizes_that_are_too_large_for_the_server(small_cache: Any, large_film: Path) -> None:
    model = small_cache.model()
    own = {"type": "video", "path": str(large_film), "max_tokens": 1000}
    for _ in range(2):
        with pytest.raises(MediaError, match="tokens, and the server takes 300 of one picture or"):
            model.invoke([question_about("What is it?", own)])
    assert len(small_cache.bodies) == 1  # by which the limit was learnt


def test_a_server_that_takes_almost_nothing(vllm: Any, writer: Any, large_film: Path) -> None:
    server = writer(vllm, TEXT, lambda _: "exceeds the pre-allocated encoder cache size 16.")
    with pytest.raises(openai.BadRequestError, match="cache size 16"):
        server.model().invoke([question_about("What is it?", large_film)])
    assert len(server.bodies) == 1


def test_a_server_that_is_not_told_seconds_gets_a_film(vllm: Any, writer: Any, film: Path) -> None:
    refusal = "Per-request media_io_kwargs are disabled by default because they can change …"
    server = writer(vllm, TEXT, lambda body: refusal if "media_io_kwargs" in body else None)
    model = server.model()

    for _ in range(2):
        model.invoke([HumanMessage([{"type": "video", "path": str(film)}, "What is it?"])])

    sent = [body["messages"][0]["content"][0]["video_url"] for body in server.bodies]
    assert [video and video["url"][:15] for video in sent] == [
        "data:video/jpeg",
        "data:video/mp4;",
        None,  # the server has it by now
    ]
