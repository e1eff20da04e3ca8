"""Checkpoints of a run: safetensors only, written aside and renamed, complete enough to go on with the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "checkpoint.safetensors"


def save(
    folder: Path, step: int, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, meta: str
) -> None:
    """Network, its running average and the optimiser's moments after `step` steps; `meta` names the run's settings."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for name, state in _moments(network, optimizer).items():
        tensors |= {f"optimizer.{name}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    part = folder / (FILE + ".part")
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, part, {"step": json.dumps(step), "meta": meta})
    part.replace(folder / FILE)


def load(
    folder: Path, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, meta: str
) -> int:
    """Restore in place what `save` kept; returns the number of steps done, 0 where there is no checkpoint of this
    run.
    """
    path = folder / FILE
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            described = file.metadata()
            if described.get("meta") != meta:
                return 0
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except SafetensorError:
        return 0
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    average.update({k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")})
    for name, parameter in network.named_parameters():
        prefix = f"optimizer.{name}."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if state:
            optimizer.state[parameter] = state
    return int(json.loads(described["step"]))


def _moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    return {name: optimizer.state[p] for name, p in network.named_parameters() if p in optimizer.state}
