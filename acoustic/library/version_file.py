"""A version's two files: bytes -> a sound version, and back. Nothing is believed that was not checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import math
import reprlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import ModelError
from ..records import Calibration
from ..verdict.voting import Voting
from .genres import MAX_GENRE_CHARS, key
from .personal import Base, PersonalModel

META_FILE, TENSOR_FILE = "personal.json", "personal.safetensors"
FORMAT = 1
MAX_META_BYTES, MAX_TENSOR_BYTES = 4 * 10**6, 45 * 10**6
LARGEST = 1e6
"""of a weight, an offset, a temperature or its inverse: a larger one is damage, and makes what are no numbers of an
answer"""
STANDS_ON = (
    "temperature",
    "class_scale",
    "class_bias",
    "label_smoothing",
    "voting",
    "segment_correlation",
    "coverage",
)
"""What of its base's calibration a version's weights, temperature and quantile were fitted with: on another one they
would depart from other probabilities than those that they were fitted to depart from. All else (when to review, what is
music) is not the version's, and follows the model's card."""
_DAMAGED = "Import it again, or teach it again with `acoustic personal fit`; `acoustic personal use none` goes without."


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as it was found, sound in itself; whether it fits a base is another question. `calibration` is what it
    was fitted with, as far as STANDS_ON; None for a version from before that was kept."""

    created: str
    model: str
    weights_digest: str
    labels: tuple[str, ...]
    own: tuple[str, ...]
    temperature: float
    conformal_quantile: float | None
    calibration: Calibration | None
    report: Mapping[str, Any]
    weights: np.ndarray
    bias: np.ndarray

    def summary(self) -> tuple[int, float | None, float | None]:
        """(songs, share right before, after) of the report; ValueError or its like for a report that is none."""
        left_out = self.report["left_out"]
        songs = [int(n) for n in self.report["songs"].values()]
        n_songs = sum(songs)
        if min(songs, default=0) < 0:
            raise ValueError("a number of songs is below 0")
        if left_out is None:
            return n_songs, None, None
        before, after = (float(left_out[f"accuracy_{when}"]["value"]) for when in ("before", "after"))
        if not (0 <= before <= 1 and 0 <= after <= 1):
            raise ValueError("a share of right answers is not from 0 to 1")
        return n_songs, before, after


def encode(personal: PersonalModel) -> tuple[bytes, bytes]:
    tensors = safetensors.numpy.save(
        {
            "weights": np.ascontiguousarray(personal.weights, dtype=np.float32),
            "bias": np.ascontiguousarray(personal.bias, dtype=np.float32),
        }
    )
    meta = {
        "format": FORMAT,
        "name": personal.name,
        "created": personal.created,
        "model": personal.base.model,
        "weights_digest": personal.base.weights_digest,
        "labels": list(personal.base.labels),
        "own": list(personal.own),
        "temperature": personal.temperature,
        "conformal_quantile": personal.conformal_quantile,
        "calibration": {key: getattr(personal.base.calibration, key) for key in STANDS_ON},
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "report": dict(personal.report),
    }
    return json.dumps(meta, ensure_ascii=False, indent=1, allow_nan=False).encode(), tensors


def parse(meta: bytes, tensors: bytes, where: Path) -> Stored:
    """The version in these bytes; ModelError unless every part of it is there and sound."""
    try:
        said = json.loads(meta, parse_constant=_finite, parse_float=_finite)
        if said["format"] != FORMAT:
            raise ModelError(
                f"{where}: is of format {reprlib.repr(said['format'])}, this program knows {FORMAT}", "Update it."
            )
        if hashlib.sha256(tensors).hexdigest() != said["sha256"]:
            raise ModelError(f"{where}: {TENSOR_FILE} does not have the SHA-256 that {META_FILE} states", _DAMAGED)
        arrays = safetensors.numpy.load(tensors)
        stored = Stored(
            created=str(said["created"]),
            model=str(said["model"]),
            weights_digest=str(said["weights_digest"]),
            labels=tuple(str(label) for label in said["labels"]),
            own=tuple(str(label) for label in said["own"]),
            temperature=float(said["temperature"]),
            conformal_quantile=None if said["conformal_quantile"] is None else float(said["conformal_quantile"]),
            calibration=_calibration(said["calibration"]) if "calibration" in said else None,
            report=dict(said["report"]),
            weights=np.asarray(arrays["weights"], dtype=np.float32),
            bias=np.asarray(arrays["bias"], dtype=np.float32),
        )
        stored.summary()  # a report that cannot be told is damage, too
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        safetensors.SafetensorError,
    ) as error:
        raise ModelError(f"{where}: is damaged: {type(error).__name__}: {str(error)[:200]}", _DAMAGED) from None
    _check_sound(stored, where)
    return stored


def _finite(said: str) -> float:
    """A number; ValueError for NaN and Infinity, which Python's reader takes and JSON does not know, and for 1e999."""
    value = float(said)
    if not math.isfinite(value):
        raise ValueError(f"{said[:20]} is no finite number")
    return value


def _calibration(said: Mapping[str, Any]) -> Calibration:
    return Calibration(
        temperature=float(said["temperature"]),
        class_scale=tuple(float(x) for x in said["class_scale"]),
        class_bias=tuple(float(x) for x in said["class_bias"]),
        label_smoothing=float(said["label_smoothing"]),
        voting=said["voting"],
        segment_correlation=float(said["segment_correlation"]),
        coverage=float(said["coverage"]),
    )


def _check_sound(stored: Stored, where: Path) -> None:
    labels = stored.labels + stored.own
    quantile, calibration = stored.conformal_quantile, stored.calibration
    sound = {
        "labels": len(set(labels)) == len(labels) and all(len(g) > 0 and g.isprintable() for g in labels),
        "own": all(len(g) <= MAX_GENRE_CHARS for g in stored.own)
        and len({key(g) for g in labels}) == len({key(g) for g in stored.labels}) + len(stored.own),
        "created": stored.created.isprintable(),
        "model": stored.model.isprintable(),
        "temperature": 1 / LARGEST <= stored.temperature <= LARGEST,
        "conformal_quantile": quantile is None or 0.0 <= quantile <= 1.0,
        "calibration": calibration is None or _is_sound(calibration, len(stored.labels)),
        "weights": stored.weights.ndim == 2
        and stored.weights.shape[1] == len(labels)
        and bool((np.abs(stored.weights) <= LARGEST).all()),
        "bias": stored.bias.shape == (len(labels),) and bool((np.abs(stored.bias) <= LARGEST).all()),
    }
    wrong = [what for what, holds in sound.items() if not holds]
    if wrong:
        raise ModelError(f"{where}: {wrong[0]} makes no sense", _DAMAGED)


def _is_sound(c: Calibration, n_labels: int) -> bool:
    vectors = c.class_scale + c.class_bias
    return (
        1 / LARGEST <= c.temperature <= LARGEST
        and len(c.class_scale) == len(c.class_bias)
        and len(c.class_scale) in (0, n_labels)
        and all(abs(x) <= LARGEST for x in vectors)
        and 0.0 <= c.label_smoothing < 1.0
        and c.voting in get_args(Voting)
        and 0.0 <= c.segment_correlation <= 1.0
        and 0.0 < c.coverage < 1.0
    )


def check_base(name: str, stored: Stored, base: Base) -> None:
    again = f"Use that model, or teach it again on {base.model!r} with `acoustic personal fit`."
    if stored.model != base.model:
        raise ModelError(f"version {name!r} was taught on the model {stored.model!r}, not on {base.model!r}", again)
    if (stored.weights_digest, stored.labels) != (base.weights_digest, base.labels):
        raise ModelError(f"version {name!r} was taught on other weights of {base.model!r}", again)
    if len(stored.weights) != base.n_features:
        raise ModelError(f"version {name!r}: {len(stored.weights)} weights a genre, not {base.n_features}", _DAMAGED)


def fitted_base(stored: Stored, base: Base) -> Base:
    """`base` with the calibration that the version stands on: so it answers as it did when it was tested, whatever the
    card says by now. A version that does not tell stands on the card's."""
    if stored.calibration is None:
        return base
    kept = {key: getattr(stored.calibration, key) for key in STANDS_ON}
    return dataclasses.replace(base, calibration=dataclasses.replace(base.calibration, **kept))


def read_folder(folder: Path) -> tuple[bytes, bytes]:
    return read_bytes(folder / META_FILE, MAX_META_BYTES), read_bytes(folder / TENSOR_FILE, MAX_TENSOR_BYTES)


def read_bytes(file: Path, at_most: int) -> bytes:
    try:
        if not file.is_file():
            raise ModelError(f"{file}: there is no such file", _DAMAGED)
        if file.stat().st_size > at_most:
            raise ModelError(f"{file}: is larger than the {at_most} bytes that it could be", _DAMAGED)
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None


def read_zip(file: Path) -> tuple[bytes, bytes]:
    """The two files in a zip, whatever else it holds; nothing is unpacked to disk."""
    limits = {META_FILE: MAX_META_BYTES, TENSOR_FILE: MAX_TENSOR_BYTES}
    parts = []
    try:
        with zipfile.ZipFile(file) as archive:
            for name, at_most in limits.items():
                with archive.open(name) as part:
                    parts.append(part.read(at_most + 1))
                if len(parts[-1]) > at_most:
                    raise ModelError(f"{file}: {name} is larger than the {at_most} bytes that it could be", _DAMAGED)
    except (
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise ModelError(f"{file}: is no exported version: {error}", _DAMAGED) from None
    return parts[0], parts[1]


def unwritable(place: Path, error: OSError) -> ModelError:
    return ModelError(f"{place}: cannot be written: {error.strerror or error}", "Check the folder and the free space.")
