"""Made-up music for the tests of what is taught: genres are directions in an embedding, songs scatter around them."""

from __future__ import annotations

import numpy as np
import pytest

from acoustic.library.background import Background
from acoustic.library.personal import Base, PersonalModel
from acoustic.library.teaching import Song
from acoustic.records import Calibration, Votes
from acoustic.verdict.decision import calibrated

LABELS = ("Blues", "Jazz", "Hip-Hop", "R&B")
N_EMBEDDING = 12


class World:
    """`sharp` is how well the built-in model hears each genre; Hip-Hop it hears as R&B more often than not."""

    def __init__(self, seed: int = 0, sharp: float = 2.0, scatter: float = 1.2) -> None:
        rng = np.random.default_rng(seed)
        self.sharp, self.scatter = sharp, scatter
        self.centres = rng.normal(size=(len(LABELS) + 2, N_EMBEDDING))
        self.centres /= np.linalg.norm(self.centres, axis=1, keepdims=True)
        self.base = Base(
            model="made-up",
            weights_digest="0" * 64,
            labels=LABELS,
            calibration=Calibration(temperature=0.8, conformal_quantile=0.9),
            n_embedding=N_EMBEDDING,
        )

    def song(self, genre: int, seed: int, n_segments: int = 2, name: str | None = None) -> Song:
        """A song of the genre number; from len(LABELS) on they are genres that the built-in model does not know."""
        rng = np.random.default_rng((genre, seed))
        embeddings = self.centres[genre] + rng.normal(0, self.scatter / N_EMBEDDING**0.5, (n_segments, N_EMBEDDING))
        heard = embeddings @ self.centres[: len(LABELS)].T
        heard[:, 2] -= 1.0  # the built-in model's own weakness
        logits = self.sharp * (heard + rng.normal(0, 0.2, heard.shape))
        votes = Votes(logits.astype(np.float32), np.zeros((n_segments, 0), np.float32), embeddings.astype(np.float32))
        names = (*LABELS, "Forró", "Wedding first dance")
        return Song(votes, names[genre] if name is None else name, f"{genre}/{seed}")

    def songs(self, counts: dict[int, int], first: int = 0, n_segments: int = 2) -> list[Song]:
        return [self.song(g, seed, n_segments) for g, n in counts.items() for seed in range(first, first + n)]

    def background(self, n_per_genre: int = 12) -> Background:
        songs = self.songs(dict.fromkeys(range(len(LABELS)), n_per_genre), first=10_000)
        return Background(
            np.stack([s.votes.embeddings.mean(axis=0) for s in songs]),
            np.stack([s.votes.logits.mean(axis=0) for s in songs]),
        )

    def answers(self, songs: list[Song], personal: PersonalModel | None) -> np.ndarray:
        """(n, C') probabilities."""
        if personal is None:
            return np.stack([calibrated(s.votes.logits, self.base.calibration)[1] for s in songs])
        return np.stack([calibrated(personal.read(s.votes).logits, personal.calibration)[1] for s in songs])

    def right(self, songs: list[Song], personal: PersonalModel | None) -> float:
        labels = self.base.labels if personal is None else personal.labels
        best = self.answers(songs, personal).argmax(axis=1)
        return float(np.mean([labels[b] == s.genre for b, s in zip(best, songs, strict=True)]))


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def background(world: World) -> Background:
    return world.background()
