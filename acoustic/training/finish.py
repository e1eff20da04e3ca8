"""A trained student -> a model folder: calibrate on held-out groups, describe, save."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import torch

from ..network.backends.eager import EagerBackend
from ..network.card import ModelCard
from ..network.registry import save_model
from ..records import Calibration
from .calibrate import cross_fitted, fit_calibration, held_out_votes
from .config import TrainConfig
from .held_out import labelled_answers
from .prepare import Prepared
from .report import HeldOutAnswers
from .student import Student


def finish(config: TrainConfig, prepared: Prepared, student: Student, folder: Path) -> tuple[ModelCard, HeldOutAnswers]:
    """Fit the calibration on the held-out part and write `folder`; returns the card, and the answers on labelled
    held-out tracks."""
    unstandardize_tags(student, prepared)
    student.network.half().float()  # what is calibrated and measured is what ships: weights are kept in half precision
    backend = EagerBackend(student.network, "cpu")
    tracks = held_out_votes(prepared.dataset.store, prepared.rows, prepared.held, config, backend)
    answers = cross_fitted(tracks, config.tags, config)
    calibration, report = fit_calibration(tracks, config.tags, config, answers)
    card = describe(config, prepared, student, calibration, {"held_out": report})
    return save_model(folder, student.network, card), HeldOutAnswers(config.labels, *labelled_answers(answers))


@torch.no_grad()
def unstandardize_tags(student: Student, prepared: Prepared) -> None:
    """Fold mean and deviation of the tag targets into the tag head: it then gives logits, as its teacher does."""
    head, scale = student.network.tags, prepared.dataset.scales[1]
    if head is not None:
        std, mean = (torch.from_numpy(x.astype("float32")) for x in (scale.std, scale.mean))
        head.weight.mul_(std[:, None])
        head.bias.mul_(std).add_(mean)


def describe(
    config: TrainConfig, prepared: Prepared, student: Student, calibration: Calibration, measured: dict[str, Any]
) -> ModelCard:
    """The card: what the model is, what it learned from, with licences, and what was measured."""
    sources = {
        source.name: {
            "what": source.cite,
            "licence": source.licence,
            "n_files": sum(row.source == source.name for row in prepared.rows),
            "n_held_out": sum(prepared.rows[t].source == source.name for t in prepared.held),
            "share": source.share,
            "label_weight": source.label_weight,
        }
        for source in config.sources
    }
    store = prepared.dataset.store
    teachers = {t.name: {"what": t.cite, "licence": t.licence} for t in config.teachers}
    recipe: dict[str, Any] = {
        "start_from": config.start_from,
        "samples": config.samples,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "patch_dropout": config.patch_dropout,
        "seed": config.seed,
        "held_out": config.held_out,
        "hours_of_audio": round(sum(map(store.length, prepared.train)) / store.sample_rate / 3600, 2),
    }
    if config.early_stop_epochs:
        recipe["early_stop_epochs"] = config.early_stop_epochs
    if config.blends.n:
        recipe["blends"] = dataclasses.asdict(config.blends)
    return ModelCard(
        name=config.name,
        labels=config.labels,
        tag_labels=config.tags,
        architecture=student.network.architecture,
        mel=config.mel,
        segments=config.segments,
        calibration=calibration,
        training={
            "sources": sources,
            "teachers": teachers,
            "recipe": recipe,
            "heard": " ".join(sorted(prepared.heard)),
        },
        metrics=measured,
        licence=config.licence,
        description=config.description,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        weights={},
    )
