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
    candidates = facts.pop("candidates", [])
    yield Check("model", True, f"{card.name}: {len(card.labels)} genres")
    told = {key: value for key, value in facts.items() if key not in ("name", "precision", "chosen")}
    said = ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)
    yield Check("backend", True, f"{facts['name']} {facts['precision']}, {facts['chosen']}; {said}")
    yield from (Check(f"  {one['backend']} {one['precision']}", True, _told(one)) for one in candidates)


def _told(candidate: dict[str, Any]) -> str:
    """What was found of one way to run the network."""
    parts = [candidate["state"]]
    parts += [f"{ms:.1f} ms for {size} segment{'s' * (size != '1')}" for size, ms in candidate["ms"].items()]
    if candidate["cosine"] is not None:
        parts.append(f"cosine {candidate['cosine']:.5f}")
    return ", ".join(parts) + (f" ({candidate['note']})" if candidate["note"] else "")


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
    detail = "installed" if found else "not installed (optional; only of use with an NVIDIA GPU)"
    return Check("torch2trt", True, detail)


def _folder(name: str, folder: os.PathLike[str]) -> Check:
    path = os.fspath(folder)
    existing = path
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or str(PROJECT_ROOT)
    free_gb = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return Check(
            name, False, f"{path} cannot be written", f"Make it writable, or set another with {_variable(name)}."
        )
    enough = free_gb >= ENOUGH_DISK_GB
    return Check(name, enough, f"{path}, {free_gb:.1f} GB free", "" if enough else "Free some space on this disk.")


def _variable(name: str) -> str:
    return "ACOUSTIC_CACHE_DIR" if name == "cache" else "ACOUSTIC_DATA_DIR"
