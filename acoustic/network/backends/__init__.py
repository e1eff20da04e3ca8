"""How a network is executed: one face, chosen by measurement where it runs.

eager       torch, operation by operation; int8 by dynamic quantisation
compiled    torch.compile, made ready in the background
openvino    a graph for CPUs: float32, bfloat16, or int8 that was calibrated ahead
graphs      recorded CUDA graphs
tensorrt    through torch2trt, where a person has installed it
choice      measures what a machine has, and lets the fastest accurate one take over

`create` gives the backend; `describe()` says what was chosen, why, and with which numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import BackendError
from ...records import Votes
from ...settings import available_cores
from ..source import NetworkSource

DEVICES = ("auto", "cpu", "cuda", "mps")
BACKENDS = ("auto", "eager", "compiled", "openvino", "graphs", "tensorrt")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")


class Backend(Protocol):
    """A network made ready on a device. Calls must not overlap: the house has one inference lane."""

    @property
    def name(self) -> str:
        """`eager`, `compiled`, `openvino`, `graphs` or `tensorrt`."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `mps`."""

    @property
    def precision(self) -> str:
        """Of the arithmetic: `float32`, `bfloat16`, `float16` or `int8`. Inputs and answers are float32 in any case."""

    def __call__(self, mels: np.ndarray) -> Votes:
        """Normalised mels (B, n_mels, 224) float32 -> the Votes of B segments, float32; no row depends on another.

        Raises BackendError for another shape, an answer that is not finite, or a device that fails.
        """

    def describe(self) -> dict[str, Any]:
        """What `doctor` and the profiler show, as JSON values: name, device, precision, why it was `chosen`, `state`
        (measuring, compiling or ready), and where several were measured, the `candidates`."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until what is measured or compiled in the background is done; whether it is. It answers meanwhile."""

    def close(self) -> None:
        """Stop what runs in the background. The backend still answers afterwards."""


def choose_device(requested: str) -> str:
    """The device for "auto" (cuda where there is one, else cpu), or `requested` if this machine has it.

    Apple's mps is taken only where it is asked for by name: there are no backends to measure against each other on it,
    and on the CPU there are. Raises BackendError for what this machine does not have.
    """
    if requested not in DEVICES:
        raise BackendError(f"no device is called {requested!r}", f"Devices: {', '.join(DEVICES)}.")
    if requested == "cpu" or (requested == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch  # a second of a start, which a machine without a GPU can do without

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[requested]:
        raise BackendError(f"device {requested!r} was asked for, but torch {torch.__version__} finds none here")
    return requested


def _may_have_gpu() -> bool:
    """Whether torch has to be asked: it is made for CPUs alone, or there is no driver, and the answer is known."""
    build = versions().get("torch", "")
    if build.endswith("+cpu"):
        return False
    if "rocm" in build or "xpu" in build:
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def create(
    source: NetworkSource,
    device: str = "cpu",
    *,
    backend: str = "auto",
    precision: str = "auto",
    use_fp16: bool = True,
    n_threads: int | None = None,
    n_segments: int = 4,
    folder: Path | None = None,
) -> Backend:
    """The backend for a network on `device`.

    `backend` and `precision` "auto" leave the choice to a measurement, which goes on while the first one answers;
    `use_fp16` False leaves only float32. `n_threads` sets torch's thread count for the process, once torch is needed;
    it belongs to the entry. `n_segments` is how many a song has, by which they are compared. In `folder` graphs and
    choices are kept.

    Raises BackendError for what this machine does not have.
    """
    from .choice import MeasuredBackend
    from .rivals import compiled_precision, rivals_for

    device = choose_device(device)
    for name, value, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise BackendError(f"no {name} is called {value!r}", f"Known: {', '.join(known)}.")
    if n_threads is not None and n_threads < 1:
        raise BackendError(f"n_threads is {n_threads}, but must be at least 1")
    if not use_fp16 and precision == "auto":
        precision = "float32"
    if backend == "compiled" and precision == "auto":
        precision = compiled_precision(source, n_threads) if device == "cpu" else "float16"
    rivals = rivals_for(source, device, n_threads, folder)
    wanted = [r for r in rivals if backend in ("auto", r.backend) and precision in ("auto", r.precision)]
    if not wanted:
        there = ", ".join(f"{r.backend} {r.precision}" for r in rivals)
        raise BackendError(f"{backend} in {precision} cannot be had on {device}", f"There are: {there}.")
    if len(wanted) == 1:
        made: Backend = wanted[0].make()
        return made
    key = _key(source, device, backend, precision, n_threads, n_segments)

    def settled(winner: Backend) -> None:
        if winner.name == "openvino":  # a graph of its own: torch's network is not needed any more
            source.forget()

    return MeasuredBackend(
        wanted,
        rivals[0].make,
        source.architecture.n_mels,
        n_segments=n_segments,
        key=key,
        folder=folder,
        settled=settled,
        one_at_a_time=device == "cuda",
    )


def chosen_before(
    source: NetworkSource,
    device: str = "cpu",
    *,
    n_threads: int | None = None,
    n_segments: int = 4,
    folder: Path | None = None,
) -> dict[str, Any]:
    """What an earlier start of this machine chose by measurement, for one that was asked for a backend by name (see
    `choice.kept_choice`); empty where none did."""
    from .choice import kept_choice

    key = _key(source, choose_device(device), "auto", "auto", n_threads, n_segments)
    return kept_choice(folder, key) if folder and key else {}


def _key(
    source: NetworkSource, device: str, backend: str, precision: str, n_threads: int | None, n_segments: int
) -> str:
    """All that a choice depends on; empty for weights without a name."""
    if not source.digest:
        return ""
    asked = (device, backend, precision, n_threads or available_cores(), n_segments)
    return json.dumps(
        [machine(device), source.digest, repr(source.architecture), source.int8_digest(), asked, versions()]
    )


def machine(device: str) -> str:
    """A name for what this machine computes with: two of one name may differ in their instructions."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told += [line for line in lines if line.startswith(("model name", "flags"))][:2]
    except OSError:
        pass  # not Linux
    if device == "cuda":
        import torch

        told.append(torch.cuda.get_device_name())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what runs networks, as far as it is installed."""
    found = {}
    for package in ("torch", "openvino", "torch2trt"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
