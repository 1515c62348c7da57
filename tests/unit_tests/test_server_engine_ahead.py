import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for_end

from langchain_glm4v.server import options

FOLDER = Path(options.ENTRYPOINT).parent

# A server that begins a process ahead, changes its environment, and then spawns two.
SERVER = """
import json, multiprocessing, os, sys, time
sys.path.insert(0, {folder!r})

def seen(pipe, lock):
    with lock:
        variables = {{name: os.environ.get(name) for name in ("GONE", "NEW", "OWN", "SAME")}}
        pipe.send([os.getpid(), os.getppid(), "fractions" in sys.modules, variables])
    sys.exit(7)

def spawned(method="spawn"):
    context = multiprocessing.get_context(method)
    lock = context.Lock()
    here, there = context.Pipe()
    process = context.Process(target=seen, args=(there, lock))
    process.start()
    there.close()
    try:
        told = here.recv()
    except EOFError:
        told = None
    process.join()
    return {{"pid": process.pid, "told": told, "exit": process.exitcode}}

def import_all():
    os.environ["OWN"] = "the process's"
    {imports}

if __name__ == "__main__":
    import engine_ahead
    os.environ.update(GONE="1", SAME="1", OWN="the server's")
    engine_ahead.begin(import_all, own={{"OWN"}})
    del os.environ["GONE"]
    os.environ["NEW"] = "a\\udcffb"
    {then}
    print(json.dumps([os.getpid(), spawned(), spawned()]))
"""


def served(
    folder: Path, *, imports: str = "import fractions", then: str = "pass"
) -> tuple[int, Any, Any]:
    """Process id of the server, and what became of the two that it spawned."""
    script = folder / "server.py"
    script.write_text(SERVER.format(folder=str(FOLDER), imports=imports, then=then))
    done = subprocess.run(
        [sys.executable, "-P", str(script)], capture_output=True, timeout=120, check=True
    )
    found: tuple[int, Any, Any] = json.loads(done.stdout)
    return found


def test_the_process_that_waits_becomes_the_first_that_is_spawned(tmp_path: Path) -> None:
    server, first, second = served(tmp_path)
    variables = {"GONE": None, "NEW": "a\udcffb", "SAME": "1"}
    own = variables | {"OWN": "the process's"}
    assert first == {"pid": first["pid"], "told": [first["pid"], server, True, own], "exit": 7}
    others = variables | {"OWN": "the server's"}
    assert second["told"] == [second["pid"], server, False, others]
    assert second["exit"] == 7


@pytest.mark.parametrize(
    "then",
    [
        # It is gone.
        "pid = int(open(f'/proc/self/task/{os.getpid()}/children').read()); os.kill(pid, 9); "
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)",
        # Files have numbers that it cannot give them.
        "files = [os.dup(0) for _ in range(300)]",
        # Another program than Python is to be started.
        "multiprocessing.set_executable(os.readlink('/proc/self/exe'))",
    ],
)
def test_a_spawned_process_stands_in(tmp_path: Path, then: str) -> None:
    server, first, second = served(tmp_path, then=then)
    for one in (first, second):
        assert one["told"][:3] == [one["pid"], server, False]
        assert one["exit"] == 7


def test_what_fails_in_the_process_is_seen_as_of_a_spawned_one(tmp_path: Path) -> None:
    _, first, second = served(tmp_path, imports="time.sleep(1); raise ZeroDivisionError")
    assert first["told"] is None
    assert first["exit"] == 1
    assert second["exit"] == 7


@pytest.mark.parametrize(
    "imports", ["import no_such_module", "time.sleep(1); import no_such_module"]
)
def test_what_cannot_be_imported_is_for_a_spawned_one_to_tell(tmp_path: Path, imports: str) -> None:
    server, first, second = served(tmp_path, imports=imports)
    variables = {"GONE": None, "NEW": "a\udcffb", "SAME": "1", "OWN": "the server's"}
    for one in (first, second):
        assert one["told"] == [one["pid"], server, False, variables]
        assert one["exit"] == 7


def test_the_process_ends_with_the_server(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        SERVER.format(
            folder=str(FOLDER),
            imports="print(os.getpid(), flush=True)",
            then="time.sleep(600)",
        )
    )
    with subprocess.Popen([sys.executable, "-P", str(script)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        waiting = int(server.stdout.readline())
        os.kill(waiting, 0)
        server.send_signal(signal.SIGKILL)
    wait_for_end(waiting)
