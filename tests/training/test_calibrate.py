"""Calibration on held-out votes: what is reported was never seen by what it was answered with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from acoustic.errors import ManifestError
from acoustic.network.vit import Architecture
from acoustic.records import Votes
from acoustic.training import calibrate
from acoustic.training.calibrate import TrackVotes, fit_calibration, review_threshold
from acoustic.training.config import TrainConfig
from acoustic.verdict.uncertainty import music_score

CONFIG = TrainConfig("t", "a test", ("A", "B", "C"), (), (), Architecture())


def tracks(n: int, seed: int = 0, sharpness: float = 6.0) -> list[TrackVotes]:
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
        made.append(TrackVotes(votes, genre if is_music else None, is_music, f"group {i // 3}"))
    return made


def test_no_group_stands_in_two_folds_and_all_folds_are_used() -> None:
    made = tracks(120)
    folds = calibrate._folds(made)
    assert len({(t.group, f) for t, f in zip(made, folds, strict=True)}) == len({t.group for t in made})
    assert set(folds) == set(range(calibrate.FOLDS))


def test_an_overconfident_network_is_cooled_and_its_sets_cover_what_they_promise() -> None:
    calibration, report = fit_calibration(tracks(700), calibrate.MUSIC_TAGS, CONFIG)
    assert calibration.temperature > 1.5
    assert report["ece_after"] < 0.5 * report["ece_before"]
    assert report["nll_after"] < report["nll_before"]
    low, high = report["set_coverage_interval_95"]
    assert low - 0.02 < CONFIG.coverage < high + 0.02
    assert report["not_music"]["other_flagged"] > 0.9
    assert report["not_music"]["music_flagged"] < 0.05


def test_every_answer_comes_from_a_calibration_without_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    real = calibrate._fit

    def watched(fitted_on: list[TrackVotes], *rest: object) -> object:
        seen.append({t.group for t in fitted_on})
        return real(fitted_on, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate, "_fit", watched)
    made = tracks(140)
    fit_calibration(made, calibrate.MUSIC_TAGS, CONFIG)
    groups = {t.group for t in made}
    left_out = [groups - one for one in seen]
    assert left_out[-1] == set()
    assert set.union(*left_out) == groups
    assert sum(map(len, left_out)) == len(groups)


def test_without_anything_but_music_there_is_no_music_score() -> None:
    made = [t for t in tracks(140) if t.is_music]
    calibration, report = fit_calibration(made, calibrate.MUSIC_TAGS, CONFIG)
    assert music_score(made[0].votes.tag_logits, calibrate.MUSIC_TAGS, calibration) is None
    assert report["not_music"]["other_flagged"] is None


def test_without_a_label_it_is_refused() -> None:
    with pytest.raises(ManifestError, match="no labelled track"):
        fit_calibration([dataclasses.replace(t, genre=None) for t in tracks(20)], calibrate.MUSIC_TAGS, CONFIG)


def test_the_review_threshold_reaches_the_stated_accuracy() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 400)
    right = rng.random(400) < confidence
    p = np.stack([confidence, 1 - confidence], axis=1)
    targets = np.where(right, 0, 1)
    threshold = review_threshold(p, targets, 0.85)
    kept = confidence >= threshold
    assert right[kept].mean() >= 0.85
    assert right[confidence >= np.sort(confidence)[np.sum(~kept) - 1]].mean() < 0.85
    assert review_threshold(p, 1 - np.zeros(400, dtype=np.int64), 0.99) == 1.0
