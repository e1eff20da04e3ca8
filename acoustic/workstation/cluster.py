"""The scan on a Ray cluster: read -> decode -> infer as stages of Ray Data, write by the machine that has the library.

For when one machine is outgrown: the stages are the local scan's own, and so are the answers. The library's machine
walks the folder, leaves out what is known, and writes what comes back while the rest is on its way. All machines must
see songs and models under the same paths, with this version installed. Files are decoded in worker processes there too
(see `workers`), so a poison file costs no more than it does here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import AcousticError, AudioError, BackendError, InternalError, LibraryError, StorageError
from ..kept import FileRecord, FoundFile, ScanProgress, SongTags, shown_path
from ..library.scan import BATCH_FILES, BATCH_S, OnProgress, Walk, changed, check_unchanged, is_gone
from ..library.tracks import Tracks
from ..records import Analysis, Failure
from ..workers import Workers

if TYPE_CHECKING:
    from ..records import Personal
    from ..settings import Settings

CHUNK_FILES = 20_000
"""files that are one data set: the stages' processes are started anew for each"""
BLOCK_FILES = 8
"""files that travel together"""
INSTALL = "Install it with `pip install 'ray[data]==2.60.0'`, or scan with the local engine."


@dataclass(frozen=True)
class Plan:
    """What the stages are told: the arguments of `Workers` (but for their number), and how to judge."""

    workers: dict[str, Any]
    settings: Settings
    personal: Personal | None


class _Stage:
    """Row -> row, on some machine. A row is {"path", "said", "error"}: what the stage before said of the file, or why
    there is nothing to say; a file with an error goes through untouched."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["error"] is not None:
            return row
        try:
            return {**row, "said": self.say(os.fsdecode(row["path"]), row["said"])}
        except (AudioError, InternalError) as error:
            return {**row, "said": None, "error": error.to_dict()}

    def say(self, path: str, said: Any) -> Any:
        raise NotImplementedError


class Read(_Stage):
    """-> {"digest", "tags"}"""

    name = "look"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._workers = Workers(n=1, **plan.workers)

    def say(self, path: str, said: Any) -> Any:
        entry = self._workers.ask(self.name, path)
        return dict(entry.meta) if self.name == "look" else entry


class Decode(Read):
    """-> CacheEntry of mels"""

    name = "hear"


class Infer(_Stage):
    """CacheEntry -> Analysis"""

    def __init__(self, plan: Plan) -> None:
        from ..engine import OptimizedAudioClassifier

        super().__init__(plan)
        self._classifier = OptimizedAudioClassifier(
            settings=plan.settings, cache=False, n_threads=plan.settings.n_threads()
        )
        self._classifier.personal = plan.personal

    def say(self, path: str, said: Any) -> Any:
        try:
            return self._classifier.judge(path, None, said)
        except BackendError as error:  # of this file's scores: that there is no network was raised when this was made
            raise InternalError(error.message, error.hint) from error


def scan_on_cluster(
    tracks: Tracks,
    root: bytes,
    model_id: int,
    walk: Walk,
    plan: Plan,
    *,
    bounds: str = "",
    on_progress: OnProgress = lambda progress: None,
    cancel: threading.Event | None = None,
) -> ScanProgress:
    """What `library.scan.scan_files` does, through Ray Data. BackendError where Ray is missing or fails."""
    with _ray() as n_cpus:
        job = _Job(tracks, model_id, tracks.begin_scan(root, "ray", model_id, bounds), plan, n_cpus, on_progress)
        job.cancel = cancel or job.cancel
        try:
            job.run(walk)
            if not job.cancel.is_set():
                job.n_missing = tracks.mark_missing(root, is_gone)
        except BaseException:
            tracks.end_scan(job.scan_id, "failed")
            job.tell("failed")
            raise
        state = "cancelled" if job.cancel.is_set() else "done"
        tracks.end_scan(job.scan_id, state)
        return job.tell(state)


@dataclass
class _Job:
    """One run, and its counts."""

    tracks: Tracks
    model_id: int
    scan_id: int
    plan: Plan
    n_cpus: int
    on_progress: OnProgress
    cancel: threading.Event = field(default_factory=threading.Event)
    n_found: int = 0
    n_unchanged: int = 0
    n_ok: int = 0
    n_known: int = 0
    n_errors: int = 0
    n_missing: int = 0
    walking: bool = True
    unreadable: set[bytes] = field(default_factory=set)
    batch: list[FileRecord] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    kept_at: float = field(default_factory=time.monotonic)

    def run(self, walk: Walk) -> None:
        found = walk(self.unreadable.add)
        try:
            while not self.cancel.is_set() and (chunk := list(islice(found, CHUNK_FILES))):
                self.n_found += len(chunk)
                todo = changed(self.tracks, chunk, self.model_id, self.scan_id)
                self.n_unchanged += len(chunk) - len(todo)
                self.walking = len(chunk) == CHUNK_FILES
                self.tell("running")
                if todo:
                    self._chunk(todo)
        finally:
            with contextlib.suppress(LibraryError):
                self._keep()

    def _chunk(self, todo: Sequence[FoundFile]) -> None:
        """Read all, then decode and judge one file of each content that is new."""
        files = {found.path: found for found in todo}
        held: dict[str, list[tuple[FoundFile, SongTags]]] = {}
        for row in self._through(list(files), [Read]):
            found = files[row["path"]]
            if row["error"] is not None:
                self._record(found, None, SongTags(), Failure(os.fsdecode(found.path), row["error"]))
            else:
                tags = {**row["said"]["tags"], "genres": tuple(row["said"]["tags"]["genres"])}
                held.setdefault(row["said"]["digest"], []).append((found, SongTags(**tags)))
        fresh = {}
        for digest, copies in held.items():
            if self.tracks.analysed(digest, self.model_id):
                for found, tags_ in copies:
                    self._record(found, digest, tags_, None)
            else:
                fresh[copies[0][0].path] = digest
        for row in self._through(list(fresh), [Decode, Infer]):
            digest = fresh[row["path"]]
            error = row["error"] or _changed_meanwhile(files[row["path"]])
            for found, tags_ in held[digest]:
                failed = error
                if failed and failed["code"] == "STORAGE" and found.path != row["path"]:  # of the other file alone
                    failed = StorageError("its copy could not be read to the end", "Scan again.").to_dict()
                result = row["said"] if failed is None else Failure(os.fsdecode(found.path), failed)
                self._record(found, digest, tags_, result)

    def _through(self, paths: Sequence[bytes], stages: Sequence[type[_Stage]]) -> Iterator[dict[str, Any]]:
        """Rows as they come out of the stages, in any order; ends early when the scan is cancelled."""
        if not paths:
            return
        rows: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(maxsize=4 * BATCH_FILES)
        over = threading.Event()
        threading.Thread(target=self._pull, args=(paths, stages, rows, over), daemon=True).start()
        try:
            while not self.cancel.is_set():
                self._keep_if_due()
                try:
                    row = rows.get(timeout=0.25)
                except queue.Empty:
                    continue
                if row is None:
                    return
                if isinstance(row, BaseException):
                    raise _translated(row) from row
                yield row
        finally:
            over.set()

    def _pull(
        self,
        paths: Sequence[bytes],
        stages: Sequence[type[_Stage]],
        rows: queue.Queue[dict[str, Any] | BaseException | None],
        over: threading.Event,
    ) -> None:
        """In a thread of its own, because Ray cannot be asked to wait for a moment only."""
        import ray.data

        last: BaseException | None = None
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            plain = [{"path": path, "said": None, "error": None} for path in paths]
            data = ray.data.from_items(plain, override_num_blocks=-(-len(plain) // BLOCK_FILES))
            for stage in stages:
                size = 1 if stage is Infer else max(1, self.n_cpus - 1)
                pool = ray.data.ActorPoolStrategy(size=min(size, -(-len(plain) // BLOCK_FILES)))
                # the one that judges asks for no core of its own, so that a cluster of one core can work at all
                data = data.map(
                    stage, fn_constructor_args=(self.plan,), compute=pool, num_cpus=0.01 if stage is Infer else 0.9
                )
            for row in data.iter_rows():
                while not over.is_set():
                    with contextlib.suppress(queue.Full):
                        rows.put(row, timeout=0.25)
                        break
                if over.is_set():
                    return
        except BaseException as error:  # it is raised where the rows are taken
            last = error
        with contextlib.suppress(queue.Full):
            rows.put(last, timeout=60)

    def _record(self, found: FoundFile, digest: str | None, tags: SongTags, result: Analysis | Failure | None) -> None:
        self.batch.append(FileRecord(found.path, found.n_bytes, found.mtime_ns, digest, result, tags))
        self._keep_if_due()

    def _keep_if_due(self) -> None:
        if len(self.batch) >= BATCH_FILES or time.monotonic() - self.kept_at >= BATCH_S:
            self._keep()
            self.tell("running")

    def _keep(self) -> None:
        batch, self.batch, self.kept_at = self.batch, [], time.monotonic()
        if batch:
            self.tracks.record(self.scan_id, self.model_id, batch)
            failed = sum(isinstance(record.result, Failure) for record in batch)
            self.n_errors += failed
            self.n_ok += len(batch) - failed
            self.n_known += sum(record.result is None for record in batch)

    def tell(self, state: str) -> ScanProgress:
        elapsed = time.monotonic() - self.began
        finished = self.n_unchanged + self.n_ok + self.n_errors
        rate = (self.n_ok + self.n_errors) / max(elapsed, 1e-9)
        walking = self.walking and state == "running"
        progress = ScanProgress(
            state=state,
            n_found=self.n_found,
            n_unchanged=self.n_unchanged,
            n_ok=self.n_ok,
            n_errors=self.n_errors,
            walking=walking,
            files_per_s=rate,
            eta_s=None if walking or not rate else (self.n_found - finished) / rate,
            elapsed_s=elapsed,
            n_missing=self.n_missing,
            unreadable=tuple(sorted(map(shown_path, self.unreadable))),
            n_known=self.n_known,
        )
        self.on_progress(progress)
        return progress


def check_installed() -> None:
    """BackendError where Ray is not there."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise BackendError(f"the engine ray cannot be used: {error}", INSTALL) from None


@contextlib.contextmanager
def _ray() -> Iterator[int]:
    """The cluster that RAY_ADDRESS names, one that is joined already, or one on this machine alone; how many cores it
    has. BackendError where there is none."""
    check_installed()
    import ray

    joined = ray.is_initialized()
    try:
        if not joined:
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        n_cpus = int(ray.cluster_resources().get("CPU", 1))
    except Exception as error:  # Ray has no common ground for what can go wrong with a cluster
        raise _translated(error) from error
    try:
        yield n_cpus
    finally:
        if not joined:
            ray.shutdown()


def _translated(error: BaseException) -> AcousticError:
    """Ours, where a stage raised one; else a BackendError with Ray's last word."""
    cause = getattr(error, "cause", None) or error.__cause__
    for found in (error, cause):
        if isinstance(found, AcousticError):
            return found
    lines = str(error).strip().split("\n")
    return BackendError(f"the Ray cluster failed: {type(error).__name__}: {lines[-1]}", "Look at `ray status`.")


def _changed_meanwhile(found: FoundFile) -> dict[str, str] | None:
    """The error of a file that is not what was read first any more: what was heard is no answer to that digest."""
    try:
        check_unchanged(found)
    except StorageError as error:
        return error.to_dict()
    return None
