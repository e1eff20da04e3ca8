"""Made signals by their physics, and the music score by what it must tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import find_peaks

from acoustic.records import Calibration
from acoustic.training.not_music import DURATION_S, EACH, MUSIC_KEPT, fit_music_score, not_music_signals
from acoustic.verdict.uncertainty import music_score

RATE = 8_000
TAGS = ("Music", "Speech", "Guitar", "Hum", "Rain")


def signals() -> dict[str, list[np.ndarray]]:
    by_kind: dict[str, list[np.ndarray]] = {}
    for kind, samples in not_music_signals(RATE):
        by_kind.setdefault(kind, []).append(samples)
    return by_kind


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Power a hertz and more apart, as shares of the whole."""
    power = np.square(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))))
    return power / power.sum()


def test_every_kind_is_made_as_often_and_the_same_at_every_call() -> None:
    made = signals()
    assert len(made) == 10
    for kind, again in signals().items():
        assert len(again) == EACH
        for a, b in zip(made[kind], again, strict=True):
            assert (a.dtype, a.shape) == (np.float32, (round(DURATION_S * RATE),))
            assert np.abs(a).max() <= 1.0
            np.testing.assert_array_equal(a, b)
    other = next(samples for kind, samples in not_music_signals(RATE, seed=1) if kind == "sine")
    assert not np.array_equal(other, made["sine"][0])


def test_signals_are_what_they_are_called() -> None:
    made = signals()
    hz = np.fft.rfftfreq(round(DURATION_S * RATE), 1 / RATE)
    assert np.abs(made["silence"][0]).max() == 0.0
    assert all(np.std(samples) < 10 ** (-60 / 20) for samples in made["silence"])
    for samples in made["sine"]:
        peak = spectrum(samples).argmax()
        assert spectrum(samples)[max(0, peak - 3) : peak + 4].sum() > 0.999
    for samples in made["hum"]:
        peaks = hz[find_peaks(spectrum(samples), height=1e-3, distance=20)[0]]
        mains = min((50, 60), key=lambda f: np.abs(peaks / f - np.round(peaks / f)).max())
        np.testing.assert_allclose(peaks / mains, np.round(peaks / mains), atol=0.08)
    for samples in made["white noise"]:
        low, high = np.array_split(spectrum(samples)[1:], 2)
        assert 0.9 < low.sum() / high.sum() < 1.1
    for samples in made["pink noise"]:
        low, high = (spectrum(samples)[(hz > f) & (hz < 2 * f)].mean() for f in (100, 1_600))
        assert 16**0.7 < low / high < 16**2.2  # four octaves at 1 / f^0.8 to 1 / f^2
    for kind in ("clicks", "beeps"):
        assert all(np.median(np.abs(samples)) < 0.5 * np.abs(samples).max() for samples in made[kind])


def votes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean tag logits of n tracks, half of them music: "Music" and "Guitar" tell, the others are noise."""
    rng = np.random.default_rng(seed)
    is_music = np.arange(n) % 2 == 0
    x = rng.normal(0, 1, (n, len(TAGS))) * [1, 3, 1, 2, 4] + [0, -3, 0, 5, -8]
    x[:, 0] += np.where(is_music, 2.5, -2.5)
    x[:, 2] += np.where(is_music, 2.0, -2.0)
    return x, is_music


def test_the_score_tells_music_it_never_heard_and_names_the_tags_that_count() -> None:
    x, is_music = votes(300)
    weights, bias, threshold = fit_music_score(x, is_music, TAGS)
    assert {tag for tag, weight in weights if weight > 0.05} == {"Music", "Guitar"}
    calibration = Calibration(music_weights=weights, music_bias=bias, music_threshold=threshold)
    scores = np.asarray([music_score(row[None], TAGS, calibration) for row in x])
    assert np.mean(scores[is_music] >= threshold) >= MUSIC_KEPT
    unheard, is_music = votes(2_000, seed=1)
    passed = np.asarray([music_score(row[None], TAGS, calibration) for row in unheard]) >= threshold
    assert passed[is_music].mean() > 0.95
    assert passed[~is_music].mean() < 0.05


def test_how_many_others_there_are_does_not_move_the_score_much() -> None:
    x, is_music = votes(400)
    few = np.concatenate([np.nonzero(is_music)[0], np.nonzero(~is_music)[0][:40]])
    by = [dict(fit_music_score(x[rows], is_music[rows], TAGS)[0]) for rows in (np.arange(400), few)]
    assert by[0]["Music"] == pytest.approx(by[1]["Music"], rel=0.4)


@pytest.mark.parametrize("case", ["only music", "no music", "no tags", "nothing tells"])
def test_without_what_it_needs_there_is_no_score(case: str) -> None:
    x, is_music = votes(60)
    tags: tuple[str, ...] = TAGS
    if case == "only music":
        is_music = np.ones(60, dtype=bool)
    elif case == "no music":
        is_music = np.zeros(60, dtype=bool)
    elif case == "no tags":
        x, tags = x[:, :0], ()
    else:
        x = np.ones_like(x)
    assert fit_music_score(x, is_music, tags) == ((), 0.0, 0.5)
