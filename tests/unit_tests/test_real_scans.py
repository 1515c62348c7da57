"""The benchmark over real scans: what it counts, and how it compares texts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from langchain_glm4v.transcription.records import DocumentFacts, Origin, PageResult, Reading
from real_scans import (
    Results,
    counts,
    edit_distance,
    error_rate,
    figures,
    misnumbered,
    outcome,
    reason,
    unexpected,
)
from scan_material import SDISTS, fetch

ROOT = Path("/material")
SOUND = ROOT / "pypdf-7.1.0" / "sound.pdf"
LOCKED = ROOT / "pypdf-7.1.0" / "resources" / "encrypted-file.pdf"


def page(
    path: Path, number: int | None, origin: Origin = "model", error: str = "", total: int = 1
) -> PageResult:
    return PageResult(
        document=DocumentFacts(source=str(path), total_pages=total),
        number=number,
        reading=Reading(text="text" if origin == "model" else "", origin=origin),
        error=error,
    )


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("", "three", 5),
        ("three", "", 5),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("over the fence", "over the fence", 0),
        ("ab", "ba", 2),
    ],
)
def test_edits_are_counted(one: str, other: str, edits: int) -> None:
    assert edit_distance(one, other) == edits
    assert edit_distance(other, one) == edits


def test_error_rate_is_that_of_all_texts_and_no_matter_of_white_space() -> None:
    assert error_rate([("a  line\nand\tmore ", "a line and more")]) == 0
    assert error_rate([("abcd", "abcx"), ("", "efgh")]) == 5 / 8
    assert error_rate([("far too long", "x")]) > 1


@pytest.mark.parametrize(
    ("origin", "error", "expected"),
    [
        ("model", "", "read"),
        ("model", "it was cut off by the limit of tokens", "doubtful"),
        ("blank", "", "blank"),
        ("none", "'a.pdf' needs a password: give its password", "failed"),
        ("none", "decoding 'a.pdf' crashed (signal 11): the file is damaged", "crashed"),
        ("none", "decoding page 2 of 'a.pdf' took more than 60 s and was stopped", "crashed"),
    ],
)
def test_outcome(origin: Origin, error: str, expected: str) -> None:
    assert outcome(page(SOUND, 0, origin, error)) == expected


def test_no_text_of_a_page_with_print_is_told_from_a_blank_page() -> None:
    read = page(SOUND, 0, error="the model read nothing, though something stands on the page")
    assert outcome(replace(read, reading=Reading(text="\n", origin="model"))) == "empty"


def test_the_same_reason_is_told_of_all_files() -> None:
    error = f"cannot render page 12 of {str(SOUND)!r}: no font"
    assert reason(page(SOUND, 11, "none", error)) == "cannot render page N of FILE: no font"


def test_files_pages_and_outcomes_are_counted_for_each_package() -> None:
    results: Results = {
        SOUND: [page(SOUND, 0, total=2), page(SOUND, 1, "blank", total=2)],
        LOCKED: [page(LOCKED, None, "none", "it needs a password")],
        ROOT / "tesserocr-2.13.0" / "lost.png": [],
    }

    found = counts(results, ROOT)

    assert found["pypdf-7.1.0"] == Counter(files=2, pages=2, read=1, blank=1, failed=1)
    assert found["tesserocr-2.13.0"] == Counter(files=1, lost=1)
    assert len(found) == len(SDISTS)


def test_pages_must_be_there_once_and_in_their_places() -> None:
    def of(*numbers: int | None) -> Results:
        return {SOUND: [page(SOUND, number, total=2) for number in numbers]}

    assert misnumbered(of(0, 1)) == misnumbered(of(None)) == misnumbered({SOUND: []}) == 0
    assert [misnumbered(of(*numbers)) for numbers in ((0,), (1, 0), (0, 0, 1), (0, None))] == [
        1
    ] * 4


def test_what_must_fail_must_and_nothing_else_may() -> None:
    failed = page(SOUND, 0, "none", "a page that cannot be drawn")
    locked = page(LOCKED, None, "none", f"{str(LOCKED)!r} needs a password: give its password")

    assert unexpected({SOUND: [page(SOUND, 0)], LOCKED: [locked]}, ROOT) == []
    assert len(unexpected({SOUND: [failed]}, ROOT)) == 1
    assert len(unexpected({LOCKED: [page(LOCKED, 0)]}, ROOT)) == 1
    assert len(unexpected({LOCKED: [page(LOCKED, None, "none", "it is damaged")]}, ROOT)) == 1


def test_a_failure_without_a_reason_misses_a_goal() -> None:
    measured = {"left_processes": 0.0, "seconds": 1.0, "rss_peak_mib": 1.0}

    def missed(result: PageResult) -> set[str]:
        found = figures({SOUND: [result]}, ROOT, {"sound.pdf": 0.5}, measured)
        assert found["error_rate_sound.pdf"] == {"value": 0.5}
        return {name for name, one in found.items() if one.get("ok") is False}

    assert missed(page(SOUND, 0)) == set()
    assert missed(page(SOUND, 0, "none")) == {
        "failures_without_a_reason",
        "files_otherwise_than_expected",
    }


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{SDISTS[0].folder}.tar.gz").write_bytes(b"another")
    with pytest.raises(SystemExit, match="is not what was pinned: delete it"):
        fetch(SDISTS[0], tmp_path)
