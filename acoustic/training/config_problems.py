"""What makes no sense in a training run's configuration, told before anything is computed.

The bounds lie far beyond what a run would want, and below what would break it after hours of preparation.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..network.card import NAME, architecture_problems, input_problems, name_problems
from ..records import N_FRAMES

if TYPE_CHECKING:  # it asks here when it reads one
    from .config import AugmentSpec, TrainConfig

MOST_SEED = 1_000_000_000
"""so that a generator's number of seed, draws and step fits into 64 bits"""
MOST_WEIGHT = 1e6
MIN_WINDOW_S, MAX_WINDOW_S = 0.01, 3_600.0
"""of a teacher"""
MOST = {
    "samples": 10**12,
    "batch_size": 65_536,
    "workers": 256,
    "checkpoint_steps": 10**12,
    "early_stop_epochs": 10**12,
    "learning_rate": 1.0,
    "layer_decay": 1.0,
    **dict.fromkeys(("weight_decay", "head_labelled", "head_ridge", "clip_norm"), MOST_WEIGHT),
    **dict.fromkeys(("genre_weight", "tag_weight", "embedding_weight", "auxiliary_weight"), MOST_WEIGHT),
}
MOST_BLENDS = 10**7
MOST_SPEED, MOST_SEMITONES, MOST_DB = 4.0, 48.0, 200.0
MIN_SAMPLE_RATE_HZ = 8_000
"""of a model that is trained here: below it the made sounds that are not music cannot be told from one another"""


def problems(config: TrainConfig) -> Iterator[str]:
    """What is wrong with `config`, a sentence for each."""
    if not NAME.fullmatch(config.name):
        yield f"name {config.name!r} is not a plain name of letters, digits, '.', '_', '+' and '-'"
    if len(config.labels) < 2:
        yield "`labels` must be a list of names, two at least"
    for key, classes in (("labels", config.labels), ("tags", config.tags)):
        yield from name_problems(key, classes)
    positive = ("samples", "batch_size", "accumulate", "learning_rate", "layer_decay", "checkpoint_steps", "clip_norm")
    for name in (*positive, "coverage"):
        if getattr(config, name) <= 0:
            yield f"{name} = {getattr(config, name)} must be above 0"
    weights = ("genre_weight", "tag_weight", "embedding_weight", "auxiliary_weight", "weight_decay")
    for name, most in MOST.items():
        if getattr(config, name) > most:
            yield f"{name} = {getattr(config, name)} must be {most} at most"
    if config.accumulate > config.batch_size:
        yield f"accumulate = {config.accumulate} parts of a batch of {config.batch_size} samples"
    for name in ("seed", "draws"):
        if getattr(config, name) > MOST_SEED:
            yield f"{name} = {getattr(config, name)} must be {MOST_SEED} at most"
    for name in ("seed", "draws", "workers", "early_stop_epochs", "head_labelled", "head_ridge", *weights):
        if getattr(config, name) < 0:
            yield f"{name} = {getattr(config, name)} must not be below 0"
    if not -1 <= config.trainable_blocks <= config.architecture.depth:
        yield f"trainable_blocks = {config.trainable_blocks}, but there are {config.architecture.depth} layers"
    if config.start_share and not config.start_from:
        yield "start_share is above 0, but no model is named to start from: `start_from`"
    for name in (
        "held_out",
        "patch_dropout",
        "start_share",
        "label_smoothing",
        "ema",
        "warmup",
        "coverage",
        "review_accuracy",
    ):
        if not 0 <= getattr(config, name) < 1:
            yield f"{name} = {getattr(config, name)} must be from 0 to below 1"
    if not 0 <= config.whole_from <= 1:
        yield f"whole_from = {config.whole_from} must be from 0 to 1"
    yield from _augment_problems(config.augment, config.mel.n_mels)
    yield from _blend_problems(config)
    if config.augment.room_p > 0 and not config.rooms:
        yield "augment.room_p is above 0, but no folder of impulse responses is named: `rooms`"
    said = [teacher.weight for teacher in config.teachers]
    if said and (min(said) < 0 or not 0 < max(said) <= MOST_WEIGHT):
        yield f"the teachers' weights {said} must be from 0 to {MOST_WEIGHT}, and one of them above 0"
    if config.mel.sample_rate < MIN_SAMPLE_RATE_HZ:
        yield f"mel.sample_rate = {config.mel.sample_rate} Hz must be {MIN_SAMPLE_RATE_HZ} or more"
    for source in config.sources:
        if bool(source.manifest) == bool(source.folder):
            yield f"source {source.name!r} needs either a manifest or a folder"
        if source.group_pattern and not _has_bracket(source.group_pattern):
            yield f"source {source.name!r}: group_pattern is not a regular expression with one pair of brackets"
        if not 0 <= source.label_weight <= 1:
            yield f"source {source.name!r}: label_weight = {source.label_weight} must be from 0 to 1"
        if not 0 <= source.share <= MOST_WEIGHT:
            yield f"source {source.name!r}: share = {source.share} must not be below 0 or above {MOST_WEIGHT}"
    if not sum(source.share for source in config.sources) > 0:
        yield "there must be a source whose share is above 0"
    for teacher in config.teachers:
        if not NAME.fullmatch(teacher.name):
            yield f"teacher {teacher.name!r}: not a plain name of letters, digits, '.', '_', '+' and '-'"
        if not all(MIN_WINDOW_S <= seconds <= MAX_WINDOW_S for seconds in (teacher.window_s, teacher.hop_s)):
            yield f"teacher {teacher.name!r}: window_s and hop_s must be from {MIN_WINDOW_S} to {MAX_WINDOW_S} s"
    if config.tags and not config.teachers:
        yield "`tags` are named, but there is no teacher to learn them from"
    for genre in sorted(set(config.genre_tags) - set(config.labels)):
        yield f"genre_tags: {genre!r} is not one of the labels"
    for kind, names in (("source", [s.name for s in config.sources]), ("teacher", [t.name for t in config.teachers])):
        if len(set(names)) != len(names):
            yield f"each {kind} needs a name of its own"
    shape = dataclasses.replace(config.architecture, n_classes=len(config.labels), n_mels=config.mel.n_mels)
    yield from architecture_problems(shape)
    yield from input_problems(config.mel, config.segments)


def _augment_problems(augment: AugmentSpec, n_mels: int) -> Iterator[str]:
    of_time = dict.fromkeys(("time_masks", "time_mask_frames"), N_FRAMES)
    of_frequency = dict.fromkeys(("frequency_masks", "frequency_mask_bands"), n_mels)
    for name, most in {**of_time, **of_frequency}.items():
        if not 0 <= getattr(augment, name) <= most:
            yield f"augment.{name} = {getattr(augment, name)} must be from 0 to {most}"
    if augment.tilt_db < 0:
        yield f"augment.tilt_db = {augment.tilt_db} must not be below 0"
    for name, value in ((f.name, getattr(augment, f.name)) for f in dataclasses.fields(augment)):
        if name.endswith("_p") and not 0 <= value <= 1:
            yield f"augment.{name} = {value} must be from 0 to 1"
        if isinstance(value, tuple) and value[0] > value[1]:
            yield f"augment.{name} = {list(value)} must rise"
        if name.endswith("_hz") and value[0] <= 0:
            yield f"augment.{name} = {list(value)} must be above 0"
        if name.endswith("_range") and not 1 / MOST_SPEED <= value[0] <= value[1] <= MOST_SPEED:
            yield f"augment.{name} = {list(value)} must lie from {1 / MOST_SPEED} to {MOST_SPEED}"
        for ending, furthest in (("_db", MOST_DB), ("_semitones", MOST_SEMITONES)):
            numbers = value if isinstance(value, tuple) else (value,)
            if name.endswith(ending) and max(map(abs, numbers)) > furthest:
                yield f"augment.{name} = {value} must lie from {-furthest} to {furthest}"
    for name, (low, high) in {"clipping_percent": (0, 100), "codec_kbps": (8, 320)}.items():
        value = getattr(augment, name)
        if not low <= value[0] <= value[1] <= high:
            yield f"augment.{name} = {list(value)} must rise, from {low} to {high}"
    if augment.mixup_p + augment.cutmix_p > 1:
        yield "augment.mixup_p and augment.cutmix_p together must not be above 1: a crop is mixed or cut, not both"


def _blend_problems(config: TrainConfig) -> Iterator[str]:
    blends = config.blends
    for name, most in {"n": MOST_BLENDS, "share": MOST_WEIGHT}.items():
        if not 0 <= getattr(blends, name) <= most:
            yield f"blends.{name} = {getattr(blends, name)} must be from 0 to {most}"
    if (blends.n > 0) != (blends.share > 0):
        yield "blends need both a number and a share: `blends.n`, `blends.share`"
    if blends.n and not config.teachers:
        yield "blends have no genre of their own: without a teacher there is nothing to learn from them"
    if blends.n and config.drawn[-1].name in {source.name for source in config.sources}:
        yield f"no source can be called {config.drawn[-1].name!r} beside blends"
    if not 1 <= blends.seconds <= 600:
        yield f"blends.seconds = {blends.seconds} must be from 1 to 600"
    if not 0 <= blends.partner_p <= 1:
        yield f"blends.partner_p = {blends.partner_p} must be from 0 to 1"
    if not 0.5 <= blends.speed_range[0] <= blends.speed_range[1] <= 2:
        yield f"blends.speed_range = {list(blends.speed_range)} must rise, from 0.5 to 2"
    if not blends.level_db[0] <= blends.level_db[1] <= 0:
        yield f"blends.level_db = {list(blends.level_db)} must rise to 0 at most"


def _has_bracket(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups == 1
    except re.error:
        return False
