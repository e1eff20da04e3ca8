"""The one owner of SQLite: a file, one thread that writes it, readers that see snapshots.

What was written is on disk when `write` returns (WAL with synchronous=FULL). A program has one writing connection;
several programs take turns (see writer_lock), which also makes WAL safe on every version of SQLite.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from sqlite3 import Connection, DatabaseError, Row
from typing import Any, TypeVar

from ..errors import InternalError, LibraryError
from .migrations import MIGRATIONS, Migration
from .writer_lock import WriterLock

__all__ = ["SQLITE_VERSION", "Connection", "Database", "DatabaseError", "Row", "now"]

T = TypeVar("T")
_Job = tuple[Callable[[Connection], Any], "Future[Any]"]

SQLITE_VERSION = sqlite3.sqlite_version
WAIT_S, CLOSE_WAIT_S = 10.0, 1.0
"""how long another program may write before this one says so"""
CHECKPOINT_BYTES = 4 << 20
"""from this length the log is copied into the file once nothing waits; from ten times this, whatever waits"""
IDLE_READERS = 8

_DAMAGED = (
    "The library is damaged: put a backup in its place. `acoustic library export` saves the decisions that can be read."
)
_HINTS = {
    sqlite3.SQLITE_FULL: "The disk is full: make room and try again. What was acknowledged before is kept.",
    sqlite3.SQLITE_READONLY: "The library may not be written: check its permissions and its folder's.",
    sqlite3.SQLITE_PERM: "The library may not be written: check its permissions and its folder's.",
    sqlite3.SQLITE_CANTOPEN: "Check that you may read and write it and its folder; `--library FILE` names another.",
    sqlite3.SQLITE_BUSY: "Another program uses the library: wait until it is done, and try again.",
    sqlite3.SQLITE_LOCKED: "Another program uses the library: wait until it is done, and try again.",
    sqlite3.SQLITE_NOTADB: "This is no library. Name another file with `--library FILE`, or put a backup in its place.",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_IOERR: "The disk failed or is full: check it and try again. What was acknowledged before is kept.",
}


def now() -> str:
    """The time as it is kept: ISO 8601 in UTC with microseconds, so that texts are in order where times are."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Database:
    """The library's file, opened or made, with all migrations applied. To be closed; safe to use from any thread.

    LibraryError, with the file left as it is, for a file that is damaged, of another program, or written by a newer
    version of this one.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))  # a link to it has the same locks
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._state = threading.Lock()  # around _closed, _idle and what is put in the queue
        self._closed = False
        self._idle: list[Connection] = []
        self._log_allowed = CHECKPOINT_BYTES
        opened: Future[None] = Future()
        self._writer = threading.Thread(target=self._serve, args=(opened,), name="library-writer", daemon=True)
        self._writer.start()
        opened.result()

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, done in a transaction of its own; it is on disk then. Where it raises, nothing is kept.

        `work` should be short: everybody who writes waits for it. It runs in the writer's thread and must call neither
        `write` nor `executescript`, which commits. Errors of SQLite become LibraryError.
        """
        if threading.current_thread() is self._writer:
            raise InternalError("a write within a write")
        answer: Future[T] = Future()
        with self._state:
            self._refuse_if_closed()
            self._jobs.put((work, answer))
        return answer.result()

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns; it sees one snapshot of all that was committed, and cannot write. Readers and the writer
        do not wait for each other. Errors of SQLite become LibraryError."""
        with self._translated(), self._reader() as connection:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def version(self) -> int:
        """A number that every write that changed something raises (`PRAGMA user_version`, which SQLite keeps for the
        program that owns the file)."""
        return int(self.read(lambda connection: connection.execute("PRAGMA user_version").fetchone()[0]))

    def copy_to(self, target: Path) -> None:
        """A whole and checked copy in `target`, which is absent or empty; it stands alone (no log). Others may go on
        writing meanwhile."""
        with self._translated(), self._reader() as source, _opened(target, "rwc") as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            [(found,), *_] = copy.execute("PRAGMA integrity_check(1)").fetchall()
            if found != "ok":
                raise LibraryError(f"the library {self.path}: its copy is damaged: {found}", _DAMAGED)

    def close(self) -> None:
        """Wait for what is being written, copy the log into the file, let go. Closing twice is fine."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:  # first, so that the writer's is the last one
            connection.close()
        self._jobs.put(None)
        self._writer.join()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- readers ---

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        """A connection that nobody else uses meanwhile; one more is opened where all are busy."""
        with self._state:
            self._refuse_if_closed()
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = _connect(self.path, "ro")
            connection.execute("PRAGMA query_only = ON")
        try:
            yield connection
        finally:
            with self._state:
                keep = not self._closed and len(self._idle) < IDLE_READERS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    # --- the writer's thread ---

    def _serve(self, opened: Future[None]) -> None:
        try:
            with self._translated():
                lock, connection = self._open()
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        try:
            while (job := self._jobs.get()) is not None:
                self._do(job, lock, connection)
                job = None  # what it holds is not kept alive while nothing comes
                self._checkpoint_if_long(lock, connection)
        finally:
            with suppress(LibraryError, sqlite3.Error), lock.held(CLOSE_WAIT_S):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                connection.close()  # where it is the last one, SQLite removes the log
            connection.close()
            lock.close()

    def _open(self) -> tuple[WriterLock, Connection]:
        if self.path.is_dir():
            raise LibraryError(f"{self.path} is a folder", "Name a file with `--library FILE`.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LibraryError(
                f"the folder {self.path.parent} cannot be made: {error.strerror}",
                "Choose another place with `--library FILE`.",
            ) from error
        lock = WriterLock(self.path)
        try:
            with lock.held(WAIT_S):
                self._refuse_strangers()
                connection = _connect(self.path, "rwc")
                try:
                    self._prepare(connection)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.close()
            raise
        return lock, connection

    def _refuse_strangers(self) -> None:
        """LibraryError for a file that is none of ours, or newer than this program; it is only looked at."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with _opened(self.path, "ro") as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "migrations" not in tables and tables:
                raise LibraryError(
                    f"{self.path} holds something else than a library", "Name another file with `--library FILE`."
                )
            if tables:
                unknown = _applied(connection) - {migration.name for migration in MIGRATIONS}
                if unknown:
                    raise LibraryError(
                        f"the library {self.path} was written by a newer version ({sorted(unknown)[0]!r} is unknown)",
                        "Update AcousticSense, or name another file with `--library FILE`; this one was left as it is.",
                    )

    def _prepare(self, connection: Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LibraryError(
                f"the folder of {self.path} cannot hold a library (journal mode {mode})",
                "Keep the library on a disk of this machine: choose another place with `--library FILE`.",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see _checkpoint_if_long: never while somebody waits
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_BYTES}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL) STRICT"
        )
        applied = _applied(connection)
        for migration in MIGRATIONS:
            if migration.name not in applied:
                _migrate(connection, migration)

    def _do(self, job: _Job, lock: WriterLock, connection: Connection) -> None:
        work, answer = job
        try:
            with self._translated(), lock.held(WAIT_S):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    before = connection.total_changes
                    result = work(connection)
                    if not connection.in_transaction:
                        raise InternalError("a write that ended its own transaction, as `executescript` does")
                    if connection.total_changes != before:
                        _raise_version(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:  # SQLite itself ends it where the disk is full
                        connection.execute("ROLLBACK")
                    raise
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _checkpoint_if_long(self, lock: WriterLock, connection: Connection) -> None:
        """Copy the log into the file. Where a reader still needs an old part of it, the log grows on, and the next try
        comes when it has grown again by as much."""
        try:
            n_bytes = self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return
        if n_bytes <= self._log_allowed or not (self._jobs.empty() or n_bytes > 10 * self._log_allowed):
            return
        with suppress(LibraryError, sqlite3.Error), lock.held(WAIT_S):  # else the log is as good as the file
            busy, in_log, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            done = not busy and in_log == copied
            self._log_allowed = CHECKPOINT_BYTES if done else n_bytes + CHECKPOINT_BYTES

    # --- errors ---

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LibraryError(f"the library {self.path} is closed", "Open it again.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds to it
            raise LibraryError(f"the library {self.path}: {error}", _HINTS.get(code, "")) from error
        except UnicodeDecodeError as error:  # of SQLite's own words, which quote what is damaged
            raise LibraryError(f"the library {self.path}: its texts are no texts any more", _DAMAGED) from error


def _connect(path: Path, mode: str) -> Connection:
    """A connection without transactions of its own making. The path goes in as a URI, so that any name does."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=WAIT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.row_factory = Row
    try:
        connection.execute("PRAGMA cache_size = -16000")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Connection]:
    connection = _connect(path, mode)
    try:
        yield connection
    finally:
        connection.close()


def _raise_version(connection: Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {(version + 1) % (1 << 31)}")


def _applied(connection: Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM migrations")}


def _migrate(connection: Connection, migration: Migration) -> None:
    """All of the step, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(migration.sql):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations (name, applied_at) VALUES (?, ?)", (migration.name, now()))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(sql: str) -> Iterator[str]:
    """The statements of a script one by one; a trigger with its own semicolons is one."""
    statement = ""
    for part in sql.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                yield statement
            statement = ""
