"""Where the time goes, while it goes: what the Profiler page and `analyze --profile` read.

The engine measures every song as it is. What the machine does is read only while somebody watches.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import DISK_FULL, StorageError
from ..profiler import Percentiles, Profiler, Run, Sample, Sampler, TraceWriter, to_chrome_trace, to_csv
from ..settings import available_cores
from . import bottleneck
from .bottleneck import Bottleneck, Circumstances

if TYPE_CHECKING:
    from ..engine import OptimizedAudioClassifier
    from .station import Workstation

WORK = ("queue_segments", "waiting_files", "files_at_work")
"""what a classifier has to do as long as any of these is more than 0"""
OVER_S = 30.0
"""songs a second are counted over this time"""
BUSY_S = 5.0
"""so long after the last song the page still counts as at work"""


@dataclass(frozen=True, slots=True)
class Throughput:
    """`n_songs` were finished in the last `over_s`, which is OVER_S, or less where the first of them began later."""

    songs_per_s: float
    n_songs: int
    over_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to see at a moment. `runs` and `samples` are those after the ones that were read before."""

    at: float
    busy: bool
    n_runs: int
    """since the start"""
    runs: tuple[Run, ...]
    samples: tuple[Sample, ...]
    percentiles: Mapping[str, Percentiles]
    throughput: Throughput
    load: Mapping[str, float]
    """what waits now, `queue_segments` for the network and `waiting_files` to be decoded; `files_at_work`;
    `network_busy_s` since the start; empty where the classifier does not say"""
    n_requests: int
    answers_known: float
    """share of all requests that the cache answered"""
    cache: Mapping[str, Any] | None
    """the cache's own counts; None where nothing is cached"""
    batch_sizes: Mapping[int, int]
    """segments in a network call -> how many calls"""
    backend: Mapping[str, Any]
    """`Backend.describe()`"""
    bottleneck: Bottleneck | None


class Performance:
    """The profiler of one workstation, for all who look. Safe from several threads."""

    def __init__(self, workstation: Workstation) -> None:
        self._workstation = workstation
        self.sampler = Sampler(lambda: self._classifier.profiler.resources(), lambda: load_of(self._classifier))

    @property
    def _classifier(self) -> OptimizedAudioClassifier:
        return self._workstation.classifier

    def read(self, *, after_run: int = 0, after_sample: int = 0) -> Reading:
        """What there is to see now; the one who reads counts as watching. ModelError or BackendError where there is no
        classifier."""
        classifier = self._classifier
        self.sampler.watch()
        stats, runs, now = classifier.get_stats(), classifier.profiler.runs(), time.time()
        load = load_of(classifier)
        backend = classifier.backend.describe()
        return Reading(
            at=now,
            busy=self._workstation.scanning
            or any(load.get(name) for name in WORK)
            or bool(runs and now - runs[-1].ended_at < BUSY_S),
            n_runs=classifier.profiler.n_added,
            runs=tuple(run for run in runs if run.number > after_run),
            samples=self.sampler.samples(after_sample),
            percentiles=classifier.profiler.percentiles(),
            throughput=throughput(runs, now),
            load=load,
            n_requests=int(stats["total_requests"]),
            answers_known=float(stats["cache_hit_rate"]),
            cache=stats["cache"],
            batch_sizes=stats["batch_sizes"],
            backend=backend,
            bottleneck=bottleneck.find(runs, self._circumstances(backend)),
        )

    def run(self, number: int) -> Run | None:
        """The run of this number, None where it has left the ring."""
        return next((run for run in self._classifier.profiler.runs(number - 1) if run.number == number), None)

    def chrome_trace(self) -> str:
        """The runs and readings that are kept as Chrome trace JSON."""
        return to_chrome_trace(self._classifier.profiler.runs(), self.sampler.samples())

    def csv(self) -> str:
        """The runs that are kept, a row each."""
        return to_csv(self._classifier.profiler.runs())

    def stop(self) -> None:
        """Nobody looks any more."""
        self.sampler.stop()

    def _circumstances(self, backend: Mapping[str, Any]) -> Circumstances:
        settings = self._classifier.settings
        return Circumstances(
            n_workers=settings.n_workers(),
            n_cores=available_cores(),
            denoise=settings.denoise,
            backend=backend,
            chosen_before=getattr(self._classifier, "chosen_before", {}),
        )


def load_of(classifier: OptimizedAudioClassifier) -> dict[str, float]:
    """What waits and works in the classifier, by name; empty where it does not say."""
    told = getattr(classifier, "load", None)
    return {name: float(n) for name, n in told().items()} if told is not None else {}


def throughput(runs: tuple[Run, ...], now: float) -> Throughput:
    """Songs finished in the last OVER_S. A ring that is too small for them counts from its oldest on."""
    last = [run for run in runs if now - run.ended_at < OVER_S]
    if not last:
        return Throughput(0.0, 0, OVER_S)
    began = last[0].started_at if len(last) == len(runs) else now - OVER_S
    over_s = min(OVER_S, max(now - began, 1e-3))
    return Throughput(len(last) / over_s, len(last), over_s)


class TraceFile:
    """The runs of a command, written to a file as they end: `collect` after each song, so that no ring is too small."""

    def __init__(self, profiler: Profiler, sampler: Sampler, out: TextIO, target: Path) -> None:
        self._profiler, self._sampler, self._target = profiler, sampler, target
        self._last_run, self._last_sample = profiler.n_added, 0
        with _written_to(target):
            self._writer = TraceWriter(out, time.time())

    def collect(self) -> None:
        """Write what is new. Raises StorageError."""
        with _written_to(self._target):
            for run in self._profiler.runs(self._last_run):
                self._writer.add_run(run)
                self._last_run = run.number
            for sample in self._sampler.samples(self._last_sample):
                self._writer.add_sample(sample)
                self._last_sample = sample.number

    def close(self) -> None:
        """Write the rest and the end. Raises StorageError."""
        self.collect()
        with _written_to(self._target):
            self._writer.close()


@contextmanager
def trace_file(workstation: Workstation, target: Path) -> Iterator[TraceFile]:
    """What is analysed within the block goes to `target` as Chrome trace JSON, whole or not at all.

    Raises StorageError: before any work where `target` cannot be written or is something else than a file, and from
    then on when the disk is full.
    """
    sampler = Performance(workstation).sampler
    aside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    with _written_to(target):
        if target.exists() and not target.is_file():
            raise StorageError(f"{target} is no file: a trace would take its place", "Name a new file.")
        out = open(aside, "x", encoding="utf-8")  # noqa: SIM115 (closed below, before it is given its name)
    try:
        file = TraceFile(workstation.classifier.profiler, sampler, out, target)
        with sampler.watching():
            yield file
        file.close()
        with _written_to(target):
            out.close()
            os.replace(aside, target)
    finally:
        with suppress(OSError):  # what could not be written before cannot be written now
            out.close()
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def _written_to(target: Path) -> Iterator[None]:
    """Within the block the system's errors are those of writing the trace: StorageError."""
    try:
        yield
    except OSError as error:
        full = error.errno in DISK_FULL
        raise StorageError(
            f"the trace cannot be written to {target}: {error.strerror or error}",
            "Make room there, or name a file on another disk." if full else "Name a file in a folder of yours.",
        ) from None
