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
N_WAVE = 4_096
"""points of a made instrument's wave"""


def made_song(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """(n, 2) float32 within [-1, 1] at RATE; the same for the same seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    beat = np.exp(-((t * 2.1) % 1.0) * 12)
    tone = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(60, 1500, 6)) / 12
    mono = tone * (0.5 + 0.5 * beat) + 0.1 * beat * rng.normal(0, 1, len(t))
    return np.stack([mono, np.roll(mono, 400)], axis=1).astype(np.float32) * 0.6


def made_piece(seed: int, seconds: float) -> np.ndarray:
    """(n,) float32 within [-0.5, 0.5] at RATE, mono: notes of one instrument, with or without drums; the same for the
    same seed. Instrument, register, pace and drums differ more than made songs do, and so does what a model hears."""
    rng = np.random.default_rng(seed)
    note_s, lowest_hz = rng.choice([0.125, 0.25, 0.5, 1.0, 3.0]), rng.choice([55.0, 110.0, 220.0, 440.0])
    n_overtones, decay, drive = rng.integers(1, 8), rng.uniform(0.5, 8.0), rng.choice([0.0, 4.0, 20.0])
    t = np.arange(round(seconds * RATE)) / RATE
    since = t % note_s  # the start of the note
    steps = rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16], size=(2, int(seconds / note_s) + 1))
    turns = lowest_hz * 2 ** (steps / 12)[:, (t / note_s).astype(int)] * since
    wave = sum(np.sin(2 * np.pi * i * np.arange(N_WAVE) / N_WAVE) / i for i in range(1, n_overtones + 1))
    tone = np.asarray(wave)[(turns * N_WAVE).astype(int) % N_WAVE].sum(axis=0)
    tone *= np.exp(-decay * since) * np.minimum(1.0, since * 100)
    tone /= np.abs(tone).max()
    tone = np.tanh(drive * tone) if drive else tone
    tempo_hz, drums = rng.uniform(1.2, 3.0), rng.choice([0.0, 0.3, 1.0])
    tone += drums * 0.5 * np.exp(-((t * tempo_hz) % 1.0) * 15) * rng.normal(0, 1, len(t))
    tone += drums * np.exp(-((t * tempo_hz / 2) % 1.0) * 6) * np.sin(2 * np.pi * 55 * t)
    return (0.5 * tone / np.abs(tone).max()).astype(np.float32)


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


def write_pieces(folder: Path, n: int, seconds: float) -> list[Path]:
    """`n` different made pieces as WAV files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.wav" for i in range(n)]
    for seed, path in enumerate(paths):
        soundfile.write(path, made_piece(seed, seconds), RATE)
    return paths
