import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import BackendError, InternalError
from acoustic.records import AudioWarning, Calibration, Descriptors, Votes
from acoustic.verdict.decision import decide, decide_many

LABELS = ("Blues", "Classical", "Jazz", "Rap")
TAGS = ("Music", "Speech")


def make_votes(logits, music=4.0):
    logits = np.asarray(logits, dtype=np.float32)
    tags = np.tile(np.array([music, -4.0], dtype=np.float32), (len(logits), 1))
    return Votes(logits, tags, np.zeros((len(logits), 8), dtype=np.float32))


@st.composite
def random_votes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    k = draw(st.integers(1, 6))
    scale = draw(st.sampled_from([0.0, 0.5, 3.0, 40.0]))
    return Votes(
        rng.normal(0, scale, (k, 4)).astype(np.float32), rng.normal(0, 3, (k, 2)).astype(np.float32), np.zeros((k, 0))
    )


calibrations = st.builds(
    Calibration,
    temperature=st.floats(0.1, 10),
    class_scale=st.just(()),
    class_bias=st.just(()),
    segment_correlation=st.floats(0, 1),
    label_smoothing=st.floats(0, 0.3),
    voting=st.sampled_from(["mean", "log_mean", "majority"]),
    conformal_quantile=st.none() | st.floats(0, 1),
)


@given(random_votes(), calibrations, st.booleans())
def test_every_verdict_keeps_its_promises(votes, calibration, use_rules):
    loud = Descriptors(150.0, 0.9, 0.7, 0.9)
    verdict = decide(votes, LABELS, TAGS, calibration, descriptors=loud, use_rules=use_rules)
    assert verdict.probabilities.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(verdict.segment_probabilities.sum(axis=1), 1.0)
    assert verdict.prediction_set[0] == verdict.top_genre
    assert len(set(verdict.prediction_set)) == len(verdict.prediction_set)
    assert verdict.needs_review == bool(verdict.review_reasons)
    for number in (verdict.uncertainty, verdict.margin, verdict.variation_ratio, verdict.agreement):
        assert isinstance(number, float)
        assert 0.0 <= number <= 1.0
    ranked = verdict.ranked()
    assert verdict.margin == pytest.approx(ranked[0][1] - ranked[1][1])
    assert bool(verdict.rules_applied) == use_rules


@given(random_votes(), calibrations, st.randoms(use_true_random=False))
def test_order_of_segments_is_irrelevant(votes, calibration, random):
    order = list(range(len(votes)))
    random.shuffle(order)
    shuffled = Votes(votes.logits[order], votes.tag_logits[order], votes.embeddings[order])
    a, b = (decide(v, LABELS, TAGS, calibration) for v in (votes, shuffled))
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert dataclasses.replace(a, probabilities=None, segment_probabilities=None) == dataclasses.replace(
        b, probabilities=None, segment_probabilities=None
    )


@given(random_votes(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_temperature_moves_no_segments_winner(votes, a, b):
    verdicts = [decide(votes, LABELS, TAGS, Calibration(temperature=t)) for t in (a, b)]
    rows = np.arange(len(votes))
    for verdict in verdicts:
        p = verdict.segment_probabilities
        np.testing.assert_array_equal(p[rows, votes.logits.argmax(axis=1)], p.max(axis=1))


@given(random_votes(), st.permutations(range(4)))
def test_names_follow_their_scores(votes, order):
    order = list(order)
    permuted = Votes(votes.logits[:, order], votes.tag_logits, votes.embeddings)
    a = decide(votes, LABELS, TAGS, Calibration())
    b = decide(permuted, tuple(LABELS[i] for i in order), TAGS, Calibration())
    assert dict(b.ranked()) == pytest.approx(dict(a.ranked()))


def test_a_clear_song():
    verdict = decide(make_votes([[0, 0, 9, 0], [0, 0, 8, 0], [0, 0, 7, 1]]), LABELS, TAGS, Calibration())
    assert verdict.top_genre == "Jazz"
    assert verdict.agreement == 1.0
    assert verdict.variation_ratio == 0.0
    assert verdict.prediction_set == ("Jazz",)
    assert verdict.review_reasons == ()
    assert not verdict.needs_review


def test_vector_scaling_may_change_the_winner_of_a_segment_and_of_the_track():
    votes = make_votes([[2.0, 1.0, 0.0, 0.0]] * 2)
    biased = Calibration(class_scale=(1.0,) * 4, class_bias=(0.0, 3.0, 0.0, 0.0))
    assert decide(votes, LABELS, TAGS, Calibration()).top_genre == "Blues"
    verdict = decide(votes, LABELS, TAGS, biased)
    assert verdict.top_genre == "Classical"
    assert verdict.agreement == 1.0
    expected = np.exp([2.0, 4.0, 0.0, 0.0])  # logits and offsets
    np.testing.assert_allclose(verdict.segment_probabilities[0], expected / expected.sum())


def test_segments_that_do_not_repeat_each_other_make_the_track_surer_than_they_are():
    votes = make_votes([[2.0, 0.0, 0.0, 0.0]] * 3)
    repeated = decide(votes, LABELS, TAGS, Calibration())
    independent = decide(votes, LABELS, TAGS, Calibration(segment_correlation=0.0))
    np.testing.assert_array_equal(independent.segment_probabilities, repeated.segment_probabilities)
    assert repeated.top_confidence == pytest.approx(repeated.segment_probabilities[0, 0])
    p = repeated.segment_probabilities[0] ** 3
    np.testing.assert_allclose(independent.probabilities, p / p.sum())


def test_segments_that_disagree_are_flagged():
    verdict = decide(make_votes([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9.5, 0]]), LABELS, TAGS, Calibration())
    assert verdict.top_genre == "Jazz"
    assert verdict.agreement == pytest.approx(1 / 3)
    assert verdict.variation_ratio == pytest.approx(2 / 3)
    assert verdict.review_reasons == ("LOW_CONFIDENCE", "SMALL_MARGIN", "SEGMENTS_DISAGREE")


def test_noise_is_not_music_but_only_where_the_model_can_tell():
    votes = make_votes([[9, 0, 0, 0]], music=-5.0)
    assert decide(votes, LABELS, TAGS, Calibration()).review_reasons == ("NOT_MUSIC",)
    imported = Votes(votes.logits, np.zeros((1, 0), dtype=np.float32), votes.embeddings)
    assert decide(imported, LABELS, (), Calibration()).review_reasons == ()


def test_warnings_become_reasons():
    warnings = (AudioWarning("TRUNCATED", "..."), AudioWarning("CLIPPED", "..."))
    verdict = decide(make_votes([[9, 0, 0, 0]]), LABELS, TAGS, Calibration(), warnings=warnings)
    assert verdict.review_reasons == ("TRUNCATED",)


def test_rules_act_only_when_asked_and_the_whole_verdict_follows():
    votes = make_votes([[1.0, 1.4, 0.0, 0.0]] * 3)
    fast = Descriptors(tempo_bpm=170.0, beat_strength=0.9)
    plain = decide(votes, LABELS, TAGS, Calibration(), descriptors=fast)
    ruled = decide(votes, LABELS, TAGS, Calibration(), descriptors=fast, use_rules=True)
    assert (plain.top_genre, plain.rules_applied) == ("Classical", ())
    assert ruled.top_genre == "Blues"
    assert ruled.prediction_set == ("Blues",)
    assert ruled.agreement == 0.0
    assert ruled.review_reasons == ("LOW_CONFIDENCE", "SEGMENTS_DISAGREE")
    np.testing.assert_array_equal(ruled.segment_probabilities, plain.segment_probabilities)
    assert decide(votes, LABELS, TAGS, Calibration(), use_rules=True).rules_applied == ()


def test_set_is_as_wide_as_its_quantile_says():
    votes = make_votes([[2.0, 1.5, -9.0, -9.0]])
    assert decide(votes, LABELS, TAGS, Calibration(conformal_quantile=0.7)).prediction_set == ("Blues", "Classical")
    assert decide(votes, LABELS, TAGS, Calibration(conformal_quantile=1.0)).prediction_set[:2] == ("Blues", "Classical")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_an_error_with_a_hint(bad):
    with pytest.raises(BackendError, match="not finite") as caught:
        decide(make_votes([[bad, 0, 0, 0]]), LABELS, TAGS, Calibration())
    assert "use_fp16" in caught.value.hint
    with pytest.raises(BackendError, match="not finite"):
        decide(make_votes([[1, 0, 0, 0]], music=bad), LABELS, TAGS, Calibration())


def test_votes_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(InternalError, match="3 labels"):
        decide(make_votes([[0, 0, 0, 0]]), LABELS[:3], TAGS, Calibration())
    with pytest.raises(InternalError, match="1 tags"):
        decide(make_votes([[0, 0, 0, 0]]), LABELS, TAGS[:1], Calibration())
    with pytest.raises(InternalError, match="one or more segments"):
        decide(make_votes(np.zeros((0, 4))), LABELS, TAGS, Calibration())


@given(st.lists(random_votes(), max_size=7), calibrations)
def test_many_at_once_are_decided_as_one_by_one(votes, calibration):
    warnings = [[AudioWarning("SILENT", "")] if i % 2 else [] for i in range(len(votes))]
    together = decide_many(votes, LABELS, TAGS, calibration, warnings=warnings)
    for one, heard, warned in zip(together, votes, warnings, strict=True):
        alone = decide(heard, LABELS, TAGS, calibration, warnings=warned)
        for field in dataclasses.fields(alone):
            mine, theirs = getattr(one, field.name), getattr(alone, field.name)
            if isinstance(theirs, (float, np.ndarray)):
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
            else:
                assert mine == theirs, field.name


def test_many_are_refused_if_one_does_not_fit():
    fits, does_not = make_votes([[1, 0, 0, 0]]), make_votes([[1, 0, 0]])
    with pytest.raises(InternalError):
        decide_many([fits, does_not], LABELS, TAGS, Calibration(), warnings=[(), ()])
