"""The inference lane: one thread that owns the backend and fills its batches with segments of whatever files are
waiting.

Files arrive from several decoding threads; a batch may hold segments of several files, and a long file may take several
batches. Every file gets the votes of its own segments back, in order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from .errors import StoppedError
from .records import Votes


@dataclass(frozen=True, slots=True)
class LaneAnswer:
    """Votes of one file's segments; `wait_ms` from submission to the start of its first batch, `inference_ms` from
    there to the end of its last one (shared with the other files of those batches)."""

    votes: Votes
    wait_ms: float
    inference_ms: float


@dataclass(slots=True)
class _Job:
    mels: np.ndarray
    submitted: float
    future: Future[LaneAnswer] = field(default_factory=Future)
    votes: list[Votes] = field(default_factory=list)
    taken: int = 0
    started: float = 0.0


class InferenceLane:
    """`submit` from any thread; the network runs in one. `backend` maps (B, n_mels, 224) to the Votes of B segments."""

    def __init__(self, backend: Callable[[np.ndarray], Votes], batch_size: int) -> None:
        self._backend = backend
        self._batch_size = batch_size
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self.batch_sizes: dict[int, int] = {}
        """how many batches of each size have run"""
        self.busy_s = 0.0
        """time that the network has been computing"""
        self._n_submitted = 0
        self._n_done = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, mels: np.ndarray) -> Future[LaneAnswer]:
        """Ask for the votes of normalised mels (K, n_mels, 224), K >= 1. The future fails with what the backend
        raises. StoppedError once the lane is closed.
        """
        job = _Job(mels, time.perf_counter())
        with self._lock:
            if self._closed:
                raise StoppedError("the classifier was closed before the network was asked about this file")
            self._jobs.put(job)
            self._n_submitted += len(mels)
        return job.future

    @property
    def n_waiting(self) -> int:
        """Segments that were submitted and have no votes yet."""
        return self._n_submitted - self._n_done

    def close(self) -> None:
        """Finish what was submitted, then stop. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        waiting: list[_Job] = []
        closing = False
        while waiting or not closing:
            if not waiting and (job := self._jobs.get()) is not None:
                waiting.append(job)
            elif not waiting:
                closing = True
                continue
            closing = self._drain(waiting) or closing
            self._run_batch(waiting)
            waiting = [job for job in waiting if not job.future.done()]

    def _drain(self, waiting: list[_Job]) -> bool:
        """Move to `waiting` what has been submitted, as far as one batch can hold it; True when asked to stop."""
        while sum(len(job.mels) - job.taken for job in waiting) < self._batch_size:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            waiting.append(job)
        return False

    def _run_batch(self, waiting: list[_Job]) -> None:
        """One network call over the first `batch_size` segments that wait. Where it fails for several files, each is
        asked about by itself: one that is at fault does not fail the others.
        """
        share: list[tuple[_Job, int]] = []
        room = self._batch_size
        for job in waiting:
            n = min(room, len(job.mels) - job.taken)
            if n:
                share.append((job, n))
                room -= n
        now = time.perf_counter()
        for job, _ in share:
            job.started = job.started or now
        if not self._tried(share) and len(share) > 1:
            for one in share:
                self._tried([one])

    def _tried(self, share: list[tuple[_Job, int]]) -> bool:
        """Whether the network answered. The lane must outlive any failure of a backend: a single file's error goes to
        its caller."""
        try:
            self._share_out(share)
        except Exception as error:
            if len(share) == 1:
                job, _ = share[0]
                self._n_done += len(job.mels) - job.taken  # none of them is tried again
                job.future.set_exception(error)
            return False
        return True

    def _share_out(self, share: list[tuple[_Job, int]]) -> None:
        """Run the batch and give each file the votes of its own segments."""
        begun = time.perf_counter()
        votes = self._backend(np.concatenate([job.mels[job.taken : job.taken + n] for job, n in share]))
        self.busy_s += time.perf_counter() - begun
        n_asked = sum(n for _, n in share)
        if len(votes) != n_asked:
            raise RuntimeError(f"the backend gave {len(votes)} votes for {n_asked} segments")
        self._n_done += n_asked
        self.batch_sizes[n_asked] = self.batch_sizes.get(n_asked, 0) + 1
        at = 0
        for job, n in share:
            job.votes.append(Votes(*(a[at : at + n] for a in (votes.logits, votes.tag_logits, votes.embeddings))))
            job.taken += n
            at += n
            if job.taken == len(job.mels):
                job.future.set_result(_answer(job))


def _answer(job: _Job) -> LaneAnswer:
    end = time.perf_counter()
    columns = ([getattr(v, name) for v in job.votes] for name in ("logits", "tag_logits", "embeddings"))
    votes = Votes(*(np.concatenate(column) for column in columns))
    return LaneAnswer(votes, (job.started - job.submitted) * 1e3, (end - job.started) * 1e3)
