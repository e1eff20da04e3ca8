"""`acoustic models` and `doctor`: what can be used here."""

from __future__ import annotations

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import terminal
from ..errors import ModelError, SettingsError
from ..network.source import NetworkSource
from ..records import MelSpec
from .arguments import JsonOption, settings_of, workstation_of

app = typer.Typer(help="List, show, import and quantize models.", no_args_is_help=True)
doctor_app = typer.Typer()


class Layout(StrEnum):
    """How an outside checkpoint names its weights."""

    AUTO = "auto"
    TRANSFORMERS = "transformers"
    TORCHVISION = "torchvision"


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """The models that can be used; exit status 1 if one is damaged."""
    registry = workstation_of().models()
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


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Model name or folder; empty for the embedded one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """A model's card: what it is, what it learned from, how well it does. The weights are verified."""
    from ..engine import EMBEDDED_MODEL

    registry = workstation_of().models()
    _, card = registry.load(name or EMBEDDED_MODEL)
    if as_json:
        terminal.out(json.dumps(dataclasses.asdict(card), ensure_ascii=False, allow_nan=False))
    else:
        terminal.print_card(card)
        _show_int8(registry.source(name or EMBEDDED_MODEL)[0])


@app.command("quantize")
def quantize_model(
    songs: Annotated[Path, typer.Argument(help="A folder of songs, or a CSV with the columns file,genre.")],
    name: Annotated[str, typer.Option(help="Model name or folder; empty for the embedded one.")] = "",
) -> None:
    """Make a model's int8 graph from your own songs: faster on a CPU, and it says what it costs."""
    from ..engine import EMBEDDED_MODEL, model_folders
    from ..network.registry import Registry
    from ..signal.audio import find_audio
    from ..training.evaluate import read_manifest
    from ..training.int8 import make_from_songs

    settings = settings_of()
    registry = Registry(model_folders(settings))
    model = registry.find(name or EMBEDDED_MODEL)
    if songs.is_dir():
        files, genres = sorted(find_audio(songs)), []
    else:
        rows = read_manifest(songs, registry.card(model).labels)
        files, genres = [row.file for row in rows], [row.genre for row in rows]
    with terminal.stages() as progress:
        file, cost = make_from_songs(model, files, genres, settings, progress)
    terminal.print_int8(cost)
    terminal.note(f"written to {file}")


@app.command("import")
def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="A transformers ViT folder, or a state dict (.pth, .safetensors) as torchvision's vit_b_16."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    labels: Annotated[str, typer.Option(help="Labels in logit order, separated by commas, or @FILE with one a line.")],
    mel: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the mel spec's fields (docs/formats.md).", show_default="22,050 Hz, 224 bands, minmax"
        ),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="How the checkpoint names its weights.")] = Layout.AUTO,
) -> None:
    """Take an outside checkpoint into your data folder."""
    card = workstation_of().import_model(source, name, _labels(labels), _mel_spec(mel), layout.value)
    terminal.print_card(card)


@doctor_app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check versions, decoders, device, backend, model and cache; each with its fix."""
    from ..doctor import examine

    checks = list(examine(settings_of()))
    if as_json:
        terminal.out(json.dumps([check.to_dict() for check in checks]))
    else:
        terminal.print_checks(checks)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


def _show_int8(source: NetworkSource) -> None:
    """What the model's int8 graph costs, if it has one that can be believed."""
    from ..network import quantized

    if source.int8 is not None and source.int8.exists():
        try:
            terminal.print_int8(quantized.read(source.int8, source.digest).cost)
        except ModelError as error:
            terminal.print_error(error)


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
    from ..training.toml_records import read_toml, record

    spec: MelSpec = record(MelSpec, read_toml(path), str(path))
    return spec
