"""The figures of a benchmark: judged by their goals, printed, or handed on as JSON."""

import argparse
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Figure: TypeAlias = dict[str, Any]
"""`value`, None if it was not measured; if there is a goal, `goal` as "<= 0.6" and `ok`, which is
None if it was not measured."""

_COMPARED: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
_OUTCOMES = {True: "ok", False: "missed", None: "not measured"}


def figure(value: float | None, goal: str = "") -> Figure:
    """A figure and whether it reaches its goal, as "<= 0.6"."""
    shown = None if value is None else round(value, 4)
    if not goal:
        return {"value": shown}
    sign, limit = goal.split()
    ok = None if value is None else _COMPARED[sign](value, float(limit))
    return {"value": shown, "goal": goal, "ok": ok}


def _line(name: str, found: Figure) -> str:
    """A line of a table: name, value, goal and whether it was reached."""
    value = "-" if found["value"] is None else f"{found['value']:.4g}"
    goal = f"  goal {found['goal']}: {_OUTCOMES[found['ok']]}" if "goal" in found else ""
    return f"{name:<42}{value:>9}{goal}"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def report(found: Mapping[str, Figure], *, as_json: bool) -> int:
    """Print figures; returns the exit status, which is 1 if one misses its goal."""
    if as_json:
        print(json.dumps({"figures": found}))
    else:
        print(*(_line(name, one) for name, one in found.items()), sep="\n", flush=True)
    return int(any(one.get("ok") is False for one in found.values()))
