"""The network through TensorRT, by torch2trt, where a person has installed it: CUDA only, in float16.

Where the engine fails, the eager backend answers from then on. Has not run on hardware yet: it is tested with a
stand-in for the module.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from ...errors import BackendError
from ...records import N_FRAMES, Votes
from ..vit import Answers, MelViT
from .contract import checked, joined
from .eager import EagerBackend, run

MAX_BATCH = 64


class TensorRtBackend:
    """A Backend around an EagerBackend on CUDA, whose network it converts; `module` is torch2trt, by default the
    installed one. BackendError, with what to do, where something is missing."""

    name = "tensorrt"

    def __init__(self, eager: EagerBackend, module: Any = None) -> None:
        if eager.device != "cuda":
            raise BackendError("TensorRT needs an NVIDIA GPU", "Use --backend openvino or eager on this machine.")
        self._eager = eager
        trt = module or _torch2trt()
        example = torch.zeros(1, eager.n_mels, N_FRAMES, device=eager.place, dtype=eager.dtype)
        half = eager.dtype == torch.float16
        try:
            self._engine = trt.torch2trt(_Plain(eager.network), [example], fp16_mode=half, max_batch_size=MAX_BATCH)
        except Exception as error:  # the converter fails in its own ways
            raise BackendError(f"TensorRT cannot take the network: {type(error).__name__}: {error}") from error
        self._version = str(getattr(trt, "__version__", "unknown"))
        self._n_tags = eager.network.architecture.n_tags
        self._problem = ""

    @property
    def device(self) -> str:
        return self._eager.device

    @property
    def precision(self) -> str:
        return self._eager.precision

    def __call__(self, mels: np.ndarray) -> Votes:
        mels = checked(mels, self._eager.n_mels)
        if len(mels) > MAX_BATCH:
            return joined([self(mels[start : start + MAX_BATCH]) for start in range(0, len(mels), MAX_BATCH)])
        if self._problem:
            return self._eager(mels)
        try:
            return run(self._answers, self._eager.as_input(mels), self.precision)
        except BackendError as error:
            problem = error.message
        except Exception as error:  # an engine fails in its own ways
            problem = f"{type(error).__name__}: {error}"
        votes = self._eager(mels)  # outside, where the error holds no tensors; raises where the fault lies in the mels
        self._problem = problem
        return votes

    def _answers(self, mels: torch.Tensor) -> Answers:
        parts = list(self._engine(mels))
        if not self._n_tags:
            parts.insert(1, parts[0][:, :0])
        return Answers(*parts)

    def describe(self) -> dict[str, Any]:
        return {
            **self._eager.describe(),
            "name": self.name,
            "torch2trt": self._version,
            "tensorrt": {"error": self._problem or None},
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Nothing is made ready in the background."""
        return True

    def close(self) -> None:
        """Nothing runs in the background."""


class _Plain(torch.nn.Module):
    """Answers as a plain tuple, without the heads that the network lacks: an engine has no empty tensors."""

    def __init__(self, network: MelViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, mels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, tags, embedding = self.network(mels)
        return (logits, tags, embedding) if self.network.architecture.n_tags else (logits, embedding)


def _torch2trt() -> Any:
    try:
        return importlib.import_module("torch2trt")
    except ImportError:
        raise BackendError(
            "torch2trt is not installed",
            "It is not in the package registry: install it from its source beside TensorRT, or use --backend graphs.",
        ) from None
