"""What each idea of the recipe brings: short runs from nothing that are alike but for one thing.

    python -m bench.ideas configs/embedded.toml --data FOLDER --work runs/ideas [--samples 40000] [--only NAME ...]

Every run has as many samples, the same split and, but for the second one, the same draws. All are judged on the same
held-out tracks of music, as the engine would hear them: by the cross-entropy in nats of the mean of their segments with
what the teachers say of the whole track, and by the accuracy on those that have a genre; in brackets how far from the
first run, with the half-width of the 95 % interval of that difference, counted by groups. The second run says how far
two runs of one recipe are apart. The error of the embedding is that of the middle crop, as a share of the variance of
what the first run's teachers say of it. Each run is kept in the work folder; what is there is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from acoustic.network.backends.eager import EagerBackend
from acoustic.network.card import CARD_FILE
from acoustic.network.registry import Registry, save_model
from acoustic.records import Calibration
from acoustic.settings import Settings, prepare_process
from acoustic.training.calibrate import votes_of
from acoustic.training.config import TeacherSpec, TrainConfig
from acoustic.training.finish import describe
from acoustic.training.labels import index_of
from acoustic.training.precision import choose
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.train import fit
from acoustic.verdict.decision import calibrated
from acoustic.verdict.metrics import grouped_margin

from .masked import pretrain
from .segments import reference

Change = Callable[[TrainConfig], TrainConfig]
SHORT_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Idea:
    """A change of the configuration; `masked`: how much longer it learns before, to fill in what is hidden; `segments`:
    in how many the tracks are heard."""

    change: Change
    masked: float = 0.0
    segments: tuple[int, ...] = (4,)
    same_embedding: bool = True
    """whether the first of its embedding's numbers are those of the first run"""


def _augment(**changes: float) -> Change:
    return lambda config: replace(config, augment=replace(config.augment, **changes))  # type: ignore[arg-type]


def short(config: TrainConfig) -> TrainConfig:
    """Half as long segments, and teachers that hear no more at once; those of shorter windows stay as they are."""

    def asked(teacher: TeacherSpec) -> TeacherSpec:
        if teacher.window_s <= SHORT_WINDOW_S:
            return teacher
        hop_s = teacher.hop_s * SHORT_WINDOW_S / teacher.window_s
        return replace(teacher, name=f"{teacher.name}-short", window_s=SHORT_WINDOW_S, hop_s=hop_s)

    half = replace(config.mel, hop_length=config.mel.hop_length // 2)
    return replace(config, mel=half, teachers=tuple(asked(teacher) for teacher in config.teachers))


def third_teacher(config: TrainConfig) -> TrainConfig:
    """musicnn's other weights, of MagnaTagATune, beside those of the Million Song Dataset."""
    last = config.teachers[-1]
    return replace(config, teachers=(*config.teachers, replace(last, name="musicnn_mtt", arguments=("mtt",))))


IDEAS: dict[str, Idea] = {
    "as configured": Idea(lambda config: config),
    "other draws": Idea(lambda config: replace(config, draws=config.draws + 1)),
    "plain patches": Idea(lambda config: replace(config, architecture=replace(config.architecture, stem="patch"))),
    "genre alone": Idea(
        lambda config: replace(config, embedding_weight=0.0, tag_weight=0.0, auxiliary_weight=0.0), same_embedding=False
    ),
    "no mixup": Idea(_augment(mixup_p=0.0)),
    "no patch dropped": Idea(lambda config: replace(config, patch_dropout=0.0)),
    "segments of half the length": Idea(short, segments=(4, 8), same_embedding=False),
    "a third teacher": Idea(third_teacher),
    "masked patches first": Idea(lambda config: config, masked=0.5),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each held-out track of music (n,): cross-entropy, whether it is right (NaN without a genre), the error of the
    embedding (NaN where it is of other numbers)."""

    cross_entropy: np.ndarray
    right: np.ndarray
    embedding: np.ndarray


def run(name: str, idea: Idea, config: TrainConfig, data: Path, work: Path) -> tuple[Path, Prepared, TrainConfig]:
    """Train the idea, or find it done; returns the folder of its model, and what it was made of."""
    config = idea.change(config)
    prepared = prepare(config, data, work, _silent)
    folder = work / name.replace(" ", "-")
    if (folder / "model" / CARD_FILE).exists():
        return folder / "model", prepared, config
    folder.mkdir(parents=True, exist_ok=True)
    if idea.masked:
        before = folder / "before"
        errors = pretrain(config, prepared, round(idea.masked * config.samples), before, _silent)
        print(f"  filled in: error {', '.join(f'{error:.3f}' for error in errors)}", flush=True)
        config = replace(config, start_from=str(before.resolve()))
    student = fit(config, prepared, folder, _silent, lambda line: print(f"  {line}", flush=True))
    save_model(folder / "model", student.network, describe(config, prepared, student, Calibration(), {}))
    return folder / "model", prepared, config


def _silent(name: str, done: int, n: int) -> None:
    pass


def judge(
    model: Path, config: TrainConfig, idea: Idea, prepared: Prepared, first: Prepared, truth: dict[int, np.ndarray]
) -> list[Judged]:
    """How good a model is on the tracks of `truth`, once for each of the idea's numbers of segments; `first` are the
    targets that the embedding is held against."""
    network, _ = Registry([]).load(model)
    backend = EagerBackend(network, "cpu")
    tracks = list(truth)
    genres = [index_of(first.rows[t], config.labels) for t in tracks]
    embedding = np.full(len(tracks), np.nan)
    if idea.same_embedding:
        mels = np.stack([prepared.dataset.clean(t, prepared.dataset.middle(t)).numpy() for t in tracks])
        wanted = np.stack([first.dataset.standard_targets(t, first.dataset.middle(t))[0] for t in tracks])
        said = np.concatenate([backend(part).embeddings for part in np.array_split(mels, 1 + len(mels) // 64)])
        embedding = ((said[:, : wanted.shape[1]] - wanted) ** 2).mean(axis=1)
    judged = []
    for n in idea.segments:
        spec = replace(config.segments, n_segments=n)
        votes = [votes_of(first.dataset.store, t, config, spec, backend) for t in tracks]
        p = np.stack([calibrated(v.logits, Calibration())[1] for v in votes])
        cross = -(np.stack([truth[t] for t in tracks]) * np.log(np.maximum(p, 1e-6))).sum(axis=1)
        pairs = zip(p.argmax(axis=1), genres, strict=True)
        right = np.asarray([np.nan if g is None else float(best == g) for best, g in pairs])
        judged.append(Judged(cross, right, embedding))
    return judged


def told(values: np.ndarray, first: np.ndarray, groups: Sequence[str]) -> str:
    """The mean of those that are numbers, how far it is from that of `first`, and half the width of its interval."""
    known = ~np.isnan(values) & ~np.isnan(first)
    if not known.any():
        return f"{'':24s}"
    change = (values - first)[known]
    margin = grouped_margin(change, np.asarray(groups)[known])
    return f"{values[known].mean():.3f} ({change.mean():+.3f} +- {margin:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--only", nargs="+", choices=list(IDEAS), default=list(IDEAS))
    arguments = parser.parse_args()
    prepare_process(Settings())
    base = TrainConfig.read(arguments.config)
    base = replace(base, samples=arguments.samples, workers=1, blends=replace(base.blends, n=0, share=0.0))
    base = replace(base, head_labelled=0.0, start_from="", start_share=0.0)
    if base.precision == "measure":
        base = replace(base, precision=_precision())
    first, *_ = IDEAS
    rows: list[tuple[str, Judged]] = []
    truth: dict[int, np.ndarray] = {}
    groups: list[str] = []
    for name in dict.fromkeys([first, *arguments.only]):
        print(f"{name}:", flush=True)
        idea = IDEAS[name]
        model, prepared, config = run(name, idea, base, arguments.data, arguments.work)
        if name == first:
            of_first = prepared
            tracks = [t for t in prepared.held if prepared.rows[t].kind == "music"]
            truth = {t: reference(prepared, t) for t in tracks}
            groups = [prepared.rows[t].group for t in tracks]
        for n, judged in zip(idea.segments, judge(model, config, idea, prepared, of_first, truth), strict=True):
            what = f"{name}, {n} of them" if len(idea.segments) > 1 else name
            rows.append((f"{what:36s}", judged))
    base_row = rows[0][1]
    n_labelled = int((~np.isnan(base_row.right)).sum())
    parts = f"{len(groups)} held-out tracks of {len(set(groups))} groups, {n_labelled} with a genre"
    print(f"\n{arguments.samples} samples each; {parts}")
    print(f"{'':36s}  cross-entropy with the teachers; accuracy; error of the embedding")
    for title, row in rows:
        pairs = [(getattr(row, f.name), getattr(base_row, f.name)) for f in dataclasses.fields(Judged)]
        print(f"{title}  {'   '.join(told(a, b, groups) for a, b in pairs)}")


def _precision() -> Literal["float32", "bfloat16"]:
    """bfloat16 where a matrix product is faster in it: one choice for all runs, or they would not be alike."""
    a = torch.randn(1024, 1024)

    def product(name: str) -> None:
        x = a.bfloat16() if name == "bfloat16" else a
        x @ x

    return "bfloat16" if choose("measure", "cpu", product) == "bfloat16" else "float32"


if __name__ == "__main__":
    main()
