"""What a run needs before its first step: manifest -> split -> waveforms -> the teachers' answers -> soft labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ManifestError
from .config import TrainConfig
from .dataset import CropDataset
from .labels import TeacherSpace, fit_teacher_space, index_of
from .manifest import Row, held_out, read_rows
from .targets import ask_teacher, build_waveforms

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before its first step. `train` and `held` are track numbers; no group is in both."""

    rows: list[Row]
    dataset: CropDataset
    train: list[int]
    held: list[int]

    def held_music(self, at_most: int) -> list[int]:
        """Held-out tracks of music, in an order that never changes, at most so many."""
        tracks = [t for t in self.held if self.rows[t].kind == "music"]
        return [int(t) for t in np.random.default_rng(0).permutation(tracks)[:at_most]]


def prepare(config: TrainConfig, data: Path, work: Path, report: Report) -> Prepared:
    """Read and check the manifests, decode, ask the teachers (all kept in `work`), fit the soft labels."""
    rows = read_rows(config, data)
    store = build_waveforms(rows, data, work / "targets", config.mel.sample_rate, report)
    answers = [ask_teacher(spec, store, data, work / "targets", report) for spec in config.teachers]
    held = [t for t, row in enumerate(rows) if held_out(row, config.seed, config.held_out)]
    kept = set(held)
    train = [t for t in range(len(rows)) if t not in kept]
    _check_parts(rows, train, held)
    dataset = CropDataset(config, rows, store, answers, data=data)
    dataset.space = _fit_space(config, dataset, train)
    dataset.fit_scales([t for t in train if rows[t].kind == "music"])
    dataset.prepare_draws(train)
    return Prepared(rows, dataset, train, held)


def _check_parts(rows: Sequence[Row], train: Sequence[int], held: Sequence[int]) -> None:
    """Refuse before the long work what could not be finished after it."""
    for name, part in (("training", train), ("held-out", held)):
        if not any(rows[t].genre for t in part):
            raise ManifestError(
                f"the {name} part has no labelled file", "Label more files, or change `held_out` or `seed`."
            )


def _fit_space(config: TrainConfig, dataset: CropDataset, train: Sequence[int]) -> TeacherSpace:
    """The teacher space, fitted on the labelled tracks of the training part."""
    weights = {source.name: source.label_weight for source in config.sources}
    labelled = [t for t in train if dataset.rows[t].genre and weights[dataset.rows[t].source] > 0]
    features = np.stack([dataset.features(t, dataset.middle(t)) for t in labelled])
    genres = np.asarray([index_of(dataset.rows[t], config.labels) for t in labelled])
    trust = np.asarray([weights[dataset.rows[t].source] for t in labelled])
    return fit_teacher_space(features, genres, trust, len(config.labels))
