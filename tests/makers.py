"""Sounds and sound files for the tests: made here, deterministic, nothing from outside.

Shapes are (n,) for mono and (n, C) for C channels, float32. Files are written in blocks: libsndfile overflows its stack
when it is handed a minute of Vorbis at once.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

RATE = 44_100
BLOCK = 8_192


def sine(seconds: float, hz: float = 440.0, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def noise(seconds: float, rate: int = RATE, rms: float = 0.1, seed: int = 0) -> np.ndarray:
    return (rms * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def music(seconds: float, rate: int = RATE, n_channels: int = 2, seed: int = 0) -> np.ndarray:
    """Song-like: chords that change every second, a bass, drums at 120 BPM; no two seconds alike, so a slice that was
    taken at a wrong place shows. (n, n_channels), peak 0.7.
    """
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    out = np.zeros((n, n_channels))
    for second in range(int(np.ceil(seconds))):
        part = slice(second * rate, min(n, (second + 1) * rate))
        here = t[part]
        fade = np.minimum(1.0, np.minimum(here - second, second + 1 - here) * 50)
        root = 110.0 * 2 ** (rng.integers(0, 12) / 12)
        for ratio in (0.5, 1.0, 1.26, 1.5, 2.0, 4.0):
            pan = rng.uniform(0.3, 1.0, n_channels)
            tone = np.sin(2 * np.pi * root * ratio * here + rng.uniform(0, 6.3)) * fade / (1 + ratio)
            out[part] += tone[:, None] * pan
    beat = np.exp(-((t * 2) % 1) * 12)
    out += 0.3 * (beat * rng.standard_normal(n))[:, None]
    return (0.7 * out / np.abs(out).max()).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> Path:
    """Through libsndfile: WAV, RF64, W64, FLAC, OGG (subtype VORBIS or OPUS), MP3, AIFF, AU ..."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    with (
        open(path, "wb") as raw,
        soundfile.SoundFile(raw, "w", rate, samples.shape[1], format=format, subtype=subtype) as file,
    ):
        for start in range(0, len(samples), BLOCK):
            file.write(samples[start : start + BLOCK])
    return path


def has_encoder(codec: str) -> bool:
    try:
        return bool(av.Codec(codec, "w").name)
    except av.error.FFmpegError:
        return False


def write_av(
    path: Path,
    samples: np.ndarray,
    rate: int = RATE,
    container: str = "ipod",
    codec: str = "aac",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Through FFmpeg: M4A (ipod + aac or alac), WMA (asf + wmav2), WebM (webm + libopus) ..."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with open(path, "wb") as raw, av.open(raw, "w", format=container, container_options=container_options) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {"b": "128k"})
        stream.layout = layout
        resampler = av.AudioResampler(
            stream.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 1024
        )
        for start in range(0, len(samples), BLOCK):
            block = np.ascontiguousarray(samples[start : start + BLOCK].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for piece in resampler.resample(frame):
                out.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def _sf(format: str, subtype: str | None = None) -> Callable[[Path, np.ndarray, int], Path]:
    return lambda path, samples, rate: write(path, samples, rate, format, subtype)


def _av(container: str, codec: str, **options: str) -> Callable[[Path, np.ndarray, int], Path]:
    return lambda path, samples, rate: write_av(path, samples, rate, container, codec, options or None)


# without noise substitution, for which a decoder draws other random numbers in each pass
PLAIN_AAC = {"b": "128k", "aac_pns": "0"}

WRITERS: dict[str, Callable[[Path, np.ndarray, int], Path]] = {
    "wav": _sf("WAV", "PCM_16"),
    "float.wav": _sf("WAV", "FLOAT"),
    "24.rf64": _sf("RF64", "PCM_24"),
    "w64": _sf("W64", "PCM_16"),
    "flac": _sf("FLAC", "PCM_16"),
    "ogg": _sf("OGG", "VORBIS"),
    "opus": _sf("OGG", "OPUS"),
    "mp3": _sf("MP3", "MPEG_LAYER_III"),
    "aiff": _sf("AIFF", "PCM_16"),
    "au": _sf("AU", "PCM_16"),
    "caf": _sf("CAF", "PCM_16"),
    "m4a": _av("ipod", "aac", **PLAIN_AAC),
    "alac.m4a": _av("ipod", "alac"),
    "wma": _av("asf", "wmav2"),
    "webm": _av("webm", "libopus"),
    "flac.mka": _av("matroska", "flac"),
    "aac": _av("adts", "aac", **PLAIN_AAC),
    "ts": _av("mpegts", "aac", **PLAIN_AAC),
    "noxing.mp3": lambda path, samples, rate: write_av(
        path, samples, rate, "mp3", "libmp3lame", {"b": "128k"}, {"write_xing": "0"}
    ),
    "vbr.mp3": _av("mp3", "libmp3lame", flags="+qscale", global_quality=str(4 * 118)),
}
ENCODERS = {
    "m4a": "aac", "alac.m4a": "alac", "wma": "wmav2", "webm": "libopus", "flac.mka": "flac", "aac": "aac", "ts": "aac",
    "noxing.mp3": "libmp3lame", "vbr.mp3": "libmp3lame",
}  # fmt: skip


def write_as(kind: str, path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """`kind` is a key of WRITERS; opus is written at 48 kHz whatever `rate` says, the samples unchanged."""
    return WRITERS[kind](path, samples, 48_000 if kind in ("opus", "webm") else rate)


def can_write(kind: str) -> bool:
    return kind not in ENCODERS or has_encoder(ENCODERS[kind])
