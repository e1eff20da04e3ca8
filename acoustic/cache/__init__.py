"""Derived arrays, kept by their content: a least-recently-used cache in memory over one on disk.

    make_key(digest, spec, model) -> key;   cache.get_or_compute(key, fn) -> (entry, hit)

Everything here can be computed again, so nothing here may ever fail a caller: a torn, flipped or foreign file is a miss
and is removed; a full disk, a read-only folder, a folder that somebody deletes at this moment cost only the hits, and
are counted in `stats()`. Several threads and several processes may share one folder.

    keys         values -> key
    entry_file   entry <-> the bytes of a file
    disk         files below one folder
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InternalError
from ..records import CacheEntry
from .disk import MB, Disk
from .entry_file import decode, encode
from .keys import KEY, make_key

__all__ = ["TOUCH_S", "Cache", "make_key"]

TOUCH_S = 60.0  # how seldom a hit in memory marks the file as used


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
        self._disk = Disk(Path(folder) / "entries", max_mb) if folder is not None and max_mb > 0 else None
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
