"""How good calibrated answers are on held-out tracks: what the card tells of a model, as a JSON-able dict.

Every answer is given with a calibration that was fitted without its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..records import Calibration, Votes
from ..verdict import metrics
from ..verdict.calibration import prediction_set
from ..verdict.decision import calibrated
from ..verdict.uncertainty import entropy_ratio, margin, music_score
from ..verdict.voting import agreement

COVERAGES = (1.0, 0.8, 0.6, 0.4)
"""shares of the tracks that are kept when the least certain are set aside"""
MANY_BINS, FEW_BINS = 15, 6


@dataclass(frozen=True, slots=True)
class TrackVotes:
    """The votes of one held-out track; `genre` is its class index, or None where nobody says. `source` names where the
    track and its label come from, `weight` is the trust in that label, 0..1."""

    votes: Votes
    genre: int | None
    is_music: bool
    group: str
    source: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A track and a calibration that never saw its group."""

    track: TrackVotes
    calibration: Calibration


def labelled_answers(answers: Iterable[Answer]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, C) and targets (n,) of the tracks whose genre is known."""
    known = [a for a in answers if a.track.genre is not None]
    return np.stack([calibrated(a.track.votes.logits, a.calibration)[1] for a in known]), _targets(known)


def report(answers: Sequence[Answer], tag_labels: Sequence[str], n_classes: int, n_folds: int) -> dict[str, Any]:
    """Track by track over all sources, for segments, for each source, for the review flag and for NOT_MUSIC.

    "before" is the network as it is: temperature 1 and the mean of the segments.
    """
    known = [a for a in answers if a.track.genre is not None]
    p, targets = labelled_answers(known)
    right = p.argmax(axis=1) == targets
    sure = np.asarray([q.max() >= a.calibration.review_below_confidence for q, a in zip(p, known, strict=True)])
    sources = sorted({a.track.source for a in known})
    groups = [a.track.group for a in known]
    return {
        "how": f"{n_folds}-fold by group within the held-out part",
        "n_groups": len(set(groups)),
        **_of_tracks(known),
        "top_2": metrics.top_k_accuracy(p, targets, 2),
        "macro_f1": metrics.macro_f1(targets, p.argmax(axis=1), n_classes),
        "segments": _of_segments(known),
        "by_source": {
            source: {**_of_tracks(part), "segments": _of_segments(part)}
            for source in sources
            if (part := [a for a in known if a.track.source == source])
        },
        "selective": selective_curve(p.max(axis=1), right, groups),
        "risk_coverage_area": _areas(known),
        "below_review_confidence": float(1 - sure.mean()),
        "accuracy_above_review_confidence": float(right[sure].mean()) if sure.any() else None,
        "accuracy_above_review_confidence_interval_95": list(
            metrics.grouped_interval(right[sure], [group for group, kept in zip(groups, sure, strict=True) if kept])
        ),
        "not_music": _not_music(answers, tag_labels),
    }


def selective_curve(certainty: np.ndarray, right: np.ndarray, groups: Sequence[str]) -> list[dict[str, Any]]:
    """What is left at each of COVERAGES when the least certain are set aside, with the 95 % intervals of items that
    hang together in `groups` (N,)."""
    order = np.argsort(-np.asarray(certainty), kind="stable")

    def interval(kept: metrics.Kept) -> tuple[float, float]:
        most_certain = order[: kept.n]
        return metrics.grouped_interval(right[most_certain], [groups[i] for i in most_certain])

    return [
        {
            "coverage": coverage,
            "n": kept.n,
            "accuracy": kept.accuracy,
            "accuracy_interval_95": list(interval(kept)),
            "from_confidence": kept.from_confidence,
        }
        for coverage, kept in zip(COVERAGES, metrics.selective(certainty, right, COVERAGES), strict=True)
    ]


def calibration_error(p: np.ndarray, targets: np.ndarray, suffix: str = "") -> dict[str, float]:
    """ECE in MANY_BINS and FEW_BINS bins of equal mass, and what a model that is calibrated perfectly stays below in 95
    of 100 cases with these very probabilities."""
    found = {}
    for name, n_bins in (("ece", MANY_BINS), (f"ece_{FEW_BINS}", FEW_BINS)):
        found[f"{name}{suffix}"] = metrics.expected_calibration_error(p, targets, n_bins)
        found[f"{name}_calibrated_95"] = metrics.ece_of_a_calibrated_model(p, n_bins)
    return found


def _of_tracks(known: Sequence[Answer]) -> dict[str, Any]:
    before = np.stack([calibrated(a.track.votes.logits, Calibration())[1] for a in known])
    after, targets = labelled_answers(known)
    sets = [prediction_set(q, a.calibration.conformal_quantile) for q, a in zip(after, known, strict=True)]
    covered = [target in chosen for target, chosen in zip(targets, sets, strict=True)]
    groups = [a.track.group for a in known]
    return {
        **_measures(before, after, targets, groups),
        "set_coverage": float(np.mean(covered)),
        "set_coverage_interval_95": list(metrics.grouped_interval(np.asarray(covered), groups)),
        "set_size": float(np.mean([len(chosen) for chosen in sets])),
    }


def _of_segments(known: Sequence[Answer]) -> dict[str, Any]:
    before = np.concatenate([calibrated(a.track.votes.logits, Calibration())[0] for a in known])
    by_track = [calibrated(a.track.votes.logits, a.calibration)[0] for a in known]
    sizes = [len(p) for p in by_track]
    targets = np.repeat(_targets(known), sizes)
    groups = np.repeat([a.track.group for a in known], sizes).tolist()
    return {**_measures(before, np.concatenate(by_track), targets, groups), **_segment_sets(known, by_track)}


def _segment_sets(known: Sequence[Answer], by_track: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of the segments' own prediction sets, each track counting once by the share of its segments that are covered."""
    covered, sizes = [], []
    for a, p in zip(known, by_track, strict=True):
        sets = [prediction_set(q, a.calibration.segment_conformal_quantile) for q in p]
        covered.append(np.mean([a.track.genre in chosen for chosen in sets]))
        sizes.append(np.mean([len(chosen) for chosen in sets]))
    groups = [a.track.group for a in known]
    return {
        "set_coverage": float(np.mean(covered)),
        "set_coverage_interval_95": list(metrics.grouped_interval(np.asarray(covered), groups)),
        "set_size": float(np.mean(sizes)),
    }


def _measures(before: np.ndarray, after: np.ndarray, targets: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    right = after.argmax(axis=1) == targets
    return {
        "n": len(targets),
        "accuracy": float(right.mean()),
        "accuracy_interval_95": list(metrics.grouped_interval(right, groups)),
        "nll_before": metrics.nll(before, targets),
        "nll_after": metrics.nll(after, targets),
        "brier_before": metrics.brier(before, targets),
        "brier_after": metrics.brier(after, targets),
        "ece_before": metrics.expected_calibration_error(before, targets, MANY_BINS),
        f"ece_{FEW_BINS}_before": metrics.expected_calibration_error(before, targets, FEW_BINS),
        **calibration_error(after, targets, "_after"),
        "reliability_before": _diagram(before, targets),
        "reliability_after": _diagram(after, targets),
    }


def _diagram(p: np.ndarray, targets: np.ndarray) -> list[list[float]]:
    """[n, mean confidence, accuracy] of each bin."""
    return [[b.n, round(b.confidence, 4), round(b.accuracy, 4)] for b in metrics.reliability(p, targets, MANY_BINS)]


def _areas(known: Sequence[Answer]) -> dict[str, float]:
    """How well each measure of certainty sets wrong answers aside: mean error over all coverages, less is better."""
    pairs = [calibrated(a.track.votes.logits, a.calibration) for a in known]
    tops = [int(p.argmax()) for _, p in pairs]
    right = np.asarray(tops) == _targets(known)
    certainties = {
        "confidence": [p.max() for _, p in pairs],
        "margin": [margin(p) for _, p in pairs],
        "entropy": [-entropy_ratio(p) for _, p in pairs],
        "agreement": [agreement(by_segment, top) for (by_segment, _), top in zip(pairs, tops, strict=True)],
    }
    return {name: metrics.area_under_risk_coverage(np.asarray(c), right) for name, c in certainties.items()}


def _not_music(answers: Sequence[Answer], tag_labels: Sequence[str]) -> dict[str, Any]:
    """How many tracks are flagged NOT_MUSIC: of music, of all others, and of each kind of others. The made kinds are
    each answered by a score that was fitted without that kind."""
    flagged: dict[str, list[tuple[bool, str]]] = {}
    for a in answers:
        score = music_score(a.track.votes.tag_logits, tag_labels, a.calibration)
        kind = "music" if a.track.is_music else a.track.source
        is_flagged = score is not None and score < a.calibration.music_threshold
        flagged.setdefault(kind, []).append((is_flagged, a.track.group))
    music = flagged.pop("music", [])
    others = [one for kind in flagged.values() for one in kind]
    return {
        "n_music": len(music),
        "n_other": len(others),
        "music_flagged": _share(music),
        "music_flagged_interval_95": _interval(music),
        "other_flagged": _share(others),
        "other_flagged_interval_95": _interval(others),
        "by_kind": {kind: {"n": len(f), "flagged": _share(f)} for kind, f in sorted(flagged.items())},
    }


def _share(flags: Sequence[tuple[bool, str]]) -> float | None:
    return float(np.mean([flag for flag, _ in flags])) if flags else None


def _interval(flags: Sequence[tuple[bool, str]]) -> list[float]:
    return list(metrics.grouped_interval(np.asarray([flag for flag, _ in flags]), [group for _, group in flags]))


def _targets(known: Sequence[Answer]) -> np.ndarray:
    return np.asarray([a.track.genre for a in known], dtype=np.int64)
