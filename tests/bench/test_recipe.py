"""The original's recipe, step by step against librosa, and by what must not change the answer."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from acoustic.network.architecture import Architecture
from acoustic.network.vit import MelViT
from bench import recipe
from tests import makers

RATE = recipe.RATE


@pytest.fixture(scope="module")
def network() -> MelViT:
    torch.manual_seed(0)
    return MelViT(Architecture(width=16, depth=1, n_heads=2, n_mels=recipe.SIDE, n_classes=5)).eval()


def song(path: Path, seconds: float, seed: int = 1) -> Path:
    soundfile.write(path, makers.music(seconds, RATE, 2, seed=seed), RATE)
    return path


def test_the_mel_is_librosas_within_0_and_1() -> None:
    samples = makers.music(3, RATE, 1, seed=4)[:, 0]
    mel = recipe.mel_of(samples)
    power = librosa.feature.melspectrogram(y=samples, sr=22_050, n_mels=40, n_fft=1_024, hop_length=256)
    db = librosa.power_to_db(power, ref=np.max)
    assert mel.shape == (40, 1 + len(samples) // 256)
    assert (mel.min(), mel.max()) == (0.0, 1.0)
    np.testing.assert_allclose(mel * (db.max() - db.min()) + db.min(), db, atol=1e-4)


def test_silence_is_no_division_by_zero() -> None:
    assert not recipe.mel_of(np.zeros(RATE, np.float32)).any()


@pytest.mark.parametrize("n", [1, 50, 223, 224, 225, 1_000])
def test_a_mel_is_repeated_or_cut_around_its_middle(n: int) -> None:
    mel = np.tile(np.arange(n, dtype=np.float32), (40, 1))
    fitted = recipe.fitted(mel)
    assert fitted.shape == (40, 224)
    before = (n - 224) // 2 if n >= 224 else 0
    np.testing.assert_array_equal(fitted[0], (np.arange(224) + before) % n)


def test_an_image_is_as_large_as_the_network_reads() -> None:
    image = recipe.image_of(makers.music(4, RATE, 1, seed=5)[:, 0])
    assert image.shape == (224, 224)
    assert image.dtype == torch.float32
    assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_the_middle_is_the_middle_30_s(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    n = 50 * RATE
    ramp = np.linspace(-0.9, 0.9, n, dtype=np.float32)
    soundfile.write(path, ramp, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(recipe.load_middle(path), ramp[10 * RATE : 40 * RATE])
    np.testing.assert_array_equal(recipe.load_whole(path), ramp)


def test_a_batch_of_the_faster_form_is_its_single_songs(tmp_path: Path, network: MelViT) -> None:
    paths = [song(tmp_path / f"{i}.wav", 2 + i / 4, seed=i) for i in range(9)]  # one more than a batch
    with recipe.OptimisedOriginal(network) as optimised:
        together, alone = optimised.many(paths), [optimised.one(path) for path in paths]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.sum(together, axis=1), 1.0, atol=1e-5)


def test_both_forms_say_the_same_of_a_song_that_both_hear_whole(tmp_path: Path, network: MelViT) -> None:
    path = song(tmp_path / "short.wav", 20)
    with recipe.OptimisedOriginal(network) as optimised:
        np.testing.assert_allclose(optimised.one(path), recipe.Original(network).one(path), atol=1e-6)
