"""Checkpoints of a run: safetensors only, written aside and renamed, complete enough to go on with the same numbers."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a run is: steps done, the precision that was chosen for it, the loss scaler's state (float16 alone), the
    errors summed since step `since`, where the epoch began, and what early stopping remembers."""

    step: int = 0
    precision: str = ""
    scaler: dict[str, float] = field(default_factory=dict)
    since: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    worse_epochs: int = 0
    best_error: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    """averaged weights of the best epoch; empty without early stopping"""


def save(
    folder: Path,
    progress: Progress,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    meta: str,
) -> None:
    """All that going on needs: network, its running average, the optimiser's moments; `meta` names the run's
    settings."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    tensors |= {f"best.{k}": v for k, v in progress.best.items()}
    for name, state in _moments(network, optimizer).items():
        tensors |= {f"optimizer.{name}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    numbers = {f.name: getattr(progress, f.name) for f in fields(progress) if f.name not in ("best", "best_error")}
    if math.isfinite(progress.best_error):
        numbers["best_error"] = progress.best_error
    part = folder / (FILE + ".part")
    described = {"progress": json.dumps(numbers), "meta": meta}
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part, described)
    part.replace(folder / FILE)


def load(
    folder: Path, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, meta: str
) -> Progress:
    """Restore in place what `save` kept; a fresh Progress where there is no checkpoint of this run."""
    path = folder / FILE
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, "pt") as file:
            described = file.metadata()
            if described.get("meta") != meta:
                return Progress()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except SafetensorError:
        return Progress()
    network.load_state_dict(_under("network.", tensors))
    device = next(network.parameters()).device
    average.update({k: v.to(device) for k, v in _under("average.", tensors).items()})
    for name, parameter in network.named_parameters():
        state = _under(f"optimizer.{name}.", tensors)
        if state:
            optimizer.state[parameter] = {k: v.to(device) if v.ndim else v for k, v in state.items()}
    progress = Progress(**json.loads(described["progress"]))
    progress.best = {k: v.to(device) for k, v in _under("best.", tensors).items()}
    return progress


def set_aside(folder: Path) -> str:
    """Rename a checkpoint that is not gone on with, so that changed settings cost nobody a finished run, however often
    they change; its new name, empty where there is none."""
    if not (folder / FILE).exists():
        return ""
    names = (f"before-{FILE}" if n == 1 else f"before-{n}-{FILE}" for n in itertools.count(1))
    return (folder / FILE).rename(folder / next(name for name in names if not (folder / name).exists())).name


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    return {name: optimizer.state[p] for name, p in network.named_parameters() if p in optimizer.state}
