"""Blends: made of the training part alone, the same for a seed, asked about by themselves, drawn by their share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.errors import SettingsError
from acoustic.records import Calibration
from acoustic.training.blends import PEAK, blend
from acoustic.training.config import BLENDS, BlendSpec, TrainConfig
from acoustic.training.finish import describe
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.student import new_student
from acoustic.training.targets import WaveformStore, keep_waveforms
from tests.training.test_train import CONFIG, data, silent  # noqa: F401 (a fixture)

RATE = 8_000
SPEC = BlendSpec(n=6, seconds=6.0, share=1.0)
BLENDED = dataclasses.replace(CONFIG, blends=SPEC)


def tones(folder: Path) -> WaveformStore:
    """Three tracks of one tone each, 300, 1,000 and 3,000 Hz, of 4, 8 and 30 s."""
    waveforms = [
        0.3 * np.sin(2 * np.pi * hz * np.arange(RATE * seconds) / RATE)
        for hz, seconds in ((300, 4), (1_000, 8), (3_000, 30))
    ]
    return keep_waveforms(["a", "b", "c"], waveforms, folder, RATE, "tones")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WaveformStore:
    return tones(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def blended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:  # noqa: F811
    return prepare(BLENDED, data, tmp_path_factory.mktemp("blended"), silent)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), seconds=st.sampled_from([1.0, 6.0, 20.0]), partner_p=st.sampled_from([0.0, 0.7, 1.0])
)
def test_a_blend_is_as_long_as_was_asked_finite_and_never_clips(
    store: WaveformStore, seed: int, seconds: float, partner_p: float
) -> None:
    spec = BlendSpec(n=1, seconds=seconds, share=1.0, partner_p=partner_p)
    made, again = (blend(spec, store, [0, 1, 2], np.random.default_rng(seed)) for _ in range(2))
    assert made.dtype == np.float32
    assert made.shape == (round(seconds * RATE),)
    assert np.abs(made).max() == pytest.approx(PEAK, rel=1e-5)
    assert np.array_equal(made, again)


def test_the_second_song_lies_below_the_first_by_what_was_drawn(store: WaveformStore) -> None:
    spec = BlendSpec(n=1, seconds=3.0, share=1.0, partner_p=1.0, level_db=(-12.0, -12.0), speed_range=(1.0, 1.0))
    made = blend(spec, store, [1, 2], np.random.default_rng(0))
    power = np.abs(np.fft.rfft(made * np.hanning(len(made)))) ** 2
    low, high = power[3 * 950 : 3 * 1_050].sum(), power[3 * 2_950 : 3 * 3_050].sum()
    assert abs(10 * np.log10(low / high)) == pytest.approx(12.0, abs=0.2)


def test_speed_moves_the_pitch_within_its_range(store: WaveformStore) -> None:
    spec = BlendSpec(n=1, seconds=2.0, share=1.0, partner_p=0.0)
    found = []
    for seed in range(20):
        made = blend(spec, store, [1], np.random.default_rng(seed))
        found.append(np.abs(np.fft.rfft(made)).argmax() / 2)
    assert 840 - 2 <= min(found) < 950
    assert 1_050 < max(found) <= 1_190 + 2


def test_silence_blends_into_silence(tmp_path: Path) -> None:
    silent_store = keep_waveforms(["a", "b"], [np.zeros(RATE), np.zeros(RATE)], tmp_path, RATE, "silence")
    assert not blend(SPEC, silent_store, [0, 1], np.random.default_rng(0)).any()


def test_joined_stores_read_as_each_of_them(tmp_path: Path, store: WaveformStore) -> None:
    other = keep_waveforms(["d"], [np.linspace(-1, 1, 5_000)], tmp_path, RATE, "other")
    both = store.joined(other)
    assert both.files == ["a", "b", "c", "d"]
    assert [both.length(t) for t in range(4)] == [*(store.length(t) for t in range(3)), 5_000]
    assert np.array_equal(both.read(2, 100, 50), store.read(2, 100, 50))
    assert np.array_equal(both.read(3, 4_900, 300), other.read(0, 4_900, 300))
    assert both.stamp not in (store.stamp, other.stamp)


def test_blends_come_after_the_tracks_and_only_from_what_is_trained_on(blended: Prepared) -> None:
    n = len(blended.rows) - SPEC.n
    assert {row.source for row in blended.rows[n:]} == {BLENDS}
    assert max(*blended.train, *blended.held) < n
    drawn = np.concatenate([blended.dataset._plan(step).track for step in range(200)])
    assert (drawn >= n).mean() == pytest.approx(0.5, abs=0.05)  # a share of 1 beside sources of 1
    assert not set(drawn.tolist()) & set(blended.held)


def test_a_blend_has_its_own_answers_and_no_genre_but_the_teachers(
    data: Path,  # noqa: F811
    tmp_path: Path,
    blended: Prepared,
) -> None:
    d, track = blended.dataset, len(blended.rows) - 1
    _, made = d.answers[0].of_crop(track, 0.0, d.segment_s)
    assert made.shape == d.answers[0].of_crop(0, 0.0, d.segment_s)[1].shape
    *_, genre, weight = d.standard_targets(track, 0.0)
    assert weight == 1.0
    assert np.allclose(genre, d.space.probabilities(d.features(track, 0.0)[None])[0])  # type: ignore[union-attr]
    plain = prepare(CONFIG, data, tmp_path, silent).dataset
    for mine, theirs in zip(d.scales, plain.scales, strict=True):  # a model that goes on with blends says the same
        assert np.array_equal(mine.mean, theirs.mean)
    assert np.array_equal(d.standard_targets(3, 1.0)[0], plain.standard_targets(3, 1.0)[0])


def test_blends_are_made_once_and_anew_for_another_way_of_blending(data: Path, tmp_path: Path) -> None:  # noqa: F811
    first = prepare(BLENDED, data, tmp_path, silent)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "blends").iterdir()}
    rarer = dataclasses.replace(BLENDED, blends=dataclasses.replace(SPEC, share=0.2))
    assert prepare(rarer, data, tmp_path, silent).stamp == first.stamp
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "blends").iterdir()}
    louder = dataclasses.replace(BLENDED, blends=dataclasses.replace(SPEC, level_db=(-3.0, 0.0)))
    assert prepare(louder, data, tmp_path, silent).stamp != first.stamp
    assert prepare(CONFIG, data, tmp_path, silent).stamp != first.stamp


def test_the_card_tells_of_blends_and_counts_only_what_was_recorded(
    data: Path,  # noqa: F811
    tmp_path: Path,
    blended: Prepared,
) -> None:
    plain = prepare(CONFIG, data, tmp_path, silent)
    cards = [describe(c, p, new_student(p, c), Calibration(), {}) for c, p in ((BLENDED, blended), (CONFIG, plain))]
    recipes = [card.training["recipe"] for card in cards]
    assert recipes[0]["blends"]["n"] == SPEC.n
    assert "blends" not in recipes[1]
    assert recipes[0]["hours_of_audio"] == recipes[1]["hours_of_audio"] > 0
    assert cards[0].training["sources"] == cards[1].training["sources"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("n = 5", "both a number and a share"),
        ("share = 0.5", "both a number and a share"),
        ("n = -1\nshare = 0.5", r"blends\.n = -1 must be from 0 to"),
        ("n = 5\nshare = -0.5", r"blends\.share = -0\.5 must be from 0 to"),
        ("n = 5\nshare = 0.5", "without a teacher"),
        ("seconds = 0.0", "from 1 to 600"),
        ("partner_p = 1.5", "from 0 to 1"),
        ("speed_range = [1.2, 0.9]", "must rise"),
        ("level_db = [-3.0, 3.0]", "must rise to 0 at most"),
    ],
)
def test_blends_that_make_no_sense_are_refused(tmp_path: Path, lines: str, complaint: str) -> None:
    text = 'name = "x"\ndescription = ""\nlabels = ["Low", "High"]\n[[sources]]\nname = "songs"\nfolder = "songs"\n'
    (tmp_path / "run.toml").write_text(f"{text}[architecture]\n[blends]\n{lines}\n")
    with pytest.raises(SettingsError, match=complaint):
        TrainConfig.read(tmp_path / "run.toml")
