"""Types of the fields that say what may be read: written as any sequence, kept as a tuple."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, GetPydanticSchema


def _named(path: object) -> object:
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if path == "":
        raise ValueError('"" would be the working directory: name that as "."')
    return path


def _absolute(path: Path) -> Path:
    """As the working directory is now: a later one must not change what may be read."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # no such ~user
        raise ValueError(f"{str(path)!r} leads nowhere ({error}): give another path") from error


_Paths: TypeAlias = tuple[Annotated[Path, BeforeValidator(_named), AfterValidator(_absolute)], ...]

# What type checkers ask of callers is wider than what is kept.
AllowedDirs: TypeAlias = Annotated[
    Sequence[str | os.PathLike[str]], GetPydanticSchema(lambda _, schema_of: schema_of(_Paths))
]
"""Directories in or below which local files may be read; kept as a tuple of absolute `Path`s."""

AllowedHosts: TypeAlias = Annotated[
    Sequence[str], GetPydanticSchema(lambda _, schema_of: schema_of(tuple[str, ...]))
]
"""Hosts that may be fetched from though their addresses are not public; kept as a tuple."""
