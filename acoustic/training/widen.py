"""A wider network that says the same: the start of a larger student from a smaller one.

Every channel is copied `factor` times; what reads the copies shares its weight among them by random parts that sum to
1, so that the copies learn different things from the first step on (Chen, Goodfellow & Shlens, "Net2Net", ICLR 2016;
Chen et al., "bert2BERT", ACL 2022). Layer norms see the same mean and variance, heads of attention are copied whole.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..network.architecture import Architecture
from ..network.vit import MelViT

SAME = ("depth", "mlp_ratio", "stem", "pooling", "n_mels")
PARTS = (0.2, 0.8)
"""bounds from which parts are drawn before they are made to sum to 1"""


def factor_of(narrow: Architecture, wide: Architecture) -> int | None:
    """How many times `wide` is as wide as `narrow`, heads and all; None where it is not `narrow` made wider."""
    factor, rest = divmod(wide.width, narrow.width)
    if rest or factor < 2 or wide.n_heads != factor * narrow.n_heads or narrow.head_hidden or wide.head_hidden:
        return None
    return factor if all(getattr(narrow, name) == getattr(wide, name) for name in SAME) else None


@torch.no_grad()
def widen(network: MelViT, factor: int, seed: int = 0) -> MelViT:
    """`network` with `factor` times its width and heads, and the same answers (to rounding), in eval mode."""
    narrow = network.architecture
    wide = MelViT(replace(narrow, width=factor * narrow.width, n_heads=factor * narrow.n_heads))
    generator = torch.Generator().manual_seed(seed)
    state = wide.state_dict()
    for name, tensor in network.state_dict().items():
        state[name] = _widened(tensor, state[name].shape, generator)
    wide.load_state_dict(state)
    return wide.eval()


def _widened(tensor: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """`tensor` copied along every dimension in which `shape` is larger; a weight's inputs (its second dimension) are
    shared among the copies instead."""
    reads = tensor.ndim > 1 and shape[1] != tensor.shape[1]
    repeats = [n // m for n, m in zip(shape, tensor.shape, strict=True)]
    copied = tensor.repeat(repeats) if repeats else tensor.clone()
    if not reads:
        return copied
    n = repeats[1]
    low, high = PARTS
    parts = low + (high - low) * torch.rand(n, *copied.chunk(n, dim=1)[0].shape, generator=generator)
    parts /= parts.sum(dim=0)
    return copied * torch.cat(list(parts), dim=1)
