"""What it costs to make pictures of a document's pages, beside the way of olmOCR.

    python benchmarks/media_document.py [--json]

Two documents are made, one of text and one of scans (A4, 300 dpi, grey JPEG), and each page is
brought into base64 with its longer side in 1540 pixels. olmOCR runs poppler's `pdfinfo` and
`pdftoppm -png -r` for each page; without them (`apt-get install poppler-utils`) that figure is
reported as not measured. Each run is in a fresh process, which first renders a page of another
document so that start-up is not counted; the runs are in turn within a round, and the figures are
medians over the rounds of the ratios within a round. Memory is the sum of the peaks of the process
and all that it started; that of long documents is of one run for each length.

The scans are of JPEG, as most scanners write them. On scans in layers of JPEG 2000 and JBIG2, such
as `resources/Seige_of_Vicksburg_Sample_OCR.pdf` in pypdf's source distribution, the ratio to
olmOCR's way is 3.5: decoding the layers takes 40 % of our time, and blending them as much.
"""

import argparse
import base64
import io
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from figures import Figure, argument_parser, figure, report
from langchain_glm4v.media import document
from processes import cpu_seconds, peak_mib

ROUNDS = 5
PAGES = 24
LONGEST_SIDE = 1540
FEW, MANY = 100, 1_000  # pages of the scans whose memory is measured

GOALS = {
    "text_cpu_pdftoppm_vs_ours": ">= 8",
    "text_wall_pdftoppm_vs_ours": ">= 8",
    "scan_cpu_pdftoppm_vs_ours": ">= 8",
    "scan_wall_pdftoppm_vs_ours": ">= 8",
    "text_wall_one_worker_vs_two": ">= 1.4",
    "scan_wall_one_worker_vs_two": ">= 1.8",
    "scan_1000_pages_peak_mib": "<= 667",
    "scan_1000_pages_vs_100_peak": "<= 1.1",
}

Run: TypeAlias = dict[str, float]
"""Seconds of `wall` and `cpu` for a page, and `peak` MiB."""


def write_pdf(path: Path, pages: Iterator[tuple[bytes, bytes]], resources: str) -> None:
    """Write a PDF page by page; each is what draws it, and a JPEG of A4 with 300 dpi or b""."""
    offsets: dict[int, int] = {}
    kids = []

    def add(number: int, head: str, data: bytes | None = None) -> None:
        offsets[number] = file.tell()
        length = "" if data is None else f"/Length {len(data)}"
        file.write(f"{number} 0 obj<<{head}{length}>>".encode())
        if data is not None:
            file.write(b"stream\n" + data + b"\nendstream")
        file.write(b" endobj\n")

    image = (
        "/Type/XObject/Subtype/Image/Width 2480/Height 3508/BitsPerComponent 8"
        "/ColorSpace/DeviceGray/Filter/DCTDecode"
    )
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        for index, (drawing, jpeg) in enumerate(pages):
            page = 3 + 3 * index
            kids.append(page)
            own = f"/Resources<<{resources}/XObject<</I {page + 2} 0 R>>>>"
            add(page, f"/Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]{own}/Contents {page + 1} 0 R")
            add(page + 1, "", drawing)
            add(page + 2, image, jpeg)
        add(1, "/Type/Catalog/Pages 2 0 R")
        add(2, f"/Type/Pages/Count {len(kids)}/Kids[{' '.join(f'{kid} 0 R' for kid in kids)}]")
        start = file.tell()
        file.write(f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode())
        file.writelines(f"{offsets[number]:010} 00000 n \n".encode() for number in sorted(offsets))
        end = f"trailer<</Root 1 0 R/Size {len(offsets) + 1}>>\nstartxref\n{start}\n%%EOF\n"
        file.write(end.encode())


def text_pages(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Pages full of words in 10 points."""
    chance = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    for _ in range(count):
        lines = [
            " ".join(
                "".join(chance.choices(letters, range(26, 0, -1), k=chance.randint(2, 9)))
                for _ in range(14)
            )
            for _ in range(58)
        ]
        shown = "".join(f"({line})'" for line in lines)
        yield f"BT /F 10 Tf 13 TL 50 800 Td {shown} ET".encode(), b""


def scan_pages(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Pages that a scanner made: the same picture in streams of their own, each decoded anew."""
    from PIL import Image, ImageFilter  # noqa: PLC0415 - the process that measures needs none

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.pdf")
        write_pdf(path, text_pages(1), FONT)
        (page,) = document.pages(path, longest_side=2604)
    jpeg = io.BytesIO()
    with Image.open(io.BytesIO(page.data)) as picture:
        grey = picture.convert("L").resize((2480, 3508)).filter(ImageFilter.GaussianBlur(1))
        noise = Image.effect_noise(grey.size, 4)
        Image.blend(grey, noise, 0.1).save(jpeg, "JPEG", quality=75)
    for number in range(count):
        # A comment at its end, so that no two streams are the same.
        yield b"595 0 0 842 0 0 cm /I Do", jpeg.getvalue() + b"%d" % number


FONT = "/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Times-Roman>>>>"


def ours(path: Path, workers: int) -> None:
    """Bring all pages into base64 by this package."""
    for page in document.pages(path, longest_side=LONGEST_SIDE, workers=workers):
        base64.b64encode(page.data)


def olmocr(path: Path, count: int) -> None:
    """Bring all pages into base64 as olmOCR does."""
    for number in map(str, range(1, count + 1)):
        only = ["-f", number, "-l", number]
        told = subprocess.run(
            ["pdfinfo", *only, "-box", str(path)], check=True, capture_output=True, text=True
        ).stdout
        box = next(line for line in told.splitlines() if "MediaBox" in line).split()[-4:]
        left, bottom, right, top = map(float, box)
        dpi = str(LONGEST_SIDE * 72 / max(right - left, top - bottom))
        command = ["pdftoppm", "-png", *only, "-r", dpi, str(path)]
        base64.b64encode(subprocess.run(command, check=True, capture_output=True).stdout)


def measured(way: str, path: Path, count: int) -> Run:
    """Measure one way in this process."""
    ways: dict[str, Callable[[], None]] = {
        "olmocr": lambda: olmocr(path, count),
        "ours": lambda: ours(path, 1),
        "ours2": lambda: ours(path, 2),
    }
    if way != "olmocr":
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder, "other.pdf")
            write_pdf(other, text_pages(4), FONT)
            ours(other, 2 if way == "ours2" else 1)
    wall, cpu = time.perf_counter(), cpu_seconds()
    ways[way]()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {"wall": wall / count, "cpu": cpu / count, "peak": peak_mib()}


def run(way: str, path: Path, count: int) -> Run:
    """Measure one way in a fresh process."""
    command = [sys.executable, __file__, "--run", way, str(path), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: Run = json.loads(done.stdout)
    return result


def measure(folder: Path, ways: list[str]) -> dict[str, dict[str, list[Run]]]:
    """Runs by document and way."""
    results: dict[str, dict[str, list[Run]]] = {}
    for kind, pages in (("text", text_pages), ("scan", scan_pages)):
        path = folder / f"{kind}.pdf"
        write_pdf(path, pages(PAGES), FONT)
        by_way = results.setdefault(kind, {way: [] for way in ways})
        for _ in range(ROUNDS):
            for way in ways:
                by_way[way].append(run(way, path, PAGES))
    for count in (FEW, MANY):
        path = folder / f"{count}.pdf"
        write_pdf(path, scan_pages(count), FONT)
        results[f"scan of {count} pages"] = {"ours2": [run("ours2", path, count)]}
        path.unlink()
    return results


def figures(results: dict[str, dict[str, list[Run]]]) -> dict[str, Figure]:
    """The figures; None where the peer is not installed."""

    def ratio(kind: str, what: str, of: str, to: str) -> float | None:
        runs = results[kind]
        if of not in runs:
            return None
        pairs = zip(runs[of], runs[to], strict=True)
        return statistics.median(one[what] / other[what] for one, other in pairs)

    few, many = (results[f"scan of {count} pages"]["ours2"][0]["peak"] for count in (FEW, MANY))
    values = {
        "scan_1000_pages_peak_mib": many,
        "scan_1000_pages_vs_100_peak": many / few,
        **{
            f"{kind}_{what}_pdftoppm_vs_ours": ratio(kind, what, "olmocr", "ours")
            for kind in ("text", "scan")
            for what in ("cpu", "wall")
        },
        **{
            f"{kind}_wall_one_worker_vs_two": ratio(kind, "wall", "ours", "ours2")
            for kind in ("text", "scan")
        },
    }
    return {name: figure(value, GOALS[name]) for name, value in values.items()}


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        way, path, count = given.run
        print(json.dumps(measured(way, Path(path), int(count))))
        return 0
    peer = ["olmocr"] if shutil.which("pdftoppm") and shutil.which("pdfinfo") else []
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), [*peer, "ours", "ours2"])
    if not given.json:
        print(f"milliseconds a page, median of {ROUNDS} rounds; peak memory of all processes")
        print(f"{'document':<20}{'way':<10}{'wall':>8}{'CPU':>8}{'MB':>8}")
        for kind, by_way in results.items():
            for way, runs in by_way.items():
                wall, cpu, peak = (
                    statistics.median(one[what] for one in runs) for what in ("wall", "cpu", "peak")
                )
                print(f"{kind:<20}{way:<10}{wall * 1e3:>8.1f}{cpu * 1e3:>8.1f}{peak:>8.0f}")
    return report(figures(results), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
