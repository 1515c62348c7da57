"""Documents: pages of a PDF as pictures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media.budget import CELL
from langchain_glm4v.media.source import Source, read, scheme, shown

LONGEST_SIDE = 1540
"""Pixels of the longer side of a page, unless told otherwise.

It shows an A4 page in 1092x1540 pixels, 2,145 tokens, where print of 8 points can be read.
"""

MAX_PAGES = 32
"""Pages of a PDF that is sent whole, at most: as many pictures as a managed server takes."""

_JPEG_QUALITY = 90

# MuPDF must not run in two threads at once.
_mupdf = threading.Lock()


def pdf_page_image(
    source: Source | bytes,
    page: int = 0,
    *,
    longest_side: int = LONGEST_SIDE,
    password: str | None = None,
) -> bytes:
    """Render one page of a PDF as a picture for the model.

    Args:
        source: The PDF: a path, a `file://`, `data:` or `http(s)://` URL, or its bytes.
        page: Which page, counted from 0.
        longest_side: Pixels of the longer side, rounded down to a multiple of 28.
        password: The password of an encrypted PDF.

    Returns:
        A JPEG whose sides are multiples of 28 pixels, so that the model does not scale it again.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If the file is no PDF.
        MediaError: If the page does not exist, the password is missing or wrong, the page cannot
            be rendered, or PyMuPDF is not installed.
        ValueError: If `longest_side` is below 28.
    """
    with _opened(source, longest_side, password) as (document, origin):
        if not 0 <= page < document.page_count:
            raise MediaError(
                f"{origin} has no page {page}: its pages are 0 to {document.page_count - 1}"
            )
        return _render(document[page], longest_side)


def pdf_page_images(
    source: Source | bytes,
    *,
    longest_side: int = LONGEST_SIDE,
    password: str | None = None,
) -> list[bytes]:
    """Render all pages of a PDF, as `pdf_page_image` does one.

    Returns:
        A JPEG for each page, `MAX_PAGES` at most.

    Raises:
        MediaError: As for `pdf_page_image`, and if the PDF has no pages or too many.
        ValueError: If `longest_side` is below 28.
    """
    with _opened(source, longest_side, password) as (document, origin):
        pages = document.page_count
        if not 0 < pages <= MAX_PAGES:
            raise MediaError(
                f"{origin} has {pages} pages, and 1 to {MAX_PAGES} can be sent at once: pass those "
                "you want one by one, as the pictures that "
                "langchain_glm4v.media.document.pdf_page_image(path, page) returns"
            )
        return [_render(page, longest_side) for page in document]


@contextmanager
def _opened(
    source: Source | bytes, longest_side: int, password: str | None
) -> Iterator[tuple[Any, str]]:
    """The open document, and what error messages call it."""
    if longest_side < CELL:
        raise ValueError(f"longest_side is {longest_side} pixels: the model needs at least {CELL}")
    pymupdf = _import_pymupdf()
    data = source if isinstance(source, bytes) else read(source, "PDF")
    origin = f"the PDF of {len(data)} bytes"
    if not isinstance(source, bytes) and scheme(source) != "data":
        origin = shown(source)
    with _mupdf:
        # MuPDF would write its own view of a damaged file to standard error.
        errors_shown = pymupdf.TOOLS.mupdf_display_errors()
        pymupdf.TOOLS.mupdf_display_errors(False)
        try:
            with pymupdf.open(stream=data, filetype="pdf") as document:
                # MuPDF goes by the content and reads pictures and e-books too.
                if not document.is_pdf:
                    raise UnsupportedMediaError(f"{origin} is not a PDF")
                _unlock(document, origin, password)
                yield document, origin
        except pymupdf.FileDataError as error:
            raise UnsupportedMediaError(f"{origin} is not a PDF, or a damaged one") from error
        except (RuntimeError, pymupdf.mupdf.FzErrorBase) as error:
            raise MediaError(f"cannot render {origin}: {error}") from error
        finally:
            pymupdf.TOOLS.mupdf_display_errors(errors_shown)


def _import_pymupdf() -> ModuleType:
    try:
        import pymupdf  # noqa: PLC0415 - heavy, and only documents need it
    except ImportError as error:
        raise MediaError(
            "reading a PDF needs PyMuPDF, which is not installed: pip install 'pymupdf<2'"
        ) from error
    return pymupdf


def _unlock(document: Any, origin: str, password: str | None) -> None:
    if document.needs_pass and not document.authenticate(password or ""):
        reason = "needs a password" if password is None else "does not open with this password"
        raise MediaError(f"{origin} {reason}: pass password=")


def _render(page: Any, longest_side: int) -> bytes:
    shape = page.rect
    cells = longest_side // CELL
    longer = max(shape.width, shape.height)
    width, height = (
        max(1, round(cells * side / longer)) * CELL for side in (shape.width, shape.height)
    )
    # A matrix as MuPDF takes it; the scales differ by a rounding, so that whole cells are filled.
    scale = (width / shape.width, 0, 0, height / shape.height, 0, 0)
    picture: bytes = page.get_pixmap(matrix=scale, alpha=False).tobytes(
        "jpeg", jpg_quality=_JPEG_QUALITY
    )
    return picture
