"""How much arithmetic one segment costs, by formula: what a time must be divided by to be a share of a machine."""

from __future__ import annotations

from itertools import pairwise

from acoustic.network.architecture import PATCH, Architecture
from acoustic.records import N_FRAMES


def flops(shape: Architecture) -> int:
    """Floating-point operations of the network's matrix products and convolutions on one segment, a multiplication and
    its addition counted as two. Norms, GELU, softmax and biases are left out: less than one in a hundred."""
    width, n_tokens = shape.width, shape.n_patches + (shape.pooling == "cls")
    projections = 2 * n_tokens * width * 4 * width  # query, key, value and what follows them
    attention = 2 * 2 * n_tokens * n_tokens * width  # scores, and the values that they weight
    mlp = 2 * 2 * n_tokens * width * int(width * shape.mlp_ratio)
    return _stem(shape) + shape.depth * (projections + attention + mlp) + _heads(shape)


def _stem(shape: Architecture) -> int:
    width = shape.width
    if shape.stem == "patch":
        return 2 * shape.n_patches * PATCH * PATCH * width
    total, pixels = 0, shape.n_mels * N_FRAMES
    for n_in, n_out in pairwise((1, width // 8, width // 4, width // 2, width)):
        pixels //= 4
        total += 2 * pixels * 9 * n_in * n_out
    return total + 2 * shape.n_patches * width * width


def _heads(shape: Architecture) -> int:
    genre = shape.width * shape.n_classes
    if shape.head_hidden:
        genre = shape.head_hidden * (shape.width + shape.n_classes)
    return 2 * (genre + shape.width * (shape.n_tags + shape.n_embedding))
