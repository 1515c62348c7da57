"""Types of the arguments of tools.

Their limits are checked, and not told: a schema is part of the prompt of whoever calls, and a
grammar made of it takes long for lengths.
"""

from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    create_model,
)

from langchain_glm4v.tools.texts import ToolTexts

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


@cache  # a class takes milliseconds to make
def described(schema: type[BaseModel], texts: ToolTexts) -> type[BaseModel]:
    """Make the arguments of a tool speak a language.

    Returns:
        The same arguments, checked alike, with the descriptions and defaults of `texts` where
        `schema` has none, or "".
    """
    types = get_type_hints(schema, include_extras=True)
    fields: dict[str, Any] = {
        name: (
            types[name],
            Field(
                default=field.default or texts.defaults.get(name, field.default),
                description=field.description or texts.arguments.get(name),
            ),
        )
        for name, field in schema.model_fields.items()
    }
    return create_model(schema.__name__, __base__=schema, **fields)
