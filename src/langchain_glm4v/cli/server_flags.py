"""The options of a server as flags, made from `ServerOptions` and described by `GLM4VServer`."""

import argparse
import dataclasses
import inspect
import os
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from langchain_glm4v.errors import ServerOptionError
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.process import GLM4VServer

PORT = 8000  # where vLLM's own command listens, and where `ChatGLM4V` looks
# Fields that are no flags: the key would show in the list of processes, and vLLM's arguments need
# no flag before them.
_NO_FLAGS = {"api_key", "extra_args"}
_DEFAULTS: Mapping[str, Any] = {"port": PORT}  # that are others than those of the class
_KEY_OF_VLLM = "--api-key"


def add_flags(parser: argparse.ArgumentParser, *, default_model: str | None = None) -> None:
    """Add a flag for each option.

    Args:
        parser: Of a command that passes on what it does not know.
        default_model: What is served if no model is named; None: one must be.
    """
    parser.usage = "%(prog)s MODEL [OPTION ...] [[--] ARGUMENT OF VLLM ...]"
    parser.epilog = (
        "None stands for an option that is not given, but --port 0 for a free one. In names of\n"
        "options, underscores do for hyphens. Everything else goes to `vllm serve` and wins over\n"
        "what is set here, such as --chat-template FILE, --limit-mm-per-prompt JSON,\n"
        "--allowed-local-media-path FOLDER."
    )
    hints, described = get_type_hints(ServerOptions), descriptions()
    group = parser.add_argument_group("options of the server")
    for field in dataclasses.fields(ServerOptions):
        if field.name in _NO_FLAGS:
            continue
        default = _DEFAULTS.get(field.name, field.default)
        kind = _kind(hints[field.name])
        told: dict[str, Any] = {"help": described.get(field.name, ""), "default": default}
        if field.name == "model":
            told["default"] = default_model
        elif default is not None and kind is not bool:
            told["help"] += " Default: %(default)s."
        if kind is bool:
            told["action"] = "store_true"
        else:
            told |= {"type": kind, "metavar": _METAVARS[kind]}
        group.add_argument(_flag(field.name), **told)
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="File with the key that requests must carry; without it the key is a random one, "
        "which `glm4v env` tells.",
    )


_METAVARS: Mapping[type, str] = {int: "N", float: "X", str: "TEXT"}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _kind(hint: Any) -> type:
    """The type of a field's values on a command line."""
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def descriptions() -> dict[str, str]:
    """Option -> what `GLM4VServer` says of it, for argparse."""
    text = inspect.getdoc(GLM4VServer) or ""  # none under `python -OO`
    section = re.search(r"^Args:\n(.*?)(?=^\S)", text, re.MULTILINE | re.DOTALL)
    entries = re.findall(
        r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE
    )
    return {name: " ".join(said.split()).replace("%", "%%") for name, said in entries}


def spelled(given: Sequence[str]) -> list[str]:
    """A command line with the model as a flag, and with hyphens in our flags."""
    with_model = ["--model", *given] if given and not given[0].startswith("-") else [*given]
    return [_hyphened(part) for part in with_model]


def _hyphened(part: str) -> str:
    name, equals, value = part.partition("=")
    hyphened = name.replace("_", "-")
    ours = {_flag(field.name) for field in dataclasses.fields(ServerOptions)} | {"--api-key-file"}
    return f"{hyphened}{equals}{value}" if hyphened in ours else part


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that a command line asks for, as `GLM4VServer` takes them.

    Ends the program if it is misused.
    """
    if not args.model:
        args.misused("which model? Give 'tiny', a folder, or a repository id")
    if any(part.partition("=")[0].replace("_", "-") == _KEY_OF_VLLM for part in args.passed_on):
        args.misused(f"{_KEY_OF_VLLM} would show the key to all users: give --api-key-file FILE")
    names = {field.name for field in dataclasses.fields(ServerOptions)} - _NO_FLAGS
    found = {name: getattr(args, name) for name in names}
    found["port"] = found["port"] or None  # 0: a free one
    found["api_key"] = _key(args.api_key_file) if args.api_key_file else None
    found["extra_args"] = args.passed_on
    try:
        ServerOptions(**found)
    except ServerOptionError as error:
        args.misused(str(error))
    return found


def _key(path: str | os.PathLike[str]) -> str:
    """The key in a file, which may end in line feeds.

    Raises:
        ServerOptionError: There is none.
    """
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        message = f"the key cannot be read: {error}; give as --api-key-file one that you may read"
        raise ServerOptionError(message) from error
    if not key:
        message = f"{str(path)!r} is empty: write a key into it, as by: openssl rand -hex 32"
        raise ServerOptionError(message)
    return key
