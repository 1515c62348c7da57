"""Values on a command line; argparse tells whoever gives others."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit


def whole(least: int) -> Callable[[str], int]:
    """Reads whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return read


def number(text: str) -> float:
    """Reads a number, 0 or above."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number, 0 or above")
    return value


def address(text: str) -> str:
    """Reads the address of a server."""
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of an IPv6 address
        is_right = False
    if not is_right:
        message = f"{text!r} is no address such as http://127.0.0.1:8000/v1"
        raise argparse.ArgumentTypeError(message)
    return text


def folder(text: str) -> Path:
    """Reads the path of a directory."""
    path = Path(text).expanduser()
    if not text or not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return path
