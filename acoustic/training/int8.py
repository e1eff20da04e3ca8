"""A model's int8 graph, calibrated on real songs (see `network.quantize`).

`acoustic train` makes one at its end: ranges from the training part, the cost on held-out labelled tracks. For a model
that was imported, `acoustic models quantize SONGS --name NAME` takes a person's own songs: every other one to calibrate
with, the rest to see what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import decoding
from ..errors import AudioError, ManifestError
from ..network import quantized
from ..network.card import ModelCard
from ..network.quantize import quantize
from ..network.quantized import Cost
from ..network.registry import Registry, model_folders
from ..settings import Settings
from ..signal.mel import normalize
from .config import TrainConfig
from .manifest import Row, read_rows, split

N_CALIBRATION = 128
"""songs that show the ranges of activations: more change nothing that can be measured"""
N_TESTED = 400
"""songs at most on which the cost is measured"""
Report = Callable[[str, int, int], None]


def make_from_training(
    config: TrainConfig, data: Path, model: Path, settings: Settings, report: Report
) -> tuple[Path, Cost]:
    """The int8 graph of the trained model in the folder `model`, beside it; (its file, what it costs)."""
    found = read_rows(config, data)
    held = {row.file for row, kept in zip(found, split(found, config), strict=True) if kept}
    rows = [row for row in found if row.kind == "music"]
    rng = np.random.default_rng(config.seed)
    learned = [row for row in rows if row.file not in held]
    known = [row for row in rows if row.file in held and row.genre]
    tested = [known[i] for i in rng.permutation(len(known))[:N_TESTED]]
    chosen = [learned[i] for i in rng.permutation(len(learned))[:N_CALIBRATION]]
    about = f"{len(chosen)} songs of the training part to calibrate with, {len(tested)} held out to test"
    file = quantized.file_of(model.resolve())
    genres = [row.genre for row in tested]
    return file, _make(model, file, _files(chosen, data), _files(tested, data), genres, about, settings, report)


def make_from_songs(
    model: Path, files: Sequence[Path], genres: Sequence[str], settings: Settings, report: Report
) -> tuple[Path, Cost]:
    """As above from songs at hand, into the person's own folder of models; `genres` is empty where they are not known.
    ManifestError for too few songs."""
    calibration, tested = files[: 2 * N_CALIBRATION : 2], files[1 : 2 * N_TESTED : 2]
    about = f"{len(calibration)} songs to calibrate with, {len(tested)} others to test"
    file = quantized.file_of(model_folders(settings)[1] / model.name)
    told = list(genres[1 : 2 * N_TESTED : 2])
    return file, _make(model, file, calibration, tested, told, about, settings, report)


def _make(
    model: Path,
    file: Path,
    calibration: Sequence[Path],
    tested: Sequence[Path],
    genres: Sequence[str],
    about: str,
    settings: Settings,
    report: Report,
) -> Cost:
    network, card = Registry((model.parent,)).load(model)
    ranges = _mels(calibration, card, settings, lambda i, n: report("calibrate", i, n))
    proofs = _mels(tested, card, settings, lambda i, n: report("test", i, n))
    if not ranges or not proofs:
        raise ManifestError("none of the songs could be heard", "Give songs that `acoustic analyze` can read.")
    targets = None
    if genres:
        places = {label: i for i, label in enumerate(card.labels)}
        known = [at for at in proofs if genres[at] in places]
        if not known:
            raise ManifestError("none of the songs has a genre of the model", f"Known: {', '.join(card.labels)}.")
        targets = np.concatenate([np.full(len(proofs[at]), places[genres[at]]) for at in known])
        proofs = {at: proofs[at] for at in known}
    made = quantize(
        network,
        np.concatenate(list(ranges.values())),
        np.concatenate(list(proofs.values())),
        targets,
        about=about,
        n_threads=settings.n_threads(),
    )
    quantized.write(file, made, card.weights_digest)
    return made.cost


def _mels(
    files: Sequence[Path], card: ModelCard, settings: Settings, on_song: Callable[[int, int], None]
) -> dict[int, np.ndarray]:
    """Place in `files` -> the normalised mels (K, n_mels, 224) of its segments; a song that cannot be read is left
    out."""
    spec = settings.segments_of(card.segments)
    heard: dict[int, np.ndarray] = {}
    for at, file in enumerate(files):
        on_song(at, len(files))
        try:
            chosen, about = decoding.read(file, card.mel, spec, settings)
        except AudioError:
            continue
        mels = decoding.mels_of(chosen, about, card.mel, settings).arrays["mels"]
        heard[at] = normalize(mels, card.mel)
    return heard


def _files(rows: Sequence[Row], data: Path) -> list[Path]:
    return [data / row.file for row in rows]
