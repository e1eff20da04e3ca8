"""The network that learns: made anew or from a model folder, what of it may change, and how fast each part does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..network.card import ModelCard
from ..network.vit import Answers, MelViT
from .config import TrainConfig
from .dataset import Scale
from .prepare import Prepared
from .starting import check_start, models
from .widen import factor_of, widen


class Student(nn.Module):
    """The network that ships, and the auxiliary head that does not."""

    def __init__(self, network: MelViT, n_auxiliary: int) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = nn.Linear(network.architecture.width, n_auxiliary) if n_auxiliary else None

    def forward(self, mels: Tensor, keep: Tensor | None = None) -> tuple[Answers, Tensor]:
        pooled = self.network.pooled(mels, keep)
        auxiliary = pooled.new_zeros(len(pooled), 0) if self.auxiliary is None else self.auxiliary(pooled)
        return self.network.answer(pooled), auxiliary


def new_student(prepared: Prepared, config: TrainConfig) -> Student:
    """The student before its first step: weights drawn by the seed, or those of the model that it starts from."""
    torch.manual_seed(config.seed)
    scales = prepared.dataset.scales
    widths = [len(scale.mean) for scale in scales]
    architecture = replace(config.architecture, n_embedding=widths[0], n_tags=widths[1])
    student = Student(MelViT(architecture), widths[2])
    if config.start_from:
        check_start(config)
        network, card = models().load(config.start_from)
        if config.start_share and network.architecture.n_embedding != widths[0]:
            raise SettingsError(
                f"start_share: {card.name} has an embedding of {network.architecture.n_embedding}, the teachers one of"
                f" {widths[0]}",
                "A mean of weights needs two models of the same: leave it at 0.",
            )
        factor = factor_of(card.architecture, config.architecture)
        if factor is not None:
            network = widen(network, factor, config.seed)
        take_weights(student.network, network, card, config, scales[1])
    student.network.checkpoint_layers = config.checkpoint_layers
    freeze(student, config)
    return student


@torch.no_grad()
def take_weights(student: MelViT, network: MelViT, card: ModelCard, config: TrainConfig, tag_scale: Scale) -> None:
    """Copy what means the same in both: the trunk as it is, rows of the heads by their label or tag, the embedding head
    where the same teachers in the same order made it. The rest of the student keeps its new weights.

    A model's tag head gives its teacher's logits; the student's learns them standardised by `tag_scale`.
    """
    theirs = network.state_dict()
    heads = ("genre.", "tags.", "embedding.")
    trunk = {k: v for k, v in theirs.items() if not k.startswith(heads)}
    own = student.state_dict()
    own.update(trunk)
    if tuple(card.training.get("teachers", {})) == tuple(t.name for t in config.teachers):
        own.update({k: v for k, v in theirs.items() if k.startswith("embedding.") and own[k].shape == v.shape})
    student.load_state_dict(own)
    if isinstance(student.genre, nn.Linear) and isinstance(network.genre, nn.Linear):
        _copy_rows(student.genre, network.genre, config.labels, card.labels)
    elif card.labels == config.labels and card.architecture.head_hidden == config.architecture.head_hidden:
        student.genre.load_state_dict(network.genre.state_dict())
    if student.tags is not None and network.tags is not None:
        _copy_rows(student.tags, network.tags, config.tags, card.tag_labels)
        std, mean = (torch.from_numpy(x.astype("float32")) for x in (tag_scale.std, tag_scale.mean))
        taken = torch.tensor([tag in card.tag_labels for tag in config.tags])
        student.tags.weight[taken] /= std[taken, None]
        student.tags.bias[taken] = (student.tags.bias[taken] - mean[taken]) / std[taken]


def _copy_rows(head: nn.Linear, source: nn.Linear, names: Sequence[str], source_names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name in source_names:
            j = list(source_names).index(name)
            head.weight[i] = source.weight[j]
            head.bias[i] = source.bias[j]


@torch.no_grad()
def average_with_start(student: Student, prepared: Prepared, config: TrainConfig) -> None:
    """Keep `start_share` of the model that the run started from: between the weights of both the errors on what
    neither heard are often less than at either end (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    """
    if config.start_share > 0:
        start = new_student(prepared, config).network.state_dict()
        for name, value in student.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(start[name].to(value.device), config.start_share)


# --- what learns, and how fast ---


def freeze(student: Student, config: TrainConfig) -> None:
    """Only the last `trainable_blocks` layers, the norm after them and the heads learn; -1: everything."""
    n = config.trainable_blocks
    if n < 0:
        return
    network = student.network
    frozen = [network.stem, *network.layers[: len(network.layers) - n]]
    for parameter in (p for module in frozen for p in module.parameters()):
        parameter.requires_grad_(False)
    network.position.requires_grad_(False)
    if network.cls_token is not None:
        network.cls_token.requires_grad_(False)


def set_training(student: Student) -> None:
    """Training mode, but for a frozen stem: its batch norm must not drift under layers that do not learn."""
    student.train()
    if not any(p.requires_grad for p in student.network.stem.parameters()):
        student.network.stem.eval()


def parameter_groups(student: Student, config: TrainConfig) -> list[dict]:
    """Groups for AdamW, each with its `lr_scale`: matrices decay, biases, norms and positions do not; a layer n below
    the heads learns `layer_decay` ** n times as fast."""
    depth = len(student.network.layers)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "position" not in name and "cls_token" not in name
            scale = config.layer_decay ** _below_heads(name, depth)
            groups.setdefault((scale, decays), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": config.weight_decay * decays, "lr_scale": scale}
        for (scale, decays), parameters in groups.items()
    ]


def _below_heads(name: str, depth: int) -> int:
    """How many layers a parameter lies below the heads: 0 for heads and last norm, depth + 1 for the stem."""
    parts = name.split(".")
    if parts[:2] == ["network", "layers"]:
        return depth - int(parts[2])
    return depth + 1 if parts[1] in ("stem", "position", "cls_token") else 0


def trainable(student: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that learn."""
    return (p for p in student.parameters() if p.requires_grad)


@torch.no_grad()
def update_average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and batch-norm statistics; counters are copied."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
