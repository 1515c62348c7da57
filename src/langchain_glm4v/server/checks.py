"""What a server needs of this machine, checked before it starts, each in words for people.

The start calls `require`; `glm4v doctor` shows what `examine` finds. Versions that go together are
read from the installed distributions' own metadata, so no table here can grow old.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from langchain_glm4v.errors import MediaError, ModelNotFoundError, ServerError, ServerStartError
from langchain_glm4v.media.office import soffice
from langchain_glm4v.server.fit import Fit, fitted, weights_bytes
from langchain_glm4v.server.gpu import GIB, MIB, Gpu, find_gpus
from langchain_glm4v.server.options import (
    CHAT_TEMPLATE,
    CPU_ENVIRONMENT,
    ServerOptions,
    choose_dtype,
)
from langchain_glm4v.server.preflight import (
    DISTRIBUTIONS,
    KNOWN_MODELS,
    Checkpoint,
    Engine,
    check_port,
    find_engine,
    has_gpu_device,
    resolve_model,
)
from langchain_glm4v.server.sizes import Sizes, read_sizes

T = TypeVar("T")

# CUDA's major version -> the oldest driver that runs it: CUDA Toolkit 13.0 release notes, table
# "CUDA Toolkit and Minimum Required NVIDIA Driver Version for CUDA Minor Version Compatibility".
LEAST_DRIVER: Mapping[int, int] = {12: 525, 13: 580}
# Set by who has NVIDIA's forward-compatibility libraries, which run on older drivers.
FORWARD_COMPATIBILITY = "VLLM_ENABLE_CUDA_COMPATIBILITY"
TOGETHER = ("torch", "transformers")  # what vLLM must be installed with the right version of

# Bytes that the server's processes hold of the machine's memory, by estimate.
GPU_PROCESSES = 4 * GIB
CPU_PROCESSES = 3 * GIB // 2
# Bytes of /dev/shm that vLLM 0.26 to 0.32 takes for the queues between its processes, if there are
# several GPUs: ten chunks of 16 MiB to them all, ten of 24 MiB back from each (`MessageQueue`,
# VLLM_MQ_MAX_CHUNK_BYTES_MB). NCCL takes, by estimate, 64 MiB more for each.
SHARED_TO_ALL = 160 * MIB
SHARED_PER_GPU = 240 * MIB + 64 * MIB
SHARED_MEMORY = Path("/dev/shm")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        ok: Whether it is as it must be; None where it does not matter here or cannot be known.
        detail: What was found.
        remedy: What to do about it; empty where there is nothing to do.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Ready:
    """What a server is started with."""

    engine: Engine
    checkpoint: Checkpoint
    fit: Fit


@dataclass
class Findings:
    """What was found on this machine; what could not be had is None, and `errors` says why.

    Attributes:
        checks: Everything that was checked, in the order to show it.
        errors: Name of a check -> the error that it ended with.
    """

    options: ServerOptions
    engine: Engine | None = None
    checkpoint: Checkpoint | None = None
    sizes: Sizes | None = None
    gpus: list[Gpu] | None = None
    fit: Fit | None = None
    checks: list[Check] = field(default_factory=list)
    errors: dict[str, ServerError] = field(default_factory=dict)

    def find(self, name: str, function: Callable[[], T], describe: Callable[[T], str]) -> T | None:
        """Call `function` and note how it went, as the check `name`."""
        try:
            found = function()
        except ServerError as error:
            self.errors[name] = error
            detail, _, remedy = str(error).partition("; ")
            self.checks.append(Check(name, False, detail, remedy))
            return None
        self.checks.append(Check(name, True, describe(found)))
        return found


def checks(options: ServerOptions) -> list[Check]:
    """Check everything that a server with these options needs."""
    return examine(options).checks


def require(options: ServerOptions) -> Ready:
    """What to start a server with, after checking everything that it needs.

    Raises:
        ServerError: Something is not as it must be: one message for all that is, of the class that
            fits the first.
    """
    found = examine(options)
    failing = [check for check in found.checks if check.ok is False]
    if failing:
        message = "; also, ".join(f"{check.detail}; {check.remedy}" for check in failing)
        first = found.errors.get(failing[0].name)
        raise (ServerStartError if first is None else type(first))(message.rstrip("; ")) from first
    if found.engine is None or found.checkpoint is None or found.fit is None:
        message = "a check neither failed nor found what it looks for"
        raise AssertionError(message)
    return Ready(found.engine, found.checkpoint, found.fit)


def examine(options: ServerOptions) -> Findings:
    """Check everything that a server with these options needs, and keep what was found."""
    found = Findings(options)
    found.checks.append(_python())
    found.engine = found.find("engine", find_engine, lambda engine: engine.description)
    found.checks += _versions()
    found.checkpoint = found.find(
        "model", lambda: resolve_model(os.fspath(options.model)), lambda found: found.location
    )
    found.sizes = _certain_sizes(found.checkpoint)
    found.checks += _gpus(found)
    found.checks += [check(found) for check in (_memory, _disk, _shared_memory)]
    if options.port is None:
        found.checks.append(Check("port", None, "a free one will be chosen"))
    else:
        port = options.port
        found.find("port", lambda: check_port(options.host, port), lambda _: f"{port} is free")
    found.checks += [_chat_template(), _libreoffice(), _heif()]
    return found


def _certain_sizes(checkpoint: Checkpoint | None) -> Sizes | None:
    """Sizes to refuse a start by: not those of a repository that may hold anything."""
    if checkpoint is None or not (checkpoint.is_local or checkpoint.location in KNOWN_MODELS):
        return None
    try:
        return read_sizes(checkpoint)
    except ModelNotFoundError:
        return None  # the fit says so, if it needs them


def _python() -> Check:
    detail = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return Check("platform", False, detail, "vLLM runs on Linux; on Windows, use WSL 2")
    return Check("platform", True, detail)


def _distribution() -> importlib.metadata.Distribution | None:
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Check]:
    vllm = _distribution()
    if vllm is None:
        return
    engine = f"{vllm.name} {vllm.version}"
    if "Requires-Python" in vllm.metadata:
        python = vllm.metadata["Requires-Python"]
        version = platform.python_version()
        fits = SpecifierSet(python).contains(version, prereleases=True)
        remedy = "" if fits else f"make an environment of a Python {python}"
        yield Check(
            "python", fits, f"{engine} needs Python {python}, and this is {version}", remedy
        )
    for requirement in map(Requirement, vllm.requires or ()):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name not in TOGETHER or not applies:
            continue
        there = _version(requirement.name)
        fits = there is not None and requirement.specifier.contains(there, prereleases=True)
        detail = f"{engine} needs {requirement.name}{requirement.specifier}, and " + (
            "there is none" if there is None else f"{there} is there"
        )
        remedy = "" if fits else f"run: pip install '{requirement.name}{requirement.specifier}'"
        yield Check(requirement.name, fits, detail, remedy)


def _gpus(found: Findings) -> Iterator[Check]:
    engine, checkpoint = found.engine, found.checkpoint
    if engine is None or engine.for_cpu:
        unused = engine is not None and has_gpu_device()
        detail = "there is a GPU, which this engine does not use" if unused else "none is used"
        remedy = "run: pip install 'vllm>=0.26,<0.34' in a new environment" if unused else ""
        yield Check("GPUs", None, detail, remedy)
    else:
        found.gpus = found.find("GPUs", find_gpus, lambda gpus: "; ".join(map(str, gpus)) or "none")
        yield _driver(found.gpus or [])
    if engine is None or checkpoint is None or "GPUs" in found.errors:
        yield Check("fit", None, "cannot be told before the rest is right")
    else:
        found.fit = found.find(
            "fit",
            lambda: fitted(found.options, checkpoint, engine),
            lambda fit: "; ".join(fit.reasons),
        )


def _driver(gpus: list[Gpu]) -> Check:
    cuda = _cuda_of_torch()
    if not gpus or cuda is None:
        return Check("driver", None, "no NVIDIA driver or no CUDA of torch to compare")
    driver = gpus[0].driver
    least = LEAST_DRIVER.get(cuda)
    detail = f"NVIDIA driver {driver}, and torch is built for CUDA {cuda}"
    if least is None or not driver[:1].isdigit() or os.environ.get(FORWARD_COMPATIBILITY) == "1":
        return Check("driver", None, detail)
    if int(driver.partition(".")[0]) < least:
        remedy = (
            f"CUDA {cuda} needs driver {least} or newer: update it, or install a vLLM and a torch "
            "that are built for an older CUDA"
        )
        return Check("driver", False, detail, remedy)
    return Check("driver", True, detail)


def _cuda_of_torch() -> int | None:
    """Major version of the CUDA that the installed torch is built for, by its metadata."""
    try:
        torch = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    if named := re.search(r"\+cu(\d+)\d$", torch.version):
        return int(named[1])
    for line in torch.requires or ():  # the build on PyPI is named by what it brings along
        brought = re.match(r"(?:cuda-toolkit|nvidia-cuda-runtime)\b[^=;]*==\s*(\d+)", line)
        if brought:
            return int(brought[1])
    return None


def _available_memory() -> int:
    """Bytes of memory that programs can still have, within the limit of this container."""
    content = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", content, re.MULTILINE)
    available = int(found[1]) * 1024 if found else sys.maxsize
    try:
        limit = CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return available
    return min(available, int(limit)) if limit.isdigit() else available


def _memory(found: Findings) -> Check:
    if found.engine is None or (found.engine.for_cpu and found.sizes is None):
        return Check("memory", None, "what the server takes is not known")
    available = _available_memory()
    if not found.engine.for_cpu or found.sizes is None:
        needed, remedy = GPU_PROCESSES, "end other programs"
    else:
        variable = "VLLM_CPU_KVCACHE_SPACE"
        space = os.environ.get(variable, CPU_ENVIRONMENT[variable])
        cache = int(space) * GIB if space.isdigit() else 0
        dtype = choose_dtype(found.options.dtype, found.engine)
        dtype = found.sizes.dtype if dtype == "auto" else dtype
        needed = CPU_PROCESSES + cache + weights_bytes(found.sizes, dtype, None, 1)
        remedy = f"end other programs, lower {variable} (GiB), or give a smaller model"
    fits = available >= needed
    detail = (
        f"the server takes about {needed / GIB:.1f} GiB of memory, and "
        f"{available / GIB:.1f} GiB are available"
    )
    return Check("memory", fits, detail, "" if fits else remedy)


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder that vLLM downloads to: Hugging Face's, or by VLLM_USE_MODELSCOPE ModelScope's."""
    home = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    if environment.get("VLLM_USE_MODELSCOPE", "").lower() in {"1", "true"}:
        return Path(environment.get("MODELSCOPE_CACHE") or "~/.cache/modelscope/hub").expanduser()
    hugging_face = Path(environment.get("HF_HOME") or home / "huggingface").expanduser()
    return Path(environment.get("HF_HUB_CACHE") or hugging_face / "hub").expanduser()


def _disk(found: Findings) -> Check:
    if found.checkpoint is None or found.checkpoint.is_local:
        return Check("disk", None, "nothing is downloaded")
    folder, name = hub_cache(), found.checkpoint.location
    downloaded = (*folder.glob(f"models--{name.replace('/', '--')}/snapshots/*/*.safetensors"),)
    if downloaded or (folder / "models" / name).is_dir():
        return Check("disk", True, f"{name} is in {folder}")
    if found.sizes is None:
        return Check("disk", None, f"the size of {name} is not known")
    needed = found.sizes.weights_bytes
    existing = next(part for part in (folder, *folder.absolute().parents) if part.is_dir())
    free = shutil.disk_usage(existing).free
    fits = free >= needed
    detail = (
        f"downloading {name} takes {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free "
        f"in {folder}"
    )
    return Check("disk", fits, detail, "" if fits else "free some, or set HF_HOME to another disk")


def _shared_memory(found: Findings) -> Check:
    number = (found.fit and found.fit.tensor_parallel) or 1
    name = str(SHARED_MEMORY)
    if number == 1:
        return Check(name, None, "not needed by a server on one device")
    needed = SHARED_TO_ALL + number * SHARED_PER_GPU
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    fits = free >= needed
    detail = (
        f"{number} GPUs need {needed // MIB} MiB of {name} between them, and {free // MIB} MiB "
        "are free"
    )
    remedy = "start the container with --ipc=host or --shm-size=4g"
    return Check(name, fits, detail, "" if fits else remedy)


def _chat_template() -> Check:
    there = CHAT_TEMPLATE.is_file()
    remedy = "" if there else "install langchain-glm4v again"
    return Check("chat template", there, str(CHAT_TEMPLATE), remedy)


def _libreoffice() -> Check:
    try:
        return Check("LibreOffice", True, soffice())
    except MediaError as error:
        detail = "slides and office documents need it, and it is not installed"
        return Check("LibreOffice", None, detail, error.setting)


def _heif() -> Check:
    if importlib.util.find_spec("pillow_heif") is not None:
        return Check("HEIC pictures", True, f"pillow-heif {_version('pillow-heif')}")
    remedy = "run: pip install 'langchain-glm4v[heif]'"
    return Check("HEIC pictures", None, "reading them needs pillow-heif", remedy)
