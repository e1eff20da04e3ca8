"""The network's shapes, and that nothing in a batch reaches its neighbours."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from acoustic.network.vit import Architecture, MelViT


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_shapes(architecture: Architecture, stem: str, pooling: str) -> None:
    network = MelViT(dataclasses.replace(architecture, stem=stem, pooling=pooling)).eval()
    with torch.inference_mode():
        logits, tags, embedding = network(torch.randn(2, 32, 224))
        with_channel = network(torch.zeros(2, 1, 32, 224)).logits
        without_channel = network(torch.zeros(2, 32, 224)).logits
    assert (logits.shape, tags.shape, embedding.shape) == ((2, 3), (2, 2), (2, 5))
    assert torch.equal(with_channel, without_channel)


def test_without_side_heads(architecture: Architecture) -> None:
    network = MelViT(dataclasses.replace(architecture, n_tags=0, n_embedding=0)).eval()
    with torch.inference_mode():
        answers = network(torch.randn(2, 32, 224))
        pooled = network.pooled(torch.randn(2, 32, 224))
    assert answers.tag_logits.shape == (2, 0)
    assert answers.embedding.shape == pooled.shape == (2, 64)


def test_neighbours_change_nothing(network: MelViT) -> None:
    mels = torch.randn(3, 32, 224)
    louder = torch.stack([mels[0], 100 * mels[1], -mels[2]])
    with torch.inference_mode():
        assert torch.equal(network(mels).logits[0], network(louder).logits[0])
        torch.testing.assert_close(network(mels).logits[:1], network(mels[:1]).logits, atol=1e-5, rtol=0)


def test_keeping_every_patch_changes_nothing(architecture: Architecture, network: MelViT) -> None:
    mels = torch.randn(2, 32, 224)
    everything = torch.arange(architecture.n_patches).expand(2, -1)
    with torch.inference_mode():
        torch.testing.assert_close(network(mels, everything).logits, network(mels).logits)


def test_position_matters(network: MelViT) -> None:
    """Time and frequency are told apart: a mel played backwards, or upside down, gets another answer."""
    mels = torch.randn(1, 32, 224)
    with torch.inference_mode():
        answer = network(mels).logits
        assert not torch.allclose(answer, network(mels.flip(1)).logits, atol=1e-4)
        assert not torch.allclose(answer, network(mels.flip(2)).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "published"), [("ViT-B/16", 86_567_656), ("ViT-S/16", 22_050_664), ("ViT-Ti/16", 5_717_416)]
)
def test_published_sizes(name: str, published: int) -> None:
    """As many parameters as the published networks for 1000 classes, but for the filters of two of three channels."""
    with torch.device("meta"):
        network = MelViT(Architecture.named(name, n_classes=1000))
    n = sum(parameter.numel() for parameter in network.parameters())
    assert n + 2 * 16 * 16 * network.architecture.width == published


def test_bands_must_fill_patches() -> None:
    with pytest.raises(ValueError, match="multiple of 16, got 100"):
        MelViT(Architecture(n_mels=100))
