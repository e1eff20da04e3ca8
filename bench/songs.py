"""Songs that a script makes, as long as real ones: chords, bass and a beat in stereo; the suffix says the format.

What is measured on them depends on their length, rate and format, not on how they sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

FORMATS = ("mp3", "flac", "wav", "ogg")
SECONDS, RATE = 180, 44_100


def made_song(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """(n, 2) float32 within [-1, 1] at RATE; the same for the same seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    beat = np.exp(-((t * 2.1) % 1.0) * 12)
    tone = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(60, 1500, 6)) / 12
    mono = tone * (0.5 + 0.5 * beat) + 0.1 * beat * rng.normal(0, 1, len(t))
    return np.stack([mono, np.roll(mono, 400)], axis=1).astype(np.float32) * 0.6


def write_song(path: Path, seed: int, seconds: float = SECONDS) -> Path:
    """A made song as a file; in blocks, because long Vorbis writes crash libsndfile."""
    stereo = made_song(seed, seconds)
    with soundfile.SoundFile(path, "w", RATE, 2) as out:
        for start in range(0, len(stereo), RATE):
            out.write(stereo[start : start + RATE])
    return path


def write_songs(folder: Path, n: int, formats: Sequence[str], seconds: float = SECONDS) -> list[Path]:
    """`n` different songs in `folder`, their formats in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_song(folder / f"{i}.{formats[i % len(formats)]}", i, seconds) for i in range(n)]
