"""Segments -> mels: the log-mel spectrogram in dB, batched in torch.

The same numbers as librosa's `power_to_db(melspectrogram(...), top_db=...)` of each segment alone (ref 1.0, amin 1e-10,
Slaney-normalised triangles), to 2e-3 dB within the range that `top_db` leaves; differences are float32 summation order.
Two deliberate differences: the last of librosa's 225 frames is dropped, and the clamp is each segment's own, so no
segment depends on its neighbours in a batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..records import N_FRAMES, MelSpec

AMIN = 1e-10  # power below which log10 is not taken: -100 dB


@lru_cache(maxsize=8)
def _filters(spec: MelSpec) -> Tensor:
    """Mel triangles, (n_mels, n_fft / 2 + 1)."""
    import librosa  # costs a second at first import, so not before it is needed

    return torch.from_numpy(
        librosa.filters.mel(
            sr=spec.sample_rate,
            n_fft=spec.n_fft,
            n_mels=spec.n_mels,
            fmin=spec.fmin_hz,
            fmax=min(spec.fmax_hz, spec.sample_rate / 2),
            htk=spec.mel_scale == "htk",
        )
    )


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
    """(K, n) float32 -> (K, n_mels, 1 + n // hop) power; zero-padded at both ends, as librosa pads."""
    stft = torch.stft(
        x,
        spec.n_fft,
        spec.hop_length,
        window=_window(spec.n_fft).to(x.device),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = stft.real.square() + stft.imag.square()
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
    import librosa

    fmax = min(spec.fmax_hz, spec.sample_rate / 2)
    edges = librosa.mel_frequencies(spec.n_mels + 2, fmin=spec.fmin_hz, fmax=fmax, htk=spec.mel_scale == "htk")
    return edges[1:-1]
