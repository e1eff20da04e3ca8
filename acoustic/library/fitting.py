"""Songs and background as arrays, and the regression on them: the numeric part of `teaching`.

The weights minimise

    sum over songs of  u * cross-entropy with the person's genre
    + REHEARSAL * sqrt(songs) * mean over the background of  cross-entropy with the base's own answer
    + strength / 2 * |weights|^2

with u = 1 / sqrt(songs of that genre), rescaled to a mean of 1, so that a large genre does not drown a small one; songs
of the person's own genres count sqrt(genres) times as much, so that such a genre stands against the background as if it
had been taught alone. The loss is convex, and its minimum without songs is at zero weights: the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ..records import Calibration, Votes
from ..verdict.calibration import softmax
from ..verdict.decision import calibrated
from .background import Background
from .personal import Base, features, prior_scores

REHEARSAL = 10.0
"""What the background counts, in songs, against one song; it grows with the root of their number. Chosen on the figures
of docs/personal.md: less forgets genres that were not taught, more learns slowly."""
N_DIRECTIONS = 48
"""Principal directions of songs and background in which weights are learned: one network's embeddings lie in few."""
CONSTANT = 1.0
"""The feature that all songs share, beside features of a mean square length of 1: its weight is a genre's offset."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """n songs and then M of the background, as arrays; K segments of the songs in all; C' classes.

    `x` (n + M, F) are a track's features and `prior` (n + M, C') its scores with nothing learned; `x_segment` (K, F)
    and `prior_segment` (K, C') those of each segment of the songs, and `song` (K,) whose it is, rising. `target`
    (n + M, C') is the person's genre, one-hot, or the base's answer. `genre` and `group` (n,) are numbers; genres from
    `n_base` on are the person's own. `to_raw` (D + C + 1, F) turns weights of `x` into weights of raw features, the
    last row a genre's offset.
    """

    x: np.ndarray
    prior: np.ndarray
    x_segment: np.ndarray
    prior_segment: np.ndarray
    song: np.ndarray
    target: np.ndarray
    genre: np.ndarray
    group: np.ndarray
    to_raw: np.ndarray
    n_base: int

    @property
    def n(self) -> int:
        return len(self.genre)

    @property
    def n_background(self) -> int:
        return len(self.x) - len(self.genre)


def gather(
    votes: Sequence[Votes],
    genres: Sequence[int],
    groups: Sequence[str],
    base: Base,
    n_own: int,
    background: Background | None,
) -> Material:
    """Material of at least one song. Features are centred and scaled by the background, or by the songs without one."""
    together = _together(votes)
    raw_segment, prior_segment = features(together), prior_scores(together, base.calibration, n_own)
    song = np.repeat(np.arange(len(votes)), [len(v) for v in votes])
    raw, prior = _means(raw_segment, song), np.log(_means(np.exp(prior_segment), song))
    n_classes = prior.shape[1]
    target = np.eye(n_classes)[list(genres)]
    reference = raw
    if background is not None:
        reference = features(background.votes())
        rest = prior_scores(background.votes(), base.calibration, n_own)
        answers = np.exp(rest)
        answers[:, n_classes - n_own :] = 0.0
        raw, prior = np.concatenate([raw, reference]), np.concatenate([prior, rest])
        target = np.concatenate([target, answers])
    centre = reference.mean(axis=0)
    scale = _scale(reference - centre, n_embedding=raw.shape[1] - len(base.labels))
    directions = scale[:, None] * _directions((raw - centre) * scale)
    n_raw, n_kept = directions.shape
    to_raw = np.zeros((n_raw + 1, n_kept + 1))
    to_raw[:-1, :-1] = directions
    to_raw[-1, :-1] = -centre @ directions
    to_raw[-1, -1] = CONSTANT
    return Material(
        x=_with_one(raw) @ to_raw,
        prior=prior,
        x_segment=_with_one(raw_segment) @ to_raw,
        prior_segment=prior_segment,
        song=song,
        target=target,
        genre=np.asarray(genres),
        group=np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1),
        to_raw=to_raw,
        n_base=len(base.labels),
    )


def song_weights(genre: np.ndarray, n_base: int) -> np.ndarray:
    """u (n,) of the songs of these genres; from `n_base` on they are the person's own."""
    n_songs = np.bincount(genre)
    u = 1.0 / np.sqrt(n_songs[genre])
    return u / u.mean() * np.where(genre >= n_base, np.sqrt(np.count_nonzero(n_songs)), 1.0)


def background_weight(n_songs: int) -> float:
    """What the whole background counts, in songs."""
    return REHEARSAL * float(np.sqrt(n_songs))


def learn(material: Material, rows: np.ndarray, strength: float, start: np.ndarray | None = None) -> np.ndarray:
    """Weights (F, C') fitted on the rows (n + M,) that are True; at least one of them is a song's."""
    n = material.n
    songs, rest = np.nonzero(rows[:n])[0], n + np.nonzero(rows[n:])[0]
    chosen = np.concatenate([songs, rest])
    x, prior, target = material.x[chosen], material.prior[chosen], material.target[chosen]
    share = background_weight(len(songs)) / max(len(rest), 1)
    weight = np.concatenate([song_weights(material.genre[songs], material.n_base), np.full(len(rest), share)])[:, None]
    # In the coordinates in which an upper bound of the curvature (half of x^T x for each class: Boehning, "Multinomial
    # Logistic Regression Algorithm", 1992) is the identity, L-BFGS needs fewer steps.
    values, vectors = np.linalg.eigh(x.T @ (0.5 * weight * x))
    to_weights = vectors / np.sqrt(np.maximum(values, 0.0) + strength)
    x, ridge = x @ to_weights, strength * np.square(to_weights).sum(axis=0)[:, None]
    weighted, mass = weight * target, weight * target.sum(axis=1, keepdims=True)
    shape = (x.shape[1], prior.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = flat.reshape(shape)
        scores = prior + x @ v
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        total = p.sum(axis=1, keepdims=True)
        p *= mass / total
        p -= weighted
        value = float((mass * np.log(total)).sum() - (weighted * scores).sum() + 0.5 * (ridge * v * v).sum())
        return value, (x.T @ p + ridge * v).ravel()

    first = np.zeros(shape) if start is None else np.linalg.solve(to_weights, start)
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-6})
    return to_weights @ found.x.reshape(shape)


def track_answers(scores: np.ndarray, song: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Segments' scores (K, C') -> (n, C') probabilities of their songs; `song` (K,) rises."""
    n_segments = np.bincount(song)
    first = np.cumsum(n_segments) - n_segments
    out = np.empty((len(n_segments), scores.shape[1]))
    for k in np.unique(n_segments):
        of = np.nonzero(n_segments == k)[0]
        out[of] = calibrated(scores[first[of][:, None] + np.arange(k)], calibration)[1]
    return out


def background_answers(material: Material, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(len(rows), C') probabilities of the background's `rows` with `weights`."""
    rows = material.n + rows
    return softmax(material.prior[rows] + material.x[rows] @ weights)


def _together(votes: Sequence[Votes]) -> Votes:
    """All segments of all songs as if they were one song's; their tags, which nothing here asks for, are left out."""
    logits = np.concatenate([v.logits for v in votes])
    embeddings = np.concatenate([v.embeddings for v in votes])
    return Votes(logits, np.zeros((len(logits), 0), np.float32), embeddings)


def _means(values: np.ndarray, song: np.ndarray) -> np.ndarray:
    n_segments = np.bincount(song)
    return np.add.reduceat(values, np.cumsum(n_segments) - n_segments, axis=0) / n_segments[:, None]


def _scale(centred: np.ndarray, n_embedding: int) -> np.ndarray:
    """(D + C,) factors that give embedding and logits a mean square length of 1/2 each."""
    parts = []
    for part in (centred[:, :n_embedding], centred[:, n_embedding:]):
        length = float(np.sqrt(np.square(part).sum(axis=1).mean())) if part.size else 0.0
        parts.append(np.full(part.shape[1], 1.0 / (np.sqrt(2.0) * length) if length > 0 else 1.0))
    return np.concatenate(parts)


def _directions(centred: np.ndarray) -> np.ndarray:
    """(D + C, at most N_DIRECTIONS) principal directions of the rows."""
    n = min(N_DIRECTIONS, *centred.shape)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, ::-1][:, :n]


def _with_one(raw: np.ndarray) -> np.ndarray:
    return np.concatenate([raw, np.ones((len(raw), 1))], axis=1)
