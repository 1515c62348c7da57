"""Pages of a PDF as pictures."""

import base64
import importlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media.document import MAX_PAGES, pdf_page_image, pdf_page_images

pymupdf: Any = importlib.import_module("pymupdf")  # has no types

A4 = (595, 842)
PNG = pymupdf.Pixmap(pymupdf.csRGB, (0, 0, 9, 9)).tobytes()


def write_pdf(path: Path, *pages: tuple[float, float], **options: object) -> Path:
    with pymupdf.open() as document:
        for width, height in pages:
            page = document.new_page(width=width, height=height)
            page.draw_rect(pymupdf.Rect(0, 0, width / 2, height), fill=(1, 0, 0), color=(1, 0, 0))
        document.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("page", "longest_side", "pixels"),
    [
        (A4, 1540, (1092, 1540)),
        (A4, 1000, (700, 980)),
        ((842, 595), 1540, (1540, 1092)),
        ((18_000, 36_000), 1540, (784, 1540)),
        ((3, 800), 1540, (28, 1540)),
        (A4, 28, (28, 28)),
    ],
)
def test_size(
    tmp_path: Path, page: tuple[int, int], longest_side: int, pixels: tuple[int, int]
) -> None:
    path = write_pdf(tmp_path / "page.pdf", page)
    with Image.open(io.BytesIO(pdf_page_image(path, longest_side=longest_side))) as picture:
        assert (picture.format, picture.size) == ("JPEG", pixels)


def test_the_page_asked_for_is_drawn(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "two.pdf", A4, (842, 595))
    with Image.open(io.BytesIO(pdf_page_image(str(path), 1))) as picture:
        assert picture.width > picture.height
        left, right = picture.getpixel((10, 500)), picture.getpixel((1500, 500))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 200
    assert left[1] < 60
    assert min(right) > 200


@pytest.mark.parametrize("page", [2, -1])
def test_a_page_that_is_not_there(tmp_path: Path, page: int) -> None:
    path = write_pdf(tmp_path / "two.pdf", A4, A4)
    with pytest.raises(MediaError, match=f"has no page {page}: its pages are 0 to 1"):
        pdf_page_image(path, page)


def test_a_password(tmp_path: Path) -> None:
    path = write_pdf(
        tmp_path / "secret.pdf", A4, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="open"
    )

    with pytest.raises(MediaError, match="needs a password"):
        pdf_page_image(path)
    with pytest.raises(MediaError, match="does not open with this password"):
        pdf_page_image(path, password="shut")
    assert pdf_page_image(path, password="open").startswith(b"\xff\xd8")


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7 cut", PNG, PNG[:20], b"text"])
def test_not_a_pdf(tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedMediaError, match="is not a PDF") as error:
        pdf_page_image(path)

    assert str(path) in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match="no PDF at"):
        pdf_page_image(tmp_path / "missing.pdf")
    with pytest.raises(UnsupportedMediaError, match="is not a file"):
        pdf_page_image(tmp_path)


def test_too_small(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 28"):
        pdf_page_image(tmp_path / "page.pdf", longest_side=27)


def test_all_pages_from_any_source(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "two.pdf", A4, (842, 595))
    data = path.read_bytes()
    url = f"data:application/pdf;base64,{base64.b64encode(data).decode()}"
    pages = pdf_page_images(path, longest_side=280)

    assert pages == [pdf_page_image(path, page, longest_side=280) for page in (0, 1)]
    for source in (data, url, str(path), path.as_uri()):
        assert pdf_page_images(source, longest_side=280) == pages


def test_too_many_pages(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "book.pdf", *[(28, 28)] * (MAX_PAGES + 1))
    with pytest.raises(MediaError, match=r"has 33 pages.*one by one.*pdf_page_image\(path, page\)"):
        pdf_page_images(path)


def test_a_url_on_this_machine_is_not_fetched(web: Any) -> None:
    with pytest.raises(MediaError, match=r"/a.pdf' leads to an address that is not public"):
        pdf_page_images(f"{web.url}/a.pdf")

    assert web.connections == 0


def test_a_scheme_of_no_use() -> None:
    with pytest.raises(UnsupportedMediaError, match="cannot read a PDF from 'ftp:"):
        pdf_page_images("ftp://host/a.pdf")


def test_a_damaged_pdf_without_a_name() -> None:
    with pytest.raises(UnsupportedMediaError, match="the PDF of 4 bytes is not a PDF"):
        pdf_page_images(b"text")
