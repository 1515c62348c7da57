"""The life of a server process, with a stand-in for vLLM that can be told to misbehave."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_glm4v.errors import PortInUseError, ServerStartError, TemplateError
from langchain_glm4v.server import GLM4VServer, find_leftovers, process, registry
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.preflight import free_port

SOURCES = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the server process, and `find_engine`, find before the real vLLM."""
    folder = tmp_path / "stand_in"
    for module in (
        "vllm/__init__.py",
        "vllm/entrypoints/__init__.py",
        "vllm/entrypoints/cli/__init__.py",
        "vllm/model_executor/__init__.py",
        "vllm/model_executor/models/__init__.py",
        "vllm/model_executor/models/registry.py",
        # these take seconds to import and are not needed here
        "torchvision/__init__.py",
        "torchaudio.py",
        "torchcodec.py",
        "torch.py",
    ):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).touch()
    (folder / "torch.py").write_text("class ops:\n    def load_library(path): pass\n")
    shutil.copy(
        Path(__file__).with_name("stand_in_vllm.py"), folder / "vllm/entrypoints/cli/main.py"
    )
    (folder / "vllm-0.0.0+cpu.dist-info").mkdir()
    (folder / "vllm-0.0.0+cpu.dist-info/METADATA").write_text("Name: vllm\nVersion: 0.0.0+cpu\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the logs of failed starts are kept
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{SOURCES}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "glm4v"}))
    return str(folder)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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


def line_from(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def test_start_and_stop(model: str) -> None:
    stages: list[str] = []
    server = GLM4VServer(model, on_progress=stages.append)
    with server:
        assert server.served_model_name == "checkpoint"
        assert find_leftovers(server.id) == [server.pid]
        assert set(find_leftovers()) >= {server.pid}
        assert server.log_path.stat().st_mode & 0o077 == 0
        assert server.start() is server
        shown = repr(server) + server.log_path.read_text()
        shown += Path(f"/proc/{server.pid}/cmdline").read_text()
        assert server.api_key not in shown
    assert find_leftovers(server.id) == []
    assert server.pid is None
    assert not server.log_path.exists()
    server.stop()
    assert stages[0] == "loading engine (vllm 0.0.0+cpu)"
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


def test_log_of_a_server_that_died_is_kept(model: str) -> None:
    with GLM4VServer(model) as server:
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running)
    assert server.log_path.exists()


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
        ("huggingface_hub.errors.GatedRepoError: gated repo", "your token"),
        ("OSError: We couldn't connect to 'https://hub'", "check the network"),
        ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find", "check the network"),
        ("OSError: libcudart.so.13: cannot open", "do not fit the driver"),
        ("OSError: [Errno 28] No space left on device", "free some space"),
        ("RuntimeError: Failed core proc(s): {'EngineCore': -9}", "using too much memory"),
        ("RuntimeError: Failed core proc(s): {'EngineCore': -7}", "changed while it was read"),
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
    recent = aged(tmp_path / "glm4v-server-4567.log", 6)
    foreign = aged(tmp_path / "other.log", 8)
    with GLM4VServer(model) as running:
        aged(running.log_path, 8)
        with GLM4VServer(model):
            assert not old.exists()
        assert recent.exists()
        assert foreign.exists()
        assert running.log_path.exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("garbles", "renders a conversation as"), ("splits", r"splits tags .*</answer> \(3\)")],
)
def test_garbling_server_is_not_left_running(
    model: str, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", fault)
    server = GLM4VServer(model)
    with pytest.raises(TemplateError, match=message):
        server.start()
    assert find_leftovers(server.id) == []


def test_busy_port_is_found_before_anything_starts(model: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = GLM4VServer(model, port=other.getsockname()[1])
        with pytest.raises(PortInUseError):
            server.start()
    assert not server.log_path.exists()


def test_another_port_is_tried_when_the_chosen_one_is_taken_meanwhile(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv("GLM4V_STAND_IN", f"port lost once {seen}")
    with GLM4VServer(model) as server:
        assert f":{seen.read_text()}/" not in server.base_url


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
    assert len(find_leftovers(server.id)) == 3
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


def test_stop_cuts_the_stop_of_another_thread_short(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    server = GLM4VServer(model, shutdown_timeout=1000).start()
    with ThreadPoolExecutor() as pool:
        draining = pool.submit(server.stop)
        aborting = pool.submit(server.stop, drain=False)
        aborting.result()
        server.start()
        draining.result()
        assert server.is_running  # the slower one left the new process alone
    server.stop(drain=False)
    assert find_leftovers(server.id) == []


def test_engine_does_not_outlive_the_server(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "has an engine")
    with GLM4VServer(model) as server:
        assert server.pid
        wait_until(lambda: len(find_leftovers(server.id)) == 3)  # with multiprocessing's tracker
        os.kill(server.pid, signal.SIGKILL)
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


def test_equal_options_share_a_server(model: str) -> None:
    first, second = (registry.acquire(ServerOptions(model)) for _ in range(2))
    other = registry.acquire(ServerOptions(model, images_per_prompt=1))
    assert first.server is second.server is not other.server
    first.release()
    first.release()
    assert second.server.is_running
    second.release()
    other.release()
    assert not second.server.is_running
    assert not other.server.is_running


def test_shared_server_that_died_is_replaced(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")  # has a helper outside its process group
    options = ServerOptions(model)
    dead = registry.acquire(options)
    assert dead.server.pid
    os.killpg(dead.server.pid, signal.SIGKILL)
    wait_until(lambda: not dead.server.is_running)
    fresh = registry.acquire(options)
    assert fresh.server is not dead.server
    assert find_leftovers(dead.server.id) == []
    dead.release()
    assert fresh.server.is_running
    fresh.release(drain=False)
    assert find_leftovers(fresh.server.id) == []


def test_release_without_draining_waits_for_no_request(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ABORT_GRACE", 0.5)
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    lease = registry.acquire(ServerOptions(model, shutdown_timeout=1000))
    lease.release(drain=False)
    assert not lease.server.is_running
