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
from acoustic.errors import AudioError, BackendError, SettingsError, StoppedError
from acoustic.network.backends import rivals
from acoustic.network.backends.compiled import CompiledBackend
from acoustic.network.backends.eager import EagerBackend
from acoustic.settings import Settings
from acoustic.workstation import what_if
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


# --- a backend that is compiled meanwhile ---

COMPILED = Choice(backend="compiled", precision="float32")
EAGER = Choice(backend="eager", precision="float32")


class Compiler:
    """Stands for torch.compile: the graph is the network itself; it may be held, or broken for a batch size."""

    def __init__(self, broken: int = 0) -> None:
        self.release, self.begun, self.broken = threading.Event(), threading.Event(), broken

    def __call__(self, network, **_):
        self.begun.set()
        self.release.wait(60)

        def graph(mels):
            if len(mels) == self.broken:
                raise RuntimeError("no C++ compiler\nand much more")
            return network(mels)

        return graph


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    made = Compiler()
    monkeypatch.setattr(rivals, "_compiled", lambda eager: CompiledBackend(eager, compile=made))
    monkeypatch.setattr("acoustic.network.backends.compiled.best_ms", lambda *_: 1.0)
    yield made
    made.release.set()


def test_what_is_compared_is_the_compiled_network(station: SimpleNamespace, tmp_path: Path, compiler: Compiler) -> None:
    path, found = song(tmp_path / "a.wav", 60.0), []
    thread = threading.Thread(target=lambda: found.append(compare(station, path, (EAGER, COMPILED), n_rounds=2)))
    thread.start()
    assert compiler.begun.wait(60)
    thread.join(1.0)
    assert thread.is_alive(), "it waits for the compiler"
    compiler.release.set()
    thread.join(120)
    [side] = [side for side in found[0].sides if side.backend["name"] == "compiled"]
    assert (side.ready, side.notes) == (True, ())
    assert side.backend["compiled"]["sizes"]["3"]["state"] == "ready"
    assert found[0].sides[0].notes == ()


@pytest.mark.parametrize("ended", ["slower", "differs", "failed"])
def test_where_eager_answers_it_says_so(
    station: SimpleNamespace, tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    """Of the batch size of the rounds alone: that of the warm-up, one segment, is not told of."""
    compiler.release.set()
    if ended == "slower":
        slower = lambda call, _: 28.0 if isinstance(call, EagerBackend) else 30.06  # noqa: E731
        monkeypatch.setattr("acoustic.network.backends.compiled.best_ms", slower)
    elif ended == "differs":
        monkeypatch.setattr("acoustic.network.backends.compiled.cosine", lambda *_: 0.5)
    else:
        compiler.broken = 3
    side = compare(station, song(tmp_path / "a.wav", 60.0), (EAGER, COMPILED), n_rounds=1).sides[1]
    assert side.ready
    [note] = side.notes
    assert note.startswith("eager answered batches of up to 3, because the graph compiled for them ")
    assert {
        "slower": "is slower (30.1 ms, where eager takes 28.0 ms)",
        "differs": "gives other answers (cosine 0.50000)",
        "failed": "failed (the network failed on cpu with 3 segments: no C++ compiler)",
    }[ended] in note


def test_waiting_for_the_compiler_can_be_stopped(station: SimpleNamespace, tmp_path: Path, compiler: Compiler) -> None:
    cancel = threading.Event()
    threading.Thread(target=lambda: compiler.begun.wait(60) and cancel.set()).start()
    with pytest.raises(StoppedError):
        compare(station, song(tmp_path / "a.wav", 20.0), (COMPILED, EAGER), cancel=cancel)
    assert not compiler.release.is_set()


def test_patience_has_an_end(
    station: SimpleNamespace, tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what_if, "READY_S", 0.2)
    path = song(tmp_path / "a.wav", 60.0)
    side = compare(station, path, (EAGER, COMPILED), n_rounds=1).sides[1]
    assert not side.ready
    ruled = SimpleNamespace(classifier=station.classifier, settings=dataclasses.replace(station.settings, rules=True))
    with pytest.raises(BackendError, match="the first way was not ready"):  # rules would wait for ever
        compare(ruled, path, (COMPILED, EAGER), n_rounds=1)
