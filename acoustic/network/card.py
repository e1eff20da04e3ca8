"""The model card: `card.json` beside the weights, everything that describes a model.

Strict JSON, one key a field, records nested by field name, tuples as lists. An unknown or missing key, a value of the
wrong type, a number that cannot be, numbers that contradict each other: each is a ModelError that names the file and
the key, never a guess.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..records import Calibration, MelSpec, SegmentSpec
from .architecture import PATCH, Architecture

CARD_FILE = "card.json"
MAX_CARD_BYTES = 4 * 2**20
NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)
WEIGHT_FILE = re.compile(r"model(?:-(\d{5})-of-(\d{5}))?\.safetensors")
SHA256 = re.compile(r"[0-9a-f]{64}")
ADDED_LATER = {"calibration.segment_conformal_quantile"}
"""Keys that older cards lack; their fields then keep their default."""

# Far above any ViT in use: what lies beyond is a damaged or hostile card, refused before memory is asked for.
MAX_WIDTH = 8_192
NARROWEST_STEM = 8
MAX_DEPTH = 128
MAX_OUTPUTS = 100_000
MAX_SAMPLE_RATE_HZ = 768_000
MAX_N_FFT = 2**18
MAX_SEGMENT_S = 600.0
MAX_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is, how its input is made, what it was trained on and how well it does.

    `training` (data with their licences, recipe) and `metrics` are free-form JSON objects; `licence` is that of the
    weights; `created` is an ISO 8601 date or time; `weights` maps each file of the model to its SHA-256.
    """

    name: str
    labels: tuple[str, ...]
    tag_labels: tuple[str, ...]
    architecture: Architecture
    mel: MelSpec
    segments: SegmentSpec
    calibration: Calibration
    training: dict[str, Any]
    metrics: dict[str, Any]
    licence: str
    description: str
    created: str
    weights: dict[str, str]

    @property
    def weights_digest(self) -> str:
        """One SHA-256 for all weights: what caches are keyed by."""
        listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.weights.items()))
        return hashlib.sha256(listing.encode("ascii")).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """The card of a model's folder. ModelError, naming file and cause, if it cannot be read or is not sound."""
        file = Path(folder) / CARD_FILE
        card: ModelCard = _build(cls, _parse(file), str(file), "")
        card.check(file)
        return card

    def write(self, folder: Path) -> Path:
        """Write `card.json` into `folder` (aside, then renamed) and return its path; an unsound card is refused."""
        file = Path(folder) / CARD_FILE
        self.check(file)
        try:
            text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{file}: the card is not JSON: {error}") from error
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            aside.write_text(text + "\n", encoding="utf-8")
            os.replace(aside, file)
        except (OSError, UnicodeError) as error:
            aside.unlink(missing_ok=True)
            raise ModelError(f"{file}: cannot be written: {error}", "Check the folder and the free space.") from error
        return file

    def check(self, file: Path) -> None:
        """Raise ModelError, naming `file`, for the first statement of the card that cannot be true."""
        for problem in _problems(self):
            raise ModelError(f"{file}: {problem}", "Correct the card, or fetch the model again from its source.")


def _problems(card: ModelCard) -> Iterator[str]:
    if not NAME.fullmatch(card.name):
        yield f"name {card.name!r} is not a plain name of letters, digits, '.', '_', '+' and '-'"
    yield from _label_problems(card)
    yield from architecture_problems(card.architecture)
    if card.mel.n_mels != card.architecture.n_mels:
        yield f"mel.n_mels is {card.mel.n_mels}, but architecture.n_mels is {card.architecture.n_mels}"
    yield from input_problems(card.mel, card.segments)
    yield from _calibration_problems(card.calibration, len(card.labels))
    try:
        datetime.datetime.fromisoformat(card.created)
    except ValueError:
        yield f"created {card.created!r} is not an ISO 8601 date"
    yield from _weight_problems(card.weights)


def _label_problems(card: ModelCard) -> Iterator[str]:
    for key, labels, n in (
        ("labels", card.labels, card.architecture.n_classes),
        ("tag_labels", card.tag_labels, card.architecture.n_tags),
    ):
        if len(labels) != n:
            yield f"{key} names {len(labels)} classes, but the architecture has {n}"
        yield from name_problems(key, labels)


def name_problems(key: str, names: Sequence[str]) -> Iterator[str]:
    """What about the names of classes cannot be; `key` says which."""
    if len(set(names)) != len(names) or not all(name.strip() and name.isprintable() for name in names):
        yield f"{key} holds an empty or unprintable name, or one name twice"


def architecture_problems(a: Architecture) -> Iterator[str]:
    """What about a shape cannot be."""
    if not 1 <= a.width <= MAX_WIDTH or not 1 <= a.depth <= MAX_DEPTH:
        yield f"architecture: width {a.width} or depth {a.depth} is out of range (1 to {MAX_WIDTH}, 1 to {MAX_DEPTH})"
    if a.stem == "conv" and a.width < NARROWEST_STEM:
        yield f"architecture: width {a.width} is too narrow for the stem of convolutions ({NARROWEST_STEM} at least)"
    if a.n_heads < 1 or a.width % a.n_heads:
        yield f"architecture: width {a.width} cannot be split among n_heads {a.n_heads}"
    if not 0 < a.mlp_ratio <= 64 or int(a.width * a.mlp_ratio) < 1:
        yield f"architecture: mlp_ratio {a.mlp_ratio} is out of range (above 0, to 64)"
    if not 2 <= a.n_classes <= MAX_OUTPUTS:
        yield f"architecture: n_classes {a.n_classes} is out of range (2 to {MAX_OUTPUTS})"
    for key, value in (("n_tags", a.n_tags), ("n_embedding", a.n_embedding), ("head_hidden", a.head_hidden)):
        if not 0 <= value <= MAX_OUTPUTS:
            yield f"architecture: {key} {value} is out of range (0 to {MAX_OUTPUTS})"
    if not PATCH <= a.n_mels <= MAX_WIDTH or a.n_mels % PATCH:
        yield f"architecture: n_mels {a.n_mels} is not a multiple of {PATCH} between {PATCH} and {MAX_WIDTH}"
    if not 0 < a.layer_norm_eps < 1:
        yield f"architecture: layer_norm_eps {a.layer_norm_eps} is out of range (above 0, below 1)"


def input_problems(mel: MelSpec, segments: SegmentSpec) -> Iterator[str]:
    """What about a network's input cannot be."""
    if not 1 <= mel.sample_rate <= MAX_SAMPLE_RATE_HZ:
        yield f"mel: sample_rate {mel.sample_rate} Hz is out of range (1 to {MAX_SAMPLE_RATE_HZ})"
    elif not 2 <= mel.n_fft <= MAX_N_FFT or mel.n_fft % 2:
        yield f"mel: n_fft {mel.n_fft} is no even number from 2 to {MAX_N_FFT}"
    elif not (mel.hop_length >= 1 and mel.n_samples <= MAX_SEGMENT_S * mel.sample_rate):
        yield f"mel: hop_length {mel.hop_length} is out of range (a segment lasts at most {MAX_SEGMENT_S:g} s)"
    if not 0 <= mel.fmin_hz < min(mel.fmax_hz, mel.sample_rate / 2):
        yield f"mel: fmin_hz {mel.fmin_hz} must be below fmax_hz {mel.fmax_hz} and half the rate, and not negative"
    if mel.top_db <= 0 or mel.std_db <= 0:
        yield f"mel: top_db {mel.top_db} and std_db {mel.std_db} must be positive"
    if not 1 <= segments.n_segments <= MAX_SEGMENTS:
        yield f"segments: n_segments {segments.n_segments} is out of range (1 to {MAX_SEGMENTS})"
    if segments.middle_s <= 0:
        yield f"segments: middle_s {segments.middle_s} must be positive"


_SHARES = (
    "segment_correlation",
    "conformal_quantile",
    "segment_conformal_quantile",
    "review_below_confidence",
    "review_below_margin",
    "review_below_agreement",
    "music_threshold",
)
"""numbers of a calibration that run from 0 to 1, both included"""


def _calibration_problems(c: Calibration, n_classes: int) -> Iterator[str]:
    if not 0 < c.temperature < math.inf:
        yield f"calibration: temperature {c.temperature} must be positive"
    if len(c.class_scale) != len(c.class_bias) or len(c.class_scale) not in (0, n_classes):
        yield (
            f"calibration: class_scale has {len(c.class_scale)} numbers and class_bias {len(c.class_bias)}, but both "
            f"must have none or one for each of the {n_classes} labels"
        )
    if not 0 <= c.label_smoothing < 1 or not 0 < c.coverage < 1:
        yield f"calibration: label_smoothing {c.label_smoothing} or coverage {c.coverage} is out of range (0 to 1)"
    for key in _SHARES:
        value = getattr(c, key)
        if value is not None and not 0 <= value <= 1:
            yield f"calibration: {key} {value} is out of range (0 to 1)"
    numbers = {
        "class_scale": c.class_scale,
        "class_bias": c.class_bias,
        "music_weights": [weight for _, weight in c.music_weights],
        "music_bias": [c.music_bias],
    }
    for key, values in numbers.items():
        if not all(map(math.isfinite, values)):
            yield f"calibration: {key} holds a number that is not finite"


def _weight_problems(weights: dict[str, str]) -> Iterator[str]:
    if not weights:
        yield "weights names no file"
    for name, digest in weights.items():
        if not WEIGHT_FILE.fullmatch(name):
            yield f"weights: {name!r} is neither model.safetensors nor model-NNNNN-of-NNNNN.safetensors"
        if not SHA256.fullmatch(digest):
            yield f"weights: {name}: {digest!r} is not a SHA-256 (64 lower-case hexadecimal digits)"
    n = len(weights)
    expected = {shard_name(i, n) for i in range(n)}
    if n and set(weights) != expected:
        yield f"weights: the shards are incomplete: missing {', '.join(sorted(expected - set(weights)))}"


def shard_name(index: int, n_shards: int) -> str:
    """File name of the weights' shard `index` (from 0): `model.safetensors` where there is only one."""
    return "model.safetensors" if n_shards == 1 else f"model-{index + 1:05d}-of-{n_shards:05d}.safetensors"


# --- strict JSON -> records ------------------------------------------------------------------------------------------


def _parse(file: Path) -> Any:
    """The JSON value in `file`; NaN, infinity and repeated keys are refused by name."""
    try:
        if not file.is_file():
            raise ModelError(f"{file}: there is no such file")
        if file.stat().st_size > MAX_CARD_BYTES:
            raise ModelError(f"{file}: {file.stat().st_size} bytes is more than a card may have ({MAX_CARD_BYTES})")
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{file}: is not UTF-8 text: {error}") from error
    if text.startswith("version https://git-lfs"):
        raise ModelError(
            f"{file}: is a Git LFS pointer, not a card", "Run `git lfs pull`, or download the file itself."
        )
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_Constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: is not strict JSON: {error}") from error


class _Constant(str):
    """NaN or an infinity, which Python reads as JSON although it is none, until the key is known that holds it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    for key, value in pairs:
        for constant in _constants(value):
            raise ValueError(f"key {key!r}: {constant} is not a JSON number")
    return result


def _constants(value: Any) -> Iterator[_Constant]:
    """Those in a value and, where it is a list, in its items; an object in it was looked through when it was made."""
    if isinstance(value, _Constant):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _constants(item)


def _build(kind: Any, value: Any, file: str, key: str) -> Any:
    """`value` (parsed JSON) as an instance of the annotation `kind`; `file` and `key` are for the message."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_record(typing.cast(type, kind), value, file, key)
    if origin is typing.Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise _wrong(file, key, value, " or ".join(map(repr, arguments)))
    if origin in (typing.Union, types.UnionType):  # X | None is the only union of the records
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, file, key)
    if origin is tuple:
        return _build_tuple(arguments, value, file, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(file, key, value, "an object")
        return {k: v if arguments[1] is Any else _build(arguments[1], v, file, f"{key}.{k}") for k, v in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # False for NaN, too
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise _wrong(file, key, value, {str: "a string", int: "an integer", float: "a finite number"}.get(kind, str(kind)))


def _build_record(kind: type, value: Any, file: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(file, key or "the card", value, "an object")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    prefix = f"{key}." if key else ""
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise ModelError(f"{file}: unknown key {prefix + unknown[0]!r}", f"Known keys: {', '.join(names)}.")
    missing = [name for name in names if name not in value and prefix + name not in ADDED_LATER]
    if missing:
        raise ModelError(f"{file}: key {prefix + missing[0]!r} is missing")
    return kind(**{name: _build(hints[name], value[name], file, prefix + name) for name in names if name in value})


def _build_tuple(arguments: tuple[Any, ...], value: Any, file: str, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(file, key, value, "a list")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise _wrong(file, key, value, f"a list of {len(arguments)}")
    return tuple(
        _build(kind, item, file, f"{key}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _wrong(file: str, key: str, value: Any, wanted: str) -> ModelError:
    shown = repr(value)
    return ModelError(f"{file}: {key} is {shown if len(shown) <= 60 else shown[:57] + '...'}, but must be {wanted}")
