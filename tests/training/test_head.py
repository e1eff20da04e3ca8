from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acoustic.training import head
from acoustic.training.head import fit_change, refit_head
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.student import new_student
from tests.training.test_train import CONFIG, data, silent

__all__ = ["data"]


def problem(seed: int, n: int = 60, d: int = 5, c: int = 3) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng) * torch.tensor([0.1, 1.0, 10.0, 1.0, 1.0]) + 2
    targets = torch.softmax(2 * torch.randn(n, c, generator=rng), dim=1)
    return x, 0.1 * torch.randn(n, c, generator=rng), targets, torch.rand(n, generator=rng) + 0.1


def cross_entropy(x: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, w: torch.Tensor) -> float:
    return float(-(w * (targets * torch.log_softmax(logits, 1)).sum(1)).sum() / w.sum())


def changed(x: torch.Tensor, logits: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    return logits + x @ change[:-1] + change[-1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ridge=st.floats(1e-4, 1.0))
def test_the_change_never_makes_the_loss_greater(seed: int, ridge: float) -> None:
    x, logits, targets, w = problem(seed)
    change = fit_change(x, logits, targets, w, ridge)
    after = cross_entropy(x, changed(x, logits, change), targets, w)
    assert after <= cross_entropy(x, logits, targets, w) + 1e-6


def test_without_a_ridge_it_is_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    x, _, targets, _ = problem(3, n=300)
    y = targets.argmax(1)
    change = fit_change(x, torch.zeros(300, 3), torch.eye(3)[y], torch.ones(300), 1e-7)
    theirs = LogisticRegression(C=1e7, max_iter=5_000).fit(x.numpy(), y.numpy()).predict_proba(x.numpy())
    ours = torch.softmax(changed(x, torch.zeros(300, 3), change), 1).numpy()
    assert np.abs(ours - theirs).max() < 0.01


def test_a_strong_ridge_leaves_all_but_the_bias() -> None:
    x, logits, targets, w = problem(5)
    change = fit_change(x, logits, targets, w, 1e6)
    assert change[:-1].abs().max() < 1e-4
    mean = (w[:, None] * torch.softmax(changed(x, logits, change), 1)).sum(0) / w.sum()
    assert mean.numpy() == pytest.approx(((w[:, None] * targets).sum(0) / w.sum()).numpy(), abs=1e-3)


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
    asked: list[tuple[torch.Tensor, ...]] = []

    def spy(features: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, ridge: float):
        asked.append((targets, weights))
        return fit_change(features, logits, targets, weights, ridge)

    monkeypatch.setattr(head, "fit_change", spy)
    assert refit_head(config, prepared, new_student(prepared, config), silent)
    [(targets, weights)] = asked
    assert targets.max(dim=1).values.tolist() == [1.0] * len(targets)  # each is somebody's own genre
    assert set(weights.tolist()) == {config.sources[0].label_weight}


def test_a_head_with_a_hidden_layer_is_left_alone(prepared: Prepared) -> None:
    student = new_student(prepared, CONFIG)
    student.network.genre = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 2))
    assert not refit_head(dataclasses.replace(CONFIG, head_labelled=1.0), prepared, student, silent)
