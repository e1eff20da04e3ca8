import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.records import Descriptors
from acoustic.verdict.rules import RULES, apply_rules

LABELS = ("Blues", "Classical", "Jazz", "Electronic", "Hip-Hop", "Rap")
EVEN = np.full(6, 1 / 6)
FAST = Descriptors(tempo_bpm=160.0, beat_strength=0.8)
BASS = Descriptors(low_freq_ratio=0.7)
VOICE = Descriptors(vocal_presence=0.9)


def changes(descriptors, labels=LABELS):
    """{genre: factor by which it changed against Blues, that no rule touches}"""
    p, _ = apply_rules(labels, np.full(len(labels), 1 / len(labels)), descriptors)
    return {label: pytest.approx(x / p[labels.index("Blues")]) for label, x in zip(labels, p, strict=True) if x != p[0]}


def test_factors():
    assert changes(FAST) == {"Classical": 0.3}
    assert changes(BASS) == {"Hip-Hop": 1.5, "Rap": 1.3}
    assert changes(VOICE) == {"Classical": 0.7, "Jazz": 0.7, "Electronic": 0.7}


def test_factors_of_several_rules_multiply():
    both = dataclasses.replace(FAST, vocal_presence=0.9)
    assert changes(both)["Classical"] == pytest.approx(0.21)


@pytest.mark.parametrize(
    "descriptors",
    [
        Descriptors(),
        Descriptors(tempo_bpm=140.0, beat_strength=0.9),
        Descriptors(tempo_bpm=160.0, beat_strength=0.7),
        Descriptors(tempo_bpm=160.0),
        Descriptors(beat_strength=0.9),
        Descriptors(low_freq_ratio=0.6, vocal_presence=0.5),
    ],
)
def test_nothing_happens_below_or_at_the_thresholds_or_without_measurement(descriptors):
    p, applied = apply_rules(LABELS, EVEN, descriptors)
    assert applied == ()
    np.testing.assert_allclose(p, EVEN, rtol=1e-15)


def test_each_applied_rule_is_recorded_with_what_was_measured():
    _, applied = apply_rules(LABELS, EVEN, FAST)
    assert [(a.genre, a.factor) for a in applied] == [("Classical", 0.3)]
    assert "160 BPM" in applied[0].rule
    assert "0.80" in applied[0].rule
    _, applied = apply_rules(LABELS, EVEN, BASS)
    assert [(a.genre, a.factor) for a in applied] == [("Hip-Hop", 1.5), ("Rap", 1.3)]
    assert "70%" in applied[0].rule


def test_genres_are_found_by_name_wherever_they_stand():
    shuffled = ("Rap", "Jazz", "Blues", "Classical")
    p, applied = apply_rules(shuffled, np.full(4, 0.25), FAST)
    assert p.argmin() == 3
    assert len(applied) == 1


def test_rules_for_genres_that_the_model_lacks_are_skipped():
    p, applied = apply_rules(("Blues", "Metal"), np.array([0.4, 0.6]), dataclasses.replace(FAST, vocal_presence=1.0))
    assert applied == ()
    np.testing.assert_allclose(p, [0.4, 0.6])


measured = st.none() | st.floats(0, 300)


@given(measured, measured, measured, measured, st.integers(0, 1000))
def test_result_is_a_distribution_and_follows_from_the_record(tempo, beat, low, voice, seed):
    before = np.random.default_rng(seed).dirichlet(np.ones(6))
    kept = before.copy()
    after, applied = apply_rules(LABELS, before, Descriptors(tempo, beat, low, voice))
    np.testing.assert_array_equal(before, kept)
    replayed = before.copy()
    for rule in applied:
        replayed[LABELS.index(rule.genre)] *= rule.factor
    np.testing.assert_allclose(after, replayed / replayed.sum())
    assert after.sum() == pytest.approx(1.0)


def test_table_names_real_descriptors_and_positive_factors():
    names = {f.name for f in dataclasses.fields(Descriptors)}
    assert RULES
    for rule in RULES:
        assert {c.descriptor for c in rule.when} <= names
        assert rule.when
        assert all(0 < factor != 1 for _, factor in rule.factors)
