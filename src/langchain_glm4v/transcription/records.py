"""What became of a page: its text, how it was read, and what is doubtful about it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Origin: TypeAlias = Literal["model", "text layer", "blank", "none"]
"""Who gave the text of a page: the model, or the document itself; nobody, if there is nothing to
read, or if it could not be read."""

Problem: TypeAlias = Literal["cut off", "broken off", "repetition", "empty", "script", "schema"]
"""What is wrong with a text: see `checks`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The text of a page, as it was read.

    Attributes:
        text: Markdown, or JSON where a schema was asked for.
        origin: Who gave it.
        problems: What is wrong with it; such a text is the best of several attempts.
        confidence: Mean probability that the model gave to each token of its answer, without its
            thinking, 0 to 1; None if it read nothing, or its server does not tell.
        turn: Degrees by which the page was turned to be read, clockwise.
        attempts: How often the model was asked.
        model: The model's name; "" if none was asked.
        input_tokens: Tokens of all prompts.
        output_tokens: Tokens of all outputs.
        seconds: How long all attempts took together, the waiting in the server's queue included.
    """

    text: str
    origin: Origin
    problems: tuple[Problem, ...] = ()
    confidence: float | None = None
    turn: int = 0
    attempts: int = 0
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def to_json(self) -> str:
        """The reading as text, which `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Reading":
        """The reverse of `to_json`.

        Raises:
            ValueError: It is none.
        """
        try:
            fields = json.loads(text)
            reading = cls(**{**fields, "problems": tuple(fields["problems"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no reading: {error!r}") from error
        if not isinstance(reading.text, str):
            raise ValueError(f"no reading: its text is {reading.text!r}")
        return reading


NOTHING = Reading(text="", origin="none")
"""The reading of what could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFacts:
    """What is known of the document that a page is of; of a picture, its name alone.

    Attributes:
        source: Path, URL or name, as metadata call it.
        index: Which of those that were to be read it is, counted from 0: names may be the same.
        total_pages: Pages of the document, not only those that were asked for.
        format: "PDF" and so on, as in `media.document`; "" for a picture.
        title: "" if none is given, as are those below.
        author: Who wrote it.
        subject: What it is about.
        creator: The program it was written with.
        producer: The program that made the PDF of it.
        created: When, as ISO 8601.
        modified: When it was last changed, likewise.
        metadata: What whoever gave it as a `Blob` says of it.
    """

    source: str
    index: int = 0
    total_pages: int
    format: str = ""
    title: str = ""
    author: str = ""
    subject: str = ""
    creator: str = ""
    producer: str = ""
    created: str = ""
    modified: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageResult:
    """A page that was read, or could not be.

    Attributes:
        document: What it is of.
        number: Its number in the document, counted from 0; None if no page of it could be read, and
            the error is that of the file.
        reading: Its text; empty, of the origin "none", if it could not be read.
        error: Why it could not be read, or why its text is not to be trusted; "" if all is well.
        from_cache: Whether it was read before, by an earlier run or as an equal page of this one.
            One that failed as an equal page did is not, but its reading has cost nothing.
    """

    document: DocumentFacts
    number: int | None
    reading: Reading
    error: str = ""
    from_cache: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.document, self.number)


def name_of(document: DocumentFacts, number: int | None) -> str:
    """What messages call a page, or a file."""
    source = repr(document.source)
    return source if number is None else f"page {number + 1} of {source}"
