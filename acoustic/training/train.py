"""The run itself: student, batches, losses, optimiser, checkpoints; resumable, seeded, in one process or several.

The student learns four things of each crop at once: the teachers' embeddings, one teacher's tags, the other teachers'
logits (a head that is thrown away afterwards), and the genre. The first three are squared errors of standardised
targets, the last a cross-entropy with soft labels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import DivergedError
from ..network.vit import Answers
from ..records import N_FRAMES
from . import checkpoint
from .checkpoint import Progress
from .config import TrainConfig
from .dataset import CropDataset, Targets
from .labels import index_of
from .logbook import Epoch, Logbook
from .precision import DTYPES, attention, autocast, choose, scaler_for
from .prepare import Prepared, Report
from .processes import Processes, share_batch_norm
from .starting import start_digest
from .student import Student, new_student, parameter_groups, set_training, trainable, update_average
from .targets import stamp

Log = Callable[[str], None]
VALIDATION_CROPS = 300
MEASURE_STEPS = 500
"""a shorter run computes in float32 unless its configuration names a precision: what is fastest is not the same each
time that it is measured, and there is little to gain"""
MIN_CHECKPOINTS = 10
"""that a run writes, however short it is"""
AFTERWARDS = ("start_share", "head_labelled", "head_ridge", "segments", "coverage", "review_accuracy")
"""keys that have their say when the last step is done"""
TERMS = ("embedding", "tags", "auxiliary", "genre")


def fit(
    config: TrainConfig,
    prepared: Prepared,
    work: Path,
    report: Report,
    log: Log,
    *,
    device: str = "cpu",
    processes: Processes | None = None,
) -> Student:
    """Train to the end (or go on from the last checkpoint in `work`) and return the student with its averaged weights,
    the same in every process. DivergedError where the errors become infinite."""
    processes = processes or Processes(device=device)
    work.mkdir(parents=True, exist_ok=True)
    student = new_student(prepared, config).to(device)
    optimizer = torch.optim.AdamW(parameter_groups(student, config), lr=config.learning_rate, betas=(0.9, 0.98))
    average = {k: v.detach().clone() for k, v in student.state_dict().items()}
    meta = fingerprint(config, prepared.stamp)
    progress = checkpoint.load(work, student, average, optimizer, meta)
    n_steps = math.ceil(config.samples / config.batch_size)
    if progress.step:
        log(f"goes on from step {progress.step}")
    elif not progress.precision and processes.first and (aside := checkpoint.set_aside(work)):
        log(f"begins anew: the checkpoint that was here is of another run, or torn; it is kept as {aside}")
    set_training(student)
    if not progress.precision:
        wanted = "float32" if config.precision == "measure" and n_steps < MEASURE_STEPS else config.precision
        chosen = choose(wanted, device, lambda name: _try_step(student, config, device, name))
        progress.precision = list(DTYPES)[processes.of_first(list(DTYPES).index(chosen))]  # each measured by itself
        if processes.first:  # killed before its first checkpoint, it would measure again, and not always find the same
            checkpoint.save(work, progress, student, average, optimizer, meta)
    run = _Run(config, prepared, student, device, processes, progress.precision)
    if progress.scaler:
        run.scaler.load_state_dict(progress.scaler)
    epoch_steps = steps_in_epoch(config, prepared)
    checkpoint_steps = min(config.checkpoint_steps, max(1, n_steps // MIN_CHECKPOINTS))
    book = Logbook(work if processes.first else None, log)
    book.open(progress.step)
    progress.sums = progress.sums or dict.fromkeys(TERMS, 0.0)
    timed_from, begun = progress.step, time.perf_counter()
    steps = range(progress.step, n_steps)
    for step, batch in zip(steps, run.batches(steps), strict=True):
        if progress.stopped:
            break
        report("train", step, n_steps)
        rate = config.learning_rate * schedule(step, n_steps, config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        for name, value in run.step(optimizer, batch, patch_choice(config, step, n_steps)).items():
            progress.sums[name] += value
        if not all(map(math.isfinite, progress.sums.values())):
            raise DivergedError(
                f"the errors are no numbers any more at step {step}; what was learned until then is kept in {work}"
            )
        update_average(average, student, min(config.ema, (step + 1) / (step + 10)))
        progress.step = step + 1
        if progress.step % epoch_steps == 0 or progress.step == n_steps:
            held_out = validate(student, average, prepared, config, device)
            n = progress.step - progress.since
            speed = (progress.step - timed_from) * config.batch_size / (time.perf_counter() - begun)
            train = {name: value / n for name, value in progress.sums.items()}
            number = math.ceil(progress.step / epoch_steps)
            book.add(Epoch(number, progress.step, n_steps, rate, speed, train, held_out))
            _judge(progress, held_out, average, config)
            progress.sums, progress.since = dict.fromkeys(TERMS, 0.0), progress.step
            timed_from, begun = progress.step, time.perf_counter()
        due = progress.step % checkpoint_steps == 0 or progress.step == n_steps or progress.stopped
        if due and processes.first:
            progress.scaler = run.scaler.state_dict()
            checkpoint.save(work, progress, student, average, optimizer, meta)
    book.close()
    processes.wait()
    student.load_state_dict(progress.best or average)
    return student.cpu().eval()


def _judge(progress: Progress, held_out: dict[str, float], average: dict[str, Tensor], config: TrainConfig) -> None:
    """Early stopping: keep the weights of the best epoch, and stop after too many that were worse."""
    if not config.early_stop_epochs:
        return
    error = sum(_weight(config, name) * held_out[name] for name in TERMS)
    if error < progress.best_error:
        progress.best_error, progress.worse_epochs = error, 0
        progress.best = {k: v.detach().clone() for k, v in average.items()}
    else:
        progress.worse_epochs += 1
        progress.stopped = progress.worse_epochs >= config.early_stop_epochs


def use_threads(n: int) -> None:
    """Threads of this process's tensor operations."""
    torch.set_num_threads(n)


class Batches(Dataset[tuple[Tensor, Targets]]):
    """Step -> its batch, or this process's part of it."""

    def __init__(self, dataset: CropDataset, part: slice) -> None:
        self.dataset, self.part = dataset, part

    def __getitem__(self, step: int) -> tuple[Tensor, Targets]:
        return self.dataset.batch(step, self.part)


class _Run:
    """The optimiser's step of one process: its part of the batch, in `accumulate` pieces."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        student: Student,
        device: str,
        processes: Processes,
        precision: str,
    ) -> None:
        self.config, self.dataset, self.student = config, prepared.dataset, student
        self.device, self.processes, self.precision = device, processes, precision
        self.part = processes.part(config.batch_size)
        self.scaler = scaler_for(precision, device)
        self.module: nn.Module = student
        if processes.n > 1:
            share_batch_norm(student)
            self.module = nn.parallel.DistributedDataParallel(student, broadcast_buffers=False)

    def batches(self, steps: range) -> Iterable[tuple[Tensor, Targets]]:
        """This process's part of each step's batch, made ahead by `workers` processes if there are any."""
        source = Batches(self.dataset, self.part)
        return DataLoader(source, batch_size=None, sampler=steps, num_workers=self.config.workers)

    def step(
        self, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Targets], keep: Tensor | None
    ) -> dict[str, float]:
        """One step of the optimiser; `keep` names the patches of the whole batch that are seen. Returns the mean errors
        of the whole batch."""
        config = self.config
        mels, targets = batch
        targets = _on(targets, self.device)
        n_genre = self.processes.total(targets.genre_weight.sum()).clamp_min(1)
        optimizer.zero_grad(set_to_none=True)
        pieces = torch.arange(len(mels)).chunk(config.accumulate)
        means = {name: torch.zeros((), device=self.device) for name in TERMS}
        keep = None if keep is None else keep[self.part].to(self.device)
        for number, piece in enumerate(pieces):
            alone = self.processes.n > 1 and number + 1 < len(pieces)
            with (
                self.module.no_sync() if alone else nullcontext(),  # type: ignore[operator]
                attention(self.device),  # on the way back, too: recomputed layers must go the way they went
            ):
                with autocast(self.precision, self.device):
                    answers, auxiliary = self.module(mels[piece].to(self.device), None if keep is None else keep[piece])
                    sums = loss_sums(answers, auxiliary, _piece(targets, piece), self.dataset, config)
                    parts = {n: s / (n_genre if n == "genre" else config.batch_size) for n, s in sums.items()}
                    loss = sum((_weight(config, name) * value for name, value in parts.items()), mels.new_zeros(()))
                self.scaler.scale(loss * self.processes.n).backward()  # DDP takes the mean over processes, we the sum
            for name, value in parts.items():
                means[name] += value.detach()
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(list(trainable(self.student)), config.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        totals = self.processes.total(torch.stack([means[name].float() for name in TERMS]))
        return dict(zip(TERMS, totals.tolist(), strict=True))


# --- pieces ---


def loss_sums(
    answers: Answers, auxiliary: Tensor, targets: Targets, dataset: CropDataset, config: TrainConfig
) -> dict[str, Tensor]:
    """The four errors summed over the samples of a piece, each a scalar; embedding, tags and auxiliary as shares of the
    targets' variance, weighted by teacher."""
    soft = (1 - config.label_smoothing) * targets.genre + config.label_smoothing / targets.genre.shape[1]
    genre = -(soft * F.log_softmax(answers.logits.float(), dim=1)).sum(dim=1)
    return {
        "embedding": _squared(answers.embedding, targets.embedding, dataset.embedding_weight),
        "tags": _squared(answers.tag_logits, targets.tags, None),
        "auxiliary": _squared(auxiliary, targets.auxiliary, dataset.auxiliary_weight),
        "genre": (genre * targets.genre_weight).sum(),
    }


def _on(targets: Targets, device: str) -> Targets:
    return Targets(*(getattr(targets, field.name).to(device) for field in fields(targets)))


def _piece(targets: Targets, samples: Tensor) -> Targets:
    return Targets(*(getattr(targets, field.name)[samples] for field in fields(targets)))


def _squared(answer: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Squared error, the mean over dimensions and the sum over samples; nothing where there are no dimensions."""
    if not target.shape[1]:
        return target.new_zeros(())
    error = (answer.float() - target).square()
    return (error if weight is None else error * weight.to(error.device)).mean(dim=1).sum()


def _weight(config: TrainConfig, term: str) -> float:
    return float(getattr(config, f"{term.removesuffix('s')}_weight"))


def patch_choice(config: TrainConfig, step: int, n_steps: int) -> Tensor | None:
    """Indices (batch_size, kept) of the patches that are seen in this step, drawn anew for each sample; None for
    all."""
    if config.patch_dropout <= 0 or step >= config.whole_from * n_steps:
        return None
    n_patches = config.architecture.n_patches
    generator = torch.Generator().manual_seed((config.seed + 7_919 * config.draws) * 1_000_003 + step)
    kept = max(1, round(n_patches * (1 - config.patch_dropout)))
    return torch.rand(config.batch_size, n_patches, generator=generator).argsort(dim=1)[:, :kept]


def schedule(step: int, n_steps: int, warmup: float) -> float:
    """Linear warm-up over the first share `warmup`, then half a cosine to zero."""
    n_warm = max(1, round(warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))


def steps_in_epoch(config: TrainConfig, prepared: Prepared) -> int:
    """Steps in which as many crops are drawn as fit side by side into the training files."""
    d = prepared.dataset
    n_crops = sum(max(1, d.store.length(t) // d.n_crop) for t in prepared.train)
    return max(1, math.ceil(n_crops / config.batch_size))


def fingerprint(config: TrainConfig, data_stamp: str) -> str:
    """A digest of what moves a weight: settings, data (`data_stamp`) and the model that it starts from. A checkpoint of
    another run is not gone on with. Texts do not count, nor do keys that say only how the work is done or what is made
    of the weights after it.
    """
    settings = asdict(replace(config, description="", licence="", checkpoint_steps=1, workers=0))
    for name in AFTERWARDS:
        del settings[name]
    for part in (*settings["sources"], *settings["teachers"]):
        part.update(licence="", cite="")
    return stamp(sorted(settings.items()), data_stamp, start_digest(config))


@torch.inference_mode()
def validate(
    student: Student, average: dict[str, Tensor], prepared: Prepared, config: TrainConfig, device: str
) -> dict[str, float]:
    """Mean errors of the averaged weights on clean middle crops of held-out music, and the accuracy of those crops
    whose file has a genre."""
    own = {k: v.clone() for k, v in student.state_dict().items()}
    student.load_state_dict(average)
    student.eval()
    d = prepared.dataset
    chosen = prepared.held_music(VALIDATION_CROPS)
    sums = dict.fromkeys(TERMS, 0.0)
    n_right = n_labelled = 0
    for i in range(0, len(chosen), config.batch_size):
        part = chosen[i : i + config.batch_size]
        mels = torch.stack([d.clean(t, d.middle(t)) for t in part])
        columns = zip(*(d.standard_targets(t, d.middle(t)) for t in part), strict=True)
        targets = Targets(*(torch.from_numpy(np.stack(c).astype(np.float32)).to(device) for c in columns))
        answers, auxiliary = student(mels.to(device))
        for name, value in loss_sums(answers, auxiliary, targets, d, config).items():
            sums[name] += float(value)
        for track, best in zip(part, answers.logits.argmax(dim=1).tolist(), strict=True):
            genre = index_of(d.rows[track], config.labels)
            n_labelled += genre is not None
            n_right += genre == best
    student.load_state_dict(own)
    set_training(student)
    errors = {name: value / max(1, len(chosen)) for name, value in sums.items()}
    return {**errors, "accuracy": n_right / max(1, n_labelled)}


def _try_step(student: Student, config: TrainConfig, device: str, precision: str) -> None:
    """One pass forward and back on noise, for its time; leaves weights and statistics as they were."""
    kept = {k: v.clone() for k, v in student.state_dict().items()}
    n = max(1, config.batch_size // config.accumulate)
    mels = torch.randn(n, config.mel.n_mels, N_FRAMES, device=device)
    with attention(device):
        with autocast(precision, device):
            answers, auxiliary = student(mels)
            loss = sum((x.float().square().mean() for x in (*answers, auxiliary) if x.numel()), mels.new_zeros(()))
        loss.backward()
    student.zero_grad(set_to_none=True)
    student.load_state_dict(kept)
