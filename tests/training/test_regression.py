from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from acoustic.training.regression import fit_change


def problem(seed: int, n: int = 60, d: int = 5, c: int = 3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * [0.1, 1.0, 10.0, 1.0, 1.0] + 2
    targets = softmax(2 * rng.normal(size=(n, c)), axis=1)
    return x, 0.1 * rng.normal(size=(n, c)), targets, rng.random(n) + 0.1


def cross_entropy(logits: np.ndarray, targets: np.ndarray, w: np.ndarray) -> float:
    return float(-(w * (targets * log_softmax(logits, 1)).sum(1)).sum() / w.sum())


def changed(x: np.ndarray, logits: np.ndarray, change: np.ndarray) -> np.ndarray:
    return logits + x @ change[:-1] + change[-1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ridge=st.floats(1e-4, 1.0))
def test_the_change_never_makes_the_loss_greater(seed: int, ridge: float) -> None:
    x, logits, targets, w = problem(seed)
    after = cross_entropy(changed(x, logits, fit_change(x, logits, targets, w, ridge)), targets, w)
    assert after <= cross_entropy(logits, targets, w) + 1e-6


def test_without_a_ridge_it_is_logistic_regression() -> None:
    x, _, targets, _ = problem(3, n=300)
    y = targets.argmax(1)
    change = fit_change(x, np.zeros((300, 3)), np.eye(3)[y], np.ones(300), 1e-7)
    theirs = LogisticRegression(C=1e7, max_iter=5_000).fit(x, y).predict_proba(x)
    assert np.abs(softmax(changed(x, np.zeros((300, 3)), change), 1) - theirs).max() < 0.01


def test_a_ridge_is_scikit_learns_on_standardised_features() -> None:
    x, _, targets, _ = problem(4, n=200)
    y, standard = targets.argmax(1), (x - x.mean(0)) / x.std(0)
    change = fit_change(x, np.zeros((200, 3)), np.eye(3)[y], np.ones(200), 0.05)
    theirs = LogisticRegression(C=1 / (2 * 200 * 0.05), max_iter=5_000).fit(standard, y).predict_proba(standard)
    assert np.abs(softmax(changed(x, np.zeros((200, 3)), change), 1) - theirs).max() < 1e-3


def test_a_strong_ridge_leaves_all_but_the_bias() -> None:
    x, logits, targets, w = problem(5)
    change = fit_change(x, logits, targets, w, 1e4)
    assert np.abs(change[:-1] * x.std(axis=0)[:, None]).max() < 1e-4
    mean = (w[:, None] * softmax(changed(x, logits, change), 1)).sum(0) / w.sum()
    assert mean == pytest.approx((w[:, None] * targets).sum(0) / w.sum(), abs=1e-3)


def test_each_feature_may_have_a_ridge_of_its_own() -> None:
    """A quarter of the ridge is what a feature twice as large has: only the large ones pay it."""
    x, logits, targets, w = problem(6)
    change = fit_change(x, logits, targets, w, np.asarray([1e6, 1e6, 1e6, 1e6, 1e-3]))
    assert np.abs(change[:4]).max() < 1e-4 < 0.01 < np.abs(change[4]).max()
