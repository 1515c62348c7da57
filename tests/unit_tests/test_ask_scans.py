"""The parts of the example that need no model."""

from langchain_core.documents import Document

import ask_scans


def test_words_are_those_of_the_script() -> None:
    assert ask_scans.words("Total: 75.55, on 2026-03-08") == {"total", "75.55", "on", "2026-03-08"}
    assert ask_scans.words("总金额4500.00元") == {*"总金额元", "4500.00"}
    assert ask_scans.words("…!") == set()


def test_the_line_that_holds_an_answer_is_cited() -> None:
    text = "一、甲方：蓝港酒店\n二、总金额：人民币四千五百元整\n三、日期：2026年3月8日"
    rows = [
        f'["{line}", 0, {100 * number}, 900, {100 * number + 90}]'
        for number, line in enumerate(text.splitlines())
    ]
    metadata = {"source": "a.pdf", "page": 0, "lines": f"[{', '.join(rows)}]"}
    found = ask_scans.cite("四千五百元", "总金额是多少？", [Document(text, metadata=metadata)])
    assert found.quote == "二、总金额：人民币四千五百元整"
    assert [box.top for box in found.boxes] == [100]
