"""A person's own reading of the network's votes: other genres, the same network.

What was taught is one matrix. For a segment with features x (embedding and genre logits) and the built-in model's
calibrated probabilities p,

    score(c) = log p(c) + x . w_c + b_c             for a built-in genre c
    score(o) = log OWN_PRIOR + x . w_o + b_o        for a genre of the person's own

and a softmax makes probabilities of the scores. With w and b zero this is the built-in model: what is taught is only
how far to depart from it, which is why a handful of songs is enough (logistic regression with an offset; the idea of a
prior that a ridge pulls back to is that of Li et al., "Explicit Inductive Bias for Transfer Learning", 2018). The
scores take the place of the network's genre logits, so that verdict, segments and prediction sets need no second way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..records import Calibration, Votes
from ..verdict.decision import calibrated

OWN_PRIOR = 0.1
"""Odds of a genre of the person's own, against all built-in ones together, before anything is known of a song."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a person's genres stand on: its name, the SHA-256 of its weights, its labels (C), its calibration
    and the width D of its embedding."""

    model: str
    weights_digest: str
    labels: tuple[str, ...]
    calibration: Calibration
    n_embedding: int

    @property
    def n_features(self) -> int:
        return self.n_embedding + len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class PersonalModel:
    """What was taught on top of `base`, with the calibration that this had then; C' = C built-in genres and then the
    person's `own`.

    `weights` (D + C, C') and `bias` (C',) are float32; `temperature` divides the scores, `conformal_quantile` is that
    of the person's songs, or the base's where they are too few. `report` says what was measured when it was taught.
    """

    name: str
    base: Base
    own: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    temperature: float
    conformal_quantile: float | None
    created: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.base.labels + self.own

    @property
    def calibration(self) -> Calibration:
        """The base's, less what has gone into the scores already."""
        return plain(self.base.calibration, self.temperature, self.conformal_quantile)

    def read(self, votes: Votes) -> Votes:
        """The same votes with scores (K, C') over `labels` as their genre logits, meant for `calibration`."""
        scores = prior_scores(votes, self.base.calibration, len(self.own))
        scores += features(votes) @ self.weights.astype(np.float64) + self.bias
        return dataclasses.replace(votes, logits=scores)


def plain(calibration: Calibration, temperature: float, conformal_quantile: float | None) -> Calibration:
    """`calibration` for scores that are calibrated log-probabilities but for one `temperature`."""
    return dataclasses.replace(
        calibration,
        temperature=temperature,
        class_scale=(),
        class_bias=(),
        label_smoothing=0.0,
        conformal_quantile=conformal_quantile,
        segment_conformal_quantile=None,  # of the model's own segments
    )


def features(votes: Votes) -> np.ndarray:
    """(K, D + C) float64: embedding, and genre logits less their mean, which says nothing."""
    logits = np.asarray(votes.logits, dtype=np.float64)
    return np.concatenate([votes.embeddings, logits - logits.mean(axis=1, keepdims=True)], axis=1)


def prior_scores(votes: Votes, calibration: Calibration, n_own: int) -> np.ndarray:
    """(K, C + n_own): log p of the built-in genres, and log OWN_PRIOR for each of the person's own."""
    by_segment, _ = calibrated(votes.logits, calibration)
    known = np.log(np.maximum(by_segment, np.finfo(np.float64).tiny))
    return np.concatenate([known, np.full((len(known), n_own), math.log(OWN_PRIOR))], axis=1)
