"""What must not pass for a fast answer: one that failed, or one that was said to be cached and was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from acoustic.records import Failure
from bench import original
from bench.memory import peak_of

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
    work = original._all_of(Classifier())  # type: ignore[arg-type]
    work([SONG, SONG])
    with pytest.raises(RuntimeError, match=r"bad\.wav: cut off"):
        work([SONG, Path("bad.wav")])


@pytest.mark.slow
def test_peaks_are_of_processes_of_their_own(tmp_path: Path) -> None:
    """The embedded model in a fresh process: torch alone takes 100 MB, and this process is larger than that one."""
    from acoustic.network.registry import EMBEDDED_MODEL
    from acoustic.settings import PROJECT_ROOT
    from bench.songs import write_song

    held = bytearray(3 * 2**30 // 2)
    held[:: 2**12] = b"x" * len(held[:: 2**12])
    song = write_song(tmp_path / "song.wav", 0, 5.0)
    peak = peak_of("ours", PROJECT_ROOT / "models" / EMBEDDED_MODEL, [song], tmp_path / "data")
    assert 100 < peak.loaded_mb <= peak.peak_mb < 1_500
