"""How backends are compared: the same made-up mels, the fastest of a few calls, the cosine of the answers."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ...records import N_FRAMES, Votes

MIN_COSINE = 0.9995
"""Least cosine between a backend's answers and those of eager float32, over PROBE_SEGMENTS segments. bfloat16 has
0.99998; torch's dynamic int8 has 0.9990 and turned one review flag of 178 songs, so that a busy machine, on which it
won, said another thing than an idle one."""
MIN_INT8_COSINE = 0.99
"""The same for int8, whose loss of accuracy stands in its own file and counts as well."""
PROBE_SEGMENTS = 4
N_RUNS = 3


def probe(n_mels: int, n_segments: int = PROBE_SEGMENTS) -> np.ndarray:
    """Input to measure with: (n_segments, n_mels, 224), seeded. Ridges, beats and a floor of noise that falls with
    frequency, each segment its own: nearer to the mels of music, on which int8 was calibrated, than noise alone."""
    rng = np.random.default_rng(0)
    bands, frames = np.arange(n_mels)[:, None] / n_mels, np.arange(N_FRAMES)[None]
    segments = []
    for _ in range(n_segments):
        beat = np.exp(-((frames / rng.uniform(8, 30)) % 1.0) * rng.uniform(1, 6))
        ridges = sum(np.exp(-(((bands - rng.uniform(0, 0.7)) * n_mels / 1.5) ** 2)) for _ in range(6))
        floor = 1.0 - 2.0 * bands + 0.4 * rng.normal(size=(n_mels, N_FRAMES))
        mel = floor + 1.5 * ridges + beat * rng.uniform(0.3, 1.5)
        segments.append(mel - mel.mean())
    return np.stack(segments).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The least cosine between rows of two (B, C) arrays."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.sum(a * b, axis=1) / np.maximum(lengths, 1e-12)).min())


def similarity(expected: Votes, found: Votes) -> float:
    """The least cosine over segments and over the kinds of answer that there are: genres, tags, embeddings."""
    names = [name for name in ("logits", "tag_logits", "embeddings") if getattr(expected, name).shape[1]]
    return min(cosine(getattr(expected, name), getattr(found, name)) for name in names)


def best_ms(backend: Callable[[np.ndarray], Votes], mels: np.ndarray, n_runs: int = N_RUNS) -> float:
    """The fastest of `n_runs` calls in ms: the least disturbed by whatever else the machine does."""
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        backend(mels)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)
