"""ViT-B/16 with random weights, and its int8 graph, written as any model of a person is: what arithmetic costs does not
depend on what the weights know.

Only the genre head is taught: by a ridge regression it tells sixteen made songs apart. A random head gives all songs
nearly the same logits, and what int8 costs in accuracy would be the toss of a coin.
"""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from acoustic import decoding
from acoustic.errors import BackendError
from acoustic.network.architecture import Architecture
from acoustic.network.card import ModelCard
from acoustic.network.registry import EMBEDDED_MODEL, Registry, save_model
from acoustic.network.vit import MelViT
from acoustic.records import Calibration, MelSpec, SegmentSpec
from acoustic.settings import PROJECT_ROOT, Settings
from acoustic.signal.mel import normalize

from .songs import write_songs

NAME = "bench-vit-b16"
SIDE = 224
"""mel bands, so that the input is as large as the original's: 224 x 224"""
SONG_S, N_SEGMENTS, N_TAUGHT = 90.0, 10, 3
"""of the made songs, one a genre; three segments of each teach and calibrate, the rest test: enough to tell what
int8 costs (`network.quantized.MIN_TESTED`)"""
RIDGE = 1_000.0
"""Strength of the regression: weak ones rest on directions in which songs hardly differ."""
BATCH = 8


@dataclass(frozen=True, slots=True)
class Made:
    """A model's folder, and a sentence on what its int8 graph costs or on why there is none."""

    folder: Path
    int8: str


def write_vit_b16(data_folder: Path, n_threads: int, seed: int = 0, *, int8: bool = True) -> Made:
    """The model below `data_folder`, with the embedded model's genres, mel settings and segments, but SIDE bands.

    NNCF, which makes the int8 graph, comes with what training installs; without it the other precisions are measured
    all the same.
    """
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
        training={"data": f"made songs for the head; the rest are random weights, seed {seed}"},
        metrics={},
        licence="Apache-2.0",
        description="ViT-B/16 with random weights, for benchmarks only",
        created=datetime.date.today().isoformat(),
        weights={},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MelViT(architecture).eval()
    mels = np.stack(list(_mels(card.mel, len(card.labels))))
    teach(network, mels[:, :N_TAUGHT])
    folder = data_folder / "models" / NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    card = save_model(folder, network, card)
    return Made(folder, _add_int8(folder, card, network, mels, n_threads) if int8 else "no int8: not asked for")


def _mels(spec: MelSpec, n_songs: int) -> Iterator[np.ndarray]:
    """Normalised mels (N_SEGMENTS, n_mels, 224) of one made song after the other."""
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        for song in write_songs(Path(name), n_songs, ("wav",), SONG_S):
            heard = decoding.hear(song, spec, SegmentSpec(N_SEGMENTS), Settings())
            yield normalize(heard.arrays["mels"], spec)


@torch.inference_mode()
def teach(network: MelViT, mels: np.ndarray) -> None:
    """Fit the genre head so that class i is song i: mels (n_classes, K, n_mels, 224), normalised."""
    n_classes, n_segments = mels.shape[:2]
    flat = torch.from_numpy(mels.reshape(-1, *mels.shape[2:]))
    pooled = torch.cat([network.pooled(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]).double()
    wanted = torch.eye(n_classes, dtype=torch.float64).repeat_interleave(n_segments, dim=0) - 1 / n_classes
    mean = pooled.mean(dim=0)
    x = pooled - mean
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=torch.float64), x.T @ wanted)
    head = network.genre
    assert isinstance(head, nn.Linear)
    head.weight.copy_(weights.T)
    head.bias.copy_(-(mean @ weights))


def _add_int8(folder: Path, card: ModelCard, network: MelViT, mels: np.ndarray, n_threads: int) -> str:
    from acoustic.network.quantize import quantize
    from acoustic.network.quantized import file_of, write

    n_songs, shape = len(mels), mels.shape[2:]
    calibration, tested = (part.reshape(-1, *shape) for part in np.split(mels, [N_TAUGHT], axis=1))
    targets = np.repeat(np.arange(n_songs), len(tested) // n_songs)
    try:
        made = quantize(network, calibration, tested, targets, about="made songs", n_threads=n_threads)
    except BackendError as error:
        return f"no int8: {error.message}"
    write(file_of(folder), made, card.weights_digest)
    return f"int8: {made.cost.told()}"
