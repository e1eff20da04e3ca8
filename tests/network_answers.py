"""When two backends say the same: an error that is small beside how much the answers differ from song to song."""

from __future__ import annotations

import numpy as np

from acoustic.records import Votes

KINDS = ("logits", "tag_logits", "embeddings")


def made_mels(n: int, n_mels: int = 32) -> np.ndarray:
    """(n, n_mels, 224), seeded, each of its own level and shape: noise alone averages out to one answer for all."""
    rng = np.random.default_rng(n)
    bands, frames = np.arange(n_mels)[:, None] / n_mels, np.arange(224)[None] / 224
    rows = []
    for _ in range(n):
        across, along, phase = rng.uniform(0, 4), rng.uniform(0, 4), rng.uniform()
        wave = 3 * np.sin(2 * np.pi * (across * bands + along * frames + phase)) * rng.uniform(0.3, 1.5)
        rows.append(rng.normal(size=(n_mels, 224)) + wave + 2 * rng.normal())
    return np.asarray(rows, dtype=np.float32).reshape(n, n_mels, 224)


def error(found: Votes, expected: Votes) -> float:
    """The largest over the kinds of answer of the root mean square error, as a share of the standard deviation over
    the rows: a backend that mixes up its rows, or does not look at them, has about 1."""
    shares = []
    for kind in KINDS:
        a, b = getattr(found, kind), getattr(expected, kind)
        assert a.shape == b.shape
        if b.shape[1]:
            shares.append(float(np.sqrt(np.square(a - b).mean()) / b.std(axis=0).mean()))
    return max(shares)


def nearly(found: Votes, expected: Votes, share: float = 0.2) -> bool:
    return error(found, expected) < share
