"""PDFs of scans that can be searched."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from printed_pages import CHINESE, OTHER_STORY, STORY, Printed, pymupdf

from langchain_glm4v.errors import MediaError, MediaNotFoundError
from langchain_glm4v.grounding import Box
from langchain_glm4v.transcription.records import DocumentFacts, Origin, PageResult, Reading
from langchain_glm4v.transcription.searchable import write_searchable
from langchain_glm4v.transcription.sources import find

A4 = (595, 842)


def result(number: int, text: str, *, turn: int = 0, origin: Origin = "model") -> PageResult:
    return PageResult(
        document=DocumentFacts(source="scan.pdf", total_pages=9),
        number=number,
        reading=Reading(text=text, origin=origin, turn=turn),
    )


def printed(text: str = STORY, *, chinese: bool = False) -> Printed:
    page = Printed()
    page.paragraph(text, 100, 200, 880, 28, chinese=chinese)
    return page


def scan(path: Path, *pages: Printed, turn: int = 0, rotation: int = 0, **options: Any) -> Path:
    """A PDF of pictures that lie `turn` degrees to the right, on pages with a /Rotate."""
    with pymupdf.open() as made:
        for one in pages:
            lying = one.picture.rotate(-turn, expand=True)
            size = A4 if lying.width < lying.height else A4[::-1]
            page = made.new_page(width=size[0], height=size[1])
            page.insert_image(page.rect, pixmap=pixmap(lying))
            page.set_rotation(rotation)
        made.set_metadata({"title": "Letters", "author": "A. Writer"})
        made.set_toc([[1, "First", 1]])
        made.save(path, **options)
    return path


def pixmap(picture: Image.Image) -> Any:
    return pymupdf.Pixmap(pymupdf.csRGB, *picture.size, picture.tobytes(), False)


def box_of(page: Any, found: Any) -> Box:
    return Box.from_pixels(tuple(found), page.rect.width, page.rect.height)


def looks(path: Path, password: str = "") -> list[bytes]:
    with pymupdf.open(path) as document:
        document.authenticate(password)
        return [page.get_pixmap().samples for page in document]


def test_each_line_is_found_where_it_was_printed(tmp_path: Path) -> None:
    pages = [printed(), printed(OTHER_STORY)]
    source = scan(tmp_path / "scan.pdf", *pages)
    out = tmp_path / "out.pdf"

    count = write_searchable(source, [result(0, STORY), result(1, OTHER_STORY)], out)

    assert count == 2
    assert looks(out) == looks(source)
    with pymupdf.open(out) as document:
        for page, one in zip(document, pages, strict=True):
            assert page.get_text().split() == [w for text, _ in one.lines for w in text.split()]
            for text, box in one.lines:
                (found,) = page.search_for(text)
                shown = box_of(page, found)
                assert shown.iou(box) > 0.8
                assert abs(shown.right - box.right) < 6


def test_the_rest_of_the_document_is_kept(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed())
    before = source.read_bytes()

    write_searchable(source, [result(0, STORY)], tmp_path / "out.pdf")

    after = (tmp_path / "out.pdf").read_bytes()
    assert source.read_bytes() == before
    assert after.startswith(before)
    assert len(after) < len(before) + 10_000
    with pymupdf.open(tmp_path / "out.pdf") as document:
        assert document.metadata["title"] == "Letters"
        assert document.get_toc() == [[1, "First", 1]]


def test_chinese_and_other_scripts_are_found(tmp_path: Path) -> None:
    strange = "Ελληνικά Кириллица हिन्दी 𠮷 😀"
    source = scan(tmp_path / "scan.pdf", printed(CHINESE, chinese=True), printed())
    out = tmp_path / "out.pdf"

    write_searchable(source, [result(0, CHINESE), result(1, strange)], out)

    assert out.stat().st_size < source.stat().st_size + 10_000
    with pymupdf.open(out) as document:
        assert document[0].get_text().replace("\n", "").replace(" ", "") == CHINESE
        (found,) = document[0].search_for("人民法院")
        assert found.y0 == pytest.approx(200 * 842 / 1540, abs=8)
        for word in strange.split():
            assert word in document[1].get_text()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_turned_pages_are_found_as_they_are_read(tmp_path: Path, rotation: int, turn: int) -> None:
    # As it is shown, the print lies `turn + rotation` to the right.
    source = scan(tmp_path / "scan.pdf", printed(), turn=turn, rotation=rotation)
    out = tmp_path / "out.pdf"

    write_searchable(source, [result(0, STORY, turn=-(turn + rotation) % 360)], out)

    assert lies_along(out) == ((turn + rotation) % 180 == 0)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["CropBox", "MediaBox"])
def test_boxes_that_begin_elsewhere(tmp_path: Path, rotation: int, name: str) -> None:
    source = scan(tmp_path / "scan.pdf", printed())
    with pymupdf.open(source) as document:
        page = document[0]
        if name == "CropBox":
            page.set_cropbox(pymupdf.Rect(30, 70, 560, 800))
        else:
            page.wrap_contents()
            document.xref_set_key(page.xref, name, "[100 200 695 1042]")
            first = page.get_contents()[0]
            moved = b"1 0 0 1 100 200 cm " + document.xref_stream(first)
            document.update_stream(first, moved)
        page.set_rotation(rotation)
        document.save(tmp_path / "moved.pdf")
    out = tmp_path / "out.pdf"

    write_searchable(tmp_path / "moved.pdf", [result(0, STORY, turn=-rotation % 360)], out)

    assert lies_along(out) == (rotation % 180 == 0)


def lies_along(path: Path) -> bool:
    """Whether a line of the story, which must be found where its print is, is broader than high."""
    with pymupdf.open(path) as document:
        page = document[0]
        (found,) = page.search_for("The second part of the sequence") or [None]
        assert found is not None
        found *= page.rotation_matrix
        inked = page.get_pixmap(clip=found, dpi=100)
        whole = page.get_pixmap(dpi=100)
        assert share_of_ink(inked) > 4 * share_of_ink(whole)
        return bool(found.width > found.height)


def share_of_ink(pixels: Any) -> float:
    grey = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.samples).convert("L")
    return float(sum(grey.histogram()[:128]) / (pixels.width * pixels.height))


def test_a_cropped_page_with_shared_resources_keeps_them(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed(), printed())
    with pymupdf.open(source) as document:
        for page in document:
            resources = document.xref_get_key(page.xref, "Resources")[1]
        parent = int(document.xref_get_key(document[0].xref, "Parent")[1].split()[0])
        document.xref_set_key(parent, "Resources", resources)
        for page in document:
            document.xref_set_key(page.xref, "Resources", "null")
            page.set_cropbox(pymupdf.Rect(30, 50, 595, 842))
        document.save(tmp_path / "cropped.pdf", clean=False)
    out = tmp_path / "out.pdf"

    write_searchable(tmp_path / "cropped.pdf", [result(0, STORY), result(1, STORY)], out)

    assert looks(out) == looks(tmp_path / "cropped.pdf")
    with pymupdf.open(out) as document:
        for page in document:
            (found,) = page.search_for("The second part of the sequence")
            assert share_of_ink(page.get_pixmap(clip=found)) > 0.1


def test_a_skewed_page_has_its_words_on_its_lines(tmp_path: Path) -> None:
    page = printed()
    page.picture = page.picture.rotate(-2, fillcolor=(250, 249, 246))
    source, out = scan(tmp_path / "scan.pdf", page), tmp_path / "out.pdf"

    write_searchable(source, [result(0, STORY)], out)

    with pymupdf.open(out) as document:
        lines = [
            line
            for block in document[0].get_text("dict")["blocks"]
            for line in block.get("lines", ())
        ]
    assert lines
    assert all(line["dir"][1] == pytest.approx(0.035, abs=0.008) for line in lines)


def test_pages_with_text_or_without_a_reading_get_none(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", *[printed()] * 4)
    with pymupdf.open(source) as document:
        document[3].insert_text((50, 50), "This page was born digital, as it says itself.")
        document.saveIncr()
    results = [
        result(0, STORY, origin="text layer"),
        result(1, "", origin="none"),
        result(3, STORY),
    ]

    assert write_searchable(source, results, tmp_path / "out.pdf") == 0
    assert (tmp_path / "out.pdf").read_bytes() == source.read_bytes()


def test_text_that_has_no_place_is_found_all_the_same(tmp_path: Path) -> None:
    source, out = scan(tmp_path / "scan.pdf", Printed()), tmp_path / "out.pdf"

    assert write_searchable(source, [result(0, "handwritten remark")], out) == 1
    with pymupdf.open(out) as document:
        assert document[0].search_for("handwritten remark")


def test_an_encrypted_document_stays_so(tmp_path: Path) -> None:
    source = scan(
        tmp_path / "scan.pdf",
        printed(),
        encryption=pymupdf.PDF_ENCRYPT_AES_256,
        user_pw="open",
        owner_pw="own",
    )
    out = tmp_path / "out.pdf"

    with pytest.raises(MediaError, match="password"):
        write_searchable(source, [result(0, STORY)], out)
    assert write_searchable(source, [result(0, STORY)], out, password="open") == 1

    with pymupdf.open(out) as document:
        assert document.needs_pass
        assert document.authenticate("open")
        assert document[0].search_for("The second part of the sequence")


def test_an_encrypted_document_without_an_identifier_can_be_opened(tmp_path: Path) -> None:
    made = scan(tmp_path / "made.pdf", printed())
    source = tmp_path / "scan.pdf"
    with pymupdf.open(made) as document:
        document.xref_set_key(-1, "ID", "[<> <>]")
        document.save(source, encryption=pymupdf.PDF_ENCRYPT_RC4_128, owner_pw="own")
    named = source.read_bytes()
    begin = named.index(b"/ID[")
    end = named.index(b"]", begin) + 1
    source.write_bytes(named[:begin] + b" " * (end - begin) + named[end:])
    with pymupdf.open(source) as document:
        assert document.xref_get_key(-1, "ID") == ("null", "null")
        assert not document.needs_pass
        assert not document.is_repaired

    assert write_searchable(source, [result(0, STORY)], tmp_path / "out.pdf") == 1
    with pymupdf.open(tmp_path / "out.pdf") as document:
        assert not document.needs_pass
        assert document[0].search_for("The second part of the sequence")


def test_a_damaged_document_is_written_anew(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed())
    damaged = source.read_bytes().replace(b"startxref\n", b"startxref\n9")
    source.write_bytes(damaged)

    assert write_searchable(source, [result(0, STORY)], tmp_path / "out.pdf") == 1
    with pymupdf.open(tmp_path / "out.pdf") as document:
        assert not document.is_repaired
        assert document[0].search_for("The second part of the sequence")


def test_pictures_become_pages(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    printed().picture.save(photo, "JPEG", quality=90, dpi=(150, 150))
    out = tmp_path / "out.pdf"

    assert write_searchable(photo, [result(0, STORY)], out) == 1
    assert photo.read_bytes() in out.read_bytes()
    with pymupdf.open(out) as document:
        assert document[0].rect.width == pytest.approx(1092 / 150 * 72)
        assert document[0].search_for("The second part of the sequence")


def test_each_page_of_a_tiff_becomes_one(tmp_path: Path) -> None:
    fax = tmp_path / "fax.tiff"
    pages = [printed(text).picture.convert("1") for text in (STORY, OTHER_STORY)]
    pages[0].save(fax, save_all=True, append_images=pages[1:], compression="group4")

    assert write_searchable(fax, [result(1, OTHER_STORY)], tmp_path / "out.pdf") == 1
    with pymupdf.open(tmp_path / "out.pdf") as document:
        assert [bool(page.get_text()) for page in document] == [False, True]
        assert max(document[0].rect[2:]) == pytest.approx(842)


def test_nothing_is_left_behind_when_the_results_end_early(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed())
    out = tmp_path / "out.pdf"
    out.write_bytes(b"older")

    def results() -> Iterator[PageResult]:
        yield result(0, STORY)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_searchable(source, results(), out)

    assert out.read_bytes() == b"older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.pdf", "scan.pdf"]


def test_what_is_being_written_is_not_read_with_its_folder(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed())

    def results() -> Iterator[PageResult]:
        assert [file.name for file in find(tmp_path)] == [str(source)]
        assert [*tmp_path.glob(".glm4v-*.part/*")]
        yield result(0, STORY)

    assert write_searchable(source, results(), tmp_path / "out.pdf") == 1


def test_the_source_may_be_replaced(tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.pdf", printed())
    source.chmod(0o640)

    assert write_searchable(source, [result(0, STORY)], source) == 1
    with pymupdf.open(source) as document:
        assert document[0].search_for("The second part of the sequence")
    assert stat.S_IMODE(source.stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize(
    ("number", "out", "error"),
    [(7, "out.pdf", "has 1 pages"), (0, "nowhere/out.pdf", "cannot write .*nowhere/out.pdf")],
)
def test_what_cannot_be_done_is_told(tmp_path: Path, number: int, out: str, error: str) -> None:
    source = scan(tmp_path / "scan.pdf", printed())

    with pytest.raises(MediaError, match=error):
        write_searchable(source, [result(number, STORY)], tmp_path / out)
    with pytest.raises(MediaNotFoundError):
        write_searchable(tmp_path / "missing.pdf", [], tmp_path / "out.pdf")
