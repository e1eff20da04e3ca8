"""Augmentations by physics: levels, powers and places are what the names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.records import N_FRAMES, MelSpec
from acoustic.signal.mel import band_centres_hz
from acoustic.training import augment
from acoustic.training.config import AugmentSpec

SPEC = MelSpec(n_mels=32)
OFF = AugmentSpec(
    mixup_p=0, noise_p=0, speed_p=0, floor_p=0, tilt_p=0, low_pass_p=0, high_pass_p=0, time_masks=0, frequency_masks=0
)


def some_mel(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-60, 0, (32, N_FRAMES)).astype(np.float32))


@given(st.floats(-10, 40), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_noise_is_mixed_at_the_stated_ratio(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    music, noise = rng.normal(0, 0.1, 5000).astype(np.float32), rng.normal(0, 0.7, 1700).astype(np.float32)
    added = augment.add_noise(music, noise, snr_db) - music
    assert 10 * np.log10(np.mean(music**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.05)


def test_noise_on_silence_and_silent_noise_change_nothing() -> None:
    silence, noise = np.zeros(100, np.float32), np.ones(10, np.float32)
    assert not augment.add_noise(silence, noise, 0).any()
    assert (augment.add_noise(np.ones(100, np.float32), np.zeros(10, np.float32), 0) == 1).all()


def test_speed_moves_a_tone_by_its_factor() -> None:
    rate, hz, factor = 22_050, 1_000.0, 1.08
    tone = np.sin(2 * np.pi * hz * np.arange(2 * rate) / rate).astype(np.float32)
    fast = augment.speed(tone, factor, rate)
    peak = np.abs(np.fft.rfft(fast * np.hanning(len(fast)))).argmax() * rate / len(fast)
    assert peak == pytest.approx(hz * factor, abs=2)


def test_mixup_adds_powers() -> None:
    a, b = torch.full((2, 3), 0.0), torch.full((2, 3), 10.0)
    mixed = augment.mix_power(a, b, 0.5)
    assert mixed[0, 0].item() == pytest.approx(10 * np.log10(0.5 * 1 + 0.5 * 10), abs=1e-4)
    assert torch.allclose(augment.mix_power(a, b, 1.0), a, atol=1e-4)


def test_everything_switched_off_changes_nothing() -> None:
    mel = some_mel()
    rng = np.random.default_rng(0)
    assert torch.equal(augment.color(mel, SPEC, OFF, rng), mel)
    assert torch.equal(augment.mask(mel, OFF, rng), mel)


def test_low_pass_takes_the_high_bands_only() -> None:
    spec = dataclasses.replace(OFF, low_pass_p=1.0, low_pass_hz=(3_000.0, 3_000.1))
    mel = some_mel() + 60  # well above the range limit, so that what is gone can be seen
    cut = augment.color(mel, SPEC, spec, np.random.default_rng(0))
    low = torch.from_numpy(band_centres_hz(SPEC) < 2_999)
    assert torch.equal(cut[low], mel[low])
    assert (cut[~low] < mel[~low] - 15).any()


def test_masks_cover_at_most_what_they_may() -> None:
    spec = dataclasses.replace(OFF, time_masks=1, time_mask_frames=20, frequency_masks=1, frequency_mask_bands=4)
    for seed in range(20):
        mel = some_mel(seed) - 1
        out = augment.mask(mel, spec, np.random.default_rng(seed))
        gone = out == 0
        assert gone.all(dim=0).sum() <= 20
        assert gone.all(dim=1).sum() <= 4
        assert torch.equal(out[~gone], mel[~gone])


def test_the_same_seed_gives_the_same_augmentation() -> None:
    spec = AugmentSpec()
    a, b = (augment.color(some_mel(), SPEC, spec, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(a, b)
