import itertools
import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from acoustic.verdict.metrics import (
    area_under_risk_coverage,
    brier,
    confusion_matrix,
    ece_of_a_calibrated_model,
    expected_calibration_error,
    f1_scores,
    grouped_interval,
    grouped_margin,
    macro_f1,
    nll,
    reliability,
    selective,
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


@given(seeds)
def test_weighted_likelihood_is_scikit_learns(seed):
    p, targets = answers(seed)
    weights = np.random.default_rng(seed).random(len(p))
    expected = reference.log_loss(targets, p, labels=range(p.shape[1]), sample_weight=weights)
    assert nll(p, targets, weights) == pytest.approx(expected)


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


@given(seeds, st.sampled_from([1, 3, 6, 15]))
def test_reliability_is_scikit_learns_quantile_diagram(seed, n_bins):
    p, targets = answers(seed)
    correct = p.argmax(axis=1) == targets
    shares, confidences = calibration_curve(correct, p.max(axis=1), n_bins=n_bins, strategy="quantile")
    bins = reliability(p, targets, n_bins)
    assert [b.n for b in bins] == [150 // n_bins] * n_bins
    np.testing.assert_allclose([b.confidence for b in bins], confidences)
    np.testing.assert_allclose([b.accuracy for b in bins], shares)


@given(seeds, st.integers(1, 60), st.integers(1, 30))
def test_every_item_is_in_one_bin_of_the_diagram(seed, n, n_bins):
    p, targets = answers(seed, n=n)
    p = np.round(p, 1) + 0.01
    p /= p.sum(axis=1, keepdims=True)
    bins = reliability(p, targets, n_bins)
    assert 1 <= len(bins) <= n_bins
    assert sum(b.n for b in bins) == n
    assert min(b.n for b in bins) > 0
    assert sum(b.n * b.confidence for b in bins) == pytest.approx(p.max(axis=1).sum())
    assert sum(b.n * b.accuracy for b in bins) == pytest.approx((p.argmax(axis=1) == targets).sum())
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)


def test_calibration_error_of_known_cases():
    sure = np.tile([0.9, 0.1], (10, 1))
    assert expected_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0)
    assert expected_calibration_error(sure, np.array([1] * 10)) == pytest.approx(0.9)
    # two bins, each 0.4 off in opposite directions: distances add up, they do not cancel
    p = np.array([[0.6, 0.4]] * 10 + [[0.9, 0.1]] * 10)
    targets = np.array([0] * 10 + [0, 1] * 5)
    assert expected_calibration_error(p, targets, 2) == pytest.approx(0.4)


def test_error_of_a_calibrated_model_is_that_of_labels_drawn_from_its_probabilities():
    p, _ = answers(3, n=90)
    rng = np.random.default_rng(1)
    drawn = (p.cumsum(axis=1)[None] > rng.random((800, 90, 1))).argmax(axis=2)
    errors = [expected_calibration_error(p, targets, 6) for targets in drawn]
    for quantile in (0.5, 0.95):
        assert ece_of_a_calibrated_model(p, 6, quantile) == pytest.approx(np.quantile(errors, quantile), rel=0.06)


def test_a_calibrated_model_stays_below_it_as_often_as_it_says_and_an_overconfident_one_does_not():
    below, below_overconfident = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.full(5, 0.7), 80)
        targets = (p.cumsum(axis=1) > rng.random((80, 1))).argmax(axis=1)
        limit = ece_of_a_calibrated_model(p, 6, 0.9, n_draws=300)
        below.append(expected_calibration_error(p, targets, 6) <= limit)
        sharp = p**2 / (p**2).sum(axis=1, keepdims=True)
        limit = ece_of_a_calibrated_model(sharp, 6, 0.9, n_draws=300)
        below_overconfident.append(expected_calibration_error(sharp, targets, 6) <= limit)
    assert 0.84 < np.mean(below) < 0.96  # 0.9 +- three standard errors of 200
    assert np.mean(below_overconfident) < 0.5


@given(seeds, st.sampled_from([6, 15]))
def test_error_of_a_calibrated_model_falls_with_the_number_of_items_and_rises_with_the_quantile(seed, n_bins):
    p, _ = answers(seed, n=60)
    few, many = (ece_of_a_calibrated_model(np.tile(p, (n, 1)), n_bins, n_draws=200) for n in (1, 9))
    assert 0 < many < few <= 1
    assert ece_of_a_calibrated_model(p, n_bins, 0.5, n_draws=200) < few
    assert ece_of_a_calibrated_model(p, n_bins, n_draws=200) == few


@given(seeds, st.integers(1, 50))
def test_setting_aside_keeps_the_most_certain(seed, n):
    rng = np.random.default_rng(seed)
    certainty, right = rng.random(n), rng.random(n) < 0.6
    everything, half, least = selective(certainty, right, (1.0, 0.5, 0.0))
    assert (everything.n, everything.accuracy) == (n, pytest.approx(right.mean()))
    assert everything.from_confidence == certainty.min()
    kept = certainty >= half.from_confidence
    assert (half.n, half.n_right) == (kept.sum(), right[kept].sum())
    assert abs(half.n - n / 2) <= 0.5 or half.n == 1
    assert (least.n, least.from_confidence) == (1, certainty.max())


def test_setting_aside_refuses_what_does_not_fit():
    for certainty, right in (
        (np.zeros(0), np.zeros(0)),
        (np.zeros(3), np.zeros(2)),
        (np.zeros((2, 2)), np.zeros((2, 2))),
    ):
        with pytest.raises(ValueError, match="certainty"):
            selective(certainty, right, (1.0,))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_area_is_the_mean_over_every_order_of_equally_certain_items(items):
    certainty, right = np.asarray([c for c, _ in items]), np.asarray([r for _, r in items])
    areas = []
    for order in itertools.permutations(range(len(items))):
        if all(certainty[a] >= certainty[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum(~right[list(order)]) / np.arange(1, len(items) + 1)
            areas.append(wrong.mean())
    assert area_under_risk_coverage(certainty, right) == pytest.approx(np.mean(areas))


def test_area_tells_a_good_measure_of_certainty_from_none():
    rng = np.random.default_rng(0)
    confidence = rng.random(3000)
    right = rng.random(3000) < confidence
    assert area_under_risk_coverage(np.zeros(3000), right) == pytest.approx(1 - right.mean())
    assert area_under_risk_coverage(confidence, right) == pytest.approx(0.25, abs=0.03)  # the mean of (1 - x) / 2
    assert area_under_risk_coverage(-confidence, right) > 0.7


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


def test_trials_that_are_worth_less_lie_between_whole_numbers_of_them():
    few, some, many = (wilson_interval(0.8 * n, n) for n in (10, 12.5, 15))
    assert few[0] < some[0] < many[0] < 0.8 < many[1] < some[1] < few[1]


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


def test_an_interval_of_groups_is_as_wide_as_their_number_makes_it() -> None:
    rng = np.random.default_rng(0)
    of_groups = rng.random(40) < 0.6
    alone = wilson_interval(int(of_groups.sum()), 40)
    assert grouped_interval(of_groups, [str(i) for i in range(40)]) == pytest.approx(alone)
    each_thrice, names = np.repeat(of_groups, 3), [str(i // 3) for i in range(120)]
    assert grouped_interval(each_thrice, names) == pytest.approx(alone, abs=0.01)
    strangers = rng.random(1_200) < 0.6  # alike by nothing but their name
    few = grouped_interval(strangers, [str(i // 3) for i in range(1_200)])
    assert few == pytest.approx(wilson_interval(int(strangers.sum()), 1_200), abs=0.01)


@pytest.mark.parametrize("value", [0.0, 0.75, 1.0])
def test_where_all_are_right_the_groups_are_counted(value: float) -> None:
    found = grouped_interval(np.full(30, value), [str(i // 10) for i in range(30)])
    assert found == pytest.approx(wilson_interval(3 * value, 3))
    assert grouped_interval(np.full(5, value), ["a"] * 5) == wilson_interval(value, 1)
    assert grouped_interval(np.zeros(0), []) == (0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(6.0, 4.0), (1.2, 0.8), (2.7, 0.3)])
@pytest.mark.parametrize("sizes", [[37, 2, *[1] * 18], [10] * 4, [20, 5, 5]])
def test_few_groups_and_one_that_dominates_do_not_make_it_narrow(sizes: list[int], a: float, b: float) -> None:
    rng, held, n_draws = np.random.default_rng(2), 0, 300
    names = [str(i) for i, n in enumerate(sizes) for _ in range(n)]
    for _ in range(n_draws):
        p = np.repeat(rng.beta(a, b, len(sizes)), sizes)
        low, high = grouped_interval(rng.random(len(p)) < p, names)
        held += low <= a / (a + b) <= high
    assert held / n_draws >= 0.88


def test_a_margin_is_the_normal_one_where_each_is_a_group_and_counts_groups_else() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 200)
    alone = grouped_margin(values, [str(i) for i in range(200)])
    assert alone == pytest.approx(1.959964 * values.std(ddof=1) / np.sqrt(200))
    assert grouped_margin(np.repeat(values, 4), np.repeat(np.arange(200), 4)) == pytest.approx(alone, rel=0.01)


def test_a_margin_of_few_groups_holds_the_truth() -> None:
    rng, held, n_draws = np.random.default_rng(3), 0, 400
    sizes = [8, 5, 3, *[1] * 6]
    for _ in range(n_draws):
        values = np.repeat(rng.normal(1.0, 1.0, len(sizes)), sizes) + rng.normal(0, 0.3, sum(sizes))
        held += abs(values.mean() - 1.0) <= grouped_margin(values, np.repeat(np.arange(len(sizes)), sizes))
    assert held / n_draws >= 0.88


def test_an_interval_of_groups_holds_the_truth_as_often_as_it_says() -> None:
    """Songs of one artist share how hard they are; Wilson's interval by songs would miss far more often."""
    rng, held, naive, n_draws = np.random.default_rng(1), 0, 0, 400
    for _ in range(n_draws):
        hard = rng.beta(1.2, 0.8, size=30)
        names, right = [], []
        for group, p in enumerate(hard):
            n = int(rng.integers(1, 9))
            names += [str(group)] * n
            right += (rng.random(n) < p).tolist()
        low, high = grouped_interval(np.asarray(right), names)
        held += low <= 0.6 <= high
        low, high = wilson_interval(sum(right), len(right))
        naive += low <= 0.6 <= high
    assert held / n_draws >= 0.9
    assert naive / n_draws < 0.85
