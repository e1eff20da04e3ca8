"""Soft genre labels for files that nobody labelled: a regression in the space of what the teachers say.

A multinomial logistic regression on the teachers' standardised embeddings and logits is fitted on the labelled files of
the training part (a source's `label_weight` is its say), balanced over genres. Its probabilities on every window become
the soft labels that the student learns; where a file has a label of its own, both are mixed by that weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..errors import ManifestError
from .manifest import Row
from .teachers import Answer

REGULARISATION = 0.003
"""scikit-learn's C; chosen by cross-validation over groups, see docs/model.md"""


@dataclass(frozen=True, slots=True)
class TeacherSpace:
    """Teacher answers of a crop as one standardised vector, and the regression from it to genres."""

    scaler: StandardScaler
    regression: LogisticRegression
    n_classes: int

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, F) raw features -> (n, C)."""
        out = np.zeros((len(features), self.n_classes))
        out[:, self.regression.classes_] = self.regression.predict_proba(self.scaler.transform(features))
        return out


def features_of(said: Sequence[Answer]) -> np.ndarray:
    """What all teachers said of one crop, their embeddings and logits, as one vector (F,)."""
    return np.concatenate([part for logits, embedding in said for part in (embedding, logits)])


def fit_teacher_space(
    features: np.ndarray,
    genres: np.ndarray,
    weights: np.ndarray,
    n_classes: int,
    regularisation: float = REGULARISATION,
) -> TeacherSpace:
    """Fit on labelled tracks: `features` (n, F), `genres` (n,) class indices, `weights` (n,) the trust in each label.

    Raises ManifestError when a class has no labelled track.
    """
    count = np.bincount(genres, weights=weights, minlength=n_classes)
    if (count == 0).any():
        raise ManifestError(
            f"class number {int(np.argmin(count))} has no labelled file in the training part",
            "Every genre needs one at least.",
        )
    balance = weights * (count.sum() / n_classes / count)[genres]
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=regularisation, max_iter=400)
    regression.fit(scaler.transform(features), genres, sample_weight=balance)
    return TeacherSpace(scaler, regression, n_classes)


def mix(soft: np.ndarray, genre: int | None, label_weight: float) -> np.ndarray:
    """Soft label (C,) with the file's own label mixed in by its weight."""
    if genre is None or label_weight <= 0:
        return soft
    hard = np.zeros_like(soft)
    hard[genre] = 1.0
    return (1 - label_weight) * soft + label_weight * hard


def index_of(row: Row, labels: Sequence[str]) -> int | None:
    return labels.index(row.genre) if row.genre else None
