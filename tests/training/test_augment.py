"""Augmentations of the waveform, by physics: levels, powers and pitches are what the names say."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acoustic.errors import SettingsError
from acoustic.training import augment
from acoustic.training.augment import Augmenter, Pace
from acoustic.training.config import AugmentSpec

RATE = 22_050
N = 12_000
OFF = AugmentSpec(speed_p=0, noise_p=0)
SWITCHES = ("pitch", "stretch", "room", "equalizer", "band", "clipping", "codec", "gain")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two impulse responses: a stereo one at another rate, and one that begins late."""
    pytest.importorskip("audiomentations")
    folder = tmp_path_factory.mktemp("rooms")
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(8_000) / 1_500)[:, None] * rng.normal(0, 0.3, (8_000, 2))
    soundfile.write(folder / "hall.flac", np.clip(decay, -1, 1), 44_100)
    late = np.zeros(3_000)
    late[2_000] = 0.01
    soundfile.write(folder / "late.wav", late, RATE)
    return folder


@pytest.fixture(scope="module")
def everything(rooms: Path) -> Augmenter:
    always = {f"{name}_p": 1.0 for name in (*SWITCHES, "speed", "noise")}
    return Augmenter(AugmentSpec(**always), RATE, rooms)  # type: ignore[arg-type]


def only(rooms: Path | None = None, **spec: object) -> Augmenter:
    return Augmenter(dataclasses.replace(OFF, **spec), RATE, rooms)  # type: ignore[arg-type]


def played(augmenter: Augmenter, samples: np.ndarray, seed: int = 0) -> np.ndarray:
    return augmenter(samples, len(samples), Pace(), np.random.default_rng(seed))


def tone(hz: float, n: int = RATE, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(n) / RATE)).astype(np.float32)


def hiss(seed: int = 0, n: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def pitch_hz(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples))


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


# --- ours ---


@given(st.floats(-10, 40), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_noise_is_mixed_at_the_stated_ratio(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    music, noise = rng.normal(0, 0.1, 5000).astype(np.float32), rng.normal(0, 0.7, 1700).astype(np.float32)
    added = augment.add_noise(music, noise, snr_db) - music
    assert 10 * np.log10(np.mean(music**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.05)


def test_noise_on_silence_and_silent_noise_change_nothing() -> None:
    silence, noise = np.zeros(100, np.float32), np.ones(10, np.float32)
    assert not augment.add_noise(silence, noise, 0).any()
    assert (augment.add_noise(np.ones(100, np.float32), np.zeros(10, np.float32), 0) == 1).all()


def test_speed_moves_a_tone_by_its_factor() -> None:
    fast = augment.speed(tone(1_000.0, 2 * RATE), 1.08)
    assert len(fast) == pytest.approx(2 * RATE / 1.08, abs=2)
    assert pitch_hz(fast) == pytest.approx(1_080.0, abs=2)


@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.integers(1_000, 50_000))
@settings(max_examples=50, deadline=None)
def test_a_pace_reads_as_much_as_it_needs(speed: float, stretch: float, n: int) -> None:
    pace = Pace(speed, stretch)
    assert len(augment.speed(np.zeros(pace.n_source(n), np.float32), speed)) >= n * stretch
    assert pace.n_source(n) <= n * speed * stretch + augment.MARGIN + 1


# --- audiomentations' ---


def test_pitch_moves_a_tone_and_stretch_does_not(rooms: Path) -> None:
    shifted = played(only(pitch_p=1.0, pitch_semitones=(2.0, 2.0)), tone(1_000.0, 2 * RATE))
    assert pitch_hz(shifted[5_000:-5_000]) == pytest.approx(1_000 * 2 ** (2 / 12), rel=0.005)
    augmenter, pace = only(stretch_p=1.0, stretch_range=(1.1, 1.1)), Pace(1.0, 1.1)
    stretched = augmenter(tone(1_000.0, pace.n_source(2 * RATE)), 2 * RATE, pace, np.random.default_rng(0))
    assert pitch_hz(stretched[5_000:-5_000]) == pytest.approx(1_000, rel=0.005)
    assert power_db(stretched[-5_000:-500]) == pytest.approx(power_db(tone(1_000.0)), abs=1)  # no silence at the end


def test_stretch_brings_a_later_sound_earlier(rooms: Path) -> None:
    augmenter, pace = only(stretch_p=1.0), Pace(1.0, 1.25)
    clicks = np.zeros(pace.n_source(2 * RATE), np.float32)
    clicks[round(1.25 * RATE) :] = tone(2_000.0, len(clicks) - round(1.25 * RATE))
    heard = augmenter(clicks, 2 * RATE, pace, np.random.default_rng(0))
    onset = int(np.nonzero(np.abs(heard) > 0.1)[0][0])
    assert onset / RATE == pytest.approx(1.0, abs=0.05)


def test_a_room_sounds_as_loud_as_no_room(rooms: Path) -> None:
    augmenter = only(rooms, room_p=1.0)
    for seed in range(6):
        for gain in (0.01, 1.0):
            wet = played(augmenter, gain * hiss(9, 3 * RATE), seed)
            assert not np.allclose(wet, gain * hiss(9, 3 * RATE), atol=1e-3 * gain)
            assert power_db(wet) == pytest.approx(power_db(gain * hiss(9, 3 * RATE)), abs=0.5)


def test_no_step_waits_for_a_room_to_be_read(rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the folder is named by a detour."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "rooms").symlink_to(rooms)
    augmenter = only(Path("../rooms"), room_p=1.0)

    def unread(*_: object, **__: object) -> None:
        raise AssertionError("a file is read")

    monkeypatch.setattr("audiomentations.augmentations.apply_impulse_response.load_sound_file", unread)
    samples = np.random.default_rng(0).normal(0, 0.1, N).astype(np.float32)
    for seed in range(6):
        assert played(augmenter, samples, seed).any()


def test_a_sound_at_the_very_end_is_not_blown_up(rooms: Path) -> None:
    """Its echo lies behind the end: scaled to the level from before, what is left would be rounding noise."""
    samples = np.zeros(RATE, np.float32)
    samples[-100:] = 0.5
    assert max(np.abs(played(only(rooms, room_p=1.0), samples, seed)).max() for seed in range(6)) < 2


def test_the_equalizer_stays_within_its_range(rooms: Path) -> None:
    changes = []
    for seed in range(8):
        out = played(only(equalizer_p=1.0, equalizer_db=(-9.0, 9.0)), hiss(seed, 4 * RATE), seed)
        before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (hiss(seed, 4 * RATE), out))
        edges = np.geomspace(60, 9_000, 12) * 4  # four bins to the hertz
        changes += [
            10 * np.log10(after[int(a) : int(b)].sum() / before[int(a) : int(b)].sum()) for a, b in pairwise(edges)
        ]
    assert np.std(changes) > 2
    assert np.abs(changes).max() < 2 * 9 + 1  # neighbours overlap


def test_a_band_cuts_what_lies_outside(rooms: Path) -> None:
    augmenter = only(band_p=1.0, band_low_hz=(300.0, 300.1), band_high_hz=(3_400.0, 3_400.1))
    for seed in range(4):
        kept, low, high = (power_db(played(augmenter, tone(hz), seed)[2_000:]) for hz in (1_000.0, 60.0, 9_000.0))
        assert kept == pytest.approx(power_db(tone(1_000.0)), abs=1)
        assert low < kept - 20
        assert high < kept - 20


def test_clipping_flattens_peaks_only(rooms: Path) -> None:
    out = played(only(clipping_p=1.0, clipping_percent=(10, 10)), hiss())
    same = out == hiss()
    assert same.mean() == pytest.approx(0.9, abs=0.01)
    assert np.abs(out).max() < np.abs(hiss()[same]).max() + 1e-3
    assert np.abs(hiss()[~same]).min() > np.abs(out).max() - 1e-2


def test_the_codec_loses_the_top_and_keeps_the_time(rooms: Path) -> None:
    music = tone(700.0, 2 * RATE) + hiss(0, 2 * RATE)
    out = played(only(codec_p=1.0, codec_kbps=(16, 16)), music)
    above = [np.abs(np.fft.rfft(x))[2 * 9_000 :].mean() for x in (music, out)]
    assert above[1] < 0.1 * above[0]
    lag = np.fft.irfft(np.fft.rfft(out) * np.conj(np.fft.rfft(tone(700.0, 2 * RATE)))).argmax()
    assert min(lag % (RATE / 700), -lag % (RATE / 700)) < 2


def test_gain_is_in_decibels(rooms: Path) -> None:
    out = played(only(gain_p=1.0, gain_db=(-6.0, -6.0)), hiss())
    assert power_db(out) - power_db(hiss()) == pytest.approx(-6.0, abs=0.01)


# --- all together ---


LIMITS = st.floats(-1, 1, width=32)
CURIOUS = st.one_of(
    st.just(np.zeros(N, np.float32)),
    st.just(np.full(N, 1.0, np.float32)),
    st.just(np.full(N, 1e-40, np.float32)),
    st.just(np.full(N, 3.0, np.float32) * np.sign(np.sin(np.arange(N, dtype=np.float32)))),
    st.just(np.eye(1, N, N - 1, dtype=np.float32)[0]),
    st.just(np.eye(1, N, 0, dtype=np.float32)[0]),
    arrays(np.float32, 60, elements=LIMITS).map(lambda x: np.resize(x, N)),
)


@given(CURIOUS, st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_sound_stays_a_sound(everything: Augmenter, samples: np.ndarray, seed: int) -> None:
    """Everything at once, on silence, direct current, clipped squares and single samples: as long as before, finite."""
    rng = np.random.default_rng(seed)
    pace = everything.pace(rng)
    source = np.resize(samples, pace.n_source(N))
    kept = source.copy()
    out = everything(source, N, pace, rng, lambda generator: samples)
    assert (out.shape, out.dtype) == ((N,), np.float32)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e3
    assert (source == kept).all()


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_seed_says_it_all_and_nobody_else_notices(everything: Augmenter, seed: int, elsewhere: int) -> None:
    """The same twice whatever the global generators are at; these go on as if nothing had been."""
    outs = []
    for state in (elsewhere, elsewhere + 1):
        random.seed(state)
        np.random.seed(state)
        expected = random.Random(state).random(), np.random.RandomState(state).random_sample()
        rng = np.random.default_rng(seed)
        pace = everything.pace(rng)
        outs.append(everything(np.resize(hiss(), pace.n_source(N)), N, pace, rng, lambda generator: hiss(1)))
        assert (random.random(), np.random.random_sample()) == expected
    assert np.array_equal(*outs)
    other = everything(np.resize(hiss(), N), N, Pace(), np.random.default_rng(seed + 1), lambda generator: hiss(1))
    assert not np.array_equal(outs[0], other)


def test_the_global_generators_come_back_after_an_error() -> None:
    def fail() -> None:
        with augment.seeded(np.random.default_rng(0)):
            raise ValueError(random.random())

    random.seed(5)
    with pytest.raises(ValueError, match="0"):
        fail()
    assert random.random() == random.Random(5).random()


def test_what_is_switched_off_is_not_made() -> None:
    """Nothing on: the samples as they are, and audiomentations not even imported."""
    assert np.array_equal(played(only(), hiss()), hiss())
    code = (
        "import sys; from acoustic.training.augment import Augmenter; from acoustic.training.config import AugmentSpec;"
        "Augmenter(AugmentSpec(), 22050); print('audiomentations' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_transform_refuses_is_refused_at_once(rooms: Path, tmp_path: Path) -> None:
    empty, torn, silent = (tmp_path / name for name in ("empty", "torn", "silent"))
    for folder in (empty, torn, silent):
        folder.mkdir()
    (torn / "a.flac").write_bytes(b"fLaC torn")
    soundfile.write(silent / "a.wav", np.zeros(100), RATE)
    for spec, folder, rate, complaint in (
        ({"room_p": 0.1}, None, RATE, "no impulse response"),
        ({"room_p": 0.1}, empty, RATE, "no impulse response in"),
        ({"room_p": 0.1}, tmp_path / "none", RATE, "rooms"),
        ({"room_p": 0.1}, torn, RATE, r"a\.flac cannot be read"),
        ({"room_p": 0.1}, silent, RATE, r"a\.wav is silent"),
        ({"equalizer_p": 0.1}, None, 8_000, "needs a sample rate"),
        ({"codec_p": 0.1}, None, 20_000, "codec cannot be used at 20000 Hz"),
        ({"codec_p": 0.1, "codec_kbps": (1, 2)}, None, RATE, "codec cannot be used"),
        ({"pitch_p": 0.1, "pitch_semitones": (-40.0, 0.0)}, None, RATE, "pitch cannot be used"),
    ):
        with pytest.raises(SettingsError, match=complaint):
            Augmenter(dataclasses.replace(OFF, **spec), rate, folder)  # type: ignore[arg-type]
