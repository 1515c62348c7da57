"""Whether a managed server and its client stay as they are under load and deaths, for half an hour.

    python benchmarks/soak.py [--minutes 30] [--json] [--raw samples.json]

Calls of `mixed_load`, 16 at once, go to one server of the miniature. In the first third of the time
engine and API process are killed in turn, every three minutes, but once at least; then nothing is
disturbed. Each 10 seconds memory, file handles and threads of the client, the keeper, the API
process and the engine are noted, and how many processes there are. Of each the one that lived
longest is judged: in the last third of its life medians may be above those of the first third by
no more than `LIMITS`. The first minute after each start is for warming up, and vLLM's cache of
pictures is small, so that it is full by then. The engine gives large tensors back to the system at
once (`LARGE_APART`): else glibc keeps hundreds of MiB, as docs/server.md tells, and leaks would not
be seen. Each good call must be answered with its own number:
only a stream that had begun when its server died may fail, with a clear error.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TypeAlias

from figures import Figure, argument_parser, figure, report
from langchain_glm4v import ChatGLM4V
from langchain_glm4v.server import GLM4VServer, find_leftovers, process
from mixed_load import GOOD, Media, Outcome, calls
from processes import family

INTERVAL = 10.0  # seconds between two samples
WARM_UP = 60.0  # seconds after a start without samples
MINUTES_PER_DEATH = 3  # in the first third
# vLLM's own cache of pictures may take 4 GiB, which half an hour does not fill.
SMALL_CACHE = ("--mm-processor-cache-gb", "0.02")
# For glibc: what has 1 MiB or more is no part of the heap, which only shrinks from its end.
LARGE_APART = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
PAGE = os.sysconf("SC_PAGE_SIZE")
# What is sampled -> by how much the median may grow. Memory in MiB, of which the heaps of vLLM's
# processes have hundreds; fds: idle connections come and go.
LIMITS = {"rss": 64.0, "fds": 24.0, "threads": 8.0, "processes": 1.0}
NAMES = {"keeper": "keeper.py", "engine": "EngineCore"}

Sample: TypeAlias = dict[str, float]
Samples: TypeAlias = dict[tuple[str, int], list[Sample]]  # of each process, by role and id


@dataclass
class Tally:
    """What became of the calls."""

    seen: Counter[str]

    def note(self, outcome: Outcome) -> None:
        """Count a call."""
        if outcome.kind not in GOOD:
            self.seen["bad"] += 1
        elif outcome.is_right:
            self.seen["answered"] += 1
        elif outcome.kind.startswith("streamed") and outcome.is_clear:
            self.seen["cut streams"] += 1
        else:
            self.seen["lost"] += 1
            print(outcome, file=sys.stderr, flush=True)


def pids(server: GLM4VServer) -> dict[str, int]:
    """The processes that are watched, as far as they are there."""
    found = {"client": os.getpid()}
    if server.pid is not None:
        found["server"] = server.pid
    for pid in find_leftovers(server.id):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        found |= {role: pid for role, name in NAMES.items() if name in line}
    return found


def note(server: GLM4VServer, samples: Samples) -> None:
    """Add what the processes hold now."""
    samples["all", 0].append({"processes": len(find_leftovers(server.id)) + len(family())})
    for role, pid in pids(server).items():
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            fds = len([*Path(f"/proc/{pid}/fd").iterdir()])
            threads = len([*Path(f"/proc/{pid}/task").iterdir()])
        except OSError:  # it ended meanwhile
            continue
        samples[role, pid].append({"rss": pages * PAGE / 1024**2, "fds": fds, "threads": threads})


def watch(server: GLM4VServer, seconds: float, deaths: int, samples: Samples) -> None:
    """Take samples, and kill engine and API process in turn, until the time is over."""
    began, died = time.monotonic(), 0
    pid, up_since = server.pid, began
    while (now := time.monotonic()) < began + seconds:
        if server.pid != pid or not server.is_healthy:
            pid, up_since = server.pid, now
        elif died < deaths and now > began + (died + 1) * seconds / 3 / deaths:
            victim = pids(server).get("server" if died % 2 else "engine")
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                died += 1
        elif now > up_since + WARM_UP:
            note(server, samples)
        time.sleep(INTERVAL)


def growth(samples: Samples) -> dict[str, Figure]:
    """How much more there is in the last third of the longest life of each than in the first."""
    lives: dict[str, list[Sample]] = {}
    for (role, _), life in samples.items():
        lives[role] = max(lives.get(role, []), life, key=len)
    found = {}
    for role, life in lives.items():
        third = max(len(life) // 3, 1)
        for name in life[0]:
            first, last = (
                statistics.median(one[name] for one in part)
                for part in (life[:third], life[-third:])
            )
            found[f"{role}_{name}_first"] = figure(first)
            found[f"{role}_{name}_growth"] = figure(last - first, f"<= {LIMITS[name]}")
    return found


def main() -> int:
    """Run the soak; the exit status is 1 if something grew or was lost."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--raw", type=Path, help="file for all samples")
    given = parser.parse_args()
    deaths = max(int(given.minutes / 3 / MINUTES_PER_DEATH), 1)
    # Else it gives up a server that dies so often.
    process.RESTART_DELAYS = (5.0,) * deaths  # type: ignore[assignment]
    os.environ |= LARGE_APART
    samples: Samples = defaultdict(list)
    tally = Tally(Counter())
    with (
        tempfile.TemporaryDirectory() as folder,
        ChatGLM4V.managed(
            "tiny", share=False, extra_args=SMALL_CACHE, temperature=0, max_tokens=512
        ) as model,
    ):
        server = model._managed_server
        assert server is not None
        seconds = given.minutes * 60
        watching = threading.Thread(target=watch, args=(server, seconds, deaths, samples))
        watching.start()
        deadline = time.monotonic() + seconds
        numbers = takewhile(lambda _: time.monotonic() < deadline, count())
        asyncio.run(calls(model, Media(Path(folder)), numbers, tally.note))
        watching.join()
        server_id = server.id
    found = {
        "answered": figure(tally.seen["answered"]),
        "bad": figure(tally.seen["bad"]),
        "cut streams": figure(tally.seen["cut streams"]),
        "lost": figure(tally.seen["lost"], "<= 0"),
        "left processes": figure(len(find_leftovers(server_id)), "<= 0"),
        **growth(samples),
    }
    if given.raw:
        lives = [{"role": role, "samples": life} for (role, _), life in samples.items()]
        given.raw.write_text(json.dumps(lives))
    return report(found, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
