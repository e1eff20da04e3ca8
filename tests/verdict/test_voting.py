import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acoustic.errors import SettingsError
from acoustic.verdict import voting
from acoustic.verdict.voting import agreement, combine, variation_ratio

METHODS = ("mean", "log_mean", "majority")
methods = st.sampled_from(METHODS)


@st.composite
def segments(draw, min_classes=2):
    """(K, C) rows that sum to 1, exact zeros among them."""
    shape = (draw(st.integers(1, 7)), draw(st.integers(min_classes, 8)))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 7.0])))
    raw[:, 0] += (raw.sum(axis=1) == 0) * 1.0
    return raw / raw.sum(axis=1, keepdims=True)


@given(segments(), methods)
def test_combined_is_a_distribution(p, method):
    combined = combine(p, method)
    assert combined.shape == (p.shape[1],)
    assert (combined >= 0).all()
    assert combined.sum() == pytest.approx(1.0, abs=1e-12)


@given(segments(), methods, st.randoms(use_true_random=False))
def test_order_of_segments_changes_no_bit(p, method, random):
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(combine(p[order], method), combine(p, method))
    assert variation_ratio(p[order]) == variation_ratio(p)
    assert agreement(p[order], 0) == agreement(p, 0)


@given(segments(), st.sampled_from(["mean", "log_mean"]))
def test_identical_segments_say_what_one_says(p, method):
    one = p[:1]
    np.testing.assert_allclose(combine(np.repeat(one, 5, axis=0), method), one[0], atol=1e-12)


@given(segments(), methods)
def test_batches_are_combined_track_by_track(p, method):
    batch = np.stack([p, p[::-1], np.roll(p, 1, axis=1)])
    np.testing.assert_array_equal(combine(batch, method), np.stack([combine(track, method) for track in batch]))


@given(segments())
def test_majority_never_overturns_the_count_and_breaks_ties_by_mean(p):
    counts = np.bincount(p.argmax(axis=1), minlength=p.shape[1])
    winner = combine(p, "majority").argmax()
    tied = np.flatnonzero(counts == counts.max())
    assert winner in tied
    assert p.mean(axis=0)[winner] == pytest.approx(p.mean(axis=0)[tied].max())


def test_mean_is_the_arithmetic_and_log_mean_the_geometric_one():
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3]])
    np.testing.assert_allclose(combine(p, "mean"), [0.5, 0.3, 0.2])
    geometric = np.sqrt(p[0] * p[1])
    np.testing.assert_allclose(combine(p, "log_mean"), geometric / geometric.sum())


def test_log_mean_survives_impossible_classes():
    np.testing.assert_allclose(combine(np.array([[1.0, 0.0], [0.0, 1.0]]), "log_mean"), [0.5, 0.5])


def test_methods_can_differ():
    """Two lukewarm votes for class 0 against one very sure one for class 1, and a veto on class 0."""
    p = np.array([[0.52, 0.48], [0.52, 0.48], [0.0001, 0.9999]])
    assert combine(p, "majority").argmax() == 0
    assert combine(p, "mean").argmax() == 1
    assert combine(p, "log_mean")[0] < combine(p, "mean")[0]


def test_agreement_and_variation_ratio():
    p = np.eye(3)[[0, 0, 1, 2]]
    assert agreement(p, 0) == 0.5
    assert agreement(p, 2) == 0.25
    assert variation_ratio(p) == 0.5
    assert variation_ratio(p[:2]) == 0.0


@given(segments())
def test_agreement_with_the_commonest_is_one_minus_variation(p):
    commonest = int(np.bincount(p.argmax(axis=1)).argmax())
    assert agreement(p, commonest) == pytest.approx(1.0 - variation_ratio(p))


def test_refusals():
    with pytest.raises(SettingsError, match="'median'"):
        combine(np.ones((1, 2)) / 2, "median")
    for shape in [(3,), (0, 3), (3, 0)]:
        with pytest.raises(ValueError, match="shape"):
            combine(np.ones(shape), "mean")


def test_examples_in_docstrings():
    result = doctest.testmod(voting)
    assert result.attempted
    assert result.failed == 0
