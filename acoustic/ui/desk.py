"""What one person has on the desk: the dropped files, what is known about each, which one is chosen.

One Desk a browser session, held in gr.State. Handlers of the same session share it; its methods keep it consistent.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import AcousticError, InternalError
from ..records import Analysis, Descriptors, Failure
from . import exports

if TYPE_CHECKING:
    from ..workstation import Workstation

Show = Literal["all", "review", "errors"]
Events = queue.SimpleQueue[tuple[int, str | Analysis | Failure] | None]
"""(place in the batch, stage or result); None when the batch is over."""
REFRESH_S = 0.12  # how often the table moves while stages pass; results are shown at once


@dataclass
class Entry:
    """One dropped file. `name` is what the person calls it, `path` where its copy lies."""

    name: str
    path: str
    stage: str = "queued"
    result: Analysis | Failure | None = None
    undescribed: dict[str, str] | None = None
    """why the descriptors could not be measured"""

    @property
    def analysis(self) -> Analysis | None:
        return self.result if isinstance(self.result, Analysis) else None

    @property
    def needs_review(self) -> bool:
        return self.analysis is not None and self.analysis.verdict.needs_review

    @property
    def failed(self) -> bool:
        return isinstance(self.result, Failure)

    def describe(self, descriptors: Descriptors) -> None:
        if self.analysis is not None:
            self.result = dataclasses.replace(self.analysis, descriptors=descriptors)


@dataclass
class Desk:
    """All files of one session, in the order in which they were dropped."""

    entries: list[Entry] = field(default_factory=list)
    chosen: int | None = None
    show: Show = "all"
    edition: int = 0
    """Rises when the desk is cleared: what was under way for the old files is then no longer shown."""
    token: str = ""

    def add(self, files: Sequence[tuple[str, str]]) -> list[int]:
        """Put (name, path) files on the desk; returns their indices."""
        first = len(self.entries)
        self.entries.extend(Entry(name, path) for name, path in files)
        return list(range(first, len(self.entries)))

    def clear(self) -> None:
        self.entries, self.chosen, self.show = [], None, "all"
        self.edition += 1

    @property
    def current(self) -> Entry | None:
        return self.entries[self.chosen] if self.chosen is not None and self.chosen < len(self.entries) else None

    def visible(self) -> list[tuple[int, Entry]]:
        """(index, entry) of the files that the filter shows."""
        wanted = {
            "all": lambda entry: True,
            "review": lambda entry: entry.needs_review,
            "errors": lambda entry: entry.failed,
        }[self.show]
        return [(i, entry) for i, entry in enumerate(self.entries) if wanted(entry)]

    def results(self) -> list[Analysis | Failure]:
        """All results so far, under the names that the person knows."""
        return [exports.renamed(entry.result, entry.name) for entry in self.entries if entry.result is not None]

    def write_exports(self, folder: Path) -> tuple[Path, Path] | None:
        """CSV and JSON of all results under `folder`, in a place of this session alone; None while there are none."""
        results = self.results()
        if not results:
            return None
        self.token = self.token or uuid.uuid4().hex
        place = folder / f"results-{self.token}"
        place.mkdir(parents=True, exist_ok=True)
        csv_path, json_path = place / "acousticsense.csv", place / "acousticsense.json"
        csv_path.write_text(exports.to_csv(results), encoding="utf-8", newline="")
        json_path.write_text(exports.to_json(results), encoding="utf-8")
        return csv_path, json_path


def run(desk: Desk, indices: Sequence[int], workstation: Workstation) -> Iterator[list[int]]:
    """Analyse the entries of `indices`; yields the indices that have finished since the last yield, which may be none.

    The first result is yielded at once, later news at most every REFRESH_S. The work goes on in a thread of its own, so
    that stages can be shown while the network is busy.
    """
    entries = [desk.entries[i] for i in indices]
    events: Events = queue.SimpleQueue()
    worker = threading.Thread(target=_work, args=([e.path for e in entries], workstation, events), daemon=True)
    worker.start()
    finished: list[int] = []
    shown_any, moved, due = False, False, time.monotonic()
    while True:
        try:
            event = events.get(timeout=REFRESH_S)
        except queue.Empty:
            if moved:
                yield finished
                finished, moved, due = [], False, time.monotonic() + REFRESH_S
            continue
        if event is None:
            break
        local, news = event
        moved = True
        if isinstance(news, str):
            entries[local].stage = news
        else:
            entries[local].stage, entries[local].result = "done", news
            finished.append(indices[local])
        if (finished and not shown_any) or time.monotonic() >= due:
            shown_any = shown_any or bool(finished)
            yield finished
            finished, moved, due = [], False, time.monotonic() + REFRESH_S
    yield finished
    worker.join()


def _work(paths: list[str], workstation: Workstation, events: Events) -> None:
    unfinished = set(range(len(paths)))
    try:
        for index, result in workstation.analyze(paths, on_stage=lambda i, stage: events.put((i, stage))):
            unfinished.discard(index)
            events.put((index, result))
    except Exception as cause:  # the border of a thread: a person must see why nothing more comes
        error = cause if isinstance(cause, AcousticError) else InternalError(f"{type(cause).__name__}: {cause}")
        for index in sorted(unfinished):
            events.put((index, Failure(paths[index], error.to_dict())))
    finally:
        events.put(None)
