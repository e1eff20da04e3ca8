"""The network: a Vision Transformer (Dosovitskiy et al., 2021) that reads one-channel mels.

    mels (B, 1, n_mels, 224) -> tokens -> transformers' ViT layers -> pooled (B, width) -> genre, tags, embedding

The patch grid is (n_mels / 16) x 14. Tokens come from 16 x 16 patches, or from a stem of four 3 x 3 convolutions of
stride 2 (Xiao et al., "Early Convolutions Help Transformers See Better", 2021), which learn faster from little data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .architecture import PATCH, Architecture


class Answers(NamedTuple):
    """What the network says of a batch: genre logits (B, C), tag logits (B, T), embeddings (B, D)."""

    logits: Tensor
    tag_logits: Tensor
    embedding: Tensor


class PatchStem(nn.Module):
    """One 16 x 16 convolution of stride 16: (B, 1, n_mels, 224) -> (B, width, rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(1, width, PATCH, PATCH)

    def forward(self, mels: Tensor) -> Tensor:
        return self.projection(mels)


class ConvStem(nn.Module):
    """Four 3 x 3 convolutions of stride 2 and a 1 x 1 projection: the same grid, softer edges."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [1, width // 8, width // 4, width // 2, width]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, mels: Tensor) -> Tensor:
        return self.layers(mels)


class MelViT(nn.Module):
    """See the module's docstring. `forward` takes normalised mels, float, (B, n_mels, 224) or (B, 1, n_mels, 224)."""

    def __init__(self, architecture: Architecture) -> None:
        # nearly half of the start-up time; whoever only reads a card does not pay for it
        from transformers import ViTConfig
        from transformers.models.vit.modeling_vit import ViTLayer

        super().__init__()
        self.checkpoint_layers = False
        """in training, recompute the layers' activations on the way back rather than keep them"""
        a = self.architecture = architecture
        if a.n_mels % PATCH or a.n_mels <= 0:
            raise ValueError(f"n_mels must be a positive multiple of {PATCH}, got {a.n_mels}")
        self.stem = ConvStem(a.width) if a.stem == "conv" else PatchStem(a.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, a.width)) if a.pooling == "cls" else None
        n_positions = a.n_patches + (a.pooling == "cls")
        self.position = nn.Parameter(torch.zeros(1, n_positions, a.width))
        config = ViTConfig(
            hidden_size=a.width,
            num_hidden_layers=a.depth,
            num_attention_heads=a.n_heads,
            intermediate_size=int(a.width * a.mlp_ratio),
            layer_norm_eps=a.layer_norm_eps,
            hidden_act="gelu",
            attn_implementation="sdpa",  # type: ignore[call-arg]  # taken through **kwargs
        )
        self.layers = nn.ModuleList(ViTLayer(config) for _ in range(a.depth))
        self.norm = nn.LayerNorm(a.width, eps=a.layer_norm_eps)
        self.genre: nn.Module = nn.Linear(a.width, a.n_classes)
        if a.head_hidden:
            self.genre = nn.Sequential(
                nn.Linear(a.width, a.head_hidden), nn.GELU(), nn.Linear(a.head_hidden, a.n_classes)
            )
        self.tags = nn.Linear(a.width, a.n_tags) if a.n_tags else None
        self.embedding = nn.Linear(a.width, a.n_embedding) if a.n_embedding else None
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normals of 0.02, as ViT's reference implementation has them; convolutions keep torch's own."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.position, std=0.02)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, mels: Tensor, keep: Tensor | None = None) -> Answers:
        """`keep` (B, n) holds indices of the patches that are seen (patch drop-out, training only)."""
        return self.answer(self.pooled(mels, keep))

    def answer(self, pooled: Tensor) -> Answers:
        """The heads: (B, width) -> Answers."""
        empty = pooled[:, :0]
        return Answers(
            self.genre(pooled),
            empty if self.tags is None else self.tags(pooled),
            pooled if self.embedding is None else self.embedding(pooled),
        )

    def pooled(self, mels: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, n_mels, 224) -> (B, width): the class token, or the mean of the patches."""
        return self.pooled_tokens(self.tokens(mels), keep)

    def tokens(self, mels: Tensor) -> Tensor:
        """(B, n_mels, 224) -> (B, n_patches, width): the patches with their places. Of all parts this is the one that
        half precision hurts: three quarters of its error come from the first convolutions.
        """
        if mels.ndim == 3:
            mels = mels.unsqueeze(1)
        tokens = self.stem(mels).flatten(2).transpose(1, 2)
        return tokens + (self.position if self.cls_token is None else self.position[:, 1:])

    def pooled_tokens(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, n_patches, width) -> (B, width), computed in the precision of the layers."""
        if keep is not None:
            tokens = tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        if self.cls_token is not None:
            # a shape is traced, len() would become a constant
            cls = (self.cls_token + self.position[:, :1]).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([cls, tokens], dim=1)
        tokens = tokens.to(self.norm.weight.dtype)
        for layer in self.layers:
            if self.checkpoint_layers and self.training:
                tokens = checkpoint(layer, tokens, use_reentrant=False)
            else:
                tokens = layer(tokens)
        tokens = self.norm(tokens)
        return tokens.mean(dim=1) if self.cls_token is None else tokens[:, 0]
