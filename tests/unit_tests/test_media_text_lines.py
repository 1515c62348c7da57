"""Lines of print in pictures of pages."""

import pytest
from PIL import Image
from printed_pages import CHINESE, GROUND, OTHER_STORY, STORY, Printed, jpeg

from langchain_glm4v.errors import MediaError
from langchain_glm4v.grounding import Box, match
from langchain_glm4v.media import text_lines
from langchain_glm4v.media.scan import Turn
from langchain_glm4v.media.text_lines import PageLines


def boxes(found: PageLines) -> list[Box]:
    return [
        Box.from_pixels((line.left, line.top, line.right, line.bottom), found.width, found.height)
        for line in found.lines
    ]


def letter() -> Printed:
    page = Printed()
    page.line("Annual Report", 100, 80, 56)
    below = page.paragraph(STORY, 100, 200, 880, 24)
    page.paragraph(OTHER_STORY, 100, below + 40, 880, 16)
    return page


def test_every_line_is_found_where_it_was_printed() -> None:
    page = letter()

    found = boxes(text_lines.find(page.jpeg, "a page"))

    wanted = [box for _, box in page.lines]
    assert len(match(found, wanted, iou=0.8)) == len(wanted) == len(found)


def test_words_of_a_line_are_told() -> None:
    page = Printed()
    page.line("one small step for mankind", 100, 100, 28)

    (line,) = text_lines.find(page.jpeg, "a page").lines

    assert len(line.words) == 5
    assert (line.words[0][0], line.words[-1][1]) == (line.left, line.right)


def test_chinese_lines_are_found() -> None:
    page = Printed()
    page.paragraph(CHINESE, 100, 100, 880, 28, chinese=True)

    found = boxes(text_lines.find(page.jpeg, "a page"))

    assert len(match(found, [box for _, box in page.lines], iou=0.8)) == len(page.lines)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_page_is_turned_first(turn: Turn) -> None:
    page = letter()
    lying = page.picture.rotate(turn, expand=True)  # the other way round than `turn`

    found = boxes(text_lines.find(jpeg(lying), "a page", turn))

    wanted = [box for _, box in page.lines]
    assert len(match(found, wanted, iou=0.8)) == len(wanted) == len(found)


@pytest.mark.parametrize("degrees", [-2.5, 2.0])
def test_lines_that_fall_are_told_with_their_slope(degrees: float) -> None:
    page = letter()
    skewed = page.picture.rotate(degrees, fillcolor=GROUND, resample=Image.Resampling.BICUBIC)

    found = text_lines.find(jpeg(skewed), "a page")

    assert found.slope == pytest.approx(-degrees / 57.3, abs=0.004)
    assert len(found.lines) == len(page.lines)


def test_lines_set_close_are_told_apart() -> None:
    page = Printed()
    for number in range(6):
        page.line("Typography jumps quickly by going slowly", 100, 100 + 28 * number, 28)

    assert len(text_lines.find(page.jpeg, "a page").lines) == 6


def test_rules_and_pictures_are_no_lines() -> None:
    page = letter()
    page.picture.paste((30, 60, 90), (100, 1000, 700, 1400))
    page.picture.paste((0, 0, 0), (100, 170, 980, 173))

    found = boxes(text_lines.find(page.jpeg, "a page"))

    assert len(match(found, [box for _, box in page.lines], iou=0.8)) == len(page.lines)
    assert len(found) <= len(page.lines) + 5


def test_white_print_on_dark_ground_is_found() -> None:
    page = Printed()
    page.line("white on black", 100, 100, 28)
    inverted = page.picture.point(lambda shade: 255 - shade)

    assert len(text_lines.find(jpeg(inverted), "a page").lines) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (1092, 1540)])
def test_an_empty_page_has_none(size: tuple[int, int]) -> None:
    assert text_lines.find(jpeg(Image.new("RGB", size, GROUND)), "a page").lines == ()


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(MediaError, match=r"page 3 of 'scan\.pdf'"):
        text_lines.find(b"no picture", "page 3 of 'scan.pdf'")
