"""`acoustic scan`: a folder of songs into the library."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import terminal
from ..errors import SettingsError
from ..kept import ScanProgress, shown_path
from .arguments import (
    DeviceOption,
    JsonOption,
    LibraryOption,
    ModelOption,
    NoPersonalOption,
    read_as_chosen,
    settings_of,
)
from .leaving import STOPPED, leave

app = typer.Typer()

LISTED = 10
"""how many of the files that failed are named, and of the folders"""


class Engine(StrEnum):
    """Who does the work."""

    LOCAL = "local"
    RAY = "ray"


@app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="Searched with all its folders.", metavar="DIR")],
    library: LibraryOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and follow what changes until Ctrl-C.")] = False,
    engine: Annotated[Engine, typer.Option(help="This machine, or a Ray cluster.")] = Engine.LOCAL,
    as_json: JsonOption = False,
    device: DeviceOption = None,
    model: ModelOption = None,
    no_personal: NoPersonalOption = False,
) -> None:
    """Analyse a folder of songs into the library. Only what is new or changed costs time; Ctrl-C loses nothing. Exit
    status 1 if files or folders could not be read."""
    if watch and engine is not Engine.LOCAL:
        raise SettingsError("--watch is for the local engine", "Leave out `--engine`.")
    settings = settings_of(library=library, device=device, model=model)
    from ..workstation import Workstation, scanning

    with Workstation(settings, personal=not no_personal) as station:
        read_as_chosen(station)
        with _until_interrupted() as cancel, terminal.follow() as bar:
            how: dict[str, Any] = {"on_progress": lambda p: bar(_words(p), p.n_finished, p.n_found), "cancel": cancel}
            if watch:
                done = scanning.watch(station, folder, **how)
            else:
                done = scanning.scan(station, folder, engine=engine.value, **how)
        root = os.fsencode(os.path.realpath(folder.expanduser()))
        counts, first = station.library.tracks.errors(root, LISTED)
        if as_json:
            said = {**done.to_dict(), "folder": shown_path(root), "errors": counts}
            terminal.out(json.dumps(said, ensure_ascii=False))
        else:
            _tell(done, counts, first)
        if done.state == "cancelled":
            station.library.close()
            leave(0 if watch else STOPPED)  # loading or measuring the network would be waited for, for seconds
    raise typer.Exit(1 if counts or done.unreadable else 0)


def _words(progress: ScanProgress) -> str:
    """Rate and time left, as far as they are known."""
    if not progress.n_finished and progress.n_found:
        return "getting ready"
    if progress.eta_s is None:
        return f"{progress.files_per_s:.1f} files/s, still searching" if progress.walking else ""
    return f"{progress.files_per_s:.1f} files/s, {_duration(progress.eta_s)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _tell(done: ScanProgress, counts: dict[str, int], first: list[tuple[bytes, str, str]]) -> None:
    parts = [f"{done.n_ok - done.n_known} analysed", f"{done.n_unchanged} unchanged", f"{done.n_errors} failed"]
    parts += [f"{done.n_known} known by content"] if done.n_known else []
    parts += [f"{done.n_missing} no longer there"] if done.n_missing else []
    terminal.out(f"{done.n_found} files: {', '.join(parts)}, in {_duration(done.elapsed_s)}")
    if done.unreadable:
        terminal.note(f"could not be read: {len(done.unreadable)} folders")
        for folder in done.unreadable[:LISTED]:
            terminal.note(f"  {terminal.safe(folder)}")
    if counts:
        n = sum(counts.values())
        terminal.note(f"without an answer: {n} ({', '.join(f'{code} {k}' for code, k in counts.items())})")
        for path, code, message in first:
            terminal.note(f"  {terminal.safe(shown_path(path))}: {code}: {terminal.safe(message)}")
        if n > len(first):
            terminal.note(f"  and {n - len(first)} more")
    if done.state == "cancelled":
        terminal.note("stopped; what was analysed is kept. Run the same command again to go on.")


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or a polite kill) sets; the second one ends the program at once."""
    cancel = threading.Event()
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def stop(number: int, frame: Any) -> None:
        cancel.set()
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, stop)
    try:
        yield cancel
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
