"""What becomes of real scans and documents: how many are read, and why the others are not.

    python benchmarks/real_scans.py [--json] [--material DIR] [--raw FILE]

The material is every PDF, deck, office document and picture in the source packages of six projects
that read or write such files, some of them damaged or locked on purpose. pip fetches the packages
from its index into DIR, where they are found the next time. All files go through `Transcriber` in
one run on one managed server of the miniature: every page once, in 784 pixels, with 512 tokens for
its answer, so that it takes minutes on two cores. What cannot be read must come out as a failure
that tells why, and nothing may get lost.

Where the text of a file is known, the rate of characters that are wrong is told too. It is about
the miniature, which has learned to read short slips, and tells nothing of GLM-4.1V-9B-Thinking.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from figures import Figure, argument_parser, figure, report
from langchain_glm4v import ChatGLM4V
from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import document, office
from langchain_glm4v.server import find_leftovers
from langchain_glm4v.transcription.checks import is_good_layer
from langchain_glm4v.transcription.records import PageResult
from langchain_glm4v.transcription.sources import Rendering
from langchain_glm4v.transcription.transcriber import Options, Transcriber
from processes import peak_mib
from scan_material import BROKEN, SDISTS, TRUTHS, unpack
from serve_throughput import machine
from slips import PROMPT, SIZE

TOKENS = 512  # of an answer, at most
LONGEST = max(SIZE)
# One attempt at each page: the miniature is sure of next to nothing here, and would be asked up to
# seven times.
OPTIONS = Options(
    prompt=PROMPT,
    rendering=Rendering(longest_side=LONGEST, max_tokens=(LONGEST // 28) ** 2),
    temperatures=(None,),
    finds_turn=False,
)
# Decoding processes that ended otherwise than by telling why they cannot read.
CRASHED = re.compile(r"decoding .* (?:crashed|took more than)")
OUTCOMES = ("read", "doubtful", "empty", "blank", "failed", "crashed")
COLUMNS = ("files", "pages", *OUTCOMES, "lost")
NEEDS_OFFICE = "LibreOffice, which is not installed"
NOTE = f"""\
Each page was shown in {LONGEST} pixels at most and asked about once, for {TOKENS} tokens. The error
rates are those of the miniature, which has learned to read short slips: they tell nothing of
GLM-4.1V-9B-Thinking. Above 1, more was written than stands there. What linn.pdf, skew.pdf,
rotated_skew.pdf and Seige_of_Vicksburg are compared with was itself read by a program."""

Results: TypeAlias = Mapping[Path, Sequence[PageResult]]
"""File -> what became of it."""


def transcribed(model: ChatGLM4V, paths: Sequence[Path]) -> Results:
    """What became of the pages of each file; a run that breaks off leaves some without any."""
    results: dict[Path, list[PageResult]] = {path: [] for path in paths}
    try:
        for result in Transcriber(model, OPTIONS).pages(paths):
            results[Path(result.document.source)].append(result)
    except Exception:
        traceback.print_exc()
    return results


def outcome(result: PageResult) -> str:
    """What became of a page, or of a file of which none can be shown, in a word.

    "read" is a text without a problem that shows, right or wrong. "doubtful" is one of which a
    problem is told, such as that it was cut off; "empty" is none at all, though the page is not
    "blank".
    """
    if result.reading.origin == "none":
        return "crashed" if CRASHED.search(result.error) else "failed"
    if result.reading.origin == "blank":
        return "blank"
    if not result.reading.text.strip():
        return "empty"
    return "doubtful" if result.error else "read"


def reason(result: PageResult) -> str:
    """What is told of a page, the same for all that it is told of."""
    without_name = result.error.replace(repr(result.document.source), "FILE")
    return re.sub(r"page \d+", "page N", without_name)


def counts(results: Results, root: Path) -> dict[str, Counter[str]]:
    """Package -> how many files, pages and outcomes there are, and files without a result."""
    found = {sdist.folder: Counter[str]() for sdist in SDISTS}
    for path, pages in results.items():
        count = found[path.relative_to(root).parts[0]]
        count["files"] += 1
        count["pages"] += sum(page.number is not None for page in pages)
        count.update(map(outcome, pages))
        count["lost"] += not pages
    return found


def misnumbered(results: Results) -> int:
    """Files that could be opened, of which not every page is there once, in its place."""
    return sum(
        [page.number for page in pages] not in ([None], [*range(pages[0].document.total_pages)])
        for pages in results.values()
        if pages
    )


def unexpected(results: Results, root: Path) -> list[str]:
    """Files that nobody can read but came out otherwise, and others that failed."""
    has_office = True
    try:
        office.soffice()
    except MediaError:
        has_office = False
    found = []
    for path, pages in results.items():
        name = str(path.relative_to(root))
        errors = [page.error for page in pages if outcome(page) in ("failed", "crashed")]
        told = BROKEN.get(name)
        if told is None:
            errors = [error for error in errors if has_office or NEEDS_OFFICE not in error]
            is_expected = not errors
        else:
            is_expected = len(errors) == 1 and told in errors[0]
        if not is_expected:
            found.append(f"{name}: {errors or 'no failure'}")
    return found


def plain(text: str) -> str:
    """A text with one space between words."""
    return " ".join(text.split())


def edit_distance(one: str, other: str) -> int:
    """How many characters must be put in, taken out or replaced to make one text of the other."""
    costs: list[int] = [
        *range(len(other) + 1)
    ]  # of making the part of one text so far the begin of the other
    for row, its in enumerate(one, 1):
        diagonal, costs[0] = costs[0], row
        for column, others in enumerate(other, 1):
            replaced = diagonal + (its != others)
            diagonal = costs[column]
            costs[column] = min(replaced, diagonal + 1, costs[column - 1] + 1)
    return costs[-1]


def error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Edits that make texts their truths, for each character of the truths.

    Any white space is one space. It is above 1 where a text is longer than its truth.
    """
    edits = sum(edit_distance(plain(text), plain(truth)) for text, truth in pairs)
    return edits / sum(len(plain(truth)) for _, truth in pairs)


def error_rates(results: Results, root: Path) -> dict[str, float]:
    """What was read -> rate of characters that are wrong."""
    rates = {}
    for name, truth in TRUTHS.items():
        path = root / name
        known = _known(path, (root / truth) if isinstance(truth, Path) else truth)
        read = "\n".join(page.reading.text for page in results[path])
        rates[path.name] = error_rate([(read, known)])
    printed = [
        (result.reading.text, text)
        for path, pages in results.items()
        if path.suffix == ".pdf" and str(path.relative_to(root)) not in TRUTHS
        for result, text in _printed(path, pages)
    ]
    return rates | {"printed_pages": error_rate(printed)}


def _known(path: Path, truth: str | Path | None) -> str:
    if isinstance(truth, Path):
        return truth.read_text(encoding="utf-8")
    return "\n".join(page.text for page in _own_pages(path)) if truth is None else truth


def _printed(path: Path, pages: Sequence[PageResult]) -> Iterator[tuple[PageResult, str]]:
    """The pages of a PDF that are no scan, and their text, where the model has read them."""
    if {outcome(page) for page in pages} & {"failed", "crashed"}:
        return
    for result, own in zip(pages, _own_pages(path), strict=True):
        if result.reading.origin == "model" and is_good_layer(own.text, own.pictured):
            yield result, own.text


def _own_pages(path: Path) -> Iterator[document.Page]:
    return document.pages(path, longest_side=56)  # for their text alone


def figures(
    results: Results, root: Path, rates: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, Figure]:
    """What the run comes to."""
    total = sum(counts(results, root).values(), Counter[str]())
    unread = [
        result
        for pages in results.values()
        for result in pages
        if outcome(result) not in ("read", "blank")
    ]
    none_of = {
        "crashed": total["crashed"],
        "files_without_a_result": total["lost"],
        "files_with_wrong_pages": misnumbered(results),
        "failures_without_a_reason": sum(not result.error for result in unread),
        "files_otherwise_than_expected": len(unexpected(results, root)),
        "left_processes": measured["left_processes"],
    }
    return {
        **{name: figure(total[name]) for name in ("files", "pages", *OUTCOMES)},
        **{name: figure(value, "<= 0") for name, value in none_of.items()},
        "seconds": figure(measured["seconds"]),
        "rss_peak_mib": figure(measured["rss_peak_mib"]),
        **{f"error_rate_{name}": figure(rate) for name, rate in rates.items()},
    }


def table(results: Results, root: Path) -> str:
    """A row for each package, then what is told of pages and files, and how often."""
    lines = [f"{'':<20}" + "".join(f"{column:>10}" for column in COLUMNS)]
    for name, count in counts(results, root).items():
        lines.append(f"{name:<20}" + "".join(f"{count[column]:>10}" for column in COLUMNS))
    lines += ["", "why:"]
    lines += [f"{often:>5}  {why}" for why, often in reasons(results).most_common()]
    return "\n".join((*lines, *unexpected(results, root), ""))


def reasons(results: Results) -> Counter[str]:
    """What is told of pages and files -> how often."""
    told = (reason(page) for pages in results.values() for page in pages)
    return Counter(why for why in told if why)


def versions() -> dict[str, str]:
    """What it ran on, and what opened the documents."""
    try:
        of_office = subprocess.check_output([office.soffice(), "--version"], text=True).strip()
    except MediaError:
        of_office = "not installed"
    return machine() | {"pymupdf": metadata.version("pymupdf"), "libreoffice": of_office}


def main() -> int:
    """Read all, print, and fail if a goal is missed."""
    parser = argument_parser(__doc__)
    parser.add_argument("--material", type=Path, help="folder of the source packages")
    parser.add_argument("--raw", type=Path, help="file for what became of all, as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "unpacked")
        material = given.material or Path(folder, "packages")
        material.mkdir(parents=True, exist_ok=True)
        paths = unpack(material, root)
        with ChatGLM4V.managed("tiny", share=False, temperature=0, max_tokens=TOKENS) as model:
            server = model._managed_server
            assert server is not None
            began = time.perf_counter()
            results = transcribed(model, paths)
            seconds = time.perf_counter() - began
        measured = {
            "seconds": seconds,
            "rss_peak_mib": peak_mib(),  # of the client; the server has ended
            "left_processes": len(find_leftovers(server.id)),
        }
        found = figures(results, root, error_rates(results, root), measured)
        if given.raw:
            given.raw.write_text(json.dumps(raw(results, root, found), indent=1) + "\n")
        if not given.json:
            print(table(results, root))
            print(NOTE)
    return report(found, as_json=given.json)


def raw(results: Results, root: Path, found: Mapping[str, Figure]) -> dict[str, Any]:
    """All that is told of a run."""
    return {
        "figures": found,
        "machine": versions(),
        "packages": {
            name: {column: count[column] for column in COLUMNS}
            for name, count in counts(results, root).items()
        },
        "reasons": dict(reasons(results).most_common()),
        "failed": {
            str(path.relative_to(root)): reason(result)
            for path, pages in results.items()
            for result in pages
            if outcome(result) in ("failed", "crashed")
        },
        "unexpected": unexpected(results, root),
        "notes": [" ".join(NOTE.split())],
    }


if __name__ == "__main__":
    sys.exit(main())
