"""A walk over folders becomes records of the library: each file one terminal record, whatever is in it.

    walk -> known? (size, mtime) -> look (digest, tags) -> analysed already? -> analyse -> records, in batches

Only a few files are in flight and only a few hundred names wait, so a million files take no more memory than a
thousand. The records are the state: a scan that is killed is simply begun again, and skips what is kept. What a scan
needs of the rest of the program is handed in (`Stages`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from ..errors import AcousticError, AudioError, InternalError, LibraryError, StoppedError, StorageError
from ..kept import FileRecord, FoundFile, ScanProgress, SongTags, shown_path
from ..records import Analysis, Failure
from .tracks import Tracks
from .writer_lock import let_go, try_take

CHUNK_FILES, CHUNK_S = 500, 0.5
"""the walk hands its files on when it has so many, or after so long"""
BATCH_FILES, BATCH_S = 64, 0.5
"""records are written when there are so many, or after so long"""
TOLD_S = 0.25
"""how often progress is told"""
RATE_S = 20.0
"""the rate is that of the last so many seconds"""

OnProgress = Callable[[ScanProgress], object]
Walk = Callable[[Callable[[bytes], None]], Iterator[FoundFile]]
"""walk(on_unreadable): the files, in any order; on_unreadable is called with each folder that cannot be listed"""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a file says before it is decoded."""

    digest: str
    tags: SongTags


@dataclass(frozen=True, slots=True)
class Stages:
    """What is done with a file. `look` and `analyse` are called from `n_at_once` threads; both raise AudioError for a
    file that fails, and any other AcousticError to end the scan; `stop` makes both return at once, with a StoppedError.
    """

    walk: Walk
    look: Callable[[bytes], Looked]
    analyse: Callable[[FoundFile, str], Analysis | Failure]
    stop: Callable[[], None]
    n_at_once: int


@contextlib.contextmanager
def alone(library: Path) -> Iterator[None]:
    """While this is held no other scan of this library runs, in whatever process. LibraryError if one does."""
    file = os.open(f"{library}-scan", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        try:
            try_take(file)
        except OSError:
            raise LibraryError(
                f"another scan of the library {library} is running", "Wait until it is done, or end it."
            ) from None
        yield
        let_go(file)
    finally:
        os.close(file)


def scan_files(
    tracks: Tracks,
    root: bytes,
    model_id: int,
    stages: Stages,
    *,
    engine: str = "local",
    bounds: str = "",
    look_for_missing: Sequence[bytes] | None = None,
    on_progress: OnProgress = lambda progress: None,
    cancel: threading.Event | None = None,
) -> ScanProgress:
    """Bring the records of all files that `stages.walk` finds up to date, and mark those that are gone from below
    `look_for_missing` (None: from below `root`); how it ended.

    Files that failed by other `bounds` than these are tried again (see Tracks.known). A scan whose `cancel` is set ends
    within about a second, with all that was finished kept. `alone` is to be held. Raises what ends a scan, after it
    was noted as failed: LibraryError, ModelError, BackendError.
    """
    scan_id = tracks.begin_scan(root, engine, model_id, bounds)
    job = _Scan(tracks, scan_id, model_id, stages, on_progress, cancel or threading.Event())
    try:
        job.run([root] if look_for_missing is None else look_for_missing)
    except BaseException:
        tracks.end_scan(scan_id, "failed")
        job.tell("failed")
        raise
    state = "cancelled" if job.cancelled else "done"
    tracks.end_scan(scan_id, state)
    return job.tell(state)


def is_gone(path: bytes) -> bool:
    """Whether there surely is no such file any more: a disk or a right that is missing says nothing about it."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def check_unchanged(found: FoundFile) -> None:
    """StorageError, after which the next scan tries again, where another file lies there than was found."""
    try:
        status = os.stat(found.path)
    except OSError as error:
        raise StorageError(f"{shown_path(found.path)} cannot be read any more: {error.strerror}") from None
    if (status.st_size, status.st_mtime_ns) != (found.n_bytes, found.mtime_ns):
        raise StorageError(f"{shown_path(found.path)} was changed while it was read", "Scan its folder again.")


def changed(tracks: Tracks, chunk: Sequence[FoundFile], model_id: int, scan_id: int) -> list[FoundFile]:
    """Those of the files that are not kept as they are; the others are no longer missing."""
    known = tracks.known([found.path for found in chunk], model_id, scan_id)
    todo, found_again = [], []
    for found in chunk:
        kept = known.get(found.path)
        if kept is None or not kept.done or (kept.n_bytes, kept.mtime_ns) != (found.n_bytes, found.mtime_ns):
            todo.append(found)
        elif kept.missing:
            found_again.append(found.path)
    if found_again:
        tracks.found_again(found_again, scan_id)
    return todo


class _Scan:
    """One run. All but `_one` and the two walks is done by the calling thread."""

    def __init__(
        self,
        tracks: Tracks,
        scan_id: int,
        model_id: int,
        stages: Stages,
        on_progress: OnProgress,
        cancel: threading.Event,
    ) -> None:
        self._tracks, self._scan_id, self._model_id = tracks, scan_id, model_id
        self._stages, self._on_progress, self._cancel = stages, on_progress, cancel
        self._ended = threading.Event()
        self._chunks: queue.Queue[list[FoundFile] | Exception | None] = queue.Queue(maxsize=4)
        self._todo: deque[FoundFile] = deque()
        self._walked = False
        self._counter = _Counter(stages.walk, self._ended)
        self._flights: dict[str, Future[Analysis | Failure | None]] = {}
        self._flights_lock = threading.Lock()
        self._batch: list[FileRecord] = []
        self._batch_began = 0.0
        self._began = self._told = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._unreadable: set[bytes] = set()
        self._n_seen = self._n_unchanged = self._n_ok = self._n_errors = self._n_missing = self._n_known = 0

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def run(self, look_for_missing: Sequence[bytes]) -> None:
        threading.Thread(target=self._walk, name="scan-walk", daemon=True).start()
        threads = ThreadPoolExecutor(self._stages.n_at_once, thread_name_prefix="scan")
        running: set[Future[FileRecord | None]] = set()
        try:
            while not self.cancelled and (running or self._todo or not self._walked):
                if not self._todo and not self._walked:
                    self._take_chunk(wait_s=0.0 if running else 0.1)
                while self._todo and len(running) < self._stages.n_at_once:
                    running.add(threads.submit(self._one, self._todo.popleft()))
                    self._counter.start()
                if running:
                    finished, running = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._collect(future)
                self._keep_if_due()
                if time.monotonic() - self._told >= TOLD_S:
                    self.tell("running")
            if not self.cancelled:
                self._keep()
                for root in look_for_missing:
                    self._n_missing += self._tracks.mark_missing(root, self._is_gone)
        except BaseException:
            self._cancel_all(threads)
            with contextlib.suppress(LibraryError):
                self._keep()
            raise
        if self.cancelled:
            self._cancel_all(threads)
            for future in running:
                if future.done() and not future.cancelled() and future.exception() is None:
                    self._collect(future)
            self._keep()
        self._ended.set()
        threads.shutdown(wait=not self.cancelled)

    def tell(self, state: str) -> ScanProgress:
        now = time.monotonic()
        finished = self._n_unchanged + self._n_ok + self._n_errors
        self._told = now
        if not finished:
            self._marks.clear()  # workers and network are still getting ready
        self._marks.append((now, finished))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_S:
            self._marks.popleft()
        (before, then), walking = self._marks[0], not (self._walked or self._counter.done)
        rate = (finished - then) / max(now - before, 1e-9)
        n_found = max(self._n_seen, self._counter.n)
        progress = ScanProgress(
            state=state,
            n_found=n_found,
            n_unchanged=self._n_unchanged,
            n_ok=self._n_ok,
            n_errors=self._n_errors,
            walking=walking and state == "running",
            files_per_s=rate if state == "running" else finished / max(now - self._began, 1e-9),
            eta_s=None if walking or finished == then else max(0, n_found - finished) / rate,
            elapsed_s=now - self._began,
            n_missing=self._n_missing,
            unreadable=tuple(sorted(map(shown_path, self._unreadable.copy()))),
            n_known=self._n_known,
        )
        self._on_progress(progress)
        return progress

    # --- the walk ---

    def _walk(self) -> None:
        """In a thread of its own: a disk that does not answer must not keep a scan from being cancelled."""
        try:
            chunk: list[FoundFile] = []
            began = time.monotonic()
            for found in self._stages.walk(self._unreadable.add):
                chunk.append(found)
                if len(chunk) >= CHUNK_FILES or time.monotonic() - began > CHUNK_S:
                    self._hand_on(chunk)
                    chunk, began = [], time.monotonic()
                if self._ended.is_set():
                    return
            self._hand_on(chunk)
            self._hand_on(None)
        except Exception as error:  # raised again where the chunks are taken
            self._hand_on(error)

    def _hand_on(self, chunk: list[FoundFile] | Exception | None) -> None:
        while not self._ended.is_set():
            try:
                return self._chunks.put(chunk, timeout=0.2)
            except queue.Full:
                continue

    def _take_chunk(self, wait_s: float) -> None:
        """The next files of the walk, if there are any yet: those that are not kept as they are become `_todo`."""
        try:
            chunk = self._chunks.get(timeout=wait_s) if wait_s else self._chunks.get_nowait()
        except queue.Empty:
            return
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            self._walked = True
            return
        self._n_seen += len(chunk)
        todo = changed(self._tracks, chunk, self._model_id, self._scan_id)
        self._n_unchanged += len(chunk) - len(todo)
        self._todo.extend(todo)

    def _is_gone(self, path: bytes) -> bool:
        return not self.cancelled and is_gone(path)

    # --- one file, in one of the threads ---

    def _one(self, found: FoundFile) -> FileRecord | None:
        """The terminal record of a file; None where the scan was stopped before there was one."""
        digest, tags = None, SongTags()
        result: Analysis | Failure | None
        try:
            looked = self._stages.look(found.path)
            digest, tags = looked.digest, looked.tags
            result = self._analysed_once(found, digest)
        except StoppedError:
            return None
        except (AudioError, InternalError) as error:
            result = Failure(os.fsdecode(found.path), error.to_dict())
        except AcousticError:  # no fault of the file: the library, the network or the workers cannot be used
            raise
        except Exception as error:  # our own fault: this file fails with its name, the rest go on
            result = Failure(os.fsdecode(found.path), InternalError(f"{type(error).__name__}: {error}").to_dict())
        return FileRecord(found.path, found.n_bytes, found.mtime_ns, digest, result, tags)

    def _analysed_once(self, found: FoundFile, digest: str) -> Analysis | Failure | None:
        """The analysis of a content, once for all files that hold it; None where the library has it. StorageError where
        the file is not what was looked at any more: what was heard is no answer to that digest."""
        while True:
            with self._flights_lock:
                flight = self._flights.get(digest)
                if flight is None:
                    mine = self._flights[digest] = Future()
            if flight is None:
                break
            try:
                return flight.result()
            except StorageError:  # of that file alone: this one may be read
                with self._flights_lock:
                    if self._flights.get(digest) is flight:
                        del self._flights[digest]
        try:
            has = self._tracks.analysed(digest, self._model_id)
            mine.set_result(None if has else self._stages.analyse(found, digest))
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()

    # --- the records ---

    def _collect(self, future: Future[FileRecord | None]) -> None:
        record = future.result()
        if record is None:
            return
        if not self._batch:
            self._batch_began = time.monotonic()
        self._batch.append(record)

    def _keep_if_due(self) -> None:
        if len(self._batch) >= BATCH_FILES or (self._batch and time.monotonic() - self._batch_began >= BATCH_S):
            self._keep()

    def _keep(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        self._tracks.record(self._scan_id, self._model_id, batch)
        failed = sum(isinstance(record.result, Failure) for record in batch)
        self._n_errors += failed
        self._n_ok += len(batch) - failed
        self._n_known += sum(record.result is None for record in batch)
        with self._flights_lock:  # from now on the library itself says that it has them
            for record in batch:
                if (flight := self._flights.get(record.digest or "")) is not None and flight.done():
                    del self._flights[record.digest or ""]

    def _cancel_all(self, threads: ThreadPoolExecutor) -> None:
        self._ended.set()
        threads.shutdown(wait=False, cancel_futures=True)
        self._stages.stop()


class _Counter:
    """Counts the files in a walk of its own, once there is work: the scan's own walk only keeps ahead of the work, and
    could not say how much is left."""

    def __init__(self, walk: Walk, ended: threading.Event) -> None:
        self._walk, self._ended = walk, ended
        self._thread: threading.Thread | None = None
        self.n = 0
        self.done = False

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._count, name="scan-count", daemon=True)
            self._thread.start()

    def _count(self) -> None:
        try:
            for _ in self._walk(lambda folder: None):
                self.n += 1
                if self._ended.is_set():
                    return
        except Exception:  # the scan's own walk tells of it
            return
        self.done = True
