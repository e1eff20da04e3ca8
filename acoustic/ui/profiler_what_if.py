"""The comparison that runs: one at a time, started from any page and seen by all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import AcousticError, InternalError, SettingsError, StoppedError
from ..workstation.what_if import N_ROUNDS, Choice, Difference, compare
from . import profiler_numbers as numbers

if TYPE_CHECKING:
    from ..workstation import Workstation
    from ..workstation.performance import Performance

Compare = Callable[..., Difference]


class WhatIfDesk:
    """What is compared at present, or was last. All methods are safe from any thread."""

    def __init__(self, workstation: Workstation, performance: Performance, compare: Compare = compare) -> None:
        self._workstation, self._performance, self._compare = workstation, performance, compare
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self._edition = 0
        self._step = ""
        self._error: dict[str, str] | None = None
        self._found: Difference | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, song: Any, ways: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        """Compare two ways on `song`, "demo" or the number of a run, in a thread of its own.

        Raises SettingsError for a way that is none, a song that is not known, or while another comparison runs.
        """
        choices = (_choice(ways[0]), _choice(ways[1]))
        path = self._path(song)
        with self._lock:
            if self.running:
                raise SettingsError("two ways are being compared already", "Wait until that is done, or stop it.")
            self._edition += 1
            self._step, self._error, self._found = "beginning", None, None
            self._cancel = threading.Event()
            work = (path, choices, self._cancel)
            self._thread = threading.Thread(target=self._work, args=work, name="what-if", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._cancel.set()

    def wait(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def told(self) -> dict[str, Any]:
        """`edition` counts the comparisons; at most one of `error` and `result` is there."""
        running = self.running
        return {
            "edition": self._edition,
            "running": running,
            "step": self._step if running else "",
            "n_rounds": N_ROUNDS,
            "error": self._error,
            "result": numbers.difference(self._found) if self._found is not None else None,
        }

    def _path(self, song: Any) -> str:
        """Only what this program has heard, or ships: a page cannot name a file of its own choice."""
        if song == "demo":
            return str(self._workstation.demo_clip())
        run = self._performance.run(song) if isinstance(song, int) and not isinstance(song, bool) else None
        if run is None:
            raise SettingsError("this song is no longer among the last ones", "Choose another.")
        return run.label

    def _work(self, path: str, choices: tuple[Choice, Choice], cancel: threading.Event) -> None:
        try:
            self._found = self._compare(self._workstation, path, choices, on_step=self._note, cancel=cancel)
        except StoppedError as stopped:
            self._error = {**stopped.to_dict(), "hint": ""}
        except AcousticError as error:
            self._error = error.to_dict()
        except Exception as cause:  # the border of a thread: a person must see why nothing more comes
            self._error = InternalError(f"{type(cause).__name__}: {cause}").to_dict()

    def _note(self, step: str) -> None:
        self._step = step


def _choice(way: Mapping[str, Any]) -> Choice:
    """SettingsError for what is none; names and ranges are the settings' own."""
    n_segments = way.get("n_segments", 0)
    if isinstance(n_segments, bool) or not isinstance(n_segments, (int, float)) or n_segments != int(n_segments):
        raise SettingsError(f"{n_segments!r} is no number of segments", "Give a whole number; 0 is the model's own.")
    choice = Choice(
        n_segments=int(n_segments),
        backend=str(way.get("backend", "auto")),
        precision=str(way.get("precision", "auto")),
        denoise=way.get("denoise") is True,
    )
    choice.check()
    return choice
