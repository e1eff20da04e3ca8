"""The benchmarks' model: its head tells made songs apart, whatever the random rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acoustic.network.architecture import Architecture
from acoustic.network.vit import MelViT
from bench import made_model
from bench.made_model import teach


def made_mels(n_songs: int, n_segments: int, n_mels: int = 32) -> np.ndarray:
    """(n_songs, n_segments, n_mels, 224): each song has a spectrum of its own, segments differ by noise."""
    rng = np.random.default_rng(0)
    songs = rng.normal(0, 1, (n_songs, 1, n_mels, 1))
    return (songs + 0.1 * rng.normal(0, 1, (n_songs, n_segments, n_mels, 224))).astype(np.float32)


def test_the_taught_head_knows_songs_by_other_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_model, "RIDGE", 1.0)  # the network is small, and so is what its features spread over
    torch.manual_seed(0)
    network = MelViT(Architecture(width=48, depth=2, n_heads=3, n_mels=32, n_classes=6)).eval()
    mels = made_mels(6, 6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "genre" not in name}
    teach(network, mels[:, ::2])
    with torch.inference_mode():
        logits = network(torch.from_numpy(mels[:, 1::2].reshape(-1, 32, 224))).logits
    assert logits.argmax(dim=1).tolist() == np.repeat(np.arange(6), 3).tolist()
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor), f"{name} stays random"
