"""A model's int8 graph: a file beside its folder, `NAME.int8.safetensors`, made by `quantize`, read where it is used.

It holds the parts of two OpenVINO graphs as bytes, and in its header the digest of the weights that it was made of
and what int8 costs in accuracy, with n.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import ModelError
from ..writing import write_whole

PARTS = ("patches_xml", "patches_weights", "rest_xml", "rest_weights")
MAX_FILE_BYTES = 400 * 10**6
MIN_TESTED = 100
"""segments from which on a loss of one point can be seen at all"""
_AGAIN = "Make it again with `acoustic models quantize`, or delete it."


@dataclass(frozen=True, slots=True)
class Cost:
    """What int8 costs: the share of `n` segments whose best genre float32 (`accuracy`) and int8 (`accuracy_int8`) get
    right, or where no genre was told, 1 and the share on which both agree; the least and mean cosine of the logits."""

    n: int
    labelled: bool
    accuracy: float
    accuracy_int8: float
    agreement: float
    min_cosine: float
    mean_cosine: float
    about: str

    @property
    def loss(self) -> float | None:
        """Accuracy lost, a share; 0 where int8 does not lose, None where fewer than MIN_TESTED segments cannot tell."""
        return max(0.0, self.accuracy - self.accuracy_int8) if self.n >= MIN_TESTED else None

    def told(self) -> str:
        """One sentence for people."""
        what = f"same genre in {self.agreement:.3f}"
        if self.labelled:
            what = f"accuracy {self.accuracy:.3f} to {self.accuracy_int8:.3f}"
        return f"{what} of {self.n} segments, cosine at least {self.min_cosine:.4f}, {self.mean_cosine:.5f} on average"


@dataclass(frozen=True, slots=True)
class Quantized:
    """The graphs of a network whose layers are int8, each as (xml, weights), and what that costs."""

    patches: tuple[bytes, bytes]
    rest: tuple[bytes, bytes]
    cost: Cost

    @property
    def digest(self) -> str:
        """One SHA-256 for all four parts."""
        return " ".join(hashlib.sha256(part).hexdigest() for part in (*self.patches, *self.rest))


def file_of(model_folder: Path) -> Path:
    """Where a model's int8 graph lies: beside its folder, which holds what the card names and nothing else."""
    return model_folder.with_name(f"{model_folder.name}.int8.safetensors")


def write(file: Path, quantized: Quantized, weights_digest: str) -> None:
    """Write aside, then rename. ModelError if it cannot be written."""
    parts = zip(PARTS, (*quantized.patches, *quantized.rest), strict=True)
    tensors = {name: np.frombuffer(part, np.uint8) for name, part in parts}
    header = {
        "weights_digest": weights_digest,
        "sha256": quantized.digest,
        "cost": json.dumps(asdict(quantized.cost)),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, safetensors.numpy.save(tensors, header))
    except OSError as error:
        raise ModelError(f"{file}: cannot be written: {error}", "Check the folder and the free space.") from None


def read(file: Path, weights_digest: str) -> Quantized:
    """The int8 graph in `file`, verified. ModelError if it is damaged, or was made of other weights."""
    with _opened(file, weights_digest) as (header, opened):
        a, b, c, d = (opened.get_tensor(name).tobytes() for name in PARTS)
        found = Quantized((a, b), (c, d), _cost(header))
        if header["sha256"] != found.digest:
            raise ModelError(f"{file}: its SHA-256 is not the one in its header", _AGAIN)
        return found


def read_cost(file: Path, weights_digest: str) -> Cost:
    """What the int8 graph in `file` costs, from its header alone. ModelError as in `read`."""
    with _opened(file, weights_digest) as (header, _):
        return _cost(header)


def _cost(header: dict[str, str]) -> Cost:
    said = json.loads(header["cost"])
    for part in fields(Cost):
        kinds = {"int": (int,), "bool": (bool,), "float": (int, float), "str": (str,)}[str(part.type)]
        if not isinstance(said[part.name], kinds):
            raise TypeError(f"cost: {part.name} is {said[part.name]!r}")
    return Cost(**said)


def digest_of(file: Path) -> str:
    """The SHA-256 in the header of `file`; empty where there is none that can be read."""
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return str((opened.metadata() or {}).get("sha256", ""))
    except (OSError, safetensors.SafetensorError):
        return ""


@contextmanager
def _opened(file: Path, weights_digest: str) -> Iterator[tuple[dict[str, str], Any]]:
    """(header, opened file); foreign errors are translated."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f"{file}: larger than {MAX_FILE_BYTES} bytes: no int8 graph", _AGAIN)
        with safetensors.safe_open(file, framework="numpy") as opened:
            header = opened.metadata() or {}
            if header["weights_digest"] != weights_digest:
                raise ModelError(f"{file}: was made of other weights than the model's", _AGAIN)
            yield header, opened
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{file}: is not a sound int8 graph: {error}", _AGAIN) from None
