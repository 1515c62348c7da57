"""What GPUs there are, by `nvidia-smi`: neither vLLM nor torch is imported, CUDA is not started."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from langchain_glm4v.errors import GpuError

MIB = 2**20
GIB = 2**30
PROGRAM = "nvidia-smi"
TIMEOUT = 30.0  # seconds; drivers without persistence wake 8 GPUs one after the other
FIELDS = (
    "index",
    "uuid",
    "name",
    "compute_cap",
    "driver_version",
    "mig.mode.current",
    "memory.total",
    "memory.reserved",
    "memory.free",
)
_NO_GPUS = "No devices were found"
# What it says of the memory of a GPU that shares the processor's.
_SHARED = ("[N/A]", "[Not Supported]")
_MIG_LINE = re.compile(
    r"\s+MIG (?P<profile>\S+)\s+Device\s+(?P<number>\d+): \(UUID: (?P<uuid>.+)\)"
)


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance of one, that a program started from here may use.

    Attributes:
        id: What CUDA_VISIBLE_DEVICES calls it: its number in PCI order, or a MIG instance's UUID.
        name: Its maker's name for it.
        total_bytes: Memory that programs can have, without what the driver keeps for itself.
        free_bytes: What of it no program holds now.
        capability: CUDA compute capability, such as (8, 9) for Ada.
        driver: Version of the driver, such as "580.65.06".
        uuid: What it is called on every machine.
    """

    id: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]
    driver: str = ""
    uuid: str = ""

    def __str__(self) -> str:
        major, minor = self.capability
        return (
            f"GPU {self.id} ({self.name}, {self.free_bytes / GIB:.1f} of "
            f"{self.total_bytes / GIB:.1f} GiB free, compute capability {major}.{minor})"
        )


def find_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """GPUs that a program with this environment may use, in the order that it would see them.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it, numbers and (shortened) UUIDs, except that
    numbers follow the order of `nvidia-smi`, which is CUDA's only under
    CUDA_DEVICE_ORDER=PCI_BUS_ID. Without `nvidia-smi`, or without NVIDIA GPUs, there are none.

    Raises:
        GpuError: `nvidia-smi` fails, hangs or answers something else; or CUDA_VISIBLE_DEVICES hides
            every GPU.
    """
    program = shutil.which(PROGRAM, path=environment.get("PATH"))
    if program is None:
        return []
    rows = _ask(program, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
    gpus: list[Gpu] = []
    for row in filter(_is_of_gpu, rows.splitlines()):
        values = [value.strip() for value in row.split(",")]
        try:
            fields = dict(zip(FIELDS, values, strict=True))
            gpu = _gpu(fields)
        except ValueError as error:
            message = f"{program} answered {row!r}, which is no GPU; update the NVIDIA driver"
            raise GpuError(message) from error
        on_mig = fields["mig.mode.current"] == "Enabled"
        gpus += _mig_instances(program, gpu) if on_mig else [gpu]
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    visible = gpus if wanted is None else _visible(gpus, wanted)
    if gpus and not visible:
        message = (
            f"CUDA_VISIBLE_DEVICES is {wanted!r}, which names none of this machine's "
            f"{len(gpus)} GPU(s); unset it, or give numbers or UUIDs that `{PROGRAM} -L` shows"
        )
        raise GpuError(message)
    return visible


def _is_of_gpu(row: str) -> bool:
    """Whether it is a row of a query's answer, and not what the driver warns of between them."""
    return bool(row.strip()) and not row.startswith("WARNING: ")


def _gpu(fields: Mapping[str, str]) -> Gpu:
    major, _, minor = fields["compute_cap"].partition(".")
    total, free = _memory(fields["memory.total"], fields["memory.reserved"], fields["memory.free"])
    return Gpu(
        id=str(int(fields["index"])),
        name=fields["name"],
        total_bytes=total,
        free_bytes=free,
        capability=(int(major), int(minor)),
        driver=fields["driver_version"],
        uuid=fields["uuid"],
    )


def _memory(total: str, reserved: str, free: str) -> tuple[int, int]:
    """Total and free bytes, from figures in MiB."""
    if total in _SHARED:
        return _machine_memory("MemTotal"), _machine_memory("MemAvailable")
    kept = 0 if reserved.startswith("[") else int(reserved)
    return (int(total) - kept) * MIB, int(free) * MIB


def _machine_memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.M)
    return int(found[1]) * 1024 if found else 0


def _mig_instances(program: str, gpu: Gpu) -> list[Gpu]:
    """The instances that `gpu` is divided into. A query of the GPU itself tells nothing of them."""
    _, _, listed = _ask(program, "-L").partition(f"GPU {gpu.id}: ")
    own = listed.partition("\nGPU ")[0].splitlines()
    names = {int(line["number"]): line for line in map(_MIG_LINE.match, own) if line}
    try:
        document = ElementTree.fromstring(_ask(program, "-q", "-x", f"--id={gpu.id}"))
        instances = []
        for found in document.iter("mig_device"):
            line = names[int(found.findtext("index", ""))]
            total, reserved, free = (
                found.findtext(f"fb_memory_usage/{name}", "[N/A]").removesuffix(" MiB")
                for name in ("total", "reserved", "free")
            )
            total_bytes, free_bytes = _memory(total, reserved, free)
            instances.append(
                replace(
                    gpu,
                    id=line["uuid"],
                    uuid=line["uuid"],
                    name=f"{gpu.name} MIG {line['profile']}",
                    total_bytes=total_bytes,
                    free_bytes=free_bytes,
                )
            )
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        message = (
            f"{program} describes no MIG instances of GPU {gpu.id} ({error!r}); "
            "update the NVIDIA driver"
        )
        raise GpuError(message) from error
    return instances


def _visible(gpus: list[Gpu], wanted: str) -> list[Gpu]:
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        by_uuid = entry.startswith(("GPU-", "MIG-"))
        found = [g for g in gpus if (g.uuid.startswith(entry) if by_uuid else g.id == entry)]
        if len(found) != 1 or found[0] in chosen:
            break  # CUDA ignores what follows an entry that it cannot read
        chosen += found
    return chosen


def _ask(program: str, *arguments: str) -> str:
    try:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        message = f"{program} cannot be run: {error}; install the NVIDIA driver again"
        raise GpuError(message) from error
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        message = (
            f"{program} did not answer in {TIMEOUT:g} s: the NVIDIA driver hangs; "
            "look for 'Xid' in the kernel's log (dmesg), and restart the machine"
        )
        raise GpuError(message) from error
    finally:
        _abandon(process)
    if process.returncode == 0 and _NO_GPUS not in output:
        return output
    if _NO_GPUS in output:
        return ""
    first_line = next(iter(output.strip().splitlines()), "no output")
    message = (
        f"{program} failed with exit code {process.returncode}: {first_line}; "
        "mend the NVIDIA driver (after an update, restart the machine), or in a container, "
        "give it the GPUs"
    )
    raise GpuError(message)


def _abandon(process: subprocess.Popen[str]) -> None:
    """End `process` if it still runs, but wait little: amid a driver's call it cannot be killed."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    if process.stdout is not None:
        process.stdout.close()
