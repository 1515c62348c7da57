"""Frames of a film for the model, beside OpenCV as vLLM uses it.

    python benchmarks/media_video.py [--json]

OpenCV's way: grab every frame, retrieve the wanted ones, keep them in full size as RGB. Ours: what
goes into a request, decoded, scaled and written as JPEG in base64, decoding process included. The
two in turn, each run in a fresh process that has only imported its library (ours brings LangChain
along); wall time, CPU time and peak memory, all processes together, are medians.

Films are made once, in the folder for temporary files: 60 s of 1080p30 in H.264 (x264 "faster",
crf 23, about 1.5 Mb/s) with motion, noise and a cut every 7 s, and the same ten times in a row.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from figures import Figure, argument_parser, figure, report
from processes import cpu_seconds, peak_mib

ROUNDS = 5
FPS = 2
FEW = 32  # frames of ten minutes
SECONDS, RATE, SCENE = 60, 30, 7
COPIES = 10
WIDTH, HEIGHT = 1920, 1080
OURS, PEER = "ours", "opencv"

GOALS = {
    "video_60s_2fps_wall_vs_opencv": "<= 0.6",
    "video_60s_2fps_memory_vs_opencv": "<= 0.4",
    "video_10min_32_frames_wall_vs_opencv": "<= 0.15",
}


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        wall: Seconds.
        cpu: Seconds, child processes included.
        memory: MiB at the peak, of all processes together.
        frames: Frames that came out.
    """

    wall: float
    cpu: float
    memory: float
    frames: int


def films() -> tuple[Path, Path]:
    """The short film and the long one; made if they are not there."""
    folder = Path(tempfile.gettempdir()) / "langchain-glm4v-benchmarks"
    folder.mkdir(exist_ok=True)
    short, long = folder / "60s-1080p30-v1.mp4", folder / "10min-1080p30-v1.mp4"
    for path, make in ((short, make_film), (long, lambda part: repeat(short, part))):
        if not path.exists():
            print(f"making {path}: some minutes", file=sys.stderr)
            part = path.with_suffix(".part")
            make(part)
            part.replace(path)
    return short, long


def make_film(path: Path) -> None:
    """Film a textured scenery from a moving camera with a noisy sensor."""
    av: Any = importlib.import_module("av")
    np: Any = importlib.import_module("numpy")
    chance = np.random.default_rng(1)

    def scenery(height: int, width: int, spread: float) -> Any:
        """Noise of all sizes, the largest strongest: as in nature."""
        total = np.zeros((height, width))
        for size in (8, 16, 32, 64, 128, 256):
            coarse = chance.normal(0, 1, (height // size + 2, width // size + 2))
            rows = np.linspace(0, coarse.shape[0] - 1.001, height)
            columns = np.linspace(0, coarse.shape[1] - 1.001, width)
            top, left = rows.astype(int)[:, None], columns.astype(int)[None]
            down, right = rows[:, None] - top, columns[None] - left
            total += size**0.5 * (
                (1 - down) * ((1 - right) * coarse[top, left] + right * coarse[top, left + 1])
                + down * ((1 - right) * coarse[top + 1, left] + right * coarse[top + 1, left + 1])
            )
        return np.clip(128 + spread * total / total.std(), 16, 235).astype("int16")

    luma = scenery(1600, 2800, 45)
    colours = [scenery(800, 1400, 20) for _ in range(2)]
    noise = [chance.normal(0, 3, (HEIGHT, WIDTH)).round().astype("int16") for _ in range(7)]
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "faster", "crf": "23"}
        stream = container.add_stream("libx264", RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(SECONDS * RATE):
            scene, second = divmod(number / RATE, SCENE)
            left = int(440 + 420 * np.sin(scene * 1.7 + second * 0.3)) // 2 * 2
            top = int(260 + 250 * np.sin(scene * 2.3 + second * 0.2)) // 2 * 2
            view = luma[top : top + HEIGHT, left : left + WIDTH]
            view = np.clip((view if scene % 2 else 251 - view) + noise[number % 7], 16, 235)
            top, left = top // 2, left // 2
            planes = [view.astype("uint8").reshape(-1)] + [
                plane[top : top + HEIGHT // 2, left : left + WIDTH // 2].astype("uint8").reshape(-1)
                for plane in colours
            ]
            pixels = np.concatenate(planes).reshape(HEIGHT * 3 // 2, WIDTH)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "yuv420p")))
        container.mux(stream.encode(None))


def repeat(short: Path, path: Path) -> None:
    """Write a film several times in a row; nothing is encoded."""
    av: Any = importlib.import_module("av")
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for copy in range(COPIES):
            with av.open(str(short)) as source:
                film = source.streams.video[0]
                if stream is None:
                    stream = container.add_stream_from_template(film)
                shift = round(copy * SECONDS / film.time_base)
                for packet in source.demux(film):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    container.mux(packet)


def opencv(path: Path, wanted: list[int]) -> int:
    """Take frames as vLLM's loader does: by their number, in full size, as RGB, all kept."""
    cv2: Any = importlib.import_module("cv2")
    np: Any = importlib.import_module("numpy")
    backend = next(
        api
        for api in cv2.videoio_registry.getStreamBufferedBackends()
        if cv2.videoio_registry.hasBackend(api) and cv2.videoio_registry.isBackendBuiltIn(api)
    )
    film = cv2.VideoCapture(BytesIO(path.read_bytes()), backend, [])
    width, height = (
        int(film.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    frames = np.empty((len(wanted), height, width, 3), "uint8")
    places = {number: place for place, number in enumerate(wanted)}
    for number in range(wanted[-1] + 1):
        if film.grab() and number in places:
            frames[places[number]] = cv2.cvtColor(film.retrieve()[1], cv2.COLOR_BGR2RGB)
    return len(frames)


def run(task: str, way: str) -> Cost:
    """Do a task in this process."""
    short, long = films()
    path, few = (short, None) if task == "60s_2fps" else (long, FEW)
    if way == OURS:
        video: Any = importlib.import_module("langchain_glm4v.media.video")
        begin = time.perf_counter()
        frames = video.clip(path, num_frames=few, fps=None if few else FPS).frames
    else:
        total = SECONDS * RATE if few is None else SECONDS * RATE * COPIES
        step = RATE // FPS if few is None else total // FEW
        importlib.import_module("cv2")
        begin = time.perf_counter()
        frames = opencv(path, list(range(0, total, step))[:few])
    wall = time.perf_counter() - begin
    return Cost(wall, cpu_seconds(), peak_mib(), frames)


def is_exact(path: Path) -> bool:
    """Whether the frames, not scaled yet, are those of a full decode by PyAV alone, bit by bit."""
    av: Any = importlib.import_module("av")
    video: Any = importlib.import_module("langchain_glm4v.media.video")
    frames: Any = importlib.import_module("langchain_glm4v.media.video_frames")

    def digest(frame: Any) -> bytes:
        return hashlib.sha256(frame.to_ndarray()).digest()

    frames._keeper = lambda _: digest
    timeline = video.read_timeline(str(path), "film")
    wish = video._Wish(FPS, None, 0.0, None, video.MAX_VIDEO_TOKENS, "frames")
    job = video._job(str(path), "film", timeline, video._sampled(timeline, wish, "film"), wish)
    taken = frames._sought(job)
    with av.open(str(path)) as film:
        film.streams.video[0].thread_type = "AUTO"
        every = itertools.islice(film.decode(video=0), 0, None, RATE // FPS)
        return [taken[tick] for tick in job.pts] == [digest(frame) for frame in every]


def measure() -> dict[str, dict[str, list[Cost]]]:
    """Costs by task and way, of each round."""
    films()
    results: dict[str, dict[str, list[Cost]]] = {}
    for _ in range(ROUNDS):
        for task in ("60s_2fps", "10min_32_frames"):
            for way in (OURS, PEER):
                command = [sys.executable, __file__, "--run", task, way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                cost = Cost(**json.loads(done.stdout))
                results.setdefault(task, {}).setdefault(way, []).append(cost)
    return results


def figures(results: dict[str, dict[str, list[Cost]]], exact: bool) -> dict[str, Figure]:
    """The figures: medians of the ratios within a round."""

    def ratio(task: str, field: str) -> float:
        pairs = zip(results[task][OURS], results[task][PEER], strict=True)
        return float(statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs))

    found: dict[str, Figure] = {}
    for task, by_way in results.items():
        assert len({cost.frames for costs in by_way.values() for cost in costs}) == 1
        for field in ("wall", "cpu", "memory"):
            name = f"video_{task}_{field}_vs_opencv"
            found[name] = figure(ratio(task, field), GOALS.get(name, ""))
    found["video_frames_as_full_decode"] = figure(int(exact), ">= 1")
    return found


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", nargs=2, metavar=("TASK", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(asdict(run(*arguments.run))))
        return 0
    results = measure()
    if not arguments.json:
        print(f"medians of {ROUNDS} runs, each in a process of its own")
        print(f"{'task':<18}{'way':<8}{'wall s':>8}{'CPU s':>8}{'MiB':>8}")
        for task, by_way in results.items():
            for way, costs in by_way.items():
                fields = ("wall", "cpu", "memory")
                values = (statistics.median(getattr(cost, f) for cost in costs) for f in fields)
                print(f"{task:<18}{way:<8}" + "".join(f"{value:>8.1f}" for value in values))
    return report(figures(results, is_exact(films()[0])), as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
