"""`glm4v ask` and `glm4v plan`."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, SystemMessage

from langchain_glm4v.cli.exits import CUT_OFF
from langchain_glm4v.cli.model import (
    add_allow_host,
    add_answering,
    add_model,
    answering,
    asked_model,
)
from langchain_glm4v.cli.terminal import dimmed, harmless, print_json, say
from langchain_glm4v.media_blocks import OPTIONS, Kind
from langchain_glm4v.media_plan import plan
from langchain_glm4v.preparation import Preparation, at_once

# What a medium is -> the type of its content block.
BLOCKS: Mapping[Kind, str] = {"picture": "image", "document": "file", "video": "video"}
# Option of media -> type, and how it is described.
MEDIA_FLAGS: Mapping[str, tuple[type, str]] = {
    "fps": (float, "of a video: frames taken in a second. Default: 2"),
    "num_frames": (int, "of a video: frames in all"),
    "start": (float, "of a video: second at which to begin"),
    "end": (float, "of a video: second at which to end"),
    "pages": (str, "of documents: such as 1,3,5-7"),
    "longest_side": (int, "of pictures and pages: pixels, at most"),
}
COMPLETE = ("stop", "tool_calls", None)  # reasons to finish


def _add_media(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of media")
    for name, (kind, described) in MEDIA_FLAGS.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=kind, help=described, metavar=name.upper())
    add_allow_host(group)


def _blocks(media: list[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The content block of each medium, with the options that are for its kind.

    Ends the program if an option is for none of them.
    """
    options = {name: value for name in MEDIA_FLAGS if (value := getattr(args, name)) is not None}
    preparation = Preparation(allow_hosts=args.allow_host)
    found = at_once(preparation.recognised, media)
    for name in options:
        if not any(name in OPTIONS[medium.kind] for medium in found):
            args.misused(f"--{name.replace('_', '-')} is for none of the media")
    return [
        {
            "type": BLOCKS[medium.kind],
            "url": medium.source,
            **{name: value for name, value in options.items() if name in OPTIONS[medium.kind]},
        }
        for medium in found
    ]


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("media", nargs="+", metavar="MEDIUM", help="path or URL")
    _add_media(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _plan(args: argparse.Namespace) -> int:
    found = plan(_blocks(args.media, args), allow_hosts=args.allow_host)
    if args.json:
        totals = {name: getattr(found, name) for name in ("items", "pixels", "tokens", "bytes")}
        print_json({**dataclasses.asdict(found), **totals})
    else:
        print(found)
    return 0


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [OPTION ...] [MEDIUM ...] QUESTION"
    parser.add_argument(
        "media",
        nargs="+",
        metavar="MEDIUM ... QUESTION",
        help="paths or URLs of pictures, documents or a video, and the question; "
        "- reads the question from standard input",
    )
    add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    add_answering(parser)
    parser.add_argument(
        "--reasoning",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="print the reasoning before the answer. Default: if the output is a terminal",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, when all is there"
    )
    _add_media(parser)


def _ask(args: argparse.Namespace) -> int:
    *media, question = args.media
    if question == "-":
        question = sys.stdin.read()
    if not question.strip():
        args.misused("the question is empty")
    content = [*_blocks(media, args), {"type": "text", "text": question}]
    messages: list[BaseMessage] = [SystemMessage(args.system)] if args.system else []
    messages.append(HumanMessage(content))  # type: ignore[arg-type]
    fields = {**answering(args), "allow_hosts": tuple(args.allow_host)}
    with asked_model(args, fields) as model:
        show = Shown(args.reasoning)
        whole: AIMessageChunk | None = None
        for chunk in model.stream(messages):
            if not args.json:
                show.add(chunk)
            whole = chunk if whole is None else whole + chunk
    if whole is None:
        return CUT_OFF
    reason = whole.response_metadata.get("finish_reason")
    if args.json:
        print_json(_as_json(whole))
    else:
        show.end()
        if reason not in COMPLETE:
            say(f"the answer was cut off ({reason})")
    return 0 if reason in COMPLETE else CUT_OFF


def _as_json(reply: AIMessageChunk) -> dict[str, Any]:
    return {
        "answer": reply.text,
        "reasoning": reply.additional_kwargs.get("reasoning_content", ""),
        "boxes": reply.additional_kwargs.get("boxes", []),
        "finish_reason": reply.response_metadata.get("finish_reason"),
        "model": reply.response_metadata.get("model_name"),
        "usage": reply.usage_metadata,
    }


class Shown:
    """An answer as it comes.

    Args:
        reasoning: Whether the reasoning is shown; None: on a terminal.
    """

    def __init__(self, reasoning: bool | None) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._reasoning = self._is_terminal if reasoning is None else reasoning
        self._last = ""

    def add(self, chunk: AIMessageChunk) -> None:
        """Write what is new."""
        thought = chunk.additional_kwargs.get("reasoning_content", "")
        if thought and self._reasoning:
            self._write(dimmed(self._safe(thought)), "reasoning")
        if chunk.text:
            self._write(self._safe(chunk.text), "answer")

    def end(self) -> None:
        """End the last line."""
        print(flush=True)

    def _write(self, text: str, what: str) -> None:
        if self._last == "reasoning" and what == "answer":
            print("\n")
        self._last = what
        print(text, end="", flush=True)

    def _safe(self, text: str) -> str:
        return harmless(text) if self._is_terminal else text


COMMANDS: Mapping[str, Any] = {"ask": (_add_ask, _ask), "plan": (_add_plan, _plan)}
