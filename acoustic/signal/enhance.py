"""Optional repairs of a waveform before its mel: denoise (spectral subtraction) and compress (dynamic range).

Both take and give float32 of shape (n,) or (K, n), length kept; every row by itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SettingsError

if TYPE_CHECKING:  # imported where it is used: most runs repair nothing, and then need no torch
    from torch import Tensor

FRAME_S = 0.046
"""Length of denoise's STFT frame, rounded to a power of two: 1,024 samples at 22,050 Hz; the hop is a quarter."""
DIGITAL_SILENCE = 1e-10
"""Mean square (-100 dBFS) below which a frame says nothing about the noise of a recording: it was put there later."""


def denoise(
    samples: np.ndarray,
    sample_rate: int,
    *,
    over_subtraction: float = 0.5,
    floor: float = 0.01,
    noise_s: float = 1.0,
    noise_start_s: float | None = None,
) -> np.ndarray:
    """Subtract a stationary noise's power from each STFT bin: max(P - over_subtraction * N, floor * P); phase kept.

    N, the noise's mean power at each frequency, is measured on the quietest frames that total `noise_s` seconds, or on
    the stretch from `noise_start_s` on. Spectral subtraction after Boll (1979), with the over-subtraction and the floor
    of Berouti, Schwartz & Makhoul (1979); unlike theirs, the floor is a share of the bin's own power, not of the
    noise's, so it bounds the attenuation (0.01: at most 20 dB). White noise falls by 2.2 dB with the defaults.

    With over_subtraction = 0 the samples come back to float32 rounding. Samples shorter than a frame come back as they
    are. Raises SettingsError for a parameter out of range or a stretch that is not inside the samples.
    """
    import torch

    n = samples.shape[-1]
    _check(over_subtraction >= 0, f"over_subtraction = {over_subtraction} must be at least 0")
    _check(0 <= floor <= 1, f"floor = {floor} must be from 0 to 1")
    _check(noise_s > 0, f"noise_s = {noise_s} s must be positive")
    if noise_start_s is not None:
        inside = noise_start_s >= 0 and (noise_start_s + noise_s) * sample_rate <= n + 1
        _check(
            inside,
            f"the noise stretch {noise_start_s} + {noise_s} s is not inside the {n / sample_rate:.3f} s of audio",
        )

    n_fft = 2 ** round(math.log2(FRAME_S * sample_rate))
    if n < n_fft:
        return samples.astype(np.float32)
    x = torch.from_numpy(np.atleast_2d(samples).astype(np.float32))
    hop = n_fft // 4
    window = torch.hann_window(n_fft)
    stft = torch.stft(x, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    power = stft.real.square() + stft.imag.square()

    whole = slice(2, 2 + 1 + (n - n_fft) // hop)  # frames without padding: theirs is the recording's own level
    if noise_start_s is None:
        noise = _quietest(power[..., whole], max(1, round(noise_s * sample_rate / hop)), window)
    else:
        noise = _stretch(power[..., whole], noise_start_s * sample_rate / hop, noise_s * sample_rate / hop)
    gain = (1.0 - over_subtraction * noise / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp_min(floor).sqrt()
    y = torch.istft(stft * gain, n_fft, hop, window=window, center=True, length=n)
    return y.numpy().reshape(samples.shape)


def _quietest(power: Tensor, n_frames: int, window: Tensor) -> Tensor:
    """(K, bins, frames) -> (K, bins, 1): mean power of each row's quietest frames that are not digital silence."""
    import torch

    energy = power.sum(dim=1)
    # Parseval, for the half spectrum: a frame's sum is half its length times its windowed energy
    digital_silence = energy < DIGITAL_SILENCE * len(window) / 2 * window.square().sum()
    rank = energy.masked_fill(digital_silence, torch.inf).argsort(dim=-1).argsort(dim=-1)
    chosen = ((rank < n_frames) & ~digital_silence).to(power.dtype)
    return torch.einsum("kbf,kf->kb", power, chosen).unsqueeze(-1) / chosen.sum(-1).clamp_min(1.0)[:, None, None]


def _stretch(power: Tensor, start: float, length: float) -> Tensor:
    """(K, bins, frames) -> (K, bins, 1): mean power of the frames wholly in a stretch (in hops), or of one."""
    first = min(math.ceil(start), power.shape[-1] - 1)
    last = max(first, math.floor(start + length - 4))  # a frame is four hops long
    return power[..., first : last + 1].mean(dim=-1, keepdim=True)


def compress(
    samples: np.ndarray,
    sample_rate: int,
    *,
    threshold_db: float = -20.0,
    ratio: float = 4.0,
    attack_s: float = 0.005,
    release_s: float = 0.2,
) -> np.ndarray:
    """Dynamic-range compressor: a steady level L dBFS above the threshold T comes out at T + (L - T) / ratio.

    The level is the peak envelope: a sine of amplitude 1 is 0 dBFS. No knee, no make-up gain. The envelope rises at
    once and falls with the time constant `release_s` (8.7 dB in that time); the gain follows it with the time constant
    `attack_s`: the decoupled detector of Giannoulis, Massberg & Reiss (2012), eq. 16, its second half moved to the gain
    in dB. So a steady tone is compressed by at most 4.3 dB * (1 - 1 / ratio) * half a period / release_s less than the
    static curve says (0.02 dB at 440 Hz). What never exceeds the threshold comes back bit by bit.

    Raises SettingsError for a ratio below 1, a threshold above 0 dBFS or a time that is not positive.
    """
    # imported here: it costs a third of a second, and most runs do not compress
    from scipy.signal import lfilter

    _check(ratio >= 1, f"ratio = {ratio} must be at least 1")
    _check(threshold_db <= 0, f"threshold_db = {threshold_db} dBFS must be at most 0")
    _check(attack_s > 0 and release_s > 0, f"attack_s = {attack_s}, release_s = {release_s}: both must be positive")

    with np.errstate(divide="ignore"):
        level_db = 20.0 * np.log10(np.abs(samples.astype(np.float64)))
    # y[i] = max(x[i], y[i-1] - fall) is a running maximum once every sample is raised by what it will have fallen since
    fallen_db = np.arange(samples.shape[-1]) * (20.0 / math.log(10.0) / (release_s * sample_rate))
    envelope_db = np.maximum.accumulate(level_db + fallen_db, axis=-1) - fallen_db
    reduction_db = np.maximum(0.0, envelope_db - threshold_db) * (1.0 - 1.0 / ratio)
    keep = math.exp(-1.0 / (attack_s * sample_rate))
    reduction_db = lfilter([1.0 - keep], [1.0, -keep], reduction_db, axis=-1)
    return (samples * 10.0 ** (reduction_db / -20.0)).astype(np.float32)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise SettingsError(message)
