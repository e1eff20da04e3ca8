"""Runs and readings in the formats of others: Chrome trace events, which Perfetto opens, and CSV.

Format: "Trace Event Format" (Chromium project): complete events "X" with `ts` and `dur` in microseconds, metadata "M"
for the names of process and threads, counters "C".
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from ..records import neutral, printable
from .runs import Run
from .sampler import Sample
from .spans import Span

Event = dict[str, Any]
US_PER_MS, US_PER_S = 1e3, 1e6


class TraceWriter:
    """Writes trace events as they come, so that a trace of a whole library need not stand in memory.

    `origin_s` (seconds since 1970) is the trace's zero. `close` ends the JSON object; the stream stays open.
    """

    def __init__(self, out: TextIO, origin_s: float) -> None:
        self._out, self._origin_s = out, origin_s
        self._pid = os.getpid()
        self._threads: set[int] = set()
        self._separator = ""
        self._before: Sample | None = None
        out.write('{"displayTimeUnit": "ms", "traceEvents": [')
        self._write({"name": "process_name", "ph": "M", "pid": self._pid, "args": {"name": "AcousticSense"}})

    def add_run(self, run: Run) -> None:
        """The run as one bar, named by its file, and its spans below it, each in the thread that it was measured in."""
        if not run.spans:
            return
        start_us = (run.started_at - self._origin_s) * US_PER_S
        first = run.spans[0]
        song = Span(
            os.path.basename(run.label) or "run", 0.0, run.timings_ms["total"], 0, first.thread, first.thread_id
        )
        for bar in (song, *run.spans):
            self._name_thread(bar.thread, bar.thread_id)
            self._write(
                {
                    "name": printable(bar.name),
                    "cat": "song" if bar is song else "stage",
                    "ph": "X",
                    "ts": round(start_us + bar.start_ms * US_PER_MS, 3),
                    "dur": round(bar.duration_ms * US_PER_MS, 3),
                    "pid": self._pid,
                    "tid": bar.thread_id,
                    "args": {"file": printable(run.label), "run": run.number},
                }
            )

    def add_sample(self, sample: Sample) -> None:
        """Its numbers as counters."""
        ts = round((sample.at - self._origin_s) * US_PER_S, 3)
        for name, values in _counters(sample, self._before):
            if values:
                self._write({"name": name, "ph": "C", "ts": ts, "pid": self._pid, "args": values})
        self._before = sample

    def close(self) -> None:
        started = datetime.datetime.fromtimestamp(self._origin_s, datetime.UTC).isoformat()
        self._out.write(f'\n], "otherData": {json.dumps({"program": "AcousticSense", "started": started})}}}\n')

    def _name_thread(self, thread: str, tid: int) -> None:
        if tid not in self._threads:
            self._threads.add(tid)
            event = {"name": "thread_name", "ph": "M", "pid": self._pid, "tid": tid, "args": {"name": thread}}
            self._write(event)

    def _write(self, event: Event) -> None:
        self._out.write(f"{self._separator}\n{json.dumps(event, allow_nan=False)}")
        self._separator = ","


def _counters(sample: Sample, before: Sample | None) -> Iterator[tuple[str, dict[str, float]]]:
    now = sample.resources
    yield "CPU %", {f"core {i}": share for i, share in enumerate(now.cpu_percent_by_core)}
    yield "CPU % of the processes", {"program": now.process_cpu_percent, "workers": now.workers_cpu_percent}
    yield "memory MB", {"program": round(now.process_rss_mb, 1), "workers": round(now.workers_rss_mb, 1)}
    rates = {"read": sample.read_mb_per_s, "written": sample.written_mb_per_s}
    yield "disk MB/s", {name: round(rate, 3) for name, rate in rates.items() if rate is not None}
    yield "waiting", {name: n for name, n in sample.load.items() if not name.endswith(("_s", "_at_work"))}
    yield "at work", {name.removesuffix("_at_work"): n for name, n in sample.load.items() if name.endswith("_at_work")}
    if before is not None and sample.at > before.at:
        worked = {name: n - before.load.get(name, n) for name, n in sample.load.items() if name.endswith("_s")}
        yield "busy %", {name.removesuffix("_s"): 100 * s / (sample.at - before.at) for name, s in worked.items()}
    for i, gpu in enumerate(now.gpus):
        told = {
            "utilisation %": gpu.utilization_percent,
            "memory MB": gpu.memory_used_mb,
            "temperature C": gpu.temperature_c,
            "power W": gpu.power_w,
        }
        yield f"GPU {i} {gpu.name}", {name: value for name, value in told.items() if value is not None}


def to_chrome_trace(runs: Sequence[Run], samples: Sequence[Sample] = ()) -> str:
    """One JSON object with the events of all runs and readings; its zero is the first of them."""
    moments = [run.started_at for run in runs] + [sample.at for sample in samples]
    out = io.StringIO()
    writer = TraceWriter(out, min(moments, default=0.0))
    for run in runs:
        writer.add_run(run)
    for sample in samples:
        writer.add_sample(sample)
    writer.close()
    return out.getvalue()


def to_csv(runs: Iterable[Run]) -> str:
    """CSV (RFC 4180), one row a run with a column for each stage in ms, with a byte order mark for spreadsheets."""
    kept = list(runs)
    stages = list(dict.fromkeys(stage for run in kept for stage in run.timings_ms if stage != "total"))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["run", "file", "started", "cached", *(f"{stage}_ms" for stage in stages), "total_ms"])
    for run in kept:
        started = datetime.datetime.fromtimestamp(run.started_at, datetime.UTC).isoformat(timespec="milliseconds")
        timings = [round(run.timings_ms[stage], 3) if stage in run.timings_ms else "" for stage in (*stages, "total")]
        writer.writerow([run.number, neutral(printable(run.label)), started, "yes" if run.cached else "no", *timings])
    return "\ufeff" + out.getvalue()
