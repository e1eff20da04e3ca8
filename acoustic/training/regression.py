"""Logistic regression that begins with an opinion: the change of given logits that explains the labels best."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

MAX_STEPS = 200


def fit_change(
    x: np.ndarray, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, ridge: float | np.ndarray
) -> np.ndarray:
    """What to add to `logits` (N, C) for features `x` (N, D): a matrix (D + 1, C), the bias last, with which the soft
    cross-entropy with `targets` (N, C), each counted by `weights` (N,), is least.

    The ridge, one or one for each feature (D,), is on standardised features, so that it means the same whatever their
    scale; the bias is free.
    """
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    design = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    share = weights / weights.sum()
    shape = (design.shape[1], targets.shape[1])
    held = np.broadcast_to(ridge, mean.shape)[:, None]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = flat.reshape(shape)
        log_p = log_softmax(logits + design @ change, axis=1)
        gradient = design.T @ ((np.exp(log_p) - targets) * share[:, None])
        gradient[:-1] += 2 * held * change[:-1]
        fit = -(share * (targets * log_p).sum(axis=1)).sum()
        return float(fit + (held * np.square(change[:-1])).sum()), gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    change = found.x.reshape(shape)
    return np.vstack([change[:-1] / deviation[:, None], change[-1:] - (mean / deviation) @ change[:-1]])
