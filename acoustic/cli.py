"""The command line: `acoustic analyze|evaluate|train|models|doctor` (also `python -m acoustic`, `./start.sh ...`).

Answers go to stdout, progress and errors to stderr. Exit status: 0 all ok, 1 some files failed, 2 wrong usage.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, terminal
from .errors import AcousticError, AudioError, SettingsError
from .records import Failure, MelSpec
from .settings import Settings, prepare_process

app = typer.Typer(
    name="acoustic",
    help="AcousticSense: what genre a song is, how sure that is, and where the milliseconds went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="List, show and import models.", no_args_is_help=True)
app.add_typer(models_app, name="models")


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Layout(StrEnum):
    """How an outside checkpoint names its weights."""

    AUTO = "auto"
    TRANSFORMERS = "transformers"
    TORCHVISION = "torchvision"


DeviceOption = Annotated[Device | None, typer.Option(help="Where the network runs.", show_default="auto")]
ModelOption = Annotated[str | None, typer.Option(help="Model name or folder.", show_default="the embedded one")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry of the `acoustic` command: AcousticError becomes a plain message and exit status 2."""
    try:
        app()
    except AcousticError as error:
        terminal.print_error(error)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _about(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        terminal.out(__version__)
        raise typer.Exit


@app.command()
def analyze(
    files: Annotated[list[str], typer.Argument(help="Audio files; folders are searched.", metavar="FILES|FOLDERS...")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each file.")] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Genres listed in `predictions`.")] = 5,
    segments: Annotated[
        int | None, typer.Option(min=1, max=64, help="Segments a track.", show_default="the model's")
    ] = None,
    device: DeviceOption = None,
    model: ModelOption = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache.")] = False,
    denoise: Annotated[bool, typer.Option("--denoise", help="Spectral subtraction before the mel.")] = False,
    compress: Annotated[bool, typer.Option("--compress", help="Dynamic-range compression before the mel.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="Apply the music-knowledge rules.")] = False,
    descriptors: Annotated[
        bool, typer.Option("--descriptors", help="Measure tempo, beat, low frequencies, voice.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile in the background.")] = False,
) -> None:
    """Say what genre songs are, with confidence, segments and timings."""
    settings = _settings(
        model=model,
        device=device,
        n_segments=segments,
        denoise=denoise,
        compress=compress,
        rules=rules,
        compile=compiled,
    )
    from .workstation import Workstation  # torch is loaded once the arguments are known to be good

    paths = list(_expand(files))
    failed = 0
    with Workstation(settings, cache=not no_cache) as station, terminal.progress(len(paths)) as step:
        station.classifier.warm_up(described=descriptors)
        results = _in_order(station.analyze(paths, descriptors=descriptors))
        if as_json:
            for result in results:
                failed += isinstance(result, Failure)
                terminal.out(json.dumps(result.to_dict(top_k), ensure_ascii=False, allow_nan=False))
                step()
        else:
            rows = []
            for result in results:
                failed += isinstance(result, Failure)
                rows.append(result)
                step()
            terminal.print_results(rows, top_k)
    raise typer.Exit(1 if failed else 0)


@app.command()
def evaluate(
    manifest: Annotated[Path, typer.Argument(help="CSV with the columns file,genre.", metavar="MANIFEST.csv")],
    as_json: JsonOption = False,
    noise: Annotated[Path | None, typer.Option(help="Folder of noise recordings to mix in.")] = None,
    snr_db: Annotated[float, typer.Option("--snr-db", help="Signal-to-noise ratio in dB.")] = 10.0,
    among: Annotated[str | None, typer.Option(help="Restrict the choice to these genres, separated by commas.")] = None,
    segments: Annotated[int | None, typer.Option(min=1, max=64, help="Segments a track.")] = None,
    device: DeviceOption = None,
    model: ModelOption = None,
    denoise: Annotated[bool, typer.Option("--denoise", help="Spectral subtraction before the mel.")] = False,
    compress: Annotated[bool, typer.Option("--compress", help="Dynamic-range compression before the mel.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="Apply the music-knowledge rules.")] = False,
) -> None:
    """Measure accuracy, calibration and review flags on files whose genre is known."""
    settings = _settings(
        model=model, device=device, n_segments=segments, denoise=denoise, compress=compress, rules=rules
    )
    from .training.evaluate import evaluate as measure
    from .training.evaluate import read_manifest
    from .workstation import Workstation

    with Workstation(settings) as station:
        rows = read_manifest(manifest, station.classifier.card.labels)
        chosen = [name.strip() for name in among.split(",") if name.strip()] if among else []
        with terminal.stages() as report:
            result = measure(station.classifier, rows, among=chosen, noise=noise, snr_db=snr_db, report=report)
    if as_json:
        terminal.out(json.dumps(result, allow_nan=False))
    else:
        terminal.print_evaluation(result)
    raise typer.Exit(1 if result["n_failed"] else 0)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The run, see configs/.", metavar="CONFIG.toml")],
    data: Annotated[Path, typer.Option(help="Folder that the configuration's paths are relative to.")],
    work: Annotated[Path | None, typer.Option(help="Checkpoints and targets; a killed run goes on from here.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder in which the model's folder is written.")] = None,
) -> None:
    """Train a model: manifest, teachers, student, calibration, card. Resumes where it was stopped."""
    settings = _settings()
    from .engine import model_folders
    from .training.config import TrainConfig
    from .training.finish import finish
    from .training.train import fit, prepare, use_threads

    use_threads(settings.n_threads())
    if not data.is_dir():
        raise SettingsError(f"--data {data}: no such folder")
    run = TrainConfig.read(config)
    work = work or Path("runs") / run.name
    with terminal.stages() as report:
        prepared = prepare(run, data, work, report)
        terminal.note(f"{len(prepared.train)} files to train on, {len(prepared.held)} held out")
        student = fit(run, prepared, work, report, terminal.note)
        folder = (output or model_folders(settings)[1]) / run.name
        card = finish(run, prepared, student, folder)
    terminal.print_card(card)
    terminal.note(f"written to {folder}")


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """The models that can be used; exit status 1 if one is damaged."""
    registry = _workstation().models()
    cards, broken = registry.cards(), registry.broken()
    if as_json:
        listed = [
            {"name": c.name, "description": c.description, "labels": list(c.labels), "licence": c.licence}
            for c in cards
        ]
        terminal.out(
            json.dumps({"models": listed, "broken": {n: e.to_dict() for n, e in broken.items()}}, ensure_ascii=False)
        )
    else:
        terminal.print_models(cards, broken)
    raise typer.Exit(1 if broken else 0)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Model name or folder; empty for the embedded one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """A model's card: what it is, what it learned from, how well it does. The weights are verified."""
    from .engine import EMBEDDED_MODEL

    registry = _workstation().models()
    _, card = registry.load(name or EMBEDDED_MODEL)
    if as_json:
        terminal.out(json.dumps(dataclasses.asdict(card), ensure_ascii=False, allow_nan=False))
    else:
        terminal.print_card(card)


@models_app.command("import")
def import_model(
    source: Annotated[
        Path, typer.Argument(help="A transformers ViT folder, or a .pth state dict as torchvision's vit_b_16.")
    ],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    labels: Annotated[str, typer.Option(help="Labels in logit order, separated by commas, or @FILE with one a line.")],
    mel: Annotated[
        Path | None, typer.Option(help="TOML file with the mel spec's fields.", show_default="22,050 Hz")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="How the checkpoint names its weights.")] = Layout.AUTO,
) -> None:
    """Take an outside checkpoint into your data folder."""
    card = _workstation().import_model(source, name, _labels(labels), _mel_spec(mel), layout.value)
    terminal.print_card(card)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check versions, decoders, device, backend, model and cache; each with its fix."""
    from .doctor import examine

    checks = list(examine(_settings()))
    if as_json:
        terminal.out(json.dumps([check.to_dict() for check in checks]))
    else:
        terminal.print_checks(checks)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


# --- arguments ---


def _settings(**overrides: Any) -> Settings:
    """Settings with what the person named; a switch that was not given leaves the environment its say."""
    settings = Settings.load(**{name: value or None for name, value in overrides.items()})
    prepare_process(settings)
    return settings


def _workstation() -> Any:
    settings = _settings()
    from .workstation import Workstation

    return Workstation(settings)


def _expand(files: Sequence[str]) -> Iterator[str]:
    """Files as they are, folders as the audio files in them. What does not exist, and a folder without audio, are
    left as they are for their typed error."""
    from .signal import audio

    for name in files:
        if os.path.isdir(name):
            try:
                found = [os.fspath(path) for path in audio.find_audio(Path(name))]
            except AudioError:  # an unreadable folder is one failed file, not the end of the others
                found = []
            yield from found or [name]
        else:
            yield name


def _in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Results in the order of the paths, each as soon as those before it are there."""
    waiting: dict[int, Any] = {}
    following = 0
    for index, result in results:
        waiting[index] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _labels(text: str) -> list[str]:
    if text.startswith("@"):
        try:
            return [line.strip() for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--labels {text}: {error}") from None
    return [label.strip() for label in text.split(",") if label.strip()]


def _mel_spec(path: Path | None) -> MelSpec:
    if path is None:
        return MelSpec(n_mels=224, normalization="minmax")
    from .training.config import read_toml, record

    spec: MelSpec = record(MelSpec, read_toml(path), str(path))
    return spec
