"""What is written down while a run learns: one record an epoch, in a file that survives a kill, and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..writing import write_whole

FILE = "history.jsonl"
FOLDER = "tensorboard"


@dataclass(frozen=True, slots=True)
class Epoch:
    """The state of a run after an epoch: mean training errors in it, errors on held-out groups, learning rate."""

    number: int
    step: int
    n_steps: int
    learning_rate: float
    samples_per_s: float
    train: dict[str, float]
    held_out: dict[str, float]

    def line(self) -> str:
        """The epoch on one line."""
        train, held = (
            "  ".join(f"{name} {value:.3f}" for name, value in part.items()) for part in (self.train, self.held_out)
        )
        return (
            f"epoch {self.number}  step {self.step}/{self.n_steps}  train {train}  held-out {held}  "
            f"rate {self.learning_rate:.1e}  {self.samples_per_s:.0f} samples/s"
        )


@dataclass
class Logbook:
    """The epochs of a run in `folder`; `log` gets each as a line. Nothing is written where `folder` is None."""

    folder: Path | None
    log: Callable[[str], None]
    epochs: list[Epoch] = field(default_factory=list)
    _writer: Any = None

    def open(self, after_step: int) -> None:
        """Take up what was written up to `after_step`: what a killed run wrote beyond its checkpoint is forgotten."""
        if self.folder is None:
            return
        self.epochs = [epoch for epoch in read_history(self.folder) if epoch.step <= after_step]
        text = "".join(json.dumps(_to_dict(epoch)) + "\n" for epoch in self.epochs)
        write_whole(self.folder / FILE, text.encode())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.log("TensorBoard is not installed: no logs for it (./start.sh train installs it)")
            return
        self._writer = SummaryWriter(str(self.folder / FOLDER), purge_step=after_step + 1)

    def add(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        self.log(epoch.line())
        if self.folder is None:
            return
        with open(self.folder / FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(_to_dict(epoch)) + "\n")
        if self._writer is not None:
            scalars = {"learning_rate": epoch.learning_rate, "samples_per_s": epoch.samples_per_s}
            scalars |= {f"train/{name}": value for name, value in epoch.train.items()}
            scalars |= {f"held_out/{name}": value for name, value in epoch.held_out.items()}
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch.step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def read_history(folder: Path) -> list[Epoch]:
    """The epochs that were written in `folder`; a line that was cut by a kill ends them."""
    epochs: list[Epoch] = []
    path = folder / FILE
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                epochs.append(Epoch(**json.loads(line)))
            except (ValueError, TypeError):
                break
    return epochs


def _to_dict(epoch: Epoch) -> dict[str, Any]:
    return {name: getattr(epoch, name) for name in Epoch.__slots__}
