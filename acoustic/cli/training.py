"""`acoustic train`: a configuration in, a model folder out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .. import terminal
from ..errors import REFUSALS, AcousticError, SettingsError, StorageError
from .arguments import settings_of

app = typer.Typer()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The run, see configs/.", metavar="CONFIG.toml")],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the configuration's paths are relative to; else its own.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Checkpoints and targets; a killed run goes on from here.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder in which the model's folder is written.")] = None,
) -> None:
    """Train a model: manifest, teachers, student, calibration, card. Resumes where it was stopped."""
    settings = settings_of()
    from ..engine import model_folders
    from ..network.backends import choose_device
    from ..network.card import CARD_FILE
    from ..network.registry import check_replaceable
    from ..training import background, int8, processes
    from ..training.config import TrainConfig
    from ..training.finish import finish
    from ..training.head import refit_head
    from ..training.precision import choose
    from ..training.prepare import prepare
    from ..training.report import write_report
    from ..training.student import average_with_start
    from ..training.train import fit, use_threads

    data = data or config.parent
    if not data.is_dir():
        raise SettingsError(f"--data {data}: no such folder")
    run = TrainConfig.read(config)
    work = work or Path("runs") / run.name
    shipped, own = model_folders(settings)
    if output is None and (shipped / run.name / CARD_FILE).exists():
        raise SettingsError(
            f"{config}: name: a model called {run.name!r} ships with the program and would be found in its place",
            "Choose another name, or say where it is to be written: `--output FOLDER`.",
        )
    folder = (output or own) / run.name
    with (
        _told(work, folder.parent),
        processes.joined(choose_device(settings.device)) as group,
        terminal.stages(quiet=not group.first) as progress,
    ):
        group.part(run.batch_size)  # refused before the long work
        check_replaceable(folder)
        if run.precision != "measure":
            choose(run.precision, group.device, lambda name: None)
        use_threads(max(1, settings.n_threads() // group.n))
        group.one_first(lambda: prepare(run, data, work, progress))
        prepared = prepare(run, data, work, progress)
        say = terminal.note if group.first else _unsaid
        say(f"{len(prepared.train)} files to train on, {len(prepared.held)} held out")
        student = fit(run, prepared, work, progress, say, device=group.device, processes=group)
        if group.first:
            average_with_start(student, prepared, run)
            refit_head(run, prepared, student, progress)
            card, answers = finish(run, prepared, student, folder)
            page, missing = write_report(run, answers, work)
            without = []
            try:  # the model is complete without what comes now
                background.make(run, data, folder, settings)
            except AcousticError as error:
                without.append(f"no background for personal genres: {error.message}")
            try:
                cost = int8.make_from_training(run, data, folder, settings, progress)[1]
            except AcousticError as error:
                cost = None
                without.append(f"no int8 graph: {error.message}")
    if group.first:
        terminal.print_card(card)
        if cost is not None:
            terminal.print_int8(cost)
        for lack in without:
            terminal.note(lack)
        terminal.note(f"written to {folder}; the report is {page}{f' ({missing})' if missing else ''}")


@contextmanager
def _told(*folders: Path) -> Iterator[None]:
    """`folders` are made before the work; what the disk refuses then or later is an error with a hint."""
    from safetensors import SafetensorError

    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror}", "Choose another folder.") from error
    try:
        yield
    except (OSError, SafetensorError) as error:
        of_torch = isinstance(error, SafetensorError) and "I/O error" in str(error)  # its only word for a full disk
        if not of_torch and getattr(error, "errno", None) not in REFUSALS:
            raise
        raise StorageError(
            f"training cannot write or read what it needs: {error}",
            "Look at the folders and the free space; then the same command goes on where it stopped.",
        ) from error


def _unsaid(text: str) -> None:
    """Where another process speaks."""
