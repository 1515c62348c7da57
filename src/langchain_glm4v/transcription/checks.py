"""Checks of a transcribed page. Pure: text in, problems out."""

import unicodedata
from collections import Counter
from collections.abc import Collection
from functools import lru_cache

from langchain_glm4v.endings import cut_of
from langchain_glm4v.repetition import is_periodic
from langchain_glm4v.transcription.records import Problem

EXPLAINED: dict[Problem, str] = {
    "cut off": "it was cut off by the limit of tokens: raise max_tokens, or the server's context",
    "broken off": "the server broke it off, as filters of contents and errors within it do",
    "repetition": "the model repeated itself endlessly",
    "empty": "the model read nothing, though something stands on the page",
    "script": "the model wrote in another script than the page is expected to have",
    "schema": "the model's answer does not fit the schema",
}
"""Problem -> what it means, and what to do where something can be done."""

FOREIGN_SHARE = 0.2
"""Share of the letters of a page that may be of scripts that are not expected."""

# How hosts call the end of an output that they broke off (OpenAI, BigModel and Z.ai, vLLM).
_BROKEN_OFF = frozenset(("content_filter", "sensitive", "network_error", "error"))
_COMMON = ("LATIN",)  # names, units and formulas stand in pages of every script
_LETTERS = 0x10000  # code points among which there are letters of all living scripts
_GOOD_LAYER = 20  # characters
_STRANGE_SHARE = 0.05
_MOST_PICTURED = 0.5


def problems(
    text: str, finish_reason: str | None, *, scripts: Collection[str] = ()
) -> tuple[Problem, ...]:
    """What is wrong with the text that a model read from a page that is not blank.

    Args:
        text: The text.
        finish_reason: Why the output ended, as the reply says.
        scripts: Scripts that are expected, as Unicode names them in the names of letters: "latin",
            "cjk", "cyrillic". None: any.
    """
    found: list[Problem] = []
    cut = cut_of({"finish_reason": finish_reason})
    if cut == "length":
        found.append("cut off")
    if finish_reason in _BROKEN_OFF:
        found.append("broken off")
    if cut == "repetition" or is_periodic(text):
        found.append("repetition")
    if not text.strip():
        found.append("empty")
    if _is_foreign(text, scripts):
        found.append("script")
    return tuple(found)


def _is_foreign(text: str, scripts: Collection[str]) -> bool:
    return bool(scripts) and foreign_share(text, scripts) > FOREIGN_SHARE


def foreign_share(text: str, scripts: Collection[str]) -> float:
    """Share of the letters of a text that are of none of the scripts, nor Latin, 0 to 1."""
    expected = {*_COMMON, *(script.upper() for script in scripts)}
    plain = unicodedata.normalize("NFKC", text)  # full-width letters are Latin too
    letters = Counter(script_of(letter) for letter in plain if letter.isalpha())
    if not letters:
        return 0.0
    return sum(count for script, count in letters.items() if script not in expected) / sum(
        letters.values()
    )


@lru_cache(maxsize=8192)
def script_of(letter: str) -> str:
    """The script of a letter, as its name in Unicode begins: "LATIN", "CJK", "HIRAGANA"."""
    name = unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0].split("-", 1)[0]
    return "CJK" if name == "IDEOGRAPHIC" else name


def is_script(name: str) -> bool:
    """Whether letters are of a script of this name, as Unicode has it."""
    return any(script_of(chr(code)) == name.upper() for code in range(_LETTERS))


def is_good_layer(text: str, pictured: float, *, scripts: Collection[str] = ()) -> bool:
    """Whether a page's own text can stand for what a model would read.

    It must have 20 characters, of which at most a twentieth are of no use (private, unassigned,
    replaced, or control characters: what fonts without a mapping leave), and pictures may not
    cover more than half of the page: the text of a scan is that of another program that read it.
    Its letters must be of the scripts that are expected, as for `problems`.

    Args:
        text: The text, as the document has it.
        pictured: Share of the page that is covered by pictures, 0 to 1.
        scripts: Scripts that are expected. None: any.
    """
    written = [c for c in text if not c.isspace()]
    strange = sum(c == "\N{REPLACEMENT CHARACTER}" or _is_strange(c) for c in written)
    return (
        len(written) >= _GOOD_LAYER
        and strange <= _STRANGE_SHARE * len(written)
        and pictured <= _MOST_PICTURED
        and not _is_foreign(text, scripts)
    )


def _is_strange(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")
