"""The shape of a network, in plain numbers: what a card can say without a network (or torch) being loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..records import N_FRAMES

PATCH = 16


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a network; stored in its card.

    `n_embedding` is the width of the embedding head, 0 for the pooled state itself.
    """

    width: int = 192
    depth: int = 12
    n_heads: int = 3
    mlp_ratio: float = 4.0
    stem: Literal["patch", "conv"] = "patch"
    pooling: Literal["cls", "mean"] = "cls"
    n_mels: int = 224
    n_classes: int = 16
    n_tags: int = 0
    n_embedding: int = 0
    layer_norm_eps: float = 1e-6
    head_hidden: int = 0
    """width of the genre head's hidden layer, 0 for a linear head"""

    @classmethod
    def named(cls, name: str, **changes: Any) -> Architecture:
        """ViT-B/16, ViT-S/16 or ViT-Ti/16 (Touvron et al., 2021, for the smaller two), with `changes`."""
        return cls(**{**SIZES[name], **changes})

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in frequency and time."""
        return self.n_mels // PATCH, N_FRAMES // PATCH

    @property
    def n_patches(self) -> int:
        rows, columns = self.grid
        return rows * columns

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SIZES: dict[str, dict[str, int]] = {
    "ViT-B/16": {"width": 768, "depth": 12, "n_heads": 12},
    "ViT-S/16": {"width": 384, "depth": 12, "n_heads": 6},
    "ViT-Ti/16": {"width": 192, "depth": 12, "n_heads": 3},
}
