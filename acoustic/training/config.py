"""What a training run is: one TOML file, read into frozen records. What makes no sense in one is in `config_problems`.

    acoustic train configs/embedded.toml --data FOLDER

Paths of data and teachers in the file are relative to the data folder that the person names.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError
from ..network.vit import Architecture
from ..records import MelSpec, SegmentSpec
from .config_problems import problems
from .toml_records import read_toml, record

_KEYS = "docs/training.md and the project's configurations show what one holds."
BLENDS = "blends"
"""the source that blends are told by"""


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
        for problem in problems(config):
            raise SettingsError(f"{path}: {problem}", _KEYS)
        shaped = dataclasses.replace(config.architecture, n_classes=len(config.labels), n_mels=config.mel.n_mels)
        return dataclasses.replace(config, architecture=shaped)


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
