"""Types of the fields that say what may be read: written as any sequence, kept as a tuple."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, GetPydanticSchema


def _named(path: object) -> object:
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if path == "":
        raise ValueError('"" would be the working directory: name that as "."')
    return path


_Paths: TypeAlias = tuple[Annotated[Path, BeforeValidator(_named)], ...]

# What type checkers ask of callers is wider than what is kept.
AllowedDirs: TypeAlias = Annotated[
    Sequence[str | os.PathLike[str]], GetPydanticSchema(lambda _, schema_of: schema_of(_Paths))
]
"""Directories in or below which local files may be read; kept as a tuple of `Path`."""

AllowedHosts: TypeAlias = Annotated[
    Sequence[str], GetPydanticSchema(lambda _, schema_of: schema_of(tuple[str, ...]))
]
"""Hosts that may be fetched from though their addresses are not public; kept as a tuple."""
