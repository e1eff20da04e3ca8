"""What the Profiler page reads, over a real classifier with a small model."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acoustic import decoding
from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import StorageError
from acoustic.profiler import Profiler, Run
from acoustic.settings import Settings
from acoustic.workstation import performance as performance_module
from acoustic.workstation.performance import OVER_S, Performance, load_of, throughput, trace_file
from tests.test_decoding import heard_elsewhere
from tests.test_engine import song


@pytest.fixture
def station(fresh: Settings) -> Iterator[SimpleNamespace]:
    with OptimizedAudioClassifier(settings=fresh) as classifier:
        yield SimpleNamespace(classifier=classifier, settings=fresh, scanning=False)


def test_a_reading_tells_of_songs_machine_and_backend(station: SimpleNamespace, tmp_path: Path) -> None:
    performance = Performance(station)
    path = song(tmp_path / "a.wav", 40.0)
    before = performance.read()
    assert (before.n_runs, before.runs, before.bottleneck, before.busy) == (0, (), None, False)
    station.classifier.analyze(path)
    station.classifier.analyze(path)
    reading = performance.read()
    first, again = reading.runs
    assert (first.label, again.label) == (str(path), str(path))
    assert (first.cached, again.cached) == (False, True)
    assert reading.busy
    assert (reading.n_requests, reading.answers_known) == (2, 0.5)
    assert reading.batch_sizes == {3: 1}
    assert reading.backend["device"] == "cpu"
    assert reading.cache is not None
    assert reading.throughput.n_songs == 2
    assert reading.throughput.songs_per_s == pytest.approx(2 / reading.throughput.over_s)
    assert reading.percentiles["total"].n == 2
    assert performance.read(after_run=first.number).runs == (again,)
    assert performance.run(1) == first
    assert performance.run(3) is None
    performance.stop()


def test_known_answers_are_no_bottleneck(station: SimpleNamespace, tmp_path: Path) -> None:
    first = song(tmp_path / "a.wav", 60.0)
    station.classifier.analyze(first)
    station.classifier.wait_for_cache()
    station.classifier.profiler = Profiler()  # nothing but the copies is seen
    copies = [Path(shutil.copy(first, tmp_path / f"copy {i}.wav")) for i in range(4)]
    assert all(station.classifier.analyze(copy).cached for copy in copies)
    performance = Performance(station)
    reading = performance.read()
    performance.stop()
    spent = {stage: sum(run.timings_ms.get(stage, 0.0) for run in reading.runs) for stage in reading.runs[0].timings_ms}
    del spent["total"]
    assert max(spent, key=lambda stage: spent[stage]) == "load_audio"
    assert (reading.n_runs, reading.bottleneck) == (4, None)


def test_a_long_file_is_work_before_it_has_an_answer(
    station: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    performance, path = Performance(station), song(tmp_path / "a.wav", 12.0)
    begun, hold, real = threading.Event(), threading.Event(), decoding.read

    def slowly(*args: Any) -> Any:
        begun.set()
        assert hold.wait(60)
        return real(*args)

    monkeypatch.setattr(decoding, "read", slowly)
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(station.classifier.analyze, path)
        assert begun.wait(60)
        reading = performance.read()
        assert (reading.n_runs, reading.busy, reading.load["files_at_work"]) == (0, True, 1.0)
        hold.set()
        answer.result()
    assert performance.read().load["files_at_work"] == 0.0
    performance.stop()


def test_a_scan_is_work_before_its_first_song(station: SimpleNamespace) -> None:
    performance = Performance(station)
    station.scanning = True
    assert performance.read().busy
    station.scanning = False
    assert not performance.read().busy
    performance.stop()


def test_the_machine_is_read_only_while_somebody_looks(station: SimpleNamespace) -> None:
    performance = Performance(station)
    assert not performance.sampler.running
    performance.read()
    assert performance.sampler.running
    until = time.monotonic() + 30
    while not performance.read().samples:
        assert time.monotonic() < until
        time.sleep(0.02)
    [sample, *_] = performance.read().samples
    assert performance.read(after_sample=sample.number + 100).samples == ()
    assert sample.resources.process_rss_mb > 10
    performance.stop()
    while performance.sampler.running:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("cache", [False, True], ids=["no cache", "cache"])
def test_the_spans_of_a_run_add_up_to_its_wall_time(fresh: Settings, tmp_path: Path, cache: bool) -> None:
    """No stage goes unmeasured. The middle of several songs counts: a busy machine may take any one of them aside."""
    shares = []
    with OptimizedAudioClassifier(settings=fresh, cache=cache) as classifier:
        classifier.warm_up(described=False)
        for seed in range(7):
            began = time.perf_counter()
            analysis = classifier.analyze(song_once(tmp_path, seed))
            wall_ms = 1e3 * (time.perf_counter() - began)
            timings = dict(analysis.timings_ms)
            assert timings["total"] <= wall_ms
            total = timings.pop("total")
            shares.append(sum(timings.values()) / total)
    assert max(shares) <= 1.001
    assert sorted(shares)[len(shares) // 2] >= 0.95


def test_a_song_that_a_worker_decoded_shows_its_decoding(station: SimpleNamespace, tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", 40.0)
    prepared = heard_elsewhere(station.classifier, path)
    timings = station.classifier.judge(path, "0" * 64, prepared).timings_ms
    for stage, ms in prepared.meta["timings_ms"].items():
        assert timings[stage] == pytest.approx(ms, abs=0.01)
    assert list(timings)[:2] == ["load_audio", "mel_spectrogram"]
    assert sum(ms for stage, ms in timings.items() if stage != "total") >= 0.9 * timings["total"]
    [run] = station.classifier.profiler.runs()
    assert run.spans[0].name == "load_audio"
    assert run.started_at == pytest.approx(run.ended_at - timings["total"] / 1e3, abs=0.5)


def song_once(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.wav"
    return path if path.exists() else song(path, 60.0, seed)


def test_a_worker_tells_how_long_its_stages_took(station: SimpleNamespace, tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", 40.0)
    began = time.perf_counter()
    timings = heard_elsewhere(station.classifier, path).meta["timings_ms"]
    took_ms = 1e3 * (time.perf_counter() - began)
    assert list(timings) == ["load_audio", "mel_spectrogram"]
    assert all(ms > 0 for ms in timings.values())
    assert sum(timings.values()) <= took_ms
    ruled = dataclasses.replace(station.settings, rules=True)
    card = station.classifier.card
    heard = decoding.hear(path, card.mel, card.segments, ruled)
    assert list(heard.meta["timings_ms"]) == ["load_audio", "mel_spectrogram", "descriptors"]


def test_the_exports_are_of_the_runs_that_are_kept(station: SimpleNamespace, tmp_path: Path) -> None:
    performance = Performance(station)
    station.classifier.analyze(song(tmp_path / "=1+1.wav", 12.0))
    events = json.loads(performance.chrome_trace())["traceEvents"]
    assert [e["name"] for e in events if e.get("cat") == "song"] == ["=1+1.wav"]
    [row] = csv.DictReader(io.StringIO(performance.csv().removeprefix("\ufeff"), newline=""))
    assert row["file"] == str(tmp_path / "=1+1.wav")
    assert float(row["total_ms"]) > float(row["inference_ms"]) > 0


def ended(at: float, number: int, took_s: float = 0.5) -> Run:
    return Run("song", at, {"total": took_s * 1e3}, (), number, at - took_s)


def test_throughput_is_of_the_last_half_minute() -> None:
    assert throughput((), 100.0).songs_per_s == 0.0
    new = throughput((ended(96.0, 1), ended(98.0, 2)), 100.0)
    assert (new.n_songs, new.over_s) == (2, pytest.approx(4.5))  # work began 4.5 s ago
    steady = throughput(tuple(ended(float(at), at) for at in range(1, 101)), 100.0)
    assert (steady.n_songs, steady.over_s) == (30, OVER_S)
    assert steady.songs_per_s == 1.0
    assert throughput((ended(10.0, 1),), 100.0).n_songs == 0
    full = throughput(tuple(ended(90.0 + i / 10, i) for i in range(1, 101)), 100.0)  # the ring holds ten seconds
    assert full.songs_per_s == pytest.approx(10.0, rel=0.06)


def test_load_is_told_where_the_classifier_tells_it() -> None:
    assert load_of(SimpleNamespace()) == {}  # type: ignore[arg-type]
    telling = SimpleNamespace(load=lambda: {"queue_segments": 3, "waiting_files": 0})
    assert load_of(telling) == {"queue_segments": 3.0, "waiting_files": 0.0}  # type: ignore[arg-type]


def test_a_trace_file_is_whole_or_not_there(station: SimpleNamespace, tmp_path: Path) -> None:
    target = tmp_path / "trace.json"
    target.write_text("older")
    path = song(tmp_path / "a.wav", 12.0)

    def interrupted() -> None:
        with trace_file(station, target) as trace:
            station.classifier.analyze(path)
            trace.collect()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix in (".json", ".part")) == ["trace.json"]
    with trace_file(station, target):
        station.classifier.analyze(path)
    songs = [e for e in json.loads(target.read_text())["traceEvents"] if e.get("cat") == "song"]
    assert [e["args"]["run"] for e in songs] == [2]  # what ran before the block is not the block's
    with pytest.raises(StorageError, match="cannot be written"), trace_file(station, tmp_path / "none" / "trace.json"):
        pytest.fail("the work began")
    assert not any(thread.name == "resources" for thread in threading.enumerate())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    ("buffering", "n_songs"), [(1, 0), (-1, 0), (-1, 200)], ids=["at first", "at the end", "while"]
)
def test_a_full_disk_is_told_in_words(
    station: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffering: int, n_songs: int
) -> None:
    def full(file: Path, mode: str, encoding: str) -> Any:
        return open("/dev/full", "w", buffering, encoding=encoding)

    monkeypatch.setattr(performance_module, "open", full, raising=False)
    path, analyses = song(tmp_path / "a.wav", 12.0), []

    def profiled() -> None:
        with trace_file(station, tmp_path / "trace.json") as trace:
            for _ in range(n_songs):
                analyses.append(station.classifier.analyze(path))
                trace.collect()

    with pytest.raises(StorageError, match="No space left") as told:
        profiled()
    assert "Make room" in told.value.hint
    assert len(analyses) < 100  # it ends as soon as it is known
    assert list(tmp_path.glob("trace*")) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_replaced(station: SimpleNamespace, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        with pytest.raises(StorageError, match="is no file"), trace_file(station, target):
            pytest.fail("the work began")
    assert pipe.is_fifo()


def test_an_error_of_the_work_is_not_the_traces(station: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), trace_file(station, tmp_path / "trace.json"):
        (tmp_path / "none").read_bytes()
