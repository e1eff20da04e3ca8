"""`acoustic analyze` and `evaluate`: songs in, genres out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import terminal
from ..errors import AudioError
from ..records import Failure
from .arguments import (
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    NoPersonalOption,
    PrecisionOption,
    settings_of,
    tell_personal,
)

app = typer.Typer()


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
    profile: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write where the time went as Chrome trace JSON.", metavar="TRACE.json"),
    ] = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    no_personal: NoPersonalOption = False,
) -> None:
    """Say what genre songs are, with confidence, segments and timings."""
    settings = settings_of(
        model=model,
        device=device,
        n_segments=segments,
        denoise=denoise,
        compress=compress,
        rules=rules,
        backend=backend,
        precision=precision,
    )
    from ..workstation import Workstation  # torch is loaded once the arguments are known to be good

    paths = list(_expand(files))
    failed = 0
    made = Workstation(settings, cache=not no_cache, personal=not no_personal)
    with made as station, terminal.progress(len(paths)) as step:
        station.classifier.warm_up(described=descriptors)
        tell_personal(station)
        with _profiled(station, profile) as watched:
            results = _in_order(watched(station.analyze(paths, descriptors=descriptors)))
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
    settings = settings_of(
        model=model, device=device, n_segments=segments, denoise=denoise, compress=compress, rules=rules
    )
    from ..training.evaluate import evaluate as measure
    from ..training.evaluate import read_manifest
    from ..workstation import Workstation

    with Workstation(settings, personal=not no_personal) as station:
        rows = read_manifest(manifest, station.classifier.labels)
        tell_personal(station)
        chosen = [name.strip() for name in among.split(",") if name.strip()] if among else []
        with terminal.stages() as report:
            result = measure(station.classifier, rows, among=chosen, noise=noise, snr_db=snr_db, report=report)
    if as_json:
        terminal.out(json.dumps(result, allow_nan=False))
    else:
        terminal.print_evaluation(result)
    raise typer.Exit(1 if result["n_failed"] else 0)


@contextmanager
def _profiled(station: Any, profile: Path | None) -> Iterator[Callable[[Iterator[Any]], Iterator[Any]]]:
    """What is analysed within the block goes to the file `profile`, if one is named: pass the results through."""
    if profile is None:
        yield lambda results: results
        return
    from ..workstation.performance import trace_file

    with trace_file(station, profile) as trace:

        def collected(results: Iterator[Any]) -> Iterator[Any]:
            for result in results:
                trace.collect()
                yield result

        yield collected


def _expand(files: Sequence[str]) -> Iterator[str]:
    """Files as they are, folders as the audio files in them. What does not exist, and a folder without audio, are
    left as they are for their typed error."""
    from ..signal import audio

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
