"""How good a set of answers is: accuracy, calibration, intervals. numpy alone; tested against scikit-learn.

N items, C classes; `probabilities` is (N, C) with rows that sum to 1, `targets` and `predictions` are (N,) integers.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def nll(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean negative log-likelihood in nats. An impossible target costs 708 (scikit-learn's log_loss stops at 36)."""
    of_target = _of_target(probabilities, targets)
    return float(-np.log(np.maximum(of_target, np.finfo(np.float64).tiny)).mean())


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Brier's score (1950) over all classes, 0 (perfect) to 2: the mean squared distance from the true one-hot row."""
    p = np.asarray(probabilities, dtype=np.float64)
    return float((np.square(p).sum(axis=1) - 2.0 * _of_target(p, targets) + 1.0).mean())


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over bins of equal mass, 0..1 (Nguyen and O'Connor, 2015).

    Items of equal confidence share a bin, so that the order of the items is irrelevant.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    correct = (p.argmax(axis=1) == _checked(p, targets)).astype(np.float64)
    confidence = p.max(axis=1)
    ordered = np.sort(confidence)
    edges = np.unique(ordered[[len(p) * i // n_bins for i in range(1, n_bins)]])
    bins = np.searchsorted(edges, confidence, side="right")
    gaps = np.bincount(bins, weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(p))


def top_k_accuracy(probabilities: np.ndarray, targets: np.ndarray, k: int = 1) -> float:
    """Share of items whose target is among the k best classes; of equal ones the first in the card's order wins."""
    p = np.asarray(probabilities, dtype=np.float64)
    best = np.argsort(-p, axis=1, kind="stable")[:, :k]
    return float((best == _checked(p, targets)[:, None]).any(axis=1).mean())


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """(C, C) counts: row = truth, column = answer."""
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(targets), np.asarray(predictions)), 1)
    return counts


def f1_scores(targets: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) F1 of each class; NaN for a class that is neither among the targets nor among the answers."""
    counts = confusion_matrix(targets, predictions, n_classes)
    either = counts.sum(axis=0) + counts.sum(axis=1)
    return np.where(either > 0, 2.0 * np.diag(counts) / np.maximum(either, 1), np.nan)


def macro_f1(targets: np.ndarray, predictions: np.ndarray, n_classes: int) -> float:
    """Mean F1 over the classes that occur among targets or answers, as scikit-learn's default."""
    return float(np.nanmean(f1_scores(targets, predictions, n_classes)))


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) for a proportion of `successes` in `n` trials (Wilson, 1927); (0, 1) where nothing was tried."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes} must be from 0 to n = {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at 0 and n the bound is exact; rounding would leave it 1e-17 off
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def _of_target(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    p = np.asarray(probabilities, dtype=np.float64)
    return p[np.arange(len(p)), _checked(p, targets)]


def _checked(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    t = np.asarray(targets)
    if p.ndim != 2 or len(p) == 0 or t.shape != (len(p),) or t.dtype.kind not in "iu":
        raise ValueError(f"probabilities {p.shape} must be (N, C), targets {t.shape} {t.dtype} (N,) integers")
    if t.min() < 0 or t.max() >= p.shape[1]:
        raise ValueError(f"targets run from {t.min()} to {t.max()}, the classes only from 0 to {p.shape[1] - 1}")
    return t
