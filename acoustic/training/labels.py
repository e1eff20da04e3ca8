"""Soft genre labels for files that nobody labelled: a regression in the space of what the teachers say.

A multinomial logistic regression on the teachers' embeddings and logits is fitted on the labelled files of the training
part (a source's `label_weight` is its say), balanced over genres, each teacher with the same say however many numbers
it answers with. It begins with what the teachers' tags are called: the tag "Reggae" speaks for Reggae before any file
does, which is most of what is known of a genre with few files. Its probabilities on every window become the soft labels
that the student learns; where a file has a label of its own, both are mixed by that weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from ..errors import ManifestError, SettingsError
from .manifest import Row
from .regression import fit_change
from .teachers import Answer

RIDGE = 0.1
TAGS_SAY = 1.0
"""how many nats a genre's tags speak for it with, for each of their standard deviations. Both were chosen by
cross-validation over groups, see docs/model.md"""


@dataclass(frozen=True, slots=True)
class Layout:
    """The vector of what all teachers say of a crop: the `widths` of the teachers' parts, side by side, and for each
    genre the columns of the tags that are `named` for it, teacher by teacher."""

    widths: tuple[int, ...]
    named: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        genre_tags: Mapping[str, Sequence[str]],
        teachers: Sequence[tuple[Sequence[str], int]],
    ) -> Layout:
        """The layout for teachers, each (its tags, the width of its embedding); `genre_tags` names the tags of a genre.
        SettingsError for one that no teacher knows."""
        widths = tuple(width + len(tags) for tags, width in teachers)
        columns = []
        begin = 0
        for tags, width in teachers:
            columns.append({tag: begin + width + i for i, tag in enumerate(tags)})
            begin += width + len(tags)
        for genre, wanted in genre_tags.items():
            for tag in wanted:
                if not any(tag in known for known in columns):
                    raise SettingsError(f"genre_tags: {genre}: no teacher knows {tag!r}", "Name its tags as they do.")
        named = tuple(
            tuple(own for known in columns if (own := tuple(known[t] for t in genre_tags.get(label, ()) if t in known)))
            for label in labels
        )
        return cls(widths, named)

    def opinion(self, standard: np.ndarray) -> np.ndarray:
        """How far the tags speak for each genre, (n, C), in standardised features (n, F): of each teacher the loudest
        tag, and the mean of the teachers that have one; 0 without tags."""
        out = np.zeros((len(standard), len(self.named)))
        for genre, teachers in enumerate(self.named):
            if teachers:
                out[:, genre] = np.mean([standard[:, columns].max(axis=1) for columns in teachers], axis=0)
        return out

    @property
    def ridges(self) -> np.ndarray:
        """What to multiply each feature's ridge with, (F,), so that teachers have the same say together."""
        total = sum(self.widths)
        return np.concatenate([np.full(width, len(self.widths) * width / total) for width in self.widths])


@dataclass(frozen=True, slots=True)
class TeacherSpace:
    """Teacher answers of a crop as one vector, and the regression from it to genres."""

    layout: Layout
    mean: np.ndarray
    std: np.ndarray
    change: np.ndarray
    """(F + 1, C) on standardised features, the bias last"""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, F) raw features -> (n, C)."""
        standard = (features - self.mean) / self.std
        logits = TAGS_SAY * self.layout.opinion(standard) + standard @ self.change[:-1] + self.change[-1]
        return np.asarray(softmax(logits, axis=1))


def features_of(said: Sequence[Answer]) -> np.ndarray:
    """What all teachers said of one crop, their embeddings and logits, as one vector (F,)."""
    return np.concatenate([part for logits, embedding in said for part in (embedding, logits)])


def fit_teacher_space(
    features: np.ndarray, genres: np.ndarray, weights: np.ndarray, layout: Layout, ridge: float = RIDGE
) -> TeacherSpace:
    """Fit on labelled tracks: `features` (n, F), `genres` (n,) class indices, `weights` (n,) the trust in each label.

    Raises ManifestError when a class has no labelled track.
    """
    n_classes = len(layout.named)
    count = np.bincount(genres, weights=weights, minlength=n_classes)
    if (count == 0).any():
        raise ManifestError(
            f"class number {int(np.argmin(count))} has no labelled file in the training part",
            "Every genre needs one at least.",
        )
    balanced = weights * (count.sum() / n_classes / count)[genres]
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = (features - mean) / std
    begin = TAGS_SAY * layout.opinion(standard)
    change = fit_change(standard, begin, np.eye(n_classes)[genres], balanced, ridge * layout.ridges)
    return TeacherSpace(layout, mean, std, change)


def mix(soft: np.ndarray, genre: int | None, label_weight: float) -> np.ndarray:
    """Soft label (C,) with the file's own label mixed in by its weight."""
    if genre is None or label_weight <= 0:
        return soft
    hard = np.zeros_like(soft)
    hard[genre] = 1.0
    return (1 - label_weight) * soft + label_weight * hard


def index_of(row: Row, labels: Sequence[str]) -> int | None:
    return labels.index(row.genre) if row.genre else None
