"""What a training run is: one TOML file, read into frozen records and refused where it does not make sense.

    acoustic train configs/embedded.toml --data FOLDER

Paths of data and teachers in the file are relative to the data folder that the person names.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError
from ..network.card import NAME, architecture_problems, input_problems, name_problems
from ..network.vit import Architecture
from ..records import N_FRAMES, MelSpec, SegmentSpec
from .toml_records import read_toml, record

_KEYS = "docs/training.md and the project's configurations show what one holds."
BLENDS = "blends"
"""the source that blends are told by"""
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
"""far beyond what a run would want, and below what breaks it after its long preparation"""
MOST_BLENDS = 10**7
MOST_SPEED, MOST_SEMITONES, MOST_DB = 4.0, 48.0, 200.0
MIN_SAMPLE_RATE_HZ = 8_000
"""of a model that is trained here: below it the made sounds that are not music cannot be told from one another"""


@dataclass(frozen=True, slots=True)
class Source:
    """One part of the training data: a CSV manifest, or a folder of files that are all of one kind.

    `share` is its part of the samples drawn; `label_weight` is how far its genre column is trusted against the soft
    labels of the teachers (1: alone, 0: not at all), or without teachers how much it counts; `group` names the columns
    that must not cross the split.
    """

    name: str
    manifest: str = ""
    folder: str = ""
    kind: Literal["music", "speech", "noise"] = "music"
    share: float = 1.0
    label_weight: float = 1.0
    group: tuple[str, ...] = ("file",)
    group_pattern: str = ""
    """regular expression; what its first bracket finds in a file's name is the group, in place of the columns"""
    balance: bool = False
    """draw each genre by the root of its number of files, so that a file of a rare one comes more often"""
    licence: str = ""
    cite: str = ""


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher plugged in by path: a Python file with a class `Teacher` that is called with `arguments`, or the folder
    of a `transformers` model for audio classification (AST). `weight` is its say in the loss beside the others'."""

    name: str
    file: str
    arguments: tuple[str, ...] = ()
    weight: float = 1.0
    window_s: float = 10.0
    hop_s: float = 7.5
    gives_tags: bool = False
    licence: str = ""
    cite: str = ""


@dataclass(frozen=True, slots=True)
class AugmentSpec:
    """Probabilities and ranges of the augmentations; 0 switches one off. Levels in dB, frequencies in Hz.

    The first block works on the waveform, in the order in which it is named, the second on the mel.
    """

    speed_p: float = 0.3
    speed_range: tuple[float, float] = (0.92, 1.08)
    pitch_p: float = 0.0
    pitch_semitones: tuple[float, float] = (-2.0, 2.0)
    stretch_p: float = 0.0
    stretch_range: tuple[float, float] = (0.9, 1.1)
    room_p: float = 0.0
    """an impulse response from the folder `rooms`"""
    noise_p: float = 0.25
    noise_snr_db: tuple[float, float] = (3.0, 30.0)
    equalizer_p: float = 0.0
    equalizer_db: tuple[float, float] = (-9.0, 9.0)
    band_p: float = 0.0
    """a telephone's or a small speaker's band: everything outside of low to high is cut"""
    band_low_hz: tuple[float, float] = (150.0, 400.0)
    band_high_hz: tuple[float, float] = (3_000.0, 5_000.0)
    clipping_p: float = 0.0
    clipping_percent: tuple[int, int] = (0, 10)
    codec_p: float = 0.0
    """encoded to MP3 and back"""
    codec_kbps: tuple[int, int] = (16, 96)
    gain_p: float = 0.0
    gain_db: tuple[float, float] = (-12.0, 6.0)

    mixup_p: float = 0.3
    cutmix_p: float = 0.0
    """a stretch of time of another crop takes the place of this one's; of the crops that are not mixed"""
    roll_p: float = 0.0
    """the mel is turned around in time by any number of frames"""
    floor_p: float = 0.5
    floor_db: tuple[float, float] = (-75.0, -40.0)
    tilt_p: float = 0.5
    tilt_db: float = 8.0
    low_pass_p: float = 0.2
    low_pass_hz: tuple[float, float] = (2_500.0, 10_000.0)
    high_pass_p: float = 0.1
    high_pass_hz: tuple[float, float] = (60.0, 400.0)
    time_masks: int = 2
    time_mask_frames: int = 20
    frequency_masks: int = 2
    frequency_mask_bands: int = 8


@dataclass(frozen=True, slots=True)
class BlendSpec:
    """Made-up tracks: two songs of the training part that sound at once, each at another speed, or one alone. The
    teachers are asked about each blend itself, so it is one more piece of music and not an average of two answers."""

    n: int = 0
    """how many are made; 0: none"""
    seconds: float = 20.0
    share: float = 0.0
    """their part of the samples drawn, beside those of the sources"""
    partner_p: float = 0.7
    level_db: tuple[float, float] = (-12.0, 0.0)
    """of the second song below the first, both at one loudness (root mean square)"""
    speed_range: tuple[float, float] = (0.84, 1.19)
    """pitch and tempo together; drawn even on a logarithmic scale"""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run. `samples` is its length in training samples, whatever the batch size."""

    name: str
    description: str
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    architecture: Architecture
    teachers: tuple[TeacherSpec, ...] = ()
    """none: the files' own genres are all there is to learn from"""
    mel: MelSpec = field(default_factory=MelSpec)
    segments: SegmentSpec = field(default_factory=SegmentSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    blends: BlendSpec = field(default_factory=BlendSpec)
    tags: tuple[str, ...] = ()
    genre_tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """for a label the teachers' tags that speak for it before any labelled file does; what a base says of labels that
    the file over it does not have is left out"""
    seed: int = 0
    """of the split, the first weights and everything that is drawn"""
    draws: int = 0
    """another number draws other crops and augmentations over the same split: for a run that goes on from a model that
    has seen those of the first"""
    held_out: float = 0.12
    """share of the groups that is kept for validation and calibration"""
    rooms: str = ""
    """folder of room impulse responses, for `augment.room_p`"""
    consistent: bool = False
    """teachers hear the very waveform that the student hears, augmented, and are asked anew for each crop; else they
    are asked once for each window of the clean files"""
    start_from: str = ""
    """a model folder whose weights are the start; heads of other widths or labels begin anew"""
    start_share: float = 0.0
    """after the run, so much of the model that it started from is kept in the weights, which are the mean of both; for
    the same labels, tags and teachers"""
    trainable_blocks: int = -1
    """only the last N layers and the heads learn; -1: everything"""
    layer_decay: float = 1.0
    """learning rate of each layer as a share of the one above it (Clark et al., 2020)"""
    samples: int = 200_000
    batch_size: int = 32
    """samples of one optimiser step, over all processes and all `accumulate` parts"""
    accumulate: int = 1
    """parts in which a process takes its share of the batch, one after the other"""
    workers: int = 0
    """processes that make batches ahead of the network; 0: the training process itself, between two steps"""
    checkpoint_layers: bool = False
    """recompute the layers' activations on the way back: less memory, about a third more time"""
    precision: Literal["measure", "float32", "bfloat16", "float16"] = "measure"
    """of the matrix products; "measure" times a step in each that the device has and takes the fastest (float32 in runs
    of less than 500 steps)"""
    early_stop_epochs: int = 0
    """end after this many epochs without a better held-out error; 0: never"""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.04
    ema: float = 0.998
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    patch_dropout: float = 0.3
    whole_from: float = 1.0
    """from this share of the run on no patch is dropped, so that the network ends on what it will see in use"""
    genre_weight: float = 0.5
    tag_weight: float = 0.5
    embedding_weight: float = 1.0
    auxiliary_weight: float = 0.25
    head_labelled: float = 0.0
    """after the run the genre head is fitted anew on clean crops, in which those of sources with a `label_weight` of
    0.5 or more count so many times; 0: it is not"""
    head_ridge: float = 0.1
    """how strongly the new genre head is held to the one that training made"""
    checkpoint_steps: int = 100
    """at most; a short run writes ten checkpoints all the same"""
    coverage: float = 0.9
    review_accuracy: float = 0.8
    """accuracy that answers without a review flag should reach on held-out tracks"""
    licence: str = "Apache-2.0"

    @property
    def drawn(self) -> tuple[Source, ...]:
        """The sources, and with them the blends, as samples are drawn from them."""
        blends = (Source(BLENDS, share=self.blends.share, label_weight=0.0),) if self.blends.n else ()
        return (*self.sources, *blends)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """The configuration in `path`, over that of the file beside it that its key `base` names, if it does; a table
        of the one is laid over the same table of the other. SettingsError names the file and the key that is wrong."""
        try:
            config: TrainConfig = record(cls, _with_base(path), str(path))
        except RecursionError:
            raise SettingsError(f"{path}: nested too deeply", _KEYS) from None
        except SettingsError as error:
            raise SettingsError(error.message, _KEYS if error.hint == error.default_hint else error.hint) from None
        for problem in _problems(config):
            raise SettingsError(f"{path}: {problem}", _KEYS)
        shaped = dataclasses.replace(config.architecture, n_classes=len(config.labels), n_mels=config.mel.n_mels)
        return dataclasses.replace(config, architecture=shaped)


def _problems(config: TrainConfig) -> Iterator[str]:
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
        if (
            not MIN_WINDOW_S
            <= min(teacher.window_s, teacher.hop_s)
            <= max(teacher.window_s, teacher.hop_s)
            <= MAX_WINDOW_S
        ):
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


def _with_base(path: Path) -> dict[str, Any]:
    raw = read_toml(path)
    name = raw.pop("base", None)
    if name is None:
        return raw
    if not isinstance(name, str):
        raise SettingsError(f"{path}: base: {name!r} is not the name of a file")
    if not os.path.isfile(path.parent / name):  # a name too long for the disk, or with a NUL, is none, too
        raise SettingsError(f"{path}: base: no file {name!r} beside it", "Check its name.")
    below = read_toml(path.parent / name)
    if "base" in below:
        raise SettingsError(f"{path}: base: {name} has a base itself", "One level of base is enough for a person.")
    named, labels = below.get("genre_tags"), raw.get("labels")
    if isinstance(named, dict) and isinstance(labels, list):  # what the base says of labels that this file has not
        below["genre_tags"] = {genre: tags for genre, tags in named.items() if genre in labels}
    if raw.get("teachers") == []:  # nobody is left who could know them
        below = {key: value for key, value in below.items() if key not in ("tags", "genre_tags")}
    tables = {key: {**below[key], **raw[key]} for key in raw if isinstance(raw[key], dict) and key in below}
    return {**below, **raw, **tables}


def _augment_problems(augment: AugmentSpec, n_mels: int) -> Iterator[str]:
    counts = {"time_masks": N_FRAMES, "frequency_masks": n_mels}
    for name, most in {"time_mask_frames": N_FRAMES, "frequency_mask_bands": n_mels, **counts}.items():
        if not 0 <= getattr(augment, name) <= most:
            yield f"augment.{name} = {getattr(augment, name)} must be from 0 to {most}"
    if augment.tilt_db < 0:
        yield f"augment.tilt_db = {augment.tilt_db} must not be below 0"
    for name, value in ((f.name, getattr(augment, f.name)) for f in dataclasses.fields(augment)):
        if name.endswith("_p") and not 0 <= value <= 1:
            yield f"augment.{name} = {value} must be from 0 to 1"
        if isinstance(value, tuple) and value[0] > value[1]:
            yield f"augment.{name} = {list(value)} must rise"
        if name.endswith(("_range", "_hz")) and value[0] <= 0:
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
    if not (0 <= blends.n <= MOST_BLENDS and 0 <= blends.share <= MOST_WEIGHT):
        yield f"blends.n = {blends.n} and blends.share = {blends.share} must not be below 0 or huge"
    if (blends.n > 0) != (blends.share > 0):
        yield "blends need both a number and a share: `blends.n`, `blends.share`"
    if blends.n and not config.teachers:
        yield "blends have no genre of their own: without a teacher there is nothing to learn from them"
    if blends.n and any(source.name == BLENDS for source in config.sources):
        yield f"no source can be called {BLENDS!r} beside blends"
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
