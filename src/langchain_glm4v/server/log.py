"""What the log of a server tells: how far it has come, and why it ended."""

import re
import signal
from pathlib import Path

FILE_NAME = "glm4v-server-{}.log"  # with the server's id, in the folder for temporary files
TAIL_LINES = 40

FIRST_STAGE = "loading engine"
# What the engine writes when it begins a stage -> the stage, for people. In the order they come.
STAGES = (
    (re.compile(r"non-default args: "), "configuring engine"),
    (re.compile(r"Starting to load model"), "loading weights"),
    (re.compile(r"Loading weights took"), "warming up"),
    (re.compile(r"for vLLM's torch\.compile"), "compiling"),
    (re.compile(r"Capturing CUDA graphs"), "capturing CUDA graphs"),
    (re.compile(r"Graph capturing finished"), "warming up"),
)

# Where a log begins to tell of a failure. Before that are warnings, and failures that a further
# attempt overcame.
ERROR = re.compile(r"^(\(\w+ pid=\d+\) )?(ERROR[ :]|Traceback )", re.MULTILINE)
PORT_LOST = re.compile(r"address already in use", re.IGNORECASE)

# What a failing server writes -> what is likely wrong and what to do. The first match counts.
CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), cause)
    for pattern, cause in (
        (r"no space left on device", "the disk is full: free some space"),
        (
            r"out ?of ?memory|no available memory for the cache|free memory on device",
            "memory ran out: set max_model_len lower, or use a bigger or an idle device",
        ),
        (
            r"kv cache is needed|tokens that can be stored in kv cache",
            "the context does not fit into the KV cache: set max_model_len lower "
            "(on a CPU, VLLM_CPU_KVCACHE_SPACE gives it more GiB)",
        ),
        (
            r"max_model_len .* is greater than the derived",
            "max_model_len is more than the checkpoint can do: set it lower",
        ),
        (
            r"unrecognized arguments|error: argument",
            "this vLLM does not know an argument: check extra_args and the installed version",
        ),
        (
            r"not recognize this architecture|are not supported for now|failed to be inspected",
            "vLLM and transformers do not know the model or do not fit together: "
            "reinstall the versions that the package asks for",
        ),
        (
            r"safetensor\w*error|invalid header|header too large|incomplete metadata",
            "a weight file is damaged or cut short: fetch the checkpoint again",
        ),
        (
            r"cannot find any model weights|no such file .*\.safetensors|weights .*not initialized",
            "weights are missing: fetch the checkpoint again",
        ),
        (
            r"libcuda|libcudart|cuda driver version|no cuda gpus are available",
            "the CUDA libraries do not fit the driver: install the vLLM build for this driver",
        ),
    )
)
# How vLLM reports an engine process that a signal ended.
ENGINE_SIGNAL = re.compile(r"Failed core proc\(s\): \{'\w+': -(\d+)")
# How it reports one that ended without a word, and how it may report one that was killed.
ENGINE_GONE = re.compile(r"(?:(?!EngineCore)[\s\S])*Failed core proc\(s\): \{\}")
TOLD_TO_STOP = "it was told to stop"
SIGNAL_CAUSES = {
    signal.SIGKILL: "it was killed, most likely for using too much memory: "
    "set max_model_len lower, or use a bigger machine",
    signal.SIGTERM: TOLD_TO_STOP,
    signal.SIGINT: TOLD_TO_STOP,  # how vLLM ends on SIGTERM while it starts
    signal.SIGBUS: "a weight file changed while it was read: start the server again",
    signal.SIGILL: "this vLLM build uses instructions that the CPU lacks: install one built for it",
}
UNKNOWN_CAUSE = "the reason is in the last lines of its log"

# Frames of tracebacks, and what native libraries say when a process ends: they would push the
# reason out of the tail.
NOISE = re.compile(
    r"(\(\w+ pid=\d+\) )?([A-Z]+ [\d-]+ [\d:]+ \[[\w.]+:\d+\])?\s*($|\s{2}|\^+$)"
    r"|nanobind:| - (leaked|\.\.\. skipped) "
)


def tail(path: Path) -> str:
    """Last lines of the log at `path`, without tracebacks' frames; empty if there is none."""
    return "\n".join(_lines(path)[-TAIL_LINES:])


def stage(path: Path) -> str:
    """How far the server writing the log at `path` has come."""
    text = "\n".join(_lines(path))
    return next((name for seen, name in reversed(STAGES) if seen.search(text)), FIRST_STAGE)


def lost_port(path: Path) -> bool:
    """Whether the server that wrote the log at `path` found its port taken."""
    return bool(PORT_LOST.search(_failure(path)))


def likely_cause(path: Path, exit_code: int) -> str:
    """Why the server that wrote the log at `path` ended, as far as is known.

    Args:
        path: Its log.
        exit_code: Its exit status, negative for a signal.
    """
    text = _failure(path)
    for seen, cause in CAUSES:
        if seen.search(text):
            return cause
    engine_signal = ENGINE_SIGNAL.search(text)
    number = int(engine_signal[1]) if engine_signal else -exit_code
    if ENGINE_GONE.match(text):
        number = signal.SIGKILL
    return next((cause for kind, cause in SIGNAL_CAUSES.items() if kind == number), UNKNOWN_CAUSE)


def _failure(path: Path) -> str:
    """The log at `path` from its first line of an error on, or all of it if it has none."""
    text = "\n".join(_lines(path))
    error = ERROR.search(text)
    return text[error.start() :] if error else text


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if not NOISE.match(line)]
