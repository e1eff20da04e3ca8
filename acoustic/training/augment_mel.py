"""Augmentations of a crop's mel, where that is enough: two crops in one, time turned around, colour, gaps.

Everything is drawn from a numpy Generator that is handed in. Mels are in dB, shape (n_mels, 224).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..records import N_FRAMES, MelSpec
from ..signal.mel import band_centres_hz
from .config import AugmentSpec


def level(mel: Tensor) -> Tensor:
    """The mel with its loudest bin at 0 dB: of two crops put together the louder one would else always win."""
    return mel - mel.max()


def mix_power(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Mixup (Zhang et al., 2018) in the power domain: `share` of the first one's power, the rest of the second's."""
    return 10 * torch.log10(share * 10 ** (first / 10) + (1 - share) * 10 ** (second / 10) + 1e-10)


def cut_in(first: Tensor, second: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """CutMix (Yun et al., 2019) in time: one stretch of `first` is replaced by the same stretch of `second`, at a place
    that is drawn. Returns the mel and the share of frames that `first` has kept, `share` to the next frame."""
    width = round((1 - share) * N_FRAMES)
    start = int(rng.integers(0, N_FRAMES - width + 1))
    out = first.clone()
    out[:, start : start + width] = second[:, start : start + width]
    return out, 1 - width / N_FRAMES


def roll(mel: Tensor, augment: AugmentSpec, rng: np.random.Generator) -> Tensor:
    """The mel turned around in time by a number of frames that is drawn: what leaves at the end comes in at the
    start."""
    if rng.random() >= augment.roll_p:
        return mel
    return torch.roll(mel, int(rng.integers(N_FRAMES)), dims=1)


def color(mel: Tensor, spec: MelSpec, augment: AugmentSpec, rng: np.random.Generator) -> Tensor:
    """What another record, microphone or codec would do: equaliser tilt, low and high cut, and a floor of steady noise,
    which also fills the holes that codecs of few bits leave."""
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
