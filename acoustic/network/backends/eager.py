"""The network as torch runs it, operation by operation, in the precision that was measured to be best."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import BackendError
from ...records import N_FRAMES, Votes
from ..vit import Answers, MelViT

Precision = Literal["float32", "float16", "bfloat16"]

MIN_COSINE = 0.999
"""Least cosine between the logits of half and of full precision, over PROBE_SEGMENTS segments."""
MIN_CPU_SPEEDUP = 1.1
"""On a CPU, half precision must be this much faster; a processor without the instructions is several times slower."""
HOPELESS = 3.0
"""This many times slower with one segment, and the measurement ends: emulated bfloat16 is not worth the time."""
PROBE_SEGMENTS = 4
N_RUNS = 3

_HALF: dict[str, Precision] = {"cuda": "float16", "cpu": "bfloat16"}


class EagerBackend:
    """`network` on `device` in `precision`. A Backend."""

    name = "eager"

    def __init__(
        self, network: MelViT, device: str, precision: Precision = "float32", choice: dict[str, Any] | None = None
    ) -> None:
        self.device = device
        self.precision = precision
        self.dtype: torch.dtype = getattr(torch, precision)
        # A copy in half precision leaves the float32 network to its owner; in float32 on the CPU it is used as it is.
        network = network if precision == "float32" else copy.deepcopy(network)
        self.network = network.to(device, self.dtype).eval()
        self._choice = choice or {"chosen": "full precision was asked for, or is the only one here"}

    @classmethod
    def measured(cls, network: MelViT, device: str) -> EagerBackend:
        """In half precision if this machine gains by it and the answers stay the same, else in float32."""
        full = cls(network, device)
        half = _HALF.get(device)
        if half is None:
            return full
        candidate = cls(full.network, device, half)
        mels = probe(network.architecture.n_mels)
        accept, choice = _compare(full, candidate, mels, 0.0 if device == "cuda" else MIN_CPU_SPEEDUP)
        chosen = candidate if accept else full
        chosen._choice = choice
        return chosen

    def __call__(self, mels: np.ndarray) -> Votes:
        return run(self.network, self.as_input(mels))

    def as_input(self, mels: np.ndarray) -> Tensor:
        """(B, n_mels, 224) float32 on the host -> the same on the device, in the backend's precision."""
        n_mels = self.network.architecture.n_mels
        if mels.ndim != 3 or mels.shape[1:] != (n_mels, N_FRAMES):
            raise BackendError(f"mels have shape {mels.shape}, but the network reads (any, {n_mels}, {N_FRAMES})")
        return torch.tensor(np.ascontiguousarray(mels)).to(self.device, self.dtype)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self.device,
            "device_name": _device_name(self.device),
            "precision": self.precision,
            **self._choice,
            "n_threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        }

    def close(self) -> None:
        """Nothing runs in the background."""


def run(network: Callable[[Tensor], Answers], mels: Tensor) -> Votes:
    """One call of the network, its answers on the host. BackendError if they are not finite or the device fails."""
    if len(mels) == 0:  # attention takes no empty batch
        one = run(network, mels.new_zeros(1, *mels.shape[1:]))
        return Votes(one.logits[:0], one.tag_logits[:0], one.embeddings[:0])
    try:
        with torch.inference_mode():
            logits, tags, embeddings = (answer.float().cpu().numpy() for answer in network(mels))
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"{mels.device} has no memory left for {len(mels)} segments", "Lower `batch_size`, or use `--device cpu`."
        ) from error
    except RuntimeError as error:
        raise BackendError(f"the network failed on {mels.device} with {len(mels)} segments: {error}") from error
    if not all(np.isfinite(answer).all() for answer in (logits, tags, embeddings)):
        half = "" if mels.dtype == torch.float32 else "Use full precision (use_fp16=False)."
        raise BackendError(f"the network's answer in {mels.dtype} on {mels.device} holds NaN or infinity", half)
    return Votes(logits, tags, embeddings)


def probe(n_mels: int) -> np.ndarray:
    """Input to measure with: (PROBE_SEGMENTS, n_mels, 224) of seeded noise that falls with frequency, as music does."""
    noise = np.random.default_rng(0).normal(size=(PROBE_SEGMENTS, n_mels, N_FRAMES))
    return (noise + np.linspace(1, -1, n_mels)[:, None]).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The least cosine between rows of two (B, C) arrays."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.sum(a * b, axis=1) / np.maximum(lengths, 1e-12)).min())


def best_ms(backend: Callable[[np.ndarray], Votes], mels: np.ndarray, n_runs: int = N_RUNS) -> float:
    """The fastest of `n_runs` calls in ms: the least disturbed by whatever else the machine does."""
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        backend(mels)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def _compare(
    full: EagerBackend, half: EagerBackend, mels: np.ndarray, min_speedup: float
) -> tuple[bool, dict[str, Any]]:
    """Whether `half` is to be used, and the numbers that say so."""
    for batch in (mels[:1], mels):
        expected = full(batch)  # also the warm-up
        full_ms = best_ms(full, batch)
        try:
            found = half(batch)
        except BackendError as error:
            return False, {"chosen": f"measured: {half.precision} failed: {error.message}"}
        half_ms = best_ms(half, batch, 1)
        if min_speedup > 0 and half_ms > HOPELESS * full_ms:
            break
        half_ms = min(half_ms, best_ms(half, batch))
    similarity = cosine(expected.logits, found.logits)
    accurate, fast = similarity >= MIN_COSINE, half_ms * min_speedup <= full_ms
    ratio = half_ms / full_ms
    return accurate and fast, {
        "chosen": f"measured: {half.precision} takes {ratio:.2f} times as long as float32, cosine {similarity:.5f}",
        "n_segments": len(batch),
        "float32_ms": round(full_ms, 2),
        f"{half.precision}_ms": round(half_ms, 2),
        "cosine": round(similarity, 6),
    }


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
