"""Replies of a server, whole and event by event, as messages."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_glm4v.abilities import Abilities
from langchain_glm4v.calls import RunningStream
from langchain_glm4v.errors import ReplyError
from langchain_glm4v.replies import Reading, StreamReader, read_completion
from langchain_glm4v.request import Plan
from langchain_glm4v.tool_protocol import call

RAW = "<think>I look.</think>\n<answer>It is <|begin_of_box|>42<|end_of_box|>."
STOP: dict[str, Any] = {"finish_reason": "stop", "stop_reason": 151348}
LENGTH: dict[str, Any] = {"finish_reason": "length"}
USAGE: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 70, "total_tokens": 75}
ORIGIN = {"id": "chatcmpl-1", "model": "served", "system_fingerprint": "fp"}
PLAIN, CALLS = Reading(), Reading(calls=True)
CALL = call("add", {"a": 1, "b": [{"c": 'x"}\\'}]})


def completion(*messages: Mapping[str, Any], ending: Mapping[str, Any] = STOP) -> dict[str, Any]:
    choices = [
        {"index": index, "message": {"role": "assistant", **message}, **ending}
        for index, message in enumerate(messages)
    ]
    return {**ORIGIN, "choices": choices, "usage": USAGE}


def event(delta: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {**ORIGIN, "choices": [{"index": 0, "delta": delta, **fields}]}


def stream(
    deltas: Iterable[Mapping[str, Any]], ending: Mapping[str, Any] = STOP
) -> Iterator[dict[str, Any]]:
    """The events of a stream as vLLM sends them."""
    yield event({"role": "assistant", "content": ""})
    for delta in deltas:
        yield event(delta, finish_reason=None)
    yield event({"content": ""}, **ending)
    yield {**ORIGIN, "choices": [], "usage": USAGE}


def chunked(text: str, cuts: Iterable[int]) -> list[dict[str, Any]]:
    edges = [0, *sorted(at % (len(text) + 1) for at in cuts), len(text)]
    return [{"content": text[start:end]} for start, end in pairwise(edges)]


def whole(response: dict[str, Any], reading: Reading = PLAIN) -> AIMessage:
    """The message as LangChain passes it on."""
    result = read_completion(response, reading)
    (generation,) = result.generations
    message = generation.message
    assert isinstance(message, AIMessage)
    message.response_metadata = {
        **(result.llm_output or {}),
        **(generation.generation_info or {}),
        **message.response_metadata,
    }
    return message


def chunks(events: Iterable[dict[str, Any]], reading: Reading = PLAIN) -> list[AIMessageChunk]:
    """The chunks as LangChain passes them on."""
    reader = StreamReader(reading)
    generations = [chunk for each in events if (chunk := reader.read(each)) is not None]
    generations += reader.rest()
    assert reader.rest() == []
    found = []
    for generation in generations:
        message = generation.message
        assert isinstance(message, AIMessageChunk)
        message.response_metadata = {
            **(generation.generation_info or {}),
            **message.response_metadata,
        }
        found.append(message)
    return found


def added(found: list[AIMessageChunk]) -> AIMessageChunk:
    return found[0] + found[1:]


def both_ways(
    text: str, reading: Reading = PLAIN, ending: Mapping[str, Any] = STOP
) -> list[AIMessage]:
    """The message of an output, whole, character by character, and in one event."""
    return [
        whole(completion({"content": text}, ending=ending), reading),
        added(chunks(stream(chunked(text, range(len(text))), ending), reading)),
        added(chunks(stream([{"content": text}], ending), reading)),
    ]


def test_everything_that_the_server_says() -> None:
    for message in both_ways(RAW):
        assert message.text == "It is 42."
        assert message.additional_kwargs == {"reasoning_content": "I look.", "boxes": ["42"]}
        assert message.usage_metadata is not None
        assert message.usage_metadata["input_tokens"] == 5
        assert message.usage_metadata["output_tokens"] == 70
        metadata = {**message.response_metadata}
        metadata.pop("token_usage", None)
        assert metadata == {
            "id": "chatcmpl-1",
            "model_name": "served",
            "model_provider": "glm4v",
            "system_fingerprint": "fp",
            "reasoning_tokens": "estimated",
            **STOP,
        }


def test_headers_are_told_once() -> None:
    headers = {"x-request-id": "1"}
    result = read_completion(completion({"content": RAW}), PLAIN, headers=headers)
    reader = StreamReader(PLAIN, headers=headers)
    read = [reader.read(each) for each in stream([{"content": RAW}])]
    infos = [(chunk and chunk.generation_info) or {} for chunk in read]

    assert (result.generations[0].generation_info or {})["headers"] == headers
    assert [info["headers"] for info in infos if "headers" in info] == [headers]


def test_log_probabilities() -> None:
    first, second = ({"content": [{"token": token, "logprob": -0.5}]} for token in "ab")
    response = completion({"content": "ab"})
    response["choices"][0]["logprobs"] = first
    events = [event({"content": "a"}, logprobs=first), event({"content": "b"}, logprobs=second)]

    assert whole(response).response_metadata["logprobs"] == first
    assert added(chunks([*events, event({}, **STOP)])).response_metadata["logprobs"] == {
        "content": [*first["content"], *second["content"]]
    }


def test_several_choices_keep_apart() -> None:
    response = completion({"content": "<think>a</think><answer>b"}, {"content": "c"})
    response["choices"][1]["finish_reason"] = "length"
    one, two = read_completion(response, PLAIN).generations

    assert (one.text, two.text) == ("b", "c")
    assert "reasoning_content" not in two.message.additional_kwargs
    infos = [generation.generation_info or {} for generation in (one, two)]
    assert [info["finish_reason"] for info in infos] == ["stop", "length"]


@pytest.mark.parametrize("content", [None, "", []])
def test_a_message_without_text(content: object) -> None:
    assert whole(completion({"content": content})).text == ""
    assert added(chunks(stream([{"content": content}]))).text == ""


def test_text_in_parts() -> None:
    parts = [{"type": "text", "text": "<think>a</think>"}, {"type": "text", "text": "b"}]

    assert whole(completion({"content": parts})).text == "b"


def test_a_beginning_that_the_prompt_holds() -> None:
    for given_text in ("<think></think>", "<think>thought so far"):
        closed = "</think>" * ("so far" in given_text)
        for message in both_ways(f" and on{closed}<answer>c", Reading(given=given_text)):
            assert message.text == "c"
            assert "so far" not in str(message.additional_kwargs)

    message = both_ways("b", Reading(given="<think></think>", eager=True))[0]
    assert (message.text, message.additional_kwargs) == ("b", {})


def test_strict_reading_takes_the_answer_as_it_stands() -> None:
    answer = '{"html": "</answer><think>\\n<|begin_of_box|> "} '
    for message in both_ways(f"<think>a</think><answer>{answer}", Reading(strict=True)):
        assert message.text == answer
        assert message.additional_kwargs == {"reasoning_content": "a"}


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_server_that_splits_by_itself(field: str) -> None:
    events = stream([{field: "I "}, {field: "look."}, {"content": "It "}, {"content": "is 42."}])
    found = chunks(events, CALLS)

    for message in (
        whole(completion({field: "I look.", "content": "It is 42."}), CALLS),
        added(found),
    ):
        assert message.text == "It is 42."
        assert message.additional_kwargs == {"reasoning_content": "I look."}
    assert [chunk.text for chunk in found if chunk.text] == ["It", " is 42."]


def test_events_that_say_nothing_make_no_chunk() -> None:
    reader = StreamReader(PLAIN)

    assert reader.read(event({"role": "assistant", "content": ""})) is None
    assert reader.read(event({"content": "<thi"})) is None
    assert reader.read({"choices": [{"delta": None}]}) is None
    assert reader.read({}) is None


def test_behind_a_parser_a_bound_answer_is_read_word_for_word() -> None:
    message = {"reasoning": "I look.", "content": '\n<answer>{"a":"x </answer> y"}'}
    response = {"choices": [{"message": message, **STOP}]}
    (generation,) = read_completion(response, Reading(strict=True)).generations

    assert generation.text == '{"a":"x </answer> y"}'
    assert generation.message.additional_kwargs["reasoning_content"] == "I look."


def test_content_in_parts_is_watched_too() -> None:
    parts = [{"type": "text", "text": "Hello"}]
    running = RunningStream(Plan({}, Reading(), Abilities(), watched=True), None)
    chunks = running.read({"choices": [{"index": 0, "delta": {"content": parts}}]})
    chunks += running.read({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})

    assert "".join(chunk.text for chunk in chunks) == "Hello"


def test_a_stream_that_breaks_off_loses_nothing() -> None:
    events = [event({"content": "<think>a</think>perhaps"}), {"choices": [], "usage": USAGE}]
    message = added(chunks(events))

    assert message.text == "perhaps"
    assert message.usage_metadata is not None


@pytest.mark.parametrize("events", [[], [{"choices": []}], [{"event": "error", "detail": "full"}]])
def test_a_stream_without_anything_is_an_error(events: list[dict[str, Any]]) -> None:
    with pytest.raises(ReplyError, match="ended before anything of an answer came"):
        chunks(events)


# Tokens of the reasoning


def reasoning_tokens(message: AIMessage) -> int | None:
    assert message.usage_metadata is not None
    return message.usage_metadata.get("output_token_details", {}).get("reasoning")


def test_reasoning_tokens_are_estimated_by_their_share_of_bytes() -> None:
    for message in both_ways("<think>äöü1</think><answer>" + "b" * 24):  # 7 of 56 bytes
        assert message.response_metadata["reasoning_tokens"] == "estimated"
        assert reasoning_tokens(message) == round(70 * 7 / 54)


def test_reasoning_tokens_that_the_server_counts() -> None:
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 3}}
    response = {**completion({"content": RAW}), "usage": usage}
    events = [*list(stream([{"content": RAW}]))[:-1], {"choices": [], "usage": usage}]

    for message in (whole(response), added(chunks(events))):
        assert reasoning_tokens(message) == 3
        assert "reasoning_tokens" not in message.response_metadata


def test_a_zero_beside_reasoning_is_no_count() -> None:
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 0}}

    assert reasoning_tokens(whole({**completion({"content": RAW}), "usage": usage}))


def test_no_reasoning_no_tokens() -> None:
    for message in both_ways("It is 42."):
        assert reasoning_tokens(message) is None
        assert "reasoning_tokens" not in message.response_metadata


@pytest.mark.parametrize("where", ["every event", "last choice", "after it, twice"])
def test_usage_counts_once(where: str) -> None:
    events = list(stream([{"content": "a"}, {"content": "b"}]))
    match where:
        case "every event":
            events = [{**each, "usage": USAGE} for each in events]
        case "last choice":
            events = [*events[:-2], {**events[-2], "usage": USAGE}]
        case _:
            events.append(events[-1])
    message = added(chunks(events))

    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 70


# Tool calls


def native(arguments: str | None, **fields: Any) -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return {"id": "call-1", "type": "function", "index": 0, "function": function, **fields}


def test_native_calls() -> None:
    message = {"content": "", "reasoning": "I add.", "tool_calls": [native('{"a": 1}')]}
    pieces: list[dict[str, Any]] = [
        {"reasoning": "I add."},
        {"tool_calls": [native('{"a"')]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]

    for read in (whole(completion(message)), added(chunks(stream(pieces)))):
        assert [(each["name"], each["args"], each["id"]) for each in read.tool_calls] == [
            ("add", {"a": 1}, "call-1")
        ]
        assert read.additional_kwargs == {"reasoning_content": "I add."}


@pytest.mark.parametrize("arguments", [None, "", "{}"])
def test_a_native_call_without_arguments(arguments: str | None) -> None:
    (found,) = whole(completion({"tool_calls": [native(arguments)]})).tool_calls

    assert found["args"] == {}


@pytest.mark.parametrize("arguments", ["[1]", '{"a": ', "no"])
def test_a_native_call_with_broken_arguments(arguments: str) -> None:
    message = whole(completion({"tool_calls": [native(arguments)]}, ending=LENGTH))

    (found,) = message.invalid_tool_calls
    assert (found["name"], found["args"], found["id"]) == ("add", arguments, "call-1")
    assert "max_tokens" in (found["error"] or "")
    assert message.tool_calls == []


@given(st.data())
def test_a_native_call_that_is_cut_off_is_never_offered(data: st.DataObject) -> None:
    arguments = json.dumps(data.draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)))
    kept = arguments[: data.draw(st.integers(1, len(arguments) - 1))]
    pieces = [{"tool_calls": [native(None)]}] + [
        {"tool_calls": [{"index": 0, "function": {"arguments": each}}]} for each in kept
    ]
    for events in (
        stream(pieces, LENGTH),
        stream([{"tool_calls": [native(kept)]}], LENGTH),
        [event({"tool_calls": [native(kept)]}, **LENGTH)],
        [event({"tool_calls": [native(kept)]})],  # broken off
    ):
        message = added(chunks(events))
        assert message.tool_calls == []
        (found,) = message.invalid_tool_calls
        assert (found["name"], found["id"]) == ("add", "call-1")


def test_native_calls_that_are_whole_stay_beside_one_cut_off() -> None:
    calls = [
        native('{"a": 1}'),
        native('{"paths": ["/tmp/a", "/"', index=1, id="call-2"),
        native("", index=2, id="call-3"),
        native('{"a": 4}', id="call-4"),  # some hosts give every call the index 0
        native('{"a": ', id="call-5"),
    ]
    for deltas in ([{"tool_calls": calls}], [{"tool_calls": [each]} for each in calls]):
        for events in (stream(deltas, LENGTH), [event(each) for each in deltas]):
            message = added(chunks(events))
            assert [(each["id"], each["args"]) for each in message.tool_calls] == [
                ("call-1", {"a": 1}),
                ("call-3", {}),
                ("call-4", {"a": 4}),
            ]
            assert [each["id"] for each in message.invalid_tool_calls] == ["call-2", "call-5"]


def test_calls_of_the_protocol() -> None:
    text = f"<think>I add.</think><answer>I call.\n{CALL}\n{call('sub', {})}"
    for message in both_ways(text, CALLS):
        assert message.text == "I call."
        assert [(each["name"], each["args"]) for each in message.tool_calls] == [
            ("add", {"a": 1, "b": [{"c": 'x"}\\'}]}),
            ("sub", {}),
        ]
        identifiers = [each["id"] for each in message.tool_calls]
        assert all(identifiers)
        assert len(set(identifiers)) == 2
        assert message.invalid_tool_calls == []


def test_without_asking_for_them_calls_stay_text() -> None:
    for message in both_ways(f"<answer>{CALL}"):
        assert (message.text, message.tool_calls) == (CALL, [])


def test_a_bare_call() -> None:
    text = '<answer>{"name": "add", "arguments": {"a": 1}}'
    for message in both_ways(text, Reading(calls=True, bare_calls=True)):
        assert [(each["name"], each["args"]) for each in message.tool_calls] == [("add", {"a": 1})]
        assert message.text == ""


def test_calls_stream() -> None:
    found = chunks(stream(chunked(f"<answer>{CALL}", range(200))), CALLS)
    pieces = [piece for chunk in found for piece in chunk.tool_call_chunks]

    assert len(pieces) > 10
    assert [piece["name"] for piece in pieces] == ["add"] + [None] * (len(pieces) - 1)
    assert pieces[0]["id"]
    assert {piece["index"] for piece in pieces} == {0}


@given(st.data())
def test_a_call_that_is_cut_off_or_broken_is_never_offered(data: st.DataObject) -> None:
    arguments = json.dumps(data.draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)))
    kept = data.draw(st.integers(0, len(arguments) - 1))
    tail = data.draw(st.sampled_from(["", "</tool_call>"])) if kept else ""
    text = f'<answer><tool_call>{{"name":"add","arguments":{arguments[:kept]}{tail}'

    for message in both_ways(text, CALLS, LENGTH):
        assert message.tool_calls == []
        assert len(message.invalid_tool_calls) == 1


@pytest.mark.parametrize(
    "content", ["", "no JSON", '{"name":3}', '{"arguments":{}}', '{"name":"","arguments":{}}']
)
def test_what_is_no_call_is_an_invalid_one(content: str) -> None:
    for message in both_ways(f"<answer><tool_call>{content}</tool_call>{CALL}", CALLS):
        assert len(message.invalid_tool_calls) == 1
        assert [each["name"] for each in message.tool_calls] == ["add"]


# Anything at all

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FRAGMENTS = st.sampled_from(
    [
        *("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
        *("<tool_call>", "</tool_call>", CALL, '{"name":"add","arguments":', "{", "}", '"', "\\"),
        *("<", "</", "<tool_", " ", "\n", "word", "字"),
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3), max_size=16).map("".join)
READINGS = st.builds(
    Reading,
    given=st.sampled_from(["", "<think></think>", "<think>"]),
    eager=st.booleans(),
    strict=st.booleans(),
    calls=st.booleans(),
    bare_calls=st.booleans(),
)


@given(TEXTS, st.lists(st.integers(0, 500), max_size=20), READINGS)
def test_a_stream_adds_up_to_the_whole(text: str, cuts: list[int], reading: Reading) -> None:
    one = whole(completion({"content": text}), reading)
    other = added(chunks(stream(chunked(text, cuts)), reading))

    assert other.text == one.text
    assert other.additional_kwargs == one.additional_kwargs
    assert other.usage_metadata == one.usage_metadata
    assert [(each["name"], each["args"]) for each in other.tool_calls] == [
        (each["name"], each["args"]) for each in one.tool_calls
    ]
    assert [each["name"] for each in other.invalid_tool_calls] == [
        each["name"] for each in one.invalid_tool_calls
    ]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from paths(inner, (*path, key))


def spoilt(reply: dict[str, Any], path: tuple[Any, ...], value: Any) -> Any:
    """`reply` with something else at one place."""
    if not path:
        return value
    found = copy.deepcopy(reply)
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


CALLING = {"content": RAW, "tool_calls": [native("{}")]}
COMPLETION = {
    **completion(CALLING),
    "usage": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 3}},
}
EVENT = {**event({**CALLING, "reasoning": "a"}, logprobs={}, **STOP), "usage": USAGE}


@given(st.sampled_from(list(paths(COMPLETION))), JSON, READINGS)
def test_a_misshapen_completion(path: tuple[Any, ...], value: Any, reading: Reading) -> None:
    with suppress(ReplyError):
        read_completion(spoilt(COMPLETION, path, value), reading)


@given(st.lists(st.tuples(st.sampled_from(list(paths(EVENT))), JSON), max_size=4), READINGS)
def test_misshapen_events(changes: list[tuple[tuple[Any, ...], Any]], reading: Reading) -> None:
    reader = StreamReader(reading)
    with suppress(ReplyError):
        for path, value in changes:
            reader.read(spoilt(EVENT, path, value))
        reader.rest()


@pytest.mark.parametrize(
    "response", [{}, {"choices": None}, {"choices": []}, {"object": "error"}, {"choices": [{}]}]
)
def test_no_completion(response: dict[str, Any]) -> None:
    with pytest.raises(ReplyError, match=r"^the server sent no chat\.completion .*base_url"):
        read_completion(response, PLAIN)


def test_no_event() -> None:
    with pytest.raises(ReplyError, match=r"^the server sent no chat\.completion\.chunk .*base_url"):
        StreamReader(PLAIN).read({"choices": {"0": "a"}})


def test_an_error_is_one_line() -> None:
    usage = {**USAGE, "prompt_tokens": "many"}
    with pytest.raises(ReplyError, match=r"\A[^\n]*\Z"):
        read_completion({**completion({"content": "a"}), "usage": usage}, PLAIN)


def test_megabytes() -> None:
    thought, answer = "word < " * 150_000, "{" * 1_000_000
    text = f"<think>{thought}</think><answer>{answer}"
    for reading in (PLAIN, CALLS):
        message = added(chunks(stream(chunked(text, range(0, len(text), 10_000))), reading))
        assert message.text == answer
        assert message.additional_kwargs["reasoning_content"] == thought.strip()
