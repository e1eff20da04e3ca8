"""`acoustic personal`: genres that a person teaches."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import terminal
from ..kept import shown_path
from .arguments import DeviceOption, JsonOption, ModelOption, read_as_chosen, workstation_of

app = typer.Typer(help="Teach genres of your own, and choose what was taught.", no_args_is_help=True)

_USE_IT = "Use it from now on?"
SongsArgument = Annotated[
    Path, typer.Argument(help="CSV with the columns file,genre (and group).", metavar="MANIFEST.csv")
]


@app.command("fit")
def fit_personal(
    manifest: SongsArgument,
    name: Annotated[str, typer.Option(help="Name of the version.", show_default="the next number")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Put it to use without asking.")] = False,
    as_json: JsonOption = False,
    device: DeviceOption = None,
    model: ModelOption = None,
) -> None:
    """Learn genres, the model's or your own, from a few songs of each; shows what it changes and asks."""
    examples = _examples(manifest)
    with workstation_of(model=model, device=device) as station:
        with terminal.stages() as report:
            taught = station.teach(examples, name, lambda done, n: report("listening", done, n))
        lesson, personal = taught.lesson, taught.lesson.personal
        if personal is not None:
            station.keep_personal(personal)
        if not as_json:
            terminal.print_lesson(lesson)
        terminal.print_failures(taught.failures)
        for warning in taught.warnings:
            terminal.print_error(warning)
        ask = personal is not None and not yes and not as_json and _someone_answers()
        try:
            use = personal is not None and (yes or (ask and typer.confirm(_USE_IT, default=True, err=True)))
        except typer.Abort:
            if personal is not None:
                terminal.note(_kept_as(personal.name))
            raise
        if personal is None:
            terminal.note("These songs teach nothing that the model does not know better: nothing was kept.")
        elif use:
            station.use_personal(personal.name)
            read_as_chosen(station)
            terminal.note(f"version {personal.name} is in use; `acoustic personal undo` takes it back")
        else:
            terminal.note(_kept_as(personal.name))
    if as_json:
        kept = {"name": personal.name if personal else None, "active": use, **lesson.to_dict()}
        terminal.out(json.dumps({**kept, "failures": [f.to_dict() for f in taught.failures]}, ensure_ascii=False))
    raise typer.Exit(1 if taught.failures else 0)


@app.command("evaluate")
def evaluate_personal(
    manifest: SongsArgument,
    name: Annotated[str, typer.Option(help="Name of the version.", show_default="the one in use")] = "",
    as_json: JsonOption = False,
    device: DeviceOption = None,
    model: ModelOption = None,
) -> None:
    """The model alone against what you taught, on the same songs: others than those that you taught it with."""
    examples = _examples(manifest)
    with workstation_of(model=model, device=device) as station, terminal.stages() as report:
        comparison, failures = station.compare_personal(
            examples, name or None, lambda done, n: report("listening", done, n)
        )
    if as_json:
        failed = [failure.to_dict() for failure in failures]
        terminal.out(json.dumps({**comparison.to_dict(), "failures": failed}, ensure_ascii=False))
    else:
        terminal.print_comparison(comparison)
    terminal.print_failures(failures)
    raise typer.Exit(1 if failures else 0)


@app.command("list")
def list_personal(as_json: JsonOption = False, model: ModelOption = None) -> None:
    """The versions of what you taught; exit status 1 if the one in use cannot be used."""
    versions = workstation_of(model=model).personal_versions()
    if as_json:
        terminal.out(json.dumps({"versions": [v.to_dict() for v in versions]}, ensure_ascii=False))
    else:
        terminal.print_versions(versions)
    raise typer.Exit(1 if any(v.active and v.error for v in versions) else 0)


@app.command("use")
def use_personal(
    name: Annotated[str, typer.Argument(help="Name of a version; `none` for the model alone.")],
    model: ModelOption = None,
) -> None:
    """Put a version to use, or none."""
    with workstation_of(model=model) as station:
        station.use_personal(None if name == "none" else name)
        read_as_chosen(station)
    _tell_use(None if name == "none" else name)


@app.command("undo")
def undo_personal(model: ModelOption = None) -> None:
    """Go back to the version that was in use before."""
    from ..workstation.learning import roll_back

    with workstation_of(model=model) as station:
        name = roll_back(station) if station.has_library() else station.undo_personal()
    _tell_use(name)


@app.command("export")
def export_personal(
    name: Annotated[str, typer.Argument(help="Name of a version.")],
    target: Annotated[Path, typer.Argument(help="A new zip file or folder.", metavar="FILE.zip|FOLDER")],
) -> None:
    """Write a version to a zip file or a folder: weights as safetensors, all else as JSON; no songs, no file names."""
    workstation_of().export_personal(name, target)
    terminal.note(f"version {name} is in {terminal.safe(shown_path(bytes(target)))}")


@app.command("import")
def import_personal(
    source: Annotated[Path, typer.Argument(help="What was exported.", metavar="FILE.zip|FOLDER")],
    name: Annotated[str, typer.Option(help="Another name for it.", show_default="its own")] = "",
) -> None:
    """Take an exported version; it is not put to use."""
    taken = workstation_of().import_personal(source, name)
    terminal.note(f"taken as version {taken}, not in use: `acoustic personal use {taken}` puts it to use")


def _examples(manifest: Path) -> list[Any]:
    """The rows of a manifest, of whatever genres, as songs to teach."""
    from ..training.evaluate import read_manifest
    from ..workstation import Example

    return [Example(row.file, row.genre, row.group) for row in read_manifest(manifest, None)]


def _someone_answers() -> bool:
    """Whether a question would reach a person."""
    return sys.stdin.isatty()


def _kept_as(name: str) -> str:
    return f"kept as version {name}, not in use: `acoustic personal use {name}` puts it to use"


def _tell_use(name: str | None) -> None:
    terminal.note(f"version {name} is in use" if name else "the model answers alone")
