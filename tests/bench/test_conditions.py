"""What a song goes through in the robustness table: by physics, and that the files are what their names say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.records import Waveform
from acoustic.signal import audio
from bench.conditions import (
    CLEAN,
    CONDITIONS,
    REVERBERATION_S,
    Company,
    in_room,
    middle,
    small_room,
    telephone_band,
)
from tests import makers

RATE = 22_050
SONG = Waveform(makers.music(8, RATE, 1, seed=1)[:, 0], RATE)
NOISE = makers.noise(5, RATE, 0.03)
SPEECH = makers.music(3, RATE, 1, seed=2)[:, 0]
OTHER = makers.music(12, RATE, 1, seed=3)[:, 0]
COMPANY = Company(NOISE, SPEECH, np.exp(-np.arange(4_000) / 800).astype(np.float32), OTHER)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def gain_db(samples: np.ndarray, before: np.ndarray) -> float:
    return 20 * np.log10(rms(samples) / rms(before))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("conditions")
    return {c.name: c.write(folder / str(number), SONG, COMPANY) for number, c in enumerate(CONDITIONS)}


def read(written: dict[str, Path], name: str) -> np.ndarray:
    return audio.load(written[name], RATE).samples


def test_every_row_has_a_file_of_its_own(written: dict[str, Path]) -> None:
    assert len(written) == len(CONDITIONS) == len({path.read_bytes() for path in written.values()})


def test_clean_is_the_song_bit_by_bit(written: dict[str, Path]) -> None:
    np.testing.assert_array_equal(read(written, CLEAN), SONG.samples)


@pytest.mark.parametrize(
    ("name", "added", "snr_db"),
    [
        *((f"noise, {snr_db} dB SNR", NOISE, snr_db) for snr_db in (20, 10, 5, 0)),
        *((f"speech, {snr_db} dB SNR", SPEECH, snr_db) for snr_db in (10, 0)),
        ("two songs, 6 dB apart", OTHER, 6),
    ],
)
def test_what_is_added_has_the_stated_level(
    written: dict[str, Path], name: str, added: np.ndarray, snr_db: float
) -> None:
    rest = read(written, name) - SONG.samples
    assert gain_db(SONG.samples, rest) == pytest.approx(snr_db, abs=0.01)
    assert np.corrcoef(rest, np.resize(added, len(rest)))[0, 1] > 0.999


def test_gains_are_exact_and_clip_at_full_scale(written: dict[str, Path]) -> None:
    quieter, louder = read(written, "-6 dB"), read(written, "+6 dB, clipped")
    assert gain_db(quieter, SONG.samples) == pytest.approx(-6, abs=0.01)
    assert np.abs(SONG.samples).max() * 10**0.3 > 1.2, "the song must clip for this test to say something"
    assert np.abs(louder).max() == pytest.approx(1.0, abs=1e-4)
    unclipped = np.abs(SONG.samples) < 0.5
    np.testing.assert_allclose(louder[unclipped], SONG.samples[unclipped] * 10**0.3, atol=1e-4)


def test_a_snippet_is_the_middle_five_seconds(written: dict[str, Path]) -> None:
    np.testing.assert_array_equal(read(written, "5 s of it"), SONG.samples[RATE * 3 // 2 : RATE * 13 // 2])


@given(n_song=st.integers(1, 50), n=st.integers(1, 60))
def test_the_middle_has_as_much_before_as_after(n_song: int, n: int) -> None:
    part = middle(np.arange(n_song), n)
    assert len(part) == min(n, n_song)
    before, after = part[0], n_song - 1 - part[-1]
    assert 0 <= after - before <= 1


def test_mp3_is_mp3_at_its_bit_rate(written: dict[str, Path]) -> None:
    path = written["MP3, 32 kbit/s"]
    with audio.open_audio(path, RATE) as reader:
        assert "mp3" in reader.info.codec.lower()
        decoded = reader.read(0.0, reader.duration_s).samples
    assert path.stat().st_size * 8 / SONG.duration_s == pytest.approx(32_000, rel=0.05)
    n = min(len(decoded), len(SONG.samples))
    assert abs(len(decoded) - len(SONG.samples)) <= 2 * 1_152
    assert 0.8 < np.corrcoef(decoded[:n], SONG.samples[:n])[0, 1] < 0.9999, "the song, with a loss"


def test_the_telephone_file_is_mu_law_at_eight_kilohertz(written: dict[str, Path]) -> None:
    with audio.open_audio(written["by telephone"], None) as reader:
        assert (reader.info.sample_rate, reader.info.codec) == (8_000, "ULAW")
    assert written["by telephone"].stat().st_size == pytest.approx(8_000 * SONG.duration_s, abs=200)


@pytest.mark.parametrize(
    ("hz", "low_db", "high_db"),
    [(100, -200, -40), (300, -4, -2), (1_000, -0.1, 0.1), (3_000, -0.5, 0.5), (3_400, -4, -2), (5_000, -200, -60)],
)
def test_the_telephone_passes_its_band_alone(hz: float, low_db: float, high_db: float) -> None:
    tone = makers.sine(2, hz, RATE)
    heard = telephone_band(tone, RATE)[2_000:-2_000]  # without the filter's settling
    assert low_db < 20 * np.log10(max(rms(heard), 1e-12) / rms(tone)) < high_db


def test_a_room_without_walls_changes_nothing() -> None:
    impulse = np.zeros(3_000, np.float32)
    impulse[700] = 0.3  # late and soft: neither delay nor level is the room's doing
    np.testing.assert_allclose(in_room(SONG.samples, impulse), SONG.samples, atol=1e-6)


def test_the_small_room_falls_by_60_db_in_its_time_and_is_half_direct_sound() -> None:
    response = small_room(RATE, np.random.default_rng(0)).astype(np.float64)
    assert len(response) == round(REVERBERATION_S * RATE)
    assert np.square(response[1:]).sum() == pytest.approx(response[0] ** 2, rel=1e-5)
    tenth = len(response) // 10
    levels = [10 * np.log10(np.square(part).mean()) for part in (response[1:tenth], response[-tenth:])]
    assert levels[0] - levels[1] == pytest.approx(54, abs=3)  # from the middle of the first tenth to that of the last
    assert not np.array_equal(response, small_room(RATE, np.random.default_rng(1)))


def test_a_room_keeps_length_and_loudness_and_rings_on() -> None:
    click = np.zeros(RATE, np.float32)
    click[1_000] = 1.0
    heard = in_room(click, COMPANY.room)
    assert heard.dtype == np.float32
    assert len(heard) == RATE
    assert rms(heard) == pytest.approx(rms(click), rel=1e-6)
    assert not heard[:999].any() or np.abs(heard[:999]).max() < 1e-6, "nothing is heard before it sounds"
    # the response falls by 1 / e in 800 samples
    assert heard[1_800] / heard[1_000] == pytest.approx(np.exp(-1), rel=1e-3)


def test_silence_stays_silence(tmp_path: Path) -> None:
    silent = dataclasses.replace(SONG, samples=np.zeros(RATE, np.float32))
    for number, condition in enumerate(CONDITIONS):
        path = condition.write(tmp_path / str(number), silent, COMPANY)
        assert rms(audio.load(path, None).samples) < 1e-3, condition.name
