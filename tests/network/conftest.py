"""A small network and its card; every test of this room starts from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acoustic.network.card import ModelCard
from acoustic.network.registry import Registry, save_model
from acoustic.network.vit import Architecture, MelViT
from acoustic.records import Calibration, MelSpec, SegmentSpec


@pytest.fixture
def architecture() -> Architecture:
    return Architecture(
        width=64, depth=2, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=3, n_tags=2, n_embedding=5
    )


@pytest.fixture
def network(architecture: Architecture) -> MelViT:
    """Seeded; batch-norm's statistics are moved off their defaults, so that forgetting them changes the answers, and
    what separates one input from another is made as large as in a network that has learned."""
    torch.manual_seed(1)
    network = MelViT(architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        for head in (network.genre, network.tags, network.embedding):
            head.weight.mul_(100)
    return network.eval()


@pytest.fixture
def card(architecture: Architecture) -> ModelCard:
    return ModelCard(
        name="small",
        labels=("Blues", "R&B", "Ñandú"),
        tag_labels=("Music", "Speech"),
        architecture=architecture,
        mel=MelSpec(n_mels=32),
        segments=SegmentSpec(n_segments=4),
        calibration=Calibration(temperature=1.25, conformal_quantile=0.8),
        training={"data": [{"name": "made up", "licence": "CC0-1.0"}], "epochs": 3},
        metrics={"accuracy": 0.5, "interval": [0.4, 0.6]},
        licence="Apache-2.0",
        description="A small network of random numbers.",
        created="2026-01-31",
        weights={"model.safetensors": "0" * 64},
    )


@pytest.fixture
def models(tmp_path: Path, network: MelViT, card: ModelCard) -> Path:
    """A folder of models that holds one: `small`, in float32."""
    folder = tmp_path / "models"
    save_model(folder / "small", network, card, torch.float32)
    return folder


@pytest.fixture
def registry(models: Path) -> Registry:
    return Registry([models])
