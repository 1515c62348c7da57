"""What a server uses while it works: processors, the GPU, and the time that requests wait."""

import contextlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from load import Server

GPU_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,power.draw,clocks.sm")
GPU_FORMAT = ("--format=csv,noheader,nounits", "--loop-ms=200")
# Clocks of the engine, each as a sum and a count over its requests.
ENGINE_CLOCKS = ("request_queue_time", "request_prefill_time", "request_decode_time")


@contextlib.contextmanager
def watched(server: Server, leader: int) -> Iterator[dict[str, Any]]:
    """Watch a server during the block; what was seen is in the yielded dict afterwards.

    Args:
        server: The server, for its clocks.
        leader: Process whose session all processes of the server belong to.
    """
    seen: dict[str, Any] = {}
    gpu = _start_gpu()
    clocks, threads, start = _engine_clocks(server), _thread_seconds(leader), time.perf_counter()
    try:
        yield seen
    finally:
        wall = time.perf_counter() - start
        seen["cores"] = _cores(threads, _thread_seconds(leader), wall)
        seen["engine_s"] = _means(clocks, _engine_clocks(server))
        seen["gpu"] = _stop_gpu(gpu)


def _start_gpu() -> subprocess.Popen[str] | None:
    if shutil.which(GPU_QUERY[0]) is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    which = ["--id", visible] if visible else []
    command = [*GPU_QUERY, *GPU_FORMAT, *which]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _stop_gpu(process: subprocess.Popen[str] | None) -> dict[str, float]:
    """Means over the time: percent busy, watts, MHz."""
    if process is None:
        return {}
    process.terminate()
    lines = [line.split(",") for line in process.communicate()[0].splitlines()]
    rows = [[float(field) for field in line] for line in lines if len(line) == 3]
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    return dict(zip(("busy_percent", "watts", "mhz"), means, strict=False))


def _thread_seconds(leader: int) -> dict[tuple[str, str], float]:
    """Processor seconds by process and thread of a session."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                process, thread = stat.parts[2], stat.parts[4]
                ticks = int(fields[11]) + int(fields[12])
                found[process, thread] = ticks / os.sysconf("SC_CLK_TCK")
    return found


def _cores(
    before: dict[tuple[str, str], float], after: dict[tuple[str, str], float], wall: float
) -> dict[str, dict[str, float]]:
    """Processors in use, by process: in all, and by its busiest thread."""
    used: dict[str, list[float]] = {}
    for (process, thread), seconds in after.items():
        spent = (seconds - before.get((process, thread), 0.0)) / wall
        used.setdefault(process, []).append(spent)
    return {
        f"{_title(process)} ({process})": {
            "all": round(sum(threads), 3),
            "busiest_thread": round(max(threads), 3),
        }
        for process, threads in used.items()
        if sum(threads) > 0.01
    }


def _title(process: str) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return next((w for w in words.split() if w.startswith("VLLM::")), "vllm serve")
    return "ended"


def _engine_clocks(server: Server) -> dict[str, tuple[float, float]]:
    url = server.base_url.removesuffix("/v1") + "/metrics"
    headers = {"Authorization": f"Bearer {server.api_key}"}
    lines = httpx.get(url, headers=headers, trust_env=False).text.splitlines()

    def total(name: str) -> float:
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    return {
        clock: (total(f"vllm:{clock}_seconds_sum"), total(f"vllm:{clock}_seconds_count"))
        for clock in ENGINE_CLOCKS
    }


def _means(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Mean seconds by request, of the requests between two looks."""
    return {
        clock: (total - before[clock][0]) / max(count - before[clock][1], 1)
        for clock, (total, count) in after.items()
    }
