"""Where the milliseconds went: nested spans, a ring of the last runs with percentiles by stage, the resources in use.

    trace = Trace()
    with tracing(trace):
        with span("mel_spectrogram"):
            ...
    trace.timings_ms()  -> {"mel_spectrogram": 3.1, "total": 3.2}

A trace belongs to one run, and may be active in several threads at once; a new thread starts without one. Where none is
active, a span costs a look-up and nothing is kept. Do not `yield` out of `tracing` or `span` in a generator: what the
consumer does meanwhile would be measured too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import psutil

MB = 2**20
NS_PER_MS = 1e6

# --- one run ---


@dataclass(frozen=True, slots=True)
class Span:
    """One bar of a waterfall. `start_ms` counts from its run's start; `depth` 0 is a stage, deeper ones lie in it."""

    name: str
    start_ms: float
    duration_ms: float
    depth: int
    thread: str


@dataclass(frozen=True, slots=True)
class _Raw:
    name: str
    start_ns: int
    end_ns: int
    depth: int
    thread: str


class Trace:
    """The spans of one run. Its time runs from the first moment to the last of any span or `tracing` block."""

    def __init__(self) -> None:
        self._raw: list[_Raw] = []
        self._begin_ns: int | None = None
        self._end_ns = 0
        self._n_active = 0
        self._lock = threading.Lock()

    def add(self, name: str, ms: float, *, ended_ms_ago: float = 0.0) -> None:
        """A span that was measured elsewhere, as by a worker thread: it ended `ended_ms_ago`, now by default."""
        end_ns = time.perf_counter_ns() - round(ended_ms_ago * NS_PER_MS)
        state = _active.get()
        depth = state[1] if state is not None and state[0] is self else 0
        self._record(name, end_ns - round(ms * NS_PER_MS), end_ns, depth)

    def spans(self) -> tuple[Span, ...]:
        """What has ended so far, in the order of starting; the outer before the inner."""
        with self._lock:
            raw, begin_ns = list(self._raw), self._begin_ns or 0
        raw.sort(key=lambda r: (r.start_ns, r.depth))
        return tuple(
            Span(r.name, (r.start_ns - begin_ns) / NS_PER_MS, (r.end_ns - r.start_ns) / NS_PER_MS, r.depth, r.thread)
            for r in raw
        )

    def timings_ms(self) -> dict[str, float]:
        """Stage -> ms, in the order of starting, and "total". A stage is a span of depth 0; equal names add up."""
        stages: dict[str, float] = {}
        for one in self.spans():
            if one.depth == 0:
                stages[one.name] = stages.get(one.name, 0.0) + one.duration_ms
        return {**stages, "total": self.total_ms()}

    def total_ms(self) -> float:
        """Wall time of the run, up to now while it is active; waiting between stages is part of it."""
        with self._lock:
            if self._begin_ns is None:
                return 0.0
            end_ns = time.perf_counter_ns() if self._n_active else self._end_ns
            return (end_ns - self._begin_ns) / NS_PER_MS

    def _record(self, name: str, start_ns: int, end_ns: int, depth: int) -> None:
        raw = _Raw(name, start_ns, end_ns, depth, threading.current_thread().name)
        with self._lock:
            self._raw.append(raw)
            self._reach(start_ns, end_ns)

    def _activate(self, change: int) -> None:
        now = time.perf_counter_ns()
        with self._lock:
            self._n_active += change
            self._reach(now, now)

    def _reach(self, start_ns: int, end_ns: int) -> None:
        self._begin_ns = start_ns if self._begin_ns is None else min(self._begin_ns, start_ns)
        self._end_ns = max(self._end_ns, end_ns)


_active: ContextVar[tuple[Trace, int] | None] = ContextVar("acoustic_trace", default=None)
"""The trace of this thread or task, and the depth that its next span gets."""


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Within the block, spans of this thread (or task) go to `trace`; an outer trace is taken up again after it."""
    before = _active.get()
    _active.set((trace, 0))
    trace._activate(+1)
    try:
        yield trace
    finally:
        trace._activate(-1)
        _active.set(before)


def current() -> Trace | None:
    """The trace that is active here, for code that has a measurement to add but was not handed the trace."""
    state = _active.get()
    return None if state is None else state[0]


def span(name: str) -> _Span | _Nothing:
    """`with span("inference"):` measures the block, also when it raises."""
    state = _active.get()
    return _NOTHING if state is None else _Span(name, state)


class _Span:
    __slots__ = ("_name", "_start_ns", "_state")

    def __init__(self, name: str, state: tuple[Trace, int]) -> None:
        self._name, self._state, self._start_ns = name, state, 0

    def __enter__(self) -> None:
        trace, depth = self._state
        _active.set((trace, depth + 1))
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        end_ns = time.perf_counter_ns()
        trace, depth = self._state
        _active.set(self._state)  # not a token: its context may be another one by now
        trace._record(self._name, self._start_ns, end_ns, depth)


class _Nothing:
    """The span where no trace is active; one object for all."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None


_NOTHING = _Nothing()


# --- the last runs ---


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run. `ended_at` is in seconds since 1970."""

    label: str
    ended_at: float
    timings_ms: dict[str, float]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one stage over the runs that had it, in ms."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU now; None for what its driver does not tell."""

    name: str
    utilization_percent: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Resources:
    """The machine and this process now. CPU shares are since the snapshot before; a process may pass 100 (of one core).

    `gpu_note` says in plain words why `gpus` is empty; it is "" where it is not.
    """

    cpu_percent_by_core: tuple[float, ...]
    process_cpu_percent: float
    process_rss_mb: float
    process_threads: int
    memory_available_mb: float
    memory_total_mb: float
    gpus: tuple[Gpu, ...]
    gpu_note: str


class Profiler:
    """A ring of the last `n_runs` runs, and snapshots of the resources. Safe to use from several threads."""

    def __init__(self, n_runs: int = 256) -> None:
        self._runs: deque[Run] = deque(maxlen=n_runs)
        self._lock = threading.Lock()
        self._gpus = _Gpus()
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the clock
        psutil.cpu_percent(percpu=True)

    def add(self, trace: Trace, label: str = "") -> Run:
        """Keep a finished run; the oldest goes when the ring is full."""
        run = Run(label, time.time(), trace.timings_ms(), trace.spans())
        with self._lock:
            self._runs.append(run)
        return run

    def runs(self) -> tuple[Run, ...]:
        """Oldest first."""
        with self._lock:
            return tuple(self._runs)

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage, with "total" last, over the runs in the ring; each stage over the runs that had it."""
        return {
            stage: Percentiles(len(ms), float(np.mean(ms)), *(float(q) for q in np.percentile(ms, (50, 90, 99))))
            for stage, ms in self._by_stage().items()
        }

    def means_ms(self) -> dict[str, float]:
        """Mean of every stage over the runs that had it."""
        return {stage: sum(ms) / len(ms) for stage, ms in self._by_stage().items()}

    def resources(self) -> Resources:
        """A snapshot; a few milliseconds."""
        memory, process = psutil.virtual_memory(), self._process
        with self._lock:
            gpus, note = self._gpus.read()
        return Resources(
            cpu_percent_by_core=tuple(psutil.cpu_percent(percpu=True)),
            process_cpu_percent=process.cpu_percent(),
            process_rss_mb=process.memory_info().rss / MB,
            process_threads=process.num_threads(),
            memory_available_mb=memory.available / MB,
            memory_total_mb=memory.total / MB,
            gpus=gpus,
            gpu_note=note,
        )

    def _by_stage(self) -> dict[str, list[float]]:
        stages: dict[str, list[float]] = {}
        for run in self.runs():
            for stage, ms in run.timings_ms.items():
                stages.setdefault(stage, []).append(ms)
        if stages:
            stages["total"] = stages.pop("total")
        return stages


# --- the GPU ---


class _Gpus:
    """NVIDIA's management library through pynvml; started at the first look, so that importing this costs nothing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._note: str | None = None

    def read(self) -> tuple[tuple[Gpu, ...], str]:
        """(GPUs, why there are none)."""
        if self._note is None:
            self._note = self._start()
        if self._note:
            return (), self._note
        nvml = self._nvml
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            gpus = tuple(self._gpu(handle) for handle in handles)
        except nvml.NVMLError as error:  # a driver that is updated or a card that is lost while we run
            return (), f"the NVIDIA driver does not answer: {error}"
        return gpus, "" if gpus else "no NVIDIA GPU in this machine"

    def _start(self) -> str:
        """Why there is nothing to read; empty where there is."""
        try:
            import pynvml
        except ImportError:
            return "no GPU readings: the package nvidia-ml-py is not installed"
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return f"no NVIDIA GPU, or no driver for it: {error}"
        self._nvml = pynvml
        return ""

    def _gpu(self, handle: Any) -> Gpu:
        nvml = self._nvml
        name = nvml.nvmlDeviceGetName(handle)
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)
        load = self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = self._asked(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = self._asked(nvml.nvmlDeviceGetPowerUsage, handle)
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else name,  # bytes before nvidia-ml-py 12
            utilization_percent=None if load is None else float(load.gpu),
            memory_used_mb=None if memory is None else memory.used / MB,
            memory_total_mb=None if memory is None else memory.total / MB,
            temperature_c=None if temperature is None else float(temperature),
            power_w=None if milliwatts is None else milliwatts / 1_000.0,
        )

    def _asked(self, question: Any, *arguments: Any) -> Any:
        """The driver's answer, None where this card has none (a slice of a card, a virtual one, an old one)."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None
