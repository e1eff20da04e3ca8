"""denoise and compress, by physics: what falls, by how much, and what stays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.errors import SettingsError
from acoustic.signal.enhance import compress, denoise

RATE = 16_000


def noise(seconds: float, rms: float, seed: int = 0) -> np.ndarray:
    return (rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def sine(seconds: float, hz: float, amplitude: float) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def power_db(x: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)))


def tone_db(x: np.ndarray, hz: float) -> float:
    """Power of the component at `hz` (a whole number of periods in x), in dB."""
    phasor = np.exp(-2j * np.pi * hz * np.arange(len(x)) / RATE)
    return 20 * np.log10(np.abs(np.mean(x * phasor)) * np.sqrt(2))


def expected_drop_db(over_subtraction: float, floor: float) -> float:
    """Boll's rule on the power of Gaussian noise, which is exponentially distributed in every bin of the STFT."""
    u = np.linspace(0, 60, 600_001)
    kept = np.trapezoid(np.maximum(u - over_subtraction, floor * u) * np.exp(-u), u)
    return -10 * np.log10(kept)


# --- denoise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5_000,), (3, 5_000), (1, 737), (16_001,), (10,), (2, 0)])
def test_without_subtraction_the_samples_come_back(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    y = denoise(x, RATE, over_subtraction=0.0)
    assert y.shape == shape
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x, atol=2e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 9_000), over=st.floats(0, 4), floor=st.floats(0, 1), rate=st.sampled_from([8_000, 22_050, 48_000])
)
def test_any_length_is_kept_and_nothing_is_amplified(n: int, over: float, floor: float, rate: int) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    y = denoise(x, rate, over_subtraction=over, floor=floor, noise_s=0.2)
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    assert np.sum(y.astype(np.float64) ** 2) <= np.sum(x.astype(np.float64) ** 2) * 1.001


@pytest.mark.parametrize("over_subtraction", [0.25, 0.5, 1.0])
def test_white_noise_falls_as_the_rule_says(over_subtraction: float) -> None:
    x = noise(8, 0.05)
    drop = power_db(x) - power_db(denoise(x, RATE, over_subtraction=over_subtraction))
    # frames overlap, so that resynthesis averages some of the changes away: it adds up to 1 dB, never takes
    expected = expected_drop_db(over_subtraction, 0.01)
    assert expected - 0.15 < drop < expected + 1.0


def test_more_subtraction_less_noise_and_the_floor_bounds_it() -> None:
    x = noise(4, 0.05)
    drops = [power_db(x) - power_db(denoise(x, RATE, over_subtraction=a)) for a in (0.0, 0.5, 1.0, 2.0, 50.0)]
    assert all(a + 0.5 < b for a, b in pairwise(drops))
    assert drops[-1] == pytest.approx(20.0, abs=0.1)  # all bins are at the floor: 0.01 of their power


def test_a_tone_survives_and_stands_out_more() -> None:
    x = np.concatenate([noise(2, 0.02), sine(4, 1_000, 0.3) + noise(4, 0.02, seed=1)])
    y = denoise(x, RATE, over_subtraction=1.0)
    inside = slice(3 * RATE, 5 * RATE)
    assert tone_db(y[inside], 1_000) == pytest.approx(tone_db(x[inside], 1_000), abs=0.05)
    rest_x = x[inside] - sine(2, 1_000, 0.3)
    rest_y = y[inside] - sine(2, 1_000, 0.3)
    assert power_db(rest_x) - power_db(rest_y) > 2.5


def test_a_named_stretch_is_the_noise() -> None:
    """The stretch holds a hum that the quietest frames do not: only when it is named, the hum goes."""
    hum = sine(6, 500, 0.1)
    hum[: 2 * RATE] = 0.0
    x = hum + noise(6, 0.002)
    named = denoise(x, RATE, over_subtraction=1.0, noise_start_s=3.0)
    found = denoise(x, RATE, over_subtraction=1.0)
    inside = slice(5 * RATE - RATE // 2, 5 * RATE)
    assert tone_db(x[inside], 500) - tone_db(named[inside], 500) > 15
    assert tone_db(x[inside], 500) - tone_db(found[inside], 500) < 0.1


@pytest.mark.parametrize("noise_start_s", [None, 0.0, 0.5])
def test_padding_at_the_ends_is_not_taken_for_quiet(noise_start_s: float | None) -> None:
    """A steady tone is its own noise, so half of its power goes; frames that reach over the end hold less of it."""
    x = sine(2, 1_000, 0.1)
    y = denoise(x, RATE, noise_s=0.07, noise_start_s=noise_start_s)
    inside = slice(RATE // 2, RATE)
    assert tone_db(x[inside], 1_000) - tone_db(y[inside], 1_000) == pytest.approx(10 * np.log10(2), abs=0.05)


def test_digital_silence_is_not_taken_for_the_noise() -> None:
    x = noise(6, 0.05)
    x[: 2 * RATE] = 0.0
    y = denoise(x, RATE)
    assert power_db(x[3 * RATE :]) - power_db(y[3 * RATE :]) > 1.9
    assert not y[:RATE].any()


def test_silence_stays_silence() -> None:
    assert not denoise(np.zeros((2, RATE), dtype=np.float32), RATE).any()


@pytest.mark.parametrize("function", [denoise, compress])
def test_rows_do_not_know_each_other(function) -> None:  # type: ignore[no-untyped-def]
    rows = np.stack([noise(2, 0.3, seed) * 10.0**-seed for seed in range(3)])
    together = function(rows, RATE)
    for row, ours in zip(rows, together, strict=True):
        np.testing.assert_allclose(function(row, RATE), ours, atol=1e-6, rtol=0)


@pytest.mark.parametrize("function", [denoise, compress])
def test_the_input_is_left_alone(function) -> None:  # type: ignore[no-untyped-def]
    x = noise(1, 0.5)
    before = x.copy()
    function(x, RATE)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"over_subtraction": -0.1}, "over_subtraction = -0.1"),
        ({"floor": 1.5}, "floor = 1.5"),
        ({"noise_s": 0.0}, "noise_s = 0.0"),
        ({"noise_start_s": 3.5}, "3.5 [+] 1.0 s is not inside the 4.000 s"),
        ({"noise_start_s": -1.0}, "-1.0 [+] 1.0 s is not inside"),
        ({"over_subtraction": float("nan")}, "over_subtraction = nan"),
    ],
)
def test_denoise_names_what_is_out_of_range(bad: dict[str, float], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        denoise(noise(4, 0.1), RATE, **bad)


# --- compress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [200, 1_000])
@pytest.mark.parametrize("level_db", [-40.0, -20.0, -14.0, -8.0, 0.0])
def test_static_curve(level_db: float, hz: float) -> None:
    """Peak level L above the threshold of -20 dBFS comes out at -20 + (L + 20) / 4."""
    x = sine(2, hz, 10 ** (level_db / 20))
    steady = compress(x, RATE)[RATE:]
    expected = level_db if level_db <= -20 else -20 + (level_db + 20) / 4
    assert tone_db(steady, hz) + 20 * np.log10(np.sqrt(2)) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("threshold_db", "ratio"), [(-30.0, 2.0), (-10.0, 10.0), (-25.0, 1.0)])
def test_static_curve_of_other_settings(threshold_db: float, ratio: float) -> None:
    steady = compress(sine(2, 1_000, 0.5), RATE, threshold_db=threshold_db, ratio=ratio)[RATE:]
    level = 20 * np.log10(0.5)
    expected = threshold_db + (level - threshold_db) / ratio
    assert tone_db(steady, 1_000) + 20 * np.log10(np.sqrt(2)) == pytest.approx(expected, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 3_000), peak_db=st.floats(-60, -20.01))
def test_below_the_threshold_nothing_is_touched(n: int, peak_db: float) -> None:
    x = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32) * np.float32(10 ** (peak_db / 20))
    np.testing.assert_array_equal(compress(x, RATE), x)


def test_attack_and_release_take_their_time() -> None:
    loud, soft = sine(1, 1_000, 1.0), sine(1, 1_000, 0.1)
    gain_db = 20 * np.log10(np.abs(compress(np.concatenate([soft, loud, soft]), RATE) + 1e-12)) - 20 * np.log10(
        np.abs(np.concatenate([soft, loud, soft])) + 1e-12
    )

    def gain_at(seconds: float) -> float:
        around = round(seconds * RATE)
        return float(np.median(gain_db[around : around + 16]))  # one period

    assert gain_at(0.99) == pytest.approx(0.0, abs=1e-3)
    assert gain_at(1.005) == pytest.approx(-15.0 * (1 - np.exp(-1)), abs=1.2)  # one attack time after the step
    assert gain_at(1.9) == pytest.approx(-15.0, abs=0.1)
    assert gain_at(2.2) == pytest.approx(-15.0 + 0.75 * 8.69, abs=0.3)  # one release time: the envelope fell by 8.69 dB
    assert gain_at(2.9) == pytest.approx(0.0, abs=1e-2)


def test_envelope_equals_the_recursion() -> None:
    """The running maximum is the sample-by-sample detector of the paper."""
    x = noise(0.2, 0.3) * np.repeat([1.0, 0.05, 0.6, 0.0], 800).astype(np.float32)
    fall, keep = np.exp(-1 / (0.2 * RATE)), np.exp(-1 / (0.005 * RATE))
    envelope, reduction_db, expected = 0.0, 0.0, []
    for sample in x.astype(np.float64):
        envelope = max(abs(sample), fall * envelope)
        wanted_db = max(0.0, 20 * np.log10(envelope) + 20) * 0.75
        reduction_db = keep * reduction_db + (1 - keep) * wanted_db
        expected.append(sample * 10 ** (-reduction_db / 20))
    np.testing.assert_allclose(compress(x, RATE), expected, atol=1e-7, rtol=1e-5)


def test_the_range_shrinks() -> None:
    x = np.concatenate([sine(2, 440, 0.02), sine(2, 440, 0.8)])
    y = compress(x, RATE)
    before = power_db(x[3 * RATE :]) - power_db(x[:RATE])
    after = power_db(y[3 * RATE :]) - power_db(y[:RATE])
    assert after == pytest.approx(before - 0.75 * (20 * np.log10(0.8) + 20), abs=0.1)


@pytest.mark.parametrize("bad", [{"ratio": 0.5}, {"threshold_db": 3.0}, {"attack_s": 0.0}, {"release_s": -1.0}])
def test_compress_names_what_is_out_of_range(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(SettingsError, match=f"{name} = {value}"):
        compress(noise(0.1, 0.1), RATE, **bad)
