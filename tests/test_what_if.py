"""Two ways to analyse on the same song: times and verdicts side by side, and nothing of it is kept."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import AudioError, SettingsError, StoppedError
from acoustic.settings import Settings
from acoustic.workstation.what_if import Choice, compare
from tests.test_engine import song


@pytest.fixture
def station(fresh: Settings) -> Iterator[SimpleNamespace]:
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        yield SimpleNamespace(classifier=classifier, settings=fresh)


def test_both_sides_are_what_an_analysis_of_their_own_gives(station: SimpleNamespace, tmp_path: Path) -> None:
    path, steps = song(tmp_path / "a.wav", 60.0), []
    found = compare(station, path, (Choice(), Choice(n_segments=5, denoise=True)), n_rounds=2, on_step=steps.append)
    changed = dataclasses.replace(station.settings, n_segments=5, denoise=True)
    with OptimizedAudioClassifier(settings=changed, cache=False) as other:
        answers = [station.classifier.analyze(path), other.analyze(path)]
    for side, answer in zip(found.sides, answers, strict=True):
        assert (side.top_genre, side.needs_review) == (answer.verdict.top_genre, answer.verdict.needs_review)
        assert side.top_confidence == pytest.approx(answer.verdict.top_confidence, abs=1e-5)
        assert side.review_reasons == answer.verdict.review_reasons
        assert {"load_audio", "mel_spectrogram", "inference", "total"} <= set(side.medians_ms)
        assert all(ms >= 0 for ms in side.medians_ms.values())
        assert side.medians_ms["total"] > side.medians_ms["inference"]
        assert side.ready
    assert [side.n_segments for side in found.sides] == [3, 5]
    first, second = (answer.verdict.probabilities for answer in answers)
    genre, before, after = found.moved
    assert abs(after - before) == pytest.approx(np.abs(second - first).max(), abs=1e-5)
    assert genre in station.classifier.labels
    assert found.faster == pytest.approx(found.sides[0].medians_ms["total"] / found.sides[1].medians_ms["total"])
    assert (found.file, found.n_rounds) == (str(path), 2)
    assert steps == ["making the first way ready", "making the second way ready", "round 1 of 2", "round 2 of 2"]


def test_the_same_way_twice_gives_the_same_verdict(station: SimpleNamespace, tmp_path: Path) -> None:
    found = compare(station, song(tmp_path / "a.wav", 20.0), (Choice(), Choice()), n_rounds=1)
    assert found.moved[1] == pytest.approx(found.moved[2], abs=1e-6)
    assert found.sides[0].top_confidence == pytest.approx(found.sides[1].top_confidence, abs=1e-6)


def test_nothing_of_it_is_kept(station: SimpleNamespace, tmp_path: Path) -> None:
    compare(station, song(tmp_path / "a.wav", 20.0), (Choice(), Choice(n_segments=1)), n_rounds=1)
    assert station.classifier.profiler.n_added == 0
    assert station.classifier.get_stats()["total_requests"] == 0
    assert not Path(station.settings.cache_dir).exists() or not list(Path(station.settings.cache_dir).rglob("*.bin"))


def test_what_a_person_taught_counts_in_both(station: SimpleNamespace, tmp_path: Path) -> None:
    class Taught:
        name, labels, calibration = "mine", ("Forró", "Choro"), station.classifier.card.calibration

        def read(self, votes):
            return dataclasses.replace(votes, logits=votes.logits[:, :2])

    station.classifier.personal = Taught()
    found = compare(station, song(tmp_path / "a.wav", 20.0), (Choice(), Choice(n_segments=1)), n_rounds=1)
    assert {found.moved[0], *(side.top_genre for side in found.sides)} <= {"Forró", "Choro"}


@pytest.mark.parametrize(
    "choice", [Choice(n_segments=65), Choice(n_segments=-1), Choice(backend="abacus"), Choice(precision="float7")]
)
def test_a_choice_that_is_none_is_refused_before_any_work(station: SimpleNamespace, choice: Choice) -> None:
    with pytest.raises(SettingsError):
        compare(station, "nowhere.wav", (Choice(), choice), on_step=lambda words: pytest.fail(words))


def test_a_song_that_cannot_be_heard_is_a_typed_error(station: SimpleNamespace, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_text("<html>")
    n = threading.active_count()
    with pytest.raises(AudioError):
        compare(station, bad, (Choice(), Choice()))
    assert threading.active_count() <= n


def test_it_can_be_stopped(station: SimpleNamespace, tmp_path: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(StoppedError):
        compare(
            station,
            song(tmp_path / "a.wav", 20.0),
            (Choice(), Choice()),
            n_rounds=50,
            on_step=lambda words: cancel.set() if words.startswith("round 2") else None,
            cancel=cancel,
        )
