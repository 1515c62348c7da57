"""Boxes in answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.grounding import Box, find_boxes

sides = st.integers(0, 1000) | st.floats(0, 1000).map(lambda x: round(x, 2))


def sides_of(text: str) -> list[tuple[float, ...]]:
    return [tuple(box) for box in find_boxes(text)]


@given(st.lists(st.tuples(sides, sides, sides, sides), max_size=5))
def test_boxes_of_any_number(boxes: list[tuple[float, ...]]) -> None:
    written = ",".join(f"[{', '.join(map(str, box))}]" for box in boxes)

    assert sides_of(f"[{written}]") == boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[[10,20,30,40]]", [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("(10,20,30,40) and {1,2,3,4}, <5,6,7,8>", [(10, 20, 30, 40), (1, 2, 3, 4), (5, 6, 7, 8)]),
        ("left_click(start_box='[10,\n20,30 ,40]')", [(10, 20, 30, 40)]),
        ('[{"bbox_2d": [10,20,30,40], "label": "2 cats"}]', [(10, 20, 30, 40)]),
        ("[[010,020,300,400]]", [(10, 20, 300, 400)]),
        ("[-1,2.5,3,4]", [(-1, 2.5, 3, 4)]),
        ("[10,20,30]", []),
        ("[10,20]", []),
        ("1.2.3.4,5,6,7", []),
        ("no box", []),
        ("", []),
    ],
)
def test_shapes(text: str, boxes: list[tuple[float, ...]]) -> None:
    assert sides_of(text) == boxes


def test_pixels() -> None:
    assert Box(0, 250, 500.5, 1000).to_pixels(640, 480) == (0, 120, 320, 480)


@pytest.mark.parametrize("text", ["1" * 300_000, "1," * 100_000, "1 " * 150_000, "9" * 9000 + ",1"])
def test_no_text_takes_long(text: str) -> None:
    assert sides_of(text + "[1,2,3,4]")[-1][1:] == (2, 3, 4)


@given(st.text(alphabet="0123456789.,-[] ٣"))
def test_no_text_is_too_odd(text: str) -> None:
    assert all(len([*box]) == 4 for box in find_boxes(text))
