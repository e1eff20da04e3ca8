"""A folder into the library: the scan's stages, made of worker processes, the classifier and the library.

Whether an analysis is current is decided by its model: the weights and all settings that change the votes. The network
(and torch) is loaded when the first file needs it, so a rescan in which nothing changed never loads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BackendError, StorageError
from ..kept import FoundFile, ScanProgress, SongTags
from ..library.scan import Looked, OnProgress, Stages, alone, check_unchanged, scan_files
from ..network.registry import EMBEDDED_MODEL
from ..records import Analysis, Failure
from ..signal.files import found_audio, is_song, walk_audio
from ..workers import Workers

if TYPE_CHECKING:
    from ..network.card import ModelCard
    from ..settings import Settings
    from .station import Workstation

FUNCTIONS = {"look": "acoustic.decoding:look_remotely", "hear": "acoustic.decoding:hear_remotely"}
"""what the workers do with a file, by import path: they are handed no code"""
READ_TAGS = "acoustic.library.tags:read_tags"
BOUNDS = (
    *("min_duration_s", "max_duration_s", "min_sample_rate_hz", "max_sample_rate_hz", "max_channels"),
    *("max_file_mb", "decode_timeout_s", "decode_memory_mb"),
)
"""the settings by which a file may fail"""
QUIET_S = 1.6
"""a file is heard when nothing has changed in it for so long: until then a program may still be writing it"""
WATCHING_S = 30.0
"""longest that is waited until all folders are watched; with very many it takes a while"""

Engine = Literal["local", "ray"]
_Changes = queue.SimpleQueue[tuple[float, set[bytes]] | BackendError]


def _nobody(progress: ScanProgress) -> None:
    """Where no one follows the progress."""


def scan(
    workstation: Workstation,
    root: str | os.PathLike[str],
    *,
    on_progress: OnProgress = _nobody,
    cancel: threading.Event | None = None,
    engine: Engine = "local",
    functions: dict[str, str] | None = None,
) -> ScanProgress:
    """Bring the library up to date with all audio files below `root`; how it ended (see `library.scan`).

    `engine` "ray" does the work on a Ray cluster (see `cluster`). `functions` replaces what the workers do (FUNCTIONS).
    Raises StorageError where `root` cannot be listed, LibraryError, ModelError or BackendError where no scan is
    possible.
    """
    folder = _folder(root)
    with _Scanner(workstation, functions) as scanner:
        if engine == "ray":
            return scanner.run_on_cluster(folder, on_progress, cancel)
        return scanner.run(folder, partial(walk_audio, folder), None, on_progress, cancel)


def watch(
    workstation: Workstation,
    root: str | os.PathLike[str],
    *,
    on_progress: OnProgress = _nobody,
    cancel: threading.Event | None = None,
) -> ScanProgress:
    """`scan`, and then whatever changes below `root`, until `cancel` is set; the progress of the last one.

    A program that writes a file in pieces is waited for (QUIET_S). Workers and network stay ready in between.
    """
    cancel = cancel or threading.Event()
    folder = _folder(root)
    changes: _Changes = queue.SimpleQueue()
    watching = threading.Event()
    threading.Thread(target=_listen, args=(folder, changes, watching, cancel), name="watch", daemon=True).start()
    with _Scanner(workstation, None) as scanner:
        watching.wait(WATCHING_S)  # what changes while the first scan runs is not missed
        last = scanner.run(folder, partial(walk_audio, folder), None, on_progress, cancel)
        own = os.path.realpath(os.fsencode(workstation.library.path))  # and what lies beside it under its name
        when: dict[bytes, float] = {}
        while not cancel.is_set():
            for at, paths in _arrived(changes):
                when.update(
                    (path, at) for path in paths if path != own and not path.startswith(own + b"-") and _matters(path)
                )
            quiet = sorted(path for path, at in when.items() if time.monotonic() - at >= QUIET_S)
            for path in quiet:
                del when[path]
            if quiet:
                walk = partial(_walk_changed, quiet, frozenset(when))
                last = scanner.run(folder, walk, quiet, on_progress, cancel)
    return last


def _arrived(changes: _Changes) -> Iterator[tuple[float, set[bytes]]]:
    """All that has been noticed, after a short wait for the first. Raises BackendError where nothing more will be."""
    with suppress(queue.Empty):
        one = changes.get(timeout=0.2)
        while True:
            if isinstance(one, BackendError):
                raise one
            yield one
            one = changes.get_nowait()


def _matters(path: bytes) -> bool:
    """Whether a change there may be news: a song, a folder, or what is gone and may have been either."""
    return is_song(os.path.basename(os.fsdecode(path))) or os.path.isdir(path) or not os.path.lexists(path)


def _listen(folder: bytes, changes: _Changes, watching: threading.Event, cancel: threading.Event) -> None:
    """Hand on what changes below `folder`, until `cancel` is set; a BackendError where it cannot be watched."""
    import watchfiles

    interrupted = False
    while not cancel.is_set():
        try:
            for changed in watchfiles.watch(
                os.fsdecode(folder),
                watch_filter=None,
                rust_timeout=500,
                yield_on_timeout=True,
                stop_event=cancel,
                raise_interrupt=False,
            ):
                watching.set()
                paths = {folder} if interrupted else {os.fsencode(path) for _, path in changed}
                interrupted = False
                if paths:
                    changes.put((time.monotonic(), paths))
        except RuntimeError:  # a name that is not UTF-8 ends it: once it is watched anew, all is looked through
            interrupted = True
            cancel.wait(0.5)
        except OSError as error:
            changes.put(BackendError(f"the folder cannot be watched: {error}", "Scan it without `--watch`."))
            watching.set()
            return


def model_key(card: ModelCard, settings: Settings) -> dict[str, Any]:
    """What, beside the weights, decides what a model says of a content: kept with the analyses."""
    spec = settings.segments_of(card.segments)
    switches = {name: getattr(settings, name) for name in ("denoise", "compress", "rules")}
    return {"mel": dataclasses.asdict(card.mel), "segments": dataclasses.asdict(spec), **switches}


def bounds(settings: Settings) -> str:
    """What files are held to, as a text: those that failed by it are tried again once it is another."""
    return json.dumps({name: getattr(settings, name) for name in BOUNDS})


def worker_context(card: ModelCard, settings: Settings) -> dict[str, Any]:
    """What the workers are told with each file (see `decoding`)."""
    return {
        "mel": dataclasses.asdict(card.mel),
        "segments": dataclasses.asdict(settings.segments_of(card.segments)),
        "settings": dataclasses.asdict(settings),
        "read_tags": READ_TAGS,
    }


class _Scanner:
    """Library, workers and classifier of one scan, or of several in turn; no other scan of the library runs then."""

    def __init__(self, workstation: Workstation, functions: dict[str, str] | None) -> None:
        self._workstation, settings = workstation, workstation.settings
        card = workstation.models().card(settings.model or EMBEDDED_MODEL)
        self._library = workstation.library
        self._alone = alone(self._library.path)
        self._model_id = self._library.tracks.model_id(card.name, card.weights_digest, model_key(card, settings))
        self._n_at_once = settings.n_workers() + 2  # those are decoded; two more wait for the network
        self._how: dict[str, Any] = {
            "functions": functions or FUNCTIONS,
            "context": worker_context(card, settings),
            "timeout_s": settings.decode_timeout_s,
            "memory_mb": settings.decode_memory_mb,
            "prepare": "acoustic.decoding:prepare",
        }
        self._workers = Workers(n=settings.n_workers(), **self._how)

    def __enter__(self) -> _Scanner:
        self._alone.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.stop()
        self._alone.__exit__(None, None, None)

    def run(
        self,
        root: bytes,
        walk: Callable[[Callable[[bytes], None]], Iterator[FoundFile]],
        look_for_missing: Sequence[bytes] | None,
        on_progress: OnProgress,
        cancel: threading.Event | None,
    ) -> ScanProgress:
        stages = Stages(walk, self._look, self._analyse, self._workers.stop, self._n_at_once)
        with self._told():
            return scan_files(
                self._library.tracks,
                root,
                self._model_id,
                stages,
                bounds=bounds(self._workstation.settings),
                look_for_missing=look_for_missing,
                on_progress=on_progress,
                cancel=cancel,
            )

    def run_on_cluster(self, root: bytes, on_progress: OnProgress, cancel: threading.Event | None) -> ScanProgress:
        from .cluster import Plan, check_installed, scan_on_cluster

        check_installed()
        station, tracks = self._workstation, self._library.tracks
        plan = Plan(self._how, station.settings, station.classifier.personal)
        walk = partial(walk_audio, root)
        with self._told():
            return scan_on_cluster(
                tracks,
                root,
                self._model_id,
                walk,
                plan,
                bounds=bounds(station.settings),
                on_progress=on_progress,
                cancel=cancel,
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Who looks at the workstation sees that a scan runs: no other one does (see `alone`)."""
        self._workstation.scanning = True
        try:
            yield
        finally:
            self._workstation.scanning = False

    def _look(self, path: bytes) -> Looked:
        meta = self._workers.ask("look", os.fsdecode(path)).meta
        tags = {**meta["tags"], "genres": tuple(meta["tags"]["genres"])}
        return Looked(meta["digest"], SongTags(**tags))

    def _analyse(self, found: FoundFile, digest: str) -> Analysis | Failure:
        name = os.fsdecode(found.path)
        prepared = self._workers.ask("hear", name)
        check_unchanged(found)  # else what was heard would be kept as the answer to another content
        classifier = self._workstation.classifier
        try:
            return classifier.judge(name, digest, prepared)
        except BackendError as error:  # of this file's scores; that there is no network was raised above
            return Failure(name, error.to_dict())


def _folder(root: str | os.PathLike[str]) -> bytes:
    """The folder by its one true name, so that a file has the same path however its folder was named."""
    try:
        folder = os.fsencode(os.path.realpath(Path(root).expanduser()))
        os.scandir(folder).close()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"{root} cannot be scanned: {reason}", "Name a folder that you may read.") from None
    return folder


def _walk_changed(
    paths: Sequence[bytes], busy: frozenset[bytes], on_unreadable: Callable[[bytes], None]
) -> Iterator[FoundFile]:
    """The audio files among what changed, and below the folders among it, but for those that are still `busy`."""
    for path in paths:
        if os.path.isdir(path):
            yield from (found for found in walk_audio(path, on_unreadable) if found.path not in busy)
        elif (found := found_audio(path)) is not None:
            yield found
