"""Augmentations of a training crop: on the waveform where physics asks for it, on the mel where that is enough.

Everything is drawn from one numpy Generator, so a step's samples depend on the seed and the step's number alone.
"""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

from ..records import N_FRAMES, MelSpec
from ..signal.mel import band_centres_hz
from .config import AugmentSpec


def speed(samples: np.ndarray, factor: float, n: int) -> np.ndarray:
    """`samples` played `factor` times as fast (pitch and tempo together), first n samples; needs n * factor of them."""
    return soxr.resample(samples, factor, 1.0, quality="QQ")[:n]


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`samples` + `noise` (tiled or cut to length), scaled so that the power ratio is `snr_db`; silence stays
    silence.
    """
    noise = np.resize(noise, samples.shape)
    power, noise_power = float(np.mean(samples**2)), float(np.mean(noise**2))
    if power <= 0 or noise_power <= 0:
        return samples
    return samples + noise * np.float32(np.sqrt(power / noise_power * 10 ** (-snr_db / 10)))


def mix_power(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Mixup in the power domain of two dB mels: `share` of the first one's power, the rest of the second's."""
    return 10 * torch.log10(share * 10 ** (first / 10) + (1 - share) * 10 ** (second / 10) + 1e-10)


def color(mel: Tensor, spec: MelSpec, augment: AugmentSpec, rng: np.random.Generator) -> Tensor:
    """What another record, microphone or codec would do to a dB mel (n_mels, 224): equaliser tilt, low and high cut,
    and a floor of steady noise, which also fills the holes that codecs of few bits leave."""
    n_mels = mel.shape[0]
    loudest = float(mel.max())
    if rng.random() < augment.tilt_p:
        knots = rng.normal(0, augment.tilt_db / 2, 5)
        curve = np.interp(np.linspace(0, 4, n_mels), np.arange(5), knots)
        mel = mel + torch.from_numpy(curve.astype(np.float32))[:, None]
    hz = band_centres_hz(spec)
    gone = np.zeros(n_mels, bool)
    if rng.random() < augment.low_pass_p:
        gone |= hz > np.exp(rng.uniform(*np.log(augment.low_pass_hz)))
    if rng.random() < augment.high_pass_p:
        gone |= hz < np.exp(rng.uniform(*np.log(augment.high_pass_hz)))
    if gone.any():
        mel = torch.where(torch.from_numpy(gone)[:, None], mel - 60.0, mel)
    if rng.random() < augment.floor_p:
        floor = loudest + rng.uniform(*augment.floor_db) + rng.normal(0, 1.5, mel.shape)
        mel = torch.maximum(mel, torch.from_numpy(floor.astype(np.float32)))
    return torch.maximum(mel, mel.max() - spec.top_db)


def mask(normalized: Tensor, augment: AugmentSpec, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al., 2019) on a normalised mel: bands of time and frequency set to 0, which is its mean."""
    out = normalized.clone()
    for _ in range(augment.time_masks):
        width = int(rng.integers(0, augment.time_mask_frames + 1))
        start = int(rng.integers(0, N_FRAMES - width + 1))
        out[:, start : start + width] = 0
    for _ in range(augment.frequency_masks):
        width = int(rng.integers(0, augment.frequency_mask_bands + 1))
        start = int(rng.integers(0, out.shape[0] - width + 1))
        out[start : start + width] = 0
    return out
