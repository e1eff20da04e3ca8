"""Descriptors of signals whose answer is known: clicks, tones, noise, silence."""

from __future__ import annotations

import numpy as np
import pytest

from acoustic.records import Descriptors, Waveform
from acoustic.signal.descriptors import _peak_near, measure, warm_up

RATE = 22_050


def clicks(bpm: float, seconds: float = 20.0, rate: int = RATE) -> np.ndarray:
    """Decaying bursts of noise at `bpm`."""
    rng = np.random.default_rng(0)
    x = np.zeros(round(seconds * rate) + rate)
    burst = np.exp(-np.arange(round(0.05 * rate)) / (0.01 * rate))
    for i in range(int(seconds * bpm / 60)):
        start = round((0.1 + i * 60 / bpm) * rate)
        x[start : start + len(burst)] += 0.3 * burst * rng.standard_normal(len(burst))
    return x[: round(seconds * rate)].astype(np.float32)


def sine(hz: float, seconds: float = 4.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float, rms: float = 0.1, seed: int = 0) -> np.ndarray:
    return (rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("bpm", [72.0, 90.0, 100.0, 120.0, 128.0, 133.0, 150.0])
def test_tempo_of_clicks(bpm: float) -> None:
    found = measure(Waveform(clicks(bpm) + noise(20, 1e-3), RATE))
    assert found.tempo_bpm == pytest.approx(bpm, rel=0.005)
    assert found.beat_strength is not None
    assert 0.8 < found.beat_strength <= 1.0


@pytest.mark.parametrize("bpm", [45.0, 190.0, 240.0])
def test_a_far_tempo_is_right_up_to_the_octave(bpm: float) -> None:
    found = measure(Waveform(clicks(bpm), RATE)).tempo_bpm
    assert found is not None
    octaves = np.log2(found / bpm)
    assert abs(octaves - round(octaves)) < 0.01
    assert abs(octaves) < 1.1


def test_tempo_does_not_depend_on_the_sample_rate_or_the_gain() -> None:
    at_16k = measure(Waveform(clicks(110, rate=16_000), 16_000))
    quiet = measure(Waveform(0.1 * clicks(110), RATE))
    assert at_16k.tempo_bpm == pytest.approx(110, rel=0.005)
    assert quiet.tempo_bpm == pytest.approx(110, rel=0.005)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3])
def test_the_peak_between_the_lags_is_the_parabolas(shift: float) -> None:
    values = 0.8 - 0.1 * (np.arange(9) - (4 + shift)) ** 2
    assert _peak_near(values, 4) == pytest.approx((4 + shift, 0.8))
    assert _peak_near(values[4:], 0) == pytest.approx((0.0, values[4])), "no neighbour, no parabola"


def test_beat_strength_falls_as_the_beat_drowns() -> None:
    found = [measure(Waveform(0.3 * clicks(120) + noise(20, rms), RATE)).beat_strength for rms in (1e-3, 0.03, 0.3)]
    clear, buried, drowned = (strength if strength is not None else -1.0 for strength in found)
    assert clear > buried + 0.05
    assert buried > drowned + 0.05
    assert drowned >= 0.0


def test_noise_and_a_held_tone_have_no_tempo() -> None:
    hiss = measure(Waveform(noise(20), RATE))
    assert hiss.tempo_bpm is None
    assert hiss.beat_strength is not None
    assert hiss.beat_strength < 0.15
    tone = measure(Waveform(sine(440, 20), RATE))
    assert (tone.tempo_bpm, tone.beat_strength) == (None, 0.0)


def test_too_short_for_a_beat_but_not_for_its_spectrum() -> None:
    found = measure(Waveform(clicks(120, 4.0) + sine(100, 4.0), RATE))
    assert (found.tempo_bpm, found.beat_strength) == (None, None)
    assert found.low_freq_ratio is not None
    assert found.low_freq_ratio > 0.9


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.full(8 * RATE, 0.5), noise(8, 1e-5), np.zeros(0)])
def test_silence_has_no_descriptors(samples: np.ndarray) -> None:
    assert measure(Waveform(samples.astype(np.float32), RATE)) == Descriptors()


@pytest.mark.parametrize(("hz", "share"), [(60, 1.0), (150, 1.0), (185, 1.0), (215, 0.0), (1_000, 0.0), (8_000, 0.0)])
def test_low_frequency_ratio_of_a_tone(hz: float, share: float) -> None:
    assert measure(Waveform(sine(hz), RATE)).low_freq_ratio == pytest.approx(share, abs=2e-3)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_low_frequency_ratio_is_of_power_and_ignores_an_offset(offset: float) -> None:
    x = sine(100, amplitude=0.1) + sine(2_000, amplitude=0.2) + np.float32(offset)
    assert measure(Waveform(x, RATE)).low_freq_ratio == pytest.approx(0.2, abs=5e-3)


def test_low_frequency_ratio_of_white_noise_is_its_bandwidth() -> None:
    assert measure(Waveform(noise(4), RATE)).low_freq_ratio == pytest.approx(200 / (RATE / 2), rel=0.15)


def test_vocal_presence_is_left_to_the_network_and_the_input_alone() -> None:
    x = clicks(120, 8.0) + np.float32(0.1)
    before = x.copy()
    assert measure(Waveform(x, RATE)).vocal_presence is None
    np.testing.assert_array_equal(x, before)


def test_warm_up_runs_the_whole_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures has a tempo and a spectrum, so nothing is left to compile for the first track."""
    from acoustic.signal import descriptors

    measured: list[Descriptors] = []
    monkeypatch.setattr(descriptors, "measure", lambda waveform: measured.append(measure(waveform)))
    warm_up()
    assert len(measured) == 1
    assert measured[0].tempo_bpm == pytest.approx(120, rel=0.01)
    assert measured[0].low_freq_ratio is not None
