"""One run: nested spans, measured where the work is done.

A trace belongs to one run, and may be active in several threads at once; a new thread starts without one. Where none is
active, a span costs a look-up and nothing is kept. Do not `yield` out of `tracing` or `span` in a generator: what the
consumer does meanwhile would be measured too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

NS_PER_MS = 1e6
MIN_REST_NS = 1_000
"""a shorter gap between two stages is the cost of measuring them"""


@dataclass(frozen=True, slots=True)
class Span:
    """One bar of a waterfall. `start_ms` counts from its run's start; `depth` 0 is a stage, deeper ones lie in it.

    Threads may share a name; `thread_id` is the system's own.
    """

    name: str
    start_ms: float
    duration_ms: float
    depth: int
    thread: str
    thread_id: int = 0


@dataclass(frozen=True, slots=True)
class _Raw:
    name: str
    start_ns: int
    end_ns: int
    depth: int
    thread: str
    thread_id: int


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
        self._record(name, end_ns - round(ms * NS_PER_MS), end_ns, self._depth_here())

    def add_all(self, stages_ms: Mapping[str, float]) -> None:
        """Stages that another process measured: they followed each other, in this order, and the last ended now."""
        end_ns, depth = time.perf_counter_ns(), self._depth_here()
        for name, ms in reversed(list(stages_ms.items())):
            start_ns = end_ns - round(ms * NS_PER_MS)
            self._record(name, start_ns, end_ns, depth)
            end_ns = start_ns

    def spans(self) -> tuple[Span, ...]:
        """What has ended so far, in the order of starting; the outer before the inner."""
        with self._lock:
            raw, begin_ns = list(self._raw), self._begin_ns or 0
        raw.sort(key=lambda r: (r.start_ns, r.depth))
        return tuple(
            Span(
                r.name,
                (r.start_ns - begin_ns) / NS_PER_MS,
                (r.end_ns - r.start_ns) / NS_PER_MS,
                r.depth,
                r.thread,
                r.thread_id,
            )
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

    def began_ns(self) -> int:
        """When it began, by `time.perf_counter_ns`; now for a run that has not begun."""
        with self._lock:
            return time.perf_counter_ns() if self._begin_ns is None else self._begin_ns

    def _depth_here(self) -> int:
        state = _active.get()
        return state[1] if state is not None and state[0] is self else 0

    def _record(self, name: str, start_ns: int, end_ns: int, depth: int) -> None:
        raw = _Raw(name, start_ns, end_ns, depth, threading.current_thread().name, threading.get_native_id())
        with self._lock:
            self._raw.append(raw)
            self._reach(start_ns, end_ns)

    def _record_rest(self, name: str, start_ns: int, end_ns: int, depth: int) -> None:
        """Spans of `name` wherever no span of this thread and depth lies between the two moments."""
        here = threading.get_native_id()
        with self._lock:
            inside = [r for r in self._raw if r.thread_id == here and r.depth == depth and r.end_ns > start_ns]
        at = start_ns
        for one in sorted(inside, key=lambda r: r.start_ns):
            if one.start_ns - at >= MIN_REST_NS:
                self._record(name, at, one.start_ns, depth)
            at = max(at, one.end_ns)
        if end_ns - at >= MIN_REST_NS:
            self._record(name, at, end_ns, depth)

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


def span(name: str, *, gpu: bool = False) -> _Span | _Nothing:
    """`with span("inference"):` measures the block, also when it raises.

    A GPU is only told what to do and works on by itself: with `gpu` the span waits for it at both ends, so that its
    work is counted where it was asked for. Without a trace, and where there is no CUDA, nothing waits.
    """
    state = _active.get()
    return _NOTHING if state is None else _Span(name, state, gpu)


@contextmanager
def rest(name: str) -> Iterator[None]:
    """Within the block, the time that no other span of this level covers is one of `name`.

    For a function that runs stages which it is handed, as a cache does: what it does around them is a stage, too.
    """
    state = _active.get()
    if state is None:
        yield
        return
    trace, depth = state
    start_ns = time.perf_counter_ns()
    try:
        yield
    finally:
        trace._record_rest(name, start_ns, time.perf_counter_ns(), depth)


class SpanExecutor(Executor):
    """Gives work to `executor` and measures it there, as a span of the run that is traced where it is submitted: inside
    the span at hand, beside what this thread does meanwhile."""

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor, self._name = executor, name

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        def measured() -> T:
            with span(self._name):
                return fn(*args, **kwargs)

        return self._executor.submit(copy_context().run, measured)


def _wait_for_gpu() -> None:
    """Until CUDA has done all that it was told; nothing where torch is not loaded or never used CUDA."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        cuda.synchronize()


class _Span:
    __slots__ = ("_gpu", "_name", "_start_ns", "_state")

    def __init__(self, name: str, state: tuple[Trace, int], gpu: bool) -> None:
        self._name, self._state, self._gpu, self._start_ns = name, state, gpu, 0

    def __enter__(self) -> None:
        trace, depth = self._state
        _active.set((trace, depth + 1))
        if self._gpu:
            _wait_for_gpu()
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        trace, depth = self._state
        try:
            if self._gpu and error is None:  # after an error of its own the GPU may not answer any more
                _wait_for_gpu()
        finally:
            end_ns = time.perf_counter_ns()
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
