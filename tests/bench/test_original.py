"""What must not pass for a fast answer: one that failed, or one that was said to be cached and was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from acoustic.cache import Cache
from acoustic.engine import OptimizedAudioClassifier
from acoustic.records import Failure
from acoustic.settings import Settings
from bench import original
from bench.memory import peak_of
from bench.songs import write_song
from bench.timing import in_turns

SONG = Path("song.wav")


@dataclass
class Answer:
    cached: bool


class Classifier:
    """Remembers what it was asked, as a cache does, unless it `forgets`."""

    def __init__(self, forgets: bool = False) -> None:
        self.asked: list[Path] = []
        self._forgets = forgets

    def analyze(self, path: Path) -> Answer:
        self.asked.append(path)
        return Answer(self.asked.count(path) > 1 and not self._forgets)

    def analyze_many(self, paths: Sequence[Path]) -> Iterator[tuple[int, Answer | Failure]]:
        for i, path in enumerate(paths):
            yield i, Failure(str(path), {"message": "cut off"}) if path.stem == "bad" else self.analyze(path)


def test_cached_answers_come_from_a_cache_that_was_filled_before_the_clock() -> None:
    classifier = Classifier()
    work = original._cached(classifier, [SONG])  # type: ignore[arg-type]
    assert classifier.asked == [SONG]
    work(SONG)
    assert len(classifier.asked) == 1 + original.N_CACHED


def test_an_answer_that_should_be_cached_and_is_not_ends_the_benchmark() -> None:
    work = original._cached(Classifier(forgets=True), [SONG])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"song\.wav: an answer that should have come from the cache"):
        work(SONG)


def test_a_file_that_fails_ends_the_benchmark() -> None:
    work = original._all_of(Classifier(), kept=False)  # type: ignore[arg-type]
    work([SONG, Path("other.wav")])
    with pytest.raises(RuntimeError, match=r"bad\.wav: cut off"):
        work([Path("third.wav"), Path("bad.wav")])


def test_what_is_kept_behind_a_first_answer_is_timed_where_the_row_says_so(tmp_path: Path) -> None:
    """With the cache on disk, emptied before each call and outside of its time."""
    song = write_song(tmp_path / "song.wav", 0, 12.0)
    settings = Settings(
        backend="eager", precision="float32", device="cpu", cache_dir=str(tmp_path), data_dir=str(tmp_path)
    )
    cache = Cache(tmp_path / "first-answers")
    n_written: list[int] = []

    def emptied() -> None:
        n_written.append(len(list((tmp_path / "first-answers").rglob("*.entry"))))
        cache.clear()

    with OptimizedAudioClassifier(settings=settings, cache=cache) as classifier:
        in_turns({"kept": original._first(classifier, kept=True)}, [song], 3, {"kept": emptied})
        assert n_written == [0, 4, 4], "digest, sketch, mels and votes"
        with pytest.raises(RuntimeError, match="should have been a first one"):
            original._first(classifier, kept=False)(song)


@pytest.mark.slow
def test_peaks_are_of_processes_of_their_own(tmp_path: Path) -> None:
    """The embedded model in a fresh process: torch alone takes 100 MB, and this process is larger than that one."""
    from acoustic.network.registry import EMBEDDED_MODEL
    from acoustic.settings import PROJECT_ROOT

    held = bytearray(3 * 2**30 // 2)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    song = write_song(tmp_path / "song.wav", 0, 5.0)
    peak = peak_of("ours", PROJECT_ROOT / "models" / EMBEDDED_MODEL, [song], tmp_path / "data")
    assert 100 < peak.loaded_mb <= peak.peak_mb < 1_500
