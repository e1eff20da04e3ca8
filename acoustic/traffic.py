"""How many files a classifier was asked for, and how many of them wait and are worked on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """Counts, safe to change from several threads."""

    def __init__(self) -> None:
        self.n_requests = 0
        """analyses that were asked for since the start"""
        self.n_known = 0
        """of these, those whose answer was kept"""
        self.n_queued = 0
        """files that wait for a decoder"""
        self.n_at_work = 0
        """files that were begun and have no answer yet"""
        self._n_decoding = 0
        self._lock = threading.Lock()

    def queue(self, change: int) -> None:
        """+1 for a file that begins to wait, -1 for one that does not wait any more."""
        with self._lock:
            self.n_queued += change

    @contextmanager
    def at_work(self, *, request: bool = True) -> Iterator[None]:
        """Within the block a file is worked on; `request`: it is an analysis that was asked for."""
        with self._lock:
            self.n_requests += request
            self.n_at_work += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_at_work -= 1

    @contextmanager
    def decoding(self) -> Iterator[bool]:
        """Within the block a file is decoded; whether it is the only one, and none waits."""
        with self._lock:
            alone = self._n_decoding == 0 and self.n_queued <= 0
            self._n_decoding += 1
        try:
            yield alone
        finally:
            with self._lock:
                self._n_decoding -= 1

    def answered(self, known: bool) -> None:
        with self._lock:
            self.n_known += known

    def share_known(self) -> float:
        """Of all requests, 0 to 1; 0 before the first."""
        with self._lock:
            return self.n_known / self.n_requests if self.n_requests else 0.0
