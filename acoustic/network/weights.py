"""Weight files: safetensors, checked before a tensor is believed. No pickle.

Every refusal is a ModelError that names the file and the cause: a Git LFS pointer, a web page, a pickle, a cut file, a
wrong checksum, a tensor that the network does not have or has in another shape.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import ModelError
from .card import shard_name
from .vit import Architecture, MelViT

MAX_FILE_BYTES = 45 * 10**6
"""Largest file of weights that is written, so that any code host takes it; more is split into numbered shards."""
BATCH_COUNTER = "num_batches_tracked"
"""Batch-norm's step counter. Only a running *average* (momentum=None) reads it, so it is neither stored nor wanted."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_REFETCH = "Fetch the model again from its source."


def read(file: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of one safetensors file, as stored; its SHA-256 must be `sha256` unless that is None."""
    data = read_bytes(file)
    foreign = foreign_kind(data)
    if foreign:
        raise ModelError(f"{file}: is {foreign[0]}, not safetensors weights", foreign[1])
    _check_length(file, data)
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise ModelError(f"{file}: SHA-256 is {found}, but the card says {sha256}", _REFETCH)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{file}: is not sound safetensors: {error}", _REFETCH) from error


def read_bytes(file: Path) -> bytes:
    """The bytes of a regular file; ModelError where there is none."""
    try:
        if not file.is_file():
            raise ModelError(f"{file}: there is no such file", _REFETCH)
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error


def foreign_kind(data: bytes) -> tuple[str, str] | None:
    """(what it is, hint) for the things that are often found where weights should be."""
    start = data[:512].lstrip().lower()
    if not data:
        return "empty", _REFETCH
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "Run `git lfs pull`, or download the file itself."
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page", "The download saved a page instead of the file. Download it again, signed in if need be."
    if data.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "a PyTorch pickle", "Use `acoustic models import` to convert it."
    return None


def _check_length(file: Path, data: bytes) -> None:
    """A safetensors file is 8 bytes of header length, the header (JSON), and exactly the bytes that it describes."""
    header_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_bytes > len(data) - 8:
        raise ModelError(f"{file}: {len(data)} bytes do not hold a safetensors header: cut off or damaged", _REFETCH)
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file}: its safetensors header is damaged: {error!r}", _REFETCH) from error
    declared = 8 + header_bytes + max(ends, default=0)
    if declared != len(data):
        cause = "cut off" if len(data) < declared else "followed by foreign bytes"
        raise ModelError(f"{file}: {cause}: {len(data)} bytes of the {declared} that its header declares", _REFETCH)


def read_all(folder: Path, weights: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of all of a card's `weights` (file name -> SHA-256) in `folder`."""
    tensors: dict[str, Tensor] = {}
    for name, sha256 in sorted(weights.items()):
        for key, tensor in read(folder / name, sha256).items():
            if key in tensors:
                raise ModelError(f"{folder / name}: tensor {key!r} is in another shard, too", _REFETCH)
            tensors[key] = tensor
    return tensors


def build(architecture: Architecture, tensors: Mapping[str, Tensor], where: Path) -> MelViT:
    """A float32 network in eval mode made of exactly these `tensors`; `where` is for the messages.

    Raises ModelError for missing or extra tensors, wrong shapes, other types than floats, NaN or infinity.
    """
    with torch.device("meta"):  # shapes only: nothing is allocated or drawn before the tensors are accepted
        network = MelViT(architecture)
    expected = network.state_dict()
    counters = {key for key in expected if key.endswith(BATCH_COUNTER)}
    given = {key: tensor for key, tensor in tensors.items() if key not in counters}
    missing, extra = sorted(set(expected) - counters - set(given)), sorted(set(given) - set(expected))
    if missing:
        raise ModelError(f"{where}: {len(missing)} tensors are missing: {_few(missing)}")
    if extra:
        raise ModelError(f"{where}: {len(extra)} tensors are not the architecture's: {_few(extra)}")
    for key, tensor in given.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{tuple(tensor.shape)}, but the architecture needs {tuple(expected[key].shape)}"
            raise ModelError(f"{where}: tensor {key!r} has shape {shapes}")
        if tensor.dtype not in _FLOATS:
            raise ModelError(f"{where}: tensor {key!r} is {tensor.dtype}, but must be float16, bfloat16 or float32")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{where}: tensor {key!r} holds NaN or infinity")
    state = {key: tensor.to(torch.float32) for key, tensor in given.items()}
    state |= {key: torch.zeros((), dtype=torch.int64) for key in counters}
    network.load_state_dict(state, assign=True)
    return network.eval()


def write(folder: Path, network: MelViT, dtype: torch.dtype) -> dict[str, str]:
    """Write the network's tensors into `folder` and return {file name: SHA-256}.

    Matrices are stored as `dtype`; vectors and batch-norm's statistics, a thousandth of the size, stay float32, because
    a small variance would vanish in float16. ModelError if a value does not fit into `dtype`.
    """
    tensors: dict[str, Tensor] = {}
    for key, tensor in network.state_dict().items():
        if key.endswith(BATCH_COUNTER):
            continue
        kept = tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32)
        if not bool(torch.isfinite(kept).all()):
            raise ModelError(f"{folder}: tensor {key!r} holds NaN or infinity as {kept.dtype}", "Save it as float32.")
        tensors[key] = kept.clone(memory_format=torch.contiguous_format)
    shards = _split(tensors)
    digests: dict[str, str] = {}
    for index, shard in enumerate(shards):
        name = shard_name(index, len(shards))
        data = safetensors.torch.save(shard, metadata={"format": "pt"})
        (folder / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def _split(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Shards of at most MAX_FILE_BYTES, in the network's order; a larger single tensor has a shard of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    room = limit = MAX_FILE_BYTES - 2**20  # the header's share
    for key, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = limit
        shards[-1][key] = tensor
        room -= tensor.nbytes
    return shards


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
