"""What commands write: results on standard output, all else on standard error."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

_DIM, _PLAIN = "\033[2m", "\033[0m"
# All control characters but tab and line feed: a model's answer must not steer the terminal.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def say(text: str) -> None:
    """Write a line to standard error, without what would steer a terminal."""
    print(harmless(text), file=sys.stderr, flush=True)


def dimmed(text: str) -> str:
    """The text, dimmed where standard output is a terminal that takes it."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    plain = plain or not sys.stdout.isatty()
    return text if plain else f"{_DIM}{text}{_PLAIN}"


def harmless(text: str) -> str:
    """The text without what would steer a terminal."""
    return text.translate(_CONTROL)


def print_json(value: Any) -> None:
    """Write a value as a line of JSON, in ASCII: the output may have any encoding."""
    print(json.dumps(value), flush=True)


def clock(seconds: float) -> str:
    """A time as minutes and seconds, and hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, below = divmod(minutes, 60)
    return f"{hours}:{below:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, each as wide as it needs to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
