"""The model that a command asks, and how the command says which one it means."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2

from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.cli.finding import NoServerError, Target, add_target, target
from langchain_glm4v.cli.terminal import say
from langchain_glm4v.cli.values import number, whole
from langchain_glm4v.clients import explained
from langchain_glm4v.errors import ServerError

KEEP_ALIVE = 300.0  # seconds


def add_model(parser: argparse.ArgumentParser) -> None:
    """Let a command say which model it asks."""
    add_target(parser)
    parser.add_argument(
        "--keep-alive",
        type=float,
        default=KEEP_ALIVE,
        metavar="SECONDS",
        help="if no server runs and --model is given, one is started, and stays for so long. "
        "Default: %(default)g",
    )


def add_allow_host(parser: "argparse._ActionsContainer") -> None:
    """Let a command say from where else its model may fetch media."""
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="may be fetched from though it is not public; may be given again",
    )


def add_answering(parser: argparse.ArgumentParser) -> None:
    """Let a command say how its model answers."""
    parser.add_argument("--max-tokens", type=whole(1), metavar="N", help="of thinking and answer")
    parser.add_argument("--temperature", type=number, metavar="X", help="0: always the likeliest")
    parser.add_argument("--thinking-budget", type=whole(1), metavar="N", help="tokens of thinking")
    parser.add_argument(
        "--thinking",
        choices=("auto", "off"),
        help="off: answer at once. Default: auto",
    )


def answering(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a model that answers as a command line says."""
    names = ("max_tokens", "temperature", "thinking", "thinking_budget")
    return {name: value for name in names if (value := getattr(args, name)) is not None}


@contextmanager
def asked_model(args: argparse.Namespace, fields: Mapping[str, Any]) -> Iterator[ChatGLM4V]:
    """The model that is to be asked, on a server that runs or is started for it.

    Raises:
        NoServerError: No server is named, none runs, and no model is.
        ServerError: It is not clear which one is meant, or it names no model.
    """
    with ExitStack() as stack:
        try:
            server = stack.enter_context(target(args))
        except NoServerError:
            if not args.model:
                raise
            model = ChatGLM4V.managed(
                args.model, on_progress=say, idle_timeout=args.keep_alive, **fields
            )
        else:
            model = _of(server, fields)
        yield stack.enter_context(model)


def _of(server: Target, fields: Mapping[str, Any]) -> ChatGLM4V:
    key = {} if server.api_key is None else {"api_key": server.api_key}
    at = {"base_url": server.base_url, **key, **fields}
    name = server.model
    if name is None:
        with ChatGLM4V(**at) as any_model, explained(server.base_url, "check --base-url"):
            found = any_model.root_client.get("/models", cast_to=httpx2.Response)
        try:
            name = found.json()["data"][0]["id"]
        except (ValueError, LookupError, TypeError) as error:
            message = f"{server.base_url} names no model: check --base-url, or give --model"
            raise ServerError(message) from error
    return ChatGLM4V(model=name, **at)
