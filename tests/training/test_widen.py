"""A wider network says the same, and its copies do not stay copies."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from acoustic.network.architecture import Architecture
from acoustic.network.vit import MelViT
from acoustic.training.widen import factor_of, widen

CONV = Architecture(width=32, depth=2, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=3, n_tags=2)
PATCH = dataclasses.replace(CONV, stem="patch", pooling="cls", n_embedding=5, n_tags=0)


def lively(architecture: Architecture) -> MelViT:
    """Weights and batch-norm statistics far from their beginnings."""
    torch.manual_seed(3)
    network = MelViT(architecture).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand(tensor.shape))
    return network


@pytest.mark.parametrize("architecture", [CONV, PATCH], ids=["conv", "patch"])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_answers_stay(architecture: Architecture, factor: int) -> None:
    network = lively(architecture)
    wide = widen(network, factor)
    assert wide.architecture.width == factor * architecture.width
    mels = torch.randn(3, 32, 224, generator=torch.Generator().manual_seed(0))
    for expected, found in zip(network(mels), wide(mels), strict=True):
        if expected.shape[1] == architecture.width and not architecture.n_embedding:
            expected = expected.repeat(1, factor)  # a network without an embedding head shows its features
        assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_copies_part_at_the_first_step() -> None:
    wide = widen(lively(CONV), 2).train()
    answers = wide(torch.randn(4, 32, 224, generator=torch.Generator().manual_seed(0)))
    answers.logits.square().sum().backward()
    gradient = wide.layers[0].mlp.fc1.weight.grad
    one, other = gradient.chunk(2, dim=0)
    assert (one - other).norm() > 0.1 * one.norm()


def test_what_is_no_multiple() -> None:
    assert factor_of(CONV, dataclasses.replace(CONV, width=64, n_heads=4)) == 2
    for other in ({"width": 48, "n_heads": 3}, {"width": 64}, {"width": 64, "n_heads": 4, "depth": 3}, {}):
        assert factor_of(CONV, dataclasses.replace(CONV, **other)) is None
