"""Faults on the real vLLM: what is killed, hangs, is full or damaged loses and leaves nothing.

One server does for most tests, in the order of the file: after each fault it is started again. What
needs no real engine, such as the death of each process at each stage, is in `unit_tests`.
"""

import asyncio
import errno
import gc
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import tiny_glm4v
from langchain_glm4v import ChatGLM4V, GLM4VServer, ServerUnreachableError
from langchain_glm4v.errors import SelfCheckError, ServerStartError
from langchain_glm4v.server import find_leftovers, log, process, sharing
from mixed_load import BAD, GOOD, Media, Outcome, calls

CALLS = 200
RESTART_DELAY = 0.5
HELD_MORE = 4  # sockets, files and threads that may come and go
ENDLESS: dict[str, Any] = {
    "max_tokens": 7000,
    "repetition_guard": False,
    "extra_body": {"ignore_eos": True},
}
# A program that uses the server, says how far it is, and streams an endless answer once told to.
USER = f"""
import sys
from langchain_glm4v import ChatGLM4V
from langchain_glm4v.server import process

process.RESTART_DELAYS = ({RESTART_DELAY},) * 4
model = ChatGLM4V.managed(on_progress=lambda stage: print(stage, flush=True), **OPTIONS)
print("id", model._managed_server.id, flush=True)
sys.stdin.readline()
stream = model.stream("Hello", **{ENDLESS})
next(stream)
print("streaming", flush=True)
for _ in stream:
    pass
"""


@dataclass(frozen=True)
class Shared:
    """A server that several programs use, this one among them."""

    model: ChatGLM4V
    others: list["subprocess.Popen[str]"]
    disk: Path
    is_small: bool  # whether the disk can be filled
    media: Media
    held: Counter[str] = field(default_factory=Counter)  # by this process, after the first calls

    @property
    def server(self) -> GLM4VServer:
        server = self.model._managed_server
        assert server
        return server


def user(options: dict[str, Any]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", f"OPTIONS = {options!r}\n{USER}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(program: "subprocess.Popen[str]", beginning: str) -> str:
    assert program.stdout
    return next(line for line in program.stdout if line.startswith(beginning)).strip()


def end(program: "subprocess.Popen[str]") -> None:
    program.kill()
    program.communicate()


def told_of(pid: int, name: str) -> str:
    """What /proc tells of a process; nothing if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def named(server_id: str, name: str) -> int | None:
    """The server's process whose command line has a name in it."""
    for pid in find_leftovers(server_id):
        if name in told_of(pid, "cmdline"):
            return pid
    return None


def started_here() -> list[int]:
    """The processes of all servers that were started with this folder for sockets."""
    here = f"XDG_RUNTIME_DIR={os.environ['XDG_RUNTIME_DIR']}\0"
    return [pid for pid in find_leftovers() if here in told_of(pid, "environ")]


def kill(server: GLM4VServer, victim: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill the "engine", the "server" process that has the API, or the "keeper"."""
    names = {"engine": "EngineCore", "keeper": "keeper.py"}
    wait_until(lambda: server.pid if victim == "server" else named(server.id, names[victim]))
    pid = server.pid if victim == "server" else named(server.id, names[victim])
    assert pid
    os.kill(pid, how)


def metrics(server: GLM4VServer) -> Counter[str]:
    """Metrics of the server: sums over the engines, with the reason for requests that ended."""
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {server.api_key}"})
    told = connection.getresponse().read().decode()
    connection.close()
    found: Counter[str] = Counter()
    for name, labels, value in re.findall(r"^vllm:(\w+)\{(.*)\} (\S+)$", told, re.MULTILINE):
        reason = re.search(r'finished_reason="(\w+)"', labels)
        found[f"{name} {reason[1]}" if reason else name] += round(float(value))
    return found


def answered(server: GLM4VServer) -> int:
    """How many requests the server has answered to their end."""
    found = metrics(server)
    return sum(found[f"request_success_total {reason}"] for reason in ("stop", "length"))


def assert_nothing_is_left(server_id: str) -> None:
    wait_until(lambda: not find_leftovers(server_id))
    assert sharing.names() == []


def held() -> Counter[str]:
    """What this process holds, the threads aside that calls share and that stay."""
    gc.collect()
    files = len([*Path("/proc/self/fd").iterdir()])
    threads = [one for one in threading.enumerate() if not one.name.startswith("glm4v-call")]
    return Counter(files=files, threads=len(threads))


@contextmanager
def own_folders(folder: Path) -> Iterator[None]:
    """While this runs, servers, logs and sockets are in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        patch.setenv("TMPDIR", str(folder))  # of other programs, and vLLM
        patch.setattr("tempfile.tempdir", str(folder))
        patch.setattr(process, "RESTART_DELAYS", (RESTART_DELAY,) * 4)
        yield


@contextmanager
def small_disk(folder: Path, option: str = "size=1m") -> Iterator[bool]:
    """While this runs, the folder is a small disk; False if that cannot be had."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"{option},mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("faults")
    disk = folder / "disk"
    with small_disk(disk) as is_small, own_folders(disk):
        options: dict[str, Any] = {"log_path": str(disk / "server.log"), "hang_timeout": 7}
        fields: dict[str, Any] = {"temperature": 0, "max_tokens": 512}
        others = [user(options) for _ in range(2)]
        try:  # all three at once
            with ChatGLM4V.managed(**options, **fields) as model:
                yield Shared(model, others, disk, is_small, Media(folder))
        finally:
            for program in others:
                end(program)


def test_programs_that_start_at_once_share_a_server(shared: Shared) -> None:
    told = {read_until(program, "id ") for program in shared.others}
    assert told == {f"id {shared.server.id}"}
    assert len(sharing.names()) == 1
    lines = [told_of(pid, "cmdline") for pid in started_here()]
    assert sum("keeper.py" in line for line in lines) == 1


def test_every_good_call_among_bad_ones_is_answered_once(shared: Shared) -> None:
    model, media, server = shared.model, shared.media, shared.server
    found: list[Outcome] = []
    asyncio.run(calls(model, media, [2 * CALLS + 8], print))  # finds out what the server can do
    before = answered(server)
    asyncio.run(calls(model, media, range(CALLS), found.append))
    assert sorted(outcome.number for outcome in found) == [*range(CALLS)]
    good = [outcome for outcome in found if outcome.kind in GOOD]
    assert [outcome for outcome in good if not outcome.is_right] == []
    bad = [outcome for outcome in found if outcome.kind in BAD]
    assert len(bad) == CALLS // 20
    unclear = [outcome for outcome in bad if not outcome.is_clear]
    assert [outcome for outcome in unclear if outcome.kind != "abandoned stream"] == []
    wait_until(lambda: metrics(server)["num_requests_running"] == 0)
    assert answered(server) - before == len(good)
    shared.held.update(held())


def test_answer_for_a_killed_program_ends(shared: Shared) -> None:
    program = shared.others[0]
    assert program.stdin
    print(file=program.stdin, flush=True)
    read_until(program, "streaming")
    assert metrics(shared.server)["num_requests_running"] == 1
    before = answered(shared.server)
    end(program)
    wait_until(lambda: metrics(shared.server)["num_requests_running"] == 0)
    assert answered(shared.server) == before


def test_server_stays_for_its_last_user(shared: Shared) -> None:
    before = shared.server.pid
    program = shared.others[1]
    program.send_signal(signal.SIGTERM)
    assert program.wait() == -signal.SIGTERM
    assert shared.model.invoke("Hello").text
    assert shared.server.pid == before


def test_full_disk_for_log_and_temporary_files_stops_nothing(shared: Shared) -> None:
    if not shared.is_small:
        pytest.skip("mounting a small disk needs root")
    fill(shared.disk)
    assert shared.model.invoke("Hello").text
    # what follows starts the server again, and again, on the full disk


def test_hung_server_is_replaced_and_calls_are_made_again(shared: Shared) -> None:
    before = shared.server.pid
    stream = shared.model.stream("Hello", **ENDLESS)
    next(stream)
    kill(shared.server, "server", signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(shared.model.invoke, "My code is 123. What is my code?")
        with pytest.raises(ServerUnreachableError, match="no answer from the server"):
            list(stream)
        assert reply.result().text
    assert shared.server.pid not in (before, None)


def test_hung_engine_is_replaced_and_calls_are_made_again(shared: Shared) -> None:
    before = shared.server.pid
    kill(shared.server, "engine", signal.SIGSTOP)
    assert shared.model.invoke("Hello").text
    assert shared.server.pid not in (before, None)


def test_deaths_amid_many_calls_lose_and_double_none(shared: Shared) -> None:
    model, server = shared.model, shared.server
    first = server.pid
    numbers = range(CALLS, 2 * CALLS)
    killed = threading.Event()
    found: list[Outcome] = []
    late: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        found.append(outcome)
        if killed.is_set():
            late.append(outcome)
        elif outcome.number >= CALLS * 1.3:
            killed.set()

    def strike() -> None:
        killed.wait()
        kill(server, "engine")
        wait_until(lambda: server.pid not in (first, None))
        kill(server, "server")  # while it is started again

    striker = threading.Thread(target=strike)
    striker.start()
    asyncio.run(calls(model, shared.media, numbers, note))
    striker.join()
    assert sorted(outcome.number for outcome in found) == [*numbers]
    good = [outcome for outcome in found if outcome.kind in GOOD]
    failed = [outcome for outcome in good if not outcome.is_right]
    assert [o for o in failed if not (o.kind.startswith("streamed") and o.is_clear)] == []
    assert len(late) > CALLS // 2
    wait_until(lambda: metrics(server)["num_requests_running"] == 0)
    # The counter began anew with the server.
    assert answered(server) <= sum(outcome.is_right for outcome in late)


def test_death_while_draining_ends_all(shared: Shared) -> None:
    server = shared.server
    stream = shared.model.stream("Hello", **ENDLESS)
    next(stream)
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(shared.model.close)
        wait_until(lambda: not server.is_running)
        kill(server, "engine")
        with pytest.raises(Exception, match="server at"):
            list(stream)
        draining.result()
    grown = held() - shared.held
    assert all(number <= HELD_MORE for number in grown.values()), grown
    assert_nothing_is_left(server.id)


@pytest.mark.parametrize(
    ("victim", "stage", "cause"),
    [
        ("server", "loading engine", "SIGKILL"),
        ("keeper", "configuring engine", "its keeper was killed"),
        ("engine", "loading weights", "it was killed"),
    ],
)
def test_death_in_a_start_is_told_and_leaves_nothing(
    tmp_path: Path, victim: str, stage: str, cause: str
) -> None:
    seen: list[str] = []
    marks = [mark for mark, name in log.STAGES if name == stage]

    def has_begun() -> bool:
        # In the log too, for a stage may be over before progress is told.
        text = server.log_path.read_text() if server.log_path.exists() else ""
        return any(one.startswith(stage) for one in seen) or any(m.search(text) for m in marks)

    with own_folders(tmp_path), ThreadPoolExecutor() as pool:
        server = GLM4VServer("tiny", share=True, on_progress=seen.append)
        starting = pool.submit(server.start)
        wait_until(has_begun)
        kill(server, victim)
        with pytest.raises(ServerStartError, match=cause):
            starting.result()
        assert_nothing_is_left(server.id)


def test_death_of_the_program_in_a_start_leaves_nothing(tmp_path: Path) -> None:
    with own_folders(tmp_path):
        program = user({})
        read_until(program, "loading engine")
        wait_until(lambda: len(started_here()) >= 2)
        end(program)
        wait_until(lambda: not started_here())
        assert sharing.names() == []


def test_weights_that_are_noise_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    shutil.copytree(tiny_glm4v.checkpoint_path(), folder)
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:  # its header and its length stay as they are
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    with own_folders(tmp_path):
        server = GLM4VServer(folder)
        with pytest.raises(SelfCheckError, match="fetch them again"):
            server.start()
        assert server.log_path.exists()
        assert_nothing_is_left(server.id)


def test_start_on_a_full_disk_tells_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "nr_inodes=2") as is_small, own_folders(tmp_path / "disk"):
        if not is_small:
            pytest.skip("mounting a small disk needs root")
        server = GLM4VServer("tiny", share=True)
        with pytest.raises(ServerStartError, match=r"No space left on device.* set XDG_RUNTIME"):
            server.start()
        assert_nothing_is_left(server.id)
