"""The journal of what was written into files: every write can be undone, and none is lost however the program ends.

For one file: a row `planned` is committed; a copy beside the file gets the genres, is read back and brought to the disk
(see rewriting); what makes the old bytes of the new ones is committed to the row (see patch); the copy takes the file's
place; the row becomes `written`. Whatever step the program ends at, the path holds the whole old file or the whole new
one, and `recover` tells by its digest which, and settles the row.

Undo puts the old bytes back. A file that was changed since by another program keeps that change: only its old genres
are written, and only where ours are still there.

The library knows a content by its digest: in the transaction that settles a row, what it knows of the file follows, so
that the next scan finds the same track, with all that was decided of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AcousticError, LibraryError, TagError
from .database import Database
from .rewriting import (
    AudioDigest,
    Original,
    aside,
    digest_of,
    discard,
    examine,
    patch_back,
    patched_copy,
    put_in_place,
    shown,
    tagged_copy,
)
from .tag_plan import SAME_FILE, Candidate, Change, Policy, candidates, plan
from .tag_rows import ELSEWHERE, UNDOING, Batch, Row, TagRows
from .tags import read_tags
from .writer_lock import WriterLock

__all__ = ["Batch", "Candidate", "Change", "Outcome", "Policy", "TagJournal", "Written", "candidates", "plan"]

AtStep = Callable[[str, bytes], object]
"""(step, path): told after each step of a write or an undo, for those who want to see what an end there does"""
OnProgress = Callable[[int, int], object]

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: its genres `before` and `after`, or the error that says why it was left as it was."""

    path: bytes
    before: tuple[str, ...]
    after: tuple[str, ...]
    error: TagError | None = None
    note: str = ""
    """what a person should know of it, where it did not go the usual way"""


@dataclass(frozen=True, slots=True)
class Written:
    """What one call did. `batch_id` is None where no file came as far as being touched."""

    batch_id: int | None
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.error is not None)


class _ElsewhereError(TagError):
    """The song is not where it was written, and another one is."""


class _Once:
    """A number that is made at first need, by whichever thread comes first."""

    def __init__(self, make: Callable[[], int]) -> None:
        self._make, self._lock = make, threading.Lock()
        self.made: int | None = None

    def get(self) -> int:
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made


class TagJournal:
    """Tags written and taken back, on record in `database`. One at a time among all programs with this library.

    Any method may raise LibraryError; what happens to single files is in their outcomes.
    """

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._rows = TagRows(database)

    # --- looking ---

    def plan(self, files: Sequence[Candidate], policy: Policy, on_progress: OnProgress | None = None) -> list[Change]:
        """The dry run, see `tag_plan.plan`."""
        changes: list[Change] = []
        reals: set[bytes] = set()
        for start in range(0, len(files), _CHUNK):
            some = files[start : start + _CHUNK]
            for change in plan(some, policy, self._rows.ours([one.path for one in some])):
                real = os.path.realpath(change.path) if change.writes else b""
                again = change.writes and real in reals
                changes.append(replace(change, after=change.before, reason=SAME_FILE) if again else change)
                reals.add(real)
            if on_progress is not None:
                on_progress(len(changes), len(files))
        return changes

    def batches(self) -> list[Batch]:
        """All batches, the newest first."""
        return self._rows.batches()

    def files_of(self, batch_id: int) -> list[Outcome]:
        """The files of a batch by path, with what was written, or why it was not. TagError where there is none."""
        self._known(batch_id)
        return [
            _outcome(row, TagError(row.error_message) if row.state == "failed" else None, row.state)
            for row in self._rows.where("batch_id = ? ORDER BY path", batch_id)
        ]

    # --- writing ---

    def apply(
        self,
        changes: Iterable[Change],
        policy: Policy,
        audio_digest: AudioDigest,
        *,
        hard_links: bool = False,
        n_workers: int = 1,
        at_step: AtStep | None = None,
        on_progress: OnProgress | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Written:
        """Write those of `changes` that are to be written, `n_workers` files at a time; one that cannot be is left as
        it was, and the others go on. `stopped` is asked before each file. TagError where tags are being written
        already."""
        wanted = list({change.path: change for change in changes if change.writes}.values())
        ending = threading.Event()
        batch = _Once(lambda: self._rows.new_batch(policy))

        def one(change: Change) -> Outcome | None:
            if ending.is_set() or (stopped is not None and stopped()):
                return None
            try:
                original = examine(change.path, hard_links=hard_links)
                _check_as_planned(change, original)
                self._write(batch.get(), change, original, policy.keep_times, audio_digest, at_step)
            except TagError as error:
                return Outcome(change.path, change.before, change.before, error)
            return Outcome(change.path, change.before, change.after)

        outcomes: list[Outcome] = []
        with self._alone(), ThreadPoolExecutor(n_workers, "tags") as pool:
            try:
                self._settle()
                for outcome in pool.map(one, wanted):
                    outcomes += [] if outcome is None else [outcome]
                    if on_progress is not None:
                        on_progress(len(outcomes), len(wanted))
            finally:
                ending.set()  # files begun are finished, the others are not touched
        return Written(batch.made, tuple(outcomes))

    def _write(
        self,
        batch_id: int,
        change: Change,
        original: Original,
        keep_times: bool,
        audio_digest: AudioDigest,
        at_step: AtStep | None,
    ) -> None:
        def step(name: str) -> None:
            if at_step is not None:
                at_step(name, change.path)

        row = self._rows.insert(batch_id, change, original)
        temp = aside(original.real, row, original.digest)
        try:
            step("planned")
            digest = tagged_copy(original, temp, change.after, audio_digest, keep_times=keep_times, step=step)
            kept = patch_back(original, temp)
            self._rows.set(row, kept=kept, digest_after=digest)
            step("kept")
            put_in_place(original, temp, step)
        except BaseException as error:
            discard(temp)
            if isinstance(error, TagError):
                self._rows.set(row, state="failed", error_code=error.code, error_message=error.message, kept=None)
            raise
        self._rows.settle(row, original, digest, "written", change.after)
        step("written")

    # --- taking back ---

    def undo(
        self,
        batch_id: int | None = None,
        *,
        audio_digest: AudioDigest,
        keep_times: bool = True,
        hard_links: bool = False,
        at_step: AtStep | None = None,
        on_progress: OnProgress | None = None,
    ) -> Written:
        """Put back what the files of a batch (None: the latest of which something stands) were, byte for byte, with
        their time of change unless `keep_times` is off. A file that another program changed since gets its old genres
        alone, see the outcome's note; one that a later batch wrote is left until that is undone.

        TagError where there is no such batch, or tags are being written.
        """
        with self._alone():
            self._settle()
            batch_id = self._latest() if batch_id is None else self._known(batch_id)
            rows = self._rows.where("batch_id = ? AND state = 'written' ORDER BY id DESC", batch_id)
            outcomes: list[Outcome] = []
            for row in rows:
                try:
                    outcomes.append(self._undo(row, audio_digest, keep_times, hard_links, at_step))
                except TagError as error:
                    self._rows.set(row.id, error_code=ELSEWHERE if isinstance(error, _ElsewhereError) else None)
                    outcomes.append(Outcome(row.path, row.after, row.after, error))
                if on_progress is not None:
                    on_progress(len(outcomes), len(rows))
        return Written(batch_id, tuple(outcomes))

    def _undo(
        self, row: Row, audio_digest: AudioDigest, keep_times: bool, hard_links: bool, at_step: AtStep | None
    ) -> Outcome:
        row = self._followed(row)

        def step(name: str) -> None:
            if at_step is not None:
                at_step(name, row.path)

        later = self._rows.where("path = ? AND state = 'written' AND id > ? LIMIT 1", row.path, row.id)
        if later:
            raise TagError(
                f"{shown(row.path)} was written again by batch {later[0].batch_id}",
                f"Undo that first: `acoustic tag undo {later[0].batch_id}`.",
            )
        original = examine(row.path, hard_links=hard_links)
        before, after = row.before, row.after
        if original.digest == row.digest_before:
            self._rows.settle(row.id, original, original.digest, "undone", before)
            return Outcome(row.path, after, before, note="it was as before already")
        if original.digest != row.digest_after and self._rows.is_of_another(original.digest, row):
            raise _ElsewhereError(
                f"another song lies at {shown(row.path)} now",
                f"Scan the folder where the song is now; then `acoustic tag undo {row.batch_id}` tries it again.",
            )
        temp = aside(original.real, row.id, row.digest_before)
        discard(temp)
        kept = self._rows.kept(row.id) if original.digest == row.digest_after else None
        note = ""
        if kept is None:
            note = (
                "it was changed by another program since: only its genres were put back"
                if original.digest != row.digest_after
                else "its old bytes were too many to keep: only its genres were put back"
            )
            found = read_tags(original.real).genres
            if found != after:
                self._rows.settle(row.id, original, original.digest, "undone", found)
                note = "its genres were changed by another program since: they were left as they are"
                return Outcome(row.path, after, found, note=note)
        self._rows.set(row.id, error_code=UNDOING)
        step("undoing")
        try:
            if kept is not None:
                digest = row.digest_before
                mtime_ns = row.mtime_ns_before if keep_times else None
                patched_copy(original, temp, kept, digest, mtime_ns, step)
            else:
                digest = tagged_copy(original, temp, before, audio_digest, keep_times=keep_times, step=step)
            put_in_place(original, temp, step)
        except BaseException:
            discard(temp)
            raise
        self._rows.settle(row.id, original, digest, "undone", before)
        step("undone")
        return Outcome(row.path, after, before, note=note)

    def _followed(self, row: Row) -> Row:
        """The row of a file that was moved, at the place where a scan found the very content that was written; another
        song may lie at the old one."""
        if os.path.lexists(row.path):
            if not self._rows.lies_elsewhere(row):
                return row
            with suppress(OSError):
                digest = digest_of(os.path.realpath(row.path))
                if digest in (row.digest_before, row.digest_after) or not self._rows.is_of_another(digest, row):
                    return row
        for path in self._rows.moved_to(row):
            with suppress(OSError):
                if digest_of(os.path.realpath(path)) == row.digest_after:
                    self._rows.move(row.id, path)
                    return replace(row, path=path)
        return row

    # --- after an end at the wrong moment ---

    def recover(self) -> list[Outcome]:
        """Settle the rows that an ended program left: a file that has its new content is written, one that has the old
        is as it was; what lay beside it is removed. A file that cannot be read now waits for the next time."""
        with self._alone():
            return self._settle()

    def _settle(self) -> list[Outcome]:
        found = []
        for row in self._rows.where("state = 'planned' OR (state = 'written' AND error_code = ?) ORDER BY id", UNDOING):
            real = os.path.realpath(row.path)
            try:
                digest, status = digest_of(real), os.stat(real)
            except OSError:
                continue
            temp = aside(real, row.id, row.digest_before)
            in_place = not os.path.lexists(temp)  # it takes the file's place as a whole
            discard(temp)
            if row.state == "written":
                if digest == row.digest_before:
                    before = Original(row.path, real, status, row.digest_after or "")
                    self._rows.settle(row.id, before, digest, "undone", row.before)
                else:
                    self._rows.set(row.id, error_code=None)
                found.append(_outcome(row, None, "its undo was interrupted"))
            elif digest == row.digest_after:
                before = Original(row.path, real, status, row.digest_before)
                self._rows.settle(row.id, before, digest, "written", row.after)
                found.append(_outcome(row, None, "it was written, and the program ended before it said so"))
            elif in_place and row.digest_after is not None and _genres_in(real) == row.after:
                self._rows.set(row.id, state="written", error_code=None, error_message=None)  # a scan finds the rest
                found.append(_outcome(row, None, "it was written, and changed by another program since"))
            else:
                error = TagError(f"{shown(row.path)}: the program ended before it was written")
                self._rows.set(row.id, state="failed", error_code=error.code, error_message=error.message, kept=None)
                found.append(_outcome(row, error))
        return found

    def _latest(self) -> int:
        found = "state = 'written' ORDER BY error_code IS ? , batch_id DESC LIMIT 1"  # what can be found comes first
        rows = self._rows.where(found, ELSEWHERE)
        if not rows:
            raise TagError("nothing is written that could be undone", "`acoustic tag list` shows what was.")
        return rows[0].batch_id

    def _known(self, batch_id: int) -> int:
        if not any(batch.id == batch_id for batch in self._rows.batches()):
            raise TagError(f"there is no batch {batch_id}", "`acoustic tag list` shows them.")
        return batch_id

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as held:
            lock = WriterLock(Path(f"{self._path}-tags"))
            held.callback(lock.close)
            try:
                held.enter_context(lock.held(0.0))
            except LibraryError as error:
                raise TagError("tags are being written already", "Wait until that is done, and try again.") from error
            yield


def _check_as_planned(change: Change, original: Original) -> None:
    status = original.status
    known = (change.n_bytes, change.mtime_ns)
    if known != (status.st_size, status.st_mtime_ns) or read_tags(original.real).genres != change.before:
        raise TagError(f"{shown(change.path)} was changed since the plan was made", "Scan its folder and plan again.")


def _genres_in(path: bytes) -> tuple[str, ...] | None:
    """None where they cannot be read."""
    try:
        return read_tags(path).genres
    except AcousticError:
        return None


def _outcome(row: Row, error: TagError | None, note: str = "") -> Outcome:
    return Outcome(row.path, row.before, row.after, error, note)
