"""What the tools that read documents have in common: which pages, and how they are shown."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import document, image, pool
from langchain_glm4v.media.budget import check_count
from langchain_glm4v.media.source import shown, without_secrets
from langchain_glm4v.tools.base import Arguments, VisionTool
from langchain_glm4v.tools.sources import Here, tiff_pages

# For `document`, "-3" are the first three; who has read that pages count from 1 means the last.
_NEGATIVE = re.compile(r"(?:^|,)\s*-")

PAGE_TOKENS = 2145
"""Tokens of a page, at most: what one of A4 has in the default size."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a document that an agent asks about.

    Attributes:
        here: The document's file.
        count: Pages of the document.
        wanted: Those asked about, counted from 1, each once.
        options: Of the content block of each page.
    """

    here: Here
    count: int
    wanted: Sequence[int]
    options: dict[str, Any]

    def block(self, page: int) -> dict[str, Any]:
        """The content block of a page."""
        named = {**self.here.fields, "filename": without_secrets(self.here.given)}
        return {"type": "file", **named, "pages": str(page), **self.options}


class PagedTool(VisionTool[Arguments]):
    """Base of the tools that read documents."""

    longest_side: int = document.LONGEST_SIDE
    """Pixels of the longer side of a page of a document."""

    page_tokens: int = PAGE_TOKENS
    """Tokens of a page of a document, at most; a larger one is scaled down."""

    max_pages: int = Field(default=200, ge=1)
    """Pages that may be asked about in a call."""

    @contextmanager
    def _as_document(self, here: Here) -> Iterator[Here]:
        """The same file; of a TIFF with several pages a PDF of them meanwhile.

        Raises:
            MediaError: If it is a damaged TIFF, or one with more than `max_pages`.
        """
        count = tiff_pages(here)
        if count == 1:
            yield here
            return
        check_count(shown(here.given), count, self.max_pages, image.CHOOSE_PAGES, "raise max_pages")
        with tempfile.TemporaryDirectory(prefix="glm4v-") as folder:
            made = Path(folder).resolve() / "pages.pdf"
            image.write_pdf(here.path, made, timeout=count * pool.TIMEOUT)
            yield Here(here.given, made, [made.parent])

    def _pages(self, here: Here, wanted: str, password: str) -> Pages:
        """Look at a document.

        Args:
            here: Its file.
            wanted: Which pages, as in "1,3,5-7"; "" for all.
            password: Of an encrypted PDF; "" for none.

        Raises:
            MediaError: If it cannot be read, has no such pages, or too many are wanted.
        """
        plain = without_secrets(here.given)
        count = document.info(here.path, password=password or None, name=plain).page_count
        name = shown(here.given)
        if _NEGATIVE.search(wanted):
            told = self._words.negative_pages
            raise MediaError(told.format(named=name, pages=wanted, count=count))
        numbers = document.page_numbers(wanted or None, count, name)
        once = [number + 1 for number in dict.fromkeys(numbers)]
        check_count(name, len(once), self.max_pages, document.CHOOSE_PAGES, "raise max_pages")
        options: dict[str, Any] = {
            "longest_side": self.longest_side,
            "max_tokens": self.page_tokens,
        }
        if password:
            options["password"] = password
        return Pages(here, count, once, options)


def written(pages: Sequence[int], comma: str) -> str:
    """Write page numbers in short: "1-3, 7"."""
    spans: list[list[int]] = []
    for page in pages:
        if spans and page == spans[-1][1] + 1:
            spans[-1][1] = page
        else:
            spans.append([page, page])
    return comma.join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
