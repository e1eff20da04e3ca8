"""Entries as files below one folder, bounded, shared with other processes; its troubles cost hits and nothing else.

A file is written aside and renamed, so that a reader sees all of it or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..records import CacheEntry
from .entry_file import InvalidFileError, decode
from .keys import KEY

SUFFIX, ASIDE = ".entry", ".aside-"
BLOCK = 4_096  # what a file takes of the disk is a multiple of this, on the usual file systems
STALE_S = 3_600.0  # a file still "aside" after this long was left by a process that died
MB = 2**20


class Disk:
    """Entries as files `<folder>/<a>/<b>/<key>.entry`, where a and b are the key's first two digits.

    Bounded without looking at the whole folder at each write: it is measured whenever this process has written a 32nd
    of the bound since its last look. If it is fuller than `_high` then, the entries that were not used for longest go,
    down to `_low`. Between looks each process adds at most a 32nd: four of them stay within the bound together, as long
    as their entries are smaller than that.
    """

    def __init__(self, folder: Path, max_mb: float) -> None:
        self.folder = folder
        self.max_bytes = int(max_mb * MB)
        self._high, self._low = self.max_bytes * 7 // 8, self.max_bytes * 3 // 4
        self._unseen = self._look_every = self.max_bytes // 32  # so that the first write looks
        self._used = 0
        self._lock = threading.RLock()  # one writer at a time, and the counts
        self.counts = {"n_evicted": 0, "n_corrupt": 0, "n_disk_errors": 0}
        self.last_error: str | None = None

    def read(self, key: str) -> CacheEntry | None:
        path = self._path(key)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > self.max_bytes:
                raise InvalidFileError("not a file of ours")
            entry = decode(key, path.read_bytes())
        except FileNotFoundError:
            return None
        except InvalidFileError:
            with self._lock:
                self.counts["n_corrupt"] += 1
            self._remove(path)
            return None
        except OSError as error:
            self._failed(error)
            return None
        self.touch(key)
        return entry

    def touch(self, key: str) -> None:
        """Mark as used now: the order of eviction. (atime is switched off on many file systems.)"""
        with contextlib.suppress(OSError):  # evicted meanwhile, or a folder that may only be read: still a hit
            _stamp(self._path(key))

    def write(self, key: str, data: bytes) -> None:
        size = _on_disk(len(data))
        if size > self._high:
            return
        with self._lock:
            try:
                self._make_room(size)
                try:
                    self._replace(self._path(key), data)
                except FileNotFoundError:  # somebody deleted the folder between mkdir and rename
                    self._replace(self._path(key), data)
            except OSError as error:
                self._failed(error)

    def _replace(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=ASIDE, dir=path.parent)
        aside = Path(name)
        try:
            with open(handle, "wb") as file:
                file.write(data)
            _stamp(aside)
            os.replace(aside, path)
        except BaseException:
            self._remove(aside)
            raise

    def _make_room(self, size: int) -> None:
        """Account for `size` bytes about to be written; measure and evict when that is due."""
        self._unseen += size
        self._used += size
        if self._unseen <= self._look_every:
            return
        self._unseen = 0
        files = sorted(self._files())
        self._used = sum(on_disk for _, on_disk, _ in files) + size
        if self._used <= self._high:
            return
        for _, on_disk, path in files:
            if self._used <= self._low:
                return
            if self._remove(path):
                self._used -= on_disk
                self.counts["n_evicted"] += 1
        if self._used > self._high:
            raise OSError(errno.ENOSPC, "the cache is full, and its files cannot be removed", str(self.folder))

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, bytes on disk, path) of every entry; removes what dead processes left aside."""
        for path in self._walk():
            try:
                status = os.lstat(path)
            except OSError:
                continue  # gone meanwhile
            if not path.name.startswith(ASIDE):
                yield status.st_mtime_ns, _on_disk(status.st_size), path
            elif time.time() - status.st_mtime > STALE_S:
                self._remove(path)

    def _walk(self) -> Iterator[Path]:
        """Only what this class puts there: whatever else lies in the folder is not ours to touch."""
        for first in _listed(self.folder):
            for second in _listed(first) if len(first.name) == 1 else ():
                for path in _listed(second) if len(second.name) == 1 else ():
                    if path.name.startswith(ASIDE) or (path.suffix == SUFFIX and KEY.fullmatch(path.stem)):
                        yield path

    def clear(self) -> None:
        with self._lock:
            for path in self._walk():
                self._remove(path)
            self._used, self._unseen = 0, self._look_every

    def stats(self) -> dict[str, Any]:
        with self._lock:
            if self._used == 0:  # nothing written yet: what earlier runs left
                self._used = sum(on_disk for _, on_disk, _ in self._files())
            return {**self.counts, "disk_mb": self._used / MB, "last_disk_error": self.last_error}

    def _path(self, key: str) -> Path:
        return self.folder / key[0] / key[1] / f"{key}{SUFFIX}"

    def _remove(self, path: Path) -> bool:
        """Whether the file is gone; it is no error if it cannot be removed, or was removed by somebody else."""
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _failed(self, error: OSError) -> None:
        with self._lock:
            self.counts["n_disk_errors"] += 1
            self.last_error = f"{type(error).__name__}: {error}"


def _stamp(path: Path) -> None:
    now = time.time_ns()  # finer than the clock by which file systems stamp
    os.utime(path, ns=(now, now))


def _on_disk(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK


def _listed(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return [Path(item.path) for item in found]
    except OSError:
        return []  # missing, deleted meanwhile, not a folder, unreadable: nothing to see
