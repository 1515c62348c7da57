"""What a server is asked for, and the command line and environment that follow from it."""

import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_glm4v.errors import ServerOptionError
from langchain_glm4v.server.entrypoint import AHEAD_VARIABLE
from langchain_glm4v.server.fit import TENSOR_PARALLEL, Fit
from langchain_glm4v.server.guard import HANG_VARIABLE, KEY_VARIABLE, SLEEP_VARIABLE
from langchain_glm4v.server.keeper import MARKER_VARIABLE
from langchain_glm4v.server.preflight import Checkpoint, Engine
from langchain_glm4v.server.weights import SOURCES

LOOPBACK = "127.0.0.1"
# Where a server that listens on all addresses is reached from this machine.
REACHED_AT = {"0.0.0.0": LOOPBACK, "::": "::1"}
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
ENTRYPOINT = Path(__file__).with_name("entrypoint.py")

# Lets a request set `thinking_token_budget`; once it is spent, vLLM forces the end text. It takes
# that text, and nothing else, for the natural end too: with `</think><answer>`, a model that puts a
# line break between the two would have its answer cut as if it were thinking.
REASONING_CONFIG = {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}

# Set whatever the caller's environment says: privacy, and no fetching of media by the server.
FIXED_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    # Else the engine's process title overwrites its environment, and with it the marker.
    "SPT_NOENV": "1",
}
# Set unless the caller's environment says otherwise.
DEFAULT_ENVIRONMENT = {
    # The engine's process imports vLLM while the server does, not after it (`engine_ahead.py`):
    # 41 instead of 54 s until a 9B model is ready a second time, on an H200.
    AHEAD_VARIABLE: "1",
}
# Likewise, on a CPU.
CPU_ENVIRONMENT = {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    # One process less to start: the engine process, still watched by the API process, works itself.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
# Likewise, on a GPU. What they gain was measured on an H100 by `benchmarks/serve_throughput.py`.
GPU_ENVIRONMENT = {
    # One thread makes all pictures ready; so many processors help it, where vLLM allows one. The
    # engine gets a picture of 1344x1008 after 1.2 s instead of 2.4 s if 64 come at once, and the
    # first token of one that comes alone is there after 0.16 s instead of 0.20 s.
    "OMP_NUM_THREADS": str(max(1, min(8, (os.cpu_count() or 1) // 2))),
}
GPU_ARGUMENTS: Mapping[str, Sequence[object]] = {
    # The vision encoder is not compiled, and vLLM's default for a compiled model leaves each of its
    # norms to several kernels; these do it in one (7.7 requests/s instead of 7.3).
    "--ir-op-priority": [json.dumps({"rms_norm": ["vllm_c"], "fused_add_rms_norm": ["vllm_c"]})],
    # 18 instead of vLLM's 51, captured in 4 s instead of 9 s: with the next larger size a step
    # takes nearly the same.
    "--cudagraph-capture-sizes": [1, 2, 4, *range(8, 65, 8), *range(80, 129, 16), 160, 192, 256],
}
OPENMP = re.compile("libomp|libgomp|libiomp")
# vLLM tries out the longest video at start, several times, and looks for it up to 600 frames of the
# largest size: with a context of 32,768 tokens it takes 271, which are 3.9 GB. These are enough for
# the most tokens that a video can have (30,000; vLLM counts 31,974 for them).
TRIAL_VIDEO_FRAMES = 11
# A step of the engine, such as the reading of a large picture, takes a CPU so much longer than a
# GPU that it gets so many times the patience: with the 9B model minutes, by estimate.
CPU_PATIENCE = 3
# Without one of these a CPU emulates bfloat16; float32 is then 4 to 6 times as fast.
BFLOAT16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_key(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[!-~]+", value) is not None


def _are_arguments(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)


# Option -> whether a value is accepted, and what is.
ACCEPTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_path, "a str or a path"),
    "revision": (lambda v: v is None or _is_text(v), "a str that is not empty, or None"),
    "source": (
        lambda v: v is None or v in tuple(SOURCES),
        "'huggingface', 'modelscope', or None",
    ),
    "port": (
        lambda v: v is None or (_is_whole(v) and 1 <= v <= 65535),
        "a whole number from 1 to 65535, or None",
    ),
    "host": (_is_text, "a str that is not empty"),
    "api_key": (lambda v: v is None or _is_key(v), "a str of ASCII letters, digits and signs"),
    "served_model_name": (lambda v: v is None or _is_text(v), "a str that is not empty, or None"),
    "dtype": (_is_text, "a str that is not empty"),
    "max_model_len": (
        lambda v: v is None or (_is_whole(v) and v > 0),
        "a whole number above 0, or None",
    ),
    "tensor_parallel": (
        lambda v: v is None or (_is_whole(v) and v in TENSOR_PARALLEL),
        "1, 2 or 4, or None",
    ),
    "quantization": (lambda v: v is None or _is_text(v), "a str that is not empty, or None"),
    "gpu_memory_utilization": (
        lambda v: v is None or (_is_number(v) and 0 < v <= 1),
        "a number above 0 and up to 1, or None",
    ),
    "images_per_prompt": (lambda v: _is_whole(v) and v >= 0, "a whole number, 0 or above"),
    "startup_timeout": (lambda v: _is_number(v) and v > 0, "a number of seconds above 0"),
    "shutdown_timeout": (lambda v: _is_number(v) and v >= 0, "a number of seconds, 0 or above"),
    "hang_timeout": (lambda v: _is_number(v) and v > 0, "a number of seconds above 0"),
    "share": (lambda v: isinstance(v, bool), "True or False"),
    "idle_timeout": (
        lambda v: v == math.inf or (_is_number(v) and v >= 0),
        "a number of seconds, 0 or above, also infinity",
    ),
    "sleep_after": (
        lambda v: v is None or (_is_number(v) and v > 0),
        "a number of seconds above 0, or None",
    ),
    "log_path": (lambda v: v is None or _is_path(v), "a str, a path, or None"),
    "extra_args": (_are_arguments, "a list or tuple with a str for each argument"),
}


@dataclass(frozen=True)
class ServerOptions:
    """What a server is asked for; `GLM4VServer` describes each field.

    Values are brought into one form (`model` a str, `log_path` a `Path`, `extra_args` a tuple), so
    options that mean the same are equal.

    Raises:
        ServerOptionError: A value is not accepted; the message says what is.
        TypeError: There is no such option.
    """

    model: str | os.PathLike[str]
    revision: str | None = None
    source: str | None = None
    port: int | None = None
    host: str = LOOPBACK
    api_key: str | None = field(default=None, repr=False)
    served_model_name: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    tensor_parallel: int | None = None
    quantization: str | None = None
    gpu_memory_utilization: float | None = None
    images_per_prompt: int = 32
    startup_timeout: float = 600.0
    shutdown_timeout: float = 30.0
    hang_timeout: float = 120.0
    share: bool = False
    idle_timeout: float = 0.0
    sleep_after: float | None = None
    log_path: str | os.PathLike[str] | None = None
    extra_args: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, (accepts, accepted) in ACCEPTED.items():
            value = getattr(self, name)
            if not accepts(value):
                shown = "not accepted" if name == "api_key" else repr(value)
                message = f"{name} is {shown}: it must be {accepted}"
                raise ServerOptionError(message)
        one_form = {
            "model": os.fspath(self.model),
            "log_path": None if self.log_path is None else Path(self.log_path),
            "extra_args": tuple(self.extra_args),
        }
        for name, value in one_form.items():
            object.__setattr__(self, name, value)


def command(
    options: ServerOptions, checkpoint: Checkpoint, engine: Engine, port: int, fit: Fit
) -> list[str]:
    """Command line of the server process. It holds no secret: other users can read it.

    Raises:
        ServerOptionError: An option needs a GPU, and the engine is one for CPUs.
    """
    if options.sleep_after is not None and engine.for_cpu:
        message = "sleep_after frees a GPU, and this engine runs on the CPU: leave it out"
        raise ServerOptionError(message)
    arguments = {
        "--host": options.host,
        "--port": port,
        "--served-model-name": options.served_model_name or checkpoint.name,
        "--dtype": choose_dtype(options.dtype, engine),
        "--chat-template": CHAT_TEMPLATE,
        "--chat-template-content-format": "openai",
        "--reasoning-config": json.dumps(REASONING_CONFIG),
        "--limit-mm-per-prompt": json.dumps(
            {
                "image": options.images_per_prompt,
                "video": {"count": 1, "num_frames": TRIAL_VIDEO_FRAMES},
            }
        ),
        # No such domain can exist, so the server fetches nothing: media come inside the request.
        "--allowed-media-domains": "none.invalid",
        "--middleware": "glm4v_guard.Guard",
        "--shutdown-timeout": round(options.shutdown_timeout),
    }
    given = [str(part) for pair in arguments.items() for part in pair]
    tuned = {} if engine.for_cpu else GPU_ARGUMENTS
    fast = [str(part) for name, values in tuned.items() for part in (name, *values)]
    # Lets a request say when the frames of its video are shown. It also lets a request change how
    # much is decoded, and so take much memory: those who have the server's key are trusted so far.
    trusted = ["--trust-request-mm-kwargs"] if engine.gates_media else []
    sleeping = ["--enable-sleep-mode"] if options.sleep_after is not None else []
    return [
        *(sys.executable, "-P", str(ENTRYPOINT), "serve", checkpoint.location),
        *given,
        *fit.arguments(),
        *fast,
        *trusted,
        *sleeping,
        "--disable-uvicorn-access-log",
        *options.extra_args,
    ]


def environment(
    inherited: Mapping[str, str],
    options: ServerOptions,
    checkpoint: Checkpoint,
    engine: Engine,
    fit: Fit,
    *,
    server_id: str,
    api_key: str,
) -> dict[str, str]:
    """Environment of the server process.

    Args:
        inherited: The caller's environment. Its OPENAI_* variables are left out.
        options: What the server is asked for.
        checkpoint: What will be served; a local one needs no model hub, whatever the caller's
            environment says of one.
        engine: The engine that will serve it.
        fit: How it is made to fit this machine.
        server_id: Marks the process and all its descendants.
        api_key: The key that the server will ask for.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("OPENAI_")}
    without_proxy = [
        LOOPBACK,
        "localhost",
        *filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy")]),
    ]
    return {
        **DEFAULT_ENVIRONMENT,
        **(CPU_ENVIRONMENT if engine.for_cpu else GPU_ENVIRONMENT),
        **({} if engine.budgets_thinking else {"VLLM_USE_V2_MODEL_RUNNER": "0"}),
        **kept,
        **({"LD_PRELOAD": preloaded(kept.get("LD_PRELOAD", ""))} if engine.for_cpu else {}),
        **FIXED_ENVIRONMENT,
        **fit.environment(),
        **({"HF_HUB_OFFLINE": "1", "VLLM_USE_MODELSCOPE": "0"} if checkpoint.is_local else {}),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(without_proxy)),
        MARKER_VARIABLE: server_id,
        KEY_VARIABLE: api_key,
        HANG_VARIABLE: str(options.hang_timeout * (CPU_PATIENCE if engine.for_cpu else 1)),
        **({} if options.sleep_after is None else {SLEEP_VARIABLE: str(options.sleep_after)}),
    }


def preloaded(given: str) -> str:
    """`given`, the libraries that processes load first, and PyTorch's OpenMP if none is among them.

    Without it a CPU build of vLLM has two of them, and uses one thread. vLLM sets this itself for
    an engine that it spawns, which is too late for one that has begun already.
    """
    torch = importlib.util.find_spec("torch")
    if OPENMP.search(given) or torch is None or torch.origin is None:
        return given
    folder = Path(torch.origin).parent
    found = [*folder.parent.glob("torch.libs/libgomp*.so*"), *folder.glob("lib/libgomp*.so*")]
    return ":".join(filter(None, [given, *map(str, found[:1])]))


def choose_dtype(asked: str, engine: Engine) -> str:
    """`asked`, except that "auto" becomes float32 on a CPU that only emulates bfloat16."""
    if asked == "auto" and engine.for_cpu and not BFLOAT16_CPU_FLAGS & cpu_flags():
        return "float32"
    return asked


def cpu_flags() -> frozenset[str]:
    """Features that the kernel reports for the first CPU; empty where it reports none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())
