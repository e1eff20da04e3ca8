"""What happens to a song before somebody asks what it is: noise, a room, a telephone, a codec, a cut, another song.

A condition writes its version of a song as a real file, so that decoding, segments and mel meet it as they would meet a
person's own. What a song meets (which noise, which room, which other song) is drawn once a song, so that all rows of a
table hold the same songs in the same company.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from scipy.signal import butter, oaconvolve, sosfilt

from acoustic.records import Waveform
from acoustic.training.augment import add_noise

TELEPHONE_HZ, TELEPHONE_RATE = (300.0, 3_400.0), 8_000
"""the band of narrow-band telephony, and its sample rate (ITU-T G.711)"""
REVERBERATION_S = 0.4
SNIPPET_S = 5.0
OTHER_SONG_DB = 6.0
"""how far below the song the other song lies"""


@dataclass(frozen=True, slots=True)
class Company:
    """What one song meets, at its own sample rate: mono float32 samples."""

    noise: np.ndarray
    speech: np.ndarray
    room: np.ndarray
    """an impulse response"""
    song: np.ndarray
    """another song"""


@dataclass(frozen=True, slots=True)
class Condition:
    """`write(stem, song, company)` writes the file `stem` + suffix and returns its path."""

    name: str
    write: Callable[[Path, Waveform, Company], Path]


# --- what is heard ---


def small_room(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """An impulse response (n,) as a small room's: the direct sound, and noise that falls by 60 dB in REVERBERATION_S
    (Polack's model, 1988), as strong as it. No training has heard it."""
    n = round(REVERBERATION_S * sample_rate)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[0] = np.sqrt(np.square(tail[1:]).sum())
    return tail.astype(np.float32)


def in_room(dry: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`dry` convolved with a room's impulse response, (n,) -> (n,), as loud (RMS) as before; the response begins at its
    loudest sample, so that the song is not delayed."""
    wet = oaconvolve(dry, response[np.abs(response).argmax() :])[: len(dry)]
    loudness = np.sqrt(np.mean(np.square(wet, dtype=np.float64)))
    return (wet * (np.sqrt(np.mean(np.square(dry, dtype=np.float64))) / max(loudness, 1e-12))).astype(np.float32)


def telephone_band(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """(n,) at `sample_rate` -> what is left of it between 300 and 3,400 Hz, at 8 kHz, within [-1, 1]."""
    narrow = soxr.resample(samples, sample_rate, TELEPHONE_RATE)
    band = butter(6, TELEPHONE_HZ, "bandpass", fs=TELEPHONE_RATE, output="sos")
    return np.clip(sosfilt(band, narrow), -1.0, 1.0).astype(np.float32)


def middle(samples: np.ndarray, n: int) -> np.ndarray:
    """The middle `n` samples, or all where there are fewer."""
    start = max(0, (len(samples) - n) // 2)
    return samples[start : start + n]


# --- how it is kept ---


def write_wav(path: Path, samples: np.ndarray, sample_rate: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, sample_rate, format="WAV", subtype=subtype)
    return path


def write_mp3(path: Path, samples: np.ndarray, sample_rate: int, bits_per_second: int) -> Path:
    """Mono MP3 by LAME at a constant bit rate."""
    with av.open(str(path), "w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=sample_rate)
        stream.bit_rate, stream.layout, stream.format = bits_per_second, "mono", "fltp"
        n = stream.codec_context.frame_size or 1_152
        for start in range(0, len(samples), n):
            part = np.ascontiguousarray(samples[None, start : start + n], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = sample_rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


# --- the table's rows ---


def _clean(stem: Path, song: Waveform, company: Company) -> Path:
    return write_wav(stem.with_suffix(".wav"), song.samples, song.sample_rate)


def _noise(snr_db: float, stem: Path, song: Waveform, company: Company) -> Path:
    noisy = add_noise(song.samples, company.noise, snr_db)
    return write_wav(stem.with_suffix(".wav"), noisy, song.sample_rate)


def _speech(snr_db: float, stem: Path, song: Waveform, company: Company) -> Path:
    return write_wav(stem.with_suffix(".wav"), add_noise(song.samples, company.speech, snr_db), song.sample_rate)


def _room(stem: Path, song: Waveform, company: Company) -> Path:
    return write_wav(stem.with_suffix(".wav"), in_room(song.samples, company.room), song.sample_rate)


def _telephone(stem: Path, song: Waveform, company: Company) -> Path:
    narrow = telephone_band(song.samples, song.sample_rate)
    return write_wav(stem.with_suffix(".wav"), narrow, TELEPHONE_RATE, "ULAW")


def _mp3(bits_per_second: int, stem: Path, song: Waveform, company: Company) -> Path:
    return write_mp3(stem.with_suffix(".mp3"), song.samples, song.sample_rate, bits_per_second)


def _snippet(stem: Path, song: Waveform, company: Company) -> Path:
    part = middle(song.samples, round(SNIPPET_S * song.sample_rate))
    return write_wav(stem.with_suffix(".wav"), part, song.sample_rate)


def _gain(gain_db: float, stem: Path, song: Waveform, company: Company) -> Path:
    """Kept in 16 bits, so that what exceeds full scale is clipped, as in a recording that was made too loud."""
    louder = np.clip(song.samples * np.float32(10 ** (gain_db / 20)), -1.0, 1.0)
    return write_wav(stem.with_suffix(".wav"), louder, song.sample_rate, "PCM_16")


def _two_songs(below_db: float, stem: Path, song: Waveform, company: Company) -> Path:
    mixed = add_noise(song.samples, company.song, below_db)
    return write_wav(stem.with_suffix(".wav"), mixed, song.sample_rate)


CLEAN = "clean"
CONDITIONS: tuple[Condition, ...] = (
    Condition(CLEAN, _clean),
    *(Condition(f"noise, {snr_db} dB SNR", partial(_noise, float(snr_db))) for snr_db in (20, 10, 5, 0)),
    *(Condition(f"speech, {snr_db} dB SNR", partial(_speech, float(snr_db))) for snr_db in (10, 0)),
    Condition("in a small room", _room),
    Condition("by telephone", _telephone),
    Condition("MP3, 32 kbit/s", partial(_mp3, 32_000)),
    Condition("5 s of it", _snippet),
    Condition("+6 dB, clipped", partial(_gain, 6.0)),
    Condition("-6 dB", partial(_gain, -6.0)),
    Condition("two songs, 6 dB apart", partial(_two_songs, OTHER_SONG_DB)),
)
