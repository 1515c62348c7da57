"""The command `glm4v` as such: what it offers, how it ends, what it loads."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from langchain_glm4v import __version__, cli
from langchain_glm4v.cli.exits import EXITS
from langchain_glm4v.errors import ServerError

GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]
HEAVY = {"langchain_core", "openai", "pydantic", "vllm", "torch", "PIL", "shtab"}


def ended(code: object) -> int:
    """The exit code of a run of argparse that ended the program."""
    assert isinstance(code, int)
    return code


def run(*given: str) -> int:
    try:
        return cli.main(given)
    except SystemExit as end:
        return ended(end.code)


def test_help_names_all_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\b", shown, re.MULTILINE) for name in cli.COMMANDS)
    assert all(
        re.search(rf"^  {code}\b.*{EXITS[code][:20]}", shown, re.MULTILINE) for code in EXITS
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: glm4v {name}")
    assert cli.COMMANDS[name].summary[1:] in shown.replace("\n", " ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"langchain-glm4v {__version__}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no command given"),
        (["sereve"], "invalid choice: 'sereve'"),
        (["status", "--jsn"], "unrecognized arguments: --jsn"),
        (["ask"], "are required"),
        (["ask", " "], "the question is empty"),
        (["stop", "abc", "--all"], "not both"),
        (["bench", "--picture", "9"], "'9' is no size such as"),
        (["bench", "--picture", "70000x10"], "'70000x10' is no size such as"),
        (["bench", "--requests", "0"], "'0' is no whole number from 1 on"),
        (["bench", "--base-url", "http://[::1"], "is no address such as"),
        (["ask", "--base-url", "127.0.0.1:8000", "Hello"], "is no address such as"),
        (["ask", "--base-url", "http://localhost:99999/v1", "Hello"], "is no address such as"),
        (["ask", "--temperature", "nan", "Hello"], "'nan' is no number, 0 or above"),
        (["ask", "--thinking-budget", "-7", "Hello"], "'-7' is no whole number from 1 on"),
        (["logs", "-n", "-5"], "'-5' is no whole number from 0 on"),
        (["serve"], "which model?"),
        (["serve", "tiny", "more"], "unexpected argument: more"),
        (["serve", "tiny", "--port", "70000"], "port is 70000: it must be a whole number"),
        (["serve", "tiny", "--api-key", "secret"], "give --api-key-file FILE"),
        (["serve", "tiny", "--api-key=secret"], "give --api-key-file FILE"),
        (["serve", "tiny", "--", "--api_key", "secret"], "give --api-key-file FILE"),
    ],
)
def test_misuse_is_told_with_code_2(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*given) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err


def test_error_is_one_line_and_a_traceback_only_for_who_wants_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("plan", "/no/such/file.png") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"glm4v: no medium at '/no/such/file.png': .+\n", shown.err)
    monkeypatch.setenv("GLM4V_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        run("plan", "/no/such/file.png")


def test_mistake_of_ours_is_not_taken_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "implementation", lambda _: (lambda _: None, fail))
    with pytest.raises(ZeroDivisionError):
        run("status")


def test_message_of_several_lines_becomes_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise ServerError("first\n  second")

    monkeypatch.setattr(cli, "implementation", lambda _: (lambda _: None, fail))
    assert run("status") == 1
    assert capsys.readouterr().err == "glm4v: first second\n"


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_their_codes(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(_: object) -> int:
        os.kill(os.getpid(), number)
        signal.pause()
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "implementation", lambda _: (lambda _: None, signalled))
    assert run("status") == code
    assert signal.getsignal(signal.SIGTERM) is before


def test_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*GLM4V, "completion", "bash"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def shell(command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", command.replace("glm4v", shlex.join(GLM4V))],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_output_that_is_full_is_told() -> None:
    done = shell("glm4v completion bash > /dev/full")
    assert done.stderr == "glm4v: [Errno 28] No space left on device\n"
    assert done.returncode == 1


def test_streams_may_be_closed(tmp_path: Path) -> None:
    done = shell("glm4v ask - <&-")
    assert "the question is empty" in done.stderr
    assert done.returncode == 2
    assert shell("glm4v completion bash >&-").returncode == 0
    done = shell("glm4v status --json 2>&-", XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "[]\n")


def test_no_encoding_of_the_terminal_is_too_small(tmp_path: Path) -> None:
    path = tmp_path / "图\U0001f600.png"
    Image.new("RGB", (112, 84)).save(path)
    done = shell(f"glm4v plan {path}", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"glm4v plan --json {path}", PYTHONIOENCODING="latin-1")
    assert path.name in json.loads(done.stdout)["media"][0]["source"]


def test_question_in_another_encoding_is_read(tmp_path: Path) -> None:
    text = tmp_path / "latin-1"
    text.write_bytes("Où?".encode("latin-1"))
    done = shell(
        f"glm4v ask - < {text}", PYTHONIOENCODING="utf-8:strict", XDG_RUNTIME_DIR=str(tmp_path)
    )
    assert (done.returncode, done.stderr[:24]) == (3, "glm4v: no server runs; s")


def test_what_a_server_says_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise ServerError("answered: \x1b]0;title\x07")

    monkeypatch.setattr(cli, "implementation", lambda _: (lambda _: None, fail))
    assert run("status") == 1
    assert capsys.readouterr().err == "glm4v: answered: ]0;title\n"


@pytest.mark.parametrize("given", [["--help"], ["status"], ["env"], ["serve", "--help"]])
def test_what_is_quick_loads_nothing_heavy(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = (
        "import sys\nfrom langchain_glm4v.cli import main\n"
        f"try: main({given!r})\nexcept SystemExit: pass\n"
        f"print('loaded:', *({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
