"""What this machine and this installation can do, each finding with its fix where something is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import AcousticError
from .settings import PROJECT_ROOT, Settings, available_cores

LIBRARIES = (
    "torch",
    "transformers",
    "gradio",
    "librosa",
    "soundfile",
    "av",
    "soxr",
    "plotly",
    "psutil",
    "nvidia-ml-py",
    "openvino",
)
ENOUGH_DISK_GB = 1.0
MEASURE_AT_MOST_S = 60.0
"""wait for the measurement of the backends, which converts the network the first time"""
CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = (("AMX in bfloat16", "amx_bf16"), ("AVX-512 VNNI", "avx512_vnni"), ("AVX2 VNNI", "avx_vnni"))
"""what decides which backend is the fastest on an x86 processor, and Linux's flag for it"""
X86 = ("x86_64", "amd64", "i386", "i686", "x86")
UNTRIED = "this path has not run on hardware yet"
REINSTALL = "Run ./start.sh once: it installs what requirements.txt names."


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `ok`, what was found, and what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "fix": self.fix}


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, in the order in which one thing needs the other; none raises.

    Our own rooms are imported late: a missing library must be a finding here, not the end of the examination.
    """
    yield _python()
    yield from (_library(name) for name in LIBRARIES)
    try:
        yield from _decoders()
        yield _processor()
        yield _device()
        yield from _model(settings)
        yield _personal(settings)
    except (ImportError, OSError) as error:  # OSError: a package is there, its shared library is not
        yield Check("imports", False, str(error), REINSTALL)
    yield _torch2trt()
    yield _folder("cache", settings.cache_folder())
    yield _folder("data folder", settings.data_folder())


def _python() -> Check:
    cores = available_cores()
    where = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores for this process"
    return Check("python", sys.version_info >= (3, 11), where, "Install Python 3.11 or newer.")


def _library(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "missing", REINSTALL)


def _decoders() -> Iterator[Check]:
    from .signal import audio

    for name, version in audio.decoders().items():
        yield Check(f"decoder {name}", True, version)


def _processor() -> Check:
    """Which matrix and vector instructions the processor has: on them hangs which backend is the fastest."""
    from .network.backends import openvino
    from .network.backends.contract import processor_name

    facts = _cpuinfo()
    name = facts.get("model name") or processor_name()
    if "flags" in facts:
        flags = facts["flags"].split()
        told = [f"{what} {'yes' if flag in flags else 'no'}" for what, flag in INSTRUCTIONS]
    elif platform.machine().lower() not in X86:
        told = ["AMX, AVX-512 VNNI and AVX2 VNNI no (they are of x86 processors)"]
    else:  # OpenVINO counts AVX-512 in bfloat16 as well, so that it does not tell of AMX
        told = [f"{what} unknown" for what, _ in INSTRUCTIONS]
    if "flags" not in facts:
        known = "unknown" if not openvino.version() else "yes" if openvino.has_bfloat16() else "no"
        told.append(f"bfloat16 in hardware, as OpenVINO finds, {known}")
    return Check("cpu", True, f"{name}: {', '.join(told)}")


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the first processor; empty elsewhere."""
    try:
        first = CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    lines = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _device() -> Check:
    from .network import backends

    try:
        device = backends.choose_device("auto")
    except AcousticError as error:
        return Check("device", False, error.message, error.hint)
    detail = device if device != "cpu" else "cpu (no CUDA or MPS device was found; the CPU serves)"
    return Check("device", True, detail)


def _model(settings: Settings) -> Iterator[Check]:
    from .workstation import Workstation

    try:
        with Workstation(settings) as workstation:
            workstation.classifier.wait_for_backend(MEASURE_AT_MOST_S)
            card, facts = workstation.classifier.card, workstation.classifier.backend.describe()
    except AcousticError as error:
        yield Check("model", False, error.message, error.hint)
        return
    candidates, compiled, engine = facts.pop("candidates", []), facts.pop("compiled", None), facts.pop("tensorrt", None)
    yield Check("model", True, f"{card.name}: {len(card.labels)} genres")
    told = {key: value for key, value in facts.items() if key not in ("name", "precision", "chosen")}
    said = ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)
    yield Check("backend", True, f"{facts['name']} {facts['precision']}, {facts['chosen']}; {said}")
    yield from (Check(f"  {one['backend']} {one['precision']}", True, _told(one)) for one in candidates)
    if compiled is not None:
        sizes = compiled["sizes"].items()
        yield from (Check(f"  compiled for {size}", True, _told_compiled(one)) for size, one in sizes)
        if compiled["error"]:
            yield Check("  compiling", True, f"failed, and eager answers instead: {compiled['error']}")
    if engine is not None:
        failed = f"failed, and eager answers instead: {engine['error']}; " if engine["error"] else ""
        yield Check("  tensorrt", True, f"{failed}{UNTRIED}")


def _told_compiled(size: dict[str, Any]) -> str:
    """What became of one batch size of torch.compile."""
    parts = [size["state"]]
    if "first_ms" in size:
        parts.append(f"{size['compiled_ms']:.1f} ms, where eager takes {size['eager_ms']:.1f} ms")
        parts.append(f"cosine {size['cosine']:.5f}, {size['first_ms'] / 1e3:.1f} s to compile")
    return ", ".join(parts)


def _told(candidate: dict[str, Any]) -> str:
    """What was found of one way to run the network."""
    parts = [candidate["state"]]
    parts += [f"{ms:.1f} ms for {size} segment{'s' * (size != '1')}" for size, ms in candidate["ms"].items()]
    if candidate["cosine"] is not None:
        parts.append(f"cosine {candidate['cosine']:.5f}")
    notes = [candidate["note"], UNTRIED if candidate["backend"] == "tensorrt" else ""]
    said = "; ".join(note for note in notes if note)
    return ", ".join(parts) + (f" ({said})" if said else "")


def _personal(settings: Settings) -> Check:
    from .workstation import Workstation

    try:
        with Workstation(settings) as workstation:
            versions = workstation.personal_versions()
    except AcousticError as error:
        return Check("personal genres", False, error.message, error.hint)
    used = next((version for version in versions if version.active), None)
    if used is None:
        return Check("personal genres", True, f"none in use, {len(versions)} kept" if versions else "none taught")
    if used.error:
        return Check("personal genres", False, f"version {used.name}: {used.error.message}", used.error.hint)
    return Check("personal genres", True, f"version {used.name} is in use ({used.n_songs} songs)")


def _torch2trt() -> Check:
    found = importlib.util.find_spec("torch2trt") is not None
    detail = "installed" if found else "not installed"
    return Check("torch2trt", True, f"{detail} (optional; only of use with an NVIDIA GPU; {UNTRIED})")


def _folder(name: str, folder: os.PathLike[str]) -> Check:
    path = os.fspath(folder)
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or str(PROJECT_ROOT)
    free_gb = shutil.disk_usage(existing).free / 1e9
    if not (os.access(existing, os.W_OK) and os.path.isdir(existing)):
        return Check(
            name, False, f"{path} cannot be written", f"Make it writable, or set another with {_variable(name)}."
        )
    enough = free_gb >= ENOUGH_DISK_GB
    return Check(name, enough, f"{path}, {free_gb:.1f} GB free", "" if enough else "Free some space on this disk.")


def _variable(name: str) -> str:
    return "ACOUSTIC_CACHE_DIR" if name == "cache" else "ACOUSTIC_DATA_DIR"
