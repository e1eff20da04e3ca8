"""The engine on real files with a small random model: same answer however it is asked, nothing lost, nothing thrown."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acoustic import decoding
from acoustic.cache import Cache
from acoustic.contents import Contents
from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import (
    AudioError,
    BackendError,
    ModelError,
    NotAudioError,
    SettingsError,
    StoppedError,
    StorageError,
)
from acoustic.records import Analysis, Failure
from acoustic.settings import Settings, available_cores
from acoustic.signal import audio, files
from tests.conftest import GENRES, TAGS

ROOT = Path(__file__).resolve().parent.parent
RATE = 22_050


def song(path: Path, seconds: float = 25.0, seed: int = 0) -> Path:
    """Three chords over noise; every seed another song."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(80, 2000, 3))
    swell = 0.5 + 0.4 * np.sin(2 * np.pi * t * rng.uniform(0.5, 3))
    soundfile.write(path, (0.15 * tones * swell + rng.normal(0, 0.02, len(t))).astype(np.float32), RATE)
    return path


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("songs")
    return [song(folder / f"{seed}.wav", 12.0 + 13 * seed, seed) for seed in range(4)]


@pytest.fixture
def classifier(fresh: Settings) -> Iterator[OptimizedAudioClassifier]:
    with OptimizedAudioClassifier(settings=fresh) as made:
        yield made


def assert_same(a: Analysis, b: Analysis) -> None:
    assert a.verdict.probabilities == pytest.approx(b.verdict.probabilities, abs=1e-5)
    assert a.verdict.segment_probabilities == pytest.approx(b.verdict.segment_probabilities, abs=1e-5)
    assert a.embedding == pytest.approx(b.embedding, abs=1e-4)
    assert (a.start_s, a.end_s, a.duration_s, a.warnings) == (b.start_s, b.end_s, b.duration_s, b.warnings)
    assert a.verdict.review_reasons == b.verdict.review_reasons


def test_the_json_contract(classifier: OptimizedAudioClassifier, songs: list[Path]) -> None:
    said = json.loads(json.dumps(classifier.analyze(songs[2]).to_dict(top_k=2), allow_nan=False))
    keys = (
        "file status error model duration_s analyzed_s cached top_genre top_confidence predictions probabilities "
        "uncertainty agreement prediction_set needs_review review_reasons segments descriptors tags rules_applied "
        "warnings timings_ms"
    )
    assert list(said) == keys.split()
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    told = json.loads(page.split("```json")[1].split("```")[0])
    assert [key for key in told if key != "personal"] == keys.split()
    assert all(list(told[key][0]) == list(said[key][0]) for key in ("predictions", "segments", "tags"))
    assert (said["file"], said["status"], said["error"]) == (str(songs[2]), "ok", None)
    assert list(said["probabilities"]) == list(GENRES)
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert said["predictions"][0]["genre"] == said["top_genre"]
    assert len(said["predictions"]) == 2
    assert said["duration_s"] == pytest.approx(38.0, abs=0.01)
    assert said["descriptors"] is None
    assert {t["tag"] for t in said["tags"]} == set(TAGS)
    stages = ("load_audio", "mel_spectrogram", "preprocess", "inference", "postprocess", "total")
    assert all(said["timings_ms"][stage] >= 0 for stage in stages)
    assert 0 < said["analyzed_s"] <= said["duration_s"]


def test_stages_add_up_to_the_total(classifier: OptimizedAudioClassifier, songs: list[Path]) -> None:
    classifier.analyze(songs[0])
    timings = dict(classifier.analyze(songs[1]).timings_ms)
    total = timings.pop("total")
    assert 0.8 * total < sum(timings.values()) < 1.01 * total


def test_same_answer_from_the_cache_and_without_one(
    classifier: OptimizedAudioClassifier, fresh: Settings, songs: list[Path]
) -> None:
    first = classifier.analyze(songs[1])
    second = classifier.analyze(songs[1])
    assert (first.cached, second.cached) == (False, True)
    with (
        OptimizedAudioClassifier(settings=fresh, cache=False) as bare,
        OptimizedAudioClassifier(settings=fresh) as again,
    ):
        third, fourth = bare.analyze(songs[1]), again.analyze(songs[1])
    assert (third.cached, fourth.cached) == (False, True)  # the fourth one from the disk
    for other in (second, third, fourth):
        assert_same(first, other)


def test_same_answer_alone_and_in_a_batch(fresh: Settings, songs: list[Path]) -> None:
    with OptimizedAudioClassifier(settings=fresh, cache=False) as classifier:
        alone = [classifier.analyze(path) for path in songs]
        together = dict(classifier.analyze_many(songs * 2))
    assert sorted(together) == list(range(2 * len(songs)))
    for i, answer in together.items():
        assert isinstance(answer, Analysis)
        assert_same(answer, alone[i % len(songs)])


def test_where_a_graph_is_kept_an_analysis_loads_no_torch(fresh: Settings, songs: list[Path]) -> None:
    """It would bring 180 MB and most of a second to each start and each worker; librosa and its numba as much again."""
    code = """
import sys
from acoustic import OptimizedAudioClassifier
from acoustic.settings import Settings
settings = Settings(model=sys.argv[1], cache_dir=sys.argv[2], backend="openvino", precision="float32")
with OptimizedAudioClassifier(settings=settings, n_threads=1) as classifier:
    classifier.warm_up(described=False)
    genre = classifier.analyze(sys.argv[3]).to_dict()["top_genre"]
heavy = {"torch", "transformers", "librosa", "numba", "sklearn", "pandas", "gradio"} & set(sys.modules)
print(genre, sorted(heavy))
"""
    args = [sys.executable, "-c", code, fresh.model, fresh.cache_dir, str(songs[0])]
    first, second = (subprocess.run(args, capture_output=True, text=True, cwd=ROOT, check=True).stdout for _ in "12")
    genre, heavy = first.split(maxsplit=1)
    assert "torch" in heavy, "the first start converts the network"
    assert second == f"{genre} []\n"


def test_content_decides_not_the_name(classifier: OptimizedAudioClassifier, songs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "renamed.mp3"
    first = classifier.analyze(songs[0])
    assert classifier.wait_for_cache(60)
    shutil.copy(songs[0], copy)
    assert classifier.analyze(copy).cached
    song(copy, 14, seed=77)
    changed = classifier.analyze(copy)
    assert not changed.cached
    assert changed.duration_s != first.duration_s


@pytest.mark.skipif(available_cores() < 2, reason="there is no second core to digest on")
def test_a_new_file_that_is_alone_is_digested_behind_its_answer(
    classifier: OptimizedAudioClassifier, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the digest of a long file but whoever asks for the same file again."""
    hold = threading.Event()

    def digest(path: str, settings: Settings) -> str:
        assert hold.wait(60)
        return files.digest(path)

    monkeypatch.setattr(audio, "digest", digest)
    first = classifier.analyze(songs[0])
    assert not classifier.wait_for_cache(0.05)
    threading.Timer(0.2, hold.set).start()
    second = classifier.analyze(songs[0])  # it does not decode it anew, but waits
    assert (first.cached, second.cached) == (False, True)
    assert_same(first, second)
    copy = tmp_path / "copy.wav"
    copy.write_bytes(songs[0].read_bytes())
    assert classifier.analyze(copy).cached  # it looks like one that is known, so it is digested first


@pytest.mark.skipif(available_cores() < 2, reason="there is no second core to digest on")
def test_a_file_that_changes_behind_its_answer_is_not_kept(
    classifier: OptimizedAudioClassifier, songs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = tmp_path / "changing.wav"
    changing.write_bytes(songs[0].read_bytes())

    def digest(path: str, settings: Settings) -> str:
        changing.write_bytes(songs[1].read_bytes())
        os.utime(changing, (1, 1))
        return files.digest(path)

    monkeypatch.setattr(audio, "digest", digest)
    first = classifier.analyze(changing)
    assert classifier.wait_for_cache(60)
    monkeypatch.undo()
    second = classifier.analyze(changing)
    assert not second.cached
    with pytest.raises(AssertionError):
        assert_same(first, second)


def test_after_it_was_closed_it_says_so(fresh: Settings, songs: list[Path]) -> None:
    classifier = OptimizedAudioClassifier(settings=fresh)
    classifier.close()
    for ask in (classifier.analyze, classifier.describe):
        with pytest.raises(StoppedError):
            ask(songs[0])


def test_settings_that_change_the_answer_change_the_key(fresh: Settings, songs: list[Path]) -> None:
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        classifier.analyze(songs[3])
    for change in ({"n_segments": 1}, {"denoise": True}, {"compress": True}, {"segment_mode": "middle"}):
        with OptimizedAudioClassifier(settings=dataclasses.replace(fresh, **change)) as other:
            assert not other.analyze(songs[3]).cached, change


def test_one_bad_file_never_fails_the_rest(
    classifier: OptimizedAudioClassifier, songs: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.mp3"
    text.write_text("not a song\n" * 100)
    paths = [songs[0], text, tmp_path / "none.wav", tmp_path, songs[1]]
    said = asyncio.run(classifier.process_audio_batch(paths))
    assert [one["file"] for one in said] == [str(path) for path in paths]
    assert [one["status"] for one in said] == ["ok", "error", "error", "error", "ok"]
    assert [one["error"]["code"] for one in said[1:4]] == ["NOT_AUDIO", "STORAGE", "NOT_AUDIO"]
    assert all(one["error"]["hint"] for one in said[1:4])
    assert set(said[1]) == {"file", "status", "error"}
    with pytest.raises(NotAudioError):
        classifier.analyze(text)
    with pytest.raises(StorageError):
        classifier.analyze(tmp_path / "none.wav")


def test_our_own_fault_is_reported_and_the_rest_goes_on(
    classifier: OptimizedAudioClassifier, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = classifier._decoded

    def broken(path: str, *rest: object) -> object:
        if path == str(songs[0]):
            raise ZeroDivisionError("a bug")
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier, "_decoded", broken)
    done = dict(classifier.analyze_many(songs[:2]))
    assert isinstance(done[0], Failure)
    assert done[0].error["code"] == "INTERNAL"
    assert "ZeroDivisionError" in done[0].error["message"]
    assert isinstance(done[1], Analysis)


def test_stages_are_told_in_order(classifier: OptimizedAudioClassifier, songs: list[Path]) -> None:
    told: dict[int, list[str]] = {}
    lock = threading.Lock()

    def on_stage(index: int, stage: str) -> None:
        with lock:
            told.setdefault(index, []).append(stage)

    list(classifier.analyze_many(songs[:2], on_stage=on_stage))
    assert told == {i: ["load_audio", "mel_spectrogram", "inference", "done"] for i in range(2)}


def test_stopping_early_stops_the_work(fresh: Settings, songs: list[Path]) -> None:
    with OptimizedAudioClassifier(settings=fresh, cache=False) as classifier:
        answers = classifier.analyze_many(songs * 50)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        stats = classifier.get_stats()
        assert classifier.load()["waiting_files"] == 0  # what was taken back does not wait any more
    assert stats["total_requests"] < 20


def test_closing_stops_what_waits_and_loses_nothing(fresh: Settings, songs: list[Path]) -> None:
    """Every path gets its answer or STOPPED, whatever was under way; nobody waits for ever."""
    classifier = OptimizedAudioClassifier(settings=fresh, cache=False)
    done: dict[int, Analysis | Failure] = {}

    def run() -> None:
        done.update(classifier.analyze_many(songs * 10))

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    while not classifier.get_stats()["total_requests"]:
        pass
    classifier.close()
    worker.join(30)
    assert sorted(done) == list(range(10 * len(songs)))
    stopped = [one.error["code"] for one in done.values() if isinstance(one, Failure)]
    assert stopped
    assert set(stopped) == {"STOPPED"}


def test_bounds_hold_for_cached_answers_too(fresh: Settings, tmp_path: Path) -> None:
    path = song(tmp_path / "short.wav", 3)
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        classifier.analyze(path)
    with OptimizedAudioClassifier(settings=dataclasses.replace(fresh, min_duration_s=10.0)) as strict:
        with pytest.raises(AudioError) as caught:
            strict.analyze(path)
        assert caught.value.code == "TOO_SHORT"


def test_a_batch_of_no_segments_is_refused(fresh: Settings) -> None:
    with pytest.raises(SettingsError, match="batch_size"):
        OptimizedAudioClassifier(settings=fresh, batch_size=-1)


def test_descriptors_only_when_asked_for(classifier: OptimizedAudioClassifier, songs: list[Path]) -> None:
    assert classifier.analyze(songs[1]).descriptors is None
    asked = classifier.analyze(songs[1], descriptors=True).descriptors
    assert asked is not None
    assert asked == classifier.describe(songs[1])
    assert asked.low_freq_ratio is not None
    assert 0 <= asked.low_freq_ratio <= 1
    assert asked.vocal_presence is not None
    assert 0 <= asked.vocal_presence <= 1


def test_stats_count_what_happened(classifier: OptimizedAudioClassifier, songs: list[Path]) -> None:
    for _ in range(3):
        classifier.analyze(songs[0])
    with pytest.raises(AudioError):
        classifier.analyze("none.wav")
    stats = classifier.get_stats()
    assert (stats["total_requests"], stats["cache_hits"]) == (4, 2)
    assert stats["cache_hit_rate"] == pytest.approx(0.5)
    assert stats["device"] == "cpu"
    assert stats["using_fp16"] is False
    assert stats["avg_inference_time"] > 0
    assert stats["avg_preprocess_time"] > 0


def test_what_cannot_be_set_up_says_so(fresh: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        OptimizedAudioClassifier("no-such-model", settings=fresh)
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(BackendError) as caught:
            OptimizedAudioClassifier(device="cuda", settings=fresh)
        assert caught.value.hint


def test_a_damaged_cache_changes_nothing(fresh: Settings, songs: list[Path]) -> None:
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        first = classifier.analyze(songs[1])
    for file in Path(fresh.cache_dir).rglob("*.entry"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0x40
        file.write_bytes(data)
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        second = classifier.analyze(songs[1])
    assert not second.cached
    assert_same(first, second)


def test_a_name_of_half_a_character_fails_alone(classifier: OptimizedAudioClassifier, tmp_path: Path) -> None:
    """As JSON can hold it, and no file."""
    good = song(tmp_path / "good.wav", 11)
    said = asyncio.run(classifier.process_audio_batch([good, "\ud800.mp3"]))
    assert [one["status"] for one in said] == ["ok", "error"]
    assert said[1]["error"]["code"] == "STORAGE"
    assert "\ufffd" in said[1]["file"]


@pytest.mark.parametrize("digested", [False, True])
def test_a_song_that_is_exchanged_while_it_is_heard_is_told_and_nothing_is_kept_of_it(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digested: bool
) -> None:
    path, other = song(tmp_path / "a.wav", 11, 1), song(tmp_path / "b.wav", 11, 2)
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        apart = [classifier.analyze(one) for one in (path, other)]
        plain = decoding.read

        def exchanged(*arguments: object) -> object:
            (tmp_path / "c.wav").write_bytes(other.read_bytes())
            (tmp_path / "c.wav").replace(path)
            return plain(*arguments)

    with OptimizedAudioClassifier(settings=fresh, cache=Cache(tmp_path / "empty")) as classifier:
        with monkeypatch.context() as at:
            at.setattr(decoding, "read", exchanged)
            at.setattr(Contents, "looks_known", lambda *_: digested)  # then it is digested before it is heard
            [(_, answer)] = classifier.analyze_many([path])
        if digested:
            assert isinstance(answer, Failure)
            assert "was changed while it was read" in answer.error["message"]
        classifier.wait_for_cache()
        again = classifier.analyze(path)
        assert isinstance(again, Analysis)
        assert isinstance(apart[1], Analysis)
        assert again.verdict.probabilities == pytest.approx(apart[1].verdict.probabilities, abs=1e-5)
