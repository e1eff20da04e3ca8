"""One writer at a time among all programs that have a library open.

SQLite lets several connections write in turn, but before 3.51.3 two that write or checkpoint at the same moment can,
rarely, damage a file in WAL mode: one resets the log while the other still copies from it. Within a program there is
one writing connection. Among programs (the page is open while `acoustic scan` runs) this lock is held around every
transaction that writes and every checkpoint, so that no two connections are ever in one of them together, whatever
version of SQLite is there. The system lets go of it when a program dies.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import LibraryError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 20
"""on Windows a locked byte cannot be read, so it lies beyond the text that says whose the lock is"""
_PAUSE_S = 0.002


class WriterLock:
    """Two files next to the library. Who wants to write takes `-next`, then `-writer`, then lets go of `-next`: so one
    program waits at the door while the others queue behind it, and none that writes without pause keeps others out.

    To be used by one thread. LibraryError if the files cannot be made.
    """

    def __init__(self, library: Path) -> None:
        self._library = library
        self._files: list[int] = []
        try:
            for ending in ("-next", "-writer"):
                self._files.append(
                    os.open(f"{library}{ending}", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
                )
        except OSError as error:
            self.close()
            raise LibraryError(
                f"the library {library} cannot be written: {error.strerror}",
                "A library needs a folder that you may write in: choose another with `--library FILE`.",
            ) from error

    @contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """The lock. LibraryError that says who has it, if it does not come free within `timeout_s`."""
        until = time.monotonic() + timeout_s
        door, room = self._files
        self._take(door, until, timeout_s)
        try:
            self._take(room, until, timeout_s)
        finally:
            let_go(door)
        try:
            owner = f"process {os.getpid()} on {socket.gethostname()}\n".encode(errors="replace")
            os.lseek(room, 0, os.SEEK_SET)
            os.write(room, owner)
            os.ftruncate(room, len(owner))
        except OSError:
            pass  # a full disk: who has the lock is only told for a person's sake
        try:
            yield
        finally:
            let_go(room)

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def _take(self, file: int, until: float, timeout_s: float) -> None:
        while True:
            try:
                try_take(file)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= until:
                    raise LibraryError(
                        f"{self._owner()} has been writing to the library {self._library} for {timeout_s:g} s",
                        "Wait until it is done, or end it, and try again: nothing was changed.",
                    ) from None
            except OSError as error:
                raise LibraryError(
                    f"the folder of the library {self._library} has no locks: {error.strerror}",
                    "Keep the library on a disk of this machine: choose another place with `--library FILE`.",
                ) from error
            time.sleep(_PAUSE_S)

    def _owner(self) -> str:
        try:
            os.lseek(self._files[1], 0, os.SEEK_SET)
            said = os.read(self._files[1], 200).decode(errors="replace")
        except OSError:
            said = ""
        return said.split("\n")[0] or "another program"


if sys.platform == "win32":

    def try_take(file: int) -> None:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def let_go(file: int) -> None:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:

    def try_take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def let_go(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
