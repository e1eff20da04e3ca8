"""`acoustic library`: what is kept, whether it is sound, and how to carry it elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import terminal
from ..errors import LibraryError
from ..kept import shown_path
from ..records import file_fields
from .arguments import JsonOption, LibraryOption, settings_of

if TYPE_CHECKING:
    from ..library.store import Library

app = typer.Typer(help="What is kept of your songs and decisions: look, check, copy, carry over.", no_args_is_help=True)


@app.command("status")
def library_status(as_json: JsonOption = False, library: LibraryOption = None) -> None:
    """What the library holds."""
    from ..library.checking import status

    with opened(library) as kept:
        said = status(kept.database).to_dict()
    if as_json:
        terminal.out(json.dumps(said, ensure_ascii=False))
    else:
        terminal.print_library(said)


@app.command("check")
def check_library(as_json: JsonOption = False, library: LibraryOption = None) -> None:
    """Read all of the library and say what is wrong with it; exit status 1 if something is."""
    from ..library.checking import check

    with opened(library) as kept:
        problems = check(kept.database)
        place = shown_path(os.fsencode(kept.path))
    if as_json:
        terminal.out(json.dumps({"library": place, "problems": problems}, ensure_ascii=False))
    else:
        for problem in problems or [f"{place} is sound"]:
            terminal.out(terminal.safe(problem))
    raise typer.Exit(1 if problems else 0)


@app.command("backup")
def back_up_library(
    target: Annotated[Path, typer.Argument(help="The copy.", metavar="FILE")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier copy.")] = False,
    library: LibraryOption = None,
) -> None:
    """Copy the whole library, while it may be in use; the copy is checked, and is a library itself."""
    from ..library.transfer import backup

    with opened(library) as kept:
        backup(kept.database, target, overwrite=overwrite)
    terminal.note(f"the library is copied to {shown_path(bytes(target))}")


@app.command("export")
def export_library(
    target: Annotated[Path | None, typer.Argument(help="A file.", metavar="FILE", show_default="stdout")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    library: LibraryOption = None,
) -> None:
    """Write all that you decided, with its history, as JSON Lines: songs by their content, wherever they lie. Exit
    status 1 if the library is damaged and some lines could not be read."""
    from ..library.transfer import export, export_to

    with opened(library) as kept:
        done = (
            export(kept.database, sys.stdout.buffer)
            if target is None
            else export_to(kept.database, target, overwrite=overwrite)
        )
    sys.stdout.flush()
    terminal.note(f"{done.n_lines} lines of history written")
    if done.n_lost:
        terminal.note(f"the library is damaged: {done.n_lost} lines could not be read")
    raise typer.Exit(1 if done.n_lost else 0)


@app.command("import")
def import_library(
    source: Annotated[Path, typer.Argument(help="What was exported.", metavar="FILE")],
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """Take decisions that were exported, here or elsewhere; what is known already is not doubled. Exit status 1 if some
    lines could not be taken."""
    from ..library.decision_lines import read_lines
    from ..library.transfer import import_

    try:
        with open(source, "rb") as lines, opened(library, make=True) as kept:
            came = import_(kept.database, read_lines(lines))
    except OSError as error:
        raise LibraryError(
            f"{shown_path(bytes(source))} cannot be read: {error.strerror}", "Name a file that was exported."
        ) from error
    if as_json:
        terminal.out(json.dumps(came.to_dict(), ensure_ascii=False))
    else:
        terminal.out(f"{came.n_added} added, {came.n_known} known already, {came.n_new_songs} songs not met before")
    for refused in came.errors:
        terminal.note(terminal.safe(refused.message))
    if came.n_refused:
        terminal.note(f"{came.n_refused} lines could not be taken")
    raise typer.Exit(1 if came.n_refused else 0)


@app.command("history")
def library_history(
    limit: Annotated[int, typer.Option(min=1, help="How many lines, the latest first.")] = 50,
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """What was decided, by whom and when, and what was taken back."""
    with opened(library) as kept:
        lines = kept.decisions.history(limit=limit)
        paths = kept.decisions.paths({line.track_id for line in lines})
    if as_json:
        for line in lines:
            path = paths.get(line.track_id)
            place = file_fields(os.fsdecode(path)) if path is not None else {}
            terminal.out(json.dumps({**dataclasses.asdict(line), **place}, ensure_ascii=False))
    else:
        terminal.print_history(lines, {song: os.path.basename(shown_path(path)) for song, path in paths.items()})


@contextmanager
def opened(path: Path | None, make: bool = False) -> Iterator[Library]:
    """The library that the person named, else the settings'; one that is not there is made only if `make`."""
    place = settings_of(library=os.fspath(path) if path is not None else None).library_file()
    if not make and not place.exists():
        raise LibraryError(
            f"there is no library at {shown_path(bytes(place))}",
            "`acoustic scan FOLDER` starts one; `--library FILE` names another.",
        )
    from ..library.store import Library

    with Library(place) as kept:
        yield kept
