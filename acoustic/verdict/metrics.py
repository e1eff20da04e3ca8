"""How good a set of answers is: accuracy, calibration, intervals. numpy alone; tested against scikit-learn.

N items, C classes; `probabilities` is (N, C) with rows that sum to 1, `targets` and `predictions` are (N,) integers. An
item's confidence is its greatest probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a reliability diagram: `n` items, their mean confidence, and the share of them that is right."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left when the least certain items are set aside: `n` items of confidence `from_confidence` and above,
    `n_right` of them right."""

    n: int
    n_right: int
    from_confidence: float

    @property
    def accuracy(self) -> float:
        return self.n_right / self.n


def nll(probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean negative log-likelihood in nats, weighted by `weights` (N,) where they are given.

    An impossible target costs 708 (scikit-learn's log_loss stops at 36).
    """
    of_target = _of_target(probabilities, targets)
    return float(np.average(-np.log(np.maximum(of_target, np.finfo(np.float64).tiny)), weights=weights))


def brier(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Brier's score (1950) over all classes, 0 (perfect) to 2: the mean squared distance from the true one-hot row."""
    p = np.asarray(probabilities, dtype=np.float64)
    return float((np.square(p).sum(axis=1) - 2.0 * _of_target(p, targets) + 1.0).mean())


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over bins of equal mass, 0..1 (Nguyen and O'Connor, 2015).

    Items of equal confidence share a bin, so that the order of the items is irrelevant. Small numbers of items make it
    large for any model: compare with `ece_of_a_calibrated_model`.
    """
    bins = reliability(probabilities, targets, n_bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / sum(b.n for b in bins)


def reliability(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> tuple[Bin, ...]:
    """The reliability diagram (Niculescu-Mizil and Caruana, 2005) over at most `n_bins` bins of equal mass, of rising
    confidence; fewer where items of equal confidence share one."""
    p = np.asarray(probabilities, dtype=np.float64)
    right = (p.argmax(axis=1) == _checked(p, targets)).astype(np.float64)
    confidence = p.max(axis=1)
    of_bin = _bin_members(confidence, n_bins)
    n = of_bin.sum(axis=0)
    columns = zip(n, confidence @ of_bin / n, right @ of_bin / n, strict=True)
    return tuple(Bin(int(count), float(said), float(was)) for count, said, was in columns)


def ece_of_a_calibrated_model(
    probabilities: np.ndarray, n_bins: int = 15, quantile: float = 0.95, n_draws: int = 2_000, seed: int = 0
) -> float:
    """The ECE that a model with these very probabilities stays below in `quantile` of all cases if they are true.

    Labels are drawn from the probabilities `n_draws` times (Vaicenavicius et al., "Evaluating model calibration in
    classification", 2019: consistency resampling). An ECE above it speaks against the model; one below it does not.
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    of_bin = _bin_members(confidence, n_bins)
    # the best class is the true one with the probability that it was given, whatever becomes of the others
    right = np.random.default_rng(seed).random((n_draws, len(confidence))) < confidence
    errors = np.abs((confidence - right) @ of_bin).sum(axis=1) / len(confidence)
    return float(np.quantile(errors, quantile))


def _bin_members(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    """(N,) confidences -> (N, B) of 0 and 1, B <= n_bins bins of equal mass, none of them empty."""
    ordered = np.sort(confidence)
    edges = np.unique(ordered[[len(confidence) * i // n_bins for i in range(1, n_bins)]])
    bins = np.searchsorted(edges, confidence, side="right")
    members = (bins[:, None] == np.arange(len(edges) + 1)).astype(np.float64)
    return members[:, members.any(axis=0)]


def selective(certainty: np.ndarray, right: np.ndarray, coverages: Sequence[float]) -> tuple[Kept, ...]:
    """What is left at each of `coverages` (0..1, shares of the N items) when the least certain items are set aside.

    `certainty` (N,) orders the items, `right` (N,) says which answers are right. Of equally certain items those that
    stand first are kept. At least one item is kept.
    """
    certainty, right = np.asarray(certainty, dtype=np.float64), np.asarray(right, dtype=bool)
    if certainty.ndim != 1 or len(certainty) == 0 or certainty.shape != right.shape:
        raise ValueError(f"certainty {certainty.shape} and right {right.shape} must both be (N,), N above 0")
    order = np.argsort(-certainty, kind="stable")
    hits = np.cumsum(right[order])
    counts = [min(len(order), max(1, round(c * len(order)))) for c in coverages]
    return tuple(Kept(n, int(hits[n - 1]), float(certainty[order[n - 1]])) for n in counts)


def area_under_risk_coverage(certainty: np.ndarray, right: np.ndarray) -> float:
    """Mean error over all coverages, 0..1, the less the better `certainty` tells right answers from wrong ones
    (AURC: Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers", 2019).

    Equally certain items count as if each of their orders were as likely.
    """
    certainty, right = np.asarray(certainty, dtype=np.float64), np.asarray(right, dtype=np.float64)
    _, of_level = np.unique(-certainty, return_inverse=True)
    expected = (np.bincount(of_level, weights=right) / np.bincount(of_level))[of_level]
    hits = np.cumsum(expected[np.argsort(of_level, kind="stable")])
    return float(np.mean(1.0 - hits / np.arange(1, len(hits) + 1)))


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


def grouped_interval(
    values: np.ndarray, groups: Sequence[str] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """(low, high) for the mean of `values` (n,), from 0 to 1 and alike within `groups` (n,): Wilson's for the number
    of independent ones that vary as much (Korn and Graubard's effective sample size, 1998), which is n where each is a
    group of its own. Where all values are the same it is the number of groups."""
    x = np.asarray(values, dtype=np.float64)
    n, n_groups = len(x), len(set(groups))
    mean = float(x.mean()) if n else 0.0
    if n_groups < 2:
        return wilson_interval(mean * n_groups, n_groups, confidence)
    alone = mean * (1 - mean) / (n - 1)
    variance = max(_variance_of_mean(x, groups, confidence), 1e-12)
    effective = float(np.clip(n * alone / variance, 1, n)) if np.ptp(x) > 1e-9 else n_groups
    return wilson_interval(mean * effective, effective, confidence)


def grouped_margin(values: np.ndarray, groups: Sequence[str] | np.ndarray, confidence: float = 0.95) -> float:
    """Half the width of the interval of the mean of any `values` (n,) that are alike within `groups` (n,), two at
    least; with each a group of its own, the normal one."""
    x = np.asarray(values, dtype=np.float64)
    return NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(_variance_of_mean(x, groups, confidence))


def _variance_of_mean(x: np.ndarray, groups: Sequence[str] | np.ndarray, confidence: float) -> float:
    """That of leaving out each group in turn, so that a large one cannot hide behind a mean that it makes itself; and
    as much larger as an interval is wider for having only so many groups to tell the variance from."""
    from scipy.special import stdtrit  # not for who reads a verdict

    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    n, n_groups = len(x), int(group_of.max()) + 1
    without = np.bincount(group_of, weights=x - x.mean()) / (n - np.bincount(group_of))
    wider = np.divide(*stdtrit([n_groups - 1, n - 1], 0.5 + confidence / 2.0))
    return float((n_groups - 1) / n_groups * np.square(without).sum() * wider**2)


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) for a proportion of `successes` in `n` trials (Wilson, 1927); (0, 1) where nothing was tried.

    Trials that are not independent are worth a smaller number of such, which need not be whole.
    """
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
