"""What several commands take, and what becomes of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import terminal
from ..errors import ModelError
from ..settings import Settings, prepare_process


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class BackendName(StrEnum):
    """How the network is run."""

    AUTO = "auto"
    EAGER = "eager"
    COMPILED = "compiled"
    OPENVINO = "openvino"
    GRAPHS = "graphs"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """Of the network's arithmetic."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


DeviceOption = Annotated[Device | None, typer.Option(help="Where the network runs.", show_default="auto")]
BackendOption = Annotated[
    BackendName | None, typer.Option(help="How the network is run.", show_default="auto: the fastest measured here")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="Of its arithmetic.", show_default="auto: the fastest that is accurate")
]
ModelOption = Annotated[str | None, typer.Option(help="Model name or folder.", show_default="the embedded one")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
LibraryOption = Annotated[
    Path | None, typer.Option(help="The library's file.", metavar="FILE", show_default="the one in your data folder")
]
NoPersonalOption = Annotated[bool, typer.Option("--no-personal", help="Leave aside what you taught.")]


def settings_of(**overrides: Any) -> Settings:
    """Settings with what the person named; a switch that was not given leaves the environment its say."""
    settings = Settings.load(**{name: value or None for name, value in overrides.items()})
    prepare_process(settings)
    return settings


def workstation_of(**overrides: Any) -> Any:
    settings = settings_of(**overrides)
    from ..workstation import Workstation

    return Workstation(settings)


def read_as_chosen(station: Any) -> None:
    """The library's songs are read anew where they are not read as what is in use reads them."""
    try:
        behind = station.is_behind()
    except ModelError:  # what is in use cannot be used, and the model answers alone: told where songs are heard
        return
    if behind:
        from ..workstation.learning import catch_up

        with terminal.stages() as report:
            catch_up(station, report)


def tell_personal(station: Any) -> None:
    """On stderr: what a person taught and is in use, or why it is not."""
    if station.personal_problem is not None:
        terminal.print_error(station.personal_problem)
        terminal.note("the model answers alone")
    elif station.classifier.personal is not None:
        terminal.note(f"with what you taught: version {station.classifier.personal.name}")
