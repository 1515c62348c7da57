"""Markdown as models write it."""

import re

# Models put a fence around all of it, though nobody asked for code.
_FENCED = re.compile(r"```(?:markdown|md|html)?\n(.*)\n```", re.DOTALL)


def unfenced(text: str) -> str:
    """The text without a fence around all of it, and without space around that."""
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced else text
