"""What this process and those that it started have used, as Linux tells it in /proc."""

import os
from pathlib import Path


def family() -> list[int]:
    """This process and those that it started and that still run."""
    children = Path("/proc/self/task").glob("*/children")
    return [os.getpid(), *(int(child) for file in children for child in file.read_text().split())]


def cpu_seconds() -> float:
    """CPU time of the family, and of those of it that have ended."""
    ticks = 0
    for process in family():
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # its own and that of its ended children
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib() -> float:
    """Sum of the highest memory of each of the family."""
    kibibytes = 0
    for process in family():
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        kibibytes += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kibibytes / 1024
