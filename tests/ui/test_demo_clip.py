"""The demo clip is what its script makes, small, and says that it is synthetic."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import soundfile as sf

from acoustic.settings import PROJECT_ROOT

CLIP = PROJECT_ROOT / "assets" / "demo.ogg"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(PROJECT_ROOT / "assets" / "make_demo.py"))


def test_the_script_makes_the_clip_that_ships(script, tmp_path):
    script["write"](tmp_path / "demo.ogg", script["compose"]())
    made, rate = sf.read(tmp_path / "demo.ogg")
    shipped, shipped_rate = sf.read(CLIP)
    assert (rate, len(made)) == (shipped_rate, len(shipped)) == (24_000, 480_000)
    # encoders differ a little between versions; the music does not
    assert np.corrcoef(made, shipped)[0, 1] > 0.99


def test_two_runs_make_the_same_bytes(script, tmp_path):
    samples = script["compose"]()[:48_000]
    for name in ("one.ogg", "two.ogg"):
        script["write"](tmp_path / name, samples)
    assert (tmp_path / "one.ogg").read_bytes() == (tmp_path / "two.ogg").read_bytes()


def test_it_is_small_loud_enough_unclipped_and_labelled(script):
    samples = script["compose"]()
    assert np.abs(samples).max() == pytest.approx(script["PEAK"])
    assert 0.05 < np.sqrt(np.mean(samples**2)) < 0.4
    assert CLIP.stat().st_size < 300_000
    with sf.SoundFile(CLIP) as clip:
        assert "synthetic" in clip.title


def test_the_end_runs_on_into_the_beginning(script):
    samples = script["compose"]()
    seam = abs(samples[0] - samples[-1])
    assert seam <= np.abs(np.diff(samples)).max()
