"""ViT-B/16 with random weights, written as any model of a person is: what arithmetic costs does not depend on what the
weights know."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import torch

from acoustic.network.architecture import Architecture
from acoustic.network.card import ModelCard
from acoustic.network.registry import EMBEDDED_MODEL, Registry, save_model
from acoustic.network.vit import MelViT
from acoustic.records import Calibration
from acoustic.settings import PROJECT_ROOT

NAME = "bench-vit-b16"
SIDE = 224
"""mel bands, so that the input is as large as the original's: 224 x 224"""


def write_vit_b16(data_folder: Path, seed: int = 0) -> Path:
    """Its folder below `data_folder`, with the embedded model's genres, mel settings and segments, but SIDE bands."""
    embedded = Registry([PROJECT_ROOT / "models"]).card(EMBEDDED_MODEL)
    architecture = Architecture.named("ViT-B/16", n_mels=SIDE, n_classes=len(embedded.labels))
    card = ModelCard(
        name=NAME,
        labels=embedded.labels,
        tag_labels=(),
        architecture=architecture,
        mel=dataclasses.replace(embedded.mel, n_mels=SIDE),
        segments=embedded.segments,
        calibration=Calibration(),
        training={"data": f"none: random weights, seed {seed}"},
        metrics={},
        licence="Apache-2.0",
        description="ViT-B/16 with random weights, for benchmarks only",
        created=datetime.date.today().isoformat(),
        weights={},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MelViT(architecture).eval()
    folder = data_folder / "models" / NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_model(folder, network, card)
    return folder
