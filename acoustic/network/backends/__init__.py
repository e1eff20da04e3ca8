"""How a network is executed: one face, chosen by measurement when it is created.

`create` gives the backend for a device; `describe()` says what was chosen, why, and with which numbers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from ...errors import BackendError
from ...records import Votes
from ..vit import MelViT

DEVICES = ("auto", "cpu", "cuda", "mps")


class Backend(Protocol):
    """A network made ready on a device. Calls must not overlap: the house has one inference lane."""

    @property
    def name(self) -> str:
        """`eager` or `compiled`."""

    @property
    def device(self) -> str:
        """`cpu`, `cuda` or `mps`."""

    @property
    def precision(self) -> str:
        """Of the arithmetic: `float32`, `bfloat16` or `float16`. Inputs and answers are float32 in any case."""

    def __call__(self, mels: np.ndarray) -> Votes:
        """Normalised mels (B, n_mels, 224) float32 -> the Votes of B segments, float32; no row depends on another.

        Raises BackendError for another shape, an answer that is not finite, or a device that fails.
        """

    def describe(self) -> dict[str, Any]:
        """What `doctor` prints: name, device, precision, and how they were chosen, as JSON values."""

    def close(self) -> None:
        """Stop what runs in the background. The backend still answers afterwards."""


def choose_device(requested: str) -> str:
    """The device for "auto" (cuda, mps, cpu: the first that is there), or `requested` if this machine has it.

    Raises BackendError otherwise.
    """
    if requested not in DEVICES:
        raise BackendError(f"no device is called {requested!r}", f"Devices: {', '.join(DEVICES)}.")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[requested]:
        raise BackendError(f"device {requested!r} was asked for, but torch {torch.__version__} finds none here")
    return requested


def create(
    network: MelViT,
    device: str = "cpu",
    *,
    use_fp16: bool = True,
    compile: bool = False,
    n_threads: int | None = None,
) -> Backend:
    """The backend for `network` on `device`; the network itself is put there, and into eval mode.

    `use_fp16` allows half precision: float16 on CUDA if the answers stay the same, bfloat16 on a CPU if it is faster as
    well, both measured here and now. `n_threads` sets torch's thread count for the process; it belongs to the entry.
    """
    from .compiled import CompiledBackend
    from .eager import EagerBackend

    device = choose_device(device)
    if n_threads is not None:
        if n_threads < 1:
            raise BackendError(f"n_threads is {n_threads}, but must be at least 1")
        torch.set_num_threads(n_threads)
    eager = EagerBackend.measured(network, device) if use_fp16 else EagerBackend(network, device)
    return CompiledBackend(eager) if compile else eager
