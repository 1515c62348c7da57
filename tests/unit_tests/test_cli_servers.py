"""`glm4v serve`, `status`, `stop`, `logs`, `env` and `doctor`, with a stand-in for vLLM."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from langchain_glm4v import cli
from langchain_glm4v.cli import following, server_flags
from langchain_glm4v.cli.finding import running
from langchain_glm4v.server import GLM4VServer, find_leftovers
from langchain_glm4v.server.options import ServerOptions

pytestmark = pytest.mark.usefixtures("stand_in", "tidy")
GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]


@pytest.fixture
def tidy(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is left, also not by a test that fails."""
    assert stand_in.is_dir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for programs that a test starts
    for name in ("GLM4V_BASE_URL", "GLM4V_API_KEY", "GLM4V_MODEL"):
        monkeypatch.delenv(name, raising=False)
    yield
    with running() as servers:
        for server in servers:
            server.hold.tell("stop")
            server.hold.wait(lambda _: False, None)


@pytest.fixture
def detached(model: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `glm4v serve --detach --json` tells of the server that it started."""
    assert cli.main(["serve", model, "--port", "0", "--detach", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(model: str) -> Iterator[Start]:
    """Starts `glm4v serve` in the foreground, with further arguments."""
    started: list[subprocess.Popen[str]] = []

    def run(*more: str) -> subprocess.Popen[str]:
        command = [*GLM4V, "serve", model, "--port", "0", "--json", *more]
        pipe = subprocess.PIPE
        # Programs that a shell runs in the background ignore Ctrl-C, and so do their children.
        child = subprocess.Popen(
            ["env", "--default-signal=INT", *command], stdout=pipe, stderr=pipe, text=True
        )
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.communicate()


def told_by(child: "subprocess.Popen[str]") -> dict[str, Any]:
    assert child.stdout
    told: dict[str, Any] = json.loads(child.stdout.readline())
    return told


def test_there_is_a_flag_for_each_option_with_its_description() -> None:
    described = server_flags.descriptions()
    assert described.keys() - {"on_progress"} == vars(ServerOptions("tiny")).keys()
    assert described["share"].endswith("It ends when its last user stops it.")
    assert described["gpu_memory_utilization"].startswith("Share of each GPU's memory")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["m", "--host", "::1"], ["--model", "m", "--host", "::1"]),
        (["--max_model_len", "9", "--x_y", "a_b"], ["--max-model-len", "9", "--x_y", "a_b"]),
        (["--max_model_len=9", "--api_key_file=k"], ["--max-model-len=9", "--api-key-file=k"]),
        ([], []),
    ],
)
def test_other_spellings_are_understood(given: list[str], expected: list[str]) -> None:
    assert server_flags.spelled(given) == expected


def test_flags_become_options_and_the_rest_goes_to_vllm(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ServerOptions] = []

    def see(options: ServerOptions) -> None:
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("langchain_glm4v.cli.serving.examine", see)
    limits = '{"image": 32, "video": 1}'
    given = ["doctor", model, "--served-model-name", "m", "--max_model_len", "25000"]
    given += ["--limit-mm-per-prompt", limits, "--host=0.0.0.0", "--share", "--port", "9"]
    given += ["--gpu-memory-utilization", "0.5", "--log-path", str(tmp_path / "log"), "-q", "awq"]
    given += ["--idle-timeout", "inf", "--", "--port", "10"]
    assert cli.main(given) == 130
    (options,) = seen
    assert options == ServerOptions(
        model,
        served_model_name="m",
        max_model_len=25000,
        host="0.0.0.0",
        share=True,
        port=9,
        gpu_memory_utilization=0.5,
        log_path=tmp_path / "log",
        idle_timeout=float("inf"),
        extra_args=["--limit-mm-per-prompt", limits, "-q", "awq", "--port", "10"],
    )


def test_foreground_server_drains_on_sigterm_and_ends_with_0(start: Start, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-of-mine\n")
    child = start("--api-key-file", str(key))
    told = told_by(child)
    assert told["api_key_file"] == str(key)
    assert told["model"] == "checkpoint"
    with running() as servers:
        (seen,) = servers
        assert (seen.facts.id, seen.base_url) == (told["id"], told["base_url"])
        assert seen.facts.api_key == "a-key-of-mine"
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    assert child.returncode == 0
    assert errors.splitlines()[-2:] == [
        "ready",
        "stopping; running requests may finish. Again to stop at once",
    ]
    assert find_leftovers(told["id"]) == []


def test_second_ctrl_c_ends_a_server_that_does_not_stop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "deaf")
    child = start()
    told = told_by(child)
    child.send_signal(signal.SIGINT)
    assert child.stderr
    assert any(line.startswith("stopping") for line in child.stderr)
    child.send_signal(signal.SIGINT)
    child.communicate()
    assert child.returncode == 130
    assert find_leftovers(told["id"]) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_start_that_is_broken_off_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "stuck")
    child = start("--detach")
    assert child.stderr
    assert any(line.startswith("warming up") for line in child.stderr)
    with running() as servers:
        (server_id,) = (server.facts.id for server in servers)
    child.send_signal(number)
    child.communicate()
    assert child.returncode == code
    assert find_leftovers(server_id) == []


@pytest.mark.parametrize(
    "stage", ["loading engine", "configuring engine", "loading weights", "warming up", "checking"]
)
def test_detached_start_that_is_killed_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", f"halts when {stage}")
    child = start("--detach")
    assert child.stderr
    assert any(line.startswith(stage) for line in child.stderr)
    child.kill()
    child.wait()
    wait_until(lambda: not started_here())
    assert cli.main(["status"]) == 3


def started_here() -> list[int]:
    """The processes of all servers that were started with this folder for sockets."""
    found = []
    for pid in find_leftovers():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
            if f"XDG_RUNTIME_DIR={os.environ['XDG_RUNTIME_DIR']}" in variables:
                found.append(pid)
    return found


def test_detached_server_whose_starter_is_killed_once_it_is_ready_is_seen_and_stopped(
    start: Start,
) -> None:
    child = start("--detach")
    assert child.stderr
    assert "ready\n" in child.stderr
    child.kill()
    child.wait()
    assert cli.main(["stop"]) == 0
    assert started_here() == []


def test_foreground_server_ends_with_0_if_another_program_stops_it(start: Start) -> None:
    child = start()
    told = told_by(child)
    assert cli.main(["stop", told["id"][:6]]) == 0
    child.communicate()
    assert child.returncode == 0


def test_foreground_server_that_fails_ends_with_1_and_the_reason(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "says RuntimeError: CUDA out of memory")
    child = start()
    _, errors = child.communicate()
    assert child.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("glm4v: the vLLM server for ")
    assert "memory ran out" in last


def test_keeper_that_is_killed_is_told(start: Start) -> None:
    child = start()
    told = told_by(child)
    keeper = next(
        pid
        for pid in find_leftovers(told["id"])
        if "keeper.py" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    os.kill(keeper, signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == 1
    assert "its keeper was killed" in errors.splitlines()[-1]


def test_restart_is_told(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "unwell"
    monkeypatch.setenv("GLM4V_STAND_IN", f"unwell once {marker}")
    child = start()
    told_by(child)
    marker.touch()
    assert child.stderr
    assert "restarting (unwell)\n" in child.stderr
    assert "ready\n" in child.stderr  # the line of the second start


def test_verbose_prints_the_log_too(start: Start) -> None:
    child = start("--verbose")
    told_by(child)
    assert child.stderr
    assert "Starting to load model\n" in child.stderr


def test_detached_server_stays_and_is_joined(
    detached: dict[str, Any], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", model, "--port", "0", "--detach"]) == 0
    shown = capsys.readouterr().out
    assert detached["base_url"] in shown
    assert f"glm4v env {detached['id'][:8]}" in shown
    assert cli.main(["stop"]) == 0
    assert capsys.readouterr().err == f"stopped {detached['id'][:8]} ({model})\n"
    assert find_leftovers(detached["id"]) == []


def test_detached_server_that_fails_its_check_does_not_stay(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "babbles")
    assert cli.main(["serve", model, "--port", "0", "--detach"]) == 1
    assert "the server answers a question with '!!!" in capsys.readouterr().err
    with running() as servers:
        assert servers == []


def test_status(detached: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["state"] == "ready"
    assert (told["running"], told["waiting"], told["kv_cache_usage"]) == (1, 2, 0.25)
    assert told["generation_tokens_per_s"] == 0  # the stand-in always tells the same
    assert told["prefix_cache_hits"] is None
    assert "api_key" not in told
    assert cli.main(["status"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["id", "model", "state"]
    expected = [detached["id"][:8], "checkpoint", "ready", detached["base_url"], "1", "2", "25%"]
    assert row.split() == [*expected, "-", "-", "-", "0"]


@pytest.mark.parametrize("command", ["status", "stop", "env", "logs", "bench"])
def test_none_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no server runs" in shown.err


def test_nothing_is_printed_as_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == []


def test_of_several_one_must_be_named(
    detached: dict[str, Any], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with GLM4VServer(model, served_model_name="other") as other:
        assert cli.main(["env"]) == 1
        assert "several servers run" in capsys.readouterr().err
        assert cli.main(["env", "none"]) == 1
        assert "no server 'none' runs" in capsys.readouterr().err
        assert cli.main(["env", "other"]) == 0
        shown = capsys.readouterr().out
        assert shown.splitlines() == [
            f"export GLM4V_BASE_URL={other.base_url}",
            f"export GLM4V_API_KEY={other.api_key}",
            "export GLM4V_MODEL=other",
        ]
        assert cli.main(["stop", "--all", "--now"]) == 0
        assert find_leftovers(other.id) + find_leftovers(detached["id"]) == []


def test_keeper_that_hangs_hinders_no_other(
    detached: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper = next(
        pid
        for pid in find_leftovers(detached["id"])
        if "keeper.py" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    os.kill(keeper, signal.SIGSTOP)
    try:
        with monkeypatch.context() as impatient:  # the end of the test is not
            impatient.setattr("langchain_glm4v.cli.finding.ANSWER_TIMEOUT", 0.1)
            assert cli.main(["status"]) == 3
        assert "does not answer" in capsys.readouterr().err
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_logs(detached: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["logs", "-n", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    following_it = subprocess.Popen(
        [*GLM4V, "logs", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True
    )
    assert following_it.stdout
    last = following_it.stdout.readline()
    with Path(detached["log_path"]).open("a+") as log:
        log.seek(0)
        assert last in log
        log.write("something new\n")
    # The server may write of its own at any time.
    assert "something new\n" in following_it.stdout
    assert cli.main(["stop"]) == 0
    following_it.communicate()
    assert following_it.returncode == 0


def test_log_of_a_server_that_failed(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", "says RuntimeError: CUDA out of memory")
    assert cli.main(["serve", model, "--port", "0"]) == 1
    capsys.readouterr()
    assert cli.main(["logs", "-n", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "RuntimeError: CUDA out of memory\n"
    assert "no such server runs any more" in shown.err
    assert cli.main(["logs", "**"]) == 3  # no pattern


def test_log_is_followed_where_another_file_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    over = threading.Event()
    lines = following.follow(path, over.is_set)
    written: list[str] = []

    def collect() -> None:
        written.extend(lines)

    reader = threading.Thread(target=collect)
    reader.start()
    path.write_text("first\n")
    wait_until(lambda: written == ["first\n"])
    path.rename(tmp_path / "log.1")
    path.write_text("second\n")
    wait_until(lambda: "second\n" in written)
    over.set()
    reader.join()
    assert "".join(written) == "first\nsecond\n"


def test_doctor(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", model, "--json"]) in (0, 1)
    told = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert told["engine"] == {
        "name": "engine",
        "ok": True,
        "detail": "vllm 0.0.0+cpu",
        "remedy": "",
    }
    assert cli.main(["doctor", "/no/such/model"]) == 1
    shown = capsys.readouterr().out
    assert "\nFAILS model: no model '/no/such/model'" in shown
    assert "\n        -> " not in shown.partition("FAILS model")[0]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "the key cannot be read"), (" \n", "is empty: write a key")]
)
def test_file_without_a_key_is_told(
    model: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    assert cli.main(["serve", model, "--api-key-file", str(path)]) == 1
    assert message in capsys.readouterr().err
