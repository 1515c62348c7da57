"""The life of a server process, with a stand-in for vLLM that can be told to misbehave."""

import asyncio
import http.server
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.call_errors import ServerUnreachableError
from langchain_glm4v.errors import (
    PortInUseError,
    SelfCheckError,
    ServerOptionError,
    ServerStartError,
    TemplateError,
)
from langchain_glm4v.server import (
    GLM4VServer,
    find_leftovers,
    hold,
    keeper,
    process,
    sharing,
)
from langchain_glm4v.server.hold import Hold
from langchain_glm4v.server.preflight import free_port

pytestmark = pytest.mark.usefixtures("stand_in")


Program = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def program(model: str) -> Iterator[Program]:
    """Runs another Python program: one that makes a `server`, prints its id and goes on as told."""
    started: list[subprocess.Popen[str]] = []

    def run(body: str) -> subprocess.Popen[str]:
        text = (
            "import os, signal, time\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup lets children ignore it
            "from langchain_glm4v.server import GLM4VServer\n"
            f"server = GLM4VServer({model!r})\n"
            "print(server.id, flush=True)\n" + body
        )
        command = [sys.executable, "-c", text]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for child in started:
        child.kill()
        child.communicate()


def keeper_of(server: GLM4VServer) -> int:
    (pid,) = (pid for pid in find_leftovers(server.id) if "keeper.py" in command_of(pid))
    return pid


def command_of(pid: int) -> str:
    """The command line of a process; nothing if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def wait_for_processes(server_id: str, number: int) -> None:
    """Until so many run: the one that would become the engine finds no vLLM here, and ends."""
    wait_until(lambda: len(find_leftovers(server_id)) == number)


def line_from(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def test_start_and_stop(model: str) -> None:
    stages: list[str] = []
    server = GLM4VServer(model, on_progress=stages.append)
    with server:
        assert server.served_model_name == "checkpoint"
        wait_for_processes(server.id, 2)
        keeper, pid = keeper_of(server), server.pid
        assert pid
        assert {*find_leftovers(server.id)} == {keeper, pid}
        assert {*find_leftovers()} >= {keeper, pid}
        assert server.log_path.stat().st_mode & 0o077 == 0
        assert server.start() is server
        shown = repr(server) + server.log_path.read_text()
        shown += "".join(map(command_of, (keeper, pid)))
        assert server.api_key not in shown
    assert find_leftovers(server.id) == []
    assert server.pid is None
    assert not server.log_path.exists()
    server.stop()
    assert stages[0] == "the engine is for CPUs: nothing is compiled"
    assert stages[1] == "loading engine (vllm 0.0.0+cpu)"
    assert stages[-1] == "ready"


def test_can_be_started_again(model: str) -> None:
    server = GLM4VServer(model)
    for _ in range(2):
        with server:
            assert server.is_running
    assert find_leftovers(server.id) == []


def test_given_log_is_kept(model: str, tmp_path: Path) -> None:
    log_path = tmp_path / "logs" / "server.log"
    with GLM4VServer(model, log_path=log_path):
        pass
    assert "Starting to load model" in log_path.read_text()


def test_server_and_keeper_end_together_and_leave_the_log(model: str) -> None:
    with GLM4VServer(model) as server:
        assert server.pid
        os.kill(keeper_of(server), signal.SIGKILL)
        wait_until(lambda: not server.is_running)
    assert server.log_path.exists()
    assert find_leftovers(server.id) == []


def test_log_of_a_start_that_was_given_up_is_not_kept(model: str) -> None:
    def give_up(stage: str) -> None:
        if stage == "ready":
            raise KeyboardInterrupt

    server = GLM4VServer(model, on_progress=give_up)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert find_leftovers(server.id) == []
    assert not server.log_path.exists()


def test_address_and_name_are_unknown_before_the_start(model: str) -> None:
    server = GLM4VServer(model)
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        _ = server.base_url
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        _ = server.served_model_name


def test_proxies_are_not_asked_for_loopback(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with GLM4VServer(model) as server:
        assert server.is_running


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        ("RuntimeError: CUDA out of memory", "set max_model_len lower"),
        ("ValueError: 5.0 GiB KV cache is needed, which is larger", "fit into the KV cache"),
        ("User-specified max_model_len (9) is greater than the derived max", "set it lower"),
        ("vllm: error: unrecognized arguments: --frob", "check extra_args"),
        ("Transformers does not recognize this architecture", "reinstall the versions"),
        ("safetensors_rust.SafetensorError: incomplete metadata", "fetch the checkpoint again"),
        ("RuntimeError: Cannot find any model weights with", "weights are missing"),
        ("OSError: libcudart.so.13: cannot open", "do not fit the driver"),
        ("OSError: [Errno 28] No space left on device", "free some space"),
        ("RuntimeError: Failed core proc(s): {'EngineCore': -9}", "using too much memory"),
        ("RuntimeError: Failed core proc(s): {'EngineCore': -7}", "changed while it was read"),
        ("RuntimeError: Failed core proc(s): {}", "using too much memory"),
        ("ERROR EngineCore: odd\nRuntimeError: Failed core proc(s): {}", "in the last lines"),
        ("something else", "the reason is in the last lines"),
    ],
)
def test_dead_server_is_reported_with_its_cause(
    model: str, monkeypatch: pytest.MonkeyPatch, says: str, cause: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"says {says}")
    server = GLM4VServer(model)
    with pytest.raises(ServerStartError, match="ended with exit code 1") as raised:
        server.start()
    assert cause in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.log_tail.endswith(says)
    assert str(server.log_path) in str(raised.value)
    assert server.log_path.exists()


def test_killed_server_is_reported(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "killed")
    with pytest.raises(ServerStartError, match=r"ended with signal SIGKILL .* too much memory"):
        GLM4VServer(model).start()


def test_server_that_never_answers(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    server = GLM4VServer(model, startup_timeout=1.0)
    with pytest.raises(ServerStartError, match=r"after 1 s, still .*: raise startup_timeout"):
        server.start()
    assert find_leftovers(server.id) == []


@pytest.mark.parametrize("name", ["", "file/server.log"])
def test_log_that_cannot_be_written(model: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    server = GLM4VServer(model, log_path=tmp_path / name)
    with pytest.raises(ServerStartError, match=r"log cannot be written: .*; give as log_path"):
        server.start()
    assert find_leftovers(server.id) == []
    assert server not in process._running


def test_command_that_the_system_refuses(model: str) -> None:
    server = GLM4VServer(model, extra_args=["x" * 1_000_000])
    with pytest.raises(ServerStartError, match=r"cannot be run: .* too long.* shorter extra_args"):
        server.start()
    assert server not in process._running


def test_start_removes_old_logs_that_nobody_writes(model: str, tmp_path: Path) -> None:
    def aged(path: Path, days: float) -> Path:
        path.touch()
        os.utime(path, (then := time.time() - days * 24 * 3600, then))
        return path

    old = aged(tmp_path / "glm4v-server-0123.log", 8)
    put_aside = aged(tmp_path / "glm4v-server-0123.log.2", 8)
    recent = aged(tmp_path / "glm4v-server-4567.log", 6)
    foreign = aged(tmp_path / "other.log", 8)
    with GLM4VServer(model) as running:
        aged(running.log_path, 8)
        of_running = aged(Path(f"{running.log_path}.1"), 8)
        with GLM4VServer(model):
            assert not old.exists()
            assert not put_aside.exists()
        assert of_running.exists()
        assert recent.exists()
        assert foreign.exists()
        assert running.log_path.exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("garbles", "renders a conversation as"),
        ("splits", r"splits tags .*</answer> \(3\)"),
        ("hides", "shows the tag <think> as ''"),
        ("babbles", "answers a question with '!!!"),
    ],
)
def test_garbling_server_is_not_left_running(
    model: str, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", fault)
    server = GLM4VServer(model)
    with pytest.raises((TemplateError, SelfCheckError), match=message):
        server.start()
    assert find_leftovers(server.id) == []


@pytest.mark.parametrize("arguments", [["--load-format", "dummy"], ["--load-format=dummy"]])
def test_weights_that_are_made_up_need_not_make_sense(
    model: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "babbles")
    with GLM4VServer(model, extra_args=arguments) as server:
        assert server.base_url


def test_busy_port_is_found_before_anything_starts(model: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = GLM4VServer(model, port=other.getsockname()[1])
        with pytest.raises(PortInUseError):
            server.start()
    assert not server.log_path.exists()


@pytest.mark.parametrize("port", [None, 8000])
def test_address_of_another_machine_is_told(model: str, port: int | None) -> None:
    server = GLM4VServer(model, host="192.0.2.1", port=port)
    with pytest.raises(ServerOptionError, match=r"host is '192.0.2.1', where .* cannot listen"):
        server.start()


def test_another_port_is_tried_when_the_chosen_one_is_taken_meanwhile(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv("GLM4V_STAND_IN", f"port lost once {seen}")
    log = tmp_path / "log"
    with GLM4VServer(model, log_path=log) as server:
        assert f":{seen.read_text()}/" not in server.base_url
    # The process that would become the engine finds none of vLLM here, and must not say so behind
    # the server's own last words.
    assert "ModuleNotFoundError" not in log.read_text()


def test_given_port_taken_meanwhile(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "says Address already in use")
    with pytest.raises(PortInUseError):
        GLM4VServer(model, port=free_port("127.0.0.1")).start()


def test_server_that_ignores_the_request_to_stop_is_killed_with_its_helpers(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DRAIN_MARGIN", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    server = GLM4VServer(model, shutdown_timeout=0.5).start()
    wait_for_processes(server.id, 4)  # with the keeper
    server.stop()
    assert find_leftovers(server.id) == []


def test_stop_from_another_thread_ends_a_start(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    server = GLM4VServer(model)
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(server.start)
        wait_until(lambda: bool(find_leftovers(server.id)))
        server.stop()
        with pytest.raises(ServerStartError, match="it was told to stop"):
            starting.result()
    assert find_leftovers(server.id) == []
    assert server not in process._running


@pytest.mark.parametrize("stage", [0, 1], ids=["before it launches", "as it launches"])
def test_stop_from_another_thread_at_each_stage_of_a_start(
    model: str, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    stages: list[str] = []

    def stop_at(line: str) -> None:
        stages.append(line)
        if len(stages) == stage + 1:
            with ThreadPoolExecutor() as pool:
                pool.submit(server.stop).result()

    server = GLM4VServer(model, startup_timeout=30, on_progress=stop_at)
    with pytest.raises(ServerStartError, match="it was told to stop"):
        server.start()
    assert len(stages) == stage + 1
    assert find_leftovers(server.id) == []
    assert server not in process._running


def test_stop_while_the_keeper_is_being_started(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    server = GLM4VServer(model, startup_timeout=30)
    popen = subprocess.Popen
    with ThreadPoolExecutor() as pool:

        def slow(*args: Any, **options: Any) -> Any:
            child = popen(*args, **options)
            stopping.append(pool.submit(server.stop))
            time.sleep(0.5)
            return child

        stopping: list[Future[None]] = []
        monkeypatch.setattr("subprocess.Popen", slow)
        with pytest.raises(ServerStartError, match="it was told to stop"):
            server.start()
        stopping[0].result()
    assert find_leftovers(server.id) == []
    assert server not in process._running


def test_stop_while_a_start_lets_go_of_the_server_before(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = GLM4VServer(model)
    let_go = server._let_go

    def stopped(**how: Any) -> None:
        let_go(**how)
        monkeypatch.setattr(server, "_let_go", let_go)
        with ThreadPoolExecutor() as pool:
            pool.submit(server.stop).result()

    monkeypatch.setattr(server, "_let_go", stopped)
    with pytest.raises(ServerStartError, match="it was told to stop"):
        server.start()
    assert find_leftovers(server.id) == []


def test_server_that_another_thread_stops_amid_a_look_is_not_healthy(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status: Any = Hold.__dict__["status"]
    stops: list[Callable[[], None]] = []

    def stopping_meanwhile(self: Hold) -> Any:
        found = status.fget(self)
        if stops:
            with ThreadPoolExecutor() as pool:
                pool.submit(stops.pop()).result()
        return found

    monkeypatch.setattr(Hold, "status", property(stopping_meanwhile))
    with GLM4VServer(model) as server:
        stops.append(server.stop)
        assert not server.is_healthy


def test_start_after_a_stop_that_came_amid_a_start(model: str) -> None:
    server = GLM4VServer(model, on_progress=lambda _: stops.pop()() if stops else None)
    stops = [server.stop]
    with pytest.raises(ServerStartError, match="it was told to stop"):
        server.start()
    with server:
        assert server.is_healthy


def test_stop_cuts_the_stop_of_another_thread_short(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    server = GLM4VServer(model, shutdown_timeout=1000).start()
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(server.stop)
        wait_until(lambda: not server.is_running)
        server.stop(drain=False)
        server.start()
        draining.result()
        assert server.is_running  # the slower one left the new process alone
    server.stop(drain=False)
    assert find_leftovers(server.id) == []


def test_engine_does_not_outlive_the_server(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "has an engine")
    with GLM4VServer(model) as server:
        assert server.pid
        wait_for_processes(server.id, 4)  # with the keeper, and a tracker
        os.kill(keeper_of(server), signal.SIGKILL)
        wait_until(lambda: not find_leftovers(server.id))


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_server_ends_with_a_program_that_is_killed(
    program: Program, ended_by: signal.Signals
) -> None:
    child = program("server.start(); print('ready', flush=True); time.sleep(1000)")
    server_id = line_from(child)
    assert line_from(child) == "ready"
    child.send_signal(ended_by)
    child.wait()
    wait_until(lambda: not find_leftovers(server_id))


def test_deaf_server_ends_with_a_program_that_is_killed(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    child = program(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # inherited by the server
        "server.start()",
    )
    server_id = line_from(child)
    wait_until(lambda: bool(find_leftovers(server_id)))
    child.kill()
    child.wait()
    wait_until(lambda: not find_leftovers(server_id))


def test_forked_child_leaves_the_server_to_its_parent(program: Program) -> None:
    child = program(
        "server.start()\n"
        "if not (pid := os.fork()):\n"
        "    server.stop(); print(server.pid, flush=True); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(server.is_running, flush=True)",
    )
    line_from(child)
    assert line_from(child) == "None"
    assert line_from(child) == "True"
    assert child.wait() == 0


def test_server_still_running_at_exit_is_stopped(program: Program) -> None:
    child = program("server.start()")
    server_id = line_from(child)
    assert child.wait() == 0
    assert find_leftovers(server_id) == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_server_that_died_is_started_again(model: str, signum: signal.Signals) -> None:
    with GLM4VServer(model) as server:
        pid, address, key = server.pid, server.base_url, server.api_key
        assert pid
        os.kill(pid, signum)
        wait_for_another(server, pid)
        assert server.is_healthy
        assert (server.base_url, server.api_key) == (address, key)
        assert "Starting to load model" in Path(f"{server.log_path}.1").read_text()
    assert find_leftovers(server.id) == []


def wait_for_another(server: GLM4VServer, pid: int | None) -> None:
    """Until another process than `pid` serves."""
    wait_until(lambda: server.pid not in (pid, None))
    server.wait_until_ready()


def test_server_that_hangs_is_started_again(model: str) -> None:
    with GLM4VServer(model, hang_timeout=0.5) as server:
        pid = server.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        wait_for_another(server, pid)


def test_server_whose_engine_is_dead_is_started_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwell = tmp_path / "unwell"
    monkeypatch.setenv("GLM4V_STAND_IN", f"unwell once {unwell}")
    with GLM4VServer(model) as server:
        pid = server.pid
        unwell.touch()
        wait_for_another(server, pid)


def test_server_that_dies_again_and_again_is_given_up(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    monkeypatch.setenv("GLM4V_STAND_IN", f"starts once {broken}")
    with GLM4VServer(model) as server:
        broken.touch()
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running)
        with pytest.raises(ServerStartError, match=r"ended with exit code 1: .* ran out"):
            server.wait_until_ready()
        assert not server.is_running
    assert find_leftovers(server.id) == []
    assert server.log_path.exists()


async def test_call_is_made_again_when_the_server_is_up_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly"
    monkeypatch.setenv("GLM4V_STAND_IN", f"dies at once {deadly}")
    with ChatGLM4V.managed(model, max_retries=0) as chat:
        texts = [chat.invoke("Hello").text]
        deadly.touch()
        texts.append(chat.invoke("Hello").text)
        deadly.touch()
        texts.append((await chat.ainvoke("Hello")).text)
        assert len(set(texts)) == 3  # process ids
        server = chat._managed_server
        assert server
        os.kill(keeper_of(server), signal.SIGKILL)
        wait_until(lambda: not find_leftovers(server.id))
        with pytest.raises(ServerStartError, match="its keeper was killed"):
            chat.invoke("Hello")


def test_stop_while_a_restart_is_awaited(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RESTART_DELAYS", (1000.0,))
    server = GLM4VServer(model).start()
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None)
    assert server.is_running
    with pytest.raises(ServerStartError, match=r"being started again after 0.1 s"):
        server.wait_until_ready(0.1)
    server.stop()
    assert find_leftovers(server.id) == []


def test_equal_options_share_a_server(model: str) -> None:
    first, second = (GLM4VServer(model, share=True).start() for _ in range(2))
    other = GLM4VServer(model, share=True, images_per_prompt=1).start()
    alone = GLM4VServer(model).start()
    assert first.id == second.id
    assert (first.base_url, first.api_key) == (second.base_url, second.api_key)
    assert len({first.id, other.id, alone.id}) == 3
    first.stop()
    first.stop()
    assert second.is_healthy
    for server in (second, other, alone):
        server.stop()
        assert not server.is_running
        assert find_leftovers(server.id) == []
    assert sharing.names() == []


def test_server_that_was_just_started_is_joined(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Hold.tell

    def tell_late(self: Hold, do: str, **options: bool) -> None:
        threading.Timer(0.5 if do == "vouch" else 0, tell, (self, do), options).start()

    monkeypatch.setattr(Hold, "tell", tell_late)  # as on a busy machine
    first, second = (GLM4VServer(model, share=True).start() for _ in range(2))
    assert first.id == second.id
    for server in (first, second):
        server.stop()


def test_programs_share_a_server(model: str, program: Program) -> None:
    body = (
        f"server = GLM4VServer({model!r}, share=True).start()\n"
        "print(server.id, flush=True); time.sleep(1000)"
    )
    children = [program(body) for _ in range(3)]  # which start at once
    for child in children:
        line_from(child)
    (server_id,) = {line_from(child) for child in children}
    *others, last = children
    for child in others:
        child.kill()
        child.wait()
    ours = GLM4VServer(model, share=True).start()
    assert ours.id == server_id
    last.kill()
    last.wait()
    assert ours.is_healthy
    ours.stop()
    assert_nothing_is_left(server_id)  # by itself, where the keeper hears of that death later


def test_server_outlives_the_program_that_started_it(model: str, program: Program) -> None:
    child = program(
        f"server = GLM4VServer({model!r}, share=True, idle_timeout=1000).start()\n"
        "print(server.id, flush=True)"
    )
    line_from(child)
    server_id = line_from(child)
    assert child.wait() == 0
    ours = GLM4VServer(model, share=True, idle_timeout=1000).start()
    assert ours.id == server_id
    ours.stop()
    assert not ours.is_running
    wait_for_processes(server_id, 2)
    (name,) = sharing.names()
    assert state_of(name) == "ready"
    connection = sharing.join(name)
    assert connection
    hold = Hold(connection)
    hold.tell("look")
    hold.tell("stop")
    hold.wait(lambda _: False, 30)
    wait_until(lambda: not find_leftovers(server_id))


def test_unused_server_ends_after_a_while(model: str) -> None:
    server = GLM4VServer(model, share=True, idle_timeout=0.5).start()
    server.stop()
    wait_until(lambda: not find_leftovers(server.id))
    assert sharing.names() == []


def test_shared_server_whose_keeper_was_killed_is_replaced(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    dead = GLM4VServer(model, share=True).start()
    os.kill(keeper_of(dead), signal.SIGKILL)
    wait_until(lambda: not dead.is_running)
    fresh = GLM4VServer(model, share=True).start()
    assert fresh.id != dead.id
    dead.stop()
    assert fresh.is_healthy
    fresh.stop()
    assert find_leftovers(fresh.id) == []
    wait_until(lambda: not find_leftovers(dead.id))


def test_start_that_failed_is_no_obstacle_to_the_next(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "says RuntimeError: CUDA out of memory")
    with pytest.raises(ServerStartError, match="ran out"):
        GLM4VServer(model, share=True).start()
    monkeypatch.delenv("GLM4V_STAND_IN")
    with GLM4VServer(model, share=True) as server:
        assert server.is_healthy


def test_folder_that_others_may_write_to_is_not_used(model: str, tmp_path: Path) -> None:
    (tmp_path / "glm4v").mkdir(mode=0o777)
    (tmp_path / "glm4v").chmod(0o777)
    with pytest.raises(ServerStartError, match="no folder of this user alone"):
        GLM4VServer(model).start()


def test_stop_without_draining_waits_for_no_request(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    server = GLM4VServer(model, share=True, shutdown_timeout=1000).start()
    server.stop(drain=False)
    assert not server.is_running
    assert find_leftovers(server.id) == []


def test_hung_keeper_is_killed_with_its_server(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = GLM4VServer(model).start()
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setattr(process, "KEEPER_GRACE", 0.5)
    os.kill(keeper_of(server), signal.SIGSTOP)
    server.stop(drain=False)
    wait_until(lambda: not find_leftovers(server.id))


def test_user_of_a_hung_keeper_lets_go_and_only_the_last_one_kills(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [GLM4VServer(model, share=True).start() for _ in range(3)]
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setattr(process, "KEEPER_GRACE", 0.5)
    hung = keeper_of(users[0])
    os.kill(hung, signal.SIGSTOP)
    users.pop().stop(drain=False)
    users.pop().stop(drain=False)
    (last,) = users
    assert last.is_healthy
    os.kill(hung, signal.SIGCONT)
    assert GLM4VServer(model, share=True).start().id == last.id
    os.kill(hung, signal.SIGSTOP)
    for server in [server for server in process._running if server is not last]:
        server.stop(drain=False)
    assert last.is_healthy
    last.stop(drain=False)
    wait_until(lambda: not find_leftovers(last.id))


def test_hung_keeper_with_a_full_queue_keeps_nobody_waiting(model: str) -> None:
    with GLM4VServer(model) as server:
        hung = keeper_of(server)
        os.kill(hung, signal.SIGSTOP)
        try:
            joined = [sharing.join(server.id) for _ in range(1000)]
            assert joined[-1] is None
            sharing.remove_dead()
        finally:
            os.kill(hung, signal.SIGCONT)
        for connection in filter(None, joined):
            connection.close()
        assert server.id in sharing.names()


def test_start_waits_for_the_end_of_the_one_before(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    before = GLM4VServer(model, share=True, shutdown_timeout=1000).start()
    monkeypatch.delenv("GLM4V_STAND_IN")
    (name,) = sharing.names()
    seen: list[str] = []
    after = GLM4VServer(model, share=True, shutdown_timeout=1000, on_progress=seen.append)
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(before.stop)
        wait_until(lambda: state_of(name) == "stopping")
        starting = pool.submit(after.start)
        wait_until(lambda: seen == ["waiting until the one before has ended"])
        assert find_leftovers(before.id)
        before_id = before.id
        assert before._hold
        before._hold.tell("release")  # it need not drain any more
        draining.result()
        starting.result()
    assert after.id != before_id
    assert find_leftovers(before_id) == []
    after.stop()


def test_join_that_is_broken_off_holds_nothing(model: str) -> None:
    def give_up(_: str) -> None:
        raise KeyboardInterrupt

    with GLM4VServer(model, share=True) as server:
        joining = GLM4VServer(model, share=True, on_progress=give_up)
        with pytest.raises(KeyboardInterrupt):
            joining.start()
        assert not joining.is_running
        assert server.is_healthy
    assert_nothing_is_left(server.id)


def test_threads_that_start_a_server_at_once_start_one(model: str) -> None:
    server = GLM4VServer(model)
    with ThreadPoolExecutor() as pool:
        assert {*pool.map(lambda _: server.start(), range(4))} == {server}
    wait_for_processes(server.id, 2)
    server.stop()
    assert_nothing_is_left(server.id)


@pytest.mark.parametrize("started_before", [True, False])
def test_forked_children_have_servers_of_their_own(program: Program, started_before: bool) -> None:
    child = program(
        f"if {started_before}: server.start()\n"
        "if not (pid := os.fork()):\n"
        "    server.start(); server.stop(); print(server.id, flush=True); os._exit(0)\n"
        "if not server.is_running: server.start()\n"
        "os.waitpid(pid, 0)\n"
        "print(server.is_healthy, server.id, flush=True)"
    )
    first, of_child, of_parent = (line_from(child) for _ in range(3))
    assert of_parent == f"True {first}"
    assert of_child != first
    assert child.wait() == 0
    assert find_leftovers(first) + find_leftovers(of_child) == []


def test_what_a_program_does_with_signals_is_no_matter_to_its_server(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "killed")
    child = program(
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "try: server.start()\n"
        "except Exception as error: print(error, flush=True)\n"
        "os.environ['GLM4V_STAND_IN'] = ''\n"
        "server.start()\n"
        "status = open(f'/proc/{server.pid}/status').read()\n"
        "print(status.partition('SigBlk:')[2].split()[0], flush=True)"
    )
    line_from(child)
    assert "ended with signal SIGKILL" in line_from(child)
    assert int(line_from(child), 16) == 0


def test_program_without_standard_streams(model: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    text = (
        "import os; os.closerange(0, 3)\n"
        "from langchain_glm4v.server import GLM4VServer\n"
        f"with GLM4VServer({model!r}) as server: healthy = server.is_healthy\n"
        f"open({str(told)!r}, 'w').write(str(healthy))"
    )
    subprocess.run([sys.executable, "-c", text], check=True)
    assert told.read_text() == "True"


def test_nothing_stays_open_after_a_stop(model: str) -> None:
    text = (
        "from langchain_glm4v.server import GLM4VServer\n"
        f"with GLM4VServer({model!r}): pass\n"
        f"first, second = (GLM4VServer({model!r}, share=True).start() for _ in range(2))\n"
        "second.stop(); first.stop(); del first, second"
    )
    command = [sys.executable, "-X", "dev", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ResourceWarning" not in done.stderr


def test_keeper_that_has_no_files_to_spare_recovers(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RESTART_DELAYS", (0.5,) * 100)
    with GLM4VServer(model) as server:
        pid = keeper_of(server)
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        held = len([*Path(f"/proc/{pid}/fd").iterdir()])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (held, limits[1]))
        connection = sharing.join(server.id)
        assert connection
        waiting = Hold(connection)
        waiting.tell("look")
        first = server.pid
        assert first
        os.kill(first, signal.SIGKILL)
        status = server._hold
        assert status
        assert status.wait(lambda now: now.problem == "cannot be run", 60)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        server.wait_until_ready()
        assert waiting.facts
        waiting.close()


STAGES = ("loading engine", "configuring engine", "loading weights", "warming up", "checking")


def assert_nothing_is_left(server_id: str) -> None:
    wait_until(lambda: not find_leftovers(server_id))
    assert sharing.names() == []


@pytest.mark.parametrize("stage", STAGES)
def test_start_whose_server_or_keeper_is_killed_fails_and_leaves_nothing(
    model: str, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"halts when {stage}")
    monkeypatch.setattr(process, "RESTART_DELAYS", ())
    for victim, cause in (("server", "SIGKILL"), ("keeper", "its keeper was killed")):
        seen: list[str] = []
        server = GLM4VServer(model, share=True, on_progress=seen.append)
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(server.start)
            wait_until(lambda: bool(seen) and seen[-1].startswith(stage))  # noqa: B023
            wait_until(lambda: server.pid is not None)  # noqa: B023
            pid = server.pid if victim == "server" else keeper_of(server)
            assert pid
            os.kill(pid, signal.SIGKILL)
            if stage == "checking":
                with pytest.raises((SelfCheckError, TemplateError), match="see the server's log"):
                    starting.result()
            else:
                with pytest.raises(ServerStartError, match=cause):
                    starting.result()
        assert_nothing_is_left(server.id)


@pytest.mark.parametrize("stage", STAGES)
def test_program_killed_in_a_start_leaves_nothing_and_the_next_starts(
    model: str, program: Program, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"halts when {stage}")
    child = program(
        f"server = GLM4VServer({model!r}, share=True, on_progress=lambda s: print(s, flush=True))\n"
        "print(server.id, flush=True)\n"
        "server.start()"
    )
    line_from(child)
    server_id = line_from(child)
    assert child.stdout
    assert any(line.startswith(stage) for line in child.stdout)
    with ThreadPoolExecutor() as pool:
        waiting: list[str] = []
        other = GLM4VServer(model, share=True, on_progress=waiting.append)
        starting = pool.submit(other.start)
        wait_until(lambda: sharing.WAITING in waiting)
        monkeypatch.delenv("GLM4V_STAND_IN")
        child.kill()
        assert starting.result() is other
    assert other.id != server_id
    assert other.is_healthy
    other.stop()
    assert_nothing_is_left(server_id)
    assert_nothing_is_left(other.id)


@pytest.mark.parametrize("victim", ["server", "keeper"])
def test_kill_while_the_server_is_started_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"waits while {tmp_path / 'loading'}")
    server = GLM4VServer(model).start()
    (tmp_path / "loading").touch()
    first = server.pid
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.pid not in (first, None))
    second = server.pid
    assert second
    os.kill(second if victim == "server" else keeper_of(server), signal.SIGKILL)
    if victim == "server":
        wait_until(lambda: server.pid not in (first, second, None))
        (tmp_path / "loading").unlink()
        server.wait_until_ready()
    else:
        with pytest.raises(ServerStartError, match="its keeper was killed"):
            server.wait_until_ready()
    server.stop()
    assert_nothing_is_left(server.id)


def test_stop_while_the_server_is_started_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"waits while {tmp_path / 'loading'}")
    server = GLM4VServer(model, share=True).start()
    (tmp_path / "loading").touch()
    first = server.pid
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.pid not in (first, None))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.wait_until_ready)
        server.stop()
        with pytest.raises(ServerStartError):
            waiting.result()
    assert_nothing_is_left(server.id)


@pytest.mark.parametrize("victim", ["server", "keeper"])
def test_kill_while_the_server_drains(
    model: str, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    server = GLM4VServer(model, shutdown_timeout=1000).start()
    pid = server.pid if victim == "server" else keeper_of(server)
    assert pid
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(server.stop)
        wait_until(lambda: not server.is_running)
        os.kill(pid, signal.SIGKILL)
        draining.result()
    assert_nothing_is_left(server.id)


def test_second_ctrl_c_ends_a_drain(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    child = program(
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "server.start()\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(1000)\n"
        "finally:\n"
        "    server.stop()"
    )
    server_id = line_from(child)
    assert line_from(child) == "ready"
    child.send_signal(signal.SIGINT)
    wait_until(lambda: state_of(server_id) == "stopping")
    child.send_signal(signal.SIGINT)
    assert child.wait() != 0
    assert_nothing_is_left(server_id)


def state_of(name: str) -> str:
    """The state of a server, as one is told who only looks."""
    if (connection := sharing.join(name)) is None:
        return "gone"
    seen = Hold(connection)
    seen.tell("look")
    status = seen.status
    seen.close()
    return status.state if status else "gone"


def test_killed_keeper_is_no_zombie(model: str) -> None:
    server = GLM4VServer(model).start()
    pid = keeper_of(server)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running)
    server.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_shared_server_whose_keeper_hangs_is_replaced(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = GLM4VServer(model, share=True).start()
    pid = keeper_of(hung)
    os.kill(pid, signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(hold, "WELCOME_TIMEOUT", 0.5)
        fresh = GLM4VServer(model, share=True).start()
    assert fresh.id != hung.id
    os.kill(pid, signal.SIGCONT)
    hung.stop()
    assert find_leftovers(hung.id) == []
    again = GLM4VServer(model, share=True).start()  # the old keeper left the new one's socket alone
    assert again.id == fresh.id
    again.stop()
    fresh.stop()
    assert_nothing_is_left(fresh.id)


def test_forked_child_does_not_hold_the_server(program: Program) -> None:
    child = program(
        "server.start()\n"
        "if not (pid := os.fork()):\n"
        "    time.sleep(1000)\n"
        "print(pid, flush=True)\n"
        "time.sleep(1000)"
    )
    server_id, forked = line_from(child), int(line_from(child))
    try:
        child.kill()
        child.wait()
        assert_nothing_is_left(server_id)
    finally:
        os.kill(forked, signal.SIGKILL)


class Foreign(http.server.BaseHTTPRequestHandler):
    """Another program's server, which answers whatever it is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for


def test_port_taken_while_the_server_is_started_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"waits while {tmp_path / 'loading'}")
    monkeypatch.setattr(process, "RESTART_DELAYS", (1.0,))
    server = GLM4VServer(model).start()
    (tmp_path / "loading").touch()
    first = server.pid
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.pid != first)
    address = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
    with http.server.ThreadingHTTPServer(address, Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever, args=(0.05,), daemon=True).start()
        wait_until(lambda: server.pid is not None)
        with pytest.raises(ServerStartError, match="still being started again"):
            server.wait_until_ready(1.0)
        assert not server.is_healthy
        (tmp_path / "loading").unlink()
        with pytest.raises(PortInUseError):
            server.wait_until_ready()
        foreign.shutdown()
    server.stop()
    assert_nothing_is_left(server.id)


def test_call_outlives_two_deaths_of_the_server_and_no_more(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly"
    monkeypatch.setenv("GLM4V_STAND_IN", f"dies at once {deadly}")
    monkeypatch.setattr(process, "RESTART_DELAYS", (0.1,) * 20)

    def kill(times: int) -> None:
        for number in range(times):
            deadly.with_suffix(f".{number}").touch()

    with ChatGLM4V.managed(model, max_retries=0) as chat:

        async def streamed() -> str:
            return "".join([chunk.text async for chunk in chat.astream("Hello")])

        def invoked() -> str:
            return chat.invoke("Hello").text

        texts = [invoked()]
        for call in (invoked, lambda: asyncio.run(streamed())):
            kill(2)
            texts.append(call())
        assert len(set(texts)) == 3  # process ids
        kill(3)
        with pytest.raises(ServerUnreachableError):
            invoked()
        assert invoked()  # the server itself has not been given up


def test_call_that_a_close_cuts_short_tells_so(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    chat = ChatGLM4V.managed(model, max_retries=0)
    assert chat.invoke("Hello").text
    server = chat._managed_server
    assert server
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(chat.invoke, "Hello")
        time.sleep(0.5)  # until it is on its way; else it fails in the same words
        chat.close(drain=False)
        with pytest.raises(ServerUnreachableError, match="was closed; make a new one"):
            call.result()


@pytest.mark.parametrize("fault", ["dies at once", "dies slowly"])
def test_all_calls_that_a_death_cut_short_are_made_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    deadly = tmp_path / "deadly"
    monkeypatch.setenv("GLM4V_STAND_IN", f"{fault} {deadly}")
    monkeypatch.setattr(process, "DEATH_THROES", 60.0)  # on a busy machine
    with ChatGLM4V.managed(model, max_retries=0) as chat:
        before = chat.invoke("Hello").text

        async def answers() -> list[str]:
            # more than there are threads to wait in
            return [reply.text for reply in await chat.abatch(["Hello"] * 40)]

        deadly.touch()
        after = asyncio.run(answers())
        assert len({before, *after}) in (2, 3)  # some may have been answered before it died
        deadly.touch()
        assert [message.text for message in chat.batch(["Hello"] * 8)]


async def test_stream_is_begun_again_before_its_first_event_only(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly"
    monkeypatch.setenv("GLM4V_STAND_IN", f"dies at once {deadly}")
    with ChatGLM4V.managed(model, max_retries=0) as chat:

        def streamed() -> str:
            return "".join(chunk.text for chunk in chat.stream("Hello"))

        texts = [streamed()]
        deadly.touch()
        texts.append(streamed())
        deadly.touch()
        texts.append("".join([chunk.text async for chunk in chat.astream("Hello")]))
        assert len(set(texts)) == 3  # process ids
    monkeypatch.setenv("GLM4V_STAND_IN", f"dies in a stream {deadly}")
    with ChatGLM4V.managed(model, max_retries=0) as chat:
        assert streamed()
        deadly.touch()
        with pytest.raises(ServerUnreachableError, match="no answer from the server"):
            streamed()


def test_call_that_needs_to_know_the_server_first_waits_for_it(model: str) -> None:
    with ChatGLM4V.managed(model, max_retries=0) as chat:
        server = chat._managed_server
        assert server
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        assert chat.invoke("Hello").text  # the first one


@pytest.mark.parametrize("name", ["lock", "sock"])
def test_folder_of_servers_on_a_full_disk(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sharing, "name", lambda *_: "n")
    (tmp_path / "glm4v").mkdir(mode=0o700)
    (tmp_path / "glm4v" / f"n.{name}").mkdir()  # cannot be made or removed either
    with pytest.raises(ServerStartError, match="set XDG_RUNTIME_DIR to another"):
        GLM4VServer(model, share=True).start()


def test_long_log_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOG_BYTES", 100)
    log = keeper.Log(tmp_path / "server.log")
    log.follow(io.BufferedReader(Lines(f"{number:08}\n".encode() for number in range(200))))
    kept = [path.read_text() for path in (log.path, *log.old_paths())]
    assert all(len(text) <= 100 for text in kept)
    assert "".join(reversed(kept)).endswith("".join(f"{number:08}\n" for number in range(165, 200)))
    log.remove()
    assert not list(tmp_path.glob("*.log*"))


def test_log_is_complete_when_users_are_told_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine so busy that the log's thread gets its turn late."""
    follow = keeper.Log.follow

    def follow_late(self: keeper.Log, output: Any) -> None:
        time.sleep(0.5)
        follow(self, output)

    monkeypatch.setattr(keeper.Log, "follow", follow_late)
    task = task_in(tmp_path)
    keeper.Keeper(task)._serve(restarts=0)
    assert Path(task.facts.log_path).read_text() == "why it ended\n"


def test_user_that_is_patient_no_longer_is_heard_before_the_end_has_begun(tmp_path: Path) -> None:
    """Such as while the keeper waits for an answer to its health check."""
    kept = keeper.Keeper(task_in(tmp_path))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        kept._hold(theirs)
        for drain in (True, False):
            kept._obey(theirs, {"do": "release", "drain": drain})
        assert kept._stopped(within=0)
        assert kept._stop == "abort"


def task_in(folder: Path) -> keeper.Task:
    """The task of keeping a server that ends at once."""
    log, door = folder / "server.log", folder / "door"
    door.touch()
    return keeper.Task(
        facts=keeper.Facts("no-such-mark", "127.0.0.1", 1, "key", "name", "model", str(log)),
        command=[sys.executable, "-c", "print('why it ended')"],
        starter=-1,
        door=-1,
        door_path=str(door),
        startup_timeout=10.0,
        hang_timeout=10.0,
        drain_patience=1.0,
        abort_patience=1.0,
        idle_timeout=0.0,
        restart_delays=(),
        keep_log=True,
    )


class Lines(io.RawIOBase):
    """A pipe that gives a line at each reading."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        line = next(self.lines, b"")
        buffer[: len(line)] = line
        return len(line)
