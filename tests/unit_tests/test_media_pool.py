"""Decoding processes: results, errors, crashes, hangs, memory, forks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import budget, pool, source
from langchain_glm4v.media.worker import outcome


def test_gives_what_the_function_returns() -> None:
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_raises_what_the_function_raises() -> None:
    with pytest.raises(UnsupportedMediaError, match="not in base64"):
        pool.call(source.decode_data_url, "data:text/plain,x", "picture", subject="x")


def test_raises_errors_of_other_libraries_as_text() -> None:
    with pytest.raises(RuntimeError, match=r"^CalledProcessError: .*exit status 1"):
        pool.call(subprocess.check_call, ["false"], subject="x")


def test_keeps_its_process() -> None:
    assert pool.call(os.getpid, subject="x") == pool.call(os.getpid, subject="x") != os.getpid()


def test_does_not_import_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_idle", [])  # a new one, that has not decoded anything yet
    pool.call(budget.image_tokens, 640, 480, subject="x")
    loaded = pool.call(eval, "[*__import__('sys').modules]", subject="x")
    assert "langchain_glm4v.media.budget" in loaded
    assert not {"langchain_core", "openai", "pydantic", "PIL", "av", "pymupdf"} & {*loaded}
    for worker in pool._idle:
        worker.kill()


def test_names_what_crashed() -> None:
    with pytest.raises(MediaError, match=r"decoding page 3 of 'x' crashed \(SIGSEGV\)"):
        pool.call(signal.raise_signal, signal.SIGSEGV, subject="page 3 of 'x'")
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_names_what_hangs() -> None:
    with pytest.raises(MediaError, match="decoding page 3 of 'x' took more than 1 s"):
        pool.call(time.sleep, 60, subject="page 3 of 'x'", timeout=1)
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_limits_memory() -> None:
    with pytest.raises(MediaError, match="decoding 'x' needs more than 4096 MiB of memory"):
        pool.call(bytes, 8 * 1024**3, subject="'x'")
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_replaces_a_process_that_died_idle() -> None:
    os.kill(pool.call(os.getpid, subject="x"), signal.SIGKILL)
    time.sleep(0.2)
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_what_it_prints_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    pool.call(print, "noise", subject="x")
    assert capfd.readouterr().out == ""


def test_runs_without_a_main_guard() -> None:
    """A user's script is never run a second time in the decoding process."""
    script = (
        "from langchain_glm4v.media import budget, pool\n"
        "print(pool.call(budget.image_tokens, 640, 480, subject='x'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "391\n", "")


def test_a_forked_child_has_its_own_processes() -> None:
    ours = pool.call(os.getpid, subject="x")
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(pool.call(os.getpid, subject="x")).encode())
        os._exit(0)
    os.wait()
    assert int(os.read(reading, 20)) != ours


def test_ends_with_its_parent() -> None:
    script = (
        "import os\n"
        "from langchain_glm4v.media import pool\n"
        "print(pool.call(os.getpid, subject='x'), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, stdout=subprocess.PIPE, text=True
    )
    _wait_for_end(int(done.stdout))


def test_a_hanging_job_ends_with_its_parent() -> None:
    script = (
        "import os, threading, time\n"
        "from langchain_glm4v.media import pool\n"
        "pid = pool.call(os.getpid, subject='x')\n"
        "print(pid, flush=True)\n"
        "job = dict(subject='x', timeout=1)\n"
        "threading.Thread(target=pool.call, args=(time.sleep, 99), kwargs=job).start()\n"
        "time.sleep(0.3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, stdout=subprocess.PIPE, text=True
    )
    _wait_for_end(int(done.stdout))


def _run(script: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.05)


def test_each_keeps_the_order() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number

    assert list(pool.each(slow_first, range(20), at_once=4)) == list(range(20))


def test_each_reads_and_works_only_as_far_as_needed() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = pool.each(lambda number: number, numbers(), at_once=2)
    assert next(results) == 0
    assert len(read) <= 4
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("glm4v-media")]


def test_each_raises_at_its_place() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise MediaError("two")
        return number

    results = pool.each(fail_at_two, range(5), at_once=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(MediaError, match="two"):
        next(results)


def test_an_error_of_a_job_is_pickled() -> None:
    assert b"UnpicklingError" in outcome(b"broken")
