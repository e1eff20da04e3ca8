"""The machine that a benchmark ran on, and the memory that this process took: without them numbers mean nothing."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from acoustic.settings import available_cores

CPUINFO, STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
PACKAGES = ("torch", "openvino", "nncf", "librosa", "numpy")
MB = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """`amx` is None where the system does not tell. `load` is the system's mean of the last minute, of all programs."""

    processor: str
    n_cores: int
    amx: bool | None
    load: float | None
    python: str
    packages: dict[str, str]

    def sentence(self) -> str:
        amx = {True: "with AMX", False: "without AMX", None: "AMX unknown"}[self.amx]
        load = "" if self.load is None else f", load {self.load:.1f} before the start"
        versions = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return f"{self.processor}, {self.n_cores} cores, {amx}{load}; Python {self.python}, {versions}"


def this_machine(cpuinfo: Path = CPUINFO) -> Machine:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return Machine(
        processor=_value(text, "model name") or platform.processor() or platform.machine(),
        n_cores=available_cores(),
        amx=has_amx(text),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        python=platform.python_version(),
        packages={name: number for name in PACKAGES if (number := _version(name))},
    )


def has_amx(cpuinfo: str) -> bool | None:
    """Whether the flags of /proc/cpuinfo name AMX's bf16 tiles; None where there are no flags (an ARM, no Linux)."""
    flags = _value(cpuinfo, "flags")
    return None if flags is None else "amx_bf16" in flags.split()


def peak_rss_mb(status: Path = STATUS) -> float:
    """The most memory that this process has ever held resident.

    Linux's VmHWM: `getrusage` there begins with the peak of the parent that started this process.
    """
    try:
        peak = _value(status.read_text(encoding="ascii", errors="replace"), "VmHWM")
    except OSError:
        peak = None
    if peak is not None:
        return int(peak.split()[0]) * 1_024 / MB
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MB if sys.platform == "darwin" else most * 1_024 / MB


def _value(text: str, key: str) -> str | None:
    """What stands behind the first `key :` line."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
