"""The servers of this user, and how a command says which one it means."""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from langchain_glm4v.cli.exits import NONE_RUNS
from langchain_glm4v.cli.terminal import say
from langchain_glm4v.cli.values import address
from langchain_glm4v.errors import ServerError
from langchain_glm4v.server import sharing
from langchain_glm4v.server.addresses import in_url
from langchain_glm4v.server.hold import Hold
from langchain_glm4v.server.keeper import Facts, Status

ANSWER_TIMEOUT = 5.0  # seconds for a keeper to say what it keeps
SHOWN_ID = 8  # characters of an id that are shown; as many as are unique may be given

ADDRESS_VARIABLE, KEY_VARIABLE, MODEL_VARIABLE = "GLM4V_BASE_URL", "GLM4V_API_KEY", "GLM4V_MODEL"


class NoServerError(ServerError):
    """No server of this user runs."""

    exit_code = NONE_RUNS


@dataclass(frozen=True)
class Running:
    """A server that runs, seen by one who need not use it.

    Attributes:
        hold: Connection to its keeper.
        facts: What there is to know of it.
    """

    hold: Hold
    facts: Facts

    @property
    def status(self) -> Status:
        """How it is."""
        return self.hold.status or Status("stopping")

    @property
    def short_id(self) -> str:
        """Its id as it is shown."""
        return self.facts.id[:SHOWN_ID]

    @property
    def base_url(self) -> str:
        """Where its API is."""
        return f"http://{in_url(self.facts.host)}:{self.facts.port}/v1"


@contextmanager
def running() -> Iterator[list[Running]]:
    """All servers of this user that run, without becoming a user of them."""
    with ExitStack() as seen:
        found = []
        for name in sharing.names():
            if (connection := sharing.join(name)) is None:
                continue
            hold = Hold(connection)
            hold.tell("look")
            seen.callback(hold.close)
            if not hold.wait(lambda _: True, ANSWER_TIMEOUT):
                say(f"the keeper of server {name} does not answer; look for its process")
            elif hold.is_open and (facts := hold.facts):
                found.append(Running(hold, facts))
        yield found


def add_id(parser: argparse.ArgumentParser) -> None:
    """Let a command say which server it means."""
    parser.add_argument(
        "id",
        nargs="?",
        metavar="ID",
        help="of the server, or how it begins, or its model; not needed if only one runs",
    )


def chosen(servers: Sequence[Running], wanted: str | None) -> Running:
    """The one server that is meant.

    Args:
        servers: Those that run.
        wanted: The beginning of its id, or its model; None if there is only one.

    Raises:
        NoServerError: None runs.
        ServerError: None, or more than one, is meant.
    """
    if not servers:
        raise NoServerError("no server runs; start one with: glm4v serve MODEL")
    meant = [server for server in servers if wanted is None or _is_meant(server, wanted)]
    if len(meant) == 1:
        return meant[0]
    known = ", ".join(f"{server.short_id} ({server.facts.model})" for server in meant or servers)
    if meant:
        raise ServerError(f"several servers run: {known}; say which one by its id")
    raise ServerError(f"no server {wanted!r} runs, but {known}; give one of these ids")


def _is_meant(server: Running, wanted: str) -> bool:
    facts = server.facts
    return facts.id.startswith(wanted) or wanted in (facts.model, facts.served_model_name)


@dataclass(frozen=True)
class Target:
    """Where questions go.

    Attributes:
        base_url: Address, with `/v1`.
        api_key: Key of the server; None takes that of the environment.
        model: What the server calls the model; None: its only one.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    model: str | None


def add_target(parser: argparse.ArgumentParser) -> None:
    """Let a command say which server it asks."""
    parser.add_argument(
        "--base-url",
        metavar="URL",
        type=address,
        default=os.environ.get(ADDRESS_VARIABLE) or None,
        help=f"address of a server, with /v1; its key is ${KEY_VARIABLE}. "
        f"Default: ${ADDRESS_VARIABLE}, else a server of this user",
    )
    parser.add_argument(
        "--model",
        default=os.environ.get(MODEL_VARIABLE),
        help=f"which model. Default: ${MODEL_VARIABLE}, else the only one there is",
    )


@contextmanager
def target(args: argparse.Namespace) -> Iterator[Target]:
    """The server that is to be asked; one of this user's is used as long as this runs.

    Raises:
        NoServerError: No server is named, and none runs.
        ServerError: It is not clear which one is meant, or the key for it can be none.
    """
    if args.base_url:
        key = os.environ.get(KEY_VARIABLE)
        if key and not (key.isascii() and key.isprintable()):
            raise ServerError(f"${KEY_VARIABLE} is no key: it must be printable ASCII")
        yield Target(args.base_url, key, args.model)
        return
    with running() as servers:
        found = chosen(servers, args.model)
        found.hold.tell("hold")
        try:
            yield Target(found.base_url, found.facts.api_key, found.facts.served_model_name)
        finally:
            with contextlib.suppress(OSError):
                found.hold.tell("release", drain=True)
