"""What a run needs before its first step: manifest -> split -> waveforms -> the teachers' answers -> soft labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ManifestError
from ..signal.audio import find_audio
from ..signal.files import digest
from .augment import Augmenter
from .blends import blend_waveforms
from .config import BLENDS, TrainConfig
from .dataset import CropDataset, columns
from .heard import contents, heard_before, marks
from .labels import Layout, TeacherSpace, fit_teacher_space, index_of
from .manifest import MIN_HELD_OUT, Row, read_rows, split
from .starting import check_start
from .targets import ask_teacher, build_waveforms, kept_answers, stamp
from .teachers import load_teacher

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before its first step. `train` and `held` are the numbers of the sources' tracks; no group
    is in both. Blends, which are drawn from beside `train`, come after all of them. `stamp` names all that they were
    made of: rows, waveforms, teachers, rooms. `heard` are the marks of what the model will have learned from."""

    rows: list[Row]
    dataset: CropDataset
    train: list[int]
    held: list[int]
    stamp: str
    heard: frozenset[str] = frozenset()

    def held_music(self, at_most: int) -> list[int]:
        """Held-out tracks of music, in an order that never changes, at most so many."""
        tracks = [t for t in self.held if self.rows[t].kind == "music"]
        return [int(t) for t in np.random.default_rng(0).permutation(tracks)[:at_most]]


def prepare(config: TrainConfig, data: Path, work: Path, report: Report) -> Prepared:
    """Read and check the manifests, decode, ask the teachers (all kept in `work`), fit the soft labels. Raises
    ManifestError, before the long work where that can be told."""
    rows = read_rows(config, data)
    held_out = split(rows, config)
    train = [t for t, kept in enumerate(held_out) if not kept]
    held = [t for t, kept in enumerate(held_out) if kept]
    _check_parts(config, rows, train, held)
    Augmenter(config.augment, config.mel.sample_rate, data / config.rooms if config.rooms else None)
    check_start(config)
    digests = contents(rows, data)
    learned_from = heard_before(config, rows, digests, held) | marks(rows, digests, train)
    _check_teachers(config, data, work / "targets")
    store = build_waveforms(rows, digests, data, work / "targets", config.mel.sample_rate, report)
    answers = [ask_teacher(spec, store, data, work / "targets", report) for spec in config.teachers]
    blends: range = range(0)
    if config.blends.n:
        made = blend_waveforms(config, store, [t for t in train if rows[t].kind == "music"], work / "blends", report)
        more = [ask_teacher(spec, made, data, work / "blends", report) for spec in config.teachers]
        blends = range(len(rows), len(rows) + len(made))
        rows = rows + [Row(file, BLENDS, "music", "", f"{BLENDS}:{file}") for file in made.files]
        store = store.joined(made)
        answers = [answer.joined(other) for answer, other in zip(answers, more, strict=True)]
    dataset = CropDataset(config, rows, store, answers, data=data)
    if answers:
        dataset.space = _fit_space(config, dataset, train)
    dataset.fit_scales([t for t in train if rows[t].kind == "music"])
    dataset.prepare_draws([*train, *blends])
    said = [dataclasses.astuple(dataclasses.replace(row, where="")) for row in rows]  # a blank line changes nothing
    parts = [said, store.stamp, [answer.stamp for answer in answers], _rooms(config, data)]
    return Prepared(rows, dataset, train, held, stamp(*parts), learned_from)


def _check_parts(config: TrainConfig, rows: Sequence[Row], train: Sequence[int], held: Sequence[int]) -> None:
    """Refuse before the long work what could not be finished after it."""
    trusted = {source.name for source in config.sources if source.label_weight > 0}
    learned = {rows[t].genre for t in train if rows[t].source in trusted and rows[t].kind == "music"}
    for label in config.labels:
        if label not in learned:
            raise ManifestError(
                f"no file of the genre {label!r} is left to train on",
                "Label more files of it, in a source whose `label_weight` is above 0.",
            )
    shares = {source.name: source.share for source in config.sources}
    if not any(shares[rows[t].source] > 0 for t in train):
        raise ManifestError(
            "no file of a source whose `share` is above 0 is left to train on", "Give it files of more groups."
        )
    labelled = {rows[t].group for t in held if rows[t].genre}
    if len(labelled) < MIN_HELD_OUT:
        raise ManifestError(
            f"{len(labelled)} labelled groups can be held out, and calibration needs {MIN_HELD_OUT}",
            "Label files of more groups (artists, albums): one of each genre stays to be trained on.",
        )


def _check_teachers(config: TrainConfig, data: Path, folder: Path) -> None:
    """Load every teacher, and look for the tags that are named, before the first is asked for hours; where one has
    answered before, what its answers say of its tags is looked at when they are read."""
    if any(kept_answers(spec, folder).exists() for spec in config.teachers):
        return
    plugged = [load_teacher(data / spec.file, spec.arguments) for spec in config.teachers]
    gives = next((i for i, spec in enumerate(config.teachers) if spec.gives_tags), 0)
    columns(config.tags, plugged[gives].tags if plugged else ())
    Layout.of(config.labels, config.genre_tags, [(teacher.tags, 0) for teacher in plugged])


def _rooms(config: TrainConfig, data: Path) -> list[str]:
    """What the impulse responses are."""
    return [digest(path) for path in find_audio(data / config.rooms)] if config.rooms else []


def _fit_space(config: TrainConfig, dataset: CropDataset, train: Sequence[int]) -> TeacherSpace:
    """The teacher space, fitted on the labelled tracks of the training part."""
    weights = {source.name: source.label_weight for source in config.sources}
    labelled = [t for t in train if dataset.rows[t].genre and weights[dataset.rows[t].source] > 0]
    features = np.stack([dataset.features(t, dataset.middle(t)) for t in labelled])
    genres = np.asarray([index_of(dataset.rows[t], config.labels) for t in labelled])
    trust = np.asarray([weights[dataset.rows[t].source] for t in labelled])
    return fit_teacher_space(features, genres, trust, dataset.layout)
