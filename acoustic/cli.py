"""The command line: `acoustic analyze`, `personal`, `models` ... (also `python -m acoustic`, `./start.sh ...`).

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
personal_app = typer.Typer(help="Teach genres of your own, and choose what was taught.", no_args_is_help=True)
app.add_typer(personal_app, name="personal")


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
NoPersonalOption = Annotated[bool, typer.Option("--no-personal", help="Leave aside what you taught.")]
SongsArgument = Annotated[
    Path, typer.Argument(help="CSV with the columns file,genre (and group).", metavar="MANIFEST.csv")
]


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
    no_personal: NoPersonalOption = False,
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
    made = Workstation(settings, cache=not no_cache, personal=not no_personal)
    with made as station, terminal.progress(len(paths)) as step:
        station.classifier.warm_up(described=descriptors)
        _tell_personal(station)
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
    no_personal: NoPersonalOption = False,
) -> None:
    """Measure accuracy, calibration and review flags on files whose genre is known."""
    settings = _settings(
        model=model, device=device, n_segments=segments, denoise=denoise, compress=compress, rules=rules
    )
    from .training.evaluate import evaluate as measure
    from .training.evaluate import read_manifest
    from .workstation import Workstation

    with Workstation(settings, personal=not no_personal) as station:
        rows = read_manifest(manifest, station.classifier.labels)
        _tell_personal(station)
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
    from .network.backends import choose_device
    from .training import processes
    from .training.config import TrainConfig
    from .training.finish import finish
    from .training.prepare import prepare
    from .training.report import write_report
    from .training.train import fit, use_threads

    if not data.is_dir():
        raise SettingsError(f"--data {data}: no such folder")
    run = TrainConfig.read(config)
    work = work or Path("runs") / run.name
    with processes.joined() as group, terminal.stages(quiet=not group.first) as progress:
        use_threads(max(1, settings.n_threads() // group.n))
        group.one_first(lambda: prepare(run, data, work, progress))
        prepared = prepare(run, data, work, progress)
        say = terminal.note if group.first else _unsaid
        say(f"{len(prepared.train)} files to train on, {len(prepared.held)} held out")
        student = fit(run, prepared, work, progress, say, device=choose_device(settings.device), processes=group)
        if group.first:
            folder = (output or model_folders(settings)[1]) / run.name
            card, answers = finish(run, prepared, student, folder)
            page, missing = write_report(run, answers, work)
    if group.first:
        terminal.print_card(card)
        terminal.note(f"written to {folder}; the report is {page}{f' ({missing})' if missing else ''}")


@personal_app.command("fit")
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
    with _workstation(model=model, device=device) as station:
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
        use = personal is not None and (yes or (ask and typer.confirm("Use it from now on?", default=True, err=True)))
        if personal is None:
            terminal.note("These songs teach nothing that the model does not know better: nothing was kept.")
        elif use:
            station.use_personal(personal.name)
            terminal.note(f"version {personal.name} is in use; `acoustic personal undo` takes it back")
        else:
            terminal.note(
                f"kept as version {personal.name}, not in use: `acoustic personal use {personal.name}` puts it to use"
            )
    if as_json:
        kept = {"name": personal.name if personal else None, "active": use, **lesson.to_dict()}
        terminal.out(json.dumps({**kept, "failures": [f.to_dict() for f in taught.failures]}, ensure_ascii=False))
    raise typer.Exit(1 if taught.failures else 0)


@personal_app.command("evaluate")
def evaluate_personal(
    manifest: SongsArgument,
    name: Annotated[str, typer.Option(help="Name of the version.", show_default="the one in use")] = "",
    as_json: JsonOption = False,
    device: DeviceOption = None,
    model: ModelOption = None,
) -> None:
    """The model alone against what you taught, on the same songs: others than those that you taught it with."""
    examples = _examples(manifest)
    with _workstation(model=model, device=device) as station, terminal.stages() as report:
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


@personal_app.command("list")
def list_personal(as_json: JsonOption = False, model: ModelOption = None) -> None:
    """The versions of what you taught; exit status 1 if the one in use cannot be used."""
    versions = _workstation(model=model).personal_versions()
    if as_json:
        terminal.out(json.dumps({"versions": [v.to_dict() for v in versions]}, ensure_ascii=False))
    else:
        terminal.print_versions(versions)
    raise typer.Exit(1 if any(v.active and v.error for v in versions) else 0)


@personal_app.command("use")
def use_personal(
    name: Annotated[str, typer.Argument(help="Name of a version; `none` for the model alone.")],
    model: ModelOption = None,
) -> None:
    """Put a version to use, or none."""
    _workstation(model=model).use_personal(None if name == "none" else name)
    _tell_use(None if name == "none" else name)


@personal_app.command("undo")
def undo_personal() -> None:
    """Go back to the version that was in use before."""
    _tell_use(_workstation().undo_personal())


@personal_app.command("export")
def export_personal(
    name: Annotated[str, typer.Argument(help="Name of a version.")],
    target: Annotated[Path, typer.Argument(help="A new zip file or folder.", metavar="FILE.zip|FOLDER")],
) -> None:
    """Write a version to a zip file or a folder: weights as safetensors, all else as JSON; no songs, no file names."""
    _workstation().export_personal(name, target)
    terminal.note(f"version {name} is in {target}")


@personal_app.command("import")
def import_personal(
    source: Annotated[Path, typer.Argument(help="What was exported.", metavar="FILE.zip|FOLDER")],
    name: Annotated[str, typer.Option(help="Another name for it.", show_default="its own")] = "",
) -> None:
    """Take an exported version; it is not put to use."""
    taken = _workstation().import_personal(source, name)
    terminal.note(f"taken as version {taken}, not in use: `acoustic personal use {taken}` puts it to use")


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


def _workstation(**overrides: Any) -> Any:
    settings = _settings(**overrides)
    from .workstation import Workstation

    return Workstation(settings)


def _examples(manifest: Path) -> list[Any]:
    """The rows of a manifest, of whatever genres, as songs to teach."""
    from .training.evaluate import read_manifest
    from .workstation import Example

    return [Example(row.file, row.genre, row.group) for row in read_manifest(manifest, None)]


def _someone_answers() -> bool:
    """Whether a question would reach a person."""
    return sys.stdin.isatty()


def _tell_personal(station: Any) -> None:
    """On stderr: what a person taught and is in use, or why it is not."""
    if station.personal_problem is not None:
        terminal.print_error(station.personal_problem)
        terminal.note("the model answers alone")
    elif station.classifier.personal is not None:
        terminal.note(f"with what you taught: version {station.classifier.personal.name}")


def _tell_use(name: str | None) -> None:
    terminal.note(f"version {name} is in use" if name else "the model answers alone")


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


def _unsaid(text: str) -> None:
    """Where another process speaks."""


def _mel_spec(path: Path | None) -> MelSpec:
    if path is None:
        return MelSpec(n_mels=224, normalization="minmax")
    from .training.config import read_toml, record

    spec: MelSpec = record(MelSpec, read_toml(path), str(path))
    return spec
