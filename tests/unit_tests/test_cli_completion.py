"""Completion, by the shells themselves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What a shell is to run: it loads the script, and prints what it would offer.
BASH = """
source {script}
COMP_WORDS=({words} '') COMP_CWORD={count} COMP_LINE='{words} '
COMP_WORDS[{count}]='{begun}'
_shtab_glm4v 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "source {script}; complete -C '{words} {begun}'"


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def script(shell: str, tmp_path: Path) -> Path:
    command = [sys.executable, "-m", "langchain_glm4v.cli", "completion", shell]
    path = tmp_path / "completion"
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


def offered(shell: str, script: Path, words: str, begun: str) -> set[str]:
    count = len(words.split())
    text = (BASH if shell == "bash" else FISH).format(
        script=script, words=words, begun=begun, count=count
    )
    done = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=True)
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


def test_script_is_right_by_the_shell_itself(shell: str, script: Path) -> None:
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_and_options_are_offered(shell: str, script: Path) -> None:
    if shell == "zsh":  # its completion needs a terminal and a person
        assert "--tensor-parallel" in script.read_text()
        return
    assert {"status", "stop"} <= offered(shell, script, "glm4v", "st")
    assert offered(shell, script, "glm4v serve", "--tensor") == {"--tensor-parallel"}
    assert "modelscope" in offered(shell, script, "glm4v pull --source", "mo")
