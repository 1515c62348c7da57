"""Boxes drawn on pictures."""

import base64
import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents.base import Blob
from PIL import Image, ImageChops

from langchain_glm4v import Box, crop, draw, drawing
from langchain_glm4v.errors import (
    MediaError,
    MediaNotFoundError,
    RequestError,
    UnsupportedMediaError,
)

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (198, 40, 40)
HALF = Box(250, 250, 750, 750)
GROUNDS = [WHITE, BLACK, RED, (128, 128, 128), (21, 101, 192), (255, 235, 59)]


def plain(size: tuple[int, int] = (400, 300), colour: Any = WHITE) -> Image.Image:
    return Image.new("RGB", size, colour)


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def changed(drawn: Image.Image, ground: Image.Image) -> tuple[int, int, int, int] | None:
    return ImageChops.difference(drawn, ground).getbbox()


def contrast(one: Any, other: Any) -> float:
    """The contrast of two colours as WCAG 2 counts it: 1 to 21."""

    def light(colour: Any) -> Any:
        parts = [c / 3294.6 if c < 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05

    return float(max(light(one) / light(other), light(other) / light(one)))


# --- lines ---


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_box_is_seen_on_any_ground(ground: Any) -> None:
    drawn = draw(plain(colour=ground), [HALF])

    across = [drawn.getpixel((x, 150)) for x in range(96, 106)]  # its left side is at 100
    assert max(contrast(colour, ground) for colour in across) >= 3
    assert across[0] == ground == drawn.getpixel((200, 150))


def test_lines_are_where_the_box_is() -> None:
    drawn = draw(plain(), [HALF])

    # On white ground, the white edge of the lines is not to be seen.
    assert changed(drawn, plain()) == (100, 75, 300, 225)
    assert drawn.getpixel((100, 75)) == drawn.getpixel((299, 224)) == RED


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        (Box(-500, 500, 500, 2000), (0, 150, 200, 300)),
        (Box(750, 750, 250, 250), (100, 75, 300, 225)),
        (Box(1001, 0, 1200, 100), None),
    ],
)
def test_what_leaves_the_picture(box: Box, seen: Any) -> None:
    assert changed(draw(plain(), [box]), plain()) == seen


@pytest.mark.parametrize("at", [0, 500, 1000])
def test_a_point_is_seen(at: int) -> None:
    drawn = draw(plain(), [Box(at, at, at, at)])
    left, top, right, bottom = changed(drawn, plain()) or (0, 0, 0, 0)
    assert left <= min(at * 400 // 1000, 399) < right <= left + 5
    assert top <= min(at * 300 // 1000, 299) < bottom <= top + 5


def test_lines_grow_with_the_picture() -> None:
    widths = []
    for side in (50, 500, 5000):
        drawn = draw(plain((side, side)), [HALF])
        row = [drawn.getpixel((x, side // 2)) for x in range(side // 2)]
        widths.append(row.count(RED))
    assert widths == [1, 2, 20]


def test_nothing_to_draw() -> None:
    assert changed(draw(plain(), []), plain()) is None


@settings(max_examples=40)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(
        st.builds(
            Box,
            *[st.floats(-100, 1100) for _ in range(4)],
            label=st.text(max_size=30)
            | st.sampled_from(["red circle", "红色圆形", "", "x" * 2000]),
        ),
        max_size=5,
    ),
)
def test_any_picture_and_any_boxes(width: int, height: int, boxes: list[Box]) -> None:
    ground = plain((width, height), GROUNDS[3])
    drawn = draw(ground, boxes)

    assert drawn.size == (width, height)
    assert ground.getcolors() == [(width * height, GROUNDS[3])]  # the given one stays as it was


# --- labels ---


def label_of(text: str, *more: Box, size: tuple[int, int] = (400, 300)) -> Image.Image | None:
    """What stands above a box in the middle."""
    drawn = draw(plain(size), [Box(250, 250, 750, 750, text), *more])
    above = drawn.crop((0, 0, size[0], size[1] // 4 - 1))
    found = changed(above, plain(above.size))
    return above.crop(found) if found else None


def test_labels_are_printed() -> None:
    texts = ["red circle", "red square", "红色圆形", "蓝色圆形", "かな", "한글", "Ωя"]
    labels = [label_of(text) for text in texts]

    assert all(label is not None for label in labels)
    assert len({label.tobytes() for label in labels if label}) == len(texts)
    for label in filter(None, labels):
        colours: list[Any] = [colour for _, colour in label.getcolors(9999) or []]
        assert RED in colours
        assert max(contrast(colour, RED) for colour in colours) >= 4


def test_a_label_that_cannot_be_printed_is_the_number() -> None:
    (number, label) = (label_of("", Box(0, 900, 9, 950)), label_of("ตะกร้า 🧺"))
    assert number is not None
    assert label is not None
    assert number.tobytes() == label.tobytes()


def test_characters_that_cannot_be_printed_are_left_out() -> None:
    clean, odd = label_of("red circle"), label_of("🔴 red\n\x00 circle\ud83d ")
    assert clean is not None
    assert odd is not None
    assert clean.tobytes() == odd.tobytes()


def test_a_single_box_without_a_label_has_none() -> None:
    assert label_of("") is None


def test_several_boxes_without_labels_are_numbered() -> None:
    boxes = [Box(100, 400, 300, 600), Box(400, 400, 600, 600), Box(700, 400, 900, 600)]
    drawn = draw(plain(), boxes)
    numbers = [drawn.crop((x, 90, x + 20, 119)) for x in (40, 160, 280)]
    assert len({number.tobytes() for number in numbers}) == 3


def test_one_label_has_one_colour() -> None:
    boxes = [Box(0, 500, 200, 700, "a"), Box(300, 500, 500, 700, "b"), Box(600, 500, 800, 700, "a")]
    drawn = draw(plain(), boxes)
    first, second, third = (drawn.getpixel((x, 209)) for x in (0, 120, 240))
    assert first == third != second


@pytest.mark.parametrize("corner", [(0, 0), (900, 0), (0, 900), (900, 900)])
def test_labels_at_the_edges_are_whole(corner: tuple[int, int]) -> None:
    x, y = corner
    box = Box(x, y, x + 100, y + 100, "at the edge of it")
    drawn = draw(plain(), [box])
    label = label_of("at the edge of it")
    found = changed(drawn, plain())

    assert label is not None
    assert found is not None
    assert found[2] - found[0] >= label.width
    assert found[3] - found[1] >= label.height


def test_a_long_label_is_cut() -> None:
    label = label_of("word " * 500)
    assert label is not None
    assert 350 < label.width <= 400


def test_labels_do_not_hide_each_other() -> None:
    labels = drawing._Labels(plain(), [])
    for name in ("first", "second", "third", "fourth"):
        labels.write(name, (160, 120, 240, 180), "#c62828")
    places = labels._taken

    assert len(set(places)) == 4
    assert not any(drawing._shared(one, other) for one, other in combinations(places, 2))


def test_no_label_hides_a_tiny_picture() -> None:
    assert label_of("red circle", size=(40, 40)) is None
    assert label_of("red circle", size=(100, 100)) is not None


def test_thousands_of_boxes() -> None:
    boxes = [
        Box(x, y, x + 9, y + 9, f"{x} {y}") for x in range(0, 1000, 20) for y in range(0, 1000, 20)
    ]
    drawn = draw(plain((1000, 1000)), boxes)
    assert drawn.getpixel((980, 985)) != WHITE


# --- pictures ---


def half_red() -> Image.Image:
    """Red on the left, white on the right."""
    picture = plain((40, 20))
    picture.paste(RED, (0, 0, 20, 20))
    return picture


def test_any_source(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    half_red().save(path)
    data = path.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"

    for source in (path, str(path), path.as_uri(), url, data, Blob.from_data(data), half_red()):
        assert draw(source, []).tobytes() == half_red().tobytes()
    with Image.open(path) as unread:
        assert draw(unread, []).tobytes() == half_red().tobytes()


@pytest.mark.parametrize("as_file", [True, False])
def test_boxes_count_on_the_upright_picture(as_file: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    data = file_of(half_red(), exif=exif)
    upper = crop(data if as_file else Image.open(io.BytesIO(data)), Box(0, 0, 1000, 500))

    assert upper.size == (20, 20)
    assert upper.getcolors() == [(400, RED)]
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    whole = draw(loaded, [])
    assert whole.size == (20, 40)
    assert 0x0112 not in Image.open(io.BytesIO(file_of(whole))).getexif()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_any_mode(mode: str) -> None:
    given = plain((8, 8), "black").convert("L").convert(mode)
    drawn = draw(given, [Box(0, 0, 1000, 1000)])
    assert drawn.mode == "RGB"
    assert drawn.getpixel((0, 0)) == RED


def test_transparent_parts_are_white() -> None:
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for source in (picture, file_of(picture)):
        assert draw(source, []).getcolors() == [(64, WHITE)]


def test_the_first_page_of_a_tiff() -> None:
    data = file_of(plain((9, 9), RED), "TIFF", save_all=True, append_images=[plain((5, 5))])
    assert draw(data, []).getcolors() == [(81, RED)]


def test_pictures_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no picture at .*none\.png"):
        draw(tmp_path / "none.png", [])
    with pytest.raises(UnsupportedMediaError, match="is not a picture, or a damaged one"):
        draw(file_of(half_red())[:60], [])
    with pytest.raises(MediaError, match="has 20000x20000 pixels, more than the 89478485"):
        draw(file_of(Image.new("1", (20_000, 20_000))), [])


def test_files_are_not_decoded_in_the_callers_process(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    half_red().save(path)
    program = f"""
import sys
from langchain_glm4v import Box, crop, draw
assert not {{"PIL", "pymupdf"}} & sys.modules.keys()
draw({str(path)!r}, [Box(0, 0, 9, 9, "cat")])
crop({str(path)!r}, Box(0, 0, 9, 9))
assert not {{"PIL.PngImagePlugin", "pymupdf", "langchain_core"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# --- crops ---


def test_crops() -> None:
    picture = half_red()

    assert crop(picture, Box(0, 0, 500, 1000)).getcolors() == [(400, RED)]
    assert crop(picture, Box(500, 0, 1000, 500)).size == (20, 10)
    assert crop(picture, Box(250, 250, 750, 750), margin=0.1).size == (24, 12)
    assert crop(picture, Box(750, 750, 250, 250), margin=9).size == (40, 20)
    assert crop(picture, Box(1000, 1000, 1000, 1000)).size == (1, 1)


@given(st.builds(Box, *[st.floats(0, 1000) for _ in range(4)]), st.floats(0, 2))
def test_any_crop(given_box: Box, margin: float) -> None:
    box = given_box.clipped()
    assert box is not None
    left, top, right, bottom = box.to_pixels(40, 20)
    cut = crop(half_red(), box, margin)

    assert max(1, right - left) <= cut.width <= 40
    assert max(1, bottom - top) <= cut.height <= 20


def test_crops_that_are_none() -> None:
    with pytest.raises(ValueError, match="lies outside the picture, whose sides are 0 to 1000"):
        crop(half_red(), Box(1200, 0, 1300, 10))
    with pytest.raises(ValueError, match="the margin is -1: give 0 or more"):
        crop(half_red(), HALF, margin=-1)
    with pytest.raises(RequestError, match="the margin is nan: give 0 or more"):
        crop(half_red(), HALF, margin=float("nan"))
