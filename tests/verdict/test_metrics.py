import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from acoustic.verdict.metrics import (
    brier,
    confusion_matrix,
    expected_calibration_error,
    f1_scores,
    macro_f1,
    nll,
    top_k_accuracy,
    wilson_interval,
)


def answers(seed, n=150, n_classes=7):
    """Overconfident probabilities (N, C) and targets that occur in only some of the classes."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_classes, 0.5), n)
    return p, rng.integers(0, n_classes - 1, n)


seeds = st.integers(0, 10_000)


@given(seeds)
def test_scores_are_scikit_learns(seed):
    p, targets = answers(seed)
    labels = range(p.shape[1])
    assert nll(p, targets) == pytest.approx(reference.log_loss(targets, p, labels=labels))
    one_hot = np.eye(p.shape[1])[targets]
    assert brier(p, targets) == pytest.approx(np.mean(np.sum((p - one_hot) ** 2, axis=1)))
    assert brier(p, targets) == pytest.approx(
        reference.brier_score_loss(targets, p, labels=list(labels), scale_by_half=False)
    )


@given(seeds, st.integers(1, 7))
def test_top_k_is_scikit_learns(seed, k):
    p, targets = answers(seed)
    if k < p.shape[1]:  # scikit-learn warns that all classes are always right
        expected = reference.top_k_accuracy_score(targets, p, k=k, labels=range(p.shape[1]))
        assert top_k_accuracy(p, targets, k) == pytest.approx(expected)
    else:
        assert top_k_accuracy(p, targets, k) == 1.0


@given(seeds, st.integers(1, 40))
def test_confusion_and_f1_are_scikit_learns(seed, n):
    p, targets = answers(seed, n=n)
    predictions = p.argmax(axis=1)
    n_classes = p.shape[1]
    expected = reference.confusion_matrix(targets, predictions, labels=range(n_classes))
    np.testing.assert_array_equal(confusion_matrix(targets, predictions, n_classes), expected)
    assert macro_f1(targets, predictions, n_classes) == pytest.approx(
        reference.f1_score(targets, predictions, average="macro", zero_division=0)
    )
    present = np.union1d(targets, predictions)
    np.testing.assert_allclose(
        f1_scores(targets, predictions, n_classes)[present],
        reference.f1_score(targets, predictions, labels=present, average=None, zero_division=0),
    )


@given(seeds)
def test_calibration_error_is_that_of_scikit_learns_quantile_bins(seed):
    p, targets = answers(seed)  # 150 items: 15 bins of ten
    correct = p.argmax(axis=1) == targets
    shares, confidences = calibration_curve(correct, p.max(axis=1), n_bins=15, strategy="quantile")
    assert expected_calibration_error(p, targets, 15) == pytest.approx(np.abs(shares - confidences).mean())


@given(seeds, st.integers(1, 60), st.integers(1, 30))
def test_calibration_error_ignores_the_order_of_items_even_with_ties(seed, n, n_bins):
    p, targets = answers(seed, n=n)
    p = np.round(p, 1) + 0.01  # many equal confidences
    p /= p.sum(axis=1, keepdims=True)
    order = np.random.default_rng(seed).permutation(n)
    error = expected_calibration_error(p, targets, n_bins)
    assert error == pytest.approx(expected_calibration_error(p[order], targets[order], n_bins), abs=1e-12)
    assert 0.0 <= error <= 1.0


def test_calibration_error_of_known_cases():
    sure = np.tile([0.9, 0.1], (10, 1))
    assert expected_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    assert expected_calibration_error(sure, np.array([1] * 10)) == pytest.approx(0.9)
    # two bins, each 0.4 off in opposite directions: distances add up, they do not cancel
    p = np.array([[0.6, 0.4]] * 10 + [[0.9, 0.1]] * 10)
    targets = np.array([0] * 10 + [0, 1] * 5)
    assert expected_calibration_error(p, targets, 2) == pytest.approx(0.4)


def test_brier_runs_from_zero_to_two():
    p = np.eye(3)[[0, 1]]
    assert brier(p, np.array([0, 1])) == 0.0
    assert brier(p, np.array([1, 2])) == 2.0


def test_impossible_target_costs_much_but_stays_finite():
    assert 700 < nll(np.array([[1.0, 0.0]]), np.array([1])) < math.inf


@given(st.integers(1, 500), st.data())
def test_wilson_interval_is_scipys(n, data):
    successes = data.draw(st.integers(0, n))
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, n)
    assert (low, high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert 0.0 <= low <= successes / n <= high <= 1.0


def test_wilson_interval_edges():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    narrow, wide = wilson_interval(50, 100, 0.5), wilson_interval(50, 100, 0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    with pytest.raises(ValueError, match="from 0 to n = 3"):
        wilson_interval(4, 3)


@pytest.mark.parametrize("targets", [[0.0, 1.0], [0, 7], [-1, 0], [0]])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(ValueError, match="targets"):
        nll(np.full((2, 3), 1 / 3), np.array(targets))
