"""`glm4v ask`, `plan`, `bench` and `pull`."""

import http.server
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from stub_hub import Fetcher, running
from terminal import on_terminal

from langchain_glm4v import cli
from langchain_glm4v.cli.bench import Answer, summary
from langchain_glm4v.cli.finding import running as running_servers
from langchain_glm4v.server import GLM4VServer, find_leftovers

GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]
ANSWER = "two\x1b words"  # of the stand-in, with what would steer a terminal


@pytest.fixture
def served(
    stand_in: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GLM4VServer]:
    assert stand_in.is_dir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("GLM4V_BASE_URL", "GLM4V_API_KEY", "GLM4V_MODEL"):
        monkeypatch.delenv(name, raising=False)
    with GLM4VServer(model) as server:
        yield server


@pytest.fixture
def png(tmp_path: Path) -> str:
    path = tmp_path / "grey.png"
    Image.new("RGB", (112, 84), "grey").save(path)
    return str(path)


@pytest.mark.usefixtures("served")
def test_answer_alone_is_printed_where_no_person_reads(
    png: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ask", png, "How many?", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n"
    assert cli.main(["ask", "--reasoning", png, "How many?"]) == 0
    assert capsys.readouterr().out == f"I see\n\n{ANSWER}\n"


@pytest.mark.usefixtures("served")
def test_reasoning_is_dimmed_and_text_harmless_on_a_terminal() -> None:
    shown = "\x1b[2mI see\x1b[0m\r\n\r\ntwo words\r\n"
    assert on_terminal([*GLM4V, "ask", "How many?"], "stdout") == (0, shown)


@pytest.mark.usefixtures("served")
def test_answer_as_json_and_question_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("How many?\n"))
    assert cli.main(["ask", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == ANSWER
    assert told["reasoning"] == "I see"
    assert told["finish_reason"] == "stop"
    assert told["usage"]["output_tokens"] == 6


@pytest.mark.parametrize(
    ("fault", "code", "message"), [("cuts off", 4, "was cut off (length)"), ("refuses", 1, "400")]
)
def test_answer_that_is_not_whole_is_told(
    served: GLM4VServer,
    model: str,
    *,
    fault: str,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GLM4V_STAND_IN", fault)
    with GLM4VServer(model, served_model_name="faulty"):
        assert cli.main(["ask", "--model", "faulty", "Hello"]) == code
        assert message in capsys.readouterr().err
        assert cli.main(["ask", "--model", served.id, "Hello"]) == 0


def test_server_elsewhere_is_asked_by_its_address(
    served: GLM4VServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ask", "--base-url", served.base_url, "--json", "Hello"]) == 0
    capsys.readouterr()
    assert cli.main(["ask", "--base-url", "http://127.0.0.1:1/v1", "Hello"]) == 1
    told = "no answer from the server at http://127.0.0.1:1/v1"
    assert capsys.readouterr().err.startswith(f"glm4v: {told}")
    monkeypatch.setenv("GLM4V_BASE_URL", "http://127.0.0.1:1/v1")
    assert cli.main(["ask", "Hello"]) == 1
    monkeypatch.setenv("GLM4V_API_KEY", "ключ")
    assert cli.main(["ask", "Hello"]) == 1
    assert "$GLM4V_API_KEY is no key" in capsys.readouterr().err


@pytest.mark.parametrize("said", [b"<html>", b"[1]", b'{"data": []}'])
@pytest.mark.parametrize("given", [["ask", "Hello"], ["bench", "--requests", "1"]])
def test_server_of_another_kind_is_told(
    given: list[str], said: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.handle_request).start()
        url = f"http://127.0.0.1:{other.server_port}/v1"
        assert cli.main([*given, "--base-url", url]) == 1
    assert re.search(r"names no model|cannot be asked", capsys.readouterr().err)


@pytest.mark.usefixtures("served")
def test_without_a_server_one_is_started_and_stays_for_a_while(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "glm4v"}')
    with running_servers() as servers:
        (before,) = servers
        before.hold.tell("stop")
        before.hold.wait(lambda _: False, None)
    assert cli.main(["ask", "Hello"]) == 3
    assert "start one with: glm4v serve" in capsys.readouterr().err
    assert cli.main(["ask", "--model", str(other), "--keep-alive", "100", "Hello"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{ANSWER}\n"
    assert "loading engine" in shown.err
    with running_servers() as servers:
        (kept,) = servers
        assert cli.main(["ask", "--model", str(other), "Hello"]) == 0
        assert capsys.readouterr().err == ""
        assert cli.main(["stop", "--now"]) == 0
        assert find_leftovers(kept.facts.id) == []


@pytest.mark.usefixtures("served")
def test_option_of_a_medium_that_is_not_there_is_misuse(
    png: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["ask", png, "Hello"], ["plan", png]):
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--fps", "1"])
        assert end.value.code == 2
        assert "--fps is for none of the media" in capsys.readouterr().err


def test_plan(png: str, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", png, str(film), "--fps", "1", "--longest-side", "56", "--json"]
    assert cli.main(given) == 0
    told = json.loads(capsys.readouterr().out)
    picture, video = told["media"]
    assert picture["sizes"] == [[56, 56]]
    assert video["seconds"] == [0, 1, 2, 3]
    assert told["tokens"] == picture["tokens"] + video["tokens"]
    assert cli.main(["plan", png]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["total", "1"]


def test_bench(served: GLM4VServer, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["bench", "--requests", "5", "--concurrency", "2", "--picture", "56x28"]
    assert cli.main([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["requests"], told["failed"], told["model"]) == (5, 0, served.served_model_name)
    assert (told["prompt_tokens"], told["output_tokens"]) == (7, 6)
    assert cli.main([*given, "--base-url", served.base_url]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["requests", "5"]


def test_bench_tells_what_failed(
    model: str, stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stand_in.is_dir()
    monkeypatch.setenv("GLM4V_STAND_IN", "refuses")
    with GLM4VServer(model):
        assert cli.main(["bench", "--requests", "2", "--picture", "none"]) == 1
        assert "answered no question: /chat/completions answered 400" in capsys.readouterr().err
    assert cli.main(["bench", "--base-url", "http://127.0.0.1:1/v1"]) == 1
    assert "cannot be asked: [Errno 111]" in capsys.readouterr().err


def test_bench_ends_at_ctrl_c_though_no_answer_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        given = ["bench", "--base-url", url, "--model", "m", "--requests", "2", "--picture", "none"]
        child = subprocess.Popen(["env", "--default-signal=INT", *GLM4V, *given])
        asked = [silent.accept() for _ in range(2)]
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130  # an answer is waited for 600 s
        for connection, _ in asked:
            connection.close()


def test_summary_of_a_load() -> None:
    answers = [Answer(0.0, 1.0, 3.0, 10, 5), Answer(1.0, 4.0, 5.0, 20, 3)]
    found = summary(answers, failed=1)
    assert found == {
        "requests": 3,
        "failed": 1,
        "wall_s": 5.0,
        "requests_per_s": 0.4,
        "prompt_tokens_per_s": 6.0,
        "output_tokens_per_s": 1.6,
        "prompt_tokens": 15,
        "output_tokens": 4,
        "first_token_p50_s": 2.0,
        "first_token_p99_s": 3.0,
        "token_p50_s": 0.5,
    }


def test_pull(tmp_path: Path) -> None:
    with running() as hub:
        hub.add("zai-org/GLM-4.1V-9B-Thinking")
        environment = Fetcher(hub, tmp_path).environment

        def pull(*given: str) -> "subprocess.CompletedProcess[str]":
            command = [*GLM4V, "pull", *given]
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )

        done = pull("zai-org/GLM-4.1V-9B-Thinking", "--verify")
        missing = pull("zai-org/none-such")
        command = [*GLM4V, "pull", "zai-org/GLM-4.1V-9B-Thinking", "--verify"]
        code, shown = on_terminal(command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "config.json").is_file()
    assert "100%" in done.stderr.splitlines()[-1]
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert code == 0
    assert "\r[##############################] checking" in shown
