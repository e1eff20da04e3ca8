"""Votes -> Verdict: the room's stages in their order.

logits -> calibrated segment probabilities -> vote -> the track's probabilities -> rules (if asked for) -> uncertainty,
prediction set, reasons
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import BackendError, InternalError
from ..records import AppliedRule, AudioWarning, Calibration, Descriptors, Verdict, Votes
from .calibration import prediction_set, segment_probabilities, track_probabilities
from .rules import apply_rules
from .uncertainty import entropy_ratio, entropy_ratios, margin, margins, music_score, music_scores, review_reasons
from .voting import agreement, variation_ratio


def decide(
    votes: Votes,
    labels: Sequence[str],
    tag_labels: Sequence[str],
    calibration: Calibration,
    *,
    descriptors: Descriptors | None = None,
    use_rules: bool = False,
    warnings: Sequence[AudioWarning] = (),
) -> Verdict:
    """The calibrated answer of K >= 1 segments' votes; `labels` name the C logits, `tag_labels` the T tag logits.

    All numbers about the track (margin, uncertainty, agreement, set) describe the final probabilities: after the rules,
    where `use_rules` is on and there are `descriptors`. Raises BackendError for scores that are not finite,
    InternalError for votes that do not fit the labels.
    """
    _check(votes, labels, tag_labels)
    by_segment, probabilities = calibrated(votes.logits, calibration)
    applied: tuple[AppliedRule, ...] = ()
    if use_rules and descriptors is not None:
        probabilities, applied = apply_rules(labels, probabilities, descriptors)
    top = int(np.argmax(probabilities))
    agreed, gap = agreement(by_segment, top), margin(probabilities)
    reasons = review_reasons(
        confidence=float(probabilities[top]),
        margin=gap,
        agreement=agreed,
        music=music_score(votes.tag_logits, tag_labels, calibration),
        calibration=calibration,
        warnings=warnings,
    )
    return Verdict(
        labels=tuple(labels),
        probabilities=probabilities,
        segment_probabilities=by_segment,
        uncertainty=entropy_ratio(probabilities),
        margin=gap,
        variation_ratio=variation_ratio(by_segment),
        agreement=agreed,
        prediction_set=tuple(labels[i] for i in prediction_set(probabilities, calibration.conformal_quantile)),
        needs_review=bool(reasons),
        review_reasons=reasons,
        rules_applied=applied,
    )


def calibrated(logits: np.ndarray, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Genre logits (K, C) of K segments -> the probabilities of each (K, C) and of the track (C,)."""
    by_segment = segment_probabilities(
        logits, calibration.temperature, calibration.label_smoothing, calibration.class_scale, calibration.class_bias
    )
    return by_segment, track_probabilities(by_segment, calibration.voting, calibration.segment_correlation)


def _check(votes: Votes, labels: Sequence[str], tag_labels: Sequence[str]) -> None:
    logits, tag_logits = np.asarray(votes.logits), np.asarray(votes.tag_logits)
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] != len(labels) or not len(labels):
        raise InternalError(f"genre scores {logits.shape} do not fit one or more segments and {len(labels)} labels")
    if tag_logits.shape != (len(logits), len(tag_labels)):
        raise InternalError(
            f"tag scores {tag_logits.shape} do not fit {len(logits)} segments and {len(tag_labels)} tags"
        )
    if not (np.isfinite(logits).all() and np.isfinite(tag_logits).all()):
        raise BackendError(
            "the network answered with scores that are not finite numbers",
            "Half precision may have overflowed: run again with use_fp16=False, or on another device.",
        )


def decide_many(
    votes: Sequence[Votes],
    labels: Sequence[str],
    tag_labels: Sequence[str],
    calibration: Calibration,
    *,
    warnings: Sequence[Sequence[AudioWarning]],
) -> list[Verdict]:
    """`decide` of many tracks without rules, several times as fast; `warnings` are those of each track."""
    of_length: dict[int, list[int]] = {}
    for i, one in enumerate(votes):
        _check(one, labels, tag_labels)
        of_length.setdefault(len(one), []).append(i)
    verdicts: dict[int, Verdict] = {}
    for places in of_length.values():
        by_segment, probabilities = calibrated(np.stack([votes[i].logits for i in places]), calibration)
        music = music_scores(np.stack([votes[i].tag_logits for i in places]), tag_labels, calibration)
        best = by_segment.argmax(axis=-1)
        tops = probabilities.argmax(axis=1)
        gaps = margins(probabilities)
        doubts = entropy_ratios(probabilities)
        n_for = (best[:, :, None] == np.arange(len(labels))).sum(axis=1)
        for j, i in enumerate(places):
            top = int(tops[j])
            agreed = float(n_for[j, top] / best.shape[1])
            reasons = review_reasons(
                confidence=float(probabilities[j, top]),
                margin=float(gaps[j]),
                agreement=agreed,
                music=None if music is None else float(music[j]),
                calibration=calibration,
                warnings=warnings[i],
            )
            verdicts[i] = Verdict(
                labels=tuple(labels),
                probabilities=probabilities[j],
                segment_probabilities=by_segment[j],
                uncertainty=float(doubts[j]),
                margin=float(gaps[j]),
                variation_ratio=1.0 - float(n_for[j].max()) / best.shape[1],
                agreement=agreed,
                prediction_set=tuple(
                    labels[c] for c in prediction_set(probabilities[j], calibration.conformal_quantile)
                ),
                needs_review=bool(reasons),
                review_reasons=reasons,
            )
    return [verdicts[i] for i in range(len(votes))]
