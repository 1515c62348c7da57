"""What the log of a server tells."""

from pathlib import Path

import pytest

from langchain_glm4v.server import log

API = "(APIServer pid=7)"
ENGINE = "(EngineCore pid=8)"
ARGUMENTS = f"{API} INFO 11-22 19:13:29 [api_utils.py:286] non-default args: {{'port': 1}}"
LOADING = f"{ENGINE} INFO 11-22 19:13:43 [cpu_model_runner.py:68] Starting to load model /m..."
LOADED = f"{ENGINE} INFO 11-22 19:13:43 [default_loader.py:501] Loading weights took 0.05 seconds"
COMPILING = (
    f"{ENGINE} INFO 11-23 02:35:36 [backends.py:1094] Using cache directory: /root/.cache/vllm/"
    "torch_compile_cache/d24b3e807d/rank_0_0/backbone for vLLM's torch.compile"
)
CAPTURING = f"{ENGINE} Capturing CUDA graphs (PIECEWISE):   0%|          | 0/51 [00:00<?, ?it/s]"
CAPTURED = (
    f"{ENGINE} INFO 11-23 02:36:14 [model_runner.py:747] Graph capturing finished in 9 secs, "
    "took 7.28 GiB"
)
RETRIED = f"{API} WARNING 11-22 19:13:30 [http.py:9] Connection error, trying again"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "server.log"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("lines", "stage"),
    [
        ([], "loading engine"),
        (["Triton is not installed."], "loading engine"),
        ([ARGUMENTS], "configuring engine"),
        ([ARGUMENTS, LOADING], "loading weights"),
        ([ARGUMENTS, LOADING, LOADED], "warming up"),
        ([ARGUMENTS, LOADING, LOADED, COMPILING], "compiling"),
        ([ARGUMENTS, LOADING, LOADED, COMPILING, CAPTURING], "capturing CUDA graphs"),
        ([ARGUMENTS, LOADING, LOADED, COMPILING, CAPTURING, CAPTURED], "warming up"),
    ],
)
def test_stage_is_the_last_one_begun(tmp_path: Path, lines: list[str], stage: str) -> None:
    assert log.stage(written(tmp_path, *lines)) == stage


@pytest.mark.parametrize(
    "error",
    [
        [f"{ENGINE} ERROR 11-22 19:14:00 [core.py:1] RuntimeError: out of memory"],
        ["ERROR 11-22 19:14:00 [core.py:1] RuntimeError: out of memory"],
        ["Traceback (most recent call last):", "RuntimeError: out of memory"],
        [f"{API} Traceback (most recent call last):", f"{API} RuntimeError: out of memory"],
    ],
)
def test_warnings_before_the_first_error_are_no_cause(tmp_path: Path, error: list[str]) -> None:
    warned = [RETRIED, "WARNING: address already in use, trying the next"]
    path = written(tmp_path, *warned, *error)
    assert "memory ran out" in log.likely_cause(path, 1)
    assert not log.lost_port(path)


def test_log_without_an_error_is_searched_from_its_beginning(tmp_path: Path) -> None:
    path = written(tmp_path, "vllm serve: error: unrecognized arguments: --frob", "usage: vllm")
    assert "check extra_args" in log.likely_cause(path, 2)


def test_missing_log_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "missing.log"
    assert log.stage(path) == "loading engine"
    assert log.likely_cause(path, 1) == log.UNKNOWN_CAUSE
