"""Types of the arguments of tools.

Their limits are checked, and not told: a schema is part of the prompt of whoever calls, and a
grammar made of it takes long for lengths.
"""

import re
import unicodedata
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    create_model,
)
from pydantic_core import PydanticUseDefault

from langchain_glm4v.lenient_json import loads
from langchain_glm4v.tools.texts import ToolTexts

_STRING = WithJsonSchema({"type": "string"})

_QUOTED = re.compile(r"""\s*(?:"(.*)"|'(.*)'|`(.*)`|“(.*)”)\s*""", re.DOTALL)


def _listed(given: Any) -> Any:
    """A list of what models gave without brackets, or as JSON or in Python's quotes in a text."""
    if not isinstance(given, str):
        return given
    with suppress(ValueError, RecursionError):
        if isinstance(found := loads(given), list):
            return found
    return [given]


def _single(given: Any) -> Any:
    """A text without quotes or backticks around it, also of a list that holds it alone."""
    listed = _listed(given)
    if isinstance(listed, list) and len(listed) == 1:
        given = listed[0]
    if isinstance(given, str) and (quoted := _QUOTED.fullmatch(given)):
        return quoted[quoted.lastindex or 0]
    return given


Named: TypeAlias = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4096),
    _STRING,
    BeforeValidator(_single),
]
"""A path or URL."""

Question: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000), _STRING
]
"""What is to be found out."""


def _or_default(given: Any) -> Any:
    """What was given; the argument's default for null or an empty text."""
    if given is None or (isinstance(given, str) and not given.strip()):
        raise PydanticUseDefault
    return given


OptionalQuestion: TypeAlias = Annotated[Question, BeforeValidator(_or_default)]
"""A question that has a default."""

Brief: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=1000),
    _STRING,
    BeforeValidator(lambda given: "" if given is None else given),
]
"""What may be left out, left empty or be null, as models do."""

_ALL = frozenset(("all", "none", "null", "全部", "所有"))
_MARKS = str.maketrans("、;–—~至到", ",,-----", "[]")
_PAGE = re.compile(r"pages?|第|页面?", re.IGNORECASE)
_WHOLE = re.compile(r"(\d)\.0+(?![\d.])")


def _as_pages(given: Any) -> Any:
    """Page numbers as documents take them, of whatever models write.

    Such as `1`, `2.0`, `[1, 2]`, `"1、3～5"`, `"[page 3]"`, `"第3页"`.
    """
    if isinstance(given, list | tuple):
        given = ",".join(map(str, given))
    elif isinstance(given, int | float) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        return given
    # Full-width digits and marks have plain ones that are compatible.
    plain = _PAGE.sub("", unicodedata.normalize("NFKC", given)).strip()
    plain = _WHOLE.sub(r"\1", plain)
    return "" if plain.lower() in _ALL else plain.translate(_MARKS)


PageNumbers: TypeAlias = Annotated[Brief, BeforeValidator(_as_pages)]
"""Pages as in "1,3,5-7"; "" for all."""


NamedSeveral: TypeAlias = Annotated[list[Named], BeforeValidator(_listed), Field(min_length=1)]
"""Paths or URLs, one at least."""

Second: TypeAlias = Annotated[
    float | None,
    Field(ge=0),
    WithJsonSchema({"type": "number"}),
    BeforeValidator(lambda given: None if given == "" else given),
]
"""A second of a video; None: left out."""

End: TypeAlias = Annotated[Second, AfterValidator(lambda end: end or None)]
"""The second at which a part of a video ends; None, or 0: that of the video."""


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
