"""Blends: new music for the teachers to answer, made of the songs that there are.

A student that is shown the same songs over and over learns them by heart. A teacher, asked about two of them at once
or about one at another speed, says something new, and what is true of a network's answers is true of any input (Beyer
et al., "Knowledge distillation: A good teacher is patient and consistent", 2022). Asked once and kept, blends cost a
run nothing while it trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .augment import fit, speed
from .config import BlendSpec, TrainConfig
from .targets import WaveformStore, keep_waveforms, stamp

PEAK = 0.98


def blend_waveforms(
    config: TrainConfig,
    store: WaveformStore,
    tracks: Sequence[int],
    folder: Path,
    report: Callable[[str, int, int], None],
) -> WaveformStore:
    """`config.blends.n` blends of the songs `tracks` of `store`, made once and kept in `folder` for these songs, this
    seed and this way of blending."""
    spec, rate = config.blends, store.sample_rate

    def made() -> Iterator[np.ndarray]:
        for i in range(spec.n):
            report("blend", i, spec.n)
            yield blend(spec, store, tracks, np.random.default_rng((config.seed, i)))

    how = {k: v for k, v in dataclasses.asdict(spec).items() if k != "share"}  # how often it is drawn changes no blend
    made_of = stamp(store.stamp, [int(t) for t in tracks], config.seed, how)
    return keep_waveforms([f"blend {i}" for i in range(spec.n)], made(), folder, rate, made_of)


def blend(spec: BlendSpec, store: WaveformStore, tracks: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """One blend, (n,) float32 of at most PEAK: a song, and with the chance `partner_p` another below it."""
    n = round(spec.seconds * store.sample_rate)
    first, second = rng.choice(np.asarray(tracks), 2, replace=len(tracks) < 2)
    mixed = _level(_part(spec, store, int(first), n, rng))
    level_db = float(rng.uniform(*spec.level_db))
    if rng.random() < spec.partner_p:
        mixed = mixed + 10 ** (level_db / 20) * _level(_part(spec, store, int(second), n, rng))
    return (mixed * (PEAK / max(float(np.abs(mixed).max()), 1e-9))).astype(np.float32)


def _part(spec: BlendSpec, store: WaveformStore, track: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` samples from anywhere in a track, at another speed; a short track is repeated."""
    factor = float(np.exp(rng.uniform(*np.log(spec.speed_range))))
    n_source = int(np.ceil(n * factor)) + 64
    start = int(rng.integers(0, max(0, store.length(track) - n_source) + 1))
    return fit(speed(store.read(track, start, n_source), factor, "HQ"), n)


def _level(samples: np.ndarray) -> np.ndarray:
    """At a root mean square of 1; silence stays silent."""
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    return samples / rms if rms > 1e-6 else samples
