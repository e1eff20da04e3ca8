"""How busy the lane was, whether memory grew, the songs behind the names; and that made songs are what they say."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acoustic.lane import InferenceLane
from acoustic.records import Votes
from bench import scaling, songs
from bench.machine import Machine


def votes_of(mels: np.ndarray) -> Votes:
    n = len(mels)
    return Votes(np.zeros((n, 3), np.float32), np.zeros((n, 0), np.float32), np.zeros((n, 2), np.float32))


class Classifier:
    """What `watch` asks of one."""

    def __init__(self, lane: InferenceLane) -> None:
        self._lane = lane


def test_the_lane_is_busy_while_it_computes_and_at_no_other_time() -> None:
    def slow(mels: np.ndarray) -> Votes:
        time.sleep(0.05)
        return votes_of(mels)

    lane = InferenceLane(slow, 8)
    watched = scaling.watch(Classifier(lane))  # type: ignore[arg-type]
    try:
        for _ in range(3):
            lane.submit(np.zeros((2, 16, 224), np.float32)).result()
            time.sleep(0.1)
    finally:
        lane.close()
    assert 0.15 <= watched.busy_s < 0.3


def test_a_backend_that_fails_was_busy_too() -> None:
    def broken(mels: np.ndarray) -> Votes:
        time.sleep(0.02)
        raise RuntimeError("no")

    watched = scaling.Watched(broken)
    with pytest.raises(RuntimeError, match="no"):
        watched(np.zeros((1, 16, 224), np.float32))
    assert watched.busy_s >= 0.02


def grown(samples: list[tuple[int, float]]) -> float:
    memory = scaling.Memory()
    memory.samples = samples
    return memory.grown_mb()


def test_growth_is_told_from_noise_and_from_the_start() -> None:
    noise = np.random.default_rng(0).normal(0, 20, 1_000)
    flat = [(n, (300.0 if n > 50 else 100.0) + noise[n - 1]) for n in range(1, 1_001)]
    leak = [(n, mb + 0.1 * n) for n, mb in flat]
    assert abs(grown(flat)) < 10
    assert grown(leak) == pytest.approx(90, abs=10)
    assert grown(flat[:5]) == 0.0


def test_names_are_of_the_same_songs_in_turn(tmp_path: Path) -> None:
    made = songs.write_songs(tmp_path / "songs", 3, ("wav", "flac"), seconds=1.0)
    paths = scaling.linked(made, 7, tmp_path / "links")
    assert [path.suffix for path in made] == [".wav", ".flac", ".wav"]
    assert len(set(paths)) == 7
    assert all(path.samefile(made[i % 3]) for i, path in enumerate(paths))


def test_made_songs_have_their_length_differ_by_seed_and_are_the_same_again(tmp_path: Path) -> None:
    first, again, other = (songs.made_song(seed, 2.0) for seed in (1, 1, 2))
    assert first.shape == (2 * songs.RATE, 2)
    assert first.dtype == np.float32
    assert 0.1 < np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, again)
    assert np.corrcoef(first[:, 0], other[:, 0])[0, 1] < 0.9
    for suffix in songs.FORMATS:
        info = soundfile.info(songs.write_song(tmp_path / f"song.{suffix}", 1, 2.0))
        assert (info.samplerate, info.channels) == (songs.RATE, 2)
        assert info.duration == pytest.approx(2.0, abs=0.1)


def test_the_table_names_rate_and_growth() -> None:
    one = scaling.Scale("as it ships", "openvino int8", 2, 1_000, 50.0, 0.875, 612.0, 3.4)
    text = scaling.table(Machine("p", 2, None, None, "3", {}), [one])
    assert "| as it ships | openvino int8 | 2 | 1,000 | 20.0 | 0.88 | 612 | +3 |" in text
