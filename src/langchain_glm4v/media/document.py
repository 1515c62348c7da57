"""Documents: pages of a PDF as pictures."""

import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError

CELL = 28
"""Pixels along a side of the square that becomes one token: patches of 14, merged two by two."""

_JPEG_QUALITY = 90

# MuPDF must not run in two threads at once.
_mupdf = threading.Lock()


def pdf_page_image(
    path: str | os.PathLike[str],
    page: int = 0,
    *,
    longest_side: int = 1540,
    password: str | None = None,
) -> bytes:
    """Render one page of a PDF as a picture for the model.

    Args:
        path: The PDF.
        page: Which page, counted from 0.
        longest_side: Pixels of the longer side, rounded down to a multiple of 28. The default
            shows an A4 page in 1092x1540 pixels, 2,145 tokens, where print of 8 points can be read.
        password: The password of an encrypted PDF.

    Returns:
        A JPEG whose sides are multiples of 28 pixels, so that the model does not scale it again.

    Raises:
        MediaNotFoundError: If there is no file at `path`.
        UnsupportedMediaError: If the file is no PDF.
        MediaError: If the page does not exist, the password is missing or wrong, the page cannot
            be rendered, or PyMuPDF is not installed.
        ValueError: If `longest_side` is below 28.
    """
    if longest_side < CELL:
        raise ValueError(f"longest_side is {longest_side} pixels: the model needs at least {CELL}")
    pymupdf = _import_pymupdf()
    origin = repr(os.fspath(path))
    data = _read(Path(path), origin)
    with _mupdf:
        # MuPDF would write its own view of a damaged file to standard error.
        shown = pymupdf.TOOLS.mupdf_display_errors()
        pymupdf.TOOLS.mupdf_display_errors(False)
        try:
            with pymupdf.open(stream=data, filetype="pdf") as document:
                # MuPDF goes by the content and reads pictures and e-books too.
                if not document.is_pdf:
                    raise UnsupportedMediaError(f"{origin} is not a PDF")
                _unlock(document, origin, password)
                if not 0 <= page < document.page_count:
                    raise MediaError(
                        f"{origin} has no page {page}: its pages are 0 to {document.page_count - 1}"
                    )
                return _render(document[page], longest_side)
        except pymupdf.FileDataError as error:
            raise UnsupportedMediaError(f"{origin} is not a PDF, or a damaged one") from error
        except (RuntimeError, pymupdf.mupdf.FzErrorBase) as error:
            raise MediaError(f"cannot render page {page} of {origin}: {error}") from error
        finally:
            pymupdf.TOOLS.mupdf_display_errors(shown)


def _import_pymupdf() -> ModuleType:
    try:
        import pymupdf  # noqa: PLC0415 - heavy, and only documents need it
    except ImportError as error:
        raise MediaError(
            "reading a PDF needs PyMuPDF, which is not installed: pip install 'pymupdf<2'"
        ) from error
    return pymupdf


def _read(path: Path, origin: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except FileNotFoundError as error:
        raise MediaNotFoundError(f"no PDF at {origin}: give the path of a file") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user as in ~user
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"cannot read the PDF {origin}: {reason}") from error


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
