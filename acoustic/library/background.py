"""Songs that a person did not teach, kept beside a model: what teaching must not forget.

A handful of songs of one genre says nothing about all other music. So each model can bring a small background: for a
few hundred songs, evenly over its genres, the mean embedding and the mean genre logits of their segments, as the model
itself heard them. Teaching asks that their answers stay what they were (rehearsal by distillation: Li and Hoiem,
"Learning without Forgetting", 2016).

The file is `<model>.background.safetensors` beside the model's folder; it is bound to the weights that made it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import ModelError
from ..records import Votes
from ..writing import write_whole
from .personal import Base

MAX_FILE_BYTES = 45 * 10**6
_AGAIN = "Make it again with `python -m acoustic.training.background`, or delete it: teaching works without it."


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """M songs: mean `embeddings` (M, D) and mean genre `logits` (M, C) of their segments, float32."""

    embeddings: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)

    def votes(self) -> Votes:
        """As if each song were one segment; without tags."""
        return Votes(self.logits, np.zeros((len(self), 0), np.float32), self.embeddings)


def file_of(model_folder: Path) -> Path:
    """Where a model's background is kept: beside the folder, which holds the model and nothing else."""
    return model_folder.with_name(f"{model_folder.name}.background.safetensors")


def write(file: Path, background: Background, weights_digest: str, about: str) -> None:
    """Write as float16, whole or not at all; `about` tells what the songs are and on what terms."""
    tensors = {
        "embeddings": np.ascontiguousarray(background.embeddings, dtype=np.float16),
        "logits": np.ascontiguousarray(background.logits, dtype=np.float16),
    }
    try:
        write_whole(file, safetensors.numpy.save(tensors, {"weights_digest": weights_digest, "about": about}))
    except OSError as error:
        raise ModelError(f"{file}: cannot be written: {error}", "Check the folder and the free space.") from None


def read(file: Path, base: Base) -> Background | None:
    """The background in `file`, None where there is no such file. ModelError if it is damaged or was made by other
    weights than those of `base`."""
    try:
        if not file.exists():
            return None
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f"{file}: larger than {MAX_FILE_BYTES} bytes: no background", _AGAIN)
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from None
    try:
        tensors = safetensors.numpy.load(data)
        n_header = int.from_bytes(data[:8], "little")
        made_by = json.loads(data[8 : 8 + n_header])["__metadata__"]["weights_digest"]
        embeddings, logits = (np.asarray(tensors[name], dtype=np.float32) for name in ("embeddings", "logits"))
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{file}: is not a sound background: {error}", _AGAIN) from None
    if made_by != base.weights_digest:
        raise ModelError(f"{file}: was made by other weights than the model's", _AGAIN)
    n = len(logits)
    fits = n > 0 and embeddings.shape == (n, base.n_embedding) and logits.shape == (n, len(base.labels))
    if not fits or not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
        shapes = f"{embeddings.shape} and {logits.shape}"
        raise ModelError(f"{file}: {shapes} are no finite embeddings and logits of the model's widths", _AGAIN)
    return Background(embeddings, logits)
