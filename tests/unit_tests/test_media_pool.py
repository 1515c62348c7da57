"""Decoding processes: results, errors, crashes, hangs, memory, forks, and work that is stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_for_end, wait_until

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import budget, pool, source, stopping
from langchain_glm4v.media.fetch import fetch
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
    process = pool.call(os.getpid, subject="x")
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert pool.call(budget.image_tokens, 640, 480, subject="x") == 391


def test_what_a_decoder_prints_is_not_seen() -> None:
    script = (
        "import os, sys\n"
        "from langchain_glm4v.media import pool\n"
        "pool.call(print, 'noise', subject='x')\n"
        "pool.call(os.write, 2, b'noise of a library', subject='x')\n"
        "pool.call(eval, \"print('of Python', file=__import__('sys').stderr)\", subject='x')\n"
    )
    done = _run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "of Python\n")


def test_imports_from_where_the_parent_does(tmp_path: Path) -> None:
    (tmp_path / "added_later.py").write_text("def answer():\n    return 42\n")
    script = (
        "import sys\n"
        "from langchain_glm4v.media import pool\n"
        "pool.call(abs, -1, subject='x')\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import added_later\n"
        "print(pool.call(added_later.answer, subject='x'))\n"
    )
    done = _run(script)
    assert (done.stdout, done.stderr) == ("42\n", "")


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
    if (child := os.fork()) == 0:
        os.write(writing, str(pool.call(os.getpid, subject="x")).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 20)) != ours


def test_ends_with_its_parent() -> None:
    script = (
        "import os\n"
        "from langchain_glm4v.media import pool\n"
        "print(pool.call(os.getpid, subject='x'), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    wait_for_end(_pid_told_by(script))


def test_a_hanging_job_ends_with_its_parent() -> None:
    script = (
        "import os, threading, time\n"
        "from langchain_glm4v.media import pool\n"
        "pid = pool.call(os.getpid, subject='x')\n"
        "print(pid, flush=True)\n"
        # In the midst of C code that lets no other thread run.
        "job = dict(subject='x', timeout=99)\n"
        "args = (pow, 3, 10**7, 10**300_000)\n"
        "threading.Thread(target=pool.call, args=args, kwargs=job).start()\n"
        "time.sleep(0.3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    wait_for_end(_pid_told_by(script))


def _pid_told_by(script: str) -> int:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def _run(script: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_fork_does_not_keep_its_parents_processes_alive() -> None:
    script = (
        "import os, time\n"
        "from langchain_glm4v.media import pool\n"
        "pid = pool.call(os.getpid, subject='x')\n"
        "if not (fork := os.fork()):\n"
        "    os.closerange(0, 3)\n"
        "    time.sleep(1000)\n"
        "print(pid, fork, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    worker, fork = map(int, _run(script).stdout.split())
    try:
        wait_for_end(worker)
    finally:
        os.kill(fork, signal.SIGKILL)


def hang() -> None:
    pool.call(time.sleep, 999, subject="x", timeout=999)


def hang_twice(_: int = 0) -> None:
    """As a document does, of which some pages are rendered at once."""
    list(pool.each(lambda _: hang(), range(2)))


def is_busy() -> bool:
    return pool._slots._value < pool.SIZE


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_ends_all_work() -> None:
    all_begun = threading.Event()

    def numbers() -> Iterator[int]:
        yield from range(3)
        all_begun.set()  # amid the start of a thread, Ctrl-C would keep the pool from noting it

    def interrupt() -> None:
        assert all_begun.wait(60)
        wait_until(is_busy)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(pool.each(hang_twice, numbers(), at_once=3))
    thread.join()

    assert not is_busy()
    assert not [t for t in threading.enumerate() if t.name.startswith("glm4v-media")]


def test_an_error_ends_the_work_beside_it() -> None:
    def fail_at_last(number: int) -> None:
        if number:
            hang_twice()
        wait_until(is_busy)
        raise MediaError("first")

    with pytest.raises(MediaError, match="first"):
        list(pool.each(fail_at_last, range(2), at_once=2))
    assert not is_busy()


async def test_a_cancelled_task_ends_its_work() -> None:
    task = asyncio.create_task(stopping.in_thread(hang_twice))
    other = asyncio.create_task(stopping.in_thread(pool.call, abs, -1, subject="x"))
    await asyncio.to_thread(wait_until, is_busy)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await other == 1
    await asyncio.to_thread(wait_until, lambda: not is_busy())


async def test_a_cancelled_task_ends_its_fetching() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"
        task = asyncio.create_task(
            stopping.in_thread(fetch, url, timeout=600, allow_hosts=["127.0.0.1"])
        )
        connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            connection.settimeout(60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_until, lambda: not connection.recv(4096))


async def test_a_thread_gives_results_and_errors() -> None:
    assert await stopping.in_thread(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await stopping.in_thread(int, "x")


def test_a_forked_child_has_its_own_threads() -> None:
    asyncio.run(stopping.in_thread(abs, -1))
    if (child := os.fork()) == 0:
        os._exit(asyncio.run(asyncio.wait_for(stopping.in_thread(abs, -7), 60)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


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
