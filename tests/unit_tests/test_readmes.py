"""The README in English and in Chinese: neither falls behind."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_zh.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STRING = re.compile(r'"[^"\n]*"')
# Of a comment, only that there is one matters.
STRING_OR_COMMENT = re.compile(r'("[^"\n]*")|( *#.*)')
HAN = re.compile("[\u4e00-\u9fff]")


def prose(text: str) -> str:
    """The text without its blocks of code and without the links to each other."""
    return re.sub(r"\[[^\]]*\]\(README(?:_zh)?\.md\)", "", BLOCK.sub("", text))


def code(text: str) -> list[tuple[str, str]]:
    """Language and content of each block, without comments."""
    return [
        (language, STRING_OR_COMMENT.sub(lambda found: found[1] or " #", content))
        for language, content in BLOCK.findall(text)
    ]


def outline(text: str) -> list[tuple[str, int]]:
    """Level of each heading, and how many rows of tables and items of lists follow it."""
    lines = prose(text).splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("#")]
    return [
        (lines[at].split()[0], sum(line.startswith(("| ", "- ")) for line in lines[at:end]))
        for at, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]


def test_they_lead_to_each_other() -> None:
    assert ENGLISH.startswith("# langchain-glm4v\n\nEnglish | [简体中文](README_zh.md)\n")
    assert CHINESE.startswith("# langchain-glm4v\n\n[English](README.md) | 简体中文\n")


def test_they_have_the_same_sections() -> None:
    assert outline(CHINESE) == outline(ENGLISH)


def test_they_have_the_same_code() -> None:
    assert len(code(CHINESE)) == len(code(ENGLISH))
    for (language, chinese), (other, english) in zip(code(CHINESE), code(ENGLISH), strict=True):
        assert language == other
        assert STRING.sub("", chinese) == STRING.sub("", english)
        strings = zip(STRING.findall(chinese), STRING.findall(english), strict=True)
        assert [one for one, its in strings if one != its and not HAN.search(one)] == []


def test_they_name_the_same_things() -> None:
    chinese, english = (
        Counter(" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose(text)))
        for text in (CHINESE, ENGLISH)
    )
    assert chinese == english


def test_they_have_the_same_links() -> None:
    chinese, english = (
        sorted(re.findall(r"\]\(([^)\s]+)\)", prose(text))) for text in (CHINESE, ENGLISH)
    )
    assert chinese == english


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["README.md", "README_zh.md"])
def test_linked_files_are_there(text: str) -> None:
    linked = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [one for one in linked if "://" not in one and not (ROOT / one).exists()]
    assert not missing


def test_the_chinese_one_is_chinese() -> None:
    for paragraph in re.split(r"\n\n|\n(?=[-|])", prose(CHINESE)):
        words = re.findall(r"[a-z]{3,}", re.sub(r"`[^`]*`|\([^)\s]*\)", "", paragraph))
        assert len(words) <= 6 or HAN.search(paragraph), paragraph
