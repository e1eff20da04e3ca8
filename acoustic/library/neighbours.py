"""What sounds alike: exact nearest neighbours by cosine over all tracks of the newest model, and a map of them.

Embeddings vary mostly along few directions. A first look at the `N_HEAD` strongest bounds every cosine from above
(Cauchy and Schwarz on what is left out); only tracks whose bound reaches the k-th best are then computed in full. The
answer is that of looking at all of them, in a fraction of the time and memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import BackendError

if TYPE_CHECKING:
    from .catalogue import Catalogue

MapMethod = Literal["pca", "umap"]
N_HEAD = 64
N_FITTED = 8_192
"""so many tracks, evenly spread, say which directions are the strong ones"""
BLOCK = 4_096  # rows that are widened to float32 at a time
SLACK = 1e-5  # above the rounding errors of a bound


@dataclass(frozen=True)
class Points:
    """Tracks on the plane: `ids` (n,) int64, `places` (n, 2) float32 in [-1, 1], one scale for both axes."""

    ids: np.ndarray
    places: np.ndarray


@dataclass
class _Embedded:
    """All embeddings of one model at length one: `rows` (n, D) float16; their strongest directions `basis` (D, H),
    `head` (n, H) float32 along them, and `rest` (n,), the length of what is left."""

    model_id: int | None = None
    last: int = 0
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    basis: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    head: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    places: dict[str, Points] = field(default_factory=dict)


class Neighbours:
    """Reads embeddings of `catalogue` at first need, and again what was added since. Safe to use from any thread."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._drawing = {"pca": threading.Lock(), "umap": threading.Lock()}
        self._embedded = _Embedded()

    def nearest(self, track_ids: Sequence[int], k: int = 20) -> list[tuple[int, float]]:
        """The (track id, cosine) of the `k` tracks nearest to the mean of `track_ids`, nearest first, without those
        themselves. Equal ones come in the order in which they were added. Empty where none of them is known."""
        all_ = self._current()
        own = np.flatnonzero(np.isin(all_.ids, np.asarray(track_ids, np.int64)))
        if not len(own) or k < 1:
            return []
        wanted = _unit(all_.rows[own].astype(np.float32).mean(axis=0, keepdims=True))[0]
        themselves, n = set(own.tolist()), min(k + len(own), len(all_.ids))
        return [(int(all_.ids[row]), cosine) for row, cosine in _best(all_, wanted, n) if row not in themselves][:k]

    def points(self, method: MapMethod = "pca") -> Points:
        """All tracks on the plane: "pca" at once, "umap" in minutes for a large library and kept until it changes.
        Raises BackendError for "umap" where that is not installed."""
        all_ = self._current()
        with self._drawing[method]:  # each once; and numba may end a program in which two use its threads at a time
            if method not in all_.places:
                all_.places[method] = Points(all_.ids, _fitted(_pca(all_) if method == "pca" else _umap(all_)))
        return all_.places[method]

    def _current(self) -> _Embedded:
        with self._lock:
            last, model_id = self._catalogue.last_analysis(), self._catalogue.newest_model()
            known = self._embedded
            if last == known.last and model_id == known.model_id:
                return known
            grown = model_id == known.model_id and last > known.last and len(known.ids) > 0
            ids, rows = self._catalogue.embeddings(model_id, after=known.last if grown else 0)
            units = _unit(rows.astype(np.float32)).astype(np.float16) if len(ids) else rows
            if grown and len(ids):
                new = ~np.isin(ids, known.ids)  # the last look may have seen more than it had asked for
                ids, units = np.concatenate([known.ids, ids[new]]), np.concatenate([known.rows, units[new]])
            elif grown:
                ids, units = known.ids, known.rows
            self._embedded = _embedded(model_id, last, ids, units)
            return self._embedded


def _embedded(model_id: int | None, last: int, ids: np.ndarray, rows: np.ndarray) -> _Embedded:
    if not len(ids):
        return _Embedded(model_id, last)
    fitted = rows[:: -(-len(rows) // N_FITTED)].astype(np.float32)
    values, vectors = np.linalg.eigh(fitted.T @ fitted)
    basis = np.ascontiguousarray(vectors[:, np.argsort(-values)[:N_HEAD]])
    head = np.empty((len(rows), basis.shape[1]), np.float32)
    rest = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK].astype(np.float32)
        part = head[start : start + BLOCK] = block @ basis
        rest[start : start + BLOCK] = np.sqrt(np.maximum(0.0, (block**2).sum(1) - (part**2).sum(1)))
    return _Embedded(model_id, last, ids, rows, basis, head, rest)


def _best(all_: _Embedded, wanted: np.ndarray, n: int) -> list[tuple[int, float]]:
    """(row, cosine) of the `n` rows with the largest cosine to the unit vector `wanted`, in order."""
    along = wanted @ all_.basis
    left = float(np.sqrt(max(0.0, 1.0 - float(along @ along))))
    bound = all_.head @ along
    bound += all_.rest * left
    # the n best bounds give a cosine that the n-th best of all reaches at least
    first = np.argpartition(-bound, n - 1)[:n]
    at_least = float(_cosines(all_.rows, first, wanted).min()) - SLACK
    candidates = np.flatnonzero(bound >= at_least)
    cosines = _cosines(all_.rows, candidates, wanted)
    order = np.argsort(-cosines, kind="stable")[:n]
    return [(int(candidates[i]), float(min(1.0, cosines[i]))) for i in order]


def _cosines(rows: np.ndarray, which: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    found = np.empty(len(which), np.float32)
    for start in range(0, len(which), BLOCK):
        found[start : start + BLOCK] = rows[which[start : start + BLOCK]].astype(np.float32) @ wanted
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows at length one; a row of zeros, or one that is no number, becomes zeros: it is near to nothing."""
    rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _pca(all_: _Embedded) -> np.ndarray:
    """(n, 2) along the two directions of greatest variance of the heads; they hold all but nothing of it."""
    if len(all_.ids) < 2:
        return np.zeros((len(all_.ids), 2), np.float32)
    centred = all_.head - all_.head.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, -2:][:, ::-1] if vectors.shape[1] > 1 else np.pad(vectors, ((0, 0), (0, 1)))
    axes = axes * np.where(
        axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0
    )  # either sign would do; one is kept
    return (centred @ axes).astype(np.float32)


def _umap(all_: _Embedded) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise BackendError(
            "the UMAP map needs a library that is not installed", "Install it with `pip install umap-learn`."
        ) from None
    if len(all_.ids) < 4:  # fewer have no neighbourhoods
        return _pca(all_)
    n_neighbors = min(15, len(all_.ids) - 1)
    how = UMAP(n_neighbors=n_neighbors, metric="cosine", random_state=0, n_jobs=1)  # a seed allows one thread alone
    return np.asarray(how.fit_transform(all_.head), np.float32)


def _fitted(places: np.ndarray) -> np.ndarray:
    """Moved and scaled into [-1, 1], the shape unchanged."""
    if not len(places):
        return places.astype(np.float32)
    low, high = places.min(axis=0), places.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    return np.clip((places - (low + high) / 2) / half, -1, 1).astype(np.float32)
