"""Derived arrays, kept by their content: a least-recently-used cache in memory over one on disk.

    make_key(digest, spec, model) -> key;   cache.get_or_compute(key, fn) -> (entry, hit)

Everything here can be computed again, so nothing here may ever fail a caller: a torn, flipped or foreign file is a miss
and is removed; a full disk, a read-only folder, a folder that somebody deletes at this moment cost only the hits, and
are counted in `stats()`. Several threads and several processes may share one folder.

A file is: magic, header length, JSON header (key, meta, arrays), arrays at multiples of 64 bytes, BLAKE2b of all that.
It is written aside and renamed, so that a reader sees all of it or none. No pickle anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import stat
import struct
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InternalError
from .records import CacheEntry

MAGIC = b"ACOUSTIC-CACHE-1"
PREFIX = struct.Struct(f"<{len(MAGIC)}sQ")  # magic, length of the JSON header
CHECKSUM_BYTES = 32
ALIGNMENT = 64  # of every array within the file
SUFFIX, ASIDE = ".entry", ".aside-"
BLOCK = 4_096  # what a file takes of the disk is a multiple of this, on the usual file systems
DTYPES = frozenset({"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8))})
KEY = re.compile(r"[0-9a-f]{16,128}")
STALE_S = 3_600.0  # a file still "aside" after this long was left by a process that died
TOUCH_S = 60.0  # how seldom a hit in memory marks the file as used
MB = 2**20


# --- keys ---


def make_key(*parts: Any) -> str:
    """40 hex digits that stand for `parts`: None, bool, int, float, str, bytes, tuples and frozen dataclasses of these.

    Every value is encoded with its kind and length, so that no two lists of parts run together: ("ab", "c") is not
    ("a", "bc"), and 1 is neither 1.0 nor True. Raises InternalError for another type: its text may not be its value.

    >>> make_key("ab", "c") == make_key("a", "bc")
    False
    """
    return hashlib.blake2b(b"".join(_canonical(parts)), digest_size=20).hexdigest()


def _canonical(value: Any) -> Iterator[bytes]:
    if value is None or isinstance(value, bool):
        yield _tagged(b"c", repr(value).encode())
    elif isinstance(value, int):
        yield _tagged(b"i", b"%d" % value)
    elif isinstance(value, float):
        yield _tagged(b"f", struct.pack("<d", value))
    elif isinstance(value, str):
        yield _tagged(b"s", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        yield _tagged(b"b", value)
    elif isinstance(value, tuple):
        yield _tagged(b"t", b"".join(part for item in value for part in _canonical(item)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        named = tuple((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        yield _tagged(b"d", b"".join(_canonical((type(value).__qualname__, named))))
    else:
        raise InternalError(f"a cache key cannot be made of {type(value).__name__}: {value!r:.80}")


def _tagged(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<Q", len(data)) + data


# --- the file format ---


class _InvalidFileError(Exception):
    """These bytes are not an entry that was written whole, by this format, for this key."""


def encode(key: str, entry: CacheEntry) -> bytes:
    """The bytes of a cache file. Raises InternalError where the entry holds what the format does not."""
    described, chunks, offset = [], [], 0
    for name, value in entry.arrays.items():
        array = np.asarray(value, order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            raise InternalError(f"the cache keeps numbers only, but array {name!r} has dtype {array.dtype}")
        padding = -offset % ALIGNMENT
        chunks += [b"\0" * padding, array.tobytes()]
        offset += padding
        described.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "offset": offset})
        offset += array.nbytes
    try:
        header = json.dumps({"key": key, "meta": dict(entry.meta), "arrays": described}).encode()
    except (TypeError, ValueError) as error:
        raise InternalError(f"the description of a cache entry is not JSON: {error}") from error
    header += b" " * (-(PREFIX.size + len(header)) % ALIGNMENT)
    body = b"".join([PREFIX.pack(MAGIC, len(header)), header, *chunks])
    return body + _checksum(body)


def decode(key: str, data: bytes) -> CacheEntry:
    """`encode`'s inverse; arrays are read-only views of `data`. Raises _InvalidFileError for anything else."""
    if len(data) < PREFIX.size + CHECKSUM_BYTES:
        raise _InvalidFileError("shorter than its frame")
    magic, header_size = PREFIX.unpack_from(data)
    end = len(data) - CHECKSUM_BYTES
    if magic != MAGIC or header_size > end - PREFIX.size:
        raise _InvalidFileError("another format")
    if data[end:] != _checksum(memoryview(data)[:end]):
        raise _InvalidFileError("the checksum differs")
    start = PREFIX.size + header_size
    try:
        header = json.loads(data[PREFIX.size : start])
        if header["key"] != key:
            raise _InvalidFileError("it belongs to another key")
        arrays = {str(item["name"]): _array(data, start, end, item) for item in header["arrays"]}
        return CacheEntry(arrays, dict(header["meta"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # a right checksum over a wrong description
        raise _InvalidFileError(str(error)) from error


def _array(data: bytes, start: int, end: int, item: dict[str, Any]) -> np.ndarray:
    dtype, shape, offset = item["dtype"], item["shape"], item["offset"]
    if dtype not in DTYPES or not all(type(n) is int and n >= 0 for n in (offset, *shape)):
        raise _InvalidFileError("an array is described wrongly")
    count = math.prod(shape)
    if start + offset + count * np.dtype(dtype).itemsize > end:
        raise _InvalidFileError("an array reaches beyond the file")
    if count == 0:
        return _read_only(np.zeros(shape, dtype))
    return np.frombuffer(data, dtype, count, start + offset).reshape(shape)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()


# --- the disk ---


class _Disk:
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
                raise _InvalidFileError("not a file of ours")
            entry = decode(key, path.read_bytes())
        except FileNotFoundError:
            return None
        except _InvalidFileError:
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


# --- the cache ---


@dataclass(slots=True)
class _Held:
    """An entry in memory; `meta` as text, so that what one caller does to its copy changes no other's."""

    arrays: dict[str, np.ndarray]
    meta: str
    n_bytes: int
    touched: float

    def entry(self) -> CacheEntry:
        return CacheEntry(dict(self.arrays), json.loads(self.meta))


@dataclass(slots=True)
class _Flight:
    """One computation under way: who comes second waits for `lock` and finds `result`."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    result: _Held | None = None
    n_threads: int = 0


class Cache:
    """See the module's docstring. `folder` None, or a `max_mb` of 0, keeps everything in memory only.

    Memory holds at most `max_entries` entries and `max_memory_mb`. Arrays that come out are read-only; `meta` is the
    caller's own copy, and looks as JSON brings it back (tuples are lists), from memory as from disk.
    """

    def __init__(
        self, folder: Path | None, max_mb: float = 2_048.0, max_entries: int = 1_000, *, max_memory_mb: float = 256.0
    ) -> None:
        self._disk = _Disk(Path(folder) / "entries", max_mb) if folder is not None and max_mb > 0 else None
        self._max_entries, self._max_memory = max_entries, int(max_memory_mb * MB)
        self._memory: OrderedDict[str, _Held] = OrderedDict()
        self._memory_bytes = 0
        self._flights: dict[str, _Flight] = {}
        self._lock = threading.Lock()
        self._counts = {"n_memory_hits": 0, "n_disk_hits": 0, "n_misses": 0}

    def get(self, key: str) -> CacheEntry | None:
        """The entry, or None. `key` is make_key's, or any 16 to 128 lower-case hex digits."""
        entry, source = self._find(_checked(key))
        self._count(source)
        return entry

    def put(self, key: str, entry: CacheEntry) -> None:
        """Keep `entry`. Raises InternalError for what cannot be kept: arrays of objects, a meta that is not JSON."""
        self._keep(_checked(key), entry)

    def get_or_compute(self, key: str, fn: Callable[[], CacheEntry]) -> tuple[CacheEntry, bool]:
        """(entry, whether it was there already). `fn` runs once, however many threads of this process ask meanwhile.

        An exception of `fn` goes to its caller and is not kept: the next thread in line tries for itself.
        """
        entry, source = self._find(_checked(key))
        if entry is not None:
            self._count(source)
            return entry, True
        with self._lock:
            flight = self._flights.setdefault(key, _Flight())
            flight.n_threads += 1
        try:
            with flight.lock:
                return self._land(key, flight, fn)
        finally:
            with self._lock:
                flight.n_threads -= 1
                if flight.n_threads == 0:
                    del self._flights[key]

    def _land(self, key: str, flight: _Flight, fn: Callable[[], CacheEntry]) -> tuple[CacheEntry, bool]:
        if flight.result is not None:
            self._count("n_memory_hits")
            return flight.result.entry(), True
        # an earlier flight may have landed between our look and our boarding
        entry, source = self._find(key)
        self._count(source)
        if entry is not None:
            return entry, True
        flight.result = self._keep(key, fn())
        return flight.result.entry(), False

    def stats(self) -> dict[str, Any]:
        """Counts since the start, and what is held. `disk`: is there one; trouble is in `last_disk_error`."""
        with self._lock:
            hits = self._counts["n_memory_hits"] + self._counts["n_disk_hits"]
            asked = hits + self._counts["n_misses"]
            own = {
                **self._counts,
                "hit_rate": hits / asked if asked else 0.0,
                "n_entries": len(self._memory),
                "memory_mb": self._memory_bytes / MB,
                "disk": self._disk is not None,
            }
        return {**own, **(self._disk.stats() if self._disk else {})}

    def clear(self) -> None:
        """Forget everything, on disk too; files that are not the cache's own stay."""
        with self._lock:
            self._memory.clear()
            self._memory_bytes = 0
        if self._disk:
            self._disk.clear()

    def _find(self, key: str) -> tuple[CacheEntry | None, str]:
        """The entry and the name of what to count."""
        now = time.monotonic()
        with self._lock:
            held = self._memory.get(key)
            due = held is not None and now - held.touched > TOUCH_S
            if held is not None:
                self._memory.move_to_end(key)
                held.touched = now if due else held.touched
        if held is not None:
            if due and self._disk:
                self._disk.touch(key)
            return held.entry(), "n_memory_hits"
        entry = self._disk.read(key) if self._disk else None
        if entry is None:
            return None, "n_misses"
        return self._remember(key, entry).entry(), "n_disk_hits"

    def _keep(self, key: str, entry: CacheEntry) -> _Held:
        data = encode(key, entry)
        held = self._remember(key, decode(key, data))  # the same bytes in memory as on disk, and nobody else's arrays
        if self._disk:
            self._disk.write(key, data)
        return held

    def _remember(self, key: str, entry: CacheEntry) -> _Held:
        meta = json.dumps(entry.meta)
        n_bytes = len(meta) + sum(array.nbytes for array in entry.arrays.values())
        held = _Held(dict(entry.arrays), meta, n_bytes, time.monotonic())
        with self._lock:
            self._forget(key)
            if n_bytes <= self._max_memory:
                self._memory[key] = held
                self._memory_bytes += n_bytes
            while len(self._memory) > self._max_entries or self._memory_bytes > self._max_memory:
                self._forget(next(iter(self._memory)))
        return held

    def _forget(self, key: str) -> None:
        held = self._memory.pop(key, None)
        if held is not None:
            self._memory_bytes -= held.n_bytes

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def _checked(key: str) -> str:
    if not KEY.fullmatch(key):
        raise InternalError(f"a cache key is 16 to 128 lower-case hex digits, not {key!r:.80}")
    return key
