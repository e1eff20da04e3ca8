"""Whether memory grew, the songs behind the names; and that made songs are what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from acoustic.records import Failure
from acoustic.settings import Settings
from bench import gate, scaling, songs


class Backend:
    name, precision = "eager", "float32"


class Classifier:
    """As much of one as a run asks for: its network takes 1 s of each file's 2, by a clock of its own (`now_s`); files
    called `bad` fail."""

    def __init__(self) -> None:
        self.backend, self.settings, self._busy_s = Backend(), Settings(decode_workers=3), 5.0
        self.now_s = 100.0

    def load(self) -> dict[str, float]:
        return {"network_busy_s": self._busy_s}

    def analyze_many(self, paths: list[Path]) -> Iterator[tuple[int, object]]:
        for i, path in enumerate(paths):
            self.now_s += 2.0
            self._busy_s += 1.0
            yield i, Failure(path.name, {"message": "not audio"}) if path.stem == "bad" else object()


def test_a_run_measures_its_own_files_and_no_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier()
    monkeypatch.setattr(scaling, "time", SimpleNamespace(perf_counter=lambda: classifier.now_s))
    one = scaling.run(classifier, [Path(f"{i}.wav") for i in range(12)], "here")  # type: ignore[arg-type]
    assert (one.what, one.backend, one.n_workers, one.n_files) == ("here", "eager float32", 3, 12)
    assert (one.seconds, one.files_a_second, one.lane_busy) == (24.0, 0.5, 0.5)
    assert one.rss_mb > 10


def test_a_file_without_an_answer_is_not_a_fast_one() -> None:
    with pytest.raises(RuntimeError, match=r"bad\.wav: not audio"):
        scaling.run(Classifier(), [Path("bad.wav")], "here")  # type: ignore[arg-type]


def grown(samples: list[tuple[int, float]]) -> float:
    memory = scaling.Memory()
    memory.samples = samples
    return memory.grown_mb()


def test_growth_is_told_from_noise_and_from_the_start() -> None:
    noise = np.random.default_rng(0).normal(0, 20, 1_000)
    flat = [(n, (300.0 if n > 50 else 100.0) + noise[n - 1]) for n in range(1, 1_001)]
    leak = [(n, mb + 0.1 * n) for n, mb in flat]
    assert abs(grown(flat)) < 10
    assert grown(leak) == pytest.approx(90, abs=15)
    assert grown(flat[:5]) == 0.0


@pytest.mark.parametrize("at", range(1, 13))
def test_a_buffer_that_is_taken_once_is_no_growth(at: int) -> None:
    stepped = [(n, 1_880.0 + (33.0 if n >= at else 0.0)) for n in range(1, 13)]
    assert grown(stepped) == pytest.approx(0.0, abs=1e-9)
    assert grown([(n, mb + 3.5 * n) for n, mb in stepped]) > gate.MOST_GROWN_MB


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


def test_a_row_names_rate_and_growth() -> None:
    one = scaling.Scale("as it ships", "openvino int8", 2, 1_000, 50.0, 0.875, 612.0, 3.4)
    row = scaling.line(one)
    assert row == "| as it ships | openvino int8 | 2 | 1,000 | 20.0 | 0.88 | 612 | +3 |"
    assert {text.count("|") for text in (*scaling.HEAD.splitlines(), row)} == {9}
