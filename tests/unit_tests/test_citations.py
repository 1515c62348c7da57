"""Citations: chunks that know where they stand, marks in answers, and pictures of quoted lines."""

import json
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter
from PIL import Image, ImageChops

import slips
from langchain_glm4v import Box
from langchain_glm4v.citations import (
    Citation,
    citation_picture,
    find_citations,
    numbered,
    page_picture,
    split_pages,
)
from langchain_glm4v.errors import MediaError, RequestError

LINES = [
    ["Blue Harbor Hotel", "Invoice: 48213", "Guest: Clara Novak", "Total: 75.55"],
    ["Corner Bakery", "Invoice: 11735", "Bread: 5.55", "Bread and Tea: 15.55"],
]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "two.pdf"
    slips.save(path, map(slips.drawn, LINES))
    return path


@pytest.fixture(scope="module")
def pages(scan: Path) -> list[Document]:
    return [
        Document("\n".join(lines), metadata={"source": str(scan), "page": number, "turn": 0})
        for number, lines in enumerate(LINES)
    ]


@pytest.fixture(scope="module")
def passages(pages: list[Document]) -> list[Document]:
    return [*split_pages(pages)]


def drawn(lines: list[str], line: str) -> Box:
    return Box.from_pixels(slips.edges(lines.index(line), line), *slips.SIZE)


@pytest.mark.parametrize("size", [20, 40, 60])
def test_chunks_know_their_characters_and_lines(pages: list[Document], size: int) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=size // 2)
    chunks = [*split_pages(pages, splitter)]
    assert len(chunks) > len(pages)
    for chunk in chunks:
        page = pages[chunk.metadata["page"]]
        start = chunk.metadata["start_index"]
        end = start + len(chunk.page_content)
        assert page.page_content[start:end] == chunk.page_content
        lines = page.page_content.splitlines()
        begins = [page.page_content.index(f"\n{line}") for line in lines[1:]]
        spans = zip(lines, [0, *begins], [*begins, len(page.page_content)], strict=True)
        boxes = [
            drawn(lines, line) for line, first, after in spans if first < end and start < after
        ]
        found = Citation(chunk).boxes
        assert len(found) == len(boxes)
        assert all(a.iou(b) > 0.5 for a, b in zip(found, boxes, strict=True))


@pytest.mark.parametrize(
    "blank",
    [
        "<table>" + "<tr><td></td></tr>" * 20 + "</table>",
        "|" + "  |" * 100,
        "|a|b|\n|" + "-" * 120 + "|" + "-" * 120 + "|",
        "[a](https://example.org/" + "a" * 240 + ")",
        "_" * 240,
    ],
)
def test_markup_without_ink_costs_later_chunks_no_lines(pages: list[Document], blank: str) -> None:
    text = "\n\n".join([LINES[0][0], LINES[0][1], blank, LINES[0][2], LINES[0][3]])
    splitter = RecursiveCharacterTextSplitter(chunk_size=30, chunk_overlap=0)
    chunks = [*split_pages([Document(text, metadata=pages[0].metadata)], splitter)]
    for line in LINES[0]:
        (chunk,) = (one for one in chunks if line in one.page_content)
        (box,) = Citation(chunk, line).boxes
        assert box.iou(drawn(LINES[0], line)) > 0.5


def test_chunks_of_json_know_their_lines(pages: list[Document]) -> None:
    empty = {f"field_{number}": None for number in range(15)}
    text = json.dumps({"a": LINES[0][0], "b": LINES[0][1], **empty, "c": LINES[0][2:]}, indent=1)
    splitter = RecursiveCharacterTextSplitter(chunk_size=60, chunk_overlap=0)
    chunks = [*split_pages([Document(text, metadata=pages[0].metadata)], splitter)]
    for line in LINES[0]:
        (chunk,) = (one for one in chunks if line in one.page_content)
        (box,) = Citation(chunk, line).boxes
        assert box.iou(drawn(LINES[0], line)) > 0.5


def test_pages_without_text_have_no_chunks(pages: list[Document]) -> None:
    assert [*split_pages([Document(" \n", metadata=pages[0].metadata)])] == []


def test_what_is_no_page_is_refused(scan: Path) -> None:
    with pytest.raises(RequestError, match='load it with mode="page"'):
        [*split_pages([Document("Total: 75.55", metadata={"source": str(scan)})])]


def test_a_splitter_that_changes_the_text_is_refused(pages: list[Document]) -> None:
    class Shouting(CharacterTextSplitter):
        def split_text(self, text: str) -> list[str]:
            return [text.upper()]

    with pytest.raises(RequestError, match="use a splitter that cuts texts"):
        [*split_pages(pages, Shouting())]


def test_a_document_that_is_gone_is_told(pages: list[Document], tmp_path: Path) -> None:
    gone = {**pages[0].metadata, "source": str(tmp_path / "gone.pdf")}
    with pytest.raises(MediaError, match=r"gone\.pdf"):
        page_picture(Document("Total", metadata=gone))


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("It is 75.55 [1].", [(0, "")]),
        ('It says "Total: 75.55" [1].', [(0, "Total: 75.55")]),
        ('It says "Total: 75.55" [two.pdf p. 1].', [(0, "Total: 75.55")]),
        ('It says "total 75.55" [two, page 1].', [(0, "total 75.55")]),
        ("“Bread: 5.55”【2】, “Total: 75.55”【1】", [(1, "Bread: 5.55"), (0, "Total: 75.55")]),
        ('Both: "Invoice: 11735" [1, 2].', [(1, "Invoice: 11735")]),
        ("发票号是「11735」【第2页】。", [(1, "11735")]),
        ("Both are paid [1-2].", [(0, ""), (1, "")]),
        ("So [1]. And so [1].", [(0, "")]),
        ('"Bread: 5.55" costs.\nMore [1]', [(0, "")]),
        ('"Total: 75.55" (see page 1)', [(0, "Total: 75.55")]),
        ('"Total: 75.55" (Source: two.pdf, page 1)', [(0, "Total: 75.55")]),
        ("\"Total: 75.55\" [page 1 of 'two.pdf']", [(0, "Total: 75.55")]),
        ('"Total: 75.55" [1, page 1], [2, page 1]', [(0, "Total: 75.55")]),
        ('"Total: 75.55" [passage 1]', [(0, "Total: 75.55")]),
        ('"Invoice: 48213" [p. 1 of two.pdf, p. 1 of other.pdf]', [(0, "Invoice: 48213")]),
        ("『48213』（参见第1页）", [(0, "48213")]),
        ("“48213”【来源：two.pdf，第1页】", [(0, "48213")]),
        ('"Total: 75.55" ［1］', [(0, "Total: 75.55")]),
        ('The 12" sign says "Invoice: 48213" [1].', [(0, "Invoice: 48213")]),
        ('"Guest: Clara Novak\nTotal: 75.55" [1].', [(0, "Guest: Clara Novak\nTotal: 75.55")]),
        ("‘Total: 75.55’ [1].", [(0, "Total: 75.55")]),
        ("It's Clara's: 'Total: 75.55' [1].", [(0, "Total: 75.55")]),
        (
            'In \'24 "Total: 75.55" [1],\nthe guests\' "11735" [2].',
            [(0, "Total: 75.55"), (1, "11735")],
        ),
        ("In '24 they paid 75.55 [1], the guests' total.", [(0, "")]),
        ("`Total: 75.55` [1].", [(0, "Total: 75.55")]),
        ('- "Total: 75.55"\n  [1].\n- "11735"\n  [2]', [(0, "Total: 75.55"), (1, "11735")]),
        ('"Total: 75.55"[^1], "11735"【2†source】', [(0, "Total: 75.55"), (1, "11735")]),
        ("It has 2 pages [3], [other.pdf p. 1], [0], (1).", []),
        ("Nothing is cited.", []),
    ],
)
def test_answers_are_read_back(
    passages: list[Document], answer: str, cited: list[tuple[int, str]]
) -> None:
    found = find_citations(answer, passages)
    assert [(one.page, one.quote) for one in found] == cited
    assert all(one.boxes for one in found)


def test_mark_in_a_quote_is_the_quotes_own(passages: list[Document]) -> None:
    found = find_citations('"As said [1] in 2020" [2] and "Bread: 5.55" [2]', passages)
    assert [(one.page, one.quote) for one in found] == [
        (1, "As said [1] in 2020"),
        (1, "Bread: 5.55"),
    ]


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ('According to [1] it is "Total: 75.55".', [(0, "Total: 75.55")]),
        (
            '[1] says "Total: 75.55". [2] says "Bread: 5.55".',
            [(0, "Total: 75.55"), (1, "Bread: 5.55")],
        ),
        ('See [1]: "Invoice" and "Clara Novak"', [(0, "Invoice"), (0, "Clara Novak")]),
        # That of the next mark, in another line, or of no passage of this one.
        ('See [1]. It is "Invoice" [2].', [(0, ""), (1, "Invoice")]),
        ('See [1].\n"Invoice" is there.', [(0, "")]),
        ('See [1]. It is "Bread: 5.55", says [2].', [(0, ""), (1, "Bread: 5.55")]),
        ('"Total: 75.55" [1], so not "Invoice".', [(0, "Total: 75.55")]),
    ],
)
def test_a_quote_may_follow_its_mark(
    passages: list[Document], answer: str, cited: list[tuple[int, str]]
) -> None:
    assert [(one.page, one.quote) for one in find_citations(answer, passages)] == cited


def test_full_width_digits_are_found() -> None:
    line = "金额合计：１８５.１５元"
    metadata = {"source": "a.pdf", "page": 0, "lines": json.dumps([[line, 0, 0, 10, 10]])}
    passage = Document(line, metadata=metadata)
    for quote in (line, "１８５.１５元", "185.15", "合计：185.15"):
        (citation,) = find_citations(f"“{quote}”【1】", [passage])
        assert citation.boxes == [Box(0, 0, 10, 10)]
    for quote in ("85.15", "185", "18515"):
        assert not find_citations(f"“{quote}”【1】", [passage])[0].boxes


def test_numbers_of_two_lines_are_not_one() -> None:
    lines = (
        '[["Oranges 1", 0, 0, 10, 10], ["5.00 infor-", 0, 20, 10, 30], ["mation", 0, 40, 10, 50]]'
    )
    passage = Document("", metadata={"source": "a.pdf", "page": 0, "lines": lines})
    assert Citation(passage, "Oranges 15.00").boxes == []
    assert len(Citation(passage, "Oranges 1 5.00").boxes) == 2
    assert len(Citation(passage, "5.00 information").boxes) == 2


def test_equal_rows_are_told_apart(scan: Path) -> None:
    text = "\n".join(["Bread: 5.55"] * 7)
    page = Document(text, metadata={"source": str(scan), "page": 1})
    splitter = CharacterTextSplitter("\n", chunk_size=25, chunk_overlap=0)
    chunks = [*split_pages([page], splitter)]
    assert [chunk.metadata["start_index"] for chunk in chunks] == [0, 24, 48, 72]


@pytest.mark.parametrize("name", ["bytes", "data", "https://host/scan.pdf?…"])
def test_what_leads_to_no_file_cannot_be_shown_again(name: str) -> None:
    page = Document("Total", metadata={"source": name, "page": 0})
    with pytest.raises(RequestError, match="leads to no file: save what came"):
        [*split_pages([page])]


def test_marks_side_by_side_cite_the_same(passages: list[Document]) -> None:
    first, second = find_citations('It says "Invoice" [1][2].', passages)
    assert (first.page, second.page) == (0, 1)
    assert first.quote == second.quote == "Invoice"


@pytest.mark.parametrize(
    "source", ["scans/report (1).pdf", "scans/report [2].pdf", "[2]/（新）报告.pdf", "a/(1).pdf"]
)
def test_names_may_have_brackets(source: str) -> None:
    lines = '[["99.00", 0, 0, 10, 10]]'
    passage, other = (
        Document("99.00", metadata={"source": name, "page": 2, "lines": lines})
        for name in (source, "other.pdf")
    )
    citation = Citation(passage, "99.00")
    both = [passage, other]
    for mark in (str(citation), f'"99.00" [page 3 of {source!r}]', f'"99.00" ({source}, p. 3)'):
        assert find_citations(mark, both) == [citation]
    assert find_citations('"99.00" [2]', both) == [Citation(other, "99.00")]


def test_passages_may_be_of_anything_else(passages: list[Document]) -> None:
    """Texts without pages, and pages from a store that makes floats of numbers."""
    text = Document("Bread is baked.", metadata={"source": "wiki"})
    metadata = {**passages[1].metadata, "page": 1.0, "turn": 0.0}
    kept = Document(passages[1].page_content, metadata=metadata)
    given = [text, kept]
    assert numbered(given).startswith("[1] 'wiki'\nBread is baked.\n\n[2] page 2 of '")
    found = find_citations('"Bread is" [1], "Bread: 5.55" [p. 2].', given)
    assert found == [Citation(text, "Bread is"), Citation(kept, "Bread: 5.55")]
    assert (found[0].page, str(found[0])) == (None, '"Bread is" [wiki]')
    assert found[1].page == 1
    assert around(citation_picture(found[1]), page_picture(passages[1])).top > 100


@pytest.mark.parametrize("metadata", [{}, {"source": ""}, {"source": "."}])
def test_passage_may_have_no_source(metadata: dict[str, str]) -> None:
    passage = Document("Total: 9.00", metadata={**metadata, "page": 2})
    assert find_citations('"Total: 9.00" [p. 3]', [passage]) == [Citation(passage, "Total: 9.00")]
    assert find_citations('"Total: 9.00" [other.pdf p. 3]', [passage]) == []


def test_folders_tell_documents_of_one_name_apart() -> None:
    lines = '[["99.00", 0, 0, 10, 10]]'
    both = [
        Document("99.00", metadata={"source": f"x/{name}/scan.png", "page": 2, "lines": lines})
        for name in "ab"
    ]
    for told in ("x/b/scan.png", "b/scan.png", "b/scan", "/home/me/x/b/scan.png"):
        found = find_citations(f'"99.00" [page 3 of {told}]', both)
        assert [one.source for one in found] == ["x/b/scan.png"]
    assert len(find_citations('"99.00" [page 3 of scan.png]', both)) == 2


@pytest.mark.parametrize("mark", ["[page 3 of '/x/b.pdf']", "[p. 3, b.pdf]", "[b p. 3]"])
def test_a_name_tells_documents_apart(mark: str) -> None:
    lines = '[["99.00", 0, 0, 10, 10]]'
    both = [
        Document("99.00", metadata={"source": f"/x/{name}.pdf", "page": 2, "lines": lines})
        for name in "ab"
    ]
    assert [one.source for one in find_citations(f'"99.00" {mark}', both)] == ["/x/b.pdf"]


def test_a_quote_that_is_made_up_has_no_boxes(passages: list[Document]) -> None:
    (citation,) = find_citations('It says "Total: 175.55" [1].', passages)
    assert citation.quote == "Total: 175.55"
    assert citation.boxes == []


def test_a_quote_is_no_part_of_a_number(passages: list[Document]) -> None:
    (box,) = Citation(passages[1], "5.55").boxes
    assert box.iou(drawn(LINES[1], "Bread: 5.55")) > 0.5


def test_a_citation_is_written_as_it_is_read(passages: list[Document]) -> None:
    citation = Citation(passages[1], "Bread: 5.55")
    assert str(citation) == '"Bread: 5.55" [two.pdf p. 2]'
    assert find_citations(str(citation), passages) == [citation]


def test_passages_are_numbered(passages: list[Document], scan: Path) -> None:
    first, second = numbered(passages).split("\n\n")
    assert first.splitlines() == [f"[1] page 1 of {str(scan)!r}", *LINES[0]]
    assert second.startswith("[2] page 2 of ")


def test_a_page_without_lines_is_no_passage(pages: list[Document]) -> None:
    with pytest.raises(RequestError, match="make chunks by split_pages"):
        find_citations("[1]", pages) and Citation(pages[0], "Total").boxes


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_pictures_show_the_quoted_line(tmp_path: Path, turn: int) -> None:
    """Also of a scan that lies on its side: it is shown as it was read."""
    upright = slips.drawn(LINES[0])
    path = tmp_path / "turned.png"
    upright.rotate(turn, expand=True).save(path)  # Pillow turns the other way round
    metadata = {"source": str(path), "page": 0, "turn": turn}
    (passage,) = split_pages([Document("\n".join(LINES[0]), metadata=metadata)])
    citation = Citation(passage, "Clara Novak")
    shown, plain = citation_picture(citation), page_picture(passage)
    assert plain.size == upright.size
    drawn_on, line = around(shown, plain), drawn(LINES[0], "Guest: Clara Novak")
    assert drawn_on.iou(line) > 0.4
    assert drawn_on.left < line.left < line.right < drawn_on.right
    assert drawn_on.top < line.top < line.bottom < drawn_on.bottom


def around(one: Image.Image, other: Image.Image) -> Box:
    edges = ImageChops.difference(one, other).point(lambda shade: 255 * (shade > 64)).getbbox()
    assert edges is not None
    return Box.from_pixels(edges, *one.size)


def test_json_is_placed_by_its_values(scan: Path) -> None:
    text = '{"invoice": "48213", "guest": "Clara Novak", "total": 75.55, "hotel": "Blue Harbor"}'
    page = Document(text, metadata={"source": str(scan), "page": 0, "turn": 0})
    (passage,) = split_pages([page])
    assert Citation(passage, "no such words").boxes == []
    assert len(Citation(passage, "Clara Novak").boxes) == 1
