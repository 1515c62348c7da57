"""What a photo costs on its way into a request, beside Pillow's full decoding.

    python benchmarks/media_image.py [--json]

A JPEG of 12 megapixels (4000x3000, made here with the spectrum of a photo) becomes one of
1540 pixels in base64. Ours is `prepare(path, longest_side=1540)` with the decoding process started
before, and all it does included; the peer decodes the file in full with Pillow, scales it by the
same filter and writes the same kind of JPEG, in a process of its own. The two take turns; figures
are medians over the rounds of the ratios within a round. CPU time and peak memory are those of all
processes that take part, the caller's included; the memory is what a decoding adds.
"""

import base64
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageChops

from figures import argument_parser, figure, report
from langchain_glm4v.media.image import prepare
from processes import cpu_seconds

ROUNDS = 9
SIZE = (4000, 3000)
LONGEST_SIDE = 1540
SCALED = (1540, 1148)
GOAL = "<= 0.65"  # of the peer's time
OURS, PEER = "prepare", "Pillow, full"


def photo(path: Path) -> None:
    """Write a picture with the spectrum of a photo: the finer the detail, the fainter it is.

    Colours change more slowly than brightness, which also has the noise of a camera.
    """
    bands = []
    for strength, finest in ((1.0, 1024), (0.3, 256), (0.3, 256)):
        band = Image.new("L", SIZE, 128)
        side = 4
        while side <= finest:
            coarse = Image.effect_noise((side * 4, side * 3), 150 * strength / side**0.75)
            added = coarse.resize(SIZE, Image.Resampling.BICUBIC)
            band = ImageChops.add(band, added, offset=-128)
            side *= 2
        bands.append(band)
    bands[0] = ImageChops.add(bands[0], Image.effect_noise(SIZE, 3), offset=-128)
    Image.merge("YCbCr", bands).save(path, "JPEG", quality=90)


def ours(path: Path) -> str:
    """The picture's URL."""
    return prepare(path, longest_side=LONGEST_SIDE)[0].url


def peer(path: Path) -> str:
    """The same with Pillow alone."""
    with Image.open(path) as opened:
        scaled = opened.resize(SCALED, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    scaled.save(data, "JPEG", quality=90, subsampling="4:4:4")
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def measured(work: Callable[[Path], str], path: Path, repeats: int) -> dict[str, float]:
    """Seconds by call, wall and CPU, the decoding process included."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    for _ in range(repeats):
        work(path)
    wall = time.perf_counter() - wall
    cpu = cpu_seconds() - cpu
    return {"wall": wall / repeats, "cpu": cpu / repeats}


def peak_mib(work: str, path: Path) -> float:
    """Peak memory that the first call adds to a fresh process and its decoding process."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from langchain_glm4v.media import pool\n"
        "from processes import peak_mib\n"
        "import media_image\n"
        "Image.init()\n"
        "pool.call(Image.init, subject='x')\n"
        "before = peak_mib()\n"
        f"media_image.{work}(Path(sys.argv[1]))\n"
        "print(peak_mib() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))},
    )
    return float(done.stdout)


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        photo(path)
        sent = {OURS: ours(path), PEER: peer(path)}  # and everything is warm
        rounds = [
            {OURS: measured(ours, path, 3), PEER: measured(peer, path, 3)} for _ in range(ROUNDS)
        ]
        memory = {OURS: peak_mib("ours", path), PEER: peak_mib("peer", path)}
        size = path.stat().st_size
    found = {
        f"image_12mp_{clock}_vs_pillow": figure(
            statistics.median(r[OURS][clock] / r[PEER][clock] for r in rounds), GOAL
        )
        for clock in ("wall", "cpu")
    }
    found["image_12mp_rss_vs_pillow"] = figure(memory[OURS] / memory[PEER])
    if not as_json:
        print(f"JPEG of {size:,} bytes, {SIZE[0]}x{SIZE[1]} to {SCALED[0]}x{SCALED[1]}")
        print(
            f"{'medians of ' + str(ROUNDS):<14}{'wall ms':>10}{'CPU ms':>10}{'MiB':>8}{'URL':>12}"
        )
        for name in (OURS, PEER):
            wall, cpu = (statistics.median(r[name][k] for r in rounds) for k in ("wall", "cpu"))
            row = f"{wall * 1e3:>10.1f}{cpu * 1e3:>10.1f}{memory[name]:>8.0f}"
            print(f"{name:<14}{row}{len(sent[name]):>12,}")
    return report(found, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
