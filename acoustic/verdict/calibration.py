"""Scores -> probabilities that mean what they say: temperature, label smoothing, conformal prediction sets.

Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017. Prediction sets: split conformal
prediction with the score of LAC (Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error
Levels", 2019): a class belongs to the set when 1 - its probability is at most the quantile. LAC was taken, and not APS
(Romano et al., 2020), because it has the smallest sets on average at a given coverage and needs no random number.

The `fit_*` functions run in training, on held-out sources; what they return is kept in the model card.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import SettingsError
from .metrics import nll
from .voting import Voting, combine

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of the fit: outside of them a network is broken rather than badly calibrated."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., C) finite scores -> (..., C) float64 probabilities."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def segment_probabilities(logits: np.ndarray, temperature: float = 1.0, label_smoothing: float = 0.0) -> np.ndarray:
    """(..., C) logits -> (..., C) float64: softmax(logits / temperature), then (1 - a) p + a / C.

    Neither step changes the order of a segment's classes. Raises SettingsError for a temperature that is not above 0 or
    a smoothing `a` outside 0 <= a < 1.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise SettingsError(f"temperature = {temperature} must be a finite number above 0")
    if not 0.0 <= label_smoothing < 1.0:
        raise SettingsError(f"label_smoothing = {label_smoothing} must be from 0 to below 1")
    p = softmax(np.asarray(logits, dtype=np.float64) / temperature)
    return (1.0 - label_smoothing) * p + label_smoothing / p.shape[-1]


def fit_temperature(
    logits: np.ndarray | Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    voting: Voting = "mean",
    label_smoothing: float = 0.0,
) -> float:
    """The temperature with the least negative log-likelihood of `targets` (N,), integer classes.

    `logits` is (N, C), or (N, K, C) for tracks of K segments, or a list of (K_i, C) where their numbers differ: then
    the likelihood is that of the combined vote, which is what a person is shown. The answer lies in
    [MIN_TEMPERATURE, MAX_TEMPERATURE], to a relative 1e-4.
    """
    tracks = [np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in logits]
    if not tracks or len(tracks) != len(targets) or any(x.ndim != 2 for x in tracks):
        raise ValueError(
            f"{len(tracks)} tracks must be (N, C), (N, K, C) or a list of (K, C) for {len(targets)} targets"
        )
    alike = {n: np.nonzero([len(x) == n for x in tracks])[0] for n in {len(x) for x in tracks}}
    blocks = [(np.stack([tracks[i] for i in rows]), np.asarray(targets)[rows]) for rows in alike.values()]

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return sum(
            nll(combine(segment_probabilities(x, temperature, label_smoothing), voting), t) * len(t) for x, t in blocks
        )

    return math.exp(_minimize(loss, math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE), tolerance=1e-4))


def _minimize(loss: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Golden-section search (Kiefer, 1953) for the minimum of a function with one valley; one evaluation a step."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > tolerance:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return (low + high) / 2.0


def fit_conformal(probabilities: np.ndarray, targets: np.ndarray, coverage: float = 0.9) -> float:
    """Quantile of the LAC scores of N held-out tracks: (N, C) combined probabilities, (N,) integer classes.

    The ceil((N + 1) coverage)-th smallest of 1 - p(target): the "+ 1" makes the promise hold for finite N. A new track
    of the same kind then has its genre in its set with a probability of at least `coverage`. Where N is too small for
    the promise (below coverage / (1 - coverage)) the quantile is 1.0, and every set holds all classes.
    """
    if not 0.0 < coverage < 1.0:
        raise SettingsError(f"coverage = {coverage} must lie between 0 and 1")
    p, t = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if p.ndim != 2 or len(p) == 0 or len(p) != len(t):
        raise ValueError(f"probabilities {p.shape} must be (N, C) for the {len(t)} targets")
    scores = np.sort(1.0 - p[np.arange(len(t)), t])
    rank = math.ceil((len(t) + 1) * coverage - 1e-9)  # 0.9 * 10 must be 9, however it is rounded
    return float(scores[rank - 1]) if rank <= len(t) else 1.0


def prediction_set(probabilities: np.ndarray, quantile: float | None) -> np.ndarray:
    """(C,) combined probabilities -> indices of the classes in the set, best first.

    Always holds the best class, so it is never empty. Without a quantile nothing was promised: the best class alone.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    if quantile is None:
        return order[:1]
    return order[: max(1, int(np.count_nonzero(1.0 - p <= quantile)))]
