"""Scores -> probabilities that mean what they say, of a segment and of a track; conformal prediction sets.

- Temperature scaling, or vector scaling (a factor and an offset for each class): Guo et al., "On Calibration of Modern
  Neural Networks", 2017. Both make a segment's probabilities mean what they say.
- The mean of K such votes is less sure than it could be unless all say the same (Ranjan and Gneiting, "Combining
  Probability Forecasts", 2010, prove it for any linear pool). The track's probabilities can therefore be raised to the
  number of segments that K correlated ones are worth: K / (1 + (K - 1) r), the effective sample size of Kish, "Survey
  Sampling", 1965. One segment stays as it is; with r = 1 so do all.
- Prediction sets: split conformal prediction with the score of LAC (Sadinle, Lei, Wasserman, "Least Ambiguous
  Set-Valued Classifiers with Bounded Error Levels", 2019): a class belongs to the set when 1 - its probability is at
  most the quantile. LAC was taken, and not APS (Romano et al., 2020) or RAPS (Angelopoulos et al., 2021), because it
  has the smallest sets on average at a given coverage and needs no random number. A quantile for single segments is
  that of hierarchical conformal prediction (Lee, Barber, Willett, "Distribution-free inference with hierarchical data",
  2023): the segments of a track tell much the same, so a track counts once, however many segments it has.

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
TEMPERATURE_SD = 0.5
"""How far log(temperature) of a trained network is expected from 0 before it was tested. Where a few tracks are all
right, nothing else keeps the likeliest temperature from its lower bound, at which every answer is certain."""
SCALE_PENALTY, BIAS_PENALTY = 30.0, 10.0
"""How hard vector scaling is held to temperature scaling: the items' worth of evidence that a class's factor 1 and
offset 0 count for. Weaker ones lose held-out likelihood at a hundred tracks for 16 classes."""
NEWTON_STEPS = 50


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., C) finite scores -> (..., C) float64 probabilities."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def segment_probabilities(
    logits: np.ndarray,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    class_scale: Sequence[float] = (),
    class_bias: Sequence[float] = (),
) -> np.ndarray:
    """(..., C) logits -> (..., C) float64: softmax(logits / temperature), then (1 - a) p + a / C.

    Neither step changes the order of a segment's classes. Where there are `class_scale` and `class_bias` (C,), vector
    scaling takes the place of the first, and may: softmax(scale * (logits - their mean) / temperature + bias). Raises
    SettingsError for a temperature that is not above 0 or a smoothing `a` outside 0 <= a < 1.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise SettingsError(f"temperature = {temperature} must be a finite number above 0")
    if not 0.0 <= label_smoothing < 1.0:
        raise SettingsError(f"label_smoothing = {label_smoothing} must be from 0 to below 1")
    x = np.asarray(logits, dtype=np.float64) / temperature
    if len(class_scale):
        x = np.asarray(class_scale) * _centred(x) + np.asarray(class_bias)
    p = softmax(x)
    return (1.0 - label_smoothing) * p + label_smoothing / p.shape[-1]


def track_probabilities(
    by_segment: np.ndarray, voting: Voting = "mean", segment_correlation: float = 1.0
) -> np.ndarray:
    """(..., K, C) segment probabilities -> (..., C) of the track: the vote, sharpened as far as K segments say more
    than one. Never changes the order of the vote's classes.

    `segment_correlation` is r above, 0 (each segment tells something of its own) to 1 (all tell the same).

    >>> track_probabilities(np.array([[0.8, 0.2], [0.8, 0.2]]), segment_correlation=0.0).round(3).tolist()
    [0.941, 0.059]
    """
    if not 0.0 <= segment_correlation <= 1.0:
        raise SettingsError(f"segment_correlation = {segment_correlation} must be from 0 to 1")
    voted = combine(by_segment, voting)
    n = np.shape(by_segment)[-2]
    worth = n / (1.0 + (n - 1) * segment_correlation)
    return voted if worth == 1.0 else softmax(worth * np.log(np.maximum(voted, np.finfo(np.float64).tiny)))


def fit_temperature(
    logits: np.ndarray | Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    voting: Voting = "mean",
    label_smoothing: float = 0.0,
    spread: float = math.inf,
) -> float:
    """The temperature with the least negative log-likelihood of `targets` (N,), integer classes, each counting as much
    as its one of `weights` (N,).

    `logits` is (N, C), or (N, K, C) for tracks of K segments, or a list of (K_i, C) where their numbers differ: then
    the likelihood is that of the combined vote. A finite `spread` is how far log(temperature) is expected from 0 before
    the data (standard deviation); a weight of 1 then is one independent item. The answer lies in [MIN_TEMPERATURE,
    MAX_TEMPERATURE], to a relative 1e-4.
    """
    blocks = _blocks(logits, targets, weights)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return 0.5 * (log_temperature / spread) ** 2 + sum(
            nll(combine(segment_probabilities(x, temperature, label_smoothing), voting), t, w) * w.sum()
            for x, t, w in blocks
        )

    return math.exp(_minimize(loss, math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE), tolerance=1e-4))


def fit_vector(
    logits: np.ndarray, targets: np.ndarray, temperature: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, bias), both (C,), of vector scaling on top of `temperature`: the least of

        sum of weight * negative log-likelihood + SCALE_PENALTY / 2 * |scale - 1|^2 + BIAS_PENALTY / 2 * |bias|^2

    for segments' logits (N, C), classes (N,) and weights (N,), in items (1 each where there are none). It is convex;
    Newton's method finds it. A class without a target keeps 1 and 0: nothing is known of it, and else all that lacks
    would push it down.
    """
    z = _centred(np.asarray(logits, dtype=np.float64) / temperature)
    t, w = np.asarray(targets), _weights(weights, len(z))
    n_classes = z.shape[1]
    one_hot = np.eye(n_classes)[t]
    penalty = np.repeat([SCALE_PENALTY, BIAS_PENALTY], n_classes)
    start = np.repeat([1.0, 0.0], n_classes)
    free = np.tile(np.bincount(t, weights=w, minlength=n_classes) > 0, 2)

    def loss(v: np.ndarray) -> float:
        p = softmax(v[:n_classes] * z + v[n_classes:])
        return nll(p, t, w) * float(w.sum()) + 0.5 * float(penalty @ np.square(v - start))

    at = start.copy()
    for _ in range(NEWTON_STEPS):
        p = softmax(at[:n_classes] * z + at[n_classes:])
        residual = w[:, None] * (p - one_hot)
        gradient = np.concatenate([(residual * z).sum(axis=0), residual.sum(axis=0)]) + penalty * (at - start)
        # of each item the softmax's curvature diag(p) - p p^T, seen through d(scores) / d(scale, bias) = (z, 1)
        through = np.concatenate([p * z, p], axis=1)
        hessian = np.diag(penalty) - (w[:, None] * through).T @ through
        second = w[:, None] * p
        hessian += np.block(
            [
                [np.diag((second * z * z).sum(axis=0)), np.diag((second * z).sum(axis=0))],
                [np.diag((second * z).sum(axis=0)), np.diag(second.sum(axis=0))],
            ]
        )
        step = np.zeros_like(at)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        length, before = 1.0, loss(at)
        while loss(at - length * step) > before and length > 1e-6:
            length /= 2.0
        at = at - length * step
        if np.abs(step).max() < 1e-8:
            break
    return at[:n_classes], at[n_classes:]


def fit_segment_correlation(
    by_segment: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    voting: Voting = "mean",
) -> float:
    """The `segment_correlation` of 0..1 with the least negative log-likelihood of `targets` (N,), to 1e-3.

    `by_segment` are the tracks' calibrated segment probabilities (K_i, C), `weights` (N,) says how much each counts.
    Tracks of one segment say nothing; where there are no others it is 1.
    """
    several = [block for block in _blocks(by_segment, targets, weights) if block[0].shape[1] > 1]
    if not several:
        return 1.0

    def loss(correlation: float) -> float:
        return sum(nll(track_probabilities(p, voting, correlation), t, w) * w.sum() for p, t, w in several)

    return _minimize(loss, 0.0, 1.0, tolerance=1e-3)


def fit_conformal(probabilities: np.ndarray, targets: np.ndarray, coverage: float = 0.9) -> float:
    """Quantile of the LAC scores of N held-out tracks: (N, C) combined probabilities, (N,) integer classes.

    The ceil((N + 1) coverage)-th smallest of 1 - p(target): the "+ 1" makes the promise hold for finite N. A new track
    of the same kind then has its genre in its set with a probability of at least `coverage`. Where N is too small for
    the promise (below coverage / (1 - coverage)) the quantile is 1.0, and every set holds all classes.
    """
    p, t = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if p.ndim != 2 or len(p) == 0 or len(p) != len(t):
        raise ValueError(f"probabilities {p.shape} must be (N, C) for the {len(t)} targets")
    return fit_segment_conformal(p[:, None], t, coverage)


def fit_segment_conformal(
    by_segment: np.ndarray | Sequence[np.ndarray], targets: np.ndarray, coverage: float = 0.9
) -> float:
    """The same for the segments of N held-out tracks: their probabilities (K_i, C), the tracks' classes (N,).

    A track weighs 1, shared by its segments; the quantile is the smallest score at and below which weights of
    (N + 1) coverage lie. The segment of a new track, whichever it is, then has the track's genre in its set with a
    probability of at least `coverage`. Of one segment a track it is `fit_conformal`.
    """
    if not 0.0 < coverage < 1.0:
        raise SettingsError(f"coverage = {coverage} must lie between 0 and 1")
    blocks = _blocks(by_segment, targets, None)
    scores = np.concatenate([1.0 - p[np.arange(len(t)), :, t].ravel() for p, t, _ in blocks])
    weights = np.concatenate([np.full(len(t) * p.shape[1], 1.0 / p.shape[1]) for p, t, _ in blocks])
    order = np.argsort(scores, kind="stable")
    # 0.9 * 10 must be 9, however it is rounded, and three thirds 1
    enough = np.nonzero(np.cumsum(weights[order]) >= (len(targets) + 1) * coverage - 1e-9)[0]
    return float(scores[order][enough[0]]) if len(enough) else 1.0


def prediction_set(probabilities: np.ndarray, quantile: float | None) -> np.ndarray:
    """(C,) combined probabilities -> indices of the classes in the set, best first.

    Always holds the best class, so it is never empty. Without a quantile nothing was promised: the best class alone.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    if quantile is None:
        return order[:1]
    return order[: max(1, int(np.count_nonzero(1.0 - p <= quantile)))]


def _centred(logits: np.ndarray) -> np.ndarray:
    """Logits less their mean over the classes: a softmax ignores a constant, a factor for each class would not."""
    return logits - logits.mean(axis=-1, keepdims=True)


def _weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ValueError(f"weights {w.shape} must be {n} numbers, none negative and not all 0")
    return w


def _blocks(
    logits: np.ndarray | Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(logits (n, K, C), targets (n,), weights (n,)) of the tracks of each number K of segments that count at all."""
    tracks = [np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in logits]
    if not tracks or len(tracks) != len(targets) or any(x.ndim != 2 for x in tracks):
        raise ValueError(
            f"{len(tracks)} tracks must be (N, C), (N, K, C) or a list of (K, C) for {len(targets)} targets"
        )
    w = _weights(weights, len(tracks))
    n_segments = np.asarray([len(x) for x in tracks])
    alike = [np.nonzero((n_segments == n) & (w > 0))[0] for n in np.unique(n_segments[w > 0])]
    return [(np.stack([tracks[i] for i in rows]), np.asarray(targets)[rows], w[rows]) for rows in alike]


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
