"""The last runs, with percentiles by stage."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from .resources import ResourceReader, Resources
from .spans import Span, Trace

NS_PER_S = 1e9
STEP_NS = 50_000_000
"""two clocks that moved further apart than this: one was set, or stood still while the machine slept"""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run; `number` counts from 1. Times are in seconds since 1970."""

    label: str
    ended_at: float
    timings_ms: dict[str, float]
    spans: tuple[Span, ...]
    number: int = 0
    started_at: float = 0.0

    @property
    def cached(self) -> bool:
        """Whether its answer was known: the network had no part in it."""
        return "inference" not in self.timings_ms


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one stage over the runs that had it, in ms."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float


class Profiler:
    """A ring of the last `n_runs` runs, and readings of the resources. Safe to use from several threads."""

    def __init__(self, n_runs: int = 256) -> None:
        self._runs: deque[Run] = deque(maxlen=n_runs)
        self._lock = threading.Lock()
        self._n_added = 0
        self._reader: ResourceReader | None = None
        self._clock = _WallClock()

    def add(self, trace: Trace, label: str = "") -> Run:
        """Keep a run that ends now; the oldest goes when the ring is full.

        Both its times are of the wall clock as it is now: one that is set meanwhile, or a machine that sleeps, cannot
        tear them apart.
        """
        timings, spans, began_ns = trace.timings_ms(), trace.spans(), trace.began_ns()
        with self._lock:
            self._n_added += 1
            self._clock.look()
            ended_at, started_at = self._clock.at_s(time.perf_counter_ns()), self._clock.at_s(began_ns)
            run = Run(label, ended_at, timings, spans, self._n_added, started_at)
            self._runs.append(run)
        return run

    @property
    def n_added(self) -> int:
        """How many runs there were so far, those that have left the ring too."""
        with self._lock:
            return self._n_added

    def runs(self, after: int = 0) -> tuple[Run, ...]:
        """Oldest first, those with a higher number than `after`."""
        with self._lock:
            return tuple(run for run in self._runs if run.number > after)

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage, with "total" last, over the runs in the ring; each stage over the runs that had it."""
        return percentiles(self.runs())

    def means_ms(self) -> dict[str, float]:
        """Mean of every stage over the runs that had it."""
        return {stage: sum(ms) / len(ms) for stage, ms in _by_stage(self.runs()).items()}

    def resources(self) -> Resources:
        """The machine and this process now; a few milliseconds."""
        with self._lock:
            self._reader = self._reader or ResourceReader()
        return self._reader.read()


class _WallClock:
    """The time of day at moments of `time.perf_counter_ns`.

    How far they are apart is kept, so that runs which follow each other never overlap by the noise of reading two
    clocks; it is taken anew where it changed by more than STEP_NS.
    """

    def __init__(self) -> None:
        self._apart_ns = time.time_ns() - time.perf_counter_ns()

    def look(self) -> None:
        before_ns = time.perf_counter_ns()
        apart_ns = time.time_ns() - before_ns
        took_ns = time.perf_counter_ns() - before_ns  # long where another program had its turn between the readings
        if abs(apart_ns - self._apart_ns) > STEP_NS + took_ns:
            self._apart_ns = apart_ns

    def at_s(self, moment_ns: int) -> float:
        """Seconds since 1970."""
        return (moment_ns + self._apart_ns) / NS_PER_S


def percentiles(runs: tuple[Run, ...]) -> dict[str, Percentiles]:
    """By stage, with "total" last; each stage over the runs that had it."""
    return {
        stage: Percentiles(len(ms), float(np.mean(ms)), *(float(q) for q in np.percentile(ms, (50, 90, 99))))
        for stage, ms in _by_stage(runs).items()
    }


def _by_stage(runs: tuple[Run, ...]) -> dict[str, list[float]]:
    stages: dict[str, list[float]] = {}
    for run in runs:
        for stage, ms in run.timings_ms.items():
            stages.setdefault(stage, []).append(ms)
    if stages:
        stages["total"] = stages.pop("total")
    return stages
