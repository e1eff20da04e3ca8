import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import entropy

from acoustic.records import AudioWarning, Calibration
from acoustic.verdict.uncertainty import entropy_ratio, margin, music_score, review_reasons

distributions = (
    st.lists(st.floats(0, 10), min_size=2, max_size=16)
    .filter(lambda x: sum(x) > 1e-3)
    .map(lambda x: np.array(x) / np.sum(x))
)


@given(distributions)
def test_entropy_is_scipys_as_a_share_of_its_maximum(p):
    assert entropy_ratio(p) == pytest.approx(entropy(p) / math.log(len(p)), abs=1e-9)
    assert 0.0 <= entropy_ratio(p) <= 1.0


@given(distributions, st.randoms(use_true_random=False))
def test_measures_ignore_the_order_of_classes(p, random):
    shuffled = list(p)
    random.shuffle(shuffled)
    assert entropy_ratio(np.array(shuffled)) == pytest.approx(entropy_ratio(p))
    assert margin(np.array(shuffled)) == margin(p)


def test_extremes():
    assert entropy_ratio(np.full(16, 1 / 16)) == pytest.approx(1.0)
    assert entropy_ratio(np.eye(16)[3]) == 0.0
    assert entropy_ratio(np.array([1.0])) == 0.0
    assert margin(np.array([0.2, 0.5, 0.3])) == pytest.approx(0.2)
    assert margin(np.full(4, 0.25)) == 0.0
    assert margin(np.array([1.0])) == 1.0


TAGS = ("Speech", "Music", "Guitar")
CALIBRATION = Calibration(music_weights=(("Music", 1.5), ("Speech", -0.5)), music_bias=0.25)


def test_music_score_is_the_stated_formula():
    logits = np.array([[1.0, 2.0, 9.0], [3.0, -1.0, -9.0]], dtype=np.float32)
    assert music_score(logits, TAGS, CALIBRATION) == pytest.approx(expit(0.25 + 1.5 * 0.5 - 0.5 * 2.0))


@given(st.integers(0, 100), st.permutations(range(5)))
def test_music_score_ignores_the_order_of_segments_and_of_tags(seed, order):
    logits = np.random.default_rng(seed).normal(0, 5, (5, 3)).astype(np.float32)
    score = music_score(logits, TAGS, CALIBRATION)
    assert music_score(logits[list(order)], TAGS, CALIBRATION) == score
    assert music_score(logits[:, ::-1], TAGS[::-1], CALIBRATION) == score


def test_music_score_of_extreme_logits_is_a_probability():
    for logit, expected in [(1e6, 1.0), (-1e6, 0.0)]:
        assert music_score(np.full((1, 1), logit), ("Music",), Calibration()) == expected


def test_music_score_needs_every_weighted_tag():
    assert music_score(np.zeros((2, 0)), (), CALIBRATION) is None
    assert music_score(np.zeros((2, 1)), ("Music",), CALIBRATION) is None
    assert music_score(np.zeros((2, 1)), ("Music",), Calibration()) == 0.5
    assert music_score(np.zeros((2, 1)), ("Music",), Calibration(music_weights=())) is None


GOOD = {"confidence": 0.9, "margin": 0.8, "agreement": 1.0, "music": 0.95}
LIMITS = Calibration(
    review_below_confidence=0.5, review_below_margin=0.1, review_below_agreement=0.6, music_threshold=0.4
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confidence": 0.49}, "LOW_CONFIDENCE"),
        ({"music": 0.39}, "NOT_MUSIC"),
        ({"warnings": [AudioWarning("SILENT", "")]}, "SILENT"),
        ({"warnings": [AudioWarning("CLIPPED", ""), AudioWarning("TRUNCATED", "")]}, "TRUNCATED"),
    ],
)
def test_each_reason_alone(change, reason):
    assert review_reasons(**{**GOOD, **change}, calibration=LIMITS) == (reason,)


@pytest.mark.parametrize(
    ("change", "why"), [({"margin": 0.09}, "SMALL_MARGIN"), ({"agreement": 0.5}, "SEGMENTS_DISAGREE")]
)
def test_margin_and_agreement_explain_a_low_confidence_and_flag_nothing_by_themselves(change, why):
    assert review_reasons(**{**GOOD, **change}, calibration=LIMITS) == ()
    unsure = {**GOOD, **change, "confidence": 0.49}
    assert review_reasons(**unsure, calibration=LIMITS) == ("LOW_CONFIDENCE", why)


def test_no_reason_at_the_limits_themselves():
    at = {"confidence": 0.5, "margin": 0.1, "agreement": 0.6, "music": 0.4, "warnings": [AudioWarning("CLIPPED", "")]}
    assert review_reasons(**at, calibration=LIMITS) == ()


def test_a_model_without_music_tags_never_says_not_music():
    assert review_reasons(**{**GOOD, "music": None}, calibration=LIMITS) == ()


def test_reasons_keep_their_order():
    warnings = [AudioWarning("TRUNCATED", ""), AudioWarning("SILENT", "")]
    reasons = review_reasons(confidence=0, margin=0, agreement=0, music=0, calibration=LIMITS, warnings=warnings)
    assert reasons == ("LOW_CONFIDENCE", "SMALL_MARGIN", "SEGMENTS_DISAGREE", "NOT_MUSIC", "SILENT", "TRUNCATED")
