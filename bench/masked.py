"""Learning to fill in what is hidden, before there is a teacher: SimMIM (Xie et al., 2022) on mels.

Patches of the input are covered, all tokens go through the network, and a linear layer says from each token what its
patch holds. Only covered patches count; each is standardised by itself, as in MAE (He et al., 2022), so that fine
structure counts as much as loudness.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from acoustic.network.architecture import PATCH
from acoustic.network.registry import save_model
from acoustic.network.vit import MelViT
from acoustic.records import Calibration
from acoustic.training.config import TrainConfig
from acoustic.training.finish import describe
from acoustic.training.precision import attention, autocast
from acoustic.training.prepare import Prepared, Report
from acoustic.training.student import Student
from acoustic.training.train import Batches, schedule

COVERED = 0.6
"""share of the patches that are hidden"""


class Masked(nn.Module):
    """A network whose tokens say what their patches hold."""

    def __init__(self, network: MelViT) -> None:
        super().__init__()
        self.network = network
        self.cover = nn.Parameter(torch.zeros(()))
        """what a covered place shows"""
        self.says = nn.Linear(network.architecture.width, PATCH * PATCH)

    def forward(self, mels: Tensor, covered: Tensor) -> Tensor:
        """Mels (B, n_mels, 224) and which patches are covered (B, n_patches) -> the mean squared error of those."""
        rows, columns = mels.shape[1] // PATCH, mels.shape[2] // PATCH
        places = covered.view(-1, rows, columns).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        tokens = self.network.tokens(torch.where(places, self.cover, mels))
        for layer in self.network.layers:
            tokens = layer(tokens)
        error = self.says(self.network.norm(tokens)).float() - standardised(patches(mels))
        return error.square().mean(dim=2)[covered].mean()


def patches(mels: Tensor) -> Tensor:
    """(B, n_mels, 224) -> (B, n_patches, PATCH * PATCH), in the order of the network's tokens."""
    n, height, width = mels.shape
    grid = mels.view(n, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.transpose(2, 3).reshape(n, -1, PATCH * PATCH)


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, keepdim=True) + 1e-4).sqrt()


def pretrain(config: TrainConfig, prepared: Prepared, n_samples: int, folder: Path, report: Report) -> list[float]:
    """Write to `folder` a model that learned for `n_samples` to fill in the crops of the run, and has no heads worth
    the name; returns the mean error of each tenth of the way."""
    torch.manual_seed(config.seed)
    architecture = dataclasses.replace(config.architecture, n_tags=0, n_embedding=0)
    network = MelViT(architecture)
    masked = Masked(network).train()
    optimizer = torch.optim.AdamW(masked.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=0.05)
    n_steps = -(-n_samples // config.batch_size)
    n_covered = round(COVERED * architecture.n_patches)
    batches = DataLoader(
        Batches(prepared.dataset, slice(None)), batch_size=None, sampler=range(n_steps), num_workers=config.workers
    )
    precision = "float32" if config.precision == "measure" else config.precision
    errors = []
    for step, (mels, _) in enumerate(batches):
        report("masked", step, n_steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * schedule(step, n_steps, config.warmup)
        covered = torch.rand(len(mels), architecture.n_patches).argsort(dim=1) < n_covered
        optimizer.zero_grad(set_to_none=True)
        with attention("cpu"):
            with autocast(precision, "cpu"):
                error = masked(mels, covered)
            error.backward()
        nn.utils.clip_grad_norm_(masked.parameters(), config.clip_norm)
        optimizer.step()
        errors.append(error.item())
    student = Student(network.eval(), 0)
    bare = dataclasses.replace(config, tags=(), teachers=())
    save_model(folder, network, describe(bare, prepared, student, Calibration(), {}))
    tenth = max(1, len(errors) // 10)
    return [sum(part) / len(part) for i in range(0, len(errors), tenth) if (part := errors[i : i + tenth])]
