"""Segments' probabilities -> one distribution for the track.

K segments, C classes. Three ways (Kuncheva, "Combining Pattern Classifiers", 2004, ch. 4-5): "mean" averages the
probabilities, "log_mean" takes their geometric mean (one segment that rules a genre out weighs more), "majority" counts
the segments' winners. The order of the segments changes no bit of the result.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import SettingsError

Voting = Literal["mean", "log_mean", "majority"]


def combine(segment_probabilities: np.ndarray, method: Voting = "mean") -> np.ndarray:
    """(..., K, C) probabilities -> (..., C), float64, each sums to 1. Raises SettingsError for an unknown method.

    >>> combine(np.array([[0.9, 0.1], [0.5, 0.5]]), "mean").tolist()
    [0.7, 0.3]
    """
    p = np.asarray(segment_probabilities, dtype=np.float64)
    if p.ndim < 2 or 0 in p.shape[-2:]:
        raise ValueError(f"segment probabilities must have shape (..., K, C) with K and C above 0, got {p.shape}")
    if method == "mean":
        combined = mean_over_segments(p)
    elif method == "log_mean":
        log_mean = mean_over_segments(np.log(np.maximum(p, np.finfo(np.float64).tiny)))
        combined = np.exp(log_mean - log_mean.max(axis=-1, keepdims=True))
    elif method == "majority":
        combined = _majority(p)
    else:
        raise SettingsError(f"voting method {method!r} is unknown", "Use mean, log_mean or majority.")
    return combined / combined.sum(axis=-1, keepdims=True)


def _majority(p: np.ndarray) -> np.ndarray:
    """Votes per class plus the mean probability, (..., K, C) -> (..., C), not yet normalised.

    The mean is one more vote, split over the classes. It decides between equal counts and never overturns one: a class
    that won a segment has a mean above 0, so that no other class's mean exceeds it by a whole vote.
    """
    n_classes = p.shape[-1]
    counts = np.eye(n_classes)[p.argmax(axis=-1)].sum(axis=-2)
    return counts + mean_over_segments(p)


def mean_over_segments(values: np.ndarray) -> np.ndarray:
    """(..., K, C) -> (..., C). Sorted before it is summed: rounding must not depend on the order of the segments."""
    return np.ascontiguousarray(np.sort(values, axis=-2)).mean(axis=-2)


def winners(segment_probabilities: np.ndarray) -> np.ndarray:
    """(K, C) -> (K,): each segment's best class; the first in the card's order where two are equal."""
    return np.asarray(segment_probabilities).argmax(axis=-1)


def agreement(segment_probabilities: np.ndarray, winner: int) -> float:
    """Share of the segments that vote for class `winner`, 0..1."""
    return float(np.mean(winners(segment_probabilities) == winner))


def variation_ratio(segment_probabilities: np.ndarray) -> float:
    """Share of the segments that do not vote for the commonest class (Freeman, 1965), 0 <= v < 1."""
    votes = winners(segment_probabilities)
    return 1.0 - float(np.bincount(votes).max()) / len(votes)
