"""The standard content blocks of messages and chunks."""

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call, tool_call_chunk

from langchain_glm4v.content_blocks import PROVIDER

OURS = {"model_provider": PROVIDER}


def test_reasoning_comes_before_the_answer_and_tool_calls_after() -> None:
    message = AIMessage(
        "42",
        additional_kwargs={"reasoning_content": "Let me see."},
        tool_calls=[tool_call(name="add", args={"a": 1}, id="call-1")],
        response_metadata=OURS,
    )

    assert message.content_blocks == [
        {"type": "reasoning", "reasoning": "Let me see."},
        {"type": "text", "text": "42"},
        {"type": "tool_call", "id": "call-1", "name": "add", "args": {"a": 1}},
    ]


def test_blocks_stay_as_they_are() -> None:
    blocks: list[str | dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "Let me see."},
        {"type": "text", "text": "42"},
        {"type": "tool_call", "id": "call-1", "name": "add", "args": {}},
    ]
    message = AIMessage(
        [*blocks, "and more"],
        additional_kwargs={"reasoning_content": "Let me see."},
        tool_calls=[tool_call(name="add", args={}, id="call-1")],
        response_metadata=OURS,
    )

    assert message.content_blocks == [*blocks, {"type": "text", "text": "and more"}]


def test_an_empty_message_has_no_blocks() -> None:
    assert AIMessage("", response_metadata=OURS).content_blocks == []
    assert AIMessageChunk(content="", response_metadata=OURS).content_blocks == []


def test_tool_calls_survive_reasoning_in_a_stream() -> None:
    chunks = [
        AIMessageChunk(
            content="", additional_kwargs={"reasoning_content": "I add."}, response_metadata=OURS
        ),
        AIMessageChunk(
            content="",
            tool_call_chunks=[tool_call_chunk(name="add", args="", id="call-1", index=0)],
            response_metadata=OURS,
        ),
        AIMessageChunk(
            content="",
            tool_call_chunks=[tool_call_chunk(args='{"a": 1}', index=0)],
            response_metadata=OURS,
            chunk_position="last",
        ),
    ]

    assert chunks[1].content_blocks == [
        {"type": "tool_call_chunk", "id": "call-1", "name": "add", "args": "", "index": "lc_tc_0"}
    ]
    whole = chunks[0] + chunks[1] + chunks[2]
    assert whole.content_blocks == [
        {"type": "reasoning", "reasoning": "I add."},
        {"type": "tool_call", "id": "call-1", "name": "add", "args": {"a": 1}},
    ]
