"""What is not music: made signals that a network may take for it, and the score that tells both apart.

The score is a logistic regression on the track's mean tag logits. An L1 penalty (Tibshirani, 1996) picks the tags and
keeps them few; "Music" and "Speech" alone let pure tones pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

DURATION_S = 12.0
EACH = 6
"""signals of each kind"""
MUSIC_KEPT = 0.98
"""share of held-out music that must stay above the music threshold"""
INVERSE_PENALTY = 0.05
"""scikit-learn's C for standardised tags. A weaker penalty finds more made signals and flags more music: at 0.05, 0.2
and 1 (five-fold, recordings by group, made signals one by one) 85, 84 and 92 % of 137 others, and 1.9, 2.3 and 5.4 % of
258 tracks of music; what it adds are kinds that it was fitted on."""


def not_music_signals(sample_rate: int, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, samples (n,) float32 in [-1, 1]) of EACH signals of every kind, DURATION_S long, drawn by `seed`.

    Silence (digital, and the hiss of a converter), steady tones, mains hum, sweeps, clicks, white and pink noise,
    beeps, raw oscillators and warbling alarms.
    """
    rng = np.random.default_rng(seed)
    n = round(DURATION_S * sample_rate)
    t = np.arange(n) / sample_rate
    top_hz = 0.4 * sample_rate
    for i in range(EACH):
        yield "silence", (rng.normal(0, 1, n) * (0.0 if i == 0 else 10 ** rng.uniform(-4.5, -3.2))).astype(np.float32)
        for kind, samples in (
            ("sine", np.sin(2 * np.pi * _between(rng, 60, top_hz) * t)),
            ("hum", _hum(rng, t)),
            ("sweep", _sweep(rng, t, _between(rng, 50, 500), _between(rng, 2_000, top_hz))),
            ("clicks", _clicks(rng, n, sample_rate)),
            ("white noise", rng.normal(0, 1, n)),
            ("pink noise", _coloured(rng, n)),
            (
                "beeps",
                np.sin(2 * np.pi * _between(rng, 400, 3_000) * t)
                * (t * rng.uniform(0.5, 4) % 1 < rng.uniform(0.1, 0.6)),
            ),
            ("oscillator", _oscillator(rng, t, square=i % 2 == 0)),
            ("alarm", _alarm(rng, t)),
        ):
            yield kind, (samples / np.abs(samples).max() * rng.uniform(0.1, 0.9)).astype(np.float32)


def fit_music_score(
    tag_means: np.ndarray, is_music: np.ndarray, tag_labels: Sequence[str]
) -> tuple[tuple[tuple[str, float], ...], float, float]:
    """(tag, weight) of the tags that count, bias, and the threshold that keeps MUSIC_KEPT of the music.

    `tag_means` (N, T) are the mean tag logits of N tracks, `is_music` (N,) says which of them are music; both kinds
    count alike, however many there are. No weights, and so no score, for a model without tags, without anything that is
    not music, or where no tag tells them apart.
    """
    y = np.asarray(is_music, dtype=bool)
    if not len(tag_labels) or y.all() or not y.any():
        return (), 0.0, 0.5
    mean, std = tag_means.mean(axis=0), np.maximum(tag_means.std(axis=0), 1e-6)
    z = (np.asarray(tag_means, dtype=np.float64) - mean) / std
    model = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=INVERSE_PENALTY, class_weight="balanced", random_state=0
    ).fit(z, y)
    weights = model.coef_[0] / std
    chosen = np.nonzero(weights)[0].tolist()
    if not chosen:
        return (), 0.0, 0.5
    bias = float(model.intercept_[0] - weights @ mean)
    music = np.sort(model.predict_proba(z[y])[:, 1])
    threshold = min(0.5, float(music[int((1 - MUSIC_KEPT) * len(music))]))
    return tuple((tag_labels[i], float(weights[i])) for i in chosen), bias, threshold


def _between(rng: np.random.Generator, low_hz: float, high_hz: float) -> float:
    """A frequency, as likely in any octave."""
    return float(np.exp(rng.uniform(np.log(low_hz), np.log(high_hz))))


def _hum(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Mains hum: 50 or 60 Hz and its harmonics over a little noise."""
    mains_hz = float(rng.choice([50.0, 60.0])) * rng.uniform(0.995, 1.005)
    falling = rng.uniform(0.3, 2.0)
    tones = (
        rng.uniform(0.3, 1) / k**falling * np.sin(2 * np.pi * mains_hz * k * t + rng.uniform(0, 2 * np.pi))
        for k in range(1, 13)
    )
    return np.sum(list(tones), axis=0) + rng.normal(0, 10 ** rng.uniform(-3, -1.2), len(t))


def _sweep(rng: np.random.Generator, t: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Logarithmic sweeps, up or down, once or again and again."""
    place = t / float(rng.choice([1.0, 2.0, 4.0, DURATION_S])) % 1
    hz = low_hz * (high_hz / low_hz) ** (place if rng.random() < 0.5 else 1 - place)
    return np.sin(2 * np.pi * np.cumsum(hz) * (t[1] - t[0]))


def _clicks(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """A regular train of short noise bursts, 1 to 20 a second."""
    burst = rng.choice([-1.0, 1.0], 200) * np.exp(-np.arange(200) / rng.uniform(0.5, 30))
    train = np.zeros(n)
    train[:: int(sample_rate / rng.uniform(1, 20))] = 1.0
    return np.convolve(train, burst)[:n]


def _coloured(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise whose power falls as 1 / f^a, a from 0.8 to 2: pink to brown."""
    spectrum = np.fft.rfft(rng.normal(0, 1, n))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** rng.uniform(0.4, 1.0)
    return np.fft.irfft(spectrum, n)


def _oscillator(rng: np.random.Generator, t: np.ndarray, square: bool) -> np.ndarray:
    """A held square or sawtooth wave, as a buzzer's or a machine's."""
    phase = _between(rng, 60, 400) * t % 1
    return np.sign(phase - 0.5) if square else 2 * phase - 1


def _alarm(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A tone whose pitch goes up and down."""
    depth, rate_hz = rng.uniform(1, 20), rng.uniform(0.3, 8)
    return np.sin(2 * np.pi * _between(rng, 100, 2_000) * t + depth * np.sin(2 * np.pi * rate_hz * t))
