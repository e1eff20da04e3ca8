"""The scan that runs: one at a time, started from any page and seen by all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import AcousticError, InternalError, StorageError
from ..kept import ScanProgress
from . import wording
from .cards import CROSS, FLAG, TICK, isolated, plain

if TYPE_CHECKING:
    from ..workstation import Workstation

Scan = Callable[[str, Callable[[ScanProgress], object], threading.Event], ScanProgress]
"""(folder, on_progress, cancel) -> how it ended"""


class ScanDesk:
    """What is scanned at present, or was last. All methods are safe from any thread."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self.folder = ""
        self.progress: ScanProgress | None = None
        self.error: dict[str, str] | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: str) -> None:
        """Scan `folder` in a thread of its own. Raises StorageError if none is named, or one is scanned already."""
        folder = folder.strip()
        if not folder or "\0" in folder:
            raise StorageError("no folder is named", "Type the path of a folder with music, for example ~/Music.")
        with self._lock:
            if self.running:
                raise StorageError(f"{self.folder} is being scanned", "Wait until that is done, or stop it.")
            self.folder, self.progress, self.error = folder, None, None
            self._cancel = threading.Event()
            self._thread = threading.Thread(target=self._work, args=(folder, self._cancel), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the scan end soon; what it has finished is kept."""
        self._cancel.set()

    @property
    def stopping(self) -> bool:
        return self.running and self._cancel.is_set()

    def wait(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self, folder: str, cancel: threading.Event) -> None:
        try:
            self.progress = self._scan(folder, self._note, cancel)
        except AcousticError as error:
            self.error = error.to_dict()
        except Exception as cause:  # the border of a thread: a person must see why nothing more comes
            self.error = InternalError(f"{type(cause).__name__}: {cause}").to_dict()

    def _note(self, progress: ScanProgress) -> None:
        self.progress = progress


def of(workstation: Workstation) -> Scan:
    """The workstation's own scan."""

    def scan(folder: str, on_progress: Callable[[ScanProgress], object], cancel: threading.Event) -> ScanProgress:
        from ..workstation.scanning import scan as scan_folder

        return scan_folder(workstation, folder, on_progress=on_progress, cancel=cancel)

    return scan


def status(desk: ScanDesk) -> str:
    """How far the scan is, as HTML; empty while none was started."""
    if desk.error is not None:
        return (
            f'<div class="as-scan-note as-callout as-callout-review" role="alert"><p><strong>{CROSS} '
            f"{plain(wording.sentence(desk.error.get('message', '')))}</strong> "
            f"{plain(wording.sentence(desk.error.get('hint', '')))}</p></div>"
        )
    if not desk.folder:
        return ""
    progress = desk.progress
    if progress is None:
        return _bar(desk.folder, 0.0, "Looking for music …") if desk.running else ""
    if desk.running:
        share = progress.n_finished / progress.n_found if progress.n_found else 0.0
        return _bar(desk.folder, share * (0.5 if progress.walking else 1.0), _running_words(progress, desk.stopping))
    return _ended(desk.folder, progress)


def _running_words(progress: ScanProgress, stopping: bool) -> str:
    more = "+" if progress.walking else ""
    facts = [f"<strong>{progress.n_finished:,}</strong> of {progress.n_found:,}{more} files"]
    if progress.files_per_s > 0:
        facts.append(f"{progress.files_per_s:,.1f} files/s")
    if stopping:
        facts.append("stopping …")
    elif progress.eta_s is not None:
        facts.append(f"about {wording.duration(progress.eta_s)} left")
    if progress.n_unchanged:
        facts.append(f"{progress.n_unchanged:,} unchanged")
    if progress.n_errors:
        facts.append(f"{progress.n_errors:,} failed")
    return " · ".join(facts)


def _bar(folder: str, share: float, words: str) -> str:
    value = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}"'
    return (
        f'<div class="as-scan-note"><p class="as-scan-words" role="status">{words}</p>'
        f'<span class="as-bar" role="progressbar" aria-label="Progress of the scan" {value}>'
        f'<span style="width:{100 * share:.1f}%"></span></span><p class="as-note">{isolated(folder)}</p></div>'
    )


def _ended(folder: str, progress: ScanProgress) -> str:
    took = wording.duration(progress.elapsed_s)
    n_new = progress.n_ok - progress.n_known
    facts = [f"{n_new:,} analysed", f"{progress.n_unchanged:,} unchanged", f"{progress.n_errors:,} failed"]
    if progress.n_known:
        facts.append(f"{progress.n_known:,} known by content")
    if progress.n_missing:
        facts.append(f"{progress.n_missing:,} no longer there")
    if progress.unreadable:
        facts.append(f"{wording.counted(len(progress.unreadable), 'folder')} could not be read")
    said, sign = {
        "done": (f"Scanned {wording.counted(progress.n_found, 'file')} in {took}.", TICK),
        "cancelled": ("Stopped; what was finished is kept. Scan again to go on.", FLAG),
    }.get(progress.state, ("The scan failed; what was finished is kept. Scan again to go on.", CROSS))
    return (
        f'<div class="as-scan-note as-scan-ended"><p role="status"><strong>{sign} {said}</strong> '
        f'{" · ".join(facts)}</p><p class="as-note">{isolated(folder)}</p></div>'
    )
