"""Makes assets/demo.ogg: a synthetic, licence-free clip for a first try. Every sample comes from the formulas below.

    python assets/make_demo.py [destination]

Eight bars at 96 BPM: electric piano, bass, a plucked tune and drums. Notes that ring past the end ring on at the
beginning, so that the clip loops. The same bytes come out of every run with the same libsndfile.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile as sf

SAMPLE_RATE = 24_000
BPM = 96
N_BEATS = 32  # eight bars of four
BLOCK = 4_096  # libsndfile's Vorbis encoder is fed in blocks: one huge write can overflow its stack
PEAK = 0.7

# MIDI notes: bass, then the piano's voicing
CHORDS = (
    (45, (57, 60, 64, 67)),  # A minor 7
    (41, (57, 60, 64, 65)),  # F major 7
    (48, (55, 59, 60, 64)),  # C major 7
    (43, (55, 59, 62, 64)),  # G 6
)
# (beat within four bars, MIDI note) of the plucked tune, on A minor's pentatonic
TUNE = (
    (0.0, 76), (0.75, 74), (1.5, 72), (2.5, 69), (4.0, 72), (5.5, 74), (6.5, 76),
    (8.0, 79), (8.75, 76), (9.5, 74), (10.5, 72), (12.0, 74), (13.5, 71), (14.5, 67),
)  # fmt: skip


def seconds(beats: float) -> float:
    return beats * 60.0 / BPM


def hertz(midi: float) -> float:
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def clock(length_s: float) -> np.ndarray:
    return np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE


def piano(midi: int, length_s: float) -> np.ndarray:
    """Two-operator FM: the modulation dies faster than the tone, as a tine's clang does."""
    t, f = clock(length_s + 0.6), hertz(midi)
    clang = 1.6 * np.exp(-t * 4.0) * np.sin(2 * np.pi * f * t) + 0.25 * np.exp(-t * 18.0) * np.sin(
        2 * np.pi * 14 * f * t
    )
    tone = np.sin(2 * np.pi * f * t + clang)
    return tone * np.exp(-t * 1.1) * np.minimum(1, t / 0.004) * np.clip((length_s + 0.6 - t) / 0.5, 0, 1)


def bass(midi: int, length_s: float) -> np.ndarray:
    t, f = clock(length_s), hertz(midi - 12)
    tone = sum(np.sin(2 * np.pi * k * f * t) * np.exp(-t * 1.8 * k) / k for k in range(1, 7))
    return tone * np.minimum(1, t / 0.006) * np.clip((length_s - t) / 0.03, 0, 1)


def pluck(midi: int, length_s: float) -> np.ndarray:
    t, f = clock(length_s), hertz(midi)
    tone = sum(np.sin(2 * np.pi * k * f * t) * np.exp(-t * (2.5 + 2.2 * k)) / k**1.2 for k in range(1, 9))
    return tone * np.minimum(1, t / 0.002)


def kick() -> np.ndarray:
    t = clock(0.32)
    phase = 2 * np.pi * (48 * t + (150 - 48) / 28 * (1 - np.exp(-28 * t)))  # the pitch falls from 150 Hz to 48 Hz
    return np.sin(phase) * np.exp(-t * 9) * np.clip((0.32 - t) / 0.05, 0, 1)


def snare(rng: np.random.Generator) -> np.ndarray:
    t = clock(0.22)
    noise = np.diff(rng.standard_normal(len(t) + 1))  # the difference thins the low end
    return 0.55 * noise * np.exp(-t * 19) + 0.5 * np.sin(2 * np.pi * 190 * t) * np.exp(-t * 26)


def hat(rng: np.random.Generator, length_s: float) -> np.ndarray:
    t = clock(length_s)
    noise = np.diff(rng.standard_normal(len(t) + 3), n=3)
    return noise * np.exp(-t * 5.0 / length_s)


class Loop:
    """A stretch of samples whose end is joined to its beginning."""

    def __init__(self, length_s: float) -> None:
        self.samples = np.zeros(round(length_s * SAMPLE_RATE))

    def add(self, sound: np.ndarray, at_s: float, gain: float) -> None:
        places = (round(at_s * SAMPLE_RATE) + np.arange(len(sound))) % len(self.samples)
        np.add.at(self.samples, places, gain * sound)

    def echo(self, delay_s: float, gain: float) -> None:
        self.samples += gain * np.roll(self.samples, round(delay_s * SAMPLE_RATE))


def compose() -> np.ndarray:
    """The clip: float64 mono samples at SAMPLE_RATE, its loudest at PEAK."""
    rng = np.random.default_rng(1996)
    length_s = seconds(N_BEATS)
    harmony, melody, drums = Loop(length_s), Loop(length_s), Loop(length_s)
    for bar in range(N_BEATS // 4):
        root, voicing = CHORDS[bar % len(CHORDS)]
        start = 4.0 * bar
        for beat, length in ((0.0, 1.4), (1.5, 0.9), (3.0, 0.9)):
            for i, note in enumerate(voicing):
                # a hand never strikes all keys at once: 9 ms from the lowest to the next
                harmony.add(piano(note, seconds(length)), seconds(start + beat) + 0.009 * i, 0.13)
        for beat, step in ((0.0, 0), (0.75, 0), (1.5, 12), (2.5, 7), (3.5, 0)):
            harmony.add(bass(root + step, seconds(0.7)), seconds(start + beat), 0.26)
        for beat in (0.0, 1.75, 2.0) if bar % 2 else (0.0, 2.0, 2.75):
            drums.add(kick(), seconds(start + beat), 0.75)
        for beat in (1.0, 3.0):
            drums.add(snare(rng), seconds(start + beat), 0.34)
        for eighth in range(8):
            late = 0.06 if eighth % 2 else 0.0  # a little swing
            drums.add(
                hat(rng, 0.16 if eighth == 7 else 0.06), seconds(start + eighth / 2 + late), 0.03 + 0.015 * (eighth % 2)
            )
    for half in (0, 16):
        for beat, note in TUNE:
            melody.add(pluck(note, seconds(1.6)), seconds(half + beat), 0.15)
    melody.echo(seconds(0.75), 0.35)
    mix = np.tanh(1.1 * (harmony.samples + melody.samples + drums.samples))
    return mix * (PEAK / np.abs(mix).max())


def write(destination: Path, samples: np.ndarray) -> None:
    """Ogg Vorbis, labelled as synthetic in its title."""
    with sf.SoundFile(destination, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS", compression_level=0.6) as out:
        out.title = "AcousticSense demo clip (synthetic)"
        out.comment = "Made by assets/make_demo.py from formulas alone; no rights reserved."
        for start in range(0, len(samples), BLOCK):
            out.write(samples[start : start + BLOCK].astype(np.float32))
    destination.write_bytes(renumbered(destination.read_bytes()))


def renumbered(ogg: bytes, serial: int = 1996) -> bytes:
    """The same Ogg stream with a fixed serial number (libsndfile draws one by lot) and its pages' checksums made right.

    Layout of a page: RFC 3533, section 6. The checksum is CRC-32 with polynomial 0x04c11db7, unreflected, from zero.
    """
    table = []
    for value in range(256):
        crc = value << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc & 0xFFFFFFFF)
    out, at = bytearray(), 0
    while at < len(ogg):
        n_lacing = ogg[at + 26]
        end = at + 27 + n_lacing + sum(ogg[at + 27 : at + 27 + n_lacing])
        page = bytearray(ogg[at:end])
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        crc = 0
        for byte in page:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        page[22:26] = crc.to_bytes(4, "little")
        out += page
        at = end
    return bytes(out)


def main() -> None:
    destination = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "demo.ogg"
    write(destination, compose())
    print(f"{destination}: {destination.stat().st_size / 1000:.0f} kB, {seconds(N_BEATS):.0f} s")


if __name__ == "__main__":
    main()
