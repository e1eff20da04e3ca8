"""The run itself: manifest -> split -> targets -> student -> checkpoint, resumable at every checkpoint, seeded.

The student learns four things of each crop at once: the teachers' embeddings, one teacher's tags, the other teachers'
logits (a head that is thrown away afterwards), and the genre. The first three are squared errors of standardised
targets, the last a cross-entropy with soft labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ManifestError
from ..network.vit import Answers, MelViT
from . import checkpoint
from .config import TrainConfig
from .dataset import CropDataset, Targets
from .labels import TeacherSpace, fit_teacher_space, index_of
from .manifest import Row, held_out, read_rows
from .targets import ask_teacher, build_waveforms

Report = Callable[[str, int, int], None]
Log = Callable[[str], None]
VALIDATION_CROPS = 300


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


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before its first step. `train` and `held` are track numbers; no group is in both."""

    rows: list[Row]
    dataset: CropDataset
    train: list[int]
    held: list[int]


def prepare(config: TrainConfig, data: Path, work: Path, report: Report) -> Prepared:
    """Read and check the manifests, decode, ask the teachers (all kept in `work`), fit the soft labels."""
    rows = read_rows(config, data)
    store = build_waveforms(rows, data, work / "targets", config.mel.sample_rate, report)
    answers = [ask_teacher(spec, store, data, work / "targets", report) for spec in config.teachers]
    held = [t for t, row in enumerate(rows) if held_out(row, config.seed, config.held_out)]
    kept = set(held)
    train = [t for t in range(len(rows)) if t not in kept]
    _check_parts(rows, train, held)
    dataset = CropDataset(config, rows, store, answers)
    dataset.space = _fit_space(config, dataset, train)
    dataset.fit_scales([t for t in train if rows[t].kind == "music"])
    dataset.prepare_draws(train)
    return Prepared(rows, dataset, train, held)


def _check_parts(rows: Sequence[Row], train: Sequence[int], held: Sequence[int]) -> None:
    """Refuse before the long work what could not be finished after it."""
    for name, part in (("training", train), ("held-out", held)):
        if not any(rows[t].genre for t in part):
            raise ManifestError(
                f"the {name} part has no labelled file", "Label more files, or change `held_out` or `seed`."
            )


def _fit_space(config: TrainConfig, dataset: CropDataset, train: Sequence[int]) -> TeacherSpace:
    """The teacher space, fitted on the labelled tracks of the training part."""
    weights = {source.name: source.label_weight for source in config.sources}
    labelled = [t for t in train if dataset.rows[t].genre and weights[dataset.rows[t].source] > 0]
    features = np.stack([dataset.features(t, dataset.middle(t)) for t in labelled])
    genres = np.asarray([index_of(dataset.rows[t], config.labels) for t in labelled])
    trust = np.asarray([weights[dataset.rows[t].source] for t in labelled])
    return fit_teacher_space(features, genres, trust, len(config.labels))


def new_student(prepared: Prepared, config: TrainConfig) -> Student:
    torch.manual_seed(config.seed)
    d = prepared.dataset
    widths = [len(scale.mean) for scale in d.scales]
    architecture = replace(config.architecture, n_embedding=widths[0], n_tags=widths[1])
    return Student(MelViT(architecture), widths[2])


def fit(config: TrainConfig, prepared: Prepared, work: Path, report: Report, log: Log) -> Student:
    """Train to the end (or go on from the last checkpoint) and return the student with its averaged weights."""
    student = new_student(prepared, config)
    optimizer = torch.optim.AdamW(
        parameter_groups(student, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
    )
    average = {k: v.detach().clone() for k, v in student.state_dict().items()}
    meta = fingerprint(config, prepared.dataset.store.stamp)
    done = checkpoint.load(work, student, average, optimizer, meta)
    n_steps = math.ceil(config.samples / config.batch_size)
    student.train()
    running: list[float] = []
    for step in range(done, n_steps):
        report("train", step, n_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, n_steps, config.warmup)
        mels, targets = prepared.dataset.batch(step)
        losses = loss_terms(student, mels, targets, config, patch_choice(config, step, len(mels)))
        optimizer.zero_grad(set_to_none=True)
        total_loss(losses, config).backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
        optimizer.step()
        update_average(average, student, min(config.ema, (step + 1) / (step + 10)))
        running.append(float(losses["embedding"].detach()))
        if (step + 1) % config.checkpoint_steps == 0 or step + 1 == n_steps:
            checkpoint.save(work, step + 1, student, average, optimizer, meta)
        if (step + 1) % (5 * config.checkpoint_steps) == 0 or step + 1 == n_steps:
            log(
                f"step {step + 1}/{n_steps}  train embedding {np.mean(running):.3f}  "
                + _validate(student, average, prepared, config)
            )
            running.clear()
    student.load_state_dict(average)
    return student.eval()


def use_threads(n: int) -> None:
    """Threads of this process's tensor operations."""
    torch.set_num_threads(n)


# --- pieces ---


def loss_terms(
    student: Student, mels: Tensor, targets: Targets, config: TrainConfig, keep: Tensor | None
) -> dict[str, Tensor]:
    """The four errors of a batch, each a scalar; embedding, tags and auxiliary as shares of the targets' variance."""
    answers, auxiliary = student(mels, keep)
    genre = -(targets.genre * F.log_softmax(answers.logits, dim=1)).sum(dim=1)
    return {
        "embedding": F.mse_loss(answers.embedding, targets.embedding),
        "tags": F.mse_loss(answers.tag_logits, targets.tags),
        "auxiliary": F.mse_loss(auxiliary, targets.auxiliary) if auxiliary.shape[1] else answers.logits.new_zeros(()),
        "genre": (genre * targets.genre_weight).sum() / targets.genre_weight.sum().clamp_min(1),
    }


def total_loss(losses: dict[str, Tensor], config: TrainConfig) -> Tensor:
    return (
        config.embedding_weight * losses["embedding"]
        + config.tag_weight * losses["tags"]
        + config.auxiliary_weight * losses["auxiliary"]
        + config.genre_weight * losses["genre"]
    )


def patch_choice(config: TrainConfig, step: int, n: int) -> Tensor | None:
    """Indices (n, kept) of the patches that are seen in this step, drawn anew for each sample; None for all."""
    if config.patch_dropout <= 0:
        return None
    n_patches = config.architecture.n_patches
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    kept = max(1, round(n_patches * (1 - config.patch_dropout)))
    return torch.rand(n, n_patches, generator=generator).argsort(dim=1)[:, :kept]


def schedule(step: int, n_steps: int, warmup: float) -> float:
    """Linear warm-up over the first share `warmup`, then half a cosine to zero."""
    n_warm = max(1, round(warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and positions do not."""
    decayed = [p for name, p in module.named_parameters() if p.ndim > 1 and "position" not in name]
    others = [p for name, p in module.named_parameters() if not (p.ndim > 1 and "position" not in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def update_average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and batch-norm statistics; counters are copied."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def fingerprint(config: TrainConfig, data_stamp: str) -> str:
    """A digest of every setting and of the data: a checkpoint of another run is not gone on with. Texts do not
    count.
    """
    settings = asdict(replace(config, description="", licence=""))
    for part in (*settings["sources"], *settings["teachers"]):
        part.update(licence="", cite="")
    return hashlib.blake2b(json.dumps([settings, data_stamp], sort_keys=True).encode(), digest_size=16).hexdigest()


@torch.inference_mode()
def _validate(student: Student, average: dict[str, Tensor], prepared: Prepared, config: TrainConfig) -> str:
    """Errors of the averaged weights on clean crops of held-out groups, as one line."""
    own = {k: v.clone() for k, v in student.state_dict().items()}
    student.load_state_dict(average)
    student.eval()
    d = prepared.dataset
    tracks = [t for t in prepared.held if d.rows[t].kind == "music"]
    chosen = np.random.default_rng(0).permutation(tracks)[:VALIDATION_CROPS]
    sums: dict[str, float] = {}
    for i in range(0, len(chosen), config.batch_size):
        part = [int(t) for t in chosen[i : i + config.batch_size]]
        mels = torch.stack([d.clean(t, d.middle(t)) for t in part])
        columns = zip(*(d.standard_targets(t, d.middle(t)) for t in part), strict=True)
        targets = Targets(*(torch.from_numpy(np.stack(c).astype(np.float32)) for c in columns))
        for name, value in loss_terms(student, mels, targets, config, None).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    student.load_state_dict(own)
    student.train()
    return "held-out " + "  ".join(f"{name} {value / max(1, len(chosen)):.3f}" for name, value in sums.items())
