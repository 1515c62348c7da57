"""A chat server that answers at once, to measure what the clients themselves cost.

    python benchmarks/stub_server.py

Prints its port and the number of events of a stream, and serves until its standard input ends.
Every request for a chat completion gets the same output: whole, or event by event, each event in an
HTTP chunk of its own. All else is not found.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

SENTENCES = 10  # the output then has about the length of a short thinking answer, 0.8 KB
THOUGHT = "The receipt lists five items; the line at the bottom says 42.50. "
RAW = (
    f"<think>{THOUGHT * SENTENCES}</think>\n"
    f"<answer>The total is <|begin_of_box|>42.50<|end_of_box|> euros."
)
TOKENS = re.findall(r"<[^>]*>|\s?\w+|.", RAW, re.DOTALL)  # about as a tokenizer cuts it
EVENTS = len(TOKENS) + 3  # the role in front; the finish reason and the usage behind
USAGE = {
    "prompt_tokens": 900,
    "completion_tokens": len(TOKENS),
    "total_tokens": 900 + len(TOKENS),
    "prompt_tokens_details": None,
}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
ENDING = {"finish_reason": "stop", "stop_reason": 151348}


def reply(kind: str, **fields: Any) -> dict[str, Any]:
    """A reply or event as vLLM writes it."""
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "glm", **fields}


def completion() -> bytes:
    """The response with the whole output."""
    message = {"role": "assistant", "content": RAW, "refusal": None, "reasoning": None}
    choice = {"index": 0, "message": {**message, "tool_calls": []}, "logprobs": None, **ENDING}
    body = json.dumps(reply("chat.completion", choices=[choice], usage=USAGE)).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def events() -> Iterator[bytes]:
    """The response event by event."""
    yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    yield b"transfer-encoding: chunked\r\n\r\n"
    unfinished = {"logprobs": None, "finish_reason": None}
    choices: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}, **unfinished}]
    choices += [{"delta": {"content": token}, **unfinished} for token in TOKENS]
    choices += [{"delta": {"content": ""}, "logprobs": None, **ENDING}]
    for choice in choices:
        yield event(reply("chat.completion.chunk", choices=[{"index": 0, **choice}]))
    yield event(reply("chat.completion.chunk", choices=[], usage=USAGE))
    yield http_chunk(b"data: [DONE]\n\n") + http_chunk(b"")


def event(data: object) -> bytes:
    """One server-sent event."""
    return http_chunk(f"data: {json.dumps(data)}\n\n".encode())


def http_chunk(body: bytes) -> bytes:
    """One piece of a response of unknown length."""
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer all requests of one connection."""
    whole, pieces = completion(), list(events())
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if b"/chat/completions " not in head:
                writer.write(NOT_FOUND)
            elif b'"stream":true' in body.replace(b": ", b":"):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            else:
                writer.write(whole)
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve until standard input ends."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], EVENTS, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
