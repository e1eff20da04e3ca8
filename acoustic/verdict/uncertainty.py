"""How unsure an answer is, and the reasons for which a person should look at it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..records import AudioWarning, Calibration
from .voting import mean_over_segments

WARNINGS_TO_REVIEW = ("SILENT", "TRUNCATED")
"""Audio warnings after which the answer stands on too little; they are reasons to review under their own codes."""


def entropy_ratio(probabilities: np.ndarray) -> float:
    """Shannon entropy / log(C) of (C,): 0 sure, 1 no idea; 0 where there is one class only."""
    return float(entropy_ratios(np.asarray(probabilities)[None])[0])


def entropy_ratios(probabilities: np.ndarray) -> np.ndarray:
    """The same of each row of (N, C): (N,)."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape[1] < 2:
        return np.zeros(len(p))
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
    return np.clip(entropy / math.log(p.shape[1]), 0.0, 1.0)


def margin(probabilities: np.ndarray) -> float:
    """Best minus second-best probability of (C,), 0..1; the best itself where there is one class only."""
    return float(margins(np.asarray(probabilities)[None])[0])


def margins(probabilities: np.ndarray) -> np.ndarray:
    """The same of each row of (N, C): (N,)."""
    p = np.sort(np.asarray(probabilities, dtype=np.float64), axis=1)
    return p[:, -1] - p[:, -2] if p.shape[1] > 1 else p[:, -1]


def music_score(tag_logits: np.ndarray, tag_labels: Sequence[str], calibration: Calibration) -> float | None:
    """How surely this is music at all, 0..1: sigmoid(bias + sum of weight * the tag's mean logit over the segments).

    `tag_logits` is (K, T). None where the model lacks one of the weighted tags (imported models have none): a score
    made of the remaining ones would not be the one that was fitted.
    """
    scores = music_scores(np.asarray(tag_logits)[None], tag_labels, calibration)
    return None if scores is None else float(scores[0])


def music_scores(tag_logits: np.ndarray, tag_labels: Sequence[str], calibration: Calibration) -> np.ndarray | None:
    """The same of N tracks, (N, K, T): (N,)."""
    columns = {tag: i for i, tag in enumerate(tag_labels)}
    if not calibration.music_weights or any(tag not in columns for tag, _ in calibration.music_weights):
        return None
    asked = [columns[tag] for tag, _ in calibration.music_weights]
    means = mean_over_segments(np.asarray(tag_logits, dtype=np.float64)[..., asked])
    x = calibration.music_bias + sum(weight * means[:, i] for i, (_, weight) in enumerate(calibration.music_weights))
    small = np.exp(-np.abs(x))  # cannot overflow
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def review_reasons(
    *,
    confidence: float,
    margin: float,
    agreement: float,
    music: float | None,
    calibration: Calibration,
    warnings: Sequence[AudioWarning] = (),
) -> tuple[str, ...]:
    """Codes of the reasons, always in this order; empty where nobody needs to look.

    Of the genre the confidence alone decides: it tells right answers from wrong ones as well as the margin and the
    entropy, and far better than agreement (docs/model.md). SMALL_MARGIN and SEGMENTS_DISAGREE say where a low
    confidence comes from, and so never stand without LOW_CONFIDENCE.
    """
    codes = {warning.code for warning in warnings}
    unsure = confidence < calibration.review_below_confidence
    checks = {
        "LOW_CONFIDENCE": unsure,
        "SMALL_MARGIN": unsure and margin < calibration.review_below_margin,
        "SEGMENTS_DISAGREE": unsure and agreement < calibration.review_below_agreement,
        "NOT_MUSIC": music is not None and music < calibration.music_threshold,
        **{code: code in codes for code in WARNINGS_TO_REVIEW},
    }
    return tuple(code for code, holds in checks.items() if holds)
