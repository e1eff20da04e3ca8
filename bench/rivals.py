"""Other ways to learn from a handful of songs, which `bench.few_shot` sets beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from acoustic.library import fitting, teaching
from acoustic.library.background import Background
from acoustic.library.personal import features
from acoustic.library.teaching import Song
from acoustic.verdict.calibration import softmax
from acoustic.verdict.decision import calibrated

from .heard import Answer, Bench, Method

TINY = 1e-9


def rows(songs: Sequence[Song]) -> np.ndarray:
    """(n, D) mean embeddings."""
    return np.stack([s.votes.embeddings.mean(axis=0) for s in songs]).astype(np.float64)


def logistic(c: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    return lambda x, y: LogisticRegression(C=c, max_iter=300, class_weight="balanced").fit(x, y)


def lda(shrinkage: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    return lambda x, y: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)


class Prototypes:
    """Cosine with each class's mean, times ten, through a softmax."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.classes_ = np.unique(y)
        self.means = self._unit(np.stack([self._unit(x)[y == c].mean(axis=0) for c in self.classes_]))

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return softmax(10.0 * self._unit(x) @ self.means.T)

    @staticmethod
    def _unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def blend(bench: Bench, fit: Callable[[np.ndarray, np.ndarray], Any], a: float, b: float = 1.0) -> Method:
    """softmax(a log p + b log q) within the taught genres, p untaught and q what `fit` learned; what p gives to the
    genres that were not taught, they keep."""

    def method(songs: Sequence[Song]) -> Answer:
        model = fit(rows(songs), bench.targets(songs))

        def answer(tested: Sequence[Song]) -> np.ndarray:
            p = bench.untaught(tested)
            q = np.log(np.maximum(model.predict_proba(rows(tested)), TINY))
            mine = p[:, model.classes_]
            share = mine.sum(axis=1, keepdims=True)
            p[:, model.classes_] = share * softmax(a * np.log(np.maximum(mine / share, TINY)) + b * q)
            return p

        return answer

    return method


def residual(bench: Bench, strength: float) -> Method:
    """Kernel ridge regression (linear kernel) of one-hot genre less p, added to log p five times."""

    def method(songs: Sequence[Song]) -> Answer:
        x = rows(songs)
        scale = 1.0 / np.sqrt(np.square(x).sum(axis=1).mean())
        missed = np.eye(len(bench.base.labels))[bench.targets(songs)] - bench.untaught(songs)
        kernel = (x * scale) @ (x * scale).T
        dual = np.linalg.solve(kernel + strength * np.eye(len(x)), missed)

        def answer(tested: Sequence[Song]) -> np.ndarray:
            correction = (rows(tested) * scale) @ (x * scale).T @ dual
            return softmax(np.log(np.maximum(bench.untaught(tested), TINY)) + 5.0 * correction)

        return answer

    return method


def offset(bench: Bench, strength: float, rest: Background | None) -> Method:
    """Ours at one strength and temperature 1."""

    def method(songs: Sequence[Song]) -> Answer:
        targets = bench.targets(songs)
        material = fitting.gather([s.votes for s in songs], targets, [s.group for s in songs], bench.base, 0, rest)
        weights = material.to_raw @ fitting.learn(material, np.ones(len(material.x), bool), strength)

        def answer(tested: Sequence[Song]) -> np.ndarray:
            out = []
            for song in tested:
                prior = np.log(np.maximum(calibrated(song.votes.logits, bench.base.calibration)[0], TINY))
                scores = prior + features(song.votes) @ weights[:-1] + weights[-1]
                out.append(calibrated(scores, teaching.plain(bench.base.calibration, 1.0, None))[1])
            return np.stack(out)

        return answer

    return method
