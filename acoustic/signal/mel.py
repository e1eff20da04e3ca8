"""Segments -> mels: the log-mel spectrogram in dB, in numpy and scipy.fft.

The same numbers as librosa's `power_to_db(melspectrogram(...), top_db=...)` of each segment alone (ref 1.0, amin 1e-10,
Slaney-normalised triangles), to 2e-3 dB within the range that `top_db` leaves; differences are float32 summation order.
Two deliberate differences: the last of librosa's 225 frames is dropped, and the clamp is each segment's own, so no
segment depends on its neighbours in a batch.

The triangles are librosa's to the last bit, made here by its arithmetic (`librosa.filters.mel`, version 0.11; Slaney's
Auditory Toolbox, 1998): importing it for them would bring numba, 130 MB and a second. torch's STFT would bring torch,
180 MB and most of a second, into processes that need nothing else of it; numpy's own transform takes four times as long
as scipy's, which works on several frames in one instruction.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.fft

from ..records import N_FRAMES, MelSpec

AMIN = 1e-10  # power below which log10 is not taken: -100 dB
BLOCK_FRAMES = 128  # STFT frames at a time
# Slaney's mel scale: linear up to BREAK_HZ, logarithmic above, 27 mels for a factor of 6.4
HZ_A_MEL, BREAK_HZ, LOG_STEP = 200.0 / 3, 1_000.0, math.log(6.4) / 27.0


@lru_cache(maxsize=8)
def _filters(spec: MelSpec) -> np.ndarray:
    """Mel triangles, (n_mels, n_fft / 2 + 1) float32: each of area 1 over Hz, its feet at its neighbours' centres. A
    band between two bins of the STFT has no weight at all."""
    edges = _edges_hz(spec)
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    rises = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falls = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rises, falls)).astype(np.float32)
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles


def _edges_hz(spec: MelSpec) -> np.ndarray:
    """Feet and centres of the triangles: n_mels + 2 frequencies, evenly spaced in mel."""
    low, high = (_mel_of(hz, spec.mel_scale) for hz in (spec.fmin_hz, min(spec.fmax_hz, spec.sample_rate / 2)))
    mels = np.linspace(low, high, spec.n_mels + 2)
    if spec.mel_scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = BREAK_HZ * np.exp(LOG_STEP * (mels - BREAK_HZ / HZ_A_MEL))
    return np.where(mels >= BREAK_HZ / HZ_A_MEL, above, HZ_A_MEL * mels)


def _mel_of(hz: float, scale: str) -> float:
    if scale == "htk":
        return float(2595.0 * np.log10(1.0 + hz / 700.0))
    return hz / HZ_A_MEL if hz < BREAK_HZ else BREAK_HZ / HZ_A_MEL + float(np.log(hz / BREAK_HZ)) / LOG_STEP


@lru_cache(maxsize=8)
def _combs(spec: MelSpec) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
    """The triangles as two combs, the even ones and the odd ones: triangles of a comb do not overlap, so all their
    weights stand in one row (n_fft / 2 + 1,), beside where each begins and whether it has any bin at all."""
    filters = _filters(spec)
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    starts = np.searchsorted(bins, _edges_hz(spec)[:-2])
    combs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for first in (0, 1):
        teeth, at = filters[first::2], starts[first::2]
        combs.append((teeth.sum(axis=0), np.minimum(at, len(bins) - 1), np.asarray((teeth > 0).any(axis=1))))
    return tuple(combs)


def _banded(power: np.ndarray, spec: MelSpec) -> np.ndarray:
    """(frames, n_fft / 2 + 1) -> (n_mels, frames): what `_filters(spec) @ power.T` gives, without BLAS (see `levels`).

    It takes three quarters of the time, too.
    """
    mel = np.empty((spec.n_mels, len(power)), np.float32)
    for first, (weights, starts, filled) in enumerate(_combs(spec)):
        if len(starts):
            mel[first::2] = (np.add.reduceat(power * weights, starts, axis=1) * filled).T
    return mel


@lru_cache(maxsize=8)
def _window(n_fft: int) -> np.ndarray:
    """A periodic Hann window, as STFTs take it."""
    return np.hanning(n_fft + 1)[:-1].astype(np.float32)


def log_mel(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """(K, n) waveforms -> (K, n_mels, frames) float32 in dB.

    A segment (n = spec.n_samples) has exactly N_FRAMES; any other length all its centred frames, 1 + n // hop.
    """
    power = mel_power(np.asarray(samples, np.float32), spec)
    if samples.shape[-1] == spec.n_samples:
        power = power[..., :N_FRAMES]  # a segment's frame N_FRAMES is centred on its end: half of it is padding
    return power_to_db(power, spec.top_db)


def mel_power(x: np.ndarray, spec: MelSpec) -> np.ndarray:
    """(K, n) float32 -> (K, n_mels, 1 + n // hop) power; zero-padded at both ends, as librosa pads.

    Taken one by one, a stretch of BLOCK_FRAMES at a time: its spectra stay in the processor's cache.
    """
    window = _window(spec.n_fft)
    out = np.empty((len(x), spec.n_mels, 1 + x.shape[-1] // spec.hop_length), np.float32)
    for one, mel in zip(x, out, strict=True):
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(one, spec.n_fft // 2), spec.n_fft)[:: spec.hop_length]
        for at in range(0, len(frames), BLOCK_FRAMES):
            stft = scipy.fft.rfft(frames[at : at + BLOCK_FRAMES] * window, overwrite_x=True)
            squares = np.square(stft.view(np.float32))
            power = squares[:, ::2] + squares[:, 1::2]
            mel[:, at : at + BLOCK_FRAMES] = _banded(power, spec)
    return out


def power_to_db(power: np.ndarray, top_db: float) -> np.ndarray:
    """10 log10, floored at AMIN and at `top_db` below each item's own maximum over its last two axes."""
    db = 10.0 * np.log10(np.maximum(power, np.float32(AMIN)))
    return np.maximum(db, db.max(axis=(-2, -1), keepdims=True) - np.float32(top_db))


def normalize(mels: np.ndarray, spec: MelSpec) -> np.ndarray:
    """dB mels (K, n_mels, 224) -> the network's input, by `spec.normalization`; each segment by itself."""
    if spec.normalization == "mean":
        return (mels - mels.mean(axis=(-2, -1), keepdims=True)) / np.float32(spec.std_db)
    if spec.normalization == "minmax":
        low = mels.min(axis=(-2, -1), keepdims=True)
        return (mels - low) / np.maximum(mels.max(axis=(-2, -1), keepdims=True) - low, np.float32(1e-6))
    return (mels - np.float32(spec.mean_db)) / np.float32(spec.std_db)


def band_centres_hz(spec: MelSpec) -> np.ndarray:
    """Centre frequency of each mel band, (n_mels,), rising."""
    return _edges_hz(spec)[1:-1]
