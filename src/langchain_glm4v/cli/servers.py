"""`glm4v status`, `stop`, `logs` and `env`: the servers of this user."""

import argparse
import dataclasses
import glob
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langchain_glm4v.cli import following
from langchain_glm4v.cli.exits import NONE_RUNS
from langchain_glm4v.cli.finding import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    MODEL_VARIABLE,
    Running,
    add_id,
    chosen,
    running,
)
from langchain_glm4v.cli.terminal import print_json, say, table
from langchain_glm4v.cli.values import whole
from langchain_glm4v.errors import ServerError
from langchain_glm4v.server import log, metrics
from langchain_glm4v.server.metrics import Load
from langchain_glm4v.server.probes import Client

METRICS_TIMEOUT = 5.0  # seconds
RATE_INTERVAL = 1.0  # seconds between two looks at a server that works, which give its speed
UNKNOWN = "-"
HEADER = (
    *("id", "model", "state", "address", "running", "waiting", "kv cache"),
    *("prefix hits", "media hits", "requests", "tokens/s"),
)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def _status(args: argparse.Namespace) -> int:
    with running() as servers:
        found = _looked_at(servers)
        if args.json:
            print_json([_as_json(server, load, speed) for server, load, speed in found])
        elif found:
            print(table([HEADER, *(_row(server, load, speed) for server, load, speed in found)]))
    if not servers:
        say("no server runs")
        return NONE_RUNS
    return 0


def _looked_at(servers: Sequence[Running]) -> list[tuple[Running, Load, float | None]]:
    """Each server with its load and, in tokens a second, its speed."""
    if not servers:
        return []
    with ThreadPoolExecutor(len(servers)) as threads:
        began = time.monotonic()
        before = list(threads.map(_load, servers))
        if not any(load.running for load in before):
            idle = (0.0 if load.running == 0 else None for load in before)
            return list(zip(servers, before, idle, strict=True))
        time.sleep(RATE_INTERVAL)
        after = list(threads.map(_load, servers))
        seconds = time.monotonic() - began
    speeds = (_speed(*pair, seconds) for pair in zip(before, after, strict=True))
    return list(zip(servers, after, speeds, strict=True))


def _load(server: Running) -> Load:
    if server.status.state != "ready":
        return Load()
    facts = server.facts
    client = Client(facts.host, facts.port, facts.api_key, METRICS_TIMEOUT)
    try:
        return metrics.load(metrics.parse(client.get("/metrics")))
    except (OSError, ValueError):  # it dies, or is too busy: its keeper will tell
        return Load()


def _speed(before: Load, after: Load, seconds: float) -> float | None:
    if before.generation_tokens is None or after.generation_tokens is None:
        return None
    return max(after.generation_tokens - before.generation_tokens, 0) / seconds


def _as_json(server: Running, load: Load, speed: float | None) -> dict[str, Any]:
    facts = dataclasses.asdict(server.facts)
    del facts["api_key"]
    return {
        **facts,
        "base_url": server.base_url,
        **dataclasses.asdict(server.status),
        **dataclasses.asdict(load),
        "generation_tokens_per_s": speed,
    }


def _row(server: Running, load: Load, speed: float | None) -> tuple[str, ...]:
    status = server.status
    restarts = f", restarted {status.restarts}x" if status.restarts else ""
    return (
        server.short_id,
        server.facts.served_model_name,
        f"{status.state}{restarts}",
        server.base_url,
        _number(load.running),
        _number(load.waiting),
        _percent(load.kv_cache_usage),
        _percent(load.prefix_cache_hits),
        _percent(load.media_cache_hits),
        _number(load.requests),
        _number(speed),
    )


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}"


def _add_stop(parser: argparse.ArgumentParser) -> None:
    add_id(parser)
    parser.add_argument("--all", action="store_true", help="stop all of them")
    parser.add_argument(
        "--now", action="store_true", help="do not let running requests finish first"
    )


def _stop(args: argparse.Namespace) -> int:
    if args.all and args.id:
        args.misused("give an ID or --all, not both")
    with running() as servers:
        meant = servers if args.all and servers else [chosen(servers, args.id)]
        for server in meant:
            server.hold.tell("stop", drain=not args.now)
        for server in meant:
            server.hold.wait(lambda _: False, None)  # until its keeper is gone
            say(f"stopped {server.short_id} ({server.facts.model})")
    return 0


def _add_logs(parser: argparse.ArgumentParser) -> None:
    add_id(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the server ends")
    parser.add_argument(
        "-n", "--lines", type=whole(0), default=40, metavar="N", help="lines of it. Default: 40"
    )


def _logs(args: argparse.Namespace) -> int:
    with running() as servers:
        try:
            server = chosen(servers, args.id)
        except ServerError:
            kept = _kept_log(args.id)
            if kept is None:
                raise
            say(f"no such server runs any more; this is {str(kept)!r}")
            sys.stdout.write(following.last_lines(kept, args.lines)[0])
            return 0
        path = Path(server.facts.log_path)
        text, end = following.last_lines(path, args.lines)
        sys.stdout.write(text)
        sys.stdout.flush()
        if args.follow:
            for text in following.follow(path, lambda: not server.hold.is_open, after=end):
                sys.stdout.write(text)
                sys.stdout.flush()
    return 0


def _kept_log(wanted: str | None) -> Path | None:
    """The latest log of a server of this user that failed; None if there is none."""
    pattern = log.FILE_NAME.format(f"{glob.escape(wanted or '')}*")
    found = [path for path in Path(tempfile.gettempdir()).glob(pattern) if _is_ours(path)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _is_ours(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_uid == os.getuid()


def _add_env(parser: argparse.ArgumentParser) -> None:
    add_id(parser)
    parser.epilog = (
        'eval "$(glm4v env)" sets the variables that `glm4v ask` and `ChatGLM4V` go by.\n'
        "The key is printed: keep it out of what others read."
    )


def _env(args: argparse.Namespace) -> int:
    with running() as servers:
        found = chosen(servers, args.id)
        variables = {
            ADDRESS_VARIABLE: found.base_url,
            KEY_VARIABLE: found.facts.api_key,
            MODEL_VARIABLE: found.facts.served_model_name,
        }
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


COMMANDS: Mapping[str, Any] = {
    "status": (_add_status, _status),
    "stop": (_add_stop, _stop),
    "logs": (_add_logs, _logs),
    "env": (_add_env, _env),
}
