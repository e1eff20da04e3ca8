"""Segments -> mels: the log-mel spectrogram in dB, batched in torch.

The same numbers as librosa's `power_to_db(melspectrogram(...), top_db=...)` of each segment alone (ref 1.0, amin 1e-10,
Slaney-normalised triangles), to 2e-3 dB within the range that `top_db` leaves; differences are float32 summation order.
Two deliberate differences: the last of librosa's 225 frames is dropped, and the clamp is each segment's own, so no
segment depends on its neighbours in a batch.

The triangles are librosa's to the last bit, made here by its arithmetic (`librosa.filters.mel`, version 0.11; Slaney's
Auditory Toolbox, 1998): importing it for them would bring numba and scipy, 130 MB and a second.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..records import N_FRAMES, MelSpec

AMIN = 1e-10  # power below which log10 is not taken: -100 dB
# Slaney's mel scale: linear up to BREAK_HZ, logarithmic above, 27 mels for a factor of 6.4
HZ_A_MEL, BREAK_HZ, LOG_STEP = 200.0 / 3, 1_000.0, math.log(6.4) / 27.0


@lru_cache(maxsize=8)
def _filters(spec: MelSpec) -> Tensor:
    """Mel triangles, (n_mels, n_fft / 2 + 1) float32: each of area 1 over Hz, its feet at its neighbours' centres. A
    band between two bins of the STFT has no weight at all."""
    edges = _edges_hz(spec)
    bins = np.fft.rfftfreq(spec.n_fft, 1.0 / spec.sample_rate)
    rises = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falls = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rises, falls)).astype(np.float32)
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles)


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
def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft)


def log_mel(samples: Tensor | np.ndarray, spec: MelSpec) -> Tensor:
    """(K, n) waveforms -> (K, n_mels, frames) float32 in dB.

    A segment (n = spec.n_samples) has exactly N_FRAMES; any other length all its centred frames, 1 + n // hop.
    """
    x = torch.as_tensor(samples, dtype=torch.float32)
    power = mel_power(x, spec)
    if x.shape[-1] == spec.n_samples:
        power = power[..., :N_FRAMES]  # a segment's frame N_FRAMES is centred on its end: half of it is padding
    return power_to_db(power, spec.top_db)


def mel_power(x: Tensor, spec: MelSpec) -> Tensor:
    """(K, n) float32 -> (K, n_mels, 1 + n // hop) power; zero-padded at both ends, as librosa pads.

    On a CPU the segments are taken one by one: the spectra of one stay in its cache, those of all do not, which takes
    longer (eight on one thread: 1.4 times) and K times the memory.
    """
    if x.device.type == "cpu" and len(x) > 1:
        return torch.stack([_mel_power(one, spec) for one in x])
    return _mel_power(x, spec)


def _mel_power(x: Tensor, spec: MelSpec) -> Tensor:
    stft = torch.stft(
        x,
        spec.n_fft,
        spec.hop_length,
        window=_window(spec.n_fft).to(x.device),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    squares = torch.view_as_real(stft).square_()  # in place: all of it takes a tenth less than by real and imag
    power = squares[..., 0] + squares[..., 1]
    return _filters(spec).to(x.device) @ power


def power_to_db(power: Tensor, top_db: float) -> Tensor:
    """10 log10, floored at AMIN and at `top_db` below each item's own maximum over its last two axes."""
    db = 10.0 * torch.log10(power.clamp_min(AMIN))
    return torch.maximum(db, db.amax(dim=(-2, -1), keepdim=True) - top_db)


def normalize(mels: Tensor, spec: MelSpec) -> Tensor:
    """dB mels (K, n_mels, 224) -> the network's input, by `spec.normalization`; each segment by itself."""
    if spec.normalization == "mean":
        return (mels - mels.mean(dim=(-2, -1), keepdim=True)) / spec.std_db
    if spec.normalization == "minmax":
        low = mels.amin(dim=(-2, -1), keepdim=True)
        return (mels - low) / (mels.amax(dim=(-2, -1), keepdim=True) - low).clamp_min(1e-6)
    return (mels - spec.mean_db) / spec.std_db


def band_centres_hz(spec: MelSpec) -> np.ndarray:
    """Centre frequency of each mel band, (n_mels,), rising."""
    return _edges_hz(spec)[1:-1]
