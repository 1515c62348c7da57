"""Translates messages of `ChatGLM4V` into LangChain's standard (v1) content blocks.

Importing this module registers the translator under `PROVIDER`, the value of
`response_metadata["model_provider"]` in every message of ours.
"""

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages import content as types
from langchain_core.messages.block_translators import register_translator

PROVIDER = "glm4v"


def translate_content(message: AIMessage) -> list[types.ContentBlock]:
    """Translate a message: reasoning first, then the answer, then tool calls."""
    blocks = _reasoning_and_text(message)
    present = {block.get("id") for block in blocks if block["type"] == "tool_call"}
    blocks += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "args": call["args"]}
        for call in message.tool_calls
        if call["id"] not in present
    ]
    return cast("list[types.ContentBlock]", blocks)


def translate_content_chunk(message: AIMessageChunk) -> list[types.ContentBlock]:
    """Translate a chunk of a stream; the joined-up last chunk is translated as a message."""
    if message.chunk_position == "last":
        return translate_content(message)
    blocks = _reasoning_and_text(message)
    # LangChain numbers blocks by change of type and joins blocks of equal number, so the server's
    # own numbers of tool calls, which start at 0 too, would be joined with the reasoning. Names
    # keep them apart.
    blocks += [
        {
            "type": "tool_call_chunk",
            "id": call["id"],
            "name": call["name"],
            "args": call["args"],
            "index": f"lc_tc_{call['index']}",
        }
        for call in message.tool_call_chunks
    ]
    return cast("list[types.ContentBlock]", blocks)


def _reasoning_and_text(message: AIMessage) -> list[dict[str, Any]]:
    content = [message.content] if isinstance(message.content, str) else message.content
    blocks = [
        {"type": "text", "text": block} if isinstance(block, str) else block
        for block in content
        if block
    ]
    reasoning = message.additional_kwargs.get("reasoning_content")
    if reasoning and not any(block.get("type") == "reasoning" for block in blocks):
        blocks.insert(0, {"type": "reasoning", "reasoning": reasoning})
    return blocks


register_translator(PROVIDER, translate_content, translate_content_chunk)
