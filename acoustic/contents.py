"""Which content a file holds, so that a song is known again under any name: its digest, remembered in the cache by what
the file system says of the file.

The digest of a three-minute WAV takes as long as decoding, mels and network together. So a file is digested first only
where it looks like one that was kept and may be a copy; what is surely new can be kept behind its answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from contextlib import suppress

from .cache import Cache, make_key
from .errors import AudioError, StorageError
from .profiler import span
from .records import CacheEntry
from .settings import Settings
from .signal import audio

Identity = tuple[int, ...]
"""of a file, see `signal.files.file_identity`; the size in bytes is its third number"""


class Contents:
    """The contents that `cache` knows; None keeps nothing and digests nothing. Files of more than `max_file_mb` of the
    settings are refused when they are opened, and not worth reading first. Safe to use from several threads."""

    def __init__(self, cache: Cache | None, settings: Settings) -> None:
        self._cache, self._settings = cache, settings
        self._lock = threading.Lock()
        self._keeping: dict[Identity, Future[None]] = {}

    def known(self, path: str) -> tuple[Identity | None, str | None]:
        """What the file's digest is remembered by, and the digest if it is; both None where nothing is kept. Waits
        where it is being kept now. Raises StorageError, or NotAudioError for what is no file."""
        with span("load_audio"):
            identity = audio.file_identity(path)
            if not os.access(path, os.R_OK):
                raise StorageError(f"{path} may not be read")
            if self._cache is None or identity[2] > self._settings.max_file_mb * 2**20:
                return None, None
            if (keeping := self._keeping.get(identity)) is not None:
                wait([keeping])
            entry = self._cache.get(make_key("digest", *identity))
            return identity, None if entry is None else str(entry.meta["digest"])

    def looks_known(self, path: str) -> bool:
        """Whether something that looks like the file was kept: only then can it be a copy. Raises AudioError."""
        with span("load_audio"):
            return self._cache is not None and self._cache.get(self._looks(path)) is not None

    def digest(self, path: str, identity: Identity) -> str:
        """The digest of a file that is `known` not to have one yet, remembered from now on. Raises AudioError, also
        for a file that is no longer the one of that `identity`."""
        assert self._cache is not None
        with span("load_audio"):
            key = make_key("digest", *identity)

            def compute() -> CacheEntry:
                found = audio.digest(path, self._settings)
                self.check_unchanged(path, identity)
                return CacheEntry({}, {"digest": found})

            entry, _ = self._cache.get_or_compute(key, compute)
            self.remember_looks(path)
            return str(entry.meta["digest"])

    def check_unchanged(self, path: str, identity: Identity | None) -> None:
        """Raises StorageError where the file is no longer the one of that `identity`: what was read of it since may be
        of either, and must not be kept. None: nothing is kept."""
        if identity is not None and audio.file_identity(path) != identity:
            raise StorageError(f"{audio.shown(path)} was changed while it was read", "Try again once it is written.")

    def _looks(self, path: str) -> str:
        return make_key("sketch", audio.sketch(path, self._settings))

    def remember_looks(self, path: str) -> None:
        """From now on what looks like the file may be a copy of it. Raises AudioError."""
        if self._cache is not None:
            self._cache.put(self._looks(path), CacheEntry({}, {}))

    def keep_behind(self, executor: Executor, path: str, identity: Identity, keep: Callable[[str], None]) -> None:
        """In `executor`: digest the file, call `keep` with its digest and remember it; nothing where it is no longer
        the file of that `identity`, or is being kept already."""

        def work() -> None:
            try:
                with suppress(AudioError):  # the file was lost meanwhile
                    digest = audio.digest(path, self._settings)
                    if self._cache is not None and audio.file_identity(path) == identity:
                        keep(digest)
                        self._cache.put(make_key("digest", *identity), CacheEntry({}, {"digest": digest}))
                        self.remember_looks(path)
            finally:
                with self._lock:
                    del self._keeping[identity]

        with self._lock:
            if identity in self._keeping:
                return
            self._keeping[identity] = executor.submit(work)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is kept that was to be kept behind an answer; whether it is."""
        return not wait(list(self._keeping.values()), timeout_s).not_done
