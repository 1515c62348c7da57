"""Names of files, and that they are whole."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_glm4v.transcription import outputs
from langchain_glm4v.transcription.records import DocumentFacts, PageResult, Reading
from langchain_glm4v.transcription.sources import Source

TEXT = Reading(text="Tea", origin="model")


def of(*given: str) -> list[Source]:
    return [Source(one if "://" in one else Path(one), "name", at) for at, one in enumerate(given)]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("scans/report.pdf", "report.md"),
        ("scan.tar.gz", "scan.tar.md"),
        ("2024.01 bill", "2024.md"),
        (".hidden", "hidden.md"),
        ("...pdf", "document.md"),
        ("..", "document.md"),
        ("a/-rf.pdf", "rf.md"),
        ("line\nfeed\x1b[2J.pdf", "line_feed_[2J.md"),
        ("left\u202efdp.exe", "left_fdp.md"),
        ("a\\b:c*.pdf", "a_b_c_.md"),
        ("\udcff.pdf", "_.md"),
        ("扫描件.pdf", "扫描件.md"),
        ("https://host/a/b%20c%2F..%2Fd.pdf?key=secret#1", "d.md"),
        ("https://example.com", "example.md"),
        ("https://[bad/x.pdf", "x.md"),
    ],
)
def test_name_is_that_of_the_source_without_what_does_harm(source: str, name: str) -> None:
    assert outputs.names(of(source), ".md") == [name]


def test_names_of_one_kind_differ_and_do_not_depend_on_the_others() -> None:
    a, b, c = outputs.names(of("a/x.pdf", "b/x.pdf", "b/X.PNG"), ".md")
    assert len({a.lower(), b.lower(), c.lower()}) == 3
    assert all(name.lower().startswith("x-") for name in (a, b, c))
    assert outputs.names(of("other.pdf", "b/x.pdf", "c/x.pdf"), ".md")[1] == b
    # One that looks as if it had a hash is given another.
    (taken,) = outputs.names(of(f"{a[:-3]}.pdf"), ".md")
    assert taken != a
    # The same letters, composed and not.
    first, second = outputs.names(of("é.pdf", unicodedata.normalize("NFD", "é.pdf")), ".md")
    assert first != second


def test_long_names_are_cut_at_a_character() -> None:
    for source in ("茶" * 84 + ".pdf", "a" + "茶" * 84 + ".pdf", "x" * 255):
        (name,) = outputs.names(of(source), ".jsonl")
        assert len(name.encode()) <= outputs.MAX_NAME
        assert name.startswith(source[:80])
    names = outputs.names(of("y" * 251 + "1.p", "y" * 251 + "2.p"), ".jsonl")
    assert len(set(names)) == 2
    assert {len(name.encode()) for name in names} == {outputs.MAX_NAME}


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text), unique=True))
def test_no_name_leaves_the_folder_or_is_another_s(stems: list[str]) -> None:
    sources = [Source(Path(str(at), stem), "name", at) for at, stem in enumerate(stems)]
    names = outputs.names(sources, ".md")
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert Path(name).name == name
        assert not name.startswith((".", "-"))
        assert name.isprintable()
        assert 3 < len(name.encode()) <= outputs.MAX_NAME


def test_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("before")
    with outputs.replacing(path) as file:
        file.write("after \ud83d")
        file.flush()
        assert path.read_text() == "before"
        outputs.remove_parts(tmp_path)  # another run begins
    assert path.read_text() == "after \\ud83d"
    with pytest.raises(KeyboardInterrupt), outputs.replacing(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "after \\ud83d"


def test_folder_of_parts_is_left_alone_while_it_is_in_use(tmp_path: Path) -> None:
    with outputs.part_folder(tmp_path) as folder:
        (folder / "half").touch()
        outputs.remove_parts(tmp_path)  # another run begins
        assert (folder / "half").exists()
    assert not [*tmp_path.iterdir()]


def test_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "else").write_text("kept")
    (tmp_path / "x.md").symlink_to("else")
    with outputs.replacing(tmp_path / "x.md") as file:
        file.write("new")
    assert (tmp_path / "else").read_text() == "kept"
    assert not (tmp_path / "x.md").is_symlink()


@pytest.mark.parametrize(
    "writing",
    ["outputs.replacing(path)", "outputs.part_folder(path.parent) as f, open(f / 'x', 'w')"],
)
def test_what_a_killed_process_left_is_removed(tmp_path: Path, writing: str) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from langchain_glm4v.transcription import outputs\n"
        "path = Path(sys.argv[1])\n"
        f"with {writing}: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "x.md"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len([*tmp_path.iterdir()]) == 1
    assert not path.exists()
    (tmp_path / "other.part").touch()
    outputs.remove_parts(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["other.part"]


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    read, link, url = tmp_path / "x.md", tmp_path / "link.md", tmp_path / "url.md"
    for path in (read, url):
        path.touch()
    link.symlink_to(read)
    sources = [Source(read, "x"), Source(url.as_uri(), "url"), Source(b"bytes", "bytes")]
    through = tmp_path / "sub" / ".." / "x.md"
    (tmp_path / "sub").mkdir()
    assert outputs.first_read([tmp_path / "new.md", through], sources) == through
    assert outputs.first_read([url], sources) == url
    assert outputs.first_read([link], sources) is None
    assert outputs.first_read([link], [Source(link, "link")]) == link
    assert outputs.first_read([read], [Source(link, "link")]) == read


def test_comments_cannot_be_left() -> None:
    facts = DocumentFacts(source="a --> b\n<script>\udcff.pdf", total_pages=2)
    nothing = Reading(text="", origin="none")
    pages = [
        PageResult(document=facts, number=0, reading=TEXT),
        PageResult(document=facts, number=1, reading=nothing, error="it --> broke\n\nwholly"),
    ]
    assert "".join(outputs.as_markdown(pages)) == (
        "<!-- page 1 of 2: a -- > b <script> .pdf -->\n\nTea\n\n"
        "<!-- page 2 of 2: a -- > b <script> .pdf -->\n<!-- failed: it -- > broke  wholly -->\n"
    )


@given(st.text(alphabet=st.characters(), max_size=40), st.booleans())
def test_records_are_lines_of_json_whatever_is_in_them(text: str, in_ascii: bool) -> None:
    facts = DocumentFacts(source=text, total_pages=1)
    page = PageResult(document=facts, number=0, reading=Reading(text=text, origin="model"))
    (line,) = outputs.as_jsonl([page], in_ascii=in_ascii)
    assert len(line.splitlines()) == 1
    assert not in_ascii or line.isascii()
    written = line.encode(errors="backslashreplace")
    assert json.loads(written)["text"] == json.loads(written)["source"] == text
