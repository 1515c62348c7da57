"""Boxes in answers."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.grounding import (
    LABEL_PROMPT,
    LOCATE_PROMPT,
    PINPOINT_PROMPT,
    Box,
    find_boxes,
    match,
)

sides = st.integers(0, 1000) | st.floats(0, 1000).map(lambda x: round(x, 2))
any_boxes = st.builds(Box, sides, sides, sides, sides)
one, two = Box(1, 2, 3, 4), Box(5, 6, 7, 8)


def sides_of(text: str) -> list[tuple[float, ...]]:
    return [tuple(box) for box in find_boxes(text)]


def labels_of(text: str) -> list[str]:
    return [box.label for box in find_boxes(text)]


# --- boxes in texts ---


@given(st.lists(st.tuples(sides, sides, sides, sides), max_size=5))
def test_boxes_of_any_number(boxes: list[tuple[float, float, float, float]]) -> None:
    written = ",".join(f"[{', '.join(map(str, box))}]" for box in boxes)

    assert sides_of(f"[{written}]") == [tuple(Box(*box)) for box in boxes]


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[[10,20,30,40]]", [(10, 20, 30, 40)]),
        ("[10, 20, 30, 40]", [(10, 20, 30, 40)]),
        ("(10,20,30,40) and {1,2,3,4}, <5,6,7,8>", [(10, 20, 30, 40), (1, 2, 3, 4), (5, 6, 7, 8)]),
        ("left_click(start_box='[10,\n20,30 ,40]')", [(10, 20, 30, 40)]),
        ("[[010,020,300,400]]", [(10, 20, 300, 400)]),
        ("[-1,2.5,3,4]", [(-1, 2.5, 3, 4)]),
        ("[999999999,1,2,3]", [(2, 1, 999999999, 3)]),
        ("[9999999999,1,2,3]", []),  # no text may bring numbers that nothing can be done with
        ("[1,2,3,9999999999]", []),
        ("[10,20,30]", []),
        ("[10,20]", []),
        ("1.2.3.4,5,6,7", []),
        # Corners in brackets of their own, and what is no box of this kind.
        ("[[1,2],[3,4]]", [(1, 2, 3, 4)]),
        ("(1,2),(3,4)", [(1, 2, 3, 4)]),
        ("<box>( 1, 2 ), ( 3, 4 )</box>", [(1, 2, 3, 4)]),
        ("[[[1,2],[3,4]],[[5,6],[7,8]]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("[[1,2],[3,4],[5,6]], [1,2],[3,4],[5,6],[7,8]", []),
        ("[0,1,2],[3,4]", []),
        ("points (1,2) and (3,4)", []),
        # Numbers that are texts, and the Chinese comma.
        ('["1","2","3","4"]', [(1, 2, 3, 4)]),
        ("['1', '2', '3', '4'], [[\"5\",\"6\"],[\"7\",\"8\"]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('{"x1": "1", "y1": "2", "x2": "3", "y2": "4"}', [(1, 2, 3, 4)]),
        ("[1、2、3、4]", [(1, 2, 3, 4)]),
        ("第1、2、3、4页", []),
        # Numbers with separators of thousands, and boxes that look like them.
        ("1,234,567,890", []),
        (
            "The Total is $1,234,567,890.12 of 98,765,432,109,876,543,210,987 [1,2,3,4].",
            [(1, 2, 3, 4)],
        ),
        ('{"total": "1,234,567,890", "sum": -12,345,678,901}', []),
        ("It has 1,234,567,890, not 10, 20, 30, 40", [(10, 20, 30, 40)]),
        ("[100,200,300,400], ( 100,200,300,400 )", [(100, 200, 300, 400)] * 2),
        ("<box>100,200,300,400</box> bbox_2d: '100,200,300,400'", [(100, 200, 300, 400)] * 2),
        ("100,200,300,40", [(100, 40, 300, 200)]),
        ("no box", []),
        ("", []),
    ],
)
def test_shapes(text: str, boxes: list[tuple[float, ...]]) -> None:
    assert sides_of(text) == boxes


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        # JSON and Python
        ('[{"bbox_2d": [1,2,3,4], "label": "2 cats"}]', ["2 cats"]),
        ('[{"label": "cat", "bbox_2d": [1,2,3,4]}, {"bbox_2d": [5,6,7,8]}]', ["cat", ""]),
        ('[{"bbox": [1,2,3,4]}, {"name": "dog", "box": [5,6,7,8]}]', ["", "dog"]),
        ('[{"bbox": [1,2,3,4],"label":"cat"},{"bbox": [5,6,7,8],"label":"dog"}]', ["cat", "dog"]),
        ('{"label":"cat","boxes":[[1,2,3,4],[5,6,7,8]]}', ["cat", "cat"]),
        ('{"boxes":[[1,2,3,4],[5,6,7,8]],"label":"cat"}', ["cat", "cat"]),
        ('{"cat": [1,2,3,4], "dog": [[1,2,3,4], [5,6,7,8]]}', ["cat", "dog", "dog"]),
        ('{"id": 3, "score": 0.9, "box": [1,2,3,4]}', [""]),
        ("[{'name': 'cat\\'s tail', 'box': [1,2,3,4]}]", ["cat's tail"]),
        ('[{"label": "\\u7ea2 \\ud83d\\n“a, b”", "bbox": [1,2,3,4]}]', ["红 “a, b”"]),
        ('[{"标签": "红色圆形", "bbox_2d": [1,2,3,4]}]', ["红色圆形"]),
        ('[["cat", [1,2,3,4]], ["dog", [5,6,7,8]]]', ["cat", "dog"]),
        ('[[[1,2,3,4], "cat"], [[5,6,7,8], "dog"]]', ["", ""]),  # rather none than a wrong one
        ('[([1,2,3,4], "cat"), ([5,6,7,8], "dog")]', ["", ""]),
        ('[\n {\n  "bbox_2d": [1, 2, 3, 4],\n  "label": "cat"\n },\n {"bbox_2d"', ["cat"]),
        # calls
        ("left_click(start_box='[1,2,3,4]', element_info='OK')", ["OK"]),
        ("left_drag(start_box='[1,2,3,4]', end_box='[5,6,7,8]')", ["", ""]),
        # words
        ("red circle [[1,2,3,4]], blue square [[5,6,7,8]]", ["red circle", "blue square"]),
        ("cat [[1,2,3,4],[5,6,7,8]]", ["cat", "cat"]),
        ("cat (1,2,3,4); dog {5,6,7,8}", ["cat", "dog"]),
        ("1. **red circle**: [[1,2,3,4]]\n2. `x` - [[5,6,7,8]]", ["red circle", "x"]),
        ("- cat: <|begin_of_box|>[[1,2,3,4]]<|end_of_box|>\n- dog: [5,6,7,8]", ["cat", "dog"]),
        ("| cat | [[1,2,3,4]] |\n| dog | [[5,6,7,8]] |", ["cat", "dog"]),
        ("<ref>cat</ref><box>[1,2,3,4]</box>", ["cat"]),
        ("The cat is at [1, 2, 3, 4].", ["cat"]),
        ("The bounding box of the red circle is [[1,2,3,4]] in it.", ["red circle"]),
        (
            'the cat (black) [1,2,3,4] and "the red, one": [5,6,7,8]',
            ["cat (black)", "red, one"],
        ),
        ("A: [1,2,3,4], B: [5,6,7,8]", ["A", "B"]),
        ("red circle:\n[[1,2,3,4]]", ["red circle"]),
        ("Here are the bounding boxes:\n[[1,2,3,4]]", [""]),
        ("I see three cats.\n\n[[1,2,3,4]]", [""]),
        ("word " * 30 + "[[1,2,3,4]]", [""]),
        ("红色圆形位于[[1,2,3,4]],蓝色正方形的坐标是(5,6,7,8)。", ["红色圆形", "蓝色正方形"]),
        ("「红圆」:[[1,2,3,4]]", ["红圆"]),
        ("红色的圆：[1,2,3,4]，蓝色方块（5，6，7，8）。", ["红色的圆", "蓝色方块"]),
        ("好的！图中有两只，猫（左侧）：【1,2,3,4】", ["猫（左侧）"]),
        ("都找到了！[[1,2,3,4]]", [""]),
        # Words behind a box are not the next one's.
        ("[1,2,3,4] cat\n[5,6,7,8] dog", ["", ""]),
        ("[1,2,3,4]: cat\n[5,6,7,8]: dog", ["", ""]),
        ("[1,2,3,4] (cat), [5,6,7,8] (dog)", ["", ""]),
        ("[1,2,3,4] cat; [5,6,7,8] dog", ["", ""]),
        ("1. [1,2,3,4] cat\n2. [5,6,7,8] dog", ["", ""]),
        ("| [1,2,3,4] | cat |\n| [5,6,7,8] | dog |", ["", ""]),
        ("| box | what |\n|---|---|\n| [1,2,3,4] | cat |\n| [5,6,7,8] | dog |", ["", ""]),
        ("[1,2,3,4]是猫，[5,6,7,8]是狗。", ["", ""]),
        ("<|begin_of_box|>[1,2,3,4]<|end_of_box|> cat, <|begin_of_box|>[5,6,7,8]", ["", ""]),
        ("<box>[1,2,3,4]</box><ref>cat</ref><box>[5,6,7,8]</box>", ["", ""]),
        ("cat [1,2,3,4] on the left\n[5,6,7,8]", ["cat", ""]),
        ("The box is [1,2,3,4]. The dog is at [5,6,7,8].", ["", "dog"]),
        ("Cats:\n[1,2,3,4]\nDogs:\n[5,6,7,8]", ["Cats", "Dogs"]),
        ("[[1,2,3,4]]", [""]),
        ("<|begin_of_box|>[[1,2,3,4]]<|end_of_box|>", [""]),
    ],
)
def test_labels(text: str, labels: list[str]) -> None:
    assert labels_of(text) == labels


def test_only_what_is_tagged_counts() -> None:
    text = "A cat [1,2,3,4] and, beside 9,9,9,9, a dog [5,6,7,8]."

    assert find_boxes(text, ["[1,2,3,4]", "", "[5,6,7,8]"]) == [
        Box(1, 2, 3, 4, "cat"),
        Box(5, 6, 7, 8, "dog"),
    ]
    assert find_boxes(text, ["no box"]) == []
    assert find_boxes(text, ["[1,2,3,4]", "[0,0,1,1]"]) == [one, Box(0, 0, 1, 1)]  # not from there
    assert len(find_boxes(text, [""])) == len(find_boxes(text)) == 3


CORNERS = '{{"{}": 1, "{}": 2, "{}": 3.5, "{}": 4}}'


@pytest.mark.parametrize(
    "keys",
    [
        ("x1", "y1", "x2", "y2"),
        ("xmin", "ymin", "xmax", "ymax"),
        ("x_min", "y_min", "x_max", "y_max"),
        ("left", "top", "right", "bottom"),
        ("Left", "Top", "Right", "Bottom"),
    ],
)
def test_corners_with_names(keys: tuple[str, str, str, str]) -> None:
    written = CORNERS.format(*keys)
    assert find_boxes(written) == [Box(1, 2, 3.5, 4)]
    assert find_boxes(f'[{{"label": "cat", "box": {written}}}]') == [Box(1, 2, 3.5, 4, "cat")]
    assert find_boxes(str(json.loads(written) | {"label": "cat"})) == [Box(1, 2, 3.5, 4, "cat")]
    assert find_boxes(str({"name": "cat", **json.loads(written)})) == [Box(1, 2, 3.5, 4, "cat")]
    assert find_boxes(f'{{"cat": {written}, "dog": [5,6,7,8]}}') == [
        Box(1, 2, 3.5, 4, "cat"),
        Box(5, 6, 7, 8, "dog"),
    ]
    assert len(find_boxes(f"[{written}, {written}]")) == 2
    assert find_boxes(f'{{"box": {written}, "label": "cat"}}') == [Box(1, 2, 3.5, 4, "cat")]
    assert find_boxes(f'[{written}, {{"label": "cat"}}]') == [Box(1, 2, 3.5, 4)]


def test_corners_in_another_order() -> None:
    text = "{'xmin': 1, 'xmax': 3, 'ymin': 2, 'ymax': 4}, top=2, left=1, bottom=4, right=3"
    assert find_boxes(text) == [one, one]


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1, "y": 2, "width": 3, "height": 4}',
        '{"x1": 1, "y1": 2, "x2": 3}',
        '{"x1": 1, "y1": 2, "xmax": 3, "x2": 4}',
        '{"max1": 1, "may1": 2, "max2": 3, "may2": 4}',
        "left: 1px, top: 2px, right: 3px, bottom: 4px",
    ],
)
def test_names_of_no_corners(text: str) -> None:
    assert find_boxes(text) == []


def test_what_is_tagged_is_no_large_number() -> None:
    box = Box(100, 200, 300, 400, "cat")
    assert find_boxes("cat 100,200,300,400", ["100,200,300,400"]) == [box]
    assert find_boxes("1,234,567,890 cats, a cat 100,200,300,400", ["100,200,300,400"]) == [box]


MILLION = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "1" * MILLION,
        "1," * (MILLION // 2),
        "1 " * (MILLION // 2),
        "(1,2)," * (MILLION // 6),
        "[1,2],[3,4," * (MILLION // 11),
        "9" * 9000 + ",1",
        '"label":"\\"' * (MILLION // 11),
        "'label':'x\\'" * (MILLION // 12),
        "\"label\":\"'label':'" * (MILLION // 18),
        "label" + " " * MILLION,
        "<a" * (MILLION // 2),
        "<|a" * (MILLION // 3),
        "(a" * (MILLION // 2),
        "the " * (MILLION // 4),
        "[" * MILLION,
        "{" * MILLION,
        "\n" * MILLION,
        "\\" * MILLION,
        '"' * MILLION,
        "的" * MILLION,
    ],
    ids=range(20),
)
def test_no_text_takes_long(text: str) -> None:
    assert sides_of(text + "[1,2,3,4]")[-1][1:] == (2, 3, 4)


@given(st.text(alphabet="0123456789.,-[](){}<>|:='\"\\ \nlabenmox的٣"))
def test_no_text_is_too_odd(text: str) -> None:
    for box in find_boxes(f"{text}[1,2,3,4]{text}"):
        assert len([*box]) == 4
        assert box.label == " ".join(box.label.split())
        assert len(box.to_pixels(640, 480)) == 4


def test_prompts_take_anything() -> None:
    for prompt in (LOCATE_PROMPT, PINPOINT_PROMPT, LABEL_PROMPT):
        assert "the {red} circle" in prompt.format(target="the {red} circle")
    assert '[{"label": "…", "bbox_2d": [x1,y1,x2,y2]}, …]' in LABEL_PROMPT.format(target="a")


# --- boxes ---


def test_pixels() -> None:
    assert Box(0, 250, 500.5, 1000).to_pixels(640, 480) == (0, 120, 320, 480)
    assert Box.from_pixels((0, 120, 320, 480), 640, 480, "cat") == Box(0, 250, 500, 1000, "cat")
    assert Box(100, 200, 300, 600).center == (200, 400)


@given(any_boxes, st.integers(1, 10_000), st.integers(1, 10_000))
def test_there_and_back(box: Box, width: int, height: int) -> None:
    pixels = box.to_pixels(width, height)
    assert Box.from_pixels(pixels, width, height).to_pixels(width, height) == pixels


@given(sides, sides, sides, sides)
def test_corners_may_be_any_two_opposite_ones(x: float, y: float, u: float, v: float) -> None:
    box = Box(x, y, u, v, "cat")

    assert box == Box(u, v, x, y, "cat") == Box(x, v, u, y, "cat")
    assert box.iou(Box(u, v, x, y)) == 1
    assert box.left <= box.right
    assert box.top <= box.bottom
    left, top, right, bottom = box.to_pixels(640, 480)
    assert left <= right
    assert top <= bottom


def test_a_box_is_four_numbers_and_a_label() -> None:
    box = Box(1, 2, 3, 4, "cat")
    left, top, right, bottom = box

    assert (left, top, right, bottom) == (1, 2, 3, 4)
    assert box != one
    assert pickle.loads(pickle.dumps(box)) == box
    assert len({box, Box(1, 2, 3, 4, "cat")}) == 1


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(10, 20, 30, 40, "a"), Box(10, 20, 30, 40, "a")),
        (Box(-10, 20, 1030, 40), Box(0, 20, 1000, 40)),
        (Box(1000, 0, 1100, 40), Box(1000, 0, 1000, 40)),
        (Box(1001, 0, 1100, 40), None),
        (Box(0, -40, 10, -1), None),
    ],
)
def test_what_is_in_the_picture(box: Box, inside: Box | None) -> None:
    assert box.clipped() == inside


def test_overlaps() -> None:
    box = Box(0, 0, 100, 100)

    assert box.iou(Box(50, 0, 150, 100)) == pytest.approx(1 / 3)
    assert box.iou(Box(0, 0, 100, 50)) == 0.5
    assert box.iou(Box(100, 0, 200, 100)) == box.iou(Box(300, 300, 400, 400)) == 0
    assert box.iou(Box(5, 5, 5, 5)) == 0
    assert Box(5, 5, 5, 5).iou(Box(5, 5, 5, 5)) == 1


@given(any_boxes, any_boxes)
def test_any_overlap(box: Box, other: Box) -> None:
    assert 0 <= box.iou(other) == other.iou(box) <= 1
    assert (box.clipped() or box).iou(box.clipped() or box) == 1


def test_pairs() -> None:
    wanted = [Box(0, 0, 100, 100, "a"), Box(0, 0, 100, 60, "b"), Box(500, 500, 600, 600, "c")]
    near, exact, stray = Box(0, 0, 100, 70), Box(0, 0, 100, 100), Box(500, 500, 600, 540)

    assert [pair[:2] for pair in match([near, exact, stray], wanted)] == [
        (exact, wanted[0]),
        (near, wanted[1]),
    ]
    assert len(match([near, exact, stray], wanted, iou=0.4)) == 3
    assert match([], wanted) == match([near], []) == []
    assert len(match([exact, exact], [exact])) == 1


@given(st.lists(any_boxes, max_size=6), st.lists(any_boxes, max_size=6), st.floats(0, 1))
def test_any_pairs(found: list[Box], wanted: list[Box], least: float) -> None:
    pairs = match(found, wanted, least)

    assert len(pairs) <= min(len(found), len(wanted))
    assert all(overlap == box.iou(other) >= least for box, other, overlap in pairs)
    assert [pair[2] for pair in pairs] == sorted((pair[2] for pair in pairs), reverse=True)
