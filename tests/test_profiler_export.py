"""What other programs open: Chrome trace events as Perfetto reads them, and CSV that a spreadsheet does not run."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from acoustic.profiler import (
    Gpu,
    Profiler,
    Resources,
    Run,
    Sample,
    Trace,
    TraceWriter,
    span,
    to_chrome_trace,
    to_csv,
    tracing,
)

NASTY = '/music/=SUM(1) <img src=x onerror=alert(1)> "quoted", \udcff.mp3'
GPU = Gpu("NVIDIA A", 87.0, 3.0, 1024.0, None, 71.5)
READING = Resources((10.0, 20.0), 30.0, 100.0, 5, 1000.0, 2000.0, (GPU,), "", 2, 50.0, 300.0, 1.0, 2.0)


def measured(profiler: Profiler, label: str) -> Run:
    trace = Trace()
    with tracing(trace):
        with span("load_audio"):
            time.sleep(0.002)
            with span("decode"):
                time.sleep(0.001)
        time.sleep(0.001)
        trace.add("wait", 0.5, ended_ms_ago=0.25)
        trace.add("inference", 0.25)
    return profiler.add(trace, label)


@pytest.fixture(scope="module")
def runs() -> tuple[Run, ...]:
    """Twelve songs measured in three threads that all have the same name."""
    profiler = Profiler()
    ready = threading.Barrier(3)

    def work(i: int) -> None:
        threading.current_thread().name = "decode"
        ready.wait(30)
        for k in range(4):
            measured(profiler, f"/music/{i}-{k}.mp3")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    return profiler.runs()


def events(text: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in json.loads(text)["traceEvents"] if event["ph"] == kind]


def test_a_trace_is_one_json_object_with_named_process_and_threads(runs: tuple[Run, ...]) -> None:
    said = json.loads(to_chrome_trace(runs))
    assert said["displayTimeUnit"] == "ms"
    assert said["otherData"]["program"] == "AcousticSense"
    for event in said["traceEvents"]:
        assert {"name", "ph", "pid"} <= set(event)
        if event["ph"] == "X":
            assert isinstance(event["tid"], int)
            assert event["ts"] >= 0
            assert event["dur"] >= 0
    threads = {e["tid"]: e["args"]["name"] for e in said["traceEvents"] if e["name"] == "thread_name"}
    assert len(threads) == 3
    assert set(threads.values()) == {"decode"}
    assert {e["tid"] for e in said["traceEvents"] if e["ph"] == "X"} == set(threads)


def test_bars_are_in_microseconds_and_keep_their_lengths(runs: tuple[Run, ...]) -> None:
    bars = events(to_chrome_trace(runs), "X")
    for run in runs:
        mine = [bar for bar in bars if bar["args"]["run"] == run.number]
        song, stages = mine[0], mine[1:]
        assert song["cat"] == "song"
        assert song["dur"] == pytest.approx(1e3 * run.timings_ms["total"], abs=0.01)
        assert [(s["name"], s["cat"]) for s in stages] == [(s.name, "stage") for s in run.spans]
        for bar, one in zip(stages, run.spans, strict=True):
            assert bar["dur"] == pytest.approx(1e3 * one.duration_ms, abs=0.01)
            assert bar["ts"] - song["ts"] == pytest.approx(1e3 * one.start_ms, abs=0.01)


def test_bars_of_a_thread_lie_in_each_other_or_apart(runs: tuple[Run, ...]) -> None:
    """What Perfetto asks of complete events; otherwise it draws nonsense."""
    rounding_us = 0.002
    by_thread: dict[int, list[tuple[float, float]]] = {}
    for bar in events(to_chrome_trace(runs), "X"):
        by_thread.setdefault(bar["tid"], []).append((bar["ts"], bar["ts"] + bar["dur"]))
    assert len(by_thread) == 3
    for bars in by_thread.values():
        open_ends: list[float] = []
        for start, end in sorted(bars, key=lambda bar: (bar[0], -bar[1])):
            while open_ends and open_ends[-1] <= start + rounding_us:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + rounding_us
            open_ends.append(end)


def test_readings_are_counters(runs: tuple[Run, ...]) -> None:
    at = runs[0].started_at
    samples = [Sample(1, at, READING, {"segments": 4.0, "files_at_work": 2.0, "network_busy_s": 7.0})]
    samples.append(Sample(2, at + 1, READING, {"segments": 0.0, "network_busy_s": 7.75}, 3.5, None))
    found = events(to_chrome_trace(runs, samples), "C")
    named = {(event["name"], event["ts"]): event["args"] for event in found}
    first, second = sorted({ts for _, ts in named})
    assert second - first == pytest.approx(1e6, abs=1)
    assert named["CPU %", first] == {"core 0": 10.0, "core 1": 20.0}
    assert named["memory MB", first] == {"program": 100.0, "workers": 300.0}
    assert named["waiting", first] == {"segments": 4.0}
    assert named["at work", first] == {"files": 2.0}
    assert ("busy %", first) not in named
    assert named["busy %", second]["network_busy"] == pytest.approx(75.0)
    assert named["GPU 0 NVIDIA A", first] == {"utilisation %": 87.0, "memory MB": 3.0, "power W": 71.5}
    assert ("disk MB/s", first) not in named  # nothing is known yet, so nothing is said
    assert named["disk MB/s", second] == {"read": 3.5}


def test_hostile_names_stay_text() -> None:
    run = measured(Profiler(), NASTY)
    [song, *_] = events(to_chrome_trace([run]), "X")
    assert song["args"]["file"] == NASTY.replace("\udcff", "\ufffd")
    assert song["name"].startswith("=SUM(1) <img")
    to_chrome_trace([run]).encode("utf-8")
    [row] = csv.DictReader(io.StringIO(to_csv([run]).removeprefix("\ufeff"), newline=""))
    assert row["file"] == NASTY.replace("\udcff", "\ufffd")
    formula = measured(Profiler(), "=1+1.mp3")
    assert ",'=1+1.mp3," in to_csv([formula])


def test_csv_has_a_row_a_run_and_a_column_a_stage(runs: tuple[Run, ...]) -> None:
    known = Run("known.mp3", 2.0, {"cache": 0.5, "total": 0.75}, (), 99, 1.5)
    text = to_csv([*runs, known])
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert list(rows[0]) == [
        "run", "file", "started", "cached", "load_audio_ms", "wait_ms", "inference_ms", "cache_ms", "total_ms"
    ]  # fmt: skip
    assert len(rows) == 13
    for row, run in zip(rows, runs, strict=False):
        assert float(row["total_ms"]) == pytest.approx(run.timings_ms["total"], abs=0.001)
        assert float(row["load_audio_ms"]) == pytest.approx(run.timings_ms["load_audio"], abs=0.001)
        assert (row["cached"], row["cache_ms"]) == ("no", "")
    assert (rows[-1]["cached"], rows[-1]["load_audio_ms"], rows[-1]["cache_ms"]) == ("yes", "", "0.5")
    assert rows[-1]["started"] == "1970-01-01T00:00:01.500+00:00"


def test_nothing_measured_is_an_empty_trace() -> None:
    assert events(to_chrome_trace([]), "X") == []
    assert to_csv([]).strip() == "\ufeffrun,file,started,cached,total_ms"


def test_a_trace_is_written_as_runs_come(runs: tuple[Run, ...], tmp_path: Path) -> None:
    with open(tmp_path / "trace.json", "w", encoding="utf-8") as file:
        writer = TraceWriter(file, min(run.started_at for run in runs))
        for run in runs:
            writer.add_run(run)
        writer.close()
    assert (tmp_path / "trace.json").read_text(encoding="utf-8") == to_chrome_trace(runs)
