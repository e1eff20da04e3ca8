"""The network as CUDA graphs: its kernels recorded once for each batch size and launched as one.

A recorded graph reads and writes fixed memory, so there are a few batch sizes: a batch is padded up to the next, a
larger one is cut. Mels reach the device from pinned memory on a stream of their own. Has not run on hardware yet: it is
tested with a stand-in for `torch.cuda`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BackendError
from ...records import N_FRAMES, Votes
from ..vit import Answers
from .contract import checked, finite, joined
from .eager import EagerBackend

BATCH_SIZES = (1, 4, 8, 16, 64)
N_WARM = 3


class _Recorded:
    """One graph: `mels` is what it reads, `answers` what it writes."""

    def __init__(self, network: Any, mels: Tensor, cuda: Any) -> None:
        self.mels = mels
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with torch.inference_mode(), cuda.stream(side):
            for _ in range(N_WARM):  # libraries choose their kernels before the recording
                network(self.mels)
        cuda.current_stream().wait_stream(side)
        self.graph = cuda.CUDAGraph()
        with torch.inference_mode(), cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.answers: Answers = network(self.mels)


class GraphBackend:
    """A Backend around an EagerBackend on CUDA. `cuda` is torch.cuda; tests hand in another."""

    name = "graphs"

    def __init__(self, eager: EagerBackend, batch_sizes: Sequence[int] = BATCH_SIZES, cuda: Any = torch.cuda) -> None:
        if eager.device != "cuda":
            raise BackendError("CUDA graphs need an NVIDIA GPU", "Use --device cuda on a machine that has one.")
        self._eager, self._cuda = eager, cuda
        self._sizes = tuple(sorted(batch_sizes))
        self._recorded: dict[int, _Recorded] = {}
        self._copy = cuda.Stream()
        self._problem = ""

    @property
    def device(self) -> str:
        return self._eager.device

    @property
    def precision(self) -> str:
        return self._eager.precision

    def __call__(self, mels: np.ndarray) -> Votes:
        mels = checked(mels, self._eager.n_mels)
        step = self._sizes[-1]
        if len(mels) > step:
            return joined([self(mels[start : start + step]) for start in range(0, len(mels), step)])
        size = next(size for size in self._sizes if size >= len(mels))
        if len(mels) == 0 or self._problem:
            return self._eager(mels)
        try:
            answers = self._run(mels, size)
        except (RuntimeError, torch.OutOfMemoryError) as error:  # recording takes memory; the eager path takes less
            self._problem = f"{type(error).__name__}: {error}"
            self._recorded.clear()
            return self._eager(mels)
        return finite(answers, f"{self.precision} through CUDA graphs", self.precision != "float32")

    def _run(self, mels: np.ndarray, size: int) -> Votes:
        cuda, n = self._cuda, len(mels)
        recorded = self._recorded.get(size)
        if recorded is None:
            empty = torch.zeros(size, self._eager.n_mels, N_FRAMES, device=self._eager.place, dtype=self._eager.dtype)
            recorded = self._recorded[size] = _Recorded(self._eager.network, empty, cuda)
        host = torch.from_numpy(mels)
        host = host.pin_memory() if self._eager.place.type == "cuda" else host
        with cuda.stream(self._copy):
            recorded.mels[:n].copy_(host, non_blocking=True)  # what pads the batch is of no account
        cuda.current_stream().wait_stream(self._copy)
        recorded.graph.replay()
        return Votes(
            *(answer[:n].float().cpu().numpy().copy() for answer in recorded.answers)
        )  # the next replay overwrites

    def describe(self) -> dict[str, Any]:
        facts = {"sizes": sorted(self._recorded), "error": self._problem or None}
        return {**self._eager.describe(), "name": self.name, "graphs": facts}

    def wait(self, timeout_s: float | None = None) -> bool:
        """Nothing is made ready in the background."""
        return True

    def close(self) -> None:
        self._recorded.clear()
