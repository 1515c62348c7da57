"""Pages of documents as pictures."""

import base64
import importlib
import io
import subprocess
import sys
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import document, pool
from langchain_glm4v.media.budget import DEFAULT_IMAGE_TOKENS, image_tokens

pymupdf: Any = importlib.import_module("pymupdf")  # has no types

DOCUMENTS = Path(__file__).parents[1] / "documents"
A4 = (595, 842)
PNG = pymupdf.Pixmap(pymupdf.csRGB, (0, 0, 9, 9)).tobytes()


def write_pdf(path: Path, *sizes: tuple[float, float], **options: Any) -> Path:
    """A PDF whose pages are red in their left half, and say which one they are, from 1."""
    with pymupdf.open() as made:
        for number, (width, height) in enumerate(sizes, 1):
            page = made.new_page(width=width, height=height)
            page.draw_rect(pymupdf.Rect(0, 0, width / 2, height), fill=(1, 0, 0), color=(1, 0, 0))
            page.insert_text((20, 50), f"page {number}")
        made.set_metadata(options.pop("metadata", {}))
        made.save(path, **options)
    return path


def raw_pdf(path: Path, page: str, *objects: bytes) -> Path:
    """A PDF of one page, written by hand; the objects are numbered from 4."""
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R{page}>>".encode(),
        *objects,
    ]
    body = b"".join(b"%d 0 obj%s endobj\n" % item for item in enumerate(parts, 1))
    path.write_bytes(b"%PDF-1.7\n" + body + b"trailer<</Root 1 0 R>>\n")
    return path


def stream(keys: str, data: bytes) -> bytes:
    return f"<<{keys}/Length {len(data)}>>stream\n".encode() + data + b"\nendstream"


def picture(page: document.Page) -> Image.Image:
    return Image.open(io.BytesIO(page.data))


def is_red(page: document.Page, x: int, y: int) -> bool:
    """Whether a pixel is; white if not."""
    colour = picture(page).getpixel((x, y))
    assert isinstance(colour, tuple)
    assert colour[0] > 200
    assert min(colour) > 200 or colour[1] < 60
    return colour[1] < 60


@pytest.mark.parametrize(
    ("page", "longest_side", "pixels"),
    [
        (A4, 1540, (1092, 1540)),
        (A4, 1000, (700, 980)),
        ((842, 595), 1540, (1540, 1092)),
        ((18_000, 36_000), 1540, (784, 1540)),
        ((120, 86), 1540, (1540, 1092)),
        ((4, 800), 1540, (28, 1540)),
        ((4, 800), 50_000, (28, 5600)),
        (A4, 84, (56, 84)),
        # as large as every server takes
        (A4, 2576, (1820, 2576)),
        (A4, 50_000, (1820, 2576)),
        ((700, 700), 50_000, (2184, 2184)),
    ],
)
def test_size(
    tmp_path: Path, page: tuple[int, int], longest_side: int, pixels: tuple[int, int]
) -> None:
    path = write_pdf(tmp_path / "page.pdf", page)
    (made,) = document.pages(path, longest_side=longest_side)

    assert (picture(made).format, picture(made).size) == ("JPEG", pixels)
    assert (made.width, made.height) == pixels
    assert made.tokens == image_tokens(*pixels) <= DEFAULT_IMAGE_TOKENS
    # One that the model does not scale again, but for the smallest.
    assert longest_side < 112 or made.tokens == pixels[0] * pixels[1] // 28**2


@pytest.mark.parametrize(("max_tokens", "pixels"), [(6_144, (1848, 2604)), (100, (224, 308))])
def test_the_tokens_of_a_page(tmp_path: Path, max_tokens: int, pixels: tuple[int, int]) -> None:
    path = write_pdf(tmp_path / "page.pdf", A4)
    (made,) = document.pages(path, longest_side=50_000, max_tokens=max_tokens)

    assert (made.width, made.height) == pixels
    assert made.tokens <= max_tokens


@pytest.mark.parametrize("longest_side", [1540, 50_000])
def test_a_page_that_is_too_narrow(tmp_path: Path, longest_side: int) -> None:
    path = write_pdf(tmp_path / "strip.pdf", A4, (10, 14_400))
    with pytest.raises(MediaError, match=r"page 2 of .*strip.pdf' has 10x14400 points: one side"):
        list(document.pages(path, longest_side=longest_side))


def test_a_page_and_what_it_tells(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "two.pdf", A4, (842, 595))
    first, second = document.pages(path)

    assert (first.number, first.text, first.notes, first.rotation) == (0, "page 1\n", "", 0)
    assert (second.number, second.text) == (1, "page 2\n")
    assert is_red(second, 10, 500)
    assert not is_red(second, 1500, 500)
    assert len(repr(first)) < 100


@pytest.mark.parametrize(
    ("turn", "corners"),
    [(0, "#.#."), (90, "##.."), (180, ".#.#"), (270, "..##")],
)
def test_a_turned_page(tmp_path: Path, turn: int, corners: str) -> None:
    with pymupdf.open(write_pdf(tmp_path / "page.pdf", A4)) as made:
        made[0].set_rotation(turn)
        made.save(tmp_path / "turned.pdf")
    (page,) = document.pages(tmp_path / "turned.pdf")
    at = [(x, y) for y in (10, page.height - 10) for x in (10, page.width - 10)]

    assert page.rotation == turn
    assert (page.width > page.height) == (turn in (90, 270))
    assert "".join("#" if is_red(page, *place) else "." for place in at) == corners


def test_only_the_crop_box_is_shown(tmp_path: Path) -> None:
    with pymupdf.open(write_pdf(tmp_path / "page.pdf", A4)) as made:
        made[0].set_cropbox(pymupdf.Rect(0, 100, 595, 398))
        made.save(tmp_path / "cropped.pdf")
    (page,) = document.pages(tmp_path / "cropped.pdf")

    assert (page.width, page.height) == (1540, 784)
    assert page.text == ""


@pytest.mark.parametrize(
    ("pages", "numbers"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("3", [2]),
        ("1,3-4", [0, 2, 3]),
        (" 5, 1 - 2 ", [4, 0, 1]),
        ("-2", [0, 1]),
        ("-9", [0, 1, 2, 3, 4]),
        ("4-", [3, 4]),
        ("2-2,2", [1, 1]),
        ([4, 0], [4, 0]),
        (range(1, 3), [1, 2]),
    ],
)
def test_pages_that_are_chosen(
    tmp_path: Path, pages: str | Iterable[int] | None, numbers: list[int]
) -> None:
    path = write_pdf(tmp_path / "five.pdf", *[(100, 100)] * 5)
    made = list(document.pages(path, pages=pages, longest_side=56))

    assert [page.number for page in made] == numbers
    # Too small a picture to be read, but the text is there.
    assert [page.text for page in made] == [f"page {number + 1}\n" for number in numbers]


@pytest.mark.parametrize(
    ("pages", "hint"),
    [
        ("6", "has 5 pages, so there is no page 6: choose others"),
        ("0", "pages 0 to 0 are none: they are counted from 1"),
        ("4-9", "no page 9"),
        ("1-99999999999", "no page 99999999999"),
        ("-0", "counted from 1"),
        ("0-3", "counted from 1"),
        ("4-2", "pages 4 to 2 are none: turn them round"),
        ([5], r"no page 6 \(number 5 counted from 0\)"),
        ([-1], r"no page 0 \(number -1"),
        (range(10**12), "no page 6"),
        ([], r"pages=\[\] names no pages of '.*five.pdf'"),
        (iter(()), "names no pages of"),
        *((wrong, "is no list of whole numbers") for wrong in (["1"], [None], [1.5], 5)),
        ("9" * 5000, "names no pages: write it as in"),
        *((wrong, f"pages='{wrong}' names no pages") for wrong in ("", "-", "1,", "one", "1-2-3")),
    ],
)
def test_pages_that_are_not_there(tmp_path: Path, pages: str | Iterable[int], hint: str) -> None:
    path = write_pdf(tmp_path / "five.pdf", *[(100, 100)] * 5)
    with pytest.raises(MediaError, match=hint):
        next(document.pages(path, pages=pages))


@pytest.mark.parametrize(
    "option",
    [
        *({"longest_side": side} for side in (27, "1540", 1e3)),
        *({"max_tokens": tokens} for tokens in (15, 6_145, "100")),
        *({"workers": workers} for workers in (0, -1, None)),
    ],
)
def test_options_out_of_range(tmp_path: Path, option: dict[str, Any]) -> None:
    path = write_pdf(tmp_path / "page.pdf", A4)
    with pytest.raises(MediaError, match=f"{next(iter(option))} is"):
        next(document.pages(path, **option))


def test_more_pages_than_asked_for(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "three.pdf", *[(100, 100)] * 3)
    with pytest.raises(MediaError, match="has 3 pages to be sent, and 2 can be sent"):
        next(document.pages(path, at_most=2))
    assert len(list(document.pages(path, pages="2-", at_most=2))) == 2


def test_a_password(tmp_path: Path) -> None:
    path = write_pdf(
        tmp_path / "secret.pdf", A4, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="open"
    )
    with pytest.raises(MediaError, match="needs a password"):
        next(document.pages(path))
    for function in (document.info, lambda *args, **given: next(document.pages(*args, **given))):
        with pytest.raises(MediaError, match="does not open with this password: give an") as error:
            function(path, password="shut")
        assert "shut" not in str(error.value)
    assert next(document.pages(path, password="open")).text == "page 1\n"
    assert document.info(path, password="open").encrypted


def test_info(tmp_path: Path) -> None:
    metadata = {
        "title": "港口",
        "author": "A. Example",
        "subject": "Ships",
        "creator": "Writer",
        "producer": "Scanner 2",
        "creationDate": "D:20260308101530+01'30'",
        "modDate": "D:20260309",
    }
    path = write_pdf(tmp_path / "a.pdf", A4, A4, metadata=metadata)

    assert document.info(path) == document.DocumentInfo(
        format="PDF",
        page_count=2,
        encrypted=False,
        title="港口",
        author="A. Example",
        subject="Ships",
        creator="Writer",
        producer="Scanner 2",
        created=datetime(2026, 3, 8, 10, 15, 30, tzinfo=timezone(timedelta(minutes=90))),
        modified=datetime(2026, 3, 9),
    )


@pytest.mark.parametrize(
    ("given", "date"),
    [
        ("D:20260308101530Z", datetime(2026, 3, 8, 10, 15, 30, tzinfo=UTC)),
        ("2026", datetime(2026, 1, 1)),
        ("D:20260308101530-08'00", datetime(2026, 3, 8, 18, 15, 30, tzinfo=UTC)),
        ("D:20260231", None),
        ("D:20260308101530+99'00'", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(tmp_path: Path, given: str, date: datetime | None) -> None:
    path = write_pdf(tmp_path / "a.pdf", A4, metadata={"creationDate": given})
    assert document.info(path).created == date


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7 cut", PNG, PNG[:20], b"text", b"PK\x03\x04", b"<"]
)
def test_not_a_document(tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.pdf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedMediaError, match="is not a document") as error:
        next(document.pages(path))

    assert str(path) in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match="no document at"):
        document.info(tmp_path / "missing.pdf")
    with pytest.raises(UnsupportedMediaError, match="is not a file"):
        document.info(tmp_path)


def test_too_small(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="at least 28"):
        next(document.pages(tmp_path / "page.pdf", longest_side=27))


def test_any_source_and_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pdf(tmp_path / "slides.pptx", A4, (842, 595))
    data = path.read_bytes()
    url = f"data:application/pdf;base64,{base64.b64encode(data).decode()}"
    pages = list(document.pages(path, longest_side=280))
    monkeypatch.chdir(tmp_path)

    assert len(pages) == 2
    for source in (data, url, str(path), path.as_uri(), path.name):
        assert list(document.pages(source, longest_side=280)) == pages


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pdf(tmp_path / "two.pdf", A4, A4).read_bytes()
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    some = document.pages(data, longest_side=28)
    next(some)
    assert [*folder.iterdir()]
    some.close()  # type: ignore[attr-defined]

    assert not [*folder.iterdir()]


def test_a_url_on_this_machine_is_not_fetched(web: Any) -> None:
    with pytest.raises(MediaError, match=r"/a.pdf' leads to an address that is not public"):
        document.info(f"{web.url}/a.pdf")

    assert web.connections == 0


def test_a_scheme_of_no_use() -> None:
    with pytest.raises(UnsupportedMediaError, match="cannot read a document from 'ftp:"):
        document.info("ftp://host/a.pdf")


def test_errors_call_a_document_by_its_name() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"^the document of 4 bytes is not a document"):
        document.info(b"text")
    with pytest.raises(UnsupportedMediaError, match=r"^'bill\.pdf' is not a document"):
        document.info(b"text", name="bill.pdf")
    with pytest.raises(UnsupportedMediaError, match=r"^the document of 24 characters of base64"):
        document.info("data:x/y;base64,dGV4dA==")


def test_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "none.pdf"
    path.write_bytes(
        b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>> endobj\n"
        b"2 0 obj<</Type/Pages/Kids[]/Count 0>> endobj\ntrailer<</Root 1 0 R>>"
    )
    assert document.info(path).page_count == 0
    with pytest.raises(MediaError, match="has no pages"):
        next(document.pages(path))


def test_a_picture_of_a_billion_pixels(tmp_path: Path) -> None:
    """35,000 times 35,000 in one bit, black: 5 KB that unpack to 153 MB, and 1.2 GB in grey."""
    side = 35_000
    packed = zlib.compress(zlib.compress(bytes(side * side // 8), 9), 9)
    keys = (
        f"/Type/XObject/Subtype/Image/Width {side}/Height {side}/BitsPerComponent 1"
        "/ColorSpace/DeviceGray/Filter[/FlateDecode/FlateDecode]"
    )
    page = "/MediaBox[0 0 14400 14400]/Resources<</XObject<</I 4 0 R>>>>/Contents 5 0 R"
    draw = stream("", b"14400 0 0 14400 0 0 cm /I Do")
    path = raw_pdf(tmp_path / "bomb.pdf", page, stream(keys, packed), draw)
    (made,) = document.pages(path)

    assert (made.width, made.height) == (1540, 1540)
    assert picture(made).getpixel((700, 700)) == (0, 0, 0)


@pytest.mark.parametrize("box", ["0 0 0 0", "0 0 1e30 1e30", "5 5 -9 nan", "0 0 0.001 9000"])
def test_strange_boxes(tmp_path: Path, box: str) -> None:
    """MuPDF makes a page of any of them."""
    (made,) = document.pages(raw_pdf(tmp_path / "a.pdf", f"/MediaBox[{box}]"), longest_side=280)
    assert max(made.width, made.height) == 280


def test_a_page_that_takes_too_long(tmp_path: Path) -> None:
    """Forms that draw each other ten times each, ten levels deep: 10,000,000,000 lines."""
    levels = range(4, 14)
    forms = [
        stream(
            "/Type/XObject/Subtype/Form/BBox[0 0 99 99]"
            f"/Resources<</XObject<</F {level + 1} 0 R>>>>",
            b"/F Do\n" * 10,
        )
        for level in levels
    ]
    last = stream("/Type/XObject/Subtype/Form/BBox[0 0 99 99]", b"0 0 m 9 9 l S\n" * 10)
    page = "/MediaBox[0 0 99 99]/Resources<</XObject<</F 4 0 R>>>>/Contents 15 0 R"
    path = raw_pdf(tmp_path / "slow.pdf", page, *forms, last, stream("", b"/F Do"))

    with pytest.raises(MediaError, match=r"decoding page 1 of '.*slow.pdf' took more than 1 s"):
        next(document.pages(path, timeout=1))
    assert next(document.pages(DOCUMENTS / "c03-29.pdf")).number == 0


def test_the_error_of_a_page_comes_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(
        b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>> endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 2/MediaBox[0 0 9 9]>> endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R>> endobj\n"
        b"trailer<</Root 1 0 R>>"
    )
    some = document.pages(path, longest_side=28)
    assert next(some).number == 0
    with pytest.raises(MediaError, match=r"cannot render page 2 of '.*a.pdf'"):
        next(some)


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", *[(100, 100)] * 9)
    some = document.pages(path, longest_side=28, workers=1)
    assert next(some).number == 0
    write_pdf(path, (200, 100))
    with pytest.raises(MediaError, match="was changed while it was read"):
        list(some)

    (again,) = document.pages(path, longest_side=56)
    assert (again.width, again.height) == (56, 28)


def test_only_as_many_pages_are_made_as_are_taken(tmp_path: Path) -> None:
    """A file that vanishes is noticed by those that were not made yet."""
    path = write_pdf(tmp_path / "a.pdf", *[(100, 100)] * 100)
    some = document.pages(path, longest_side=28, workers=2)
    next(some)
    path.unlink()
    taken = 1
    with pytest.raises(MediaError, match="was changed"):
        for _ in some:
            taken += 1
    assert taken <= 6


def scan(path: Path, jpeg: bytes) -> Path:
    """A PDF of one page that shows a JPEG, be it whole or not."""
    keys = "/Type/XObject/Subtype/Image/Width 280/Height 280/ColorSpace/DeviceRGB"
    return raw_pdf(
        path,
        "/MediaBox[0 0 280 280]/Resources<</XObject<</A 5 0 R>>>>/Contents 4 0 R",
        stream("", b"280 0 0 280 0 0 cm /A Do"),
        stream(f"{keys}/BitsPerComponent 8/Filter/DCTDecode", jpeg),
    )


def test_damaged_picture_is_told_of_each_time(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.radial_gradient("L").resize((280, 280)).convert("RGB").save(jpeg, "JPEG")
    whole = jpeg.getvalue()
    damaged = [whole[: len(whole) // 2], whole[:100], bytes(500), b""]
    for data in damaged:
        path = scan(tmp_path / "scan.pdf", data)
        for _ in range(2 * pool.SIZE):  # so that a process shows it a second time
            (page,) = document.pages(path)
            assert page.damage
    (page,) = document.pages(scan(tmp_path / "scan.pdf", whole))
    assert page.damage == ""


def test_real_scans() -> None:
    (book,) = document.pages(DOCUMENTS / "c03-29.pdf")
    (turned,) = document.pages(DOCUMENTS / "rotated_skew.pdf")

    assert (book.width, book.height, book.text) == (1204, 1540, "")
    assert (turned.width, turned.height, turned.rotation) == (1176, 1540, 90)
    for page in (book, turned):
        assert page.damage == ""
        grey = picture(page).convert("L")
        # Print on paper: some of it dark, most of it light.
        dark = sum(grey.histogram()[:100]) / (grey.width * grey.height)
        assert 0.02 < dark < 0.4


def test_the_users_process_does_not_import_the_decoder() -> None:
    script = (
        "import sys\n"
        "from langchain_glm4v.media import document\n"
        f"print(len(list(document.pages({str(DOCUMENTS / 'c03-29.pdf')!r}))))\n"
        "print({'pymupdf', 'fitz', 'PIL'} & {*sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout == b"1\nset()\n"


def test_no_pymupdf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A decoding process that cannot import it."""
    (tmp_path / "pymupdf.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pool, "_idle", [])
    with pytest.raises(
        MediaError, match=r"needs PyMuPDF, which is not installed.*, or pip install"
    ):
        document.info(DOCUMENTS / "c03-29.pdf")
    for worker in pool._idle:
        worker.kill()
