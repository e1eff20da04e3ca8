"""Before and after on the same songs: the built-in model against what was taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..verdict import metrics


@dataclass(frozen=True, slots=True)
class GenreCount:
    """Of `n` songs of a genre, how many are right before and after."""

    genre: str
    n: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of right answers among `n` songs, before and after; a genre of the person's own is never right before.

    `n_fixed` songs were wrong and are right now, `n_broken` the other way round. `among_before` and `among_after` count
    with the choice restricted to the genres that the songs have. `nll_before` and `nll_after` are mean negative
    log-likelihoods (nats) over the songs of built-in genres, None where there are none. `intervals` are those
    of the shares of the four counts, 95 %, in which songs of one group count as far as they differ.
    """

    n: int
    before: int
    after: int
    n_fixed: int
    n_broken: int
    among_before: int
    among_after: int
    nll_before: float | None
    nll_after: float | None
    by_genre: tuple[GenreCount, ...]
    intervals: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: shares of right answers with their intervals."""
        return {
            "n": self.n,
            "n_fixed": self.n_fixed,
            "n_broken": self.n_broken,
            "accuracy_before": share(self.before, self.n, self.intervals["before"]),
            "accuracy_after": share(self.after, self.n, self.intervals["after"]),
            "accuracy_among_before": share(self.among_before, self.n, self.intervals["among_before"]),
            "accuracy_among_after": share(self.among_after, self.n, self.intervals["among_after"]),
            "nll_before": self.nll_before,
            "nll_after": self.nll_after,
            "genres": [{"genre": g.genre, "n": g.n, "before": g.before, "after": g.after} for g in self.by_genre],
        }


def share(right: int, n: int, interval: tuple[float, float] | None = None) -> dict[str, Any]:
    """{"value": right / n, "interval_95": [low, high]}, by default that of n independent ones; a share of nothing is
    None."""
    low_high = metrics.wilson_interval(right, n) if interval is None else interval
    return {"value": right / n if n else None, "interval_95": list(low_high)}


def compare(
    labels: Sequence[str],
    genres: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> Comparison:
    """`labels` (C') name the columns of `after` (n, C'), their first C those of `before` (n, C); `genres` (n,) are
    indices of labels, `groups` (n,) what belongs together; n is at least 1."""
    n_base = before.shape[1]
    present = np.unique(genres)
    known = present[present < n_base]
    right_before = before.argmax(axis=1) == genres
    right_after = after.argmax(axis=1) == genres
    among_before = known[before[:, known].argmax(axis=1)] == genres if len(known) else np.zeros(len(genres), bool)
    among_after = present[after[:, present].argmax(axis=1)] == genres
    of_base = genres < n_base
    rights = {"before": right_before, "after": right_after, "among_before": among_before, "among_after": among_after}
    return Comparison(
        n=len(genres),
        before=int(right_before.sum()),
        after=int(right_after.sum()),
        n_fixed=int((right_after & ~right_before).sum()),
        n_broken=int((right_before & ~right_after).sum()),
        among_before=int(among_before.sum()),
        among_after=int(among_after.sum()),
        nll_before=metrics.nll(before[of_base], genres[of_base]) if of_base.any() else None,
        nll_after=metrics.nll(after[of_base], genres[of_base]) if of_base.any() else None,
        by_genre=tuple(
            GenreCount(labels[c], int(of.sum()), int(right_before[of].sum()), int(right_after[of].sum()))
            for c in present
            for of in [genres == c]
        ),
        intervals={name: metrics.grouped_interval(right, groups) for name, right in rights.items()},
    )
