"""The wheel that users get."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = 1_000_000  # bytes; the miniature alone has 22 million


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST


def test_wheel_holds_what_the_package_needs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"langchain_glm4v/py.typed", "langchain_glm4v/server/chat_template.jinja"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"langchain_glm4v"}
