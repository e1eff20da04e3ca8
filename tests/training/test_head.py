from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from acoustic.training import head
from acoustic.training.head import refit_head
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.regression import fit_change
from acoustic.training.student import new_student
from tests.training.test_train import CONFIG, data, silent

__all__ = ["data"]


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(CONFIG, data, tmp_path_factory.mktemp("work"), silent)


def test_only_the_genre_head_changes_and_only_where_asked(prepared: Prepared) -> None:
    student = new_student(prepared, CONFIG)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    assert not refit_head(CONFIG, prepared, student, silent)
    asked = dataclasses.replace(CONFIG, head_labelled=3.0)
    assert refit_head(asked, prepared, student, silent)
    moved = {k for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"network.genre.weight", "network.genre.bias"}
    again = new_student(prepared, CONFIG)
    refit_head(asked, prepared, again, silent)
    assert torch.equal(again.network.genre.weight, student.network.genre.weight)


def test_songs_of_which_nobody_says_anything_do_not_count(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a teacher, a file without a genre has no target: an even one would pull the head to know nothing."""
    config = dataclasses.replace(CONFIG, teachers=(), tags=(), head_labelled=1.0)
    prepared = prepare(config, data, tmp_path, silent)
    rows = [dataclasses.replace(row, genre="") if i % 4 == 0 else row for i, row in enumerate(prepared.rows)]
    assert any(rows[t].kind == "music" and not rows[t].genre for t in prepared.train)
    prepared.dataset.rows = rows
    asked: list[tuple[np.ndarray, ...]] = []

    def spy(x: np.ndarray, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
        asked.append((targets, weights))
        return fit_change(x, logits, targets, weights, ridge)

    monkeypatch.setattr(head, "fit_change", spy)
    assert refit_head(config, prepared, new_student(prepared, config), silent)
    [(targets, weights)] = asked
    assert targets.max(axis=1).tolist() == [1.0] * len(targets)  # each is somebody's own genre
    assert set(weights.tolist()) == {config.sources[0].label_weight}


def test_a_head_with_a_hidden_layer_is_left_alone(prepared: Prepared) -> None:
    student = new_student(prepared, CONFIG)
    student.network.genre = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 2))
    assert not refit_head(dataclasses.replace(CONFIG, head_labelled=1.0), prepared, student, silent)
