"""What `nvidia-smi` tells of GPUs, with a script in its place: no machine here has one."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_glm4v.errors import GpuError
from langchain_glm4v.server import gpu
from langchain_glm4v.server.gpu import GIB, MIB, find_gpus

ROW = "{index}, GPU-{uuid}, {name}, {capability}, 580.65.06, {mig}, {total}, {reserved}, {free}"
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "capability": "9.0",
    "mig": "Disabled",
    "total": 81559,
    "reserved": 551,
    "free": 81004,
}
ADA = {**H100, "name": "NVIDIA L4", "capability": "8.9", "mig": "[N/A]", "total": 23034}
TWO = "\n".join(
    (ROW.format(index=0, uuid="aaaa-1", **H100), ROW.format(index=1, uuid="aaab-2", **ADA))
)

Script = Callable[[str], dict[str, str]]


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Script:
    """Puts a shell script in the place of `nvidia-smi`; returns an environment that has it."""

    def put(body: str) -> dict[str, str]:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return {"PATH": str(tmp_path)}

    return put


def answer(text: str) -> str:
    return f"while IFS= read -r line; do echo \"$line\"; done <<'END'\n{text}\nEND"


def test_without_the_program_there_are_none(tmp_path: Path) -> None:
    assert find_gpus({"PATH": str(tmp_path)}) == []


def test_figures_are_bytes_that_programs_can_have(nvidia_smi: Script) -> None:
    first, second = find_gpus(nvidia_smi(answer(TWO)))
    assert (first.id, first.name, first.capability) == ("0", "NVIDIA H100 80GB HBM3", (9, 0))
    assert first.total_bytes == (81559 - 551) * MIB
    assert first.free_bytes == 81004 * MIB
    assert first.driver == "580.65.06"
    assert (second.id, second.capability) == ("1", (8, 9))
    assert str(first) == (
        "GPU 0 (NVIDIA H100 80GB HBM3, 79.1 of 79.1 GiB free, compute capability 9.0)"
    )


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("0", ["0"]),
        ("1,0", ["1", "0"]),
        (" 1 , 0", ["1", "0"]),
        ("GPU-aaab-2", ["1"]),
        ("GPU-aaab", ["1"]),  # CUDA takes the start of a UUID that fits one GPU
        ("1,7,0", ["1"]),  # it ignores what follows an entry that it cannot read
        ("1,-1,0", ["1"]),
        ("1,1,0", ["1"]),
    ],
)
def test_visible_devices_as_cuda_reads_them(
    nvidia_smi: Script, visible: str, ids: list[str]
) -> None:
    environment = nvidia_smi(answer(TWO)) | {"CUDA_VISIBLE_DEVICES": visible}
    assert [found.id for found in find_gpus(environment)] == ids


@pytest.mark.parametrize("visible", ["", "2", "GPU-aaa", "-1", "NoDevFiles"])
def test_hiding_all_is_an_error_that_says_so(nvidia_smi: Script, visible: str) -> None:
    environment = nvidia_smi(answer(TWO)) | {"CUDA_VISIBLE_DEVICES": visible}
    with pytest.raises(GpuError, match=r"names none of this machine's 2 GPU\(s\); unset it"):
        find_gpus(environment)


@pytest.mark.parametrize("code", [0, 6])
def test_a_driver_without_a_gpu(nvidia_smi: Script, code: int) -> None:
    environment = nvidia_smi(f"echo 'No devices were found'; exit {code}")
    assert find_gpus(environment | {"CUDA_VISIBLE_DEVICES": "0"}) == []


def test_broken_driver(nvidia_smi: Script) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    environment = nvidia_smi(f"echo '{said}'; echo 'NVML library version: 580.65'; exit 18")
    with pytest.raises(GpuError, match=f"failed with exit code 18: {said}; mend") as raised:
        find_gpus(environment)
    assert "\n" not in str(raised.value)


def test_hanging_driver_is_not_waited_for(
    nvidia_smi: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "TIMEOUT", 0.2)
    children: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def watched(*arguments: object, **options: object) -> "subprocess.Popen[str]":
        children.append(start(*arguments, **options))  # type: ignore[call-overload]
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", watched)
    with pytest.raises(GpuError, match=r"did not answer in 0.2 s: the NVIDIA driver hangs"):
        find_gpus(nvidia_smi("exec /bin/sleep 1000"))
    assert children[0].poll() is not None


def test_unusable_program(nvidia_smi: Script, tmp_path: Path) -> None:
    environment = nvidia_smi("")
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF broken")
    with pytest.raises(GpuError, match="cannot be run"):
        find_gpus(environment)


@pytest.mark.parametrize(
    "row",
    [
        "Field 'memory.reserved' is not a valid field to query.",
        ROW.format(index=0, uuid="a", **{**H100, "capability": "[N/A]"}),
        ROW.format(index=0, uuid="a", **{**H100, "total": "much"}),
        ROW.format(index=0, uuid="a", **{**H100, "total": "[Unknown Error]"}),
        "0, GPU-a",
    ],
)
def test_answer_of_another_kind(nvidia_smi: Script, row: str) -> None:
    with pytest.raises(GpuError, match="which is no GPU; update the NVIDIA driver"):
        find_gpus(nvidia_smi(answer(row)))


def test_warnings_between_the_rows_are_passed_over(nvidia_smi: Script) -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:02:00.0"
    assert len(find_gpus(nvidia_smi(answer(f"{TWO}\n{warning}\n")))) == 2


def test_memory_shared_with_the_processor(nvidia_smi: Script) -> None:
    shared = {**H100, "total": "[N/A]", "reserved": "[N/A]", "free": "[N/A]"}
    (found,) = find_gpus(nvidia_smi(answer(ROW.format(index=0, uuid="a", **shared))))
    assert 0 < found.free_bytes <= found.total_bytes


MIG_LIST = """\
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)
  MIG 7g.80gb     Device  0: (UUID: MIG-3333)
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111)
  MIG 1g.10gb     Device  1: (UUID: MIG-2222)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-c)
  MIG 7g.80gb     Device  0: (UUID: MIG-4444)"""
MIG_DETAILS = """\
<nvidia_smi_log><gpu id="0"><mig_devices>
<mig_device><index>0</index><fb_memory_usage><total>40448 MiB</total><reserved>0 MiB</reserved>
<used>64 MiB</used><free>40384 MiB</free></fb_memory_usage></mig_device>
<mig_device><index>1</index><fb_memory_usage><total>9856 MiB</total><reserved>0 MiB</reserved>
<used>13 MiB</used><free>9843 MiB</free></fb_memory_usage></mig_device>
</mig_devices></gpu></nvidia_smi_log>"""


@pytest.fixture
def divided(nvidia_smi: Script) -> Script:
    """As `nvidia_smi`, for a GPU in MIG mode that is described in detail by the given text."""
    row = ROW.format(
        index=0,
        uuid="a",
        **{**H100, "mig": "Enabled", "free": "[Insufficient Permissions]", "total": "[N/A]"},
    )

    def put(details: str) -> dict[str, str]:
        cases = {"--query-gpu*": row, "-L": MIG_LIST, "-q": details}
        body = "".join(f"{case}) {answer(text)}\n;;\n" for case, text in cases.items())
        return nvidia_smi(f'case "$1" in\n{body}esac')

    return put


def test_mig_instances_stand_for_their_gpu(divided: Script) -> None:
    environment = divided(MIG_DETAILS)
    large, small = find_gpus(environment)
    assert (large.id, large.name) == ("MIG-1111", "NVIDIA H100 80GB HBM3 MIG 3g.40gb")
    assert (large.total_bytes, large.free_bytes) == (40448 * MIB, 40384 * MIB)
    assert large.capability == (9, 0)
    assert small.total_bytes < 10 * GIB
    assert find_gpus(environment | {"CUDA_VISIBLE_DEVICES": "MIG-22"}) == [small]


@pytest.mark.parametrize("details", ["no XML", "<a><mig_device><index>7</index></mig_device></a>"])
def test_mig_instances_that_are_not_described(divided: Script, details: str) -> None:
    with pytest.raises(GpuError, match="describes no MIG instances of GPU 0"):
        find_gpus(divided(details))
