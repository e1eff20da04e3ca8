import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import log_loss

from acoustic.errors import SettingsError
from acoustic.verdict.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_conformal,
    fit_temperature,
    prediction_set,
    segment_probabilities,
    softmax,
)
from acoustic.verdict.metrics import nll
from acoustic.verdict.voting import combine

logit_rows = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e4, 1e4, width=32)
)
temperatures = st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE)


def drawn(n=4000, n_classes=5, seed=0, scale=1.0):
    """Logits whose softmax at temperature `scale` is the true distribution of the targets drawn."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0.0, 1.5, (n, n_classes))
    p = scipy_softmax(true, axis=1)
    targets = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return true * scale, targets


# --- temperature ---


@given(logit_rows)
def test_softmax_is_scipys(logits):
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits.astype(np.float64), axis=1), atol=1e-12)


@given(logit_rows, temperatures, st.floats(0.0, 0.99))
def test_segment_rows_sum_to_one(logits, temperature, smoothing):
    p = segment_probabilities(logits, temperature, smoothing)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert (p >= smoothing / logits.shape[1] - 1e-15).all()


@given(logit_rows, temperatures, st.floats(0.0, 0.99))
def test_temperature_and_smoothing_never_change_a_segments_winner(logits, temperature, smoothing):
    p = segment_probabilities(logits, temperature, smoothing)
    rows = np.arange(len(p))
    np.testing.assert_array_equal(p[rows, logits.argmax(axis=1)], p.max(axis=1))


@given(st.permutations(range(6)), temperatures)
def test_whole_ranking_survives_temperature(order, temperature):
    logits = np.asarray(order, dtype=np.float32)[None]
    np.testing.assert_array_equal(segment_probabilities(logits, temperature)[0].argsort(), logits[0].argsort())


@given(st.floats(0.1, 5.0), st.floats(1.1, 3.0))
def test_higher_temperature_is_less_sure(temperature, factor):
    logits = np.array([[1.0, 0.3, -0.5]])
    assert segment_probabilities(logits, temperature * factor).max() < segment_probabilities(logits, temperature).max()


def test_smoothing_is_the_stated_mixture():
    p = segment_probabilities(np.array([[2.0, 0.0]]))
    np.testing.assert_allclose(segment_probabilities(np.array([[2.0, 0.0]]), 1.0, 0.2), 0.8 * p + 0.1)


def test_bad_parameters_are_refused():
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="temperature"):
            segment_probabilities(np.zeros((1, 2)), temperature)
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(SettingsError, match="label_smoothing"):
            segment_probabilities(np.zeros((1, 2)), 1.0, smoothing)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_fit_finds_the_temperature_that_made_the_data(scale):
    logits, targets = drawn(scale=scale)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.06)


def test_fit_is_scipys_optimum_of_scikit_learns_loss():
    logits, targets = drawn(n=800, scale=2.5)
    reference = minimize_scalar(
        lambda t: log_loss(targets, scipy_softmax(logits / t, axis=1), labels=range(5)),
        bounds=(0.05, 20),
        method="bounded",
    )
    assert fit_temperature(logits, targets) == pytest.approx(reference.x, rel=1e-3)


def test_fit_stays_in_its_bounds():
    certain = np.eye(3)[[0, 1, 2]] * 5.0
    assert fit_temperature(certain, np.array([0, 1, 2])) == pytest.approx(MIN_TEMPERATURE, rel=1e-3)
    assert fit_temperature(certain, np.array([1, 2, 0])) == pytest.approx(MAX_TEMPERATURE, rel=1e-3)


@pytest.mark.parametrize("voting", ["mean", "log_mean", "majority"])
def test_fit_of_tracks_minimises_the_loss_of_the_vote(voting):
    logits, targets = drawn(n=400, scale=2.0)
    rng = np.random.default_rng(1)
    tracks = logits[:, None, :] + rng.normal(0, 2.0, (400, 3, 5))

    def loss(temperature):
        return nll(combine(segment_probabilities(tracks, temperature), voting), targets)

    best = fit_temperature(tracks, targets, voting=voting)
    assert all(loss(best) <= loss(t) + 1e-9 for t in np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 60))


def test_fit_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="targets"):
        fit_temperature(np.zeros((3, 2)), np.array([0, 1]))


# --- prediction sets ---


def rows(n, n_classes=6, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_classes, 0.4), n)
    targets = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return p, targets


@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.9, 0.95])
def test_sets_of_new_tracks_hold_the_truth_as_often_as_promised(coverage):
    covered = []
    for seed in range(60):
        p, targets = rows(500, seed=seed)
        quantile = fit_conformal(p[:200], targets[:200], coverage)
        covered += [t in prediction_set(q, quantile) for q, t in zip(p[200:], targets[200:], strict=True)]
    # 60 fits on 200 tracks: three standard errors of the mean coverage are below 0.015
    assert np.mean(covered) >= coverage - 0.015
    assert np.mean(covered) <= coverage + 0.06


def test_quantile_is_the_finite_sample_order_statistic():
    p = np.array([[1 - s, s] for s in np.arange(1, 10) / 10])  # scores 0.1 ... 0.9 of class 0
    targets = np.zeros(9, dtype=int)
    assert fit_conformal(p, targets, 0.5) == pytest.approx(0.5)  # the 5th of 10
    assert fit_conformal(p, targets, 0.51) == pytest.approx(0.6)
    assert fit_conformal(p, targets, 0.9) == pytest.approx(0.9)  # exactly the 9th, not the 10th
    assert fit_conformal(p, targets, 0.91) == 1.0  # nine tracks cannot promise more
    p = np.array([[1 - s, s] for s in np.arange(1, 100) / 100])
    assert fit_conformal(p, np.zeros(99, dtype=int), 0.55) == pytest.approx(0.55)  # though 100 * 0.55 > 55 in floats


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_set_grows_with_the_quantile(seed, a, b):
    p = rows(1, seed=seed)[0][0]
    small, large = (set(prediction_set(p, q)) for q in sorted([a, b]))
    assert small <= large
    assert p.argmax() in small
    assert set(prediction_set(p, 1.0)) == set(range(len(p)))


@given(st.integers(0, 1000), st.floats(0.02, 0.98))
def test_every_calibration_track_within_the_quantile_is_covered(seed, coverage):
    p, targets = rows(40, seed=seed)
    quantile = fit_conformal(p, targets, coverage)
    inside = sum(t in prediction_set(q, quantile) for q, t in zip(p, targets, strict=True))
    assert inside >= math.floor(coverage * 40)


def test_set_is_best_first_and_is_the_winner_alone_without_a_quantile():
    p = np.array([0.1, 0.5, 0.3, 0.1])
    assert prediction_set(p, 0.75).tolist() == [1, 2]
    assert prediction_set(p, 0.0).tolist() == [1]
    assert prediction_set(p, None).tolist() == [1]
    assert prediction_set(p, 0.95).tolist() == [1, 2, 0, 3]


def test_conformal_refusals():
    p, targets = rows(5)
    for coverage in (0.0, 1.0, math.nan):
        with pytest.raises(SettingsError, match="coverage"):
            fit_conformal(p, targets, coverage)
    with pytest.raises(ValueError, match="targets"):
        fit_conformal(p, targets[:3], 0.9)
