"""Readings of the resources, taken in the background while somebody watches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from .resources import Resources

EVERY_S = 1.0
FIRST_S = 0.25
"""from the start to the first sample"""
LAST_S = 5.0
"""longest that the end of a watched block waits for its last reading"""
N_SAMPLES = 600
WATCHED_S = 8.0
"""how long after a look somebody still counts as watching"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading; `number` counts from 1, `at` is in seconds since 1970.

    `load` is what waited at that moment, by name; names that end in `_at_work` are what was worked on, and those in
    `_s` seconds of work since the start. Rates are since the sample before, None at the first of a row and where the
    system does not say.
    """

    number: int
    at: float
    resources: Resources
    load: Mapping[str, float]
    read_mb_per_s: float | None = None
    written_mb_per_s: float | None = None


class Sampler:
    """A ring of the last `n_samples` readings, and the thread that takes one each `every_s` as long as it is watched.

    `read` takes a reading of the resources, `load` says what waits and works. Safe from several threads.
    """

    def __init__(
        self,
        read: Callable[[], Resources],
        load: Callable[[], Mapping[str, float]] = dict,
        *,
        every_s: float = EVERY_S,
        n_samples: int = N_SAMPLES,
    ) -> None:
        self._read, self._load, self.every_s = read, load, every_s
        self._samples: deque[Sample] = deque(maxlen=n_samples)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._until = 0.0
        self._n_holding = 0
        self._n_taken = 0

    @property
    def running(self) -> bool:
        with self._lock:
            return self._thread is not None

    def watch(self, for_s: float = WATCHED_S) -> None:
        """Somebody looks: take readings for `for_s` from now."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + for_s)
            self._start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take readings throughout the block; the last is of its end."""
        with self._lock:
            self._n_holding += 1
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._n_holding -= 1
                watched = self._n_holding or time.monotonic() < self._until
                thread = None if watched else self._thread
            self._wake.set()
            if thread is not None:
                thread.join(LAST_S)

    def stop(self) -> None:
        """Nobody looks any more; the thread ends soon."""
        with self._lock:
            self._until = 0.0
        self._wake.set()

    def samples(self, after: int = 0) -> tuple[Sample, ...]:
        """Oldest first, those with a higher number than `after`."""
        with self._lock:
            return tuple(sample for sample in self._samples if sample.number > after)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="resources", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._take_until_nobody_looks()
        except BaseException:  # the next look starts another thread
            with self._lock:
                self._thread = None
            raise

    def _take_until_nobody_looks(self) -> None:
        before: Sample | None = None
        self._read()  # shares of CPU are since the reading before, which may be long ago
        wait_s = min(FIRST_S, self.every_s)
        while True:
            self._wake.wait(wait_s)
            before, wait_s = self._take(before), self.every_s
            with self._lock:
                self._wake.clear()
                if not self._n_holding and time.monotonic() >= self._until:
                    self._thread = None  # in the same breath as the decision: a look after it starts another
                    return

    def _take(self, before: Sample | None) -> Sample:
        resources, load, at = self._read(), dict(self._load()), time.time()
        with self._lock:
            self._n_taken += 1
            old = before.resources if before is not None else None
            took_s = at - before.at if before is not None else 0.0
            sample = Sample(
                self._n_taken,
                at,
                resources,
                load,
                _rate(old.read_mb if old else None, resources.read_mb, took_s),
                _rate(old.written_mb if old else None, resources.written_mb, took_s),
            )
            self._samples.append(sample)
        return sample


def _rate(before_mb: float | None, now_mb: float | None, took_s: float) -> float | None:
    """MB/s; a worker that ended takes its count along, which is no negative rate."""
    if before_mb is None or now_mb is None or took_s <= 0:
        return None
    return max(0.0, now_mb - before_mb) / took_s
