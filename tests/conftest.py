"""What all tests share: hypothesis without deadlines (machines are shared), small models, and the thread count."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from acoustic.network.backends import choice
from acoustic.network.card import ModelCard
from acoustic.network.registry import save_model
from acoustic.network.vit import Architecture, MelViT
from acoustic.records import Calibration, MelSpec, SegmentSpec
from acoustic.settings import Settings, prepare_process

settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
torch.set_num_threads(1)
prepare_process(Settings())
choice.MEASURE_S = 0  # which backend is fastest here is measured where that is tested, and nowhere else

GENRES = ("Blues", "Classical", "Jazz", "Folk")
TAGS = ("Speech", "Singing", "Music")


def small_model(folder: Path, name: str = "small", seed: int = 0) -> ModelCard:
    """A random two-layer model for four genres in `folder`/`name`: quick, and as real as any other."""
    torch.manual_seed(seed)
    architecture = Architecture(
        width=32, depth=2, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=4, n_tags=3, n_embedding=8
    )
    network = MelViT(architecture).eval()
    card = ModelCard(
        name=name,
        labels=GENRES,
        tag_labels=TAGS,
        architecture=architecture,
        mel=MelSpec(n_mels=32),
        segments=SegmentSpec(n_segments=3),
        calibration=Calibration(conformal_quantile=0.9),
        training={},
        metrics={},
        licence="Apache-2.0",
        description="random weights, for tests",
        created=datetime.date(2026, 1, 1).isoformat(),
        weights={},
    )
    return save_model(folder / name, network, card)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small random model."""
    folder = tmp_path_factory.mktemp("models")
    small_model(folder)
    return folder / "small"


@pytest.fixture
def fresh(tmp_path: Path, model_folder: Path) -> Settings:
    """Settings with the small model and folders of their own."""
    return Settings(model=str(model_folder), cache_dir=str(tmp_path / "cache"), data_dir=str(tmp_path / "data"))
