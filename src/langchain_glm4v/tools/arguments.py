"""Types of the arguments of tools.

Their limits are checked, and not told: a schema is part of the prompt of whoever calls, and a
grammar made of it takes long for lengths.
"""

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

_STRING = WithJsonSchema({"type": "string"})

Named: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4096), _STRING
]
"""A path or URL."""

Question: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=20_000), _STRING]
"""What is to be found out."""

Brief: TypeAlias = Annotated[str, StringConstraints(max_length=1000), _STRING]
"""What may be left out, or left empty, as models do."""

NamedSeveral: TypeAlias = Annotated[
    list[Named],
    # Models forget the brackets of a list of one.
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(min_length=1),
]
"""Paths or URLs, one at least."""

Second: TypeAlias = Annotated[float | None, Field(ge=0), WithJsonSchema({"type": "number"})]
"""A second of a video; None: left out."""

PAGES = 'counted from 1, such as "1,3,5-7". Leave it out to read all.'
"""Ends the description of `pages`."""

PASSWORD = "Password of the document, only if the user gave one."
"""Description of `password`."""
