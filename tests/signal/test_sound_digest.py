"""The digest of what a file sounds like."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from acoustic.errors import AudioError
from acoustic.signal import audio
from acoustic.signal.sound_digest import digest_remotely, sound_digest
from tests import makers


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "opus", "ogg"])
def test_one_sample_makes_a_difference(kind: str, tmp_path: Path) -> None:
    samples = makers.music(2.0)
    same, other = (makers.write_as(kind, tmp_path / f"{name}.{kind}", samples) for name in ("a", "b"))
    assert sound_digest(same) == sound_digest(os.fsencode(other)) == sound_digest(str(same))
    louder = samples.copy()
    louder[1000:1400] *= 0.9
    assert sound_digest(makers.write_as(kind, tmp_path / f"c.{kind}", louder)) != sound_digest(same)


def test_all_channels_count(tmp_path: Path) -> None:
    samples = makers.music(1.0)
    swapped = np.ascontiguousarray(samples[:, ::-1])
    a, b = makers.write(tmp_path / "a.wav", samples), makers.write(tmp_path / "b.wav", swapped)
    assert sound_digest(a) != sound_digest(b)


def test_containers_with_the_same_samples_sound_the_same(tmp_path: Path) -> None:
    samples = np.round(makers.music(1.0) * 30_000).astype(np.float32) / 32_768
    digests = {sound_digest(makers.write_as(kind, tmp_path / kind, samples)) for kind in ("wav", "flac", "aiff")}
    assert len(digests) == 1


def test_the_end_of_a_long_file_counts(tmp_path: Path) -> None:
    samples = makers.music(70.0, rate=8_000)
    path = makers.write(tmp_path / "a.flac", samples, 8_000, "FLAC")
    samples[-1] = -samples[-1] + 0.1
    assert sound_digest(makers.write(tmp_path / "b.flac", samples, 8_000, "FLAC")) != sound_digest(path)
    with audio.open_audio(path, None) as reader:
        assert sum(len(block) for block in reader.raw_blocks()) == 560_000


def test_very_short_and_damaged_files_have_one(tmp_path: Path) -> None:
    short = makers.write(tmp_path / "short.wav", makers.sine(0.01))
    assert sound_digest(short) == digest_remotely(str(short), {}).meta["digest"]
    whole = makers.write_as("mp3", tmp_path / "a.mp3", makers.music(3.0))
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    damaged = tmp_path / "damaged.mp3"
    damaged.write_bytes(data)
    assert sound_digest(damaged) == sound_digest(damaged) != sound_digest(whole)


def test_what_is_no_audio_has_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("words")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(AudioError):
            sound_digest(path)
