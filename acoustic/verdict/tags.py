"""Votes -> the network's side answers about a track: tags, and how much of a voice there is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VOCAL_TAGS = ("Singing", "Male singing", "Female singing", "Child singing", "Choir", "Rapping", "Chant", "Vocal music")


def mean_tags(tag_logits: np.ndarray, tag_labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """(tag, mean probability over the segments), best first, of tag logits (K, T)."""
    mean = _sigmoid(tag_logits).mean(axis=0)
    return tuple((tag_labels[i], float(mean[i])) for i in np.argsort(-mean, kind="stable"))


def vocal_presence(tag_logits: np.ndarray, tag_labels: Sequence[str]) -> float | None:
    """Mean over the segments of the likeliest voice tag; None for a model without such tags."""
    columns = [i for i, tag in enumerate(tag_labels) if tag in VOCAL_TAGS]
    if not columns:
        return None
    return float(_sigmoid(tag_logits[:, columns]).max(axis=1).mean())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
