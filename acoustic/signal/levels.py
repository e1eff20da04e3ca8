"""What is measured on decoded blocks: how the channels hang together, levels, full scale, and that they are numbers.

Blocks are float32 (m, C): m frames of C channels.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import CorruptAudioError, NonFiniteError

CANCELLED_DB = 10.0  # uncorrelated channels lose nothing against the aligned sum; an inverted pair loses all
FULL_SCALE = 0.9999  # three steps of 16 bits below 1
MAX_ABS = 1e6  # integer samples stored as floats reach 2^15; beyond a million it is no waveform
BLAS_VALUES = 8_192  # so many values OpenBLAS multiplies on the calling thread


class Levels:
    """Running measurements of what was read: spread around a constant, and samples at full scale."""

    def __init__(self) -> None:
        self.n_samples = 0
        self._offset: float | None = None  # subtracted first, so that a constant gives exactly 0
        self._sum = self._squares = 0.0
        self._clipped = self._values = 0

    def add(self, block: np.ndarray, mono: np.ndarray) -> None:
        """A block (m, n_channels) and its downmix (m,)."""
        if self._offset is None:
            self._offset = float(mono[0])
        centred = mono - np.float32(self._offset)
        self.n_samples += len(mono)
        self._sum += float(centred.sum(dtype=np.float64))
        self._squares += energy(centred)
        self._values += block.size
        if max(float(block.max()), -float(block.min())) >= FULL_SCALE:
            hot = np.abs(block) >= FULL_SCALE
            self._clipped += int(np.count_nonzero(hot[1:] & hot[:-1]))

    def join(self, other: Levels) -> None:
        """What another read of the same track measured, as if it had been read here."""
        if other._offset is None:
            return
        if self._offset is None:
            self._offset = other._offset
        moved = other._offset - self._offset
        self.n_samples += other.n_samples
        self._sum += other._sum + other.n_samples * moved
        self._squares += other._squares + 2 * moved * other._sum + other.n_samples * moved * moved
        self._clipped += other._clipped
        self._values += other._values

    def rms(self) -> float:
        mean = self._sum / self.n_samples
        return math.sqrt(max(0.0, self._squares / self.n_samples - mean * mean))

    def clipped_share(self) -> float:
        return self._clipped / self._values if self._values else 0.0


# For more values OpenBLAS wakes a thread on every core, and these go on spinning for 20 ms after a product that took
# 0.1 ms: on two cores a second reader or the network took twice as long. So products are taken in pieces.


def energy(x: np.ndarray) -> float:
    """The sum of the squares of (n,) float32."""
    return sum(float(np.dot(part, part)) for part in (x[i : i + BLAS_VALUES] for i in range(0, len(x), BLAS_VALUES)))


def downmix(block: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(m, C) and (C,), float32 -> (m,)."""
    if len(weights) == 1:
        return block[:, 0]
    mono = np.empty(len(block), np.float32)
    n = max(1, BLAS_VALUES // len(weights))
    for at in range(0, len(block), n):
        mono[at : at + n] = block[at : at + n] @ weights
    return mono


def mix_weights(covariance: np.ndarray) -> np.ndarray:
    """Weights (C,) of the downmix to mono, from the channels' covariance (C, C).

    The channels are averaged. Where that cancels them (one of a pair wired in opposite phase: the mean is more than
    CANCELLED_DB below what the aligned channels give) each channel first gets the sign of its correlation with the
    loudest one.
    """
    n_channels = len(covariance)
    mean = np.full(n_channels, 1 / n_channels)
    loudest = int(np.argmax(np.diag(covariance)))
    aligned = np.where(covariance[loudest] < 0, -1.0, 1.0) / n_channels
    cancels = mean @ covariance @ mean < 10 ** (-CANCELLED_DB / 10) * (aligned @ covariance @ aligned)
    return (aligned if cancels else mean).astype(np.float32)


def covariance_of(block: np.ndarray) -> np.ndarray:
    """Sum over a block (m, C) of the channels' products around their means, (C, C)."""
    centred = block - block.mean(axis=0, dtype=np.float64).astype(np.float32)
    return (centred.T @ centred).astype(np.float64)


def check_samples(block: np.ndarray) -> None:
    """Raises NonFiniteError or CorruptAudioError; numpy's max and min hand NaN on."""
    peak = max(abs(float(block.max())), abs(float(block.min()))) if block.size else 0.0
    if not math.isfinite(peak):
        n_bad = int(np.count_nonzero(~np.isfinite(block)))
        raise NonFiniteError(f"{n_bad:,} of {block.size:,} samples read are NaN or infinite")
    if peak > MAX_ABS:
        raise CorruptAudioError(f"samples reach {peak:.3g}, where full scale is 1: this is no waveform")
