"""`acoustic train`: a configuration in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import terminal
from ..errors import AcousticError, SettingsError
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
    from ..training import background, int8, processes
    from ..training.config import TrainConfig
    from ..training.finish import finish
    from ..training.head import refit_head
    from ..training.prepare import prepare
    from ..training.report import write_report
    from ..training.train import fit, use_threads

    data = data or config.parent
    if not data.is_dir():
        raise SettingsError(f"--data {data}: no such folder")
    run = TrainConfig.read(config)
    work = work or Path("runs") / run.name
    with processes.joined(choose_device(settings.device)) as group, terminal.stages(quiet=not group.first) as progress:
        use_threads(max(1, settings.n_threads() // group.n))
        group.one_first(lambda: prepare(run, data, work, progress))
        prepared = prepare(run, data, work, progress)
        say = terminal.note if group.first else _unsaid
        say(f"{len(prepared.train)} files to train on, {len(prepared.held)} held out")
        student = fit(run, prepared, work, progress, say, device=group.device, processes=group)
        if group.first:
            folder = (output or model_folders(settings)[1]) / run.name
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


def _unsaid(text: str) -> None:
    """Where another process speaks."""
