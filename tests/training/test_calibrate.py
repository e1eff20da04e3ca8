"""Calibration on held-out votes: what is reported was never seen by what it was answered with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom

from acoustic.errors import ManifestError
from acoustic.network.vit import Architecture
from acoustic.records import Calibration, MelSpec, SegmentSpec, Votes
from acoustic.training import calibrate
from acoustic.training.calibrate import (
    Recipe,
    cross_fitted,
    fit_calibration,
    folds,
    held_out_votes,
    review_threshold,
    votes_of,
)
from acoustic.training.config import Source, TrainConfig
from acoustic.training.held_out import TrackVotes
from acoustic.training.manifest import Row
from acoustic.verdict.calibration import prediction_set
from acoustic.verdict.decision import calibrated
from acoustic.verdict.metrics import wilson_interval
from acoustic.verdict.uncertainty import music_score

CONFIG = TrainConfig("t", "a test", ("A", "B", "C"), (), Architecture())
TAGS = ("Music", "Speech", "Musical instrument")


def tracks(
    n: int, seed: int = 0, sharpness: float = 6.0, source: str = "clean", weight: float = 1.0
) -> list[TrackVotes]:
    """Music whose logits favour the true genre about two times in three, far too surely; every seventh is speech."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        genre, is_music = int(rng.integers(3)), i % 7 != 0
        favoured = genre if rng.random() < 0.6 else int(rng.integers(3))
        logits = rng.normal(0, 1, (1 + i % 4, 3)).astype(np.float32)
        logits[:, favoured] += sharpness
        tags = np.tile(np.asarray([[3.0, -3.0, 2.0]] if is_music else [[-3.0, 3.0, -2.0]]), (len(logits), 1))
        votes = Votes(logits, tags + rng.normal(0, 1, tags.shape), logits)
        made.append(TrackVotes(votes, genre if is_music else None, is_music, f"{source} {i // 3}", source, weight))
    return made


def test_no_group_stands_in_two_folds_and_all_folds_are_used() -> None:
    made = tracks(120)
    of = folds(made)
    assert len({(t.group, f) for t, f in zip(made, of, strict=True)}) == len({t.group for t in made})
    assert set(of) == set(range(calibrate.FOLDS))


def test_an_overconfident_network_is_cooled() -> None:
    calibration, report = fit_calibration(tracks(420), TAGS, CONFIG)
    assert calibration.temperature > 1.5
    assert (calibration.class_scale, calibration.voting) == ((), "mean")  # nothing here could gain by more
    for level in (report, report["segments"]):
        assert level["ece_after"] < 0.5 * level["ece_before"]
        assert level["nll_after"] < level["nll_before"]
        assert level["brier_after"] < level["brier_before"]
    assert report["ece_6_after"] < 0.5 * report["ece_6_before"]
    assert report["ece_6_before"] > report["ece_6_calibrated_95"]
    assert report["not_music"]["other_flagged"] > 0.9
    assert report["not_music"]["music_flagged"] < 0.05


def dealt(n: int, seed: int) -> list[TrackVotes]:
    """n tracks of music in groups of three that were drawn by lot: none is unlike the others, all folds are alike."""
    made = [t for t in tracks(2 * n, seed) if t.is_music][:n]
    place = np.random.default_rng(seed).permutation(n)
    return [dataclasses.replace(t, group=f"{i // 3}") for t, i in zip(made, place, strict=True)]


def covered(seeds: range, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of n tracks, and of their segments when each track counts once, that have the truth in their sets; a data
    set a seed."""
    of_tracks, of_segments = [], []
    for seed in seeds:
        hits = []
        for a in cross_fitted(dealt(n, seed), (), CONFIG):
            by_segment, p = calibrated(a.track.votes.logits, a.calibration)
            quantiles = a.calibration.segment_conformal_quantile, a.calibration.conformal_quantile
            in_sets = [a.track.genre in prediction_set(q, quantiles[0]) for q in by_segment]
            hits.append((a.track.genre in prediction_set(p, quantiles[1]), np.mean(in_sets)))
        share_of_tracks, share_of_segments = np.mean(hits, axis=0)
        of_tracks.append(share_of_tracks)
        of_segments.append(share_of_segments)
    return np.asarray(of_tracks), np.asarray(of_segments)


def test_with_probabilities_that_nothing_is_fitted_for_sets_cover_exactly_what_they_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tracks are then exchangeable: answered by a quantile of m others, the k-th smallest of their scores, a new one is
    covered with the probability k / (m + 1), whatever the scores (Vovk, Gammerman, Shafer, "Algorithmic Learning in a
    Random World", 2005). 48 others give 45 / 49; segments lie between the promise and the weight of one track above.
    """
    monkeypatch.setattr(calibrate, "_plain", lambda labelled: Calibration(temperature=3.0))
    monkeypatch.setattr(calibrate, "CHANGES", ())
    n, n_sets, expected = 60, 150, 45 / 49
    of_tracks, of_segments = covered(range(n_sets), n)
    error, error_of_segments = (share.std(ddof=1) / np.sqrt(n_sets) for share in (of_tracks, of_segments))
    assert max(error, error_of_segments) < 0.002
    assert abs(of_tracks.mean() - expected) < 4 * error
    assert CONFIG.coverage - 4 * error_of_segments < of_segments.mean()
    assert of_segments.mean() < CONFIG.coverage + 1 / 49 + 4 * error_of_segments
    intervals = [wilson_interval(share * n, n) for share in of_tracks]  # as they are reported
    inside = sum(low <= expected <= high for low, high in intervals)
    assert inside >= binom.ppf(0.001, n_sets, 0.95)


def test_sets_of_fitted_probabilities_cover_at_least_what_they_promise() -> None:
    """And hardly more: the temperatures of the folds differ, which spreads the scores that the quantile is taken of."""
    for shares in covered(range(30), n=90):
        error = shares.std(ddof=1) / np.sqrt(len(shares))
        assert CONFIG.coverage - 4 * error < shares.mean() < CONFIG.coverage + 0.05


def test_every_answer_comes_from_a_calibration_without_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    real = calibrate._fit

    def watched(fitted_on: list[TrackVotes], *rest: object) -> object:
        seen.append({t.group for t in fitted_on})
        return real(fitted_on, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate, "_fit", watched)
    made = tracks(70)
    answers = cross_fitted(made, TAGS, CONFIG)
    groups = {t.group for t in made}
    left_out = [groups - one for one in seen]
    assert set.union(*left_out) == groups
    assert sum(map(len, left_out)) == len(groups)
    assert sorted(id(a.track) for a in answers) == sorted(map(id, made))
    monkeypatch.setattr(calibrate, "cross_fitted", None)  # answers that are given are not found anew
    fit_calibration(made, TAGS, CONFIG, answers)
    assert seen[-1] == groups


def test_a_few_tracks_that_are_all_right_do_not_make_the_model_certain() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 40):
        made = []
        for i in range(n):
            logits = rng.normal(0, 0.3, (1, 3)).astype(np.float32)
            logits[0, i % 3] += 2.0
            made.append(TrackVotes(Votes(logits, np.zeros((1, 0)), logits), i % 3, True, str(i)))
        temperature = calibrate._plain(made).temperature
        assert temperature > {4: 0.45, 40: 0.2}[n]  # the likeliest one is the bound, 0.05
    alike = [dataclasses.replace(t, weight=0.0) if i else t for i, t in enumerate(made)]
    assert calibrate._plain(alike).temperature > 0.45  # what is not trusted is no evidence


def test_thresholds_come_from_answers_that_never_saw_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The temperature of a group that is answered must not depend on that group's labels."""
    made = [t for t in tracks(140) if t.is_music]
    group = made[0].group
    lied = [
        dataclasses.replace(t, genre=(t.genre + 1) % 3) if t.group == group else t for t in made if t.genre is not None
    ]
    honest, other = (calibrate._cross_probabilities(t, calibrate._split(t), Recipe())[0] for t in (made, lied))
    own = np.asarray([t.group == group for t in made])
    np.testing.assert_array_equal(honest[own], other[own])
    assert not np.array_equal(honest[~own], other[~own])


def test_noisy_labels_of_little_weight_make_the_answers_hardly_humbler() -> None:
    clean = [t for t in tracks(150, sharpness=3.0) if t.is_music]
    rng = np.random.default_rng(9)
    noisy = [
        dataclasses.replace(t, genre=int(rng.integers(3)), weight=0.1)
        for t in tracks(150, seed=5, sharpness=3.0, source="noisy")
        if t.is_music
    ]
    alone = calibrate._fit(clean, TAGS, CONFIG)
    trusted, report = fit_calibration(clean + noisy, TAGS, CONFIG)
    alike = calibrate._fit(clean + [dataclasses.replace(t, weight=1.0) for t in noisy], TAGS, CONFIG)
    assert alone.temperature < trusted.temperature < alike.temperature
    assert trusted.temperature - alone.temperature < 0.5 * (alike.temperature - alone.temperature)
    assert set(report["by_source"]) == {"clean", "noisy"}
    assert report["by_source"]["clean"]["accuracy"] > report["by_source"]["noisy"]["accuracy"]
    assert sum(of["n"] for of in report["by_source"].values()) == report["n"]


def test_without_any_trust_all_labels_count_alike() -> None:
    made = [dataclasses.replace(t, weight=0.0) for t in tracks(70)]
    assert calibrate._fit(made, TAGS, CONFIG) == calibrate._fit(tracks(70), TAGS, CONFIG)


def biased(n: int, offset: float) -> list[TrackVotes]:
    """Tracks whose first class is underrated by `offset` in every segment."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        true = rng.normal(0, 1.5, (1, 3))
        p = np.exp(true[0]) / np.exp(true[0]).sum()
        logits = (true - [offset, 0, 0]).astype(np.float32)
        made.append(TrackVotes(Votes(logits, np.zeros((1, 0)), logits), int(rng.choice(3, p=p)), True, f"{i // 2}"))
    return made


def test_vector_scaling_is_taken_where_it_clearly_wins_and_only_there() -> None:
    plain = calibrate._fit(biased(200, 0.0), (), CONFIG)
    assert plain.class_scale == plain.class_bias == ()
    vector, report = fit_calibration(biased(200, 2.5), (), CONFIG)
    assert len(vector.class_scale) == len(vector.class_bias) == 3
    assert vector.class_bias[0] > max(vector.class_bias[1:]) + 0.5
    assert report["nll_after"] < report["nll_before"] - 0.2


def test_segments_that_each_tell_something_make_the_track_surer() -> None:
    rng = np.random.default_rng(0)
    made = []
    for i in range(200):
        genre = int(rng.integers(3))
        logits = rng.normal(0, 1, (4, 3)).astype(np.float32)
        logits[:, genre] += 1.0
        made.append(TrackVotes(Votes(logits, np.zeros((4, 0)), logits), genre, True, f"{i // 2}"))
    calibration, report = fit_calibration(made, (), CONFIG)
    assert calibration.segment_correlation < 0.5
    assert calibration.conformal_quantile is not None
    assert calibration.segment_conformal_quantile is not None
    assert calibration.segment_conformal_quantile > calibration.conformal_quantile + 0.05  # one alone tells less
    by_segment = report["segments"]
    low, high = by_segment["set_coverage_interval_95"]
    assert low < CONFIG.coverage < high
    assert by_segment["set_size"] > report["set_size"] + 0.2
    assert calibration.temperature == pytest.approx(1.0, abs=0.15)
    assert report["ece_6_after"] < report["ece_6_before"]
    assert report["segments"]["ece_6_after"] < report["segments"]["ece_6_calibrated_95"] + 0.02


def test_explanations_hold_for_about_a_third() -> None:
    made = [t for t in tracks(280) if t.is_music]
    calibration = calibrate._fit(made, TAGS, CONFIG)
    p = np.sort([calibrated(t.votes.logits, calibration)[1] for t in made], axis=1)
    assert np.mean(p[:, -1] - p[:, -2] < calibration.review_below_margin) == pytest.approx(1 / 3, abs=0.06)
    assert 0 < calibration.review_below_agreement <= 1
    single = [dataclasses.replace(t, votes=Votes(*(x[:1] for x in dataclasses.astuple(t.votes)))) for t in made]
    assert calibrate._fit(single, TAGS, CONFIG).review_below_agreement == Calibration().review_below_agreement


def test_without_anything_but_music_there_is_no_music_score() -> None:
    made = [t for t in tracks(70) if t.is_music]
    calibration, report = fit_calibration(made, TAGS, CONFIG)
    assert music_score(made[0].votes.tag_logits, TAGS, calibration) is None
    assert report["not_music"]["other_flagged"] is None


def test_one_group_alone_can_be_calibrated() -> None:
    made = [dataclasses.replace(t, group="one") for t in tracks(40) if t.is_music]
    with pytest.raises(ManifestError, match="no labelled track"):
        cross_fitted(made, TAGS, CONFIG)
    assert calibrate._fit(made, TAGS, CONFIG).temperature > 1.0


def test_without_a_label_it_is_refused() -> None:
    with pytest.raises(ManifestError, match="no labelled track"):
        fit_calibration([dataclasses.replace(t, genre=None) for t in tracks(20)], TAGS, CONFIG)


def answered(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether the answers are right: with the log-odds of the confidence and `shift`."""
    rng = np.random.default_rng(seed)
    confidence = 0.07 + 0.93 * rng.beta(3, 2, n)
    return confidence, rng.random(n) < expit(logit(confidence) + shift)


def test_the_review_threshold_reaches_the_stated_accuracy_on_answers_that_it_never_saw() -> None:
    unseen, right = answered(20_000, 0)
    thresholds = [review_threshold(*answered(120, seed), 0.8) for seed in range(1, 121)]
    reached = [right[unseen >= t].mean() for t in thresholds]
    counted = []
    for seed in range(1, 121):
        confidence, hits = answered(120, seed)
        order = np.argsort(-confidence)
        good = np.nonzero(np.cumsum(hits[order]) / np.arange(1, 121) >= 0.8)[0]
        counted.append(right[unseen >= confidence[order][good[-1]]].mean() if len(good) else np.nan)
    assert np.mean(reached) == pytest.approx(0.8, abs=0.015)
    assert np.std(reached) < 0.8 * np.nanstd(counted)


def test_the_review_threshold_follows_an_overconfident_model_when_there_is_enough_to_see_it() -> None:
    confidence, right = answered(4_000, 0, shift=-0.6)
    threshold = review_threshold(confidence, right, 0.8)
    assert right[confidence >= threshold].mean() == pytest.approx(0.8, abs=0.03)
    assert threshold > review_threshold(*answered(4_000, 0), 0.8) + 0.05


def test_a_weight_in_the_review_threshold_is_trust() -> None:
    confidence, right = answered(2_000, 0)
    wrong = np.arange(2_000) % 2 == 0
    trusted = review_threshold(confidence, right & ~wrong, 0.8, np.where(wrong, 0.0, 1.0))
    assert trusted == pytest.approx(review_threshold(confidence[~wrong], right[~wrong], 0.8))
    assert review_threshold(confidence, right, 0.8, np.full(2_000, 0.3)) == review_threshold(confidence, right, 0.8)


def test_an_accuracy_that_nothing_reaches_flags_everything() -> None:
    confidence = np.linspace(0.2, 0.6, 200)
    assert review_threshold(confidence, np.zeros(200, dtype=bool), 0.9) == 1.0
    assert review_threshold(np.linspace(0.9, 1.0, 200), np.ones(200, dtype=bool), 0.9) == 0.9


class Store:
    """Tracks of a tone each, three seconds to a minute long."""

    sample_rate = 8_000

    def read(self, track: int) -> np.ndarray:
        t = np.arange((3, 20, 60)[track] * self.sample_rate) / self.sample_rate
        return (0.3 * np.sin(2 * np.pi * 200 * (track + 1) * t)).astype(np.float32)


def network(mels: np.ndarray) -> Votes:
    """Where the loudest band is, as logits."""
    loudest = mels.mean(axis=2).argmax(axis=1)[:, None].astype(np.float32)
    return Votes(loudest * [0.1, 0.2, 0.3], loudest * [1.0, -1.0], loudest)


def test_votes_are_taken_as_the_engine_takes_them_with_source_and_trust(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        mel=MelSpec(sample_rate=8_000, n_fft=512, hop_length=372, n_mels=32, fmax_hz=4_000.0),
        segments=SegmentSpec(n_segments=3),
        tags=("Music", "Speech"),
        sources=(Source("songs", label_weight=0.7), Source("talk", kind="speech")),
    )
    rows = [
        Row("a.wav", "songs", "music", "B", "songs:1"),
        Row("b.wav", "talk", "speech", "", "talk:1"),
        Row("c.wav", "songs", "music", "", "songs:2"),
    ]
    made = held_out_votes(Store(), rows, [0, 1, 2], config, network)  # type: ignore[arg-type]
    held, signals = made[:3], made[3:]
    assert [(t.genre, t.is_music, t.group, t.source, t.weight) for t in held] == [
        (1, True, "songs:1", "songs", 0.7),
        (None, False, "talk:1", "talk", 1.0),
        (None, True, "songs:2", "songs", 0.7),
    ]
    assert [len(t.votes) for t in held] == [1, 2, 3]
    again = votes_of(Store(), 2, config, config.segments, network)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.logits, held[2].votes.logits)
    assert held[0].votes.logits[0, 0] < held[2].votes.logits[0, 0]  # the higher tone
    assert {t.source for t in signals} >= {"silence", "sine", "hum", "white noise"}
    assert all(not t.is_music and t.genre is None and t.group == f"made:{t.source}" for t in signals)
