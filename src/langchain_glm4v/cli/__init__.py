"""The command `glm4v`: a server and what one asks of it, from a shell.

Each module has the commands of one group. What a command needs is imported when it runs.
"""

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from langchain_glm4v._version import __version__
from langchain_glm4v.cli.exits import (
    EXITS,
    FAILED,
    INTERRUPTED,
    PIPE_BROKEN,
    TERMINATED,
)
from langchain_glm4v.cli.terminal import say
from langchain_glm4v.errors import GLM4VError

DEBUG_VARIABLE = "GLM4V_DEBUG"


@dataclass(frozen=True)
class Command:
    """A command, without what it takes to run it.

    Attributes:
        module: Module of this package; its `COMMANDS` has the rest.
        summary: What it does, in a line.
        passes_on: Whether what it does not know, and all behind `--`, goes to vLLM.
    """

    module: str
    summary: str
    passes_on: bool = False


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serving", "start a server", passes_on=True),
    "status": Command("servers", "show the servers that run, and how busy they are"),
    "stop": Command("servers", "stop a server"),
    "logs": Command("servers", "print the log of a server"),
    "env": Command("servers", "print address, key and model of a server, for a shell to read"),
    "doctor": Command("serving", "check what a server needs of this machine", passes_on=True),
    "pull": Command("pulling", "download a checkpoint"),
    "ask": Command("asking", "ask about pictures, a video, documents, or nothing but the question"),
    "plan": Command("asking", "show what media will cost in a request"),
    "transcribe": Command("transcribing", "read documents and pictures, page by page, into files"),
    "mcp": Command("mcp_serving", "offer the vision tools over MCP, to editors and assistants"),
    "bench": Command("bench", "measure how fast a server answers"),
    "completion": Command("completion", "print a script that completes commands in a shell"),
}

Arguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        given: Its arguments; None takes those of this process.

    Returns:
        The exit code: see `EXITS`.
    """
    _mend_streams()
    try:
        with _sigterm_raises():
            try:
                return _run(list(sys.argv[1:] if given is None else given))
            finally:
                _flush()
    except BrokenPipeError:
        return PIPE_BROKEN
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1" or not _is_told(error):
            raise
        say(f"glm4v: {' '.join(str(error).split())}")
        return getattr(error, "exit_code", FAILED)


def _mend_streams() -> None:
    """Let no standard stream be missing, and none fail at a character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed before this program began
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        # Else the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _run(given: list[str]) -> int:
    name = given[0] if given else ""
    if name not in COMMANDS:
        root = root_parser()
        for known, command in COMMANDS.items():
            root.commands.add_parser(known, help=command.summary, add_help=False)
        root.parse_args(given)
        root.error("no command given")
    arguments, run = implementation(name)
    parser = _new_parser(f"glm4v {name}", COMMANDS[name].summary)
    arguments(parser)
    if COMMANDS[name].passes_on:
        from langchain_glm4v.cli.server_flags import spelled  # noqa: PLC0415

        own, passed = _divided(given[1:])
        args, unknown = parser.parse_known_args(spelled(own))
        if unknown and not unknown[0].startswith("-"):
            parser.error(f"unexpected argument: {unknown[0]}")
        args.passed_on = [*unknown, *passed]
    else:
        args = parser.parse_intermixed_args(given[1:])
    args.misused = parser.error
    return run(args)


def implementation(name: str) -> tuple[Arguments, Run]:
    """What adds the arguments of a command to a parser, and what runs it."""
    module = importlib.import_module(f"{__name__}.{COMMANDS[name].module}")
    found: tuple[Arguments, Run] = module.COMMANDS[name]
    return found


class RootParser(argparse.ArgumentParser):
    """The parser of the command line as a whole.

    Attributes:
        commands: Adds a command's parser.
    """

    commands: "argparse._SubParsersAction[argparse.ArgumentParser]"


def root_parser() -> RootParser:
    """The parser of the command line, without its commands."""
    exits = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXITS.items())
    root = RootParser(
        prog="glm4v",
        description="GLM-4.1V-Thinking: a vLLM server, and questions to it.",
        epilog=f"exit codes:\n{exits}\n\nWith {DEBUG_VARIABLE}=1, errors come with a traceback.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"langchain-glm4v {__version__}")
    root.commands = root.add_subparsers(
        dest="command",
        metavar="COMMAND",
        title="commands",
        parser_class=argparse.ArgumentParser,
    )
    return root


def _new_parser(prog: str, summary: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog,
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _divided(given: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first `--`, and what behind it."""
    at = given.index("--") if "--" in given else len(given)
    return given[:at], given[at + 1 :]


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """While this runs, SIGTERM ends the command as Ctrl-C does, so that it can tidy up."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_told(error: Exception) -> bool:
    """Whether an error's message is for users: of this package, the system, or a server."""
    openai = sys.modules.get("openai")
    return isinstance(error, (GLM4VError, OSError, *([openai.OpenAIError] if openai else [])))
