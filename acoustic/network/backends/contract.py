"""What every backend holds to, whatever runs it: the shape of its input, and answers that are finite."""

from __future__ import annotations

import platform

import numpy as np

from ...errors import BackendError
from ...records import N_FRAMES, Votes


def checked(mels: np.ndarray, n_mels: int) -> np.ndarray:
    """`mels`, contiguous, if they have the shape that the network reads; BackendError otherwise."""
    if mels.ndim != 3 or mels.shape[1:] != (n_mels, N_FRAMES):
        raise BackendError(f"mels have shape {mels.shape}, but the network reads (any, {n_mels}, {N_FRAMES})")
    return np.ascontiguousarray(mels, dtype=np.float32)


def finite(votes: Votes, where: str, half: bool) -> Votes:
    """`votes`, if all of their numbers are finite; BackendError otherwise."""
    if not all(np.isfinite(answer).all() for answer in (votes.logits, votes.tag_logits, votes.embeddings)):
        hint = "Use full precision (use_fp16=False, or `precision` float32)." if half else ""
        raise BackendError(f"the network's answer in {where} holds NaN or infinity", hint)
    return votes


def joined(parts: list[Votes]) -> Votes:
    """The votes of batches that were taken one after the other."""
    names = ("logits", "tag_logits", "embeddings")
    return Votes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def processor_name() -> str:
    return platform.processor() or platform.machine()
