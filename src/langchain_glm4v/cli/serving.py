"""`glm4v serve` and `glm4v doctor`."""

import argparse
import dataclasses
import math
import operator
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from langchain_glm4v.cli import following, server_flags
from langchain_glm4v.cli.exits import FAILED
from langchain_glm4v.cli.finding import Running, running
from langchain_glm4v.cli.terminal import print_json, say, table
from langchain_glm4v.errors import ServerStartError
from langchain_glm4v.server.checks import examine
from langchain_glm4v.server.keeper import Status
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.process import GLM4VServer

REAL_MODEL = "zai-org/GLM-4.1V-9B-Thinking"
NEWS_TIMEOUT = 10.0  # seconds, at most, until a keeper's end shows on all connections to it
MARKS: Mapping[bool | None, str] = {True: "ok", False: "FAILS", None: "-"}


def _add_serve(parser: argparse.ArgumentParser) -> None:
    server_flags.add_flags(parser)
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return when the server is ready; it stays until `glm4v stop`, or for "
        "--idle-timeout seconds without users. One with the same options is joined",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print vLLM's log to standard error too"
    )
    parser.add_argument("--json", action="store_true", help="print JSON once it is ready")


def _serve(args: argparse.Namespace) -> int:
    wanted = server_flags.options(args)
    if args.passed_on:
        say(f"to vLLM: {' '.join(args.passed_on)}")
    if args.detach:
        wanted |= {"share": True, "idle_timeout": wanted["idle_timeout"] or math.inf}
    server = GLM4VServer(**wanted, on_progress=say)
    if args.verbose:
        threading.Thread(target=following.echo, args=(server.log_path,), daemon=True).start()
    try:
        server.start()
        if not args.detach:
            return _attend(server, args)
        _show(server, args)
        return 0
    finally:
        # One that is not detached is stopped by now, or nobody wants to wait.
        server.stop(drain=args.detach)


def _show(server: GLM4VServer, args: argparse.Namespace) -> None:
    key = args.api_key_file and str(Path(args.api_key_file).absolute())
    if args.json:
        shown = {
            "id": server.id,
            "base_url": server.base_url,
            "model": server.served_model_name,
            "log_path": str(server.log_path),
            "api_key_file": key,
        }
        print_json(shown)
        return
    rows = [
        ("address", server.base_url),
        ("model", server.served_model_name),
        ("key", key or f'eval "$(glm4v env {server.id[:8]})" puts it into GLM4V_API_KEY'),
        ("log", str(server.log_path)),
    ]
    print(table(rows), flush=True)


def _attend(server: GLM4VServer, args: argparse.Namespace) -> int:
    """Show a server, and wait for its end: by a signal, by `glm4v stop`, or by a failure."""
    try:
        _show(server, args)  # whoever has seen it may end it
        with running() as servers:
            found = next((one for one in servers if one.facts.id == server.id), None)
            last = found and _tell_until_over(found)
        if last == "stopping":
            return 0
    except KeyboardInterrupt:
        say("stopping; running requests may finish. Again to stop at once")
        server.stop()
        return 0
    server.wait_until_ready(NEWS_TIMEOUT)  # tells why there is none
    message = f"the vLLM server for {server.options.model!r} is gone; its log: {server.log_path}"
    raise ServerStartError(message)


def _tell_until_over(server: Running) -> str:
    """Say what becomes of a server; returns its last state."""
    told = server.status
    while server.hold.is_open:
        server.hold.wait(partial(operator.ne, told), None)
        if (now := server.status) != told:
            told = now
            say(_told(now))
    return told.state


def _told(status: Status) -> str:
    why = status.problem or (f"exit code {status.exit_code}" if status.exit_code else "")
    return f"{status.state}{f' ({why})' if why else ''}"


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    server_flags.add_flags(parser, default_model=REAL_MODEL)
    parser.set_defaults(port=None)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(args: argparse.Namespace) -> int:
    found = examine(ServerOptions(**server_flags.options(args))).checks
    if args.json:
        print_json([dataclasses.asdict(check) for check in found])
    else:
        for check in found:
            print(f"{MARKS[check.ok]:<6}{check.name}: {check.detail}")
            if check.remedy:
                print(f"{'':<6}  -> {check.remedy}")
    return FAILED if any(check.ok is False for check in found) else 0


COMMANDS: Mapping[str, Any] = {"serve": (_add_serve, _serve), "doctor": (_add_doctor, _doctor)}
