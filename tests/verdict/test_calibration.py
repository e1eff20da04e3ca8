import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mapie.classification import SplitConformalClassifier
from scipy.optimize import minimize, minimize_scalar
from scipy.special import softmax as scipy_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from acoustic.errors import SettingsError
from acoustic.verdict import calibration
from acoustic.verdict.calibration import (
    BIAS_PENALTY,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    SCALE_PENALTY,
    fit_conformal,
    fit_segment_conformal,
    fit_segment_correlation,
    fit_temperature,
    fit_vector,
    prediction_set,
    segment_probabilities,
    softmax,
    track_probabilities,
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


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits (or, for prediction sets, its probabilities)."""

    def __init__(self, n_classes=5):
        self.n_classes = n_classes

    def fit(self, x, y=None):
        self.classes_ = np.arange(self.n_classes)
        return self

    def decision_function(self, x):
        return np.asarray(x)

    def predict_proba(self, x):
        return np.asarray(x)

    def predict(self, x):
        return np.asarray(x).argmax(axis=1)

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator does not appear to accept sample_weight:UserWarning")
@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_fit_is_scikit_learns_temperature(scale):
    logits, targets = drawn(n=900, scale=scale)
    weights = np.random.default_rng(2).random(900)
    for given_weights in (None, weights):
        theirs = CalibratedClassifierCV(FrozenEstimator(Scores().fit(logits)), method="temperature")
        theirs.fit(logits, targets, sample_weight=given_weights)
        ours = segment_probabilities(logits, fit_temperature(logits, targets, weights=given_weights))
        np.testing.assert_allclose(ours, theirs.predict_proba(logits), atol=2e-3)


@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any))
def test_a_weight_is_a_number_of_copies(seed, counts):
    logits, targets = drawn(n=12, seed=seed)
    copied = fit_temperature(np.repeat(logits, counts, axis=0), np.repeat(targets, counts))
    assert fit_temperature(logits, targets, weights=np.asarray(counts)) == pytest.approx(copied, rel=1e-3)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, math.nan]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        fit_temperature(np.zeros((2, 3)), np.array([0, 1]), weights=np.asarray(weights))


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


# --- vector scaling ---


def penalised(v, logits, targets, temperature, weights):
    """What fit_vector minimises, written down by itself."""
    n_classes = logits.shape[1]
    scale, bias = v[:n_classes], v[n_classes:]
    centred = (logits - logits.mean(axis=1, keepdims=True)) / temperature
    p = scipy_softmax(scale * centred + bias, axis=1)
    loss = -(weights * np.log(p[np.arange(len(p)), targets])).sum()
    return loss + SCALE_PENALTY / 2 * np.square(scale - 1).sum() + BIAS_PENALTY / 2 * np.square(bias).sum()


@pytest.mark.parametrize("seed", range(3))
def test_vector_is_scipys_optimum(seed):
    logits, targets = drawn(n=200, seed=seed, scale=2.0)
    weights = np.random.default_rng(seed).random(200)
    arguments = (logits, targets, 1.7, weights)
    scale, bias = fit_vector(*arguments)
    theirs = minimize(penalised, np.repeat([1.0, 0.0], 5), arguments, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(np.concatenate([scale, bias]), theirs.x, atol=1e-4)


def test_vector_finds_offsets_that_many_items_show():
    logits, targets = drawn(n=40_000)
    offsets = np.asarray([0.5, -0.3, 0.0, 0.4, -0.6])
    scale, bias = fit_vector(logits - offsets, targets, 1.0)
    np.testing.assert_allclose(bias - bias.mean(), offsets - offsets.mean(), atol=0.06)
    np.testing.assert_allclose(scale, 1.0, atol=0.05)


def test_vector_of_few_items_stays_near_the_temperature():
    logits, targets = drawn(n=12)
    scale, bias = fit_vector(logits, targets, 1.0)
    np.testing.assert_allclose(scale, 1.0, atol=0.2)
    np.testing.assert_allclose(bias, 0.0, atol=0.5)


def test_a_class_without_a_target_is_left_alone():
    logits, targets = drawn(n=300)
    scale, bias = fit_vector(logits, np.where(targets == 3, 0, targets), 1.0)
    assert (scale[3], bias[3]) == (1.0, 0.0)
    assert not np.isclose(bias[0], 0.0, atol=1e-3)


@given(logit_rows, temperatures, st.floats(-50, 50))
def test_vector_scaling_of_ones_is_the_temperature_and_ignores_a_constant(logits, temperature, constant):
    n_classes = logits.shape[1]
    ones, zeros, rising = np.ones(n_classes), np.zeros(n_classes), np.arange(n_classes) + 0.5
    plain = segment_probabilities(logits, temperature)
    np.testing.assert_allclose(segment_probabilities(logits, temperature, 0.0, ones, zeros), plain, atol=1e-9)
    shifted = segment_probabilities(logits.astype(np.float64) + constant, temperature, 0.0, rising, zeros)
    np.testing.assert_allclose(shifted, segment_probabilities(logits, temperature, 0.0, rising, zeros), atol=1e-6)


# --- tracks ---


@st.composite
def votes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.dirichlet(np.full(draw(st.integers(2, 6)), 0.5), draw(st.integers(1, 6)))


votings = st.sampled_from(["mean", "log_mean", "majority"])
correlations = st.floats(0, 1)


@given(votes(), votings, correlations)
def test_sharpening_keeps_the_order_of_the_vote_and_one_segment_as_it_is(p, voting, correlation):
    voted, track = combine(p, voting), track_probabilities(p, voting, correlation)
    assert track.sum() == pytest.approx(1.0)
    assert track[voted.argmax()] == track.max()
    assert (np.diff(track[np.argsort(voted)]) >= -1e-12).all()
    np.testing.assert_allclose(track_probabilities(p, voting, 1.0), voted)
    np.testing.assert_allclose(track_probabilities(p[:1], voting, correlation), combine(p[:1], voting))


@given(votes(), votings, correlations, correlations)
def test_the_less_segments_repeat_each_other_the_surer_they_are_together(p, voting, a, b):
    low, high = sorted([a, b])
    assert track_probabilities(p, voting, low).max() >= track_probabilities(p, voting, high).max() - 1e-12


@given(votes())
def test_segments_that_tell_nothing_twice_are_multiplied(p):
    product = np.prod(p, axis=0)
    np.testing.assert_allclose(track_probabilities(p, "log_mean", 0.0), product / product.sum(), atol=1e-9)


def test_correlation_outside_of_its_range_is_refused():
    for correlation in (-0.1, 1.1, math.nan):
        with pytest.raises(SettingsError, match="segment_correlation"):
            track_probabilities(np.full((2, 2), 0.5), "mean", correlation)


def heard(n, n_segments, copies, seed=0):
    """Calibrated probabilities of segments that are independent given the genre, or copies of one another."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, n)
    logits = rng.normal(0, 1, (n, 1 if copies else n_segments, 4))
    logits[np.arange(n), :, targets] += 1.0  # normal scores one apart: their log-likelihood ratio is the score itself
    return np.repeat(softmax(logits), n_segments if copies else 1, axis=1), targets


def test_correlation_of_copies_is_one_and_of_independent_segments_none():
    p, targets = heard(1500, 3, copies=True)
    assert fit_segment_correlation(p, targets) == pytest.approx(1.0, abs=0.06)
    p, targets = heard(1500, 3, copies=False)
    assert fit_segment_correlation(p, targets, voting="log_mean") == pytest.approx(0.0, abs=0.06)
    assert fit_segment_correlation(p[:, :1], targets) == 1.0  # one segment each: nothing is known


def test_correlation_is_scipys_optimum_over_tracks_of_any_length():
    (three, a), (one, b), (five, c) = (heard(150, k, copies=False, seed=k) for k in (3, 1, 5))
    half = [np.concatenate([p[:1], p[:1], p[1:]]) for p in five]  # one segment is heard twice
    by_segment, targets = [*three, *one, *half], np.concatenate([a, b, c])
    weights = np.random.default_rng(0).random(450)

    def loss(correlation):
        p = np.stack([track_probabilities(q, "mean", correlation) for q in by_segment])
        return log_loss(targets, p, labels=range(4), sample_weight=weights)

    theirs = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-4})
    assert 0.01 < theirs.x < 0.99
    assert fit_segment_correlation(by_segment, targets, weights=weights) == pytest.approx(theirs.x, abs=2e-3)


def test_examples_in_the_docstrings():
    assert doctest.testmod(calibration).failed == 0
    assert doctest.testmod(calibration).attempted > 0


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


def segments_of(n, seed, n_classes=6):
    """(K_i, n_classes) rows of n tracks of 1 to 5 segments that tell nearly the same, and the tracks' classes: the more
    segments a track has, the less they say of it."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, n)
    targets = rng.integers(n_classes, size=n)
    sharp = rng.normal(3.0 - 0.5 * counts, 0.5)
    made = []
    for count, target, favour in zip(counts, targets, sharp, strict=True):
        logits = rng.normal(0, 1, n_classes) + rng.normal(0, 0.3, (count, n_classes))
        logits[:, target] += favour
        made.append(softmax(logits))
    return made, targets


@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.9])
def test_a_segment_of_a_new_track_has_the_truth_in_its_set_as_often_as_promised(coverage):
    """However many segments it has; were every segment to count alike, tracks of many would be covered too well."""
    n, n_fits = 60, 150
    covered, alike = np.zeros(n_fits), np.zeros(n_fits)
    for seed in range(n_fits):
        by_segment, targets = segments_of(2 * n, seed)
        quantile = fit_segment_conformal(by_segment[:n], targets[:n], coverage)
        counts = [len(p) for p in by_segment[:n]]
        same = fit_conformal(np.concatenate(by_segment[:n]), np.repeat(targets[:n], counts), coverage)
        for shares, q in ((covered, quantile), (alike, same)):
            in_set = [1 - p[:, t] <= q for p, t in zip(by_segment[n:], targets[n:], strict=True)]
            shares[seed] = np.mean([one.mean() for one in in_set])
    error = covered.std(ddof=1) / math.sqrt(n_fits)
    # the promise, and no more than the weight of one track on top of it
    assert coverage - 4 * error <= covered.mean() <= coverage + 1 / (n + 1) + 4 * error
    too_well = alike - covered
    assert too_well.mean() > 8 * too_well.std(ddof=1) / math.sqrt(n_fits)


def test_of_one_segment_a_track_the_two_quantiles_are_one():
    p, targets = rows(40)
    for coverage in (0.5, 0.8, 0.9, 0.99):
        assert fit_segment_conformal([q[None] for q in p], targets, coverage) == fit_conformal(p, targets, coverage)


@given(st.integers(0, 1000), st.integers(1, 7))
def test_a_segment_quantile_does_not_change_when_segments_are_there_several_times(seed, times):
    by_segment, targets = segments_of(20, seed)
    repeated = [np.repeat(p, times, axis=0) for p in by_segment]
    assert fit_segment_conformal(repeated, targets) == fit_segment_conformal(by_segment, targets)
    back = fit_segment_conformal(by_segment[::-1], targets[::-1])
    assert back == fit_segment_conformal(by_segment, targets)


def test_a_segment_quantile_by_hand():
    """Scores 0.1; 0.2 and 0.8, half a track each; 0.3, 0.4 and 0.5, a third each."""
    by_segment = [np.array([[1 - s, s] for s in scores]) for scores in ([0.1], [0.2, 0.8], [0.3, 0.4, 0.5])]
    targets = np.zeros(3, dtype=int)
    for coverage, expected in ((0.25, 0.1), (0.3, 0.2), (0.45, 0.3), (0.625, 0.5), (0.63, 0.8), (0.75, 0.8)):
        assert fit_segment_conformal(by_segment, targets, coverage) == pytest.approx(expected), coverage
    assert fit_segment_conformal(by_segment, targets, 0.76) == 1.0  # three tracks cannot promise more


def test_quantile_is_the_finite_sample_order_statistic():
    p = np.array([[1 - s, s] for s in np.arange(1, 10) / 10])  # scores 0.1 ... 0.9 of class 0
    targets = np.zeros(9, dtype=int)
    assert fit_conformal(p, targets, 0.5) == pytest.approx(0.5)  # the 5th of 10
    assert fit_conformal(p, targets, 0.51) == pytest.approx(0.6)
    assert fit_conformal(p, targets, 0.9) == pytest.approx(0.9)  # exactly the 9th, not the 10th
    assert fit_conformal(p, targets, 0.91) == 1.0  # nine tracks cannot promise more
    p = np.array([[1 - s, s] for s in np.arange(1, 100) / 100])
    assert fit_conformal(p, np.zeros(99, dtype=int), 0.55) == pytest.approx(0.55)  # though 100 * 0.55 > 55 in floats


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("n", [30, 121, 200])
def test_quantile_and_sets_are_those_of_mapie(coverage, n):
    p, targets = rows(n + 100, seed=n)
    theirs = SplitConformalClassifier(Scores(6).fit(p), coverage, conformity_score="lac", prefit=True)
    theirs.conformalize(p[:n], targets[:n])
    quantile = fit_conformal(p[:n], targets[:n], coverage)
    sets = theirs.predict_set(p[n:])[1][:, :, 0]
    for q, members in zip(p[n:], sets, strict=True):
        expected = set(np.nonzero(members)[0]) | {int(q.argmax())}  # ours always names the best class
        assert set(prediction_set(q, quantile)) == expected


@given(st.integers(0, 1000), st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_sets_grow_with_the_coverage(seed, a, b):
    p, targets = rows(60, seed=seed)
    low, high = (fit_conformal(p, targets, coverage) for coverage in sorted([a, b]))
    assert all(set(prediction_set(q, low)) <= set(prediction_set(q, high)) for q in p)


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
    for by_segment in ([q[None] for q in p[:3]], []):
        with pytest.raises(ValueError, match="targets"):
            fit_segment_conformal(by_segment, targets, 0.9)
