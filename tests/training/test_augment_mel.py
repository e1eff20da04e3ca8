"""Augmentations of the mel: levels, powers and places are what the names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.records import N_FRAMES, MelSpec
from acoustic.signal.mel import band_centres_hz
from acoustic.training import augment_mel
from acoustic.training.config import AugmentSpec

SPEC = MelSpec(n_mels=32)
OFF = AugmentSpec(
    mixup_p=0, noise_p=0, speed_p=0, floor_p=0, tilt_p=0, low_pass_p=0, high_pass_p=0, time_masks=0, frequency_masks=0
)


def some_mel(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-60, 0, (32, N_FRAMES)).astype(np.float32))


def test_mixup_adds_powers() -> None:
    a, b = torch.full((2, 3), 0.0), torch.full((2, 3), 10.0)
    mixed = augment_mel.mix_power(a, b, 0.5)
    assert mixed[0, 0].item() == pytest.approx(10 * np.log10(0.5 * 1 + 0.5 * 10), abs=1e-4)
    assert torch.allclose(augment_mel.mix_power(a, b, 1.0), a, atol=1e-4)


def test_the_loudest_bin_comes_to_zero() -> None:
    mel = some_mel() - 17
    assert augment_mel.level(mel).max() == 0
    assert torch.allclose(augment_mel.level(mel) - augment_mel.level(mel + 30), torch.zeros(()), atol=1e-4)


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_cut_keeps_its_share_in_one_piece(share: float, seed: int) -> None:
    """Every frame is whole and of one crop; the other's are side by side; the share returned is the share of frames."""
    first, second = torch.zeros(4, N_FRAMES), torch.ones(4, N_FRAMES)
    mel, kept = augment_mel.cut_in(first, second, share, np.random.default_rng(seed))
    other = mel[0].numpy()
    assert (mel == mel[:1]).all()
    assert kept == pytest.approx(1 - other.mean(), abs=1e-6)
    assert abs(kept - share) <= 0.5 / N_FRAMES + 1e-9
    assert (np.diff(other) != 0).sum() <= 2
    assert not first.any()


def test_a_roll_moves_frames_and_loses_none() -> None:
    spec = dataclasses.replace(OFF, roll_p=1.0)
    mel = some_mel()
    moved = [augment_mel.roll(mel, spec, np.random.default_rng(seed)) for seed in range(8)]
    for one in moved:
        shift = int((one[:, :1] == mel).all(dim=0).nonzero()[0])
        assert torch.equal(one, torch.cat([mel[:, shift:], mel[:, :shift]], dim=1))
    assert len({float(one[0, 0]) for one in moved}) > 4
    assert augment_mel.roll(mel, OFF, np.random.default_rng(0)) is mel


def test_everything_switched_off_changes_nothing() -> None:
    mel = some_mel()
    rng = np.random.default_rng(0)
    assert torch.equal(augment_mel.color(mel, SPEC, OFF, rng), mel)
    assert torch.equal(augment_mel.mask(mel, OFF, rng), mel)


def test_low_pass_takes_the_high_bands_only() -> None:
    spec = dataclasses.replace(OFF, low_pass_p=1.0, low_pass_hz=(3_000.0, 3_000.1))
    mel = some_mel() + 60  # well above the range limit, so that what is gone can be seen
    cut = augment_mel.color(mel, SPEC, spec, np.random.default_rng(0))
    low = torch.from_numpy(band_centres_hz(SPEC) < 2_999)
    assert torch.equal(cut[low], mel[low])
    assert (cut[~low] < mel[~low] - 15).any()


def test_masks_cover_at_most_what_they_may() -> None:
    spec = dataclasses.replace(OFF, time_masks=1, time_mask_frames=20, frequency_masks=1, frequency_mask_bands=4)
    for seed in range(20):
        mel = some_mel(seed) - 1
        out = augment_mel.mask(mel, spec, np.random.default_rng(seed))
        gone = out == 0
        assert gone.all(dim=0).sum() <= 20
        assert gone.all(dim=1).sum() <= 4
        assert torch.equal(out[~gone], mel[~gone])


def test_the_same_seed_gives_the_same_augmentation() -> None:
    spec = AugmentSpec()
    a, b = (augment_mel.color(some_mel(), SPEC, spec, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(a, b)
