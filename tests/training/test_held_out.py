"""The report on held-out answers, against what can be counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from acoustic.records import Calibration, Votes
from acoustic.training.held_out import (
    COVERAGES,
    Answer,
    TrackVotes,
    calibration_error,
    labelled_answers,
    report,
    selective_curve,
)
from acoustic.verdict import metrics

TAGS = ("Music",)
CALIBRATION = Calibration(
    temperature=0.5,
    conformal_quantile=0.75,
    segment_conformal_quantile=0.9,
    review_below_confidence=0.7,
    music_weights=(("Music", 1.0),),
)


def answer(logits: list[list[float]], genre: int | None, source: str = "songs", music: float = 3.0) -> Answer:
    scores = np.asarray(logits, dtype=np.float32)
    votes = Votes(scores, np.full((len(scores), 1), music, dtype=np.float32), scores)
    return Answer(TrackVotes(votes, genre, source in ("songs", "others"), f"{source} {genre}", source), CALIBRATION)


ANSWERS = [
    answer([[2, 0, 0]], 0),
    answer([[0, 1, 0], [0, 2, 0]], 1),
    answer([[0.1, 0, 0]], 2),
    answer([[0, 0, 3]], 0, "others"),
    answer([[0, 0, 1]], None, music=-3.0),
    answer([[0, 0, 1]], None, "rain", music=-3.0),
    answer([[0, 0, 1]], None, "rain", music=2.0),
    answer([[0, 0, 1]], None, "sine", music=-2.0),
]


def test_the_report_counts_what_is_there_and_is_json() -> None:
    told = json.loads(json.dumps(report(ANSWERS, TAGS, 3, 5), allow_nan=False))
    assert (told["n"], told["accuracy"], told["n_groups"]) == (4, 0.5, 4)
    assert (told["segments"]["n"], told["segments"]["accuracy"]) == (5, 0.6)
    assert {source: of["n"] for source, of in told["by_source"].items()} == {"songs": 3, "others": 1}
    assert told["by_source"]["others"]["accuracy"] == 0.0
    assert told["top_2"] == 0.75  # of equal probabilities the first counts as second: one of two misses is saved
    assert told["below_review_confidence"] == 0.25
    assert told["accuracy_above_review_confidence"] == pytest.approx(2 / 3)
    assert (told["set_coverage"], told["set_size"]) == (0.75, 1.5)  # only the unsure one names all three
    by_segment = told["segments"]
    # a track of two segments, whose sets name three and one, counts as one of two
    assert (by_segment["set_coverage"], by_segment["set_size"]) == (0.75, (1 + 2 + 3 + 1) / 4)
    assert by_segment["set_coverage_interval_95"] == pytest.approx(
        metrics.grouped_interval(np.asarray([1.0, 1.0, 1.0, 0.0]), list("abcd"))
    )
    assert told["by_source"]["others"]["segments"]["set_coverage"] == 0.0
    music = told["not_music"]
    assert (music["n_music"], music["n_other"]) == (5, 3)
    assert (music["music_flagged"], music["other_flagged"]) == (0.2, pytest.approx(2 / 3))
    assert music["by_kind"] == {"rain": {"n": 2, "flagged": 0.5}, "sine": {"n": 1, "flagged": 1.0}}
    assert [row["coverage"] for row in told["selective"]] == list(COVERAGES)
    assert told["selective"][0]["accuracy"] == 0.5


def test_the_interval_of_the_segments_sets_counts_groups() -> None:
    """Sixteen tracks that hang together in four groups, each of tracks that are alike, tell less than by themselves."""
    tracks = ANSWERS[:4] * 4
    by_themselves, alike = [str(i) for i in range(16)], list("0123") * 4
    covered, intervals = np.asarray([1.0, 1.0, 1.0, 0.0] * 4), []
    for groups in (by_themselves, alike):
        named = [dataclasses.replace(a.track, group=group) for a, group in zip(tracks, groups, strict=True)]
        told = report([dataclasses.replace(a, track=t) for a, t in zip(tracks, named, strict=True)], TAGS, 3, 5)
        intervals.append(told["segments"]["set_coverage_interval_95"])
        assert intervals[-1] == list(metrics.grouped_interval(covered, groups))
    (low, high), (wider_low, wider_high) = intervals
    assert wider_low < low < 0.75 < high < wider_high


def test_the_curve_counts_groups_where_there_are_any() -> None:
    certainty, right = np.linspace(1, 0, 40), np.arange(40) % 20 < 10
    groups = [str(i // 10) for i in range(40)]  # all right or all wrong
    whole, *_, least = selective_curve(certainty, right, groups)
    assert whole["accuracy_interval_95"] == list(metrics.grouped_interval(right, groups))
    assert least["accuracy_interval_95"] == list(metrics.grouped_interval(right[:16], groups[:16]))
    low, high = selective_curve(certainty, right, [str(i) for i in range(40)])[0]["accuracy_interval_95"]
    assert whole["accuracy_interval_95"][0] < low < 0.5 < high < whole["accuracy_interval_95"][1]


def test_before_is_the_network_as_it_is() -> None:
    told = report(ANSWERS, TAGS, 3, 5)
    raw = np.exp([[2, 0, 0], [0.1, 0, 0]])
    raw /= raw.sum(axis=1, keepdims=True)
    part = report([ANSWERS[0], ANSWERS[2]], TAGS, 3, 5)
    assert part["nll_before"] == pytest.approx(metrics.nll(raw, np.asarray([0, 2])))
    after = raw**2 / (raw**2).sum(axis=1, keepdims=True)
    assert part["nll_after"] == pytest.approx(metrics.nll(after, np.asarray([0, 2])))
    assert sum(n for n, _, _ in told["reliability_before"]) == sum(n for n, _, _ in told["reliability_after"]) == 4


def test_areas_rank_measures_of_certainty() -> None:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(400):
        genre = int(rng.integers(3))
        strength = float(rng.uniform(0, 2))
        logits = rng.normal(0, 0.5, (3, 3))
        logits[:, genre if rng.random() < 0.4 + 0.3 * strength else (genre + 1) % 3] += strength
        made.append(answer(logits.tolist(), genre, "songs"))
    areas = report(made, TAGS, 3, 5)["risk_coverage_area"]
    p, targets = labelled_answers(made)
    error = 1 - np.mean(p.argmax(axis=1) == targets)
    assert areas["confidence"] < 0.8 * error
    assert areas["agreement"] > areas["confidence"]
    assert set(areas) == {"confidence", "margin", "entropy", "agreement"}


def test_labelled_answers_leave_out_what_nobody_labelled() -> None:
    p, targets = labelled_answers(ANSWERS)
    assert p.shape == (4, 3)
    assert targets.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(p.sum(axis=1), 1.0)


def test_errors_are_named_by_their_bins() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 90)
    targets = p.argmax(axis=1)
    found = calibration_error(p, targets, "_after")
    assert set(found) == {"ece_after", "ece_calibrated_95", "ece_6_after", "ece_6_calibrated_95"}
    assert found["ece_6_after"] == metrics.expected_calibration_error(p, targets, 6)
    assert found["ece_calibrated_95"] == metrics.ece_of_a_calibrated_model(p, 15)
    assert found["ece_calibrated_95"] > found["ece_6_calibrated_95"]


def test_the_curve_has_wilsons_intervals() -> None:
    curve = selective_curve(np.linspace(0, 1, 50), np.arange(50) >= 20, [str(i) for i in range(50)])
    assert [row["n"] for row in curve] == [50, 40, 30, 20]
    assert [row["accuracy"] for row in curve] == [0.6, 0.75, 1.0, 1.0]
    assert curve[0]["accuracy_interval_95"] == pytest.approx(metrics.wilson_interval(30, 50))
