"""What is told of media before they are sent, against what is then sent."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from langchain_core.documents.base import Blob
from langchain_core.messages import HumanMessage
from PIL import Image

from langchain_glm4v import MediaError, MediaNotFoundError, UnsupportedMediaError, plan
from langchain_glm4v.media import document, image
from langchain_glm4v.media.budget import image_tokens
from langchain_glm4v.media_plan import MediaPlan, MediumPlan
from langchain_glm4v.messages import to_wire
from langchain_glm4v.turns import parts_of, size_of


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((640, 480), 60).save(path)
    return path


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    """Three pages, the last one lying."""
    path = tmp_path / "three.pdf"
    with pymupdf.open() as made:
        for width, height in ((300, 420), (300, 420), (420, 300)):
            made.new_page(width=width, height=height)
        made.save(path)
    return path


@pytest.fixture
def blocks(png: Path, pdf: Path, film: Path) -> list[str | dict[str, Any]]:
    """One of each kind, with options."""
    return [
        {"type": "text", "text": "Look:"},
        {"type": "image", "path": str(png), "max_tokens": 100},
        {"type": "file", "path": str(pdf), "longest_side": 420, "pages": "2-"},
        {"type": "video", "path": str(film), "start": 1, "fps": 1},
    ]


def asked(blocks: list[str | dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a request that show these blocks, a video in one of its own."""
    *pictures, video = blocks
    return [
        part
        for content in (pictures, [video])
        for part in parts_of(to_wire([HumanMessage(content)])[0])
    ]


def test_each_kind(blocks: list[str | dict[str, Any]], png: Path, pdf: Path, film: Path) -> None:
    told = plan(blocks)
    picture, document_, video = told.media

    assert (picture.kind, picture.source) == ("picture", repr(str(png)))
    assert picture.sizes == ((308, 224),)
    assert (picture.items, picture.pixels, picture.tokens) == (1, 308 * 224, 11 * 8 + 2)
    assert (document_.kind, document_.source) == ("document", repr(str(pdf)))
    assert document_.sizes == ((308, 420), (420, 308))
    assert (document_.items, document_.tokens) == (2, 2 * (11 * 15 + 2))
    assert (video.kind, video.source, video.seconds) == ("video", repr(str(film)), (1, 2, 3, 4))
    assert (video.sizes, video.fps) == (((112, 84),) * 4, 1)
    assert video.tokens == 2 * (4 * 3 + 2 + 1) + 2
    assert picture.seconds == document_.seconds == ()
    assert told.items == 7
    assert told.pixels == sum(medium.pixels for medium in told.media)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_tokens_are_those_that_the_count_of_a_conversation_gains(
    number: int, blocks: list[str | dict[str, Any]], writer: type[Any], vllm: Any
) -> None:
    model = writer(vllm, "").model()
    counts = [
        model.get_num_tokens_from_messages([HumanMessage(content)])
        for content in ([blocks[0]], [blocks[0], blocks[number]])
    ]

    assert plan(blocks[number]).tokens == counts[1] - counts[0]


def test_bytes_are_those_of_the_request(blocks: list[str | dict[str, Any]]) -> None:
    told = plan(blocks)
    sent = asked(blocks)[1:]

    assert told.bytes == sum(map(size_of, sent))
    assert [medium.bytes > 0 for medium in told.media] == [True] * 3


def test_what_is_planned_is_kept_for_the_request(
    blocks: list[str | dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = plan(blocks)
    for module, name in ((image, "prepare"), (document, "pages")):
        monkeypatch.delattr(module, name)

    assert plan(blocks) == told
    assert len(asked(blocks)) == 5


@pytest.mark.parametrize(
    "given",
    [
        lambda path: path,
        str,
        lambda path: path.as_uri(),
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        Blob.from_path,
        lambda path: Blob.from_data(path.read_bytes(), mime_type="text/plain"),
        lambda path: "data:;base64," + base64.b64encode(path.read_bytes()).decode(),
    ],
)
def test_kinds_are_found_by_content(
    given: Callable[[Path], Any], png: Path, pdf: Path, film: Path, tmp_path: Path
) -> None:
    misnamed = [path.rename(tmp_path / f"{n}.txt") for n, path in enumerate((png, pdf))]
    told = plan([given(path) for path in (*misnamed, film)])

    assert [medium.kind for medium in told.media] == ["picture", "document", "video"]
    assert [medium.items for medium in told.media] == [1, 3, 8]


def test_bytes_and_the_block_that_holds_them_are_one(png: Path) -> None:
    data = png.read_bytes()
    [told] = plan(data).media
    [block] = plan({"type": "image", "base64": base64.b64encode(data).decode()}).media

    assert (told.sizes, told.tokens, told.bytes) == (block.sizes, block.tokens, block.bytes)
    assert told.source == f"the picture of {len(data)} bytes"


def test_a_single_one_that_is_a_sequence_of_numbers(png: Path) -> None:
    for given in (bytearray, memoryview, Blob.from_data):
        assert plan(given(png.read_bytes())).items == 1


def test_a_format_that_only_its_type_tells() -> None:
    data = io.BytesIO()
    Image.new("RGB", (28, 28)).save(data, "PCX")
    with pytest.raises(UnsupportedMediaError, match="that its first bytes tell"):
        plan(data.getvalue())

    assert plan(Blob.from_data(data.getvalue(), mime_type="image/x-pcx")).media[0].kind == "picture"


def test_a_video_gets_half_of_the_context(large_film: Path) -> None:
    marks = 30

    assert plan(large_film).tokens > 1728
    assert plan(large_film, context_tokens=800).tokens < 400 + marks


def test_an_image_of_pil() -> None:
    [medium] = plan(Image.new("RGB", (56, 84))).media

    assert medium.source == "the PIL image of 56x84 pixels"
    assert (medium.sizes, medium.tokens) == (((56, 84),), image_tokens(56, 84) + 2)


def test_urls_are_fetched_once(pdf: Path, web: Any) -> None:
    url = web.give("/a?key=1", pdf.read_bytes())
    [medium] = plan(url, allow_hosts=["127.0.0.1"]).media
    plan({"type": "file", "url": url}, allow_hosts=["127.0.0.1"])

    assert (medium.kind, medium.items) == ("document", 3)
    assert "key" not in medium.source
    assert web.paths == ["/a?key=1"]


def test_the_form_of_a_video(film: Path) -> None:
    seconds = {form: plan(film, video=form).media[0].bytes for form in ("frames", "mp4")}

    assert seconds["frames"] != seconds["mp4"]


def test_a_document_is_called_by_its_filename(pdf: Path) -> None:
    block = {
        "type": "file",
        "base64": base64.b64encode(pdf.read_bytes()).decode(),
        "filename": "bill.pdf",
    }

    assert plan(block).media[0].source == "'bill.pdf'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"text", "the medium of .* is no picture, document or video that its first bytes tell"),
        (b"%PDF-", "the document of .* is not a document"),
        ({"type": "image"}, "has no picture"),
        ({"type": "audio"}, "cannot be sent"),
        (7, "a int cannot be sent as a medium: give a path"),
        ([[b""]], "a list cannot be sent as a medium"),
    ],
)
def test_what_cannot_be_sent(given: Any, message: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=message):
        plan(given)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no medium at '.*none\.png'"):
        plan([tmp_path / "none.png"])


def test_too_many_pages(pdf: Path) -> None:
    for _ in range(2):
        with pytest.raises(MediaError, match="has 3 pages to be sent, and 2 can be sent at once"):
            plan(pdf, max_pages=2)
        assert plan(pdf).items == 3  # and what is kept now is no way round


@pytest.mark.parametrize("max_pages", [0, -1, "2", 1.5, []])
def test_a_number_of_pages_that_makes_no_sense(max_pages: Any, pdf: Path, png: Path) -> None:
    for path in (pdf, png):
        with pytest.raises(MediaError, match="give a whole number above 0"):
            plan(path, max_pages=max_pages)


def test_the_table() -> None:
    told = MediaPlan(
        (
            MediumPlan("picture", "'a.png'", ((640, 480),), 393, 1234),
            MediumPlan("document", "'b.pdf'", ((28, 56), (56, 56)), 22, 1_234_567),
            MediumPlan("video", "'c.mp4'", ((56, 56),) * 2, 17, 89, (0.5, 1.0), 2.0),
        )
    )

    assert str(told).splitlines() == [
        "kind      items          pixels  tokens      bytes              seconds  source",
        "picture       1         640x480     393      1,234                       'a.png'",
        "document      2  28x56 to 56x56      22  1,234,567                       'b.pdf'",
        "video         2           56x56      17         89  0.5 to 1.0 at 2 fps  'c.mp4'",
        "total         5                     432  1,235,890",
    ]
    assert str(MediaPlan(())).splitlines()[1:] == ["total      0               0      0"]
