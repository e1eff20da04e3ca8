"""What a training run is: one TOML file, read into frozen records and refused where it does not make sense.

    acoustic train configs/embedded.toml --data FOLDER

Paths of data and teachers in the file are relative to the data folder that the person names.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError
from ..network.card import NAME
from ..network.vit import Architecture
from ..records import MelSpec, SegmentSpec


@dataclass(frozen=True, slots=True)
class Source:
    """One part of the training data: a CSV manifest, or a folder of files that are all of one kind.

    `share` is its part of the samples drawn; `label_weight` is how far its genre column is trusted against the soft
    labels of the teachers (1: alone, 0: not at all); `group` names the columns that must not cross the split.
    """

    name: str
    manifest: str = ""
    folder: str = ""
    kind: Literal["music", "speech", "noise"] = "music"
    share: float = 1.0
    label_weight: float = 0.0
    group: tuple[str, ...] = ("file",)
    balance: bool = False
    """draw genres evenly rather than files evenly"""
    licence: str = ""
    cite: str = ""


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher plugged in by path: `file` is a Python file with a class `Teacher`, called with `arguments`."""

    name: str
    file: str
    arguments: tuple[str, ...] = ()
    window_s: float = 10.0
    hop_s: float = 7.5
    gives_tags: bool = False
    licence: str = ""
    cite: str = ""


@dataclass(frozen=True, slots=True)
class AugmentSpec:
    """Probabilities and ranges of the augmentations; 0 switches one off. Levels in dB, frequencies in Hz."""

    mixup_p: float = 0.3
    noise_p: float = 0.25
    noise_snr_db: tuple[float, float] = (3.0, 30.0)
    speed_p: float = 0.3
    speed_range: tuple[float, float] = (0.92, 1.08)
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
class TrainConfig:
    """A whole run. `samples` is its length in training samples, whatever the batch size."""

    name: str
    description: str
    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    teachers: tuple[TeacherSpec, ...]
    architecture: Architecture
    mel: MelSpec = field(default_factory=MelSpec)
    segments: SegmentSpec = field(default_factory=SegmentSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    tags: tuple[str, ...] = ()
    seed: int = 0
    held_out: float = 0.12
    """share of the groups that is kept for validation and calibration"""
    samples: int = 200_000
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.04
    ema: float = 0.998
    clip_norm: float = 1.0
    patch_dropout: float = 0.3
    genre_weight: float = 0.5
    tag_weight: float = 0.5
    embedding_weight: float = 1.0
    auxiliary_weight: float = 0.25
    checkpoint_steps: int = 100
    coverage: float = 0.9
    review_accuracy: float = 0.8
    """accuracy that answers without a review flag should reach on held-out tracks"""
    licence: str = "Apache-2.0"

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """The configuration in `path`; SettingsError names the file and the key that is wrong."""
        config: TrainConfig = record(cls, read_toml(path), str(path))
        for problem in _problems(config):
            raise SettingsError(f"{path}: {problem}")
        shaped = dataclasses.replace(config.architecture, n_classes=len(config.labels), n_mels=config.mel.n_mels)
        return dataclasses.replace(config, architecture=shaped)


def _problems(config: TrainConfig) -> Iterator[str]:
    if not NAME.fullmatch(config.name):
        yield f"name {config.name!r} is not a plain name of letters, digits, '.', '_', '+' and '-'"
    if not config.labels or len(set(config.labels)) != len(config.labels):
        yield "`labels` must be a list of different names"
    for name in ("samples", "batch_size", "learning_rate", "checkpoint_steps"):
        if getattr(config, name) <= 0:
            yield f"{name} = {getattr(config, name)} must be above 0"
    for name in ("held_out", "patch_dropout", "ema", "warmup", "coverage", "review_accuracy"):
        if not 0 <= getattr(config, name) < 1:
            yield f"{name} = {getattr(config, name)} must be from 0 to below 1"
    for kind, parts in (("source", config.sources), ("teacher", config.teachers)):
        names = [part.name for part in parts]
        if not names or len(set(names)) != len(names):
            yield f"there must be a {kind}, and each with a name of its own"


def read_toml(path: Path) -> dict[str, Any]:
    """The table in `path`; SettingsError names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def record(kind: type[Any], raw: Any, where: str) -> Any:
    """A frozen record from a TOML table, nested ones too. SettingsError names the place of an unknown or missing key
    or of a value of the wrong type."""
    if not isinstance(raw, dict):
        raise SettingsError(f"{where}: a table is needed, not {raw!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(raw) - set(hints))
    if unknown:
        raise SettingsError(f"{where}: unknown key {unknown[0]!r}", f"Known keys: {', '.join(sorted(hints))}.")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in raw.items()}
    missing = [f.name for f in dataclasses.fields(kind) if _required(f) and f.name not in values]
    if missing:
        raise SettingsError(f"{where}: missing key {missing[0]!r}")
    return kind(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that the field states."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record(typing.cast(type[Any], hint), value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise SettingsError(f"{where}: {len(kinds)} values are needed, not {len(value)}")
        return tuple(_value(one, item, f"{where}[{i}]") for i, (one, item) in enumerate(zip(kinds, value, strict=True)))
    if origin is Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and type(value) is hint:
        return value
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{where}: {value!r} is not {wanted}")
