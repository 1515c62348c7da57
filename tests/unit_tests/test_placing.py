"""Transcribed text, and where it stands on its page."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from printed_pages import CHINESE, GROUND, OTHER_STORY, STORY, Printed, jpeg

from langchain_glm4v.grounding import Box
from langchain_glm4v.media.text_lines import Line, PageLines
from langchain_glm4v.transcription.placing import PlacedText, Word, along, place, tokens


def inks(text: str) -> list[str]:
    return [token.text for token in tokens(text)]


def begins(text: str) -> list[tuple[str, str]]:
    return [(token.text, token.begins) for token in tokens(text)]


def overlap(placed: PlacedText, page: Printed) -> list[float]:
    """For each printed line, how well the boxes of its words in the text cover it."""
    found = []
    at = 0
    for text, box in page.lines:
        words = placed.words[at : at + len(tokens(text))]
        at += len(words)
        boxes = [word.box for word in words if word.box is not None]
        whole = Box(
            min((b.left for b in boxes), default=0),
            min((b.top for b in boxes), default=0),
            max((b.right for b in boxes), default=0),
            max((b.bottom for b in boxes), default=0),
        )
        found.append(whole.iou(box))
    return found


# --- marks have no ink ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Title\n\nSome **bold** `code` ~~gone~~", "Title Some bold code gone"),
        ("- one\n* two\n1. three", "• one • two 1. three"),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a b 1 2"),
        ("<table><tr><td>Tea</td><td>1.50</td></tr></table>", "Tea 1.50"),
        ("a <b>b</b> &amp; c &lt; d", "a b & c < d"),
        ("see [the page](https://example.org/x) ![logo](logo.png) end", "see [the page end"),
        (r"it is $\frac{a}{b}$ or \(x^2\) here", "it is a b or x^2 here"),
        ("it costs $5.00 or $6.00", "it costs $5.00 or $6.00"),
        (r"3 \* 4 snake_case 5 < 6", "3 * 4 snake_case 5 < 6"),
        ('{"shop": "Tea & Co", "items": [{"price": 1.5}], "paid": true}', "Tea & Co 1.5"),
        ("```\ncode\n```", "code"),
        ("", ""),
    ],
)
def test_marks_are_no_words(text: str, words: str) -> None:
    assert inks(text) == words.split()


def test_each_character_of_chinese_is_a_word() -> None:
    assert inks("第3页 的ABC文") == ["第", "3", "页", "的", "ABC", "文"]


def test_lines_cells_and_rows_are_told() -> None:
    text = "a b\nc<tr><td>d</td><td>e f</td></tr>"

    assert begins(text) == [
        *(("a", "line"), ("b", ""), ("c", "line"), ("d", "line"), ("e", "cell"), ("f", "")),
    ]


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("# a **bo**ld\n\n- c &lt;d 中e", [2, 6, 14, 16, 18, 24, 25]),
        (r"x $\frac{a}{b}$ \*y", [0, 9, 12, 16]),
        ("<tr><td></td></tr>" * 30 + "a", [540]),
        ("[a](" + "x" * 300 + ") b", [0, 306]),
        ('{"b": "b", "n": null, "q": ["\\u0062\\n\\ud83d\\ude00c", -1.50]}', [7, 29, 37, 53]),
    ],
)
def test_words_know_where_they_are_in_the_text(text: str, starts: list[int]) -> None:
    assert [token.start for token in tokens(text)] == starts


@given(st.text(alphabet="ab12 \n|#*_`$<>/td[]()\\-&;中。", max_size=80))
def test_any_text_is_read(text: str) -> None:
    assert not any(character.isspace() for token in tokens(text) for character in token.text)


# --- paragraphs are spread over their lines ---


def test_a_paragraph_of_one_line_is_spread_over_those_of_the_page() -> None:
    page = Printed()
    page.line("Annual Report", 100, 80, 56)
    below = page.paragraph(STORY, 100, 200, 880, 24)
    page.paragraph(OTHER_STORY, 100, below + 40, 880, 16)

    placed = place(f"# Annual Report\n\n{STORY}\n\n{OTHER_STORY}", page.jpeg, "a page")

    assert min(overlap(placed, page)) > 0.8


def test_a_paragraph_of_chinese_is_spread_over_its_lines() -> None:
    page = Printed()
    page.line("判决书", 400, 60, 56, chinese=True)
    page.paragraph(CHINESE, 100, 200, 880, 28, chinese=True)

    placed = place(f"# 判决书\n\n{CHINESE}", page.jpeg, "a page")

    assert min(overlap(placed, page)) > 0.8


def test_columns_are_read_one_after_the_other() -> None:
    page = Printed()
    page.line("Two Columns of the Old Days", 200, 60, 48)
    page.paragraph(STORY, 80, 200, 440, 20)
    page.paragraph(OTHER_STORY, 570, 200, 440, 20)

    placed = place(
        f"# Two Columns of the Old Days\n\n{STORY}\n\n{OTHER_STORY}", page.jpeg, "a page"
    )

    assert min(overlap(placed, page)) > 0.8


def test_a_table_is_read_row_by_row() -> None:
    goods = ["Bread", "Milk", "Apples from the garden", "Tea", "Rice", "Soap"]
    page = Printed()
    for number, name in enumerate(goods):
        page.line(name, 100, 100 + 50 * number, 28)
        page.line(f"{number + 3}.50", 800, 100 + 50 * number, 28)
    rows = "".join(f"<tr><td>{n}</td><td>{i + 3}.50</td></tr>" for i, n in enumerate(goods))

    placed = place(f"<table>{rows}</table>", page.jpeg, "a page")

    assert min(overlap(placed, page)) > 0.7


def test_print_that_was_not_transcribed_is_passed_over() -> None:
    page = Printed()
    page.line("a stamp of the office of the harbour", 300, 40, 40)
    page.lines.clear()
    page.paragraph(STORY, 100, 200, 880, 24)
    page.picture.paste((30, 60, 90), (100, 900, 700, 1300))

    placed = place(STORY, page.jpeg, "a page")

    assert min(overlap(placed, page)) > 0.8


def test_text_that_is_not_on_the_page_has_no_place() -> None:
    page = Printed()
    page.paragraph(STORY, 100, 200, 880, 24)

    placed = place(f"{STORY}\n\nThe picture shows a red house on a hill.", page.jpeg, "a page")

    assert min(overlap(placed, page)) > 0.8
    assert [word.box for word in placed.words[-9:]] == [None] * 9


def test_words_of_a_skewed_page_fall_with_their_line() -> None:
    page = Printed()
    page.paragraph(STORY, 100, 200, 880, 24)
    skewed = page.picture.rotate(-2, fillcolor=GROUND, resample=Image.Resampling.BICUBIC)

    placed = place(STORY, jpeg(skewed), "a page")

    first, last = placed.words[0].box, placed.words[len(page.lines[0][0].split()) - 1].box
    assert first is not None
    assert last is not None
    assert last.top - first.top == pytest.approx(850 * 0.035 * 1000 / 1540, rel=0.2)


@pytest.mark.parametrize("text", ["", "  \n", "a word"])
def test_an_empty_page_has_no_places(text: str) -> None:
    placed = place(text, jpeg(Image.new("RGB", (300, 300), GROUND)), "a page")

    assert all(word.box is None for word in placed.words)
    assert placed.find_quote("a word") == []


def level(*rows: list[tuple[int, int]]) -> PageLines:
    """Rows of pieces of lines, by their left and right edges."""
    lines = (
        Line(left, 40 * number, right, 40 * number + 24, ((left, right),))
        for number, row in enumerate(rows)
        for left, right in row
    )
    return PageLines(1000, 1000, tuple(lines), 0.0)


pieces = st.lists(st.tuples(st.integers(0, 400), st.integers(420, 1000)), min_size=1, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abcde \n|中", max_size=200), st.lists(pieces, max_size=8))
def test_words_are_laid_along_lines_in_order(text: str, rows: list[list[tuple[int, int]]]) -> None:
    placed = along(text, level(*rows))

    assert [word.text for word in placed.words] == inks(text)
    numbers = [word.line for word in placed.words if word.line is not None]
    assert numbers == sorted(numbers)
    assert all((word.line is None) == (word.box is None) for word in placed.words)
    for one, other in itertools.pairwise(placed.words):
        if one.box and other.box and one.line == other.line:
            assert one.box.left <= one.box.right <= other.box.left + 1e-6


# --- quotes ---


def story() -> tuple[Printed, PlacedText]:
    page = Printed()
    page.paragraph(STORY, 100, 200, 880, 24)
    text = STORY.replace("second part", "**second** part").replace("unless", "*unless*")
    return page, place(text, page.jpeg, "a page")


@pytest.mark.parametrize(
    ("quote", "lines"),
    [
        ("played will be added into the track", 1),
        ("Played  WILL be\nadded, into the “track”", 1),
        ("existing *notes* are not erased", 2),
        (STORY, 5),
        ("Any additional notes […] solo another track.", 2),
        ("Any additional notes ... solo another track", 2),
    ],
)
def test_a_quote_is_found_however_it_is_written(quote: str, lines: int) -> None:
    assert len(story()[1].find_quote(quote)) == lines


def test_a_quote_has_the_boxes_of_its_words() -> None:
    page, placed = story()
    text, line = page.lines[1]
    words = text.split()

    (box,) = placed.find_quote(" ".join(words[2:5]))

    assert line.left < box.left < box.right < line.right
    assert box.right - box.left == pytest.approx(
        (line.right - line.left) * len(" ".join(words[2:5])) / len(text), rel=0.25
    )
    assert Box(line.left, box.top, line.right, box.bottom).iou(line) > 0.8


@pytest.mark.parametrize(
    "quote", ["", "…", "added into the truck", "dditional notes", "another track Any", "***"]
)
def test_what_does_not_stand_there_has_no_boxes(quote: str) -> None:
    assert story()[1].find_quote(quote) == []


@pytest.mark.parametrize(
    ("quote", "count"),
    [("1.50", 1), ("total 11.50", 1), ("1,50", 0), ("150", 0), ("1", 0), ("(11.50)", 1)],
)
def test_numbers_are_quoted_whole(quote: str, count: int) -> None:
    placed = along("tea 1.50\ntotal 11.50", level([(0, 200)], [(0, 250)]))

    assert len(placed.find_quote(quote)) == count


def test_chinese_is_quoted_from_any_character_on() -> None:
    page = Printed()
    page.paragraph(CHINESE, 100, 200, 880, 28, chinese=True)

    placed = place(CHINESE, page.jpeg, "a page")

    assert len(placed.find_quote("合同合法有效，均应当")) in (1, 2)
    assert placed.find_quote("合同不合法") == []


def test_a_word_that_is_parted_at_the_end_of_a_line_is_quoted() -> None:
    placed = along("the func-\ntion is here", level([(0, 110)], [(0, 170)]))

    assert len(placed.find_quote("function is")) == 2


def in_one_line(text: str) -> PlacedText:
    box = Box(0, 0, 1000, 24)
    return PlacedText(
        tuple(Word(t.text, t.space or bool(t.begins), 0, box, t.start) for t in tokens(text))
    )


@pytest.mark.parametrize(
    ("page", "quotes"),
    [
        ("Item 1 2 5.00", ["Item 1 2 5.00", "Item 1", "2 5.00", "5.00", "1 | 2 | 5.00"]),
        ("Qty 1 250.00", ["Qty 1", "250.00", "Qty 1 250.00", "1250.00"]),
        ("1 250 000.00 EUR", ["1 250 000.00", "1250000.00 EUR", "1\u202f250\u00a0000.00"]),
        ("1’250.00", ["1'250.00", "1250.00"]),
        ("No. 7.50 100 200", ["7.50 100 200", "100 200", "7.50"]),
        ("Pages 10-15", ["Pages 10–15", "10 - 15", "10", "15", "Pages 10-\n15"]),
        ("at 10:30", ["10:30", "at \uff11\uff10\uff1a\uff13\uff10", "30"]),
        ("Loss: -5.00 EUR", ["Loss: -5.00", "\u22125.00 EUR", "Loss: –5.00", "Loss: \uff0d5.00"]),
        ("12 -5.00", ["12", "-5.00", "12 \u22125.00"]),
        ("-$5.00", ["-$5.00", "-5.00"]),
        ("$5.00 +7 #8 €9", ["5.00", "+7", "7", "#8", "8 9"]),
        ("COVID-19", ["COVID-19", "covid 19", "19"]),
        ("10³ m²", ["10³ m²", "10^3 m2", "$10^3$", "10<sup>3</sup>"]),
        ("1½ cups", ["1½ cups", "1 1/2 cups", "1/2 cups"]),
        ("1. 5 apples, 6", ["1. 5 apples", "5 apples 6", "1 5 apples"]),
        ("2*3=6", ["2*3=6", "2 * 3 = 6", "**2*3=6**"]),
        ("合计１８５.１５元", ["合计185.15", "１８５.１５", "185.15元"]),
        ("5 kg or 5kg", ["5kg or 5 kg"]),
    ],
)
def test_numbers_are_found_as_they_are_written(page: str, quotes: list[str]) -> None:
    placed = in_one_line(page)

    assert [quote for quote in quotes if not placed.find_quote(quote)] == []


@pytest.mark.parametrize(
    ("page", "quotes"),
    [
        ("Item 1 2 5.00", ["Item 125.00", "125.00", "12 5.00", "1 25.00"]),
        ("Qty 1 2.50", ["12.50", "1.2.50"]),
        ("7.50 100", ["7.50100", "50 100"]),
        ("1234 567", ["1234567", "234 567"]),
        ("1 250.00", ["1 250", "1.250.00"]),
        ("Pages 10-15", ["1015", "10 15", "-15", "10/15"]),
        ("1.\n5 apples", ["15 apples", "1.5 apples"]),
        ("Loss: -5.00", ["Loss: 5.00", "5.00", "+5.00"]),
        ("12 -5.00", ["12 5.00", "5.00", "12-5.00"]),
        ("-$5.00", ["5.00", "$5.00"]),
        ("+ 5 °C", ["-5 °C"]),
        ("12 .50", ["12.50"]),
        ("10³", ["103"]),
        ("10<sup>3</sup>", ["103"]),
        ("1½", ["11/2", "112"]),
        ("2*3=6", ["23=6", "236"]),
        ("1'250.00", ["250.00"]),
        ("１ ８５", ["185"]),
    ],
)
def test_numbers_are_not_made_of_their_neighbours(page: str, quotes: list[str]) -> None:
    placed = in_one_line(page)

    assert [quote for quote in quotes if placed.find_quote(quote)] == []
