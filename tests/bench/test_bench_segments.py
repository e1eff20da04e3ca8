"""The ways to fill a segment that `bench.segments` compares, and its tracks' middles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.training.targets import WaveformStore
from bench.segments import FADE_S, FILLS, Middle, at_zero_crossings, compare, crossfaded, mirrored, repeated
from tests import makers

RATE = 8_000
SNIPPET = makers.sine(1.2345, 37.0, RATE)  # neither end is at a zero of the wave


@given(n_samples=st.integers(2, 500), n=st.integers(1, 2_000), fill=st.sampled_from(FILLS))
def test_every_way_fills_exactly(n_samples: int, n: int, fill) -> None:  # type: ignore[no-untyped-def]
    samples = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    filled = fill(samples, n, RATE)
    assert filled.shape == (n,)
    assert filled.dtype == np.float32
    assert np.abs(filled).max() <= np.abs(samples).max() * 1.4143  # two at equal power


def test_only_plain_repetition_jumps() -> None:
    """A slow sine moves by 1.5 % of full scale a sample; a join of the repeated one by thirty times that."""
    steepest = {fill: np.abs(np.diff(fill(SNIPPET, 5 * RATE, RATE))).max() for fill in FILLS}
    smooth = np.abs(np.diff(SNIPPET)).max()
    assert steepest[repeated] > 10 * smooth
    for fill in (crossfaded, at_zero_crossings, mirrored):
        assert steepest[fill] < 2 * smooth, fill.__name__


def test_a_crossfade_begins_with_the_track_and_keeps_its_level() -> None:
    filled = crossfaded(SNIPPET, 5 * RATE, RATE)
    before = len(SNIPPET) - round(FADE_S * RATE)
    np.testing.assert_array_equal(filled[:before], SNIPPET[:before])
    noise = makers.noise(1.2, RATE)
    level = crossfaded(noise, 6 * RATE, RATE).std() / noise.std()
    assert level == pytest.approx(1.0, abs=0.02), "equal power: what is unrelated does not dip"


def test_a_mirror_turns_around() -> None:
    filled = mirrored(SNIPPET, 3 * len(SNIPPET), RATE)
    np.testing.assert_array_equal(filled, np.concatenate([SNIPPET, SNIPPET[::-1], SNIPPET]))


def test_the_middle_of_a_stored_track(tmp_path: Path) -> None:
    whole = np.arange(1_000, dtype=np.int16)
    np.concatenate([whole, whole[:60]]).tofile(tmp_path / "waveforms.i16")
    index = {"stamp": "", "sample_rate": 100, "files": ["a", "b"], "offsets": [0, 1_000, 1_060]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    store = WaveformStore(tmp_path)
    cut = Middle(store, 2.0)
    assert (cut.length(0), cut.length(1)) == (200, 60)
    np.testing.assert_array_equal(cut.read(0), store.read(0)[400:600])
    np.testing.assert_array_equal(cut.read(0, 10, 5), store.read(0)[410:415])
    np.testing.assert_array_equal(cut.read(1), store.read(1))


def test_a_comparison_names_each_row_against_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    compare({("worse",): np.full((3, 2), 0.5), ("exact",): truth}, truth)
    worse, exact = capsys.readouterr().out.splitlines()
    entropy = -(truth * np.log(truth)).sum(axis=1).mean()
    assert f"{np.log(2):.3f}  +{np.log(2) - entropy:.3f}" in worse
    assert f"{entropy:.3f}  +0.000 +- 0.000        1.00" in exact
