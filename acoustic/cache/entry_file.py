"""The file of an entry: bytes that are known to be whole, and for which key.

Magic, header length, JSON header (key, meta, arrays), arrays at multiples of 64 bytes, BLAKE2b of all that. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np

from ..errors import InternalError
from ..records import CacheEntry

MAGIC = b"ACOUSTIC-CACHE-1"
PREFIX = struct.Struct(f"<{len(MAGIC)}sQ")  # magic, length of the JSON header
CHECKSUM_BYTES = 32
ALIGNMENT = 64  # of every array within the file
DTYPES = frozenset({"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8))})


class InvalidFileError(Exception):
    """These bytes are not an entry that was written whole, by this format, for this key."""


def encode(key: str, entry: CacheEntry) -> bytes:
    """The bytes of a cache file. Raises InternalError where the entry holds what the format does not."""
    described, chunks, offset = [], [], 0
    for name, value in entry.arrays.items():
        array = np.asarray(value, order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            raise InternalError(f"the cache keeps numbers only, but array {name!r} has dtype {array.dtype}")
        padding = -offset % ALIGNMENT
        chunks += [b"\0" * padding, array.tobytes()]
        offset += padding
        described.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "offset": offset})
        offset += array.nbytes
    try:
        header = json.dumps({"key": key, "meta": dict(entry.meta), "arrays": described}).encode()
    except (TypeError, ValueError) as error:
        raise InternalError(f"the description of a cache entry is not JSON: {error}") from error
    header += b" " * (-(PREFIX.size + len(header)) % ALIGNMENT)
    body = b"".join([PREFIX.pack(MAGIC, len(header)), header, *chunks])
    return body + _checksum(body)


def decode(key: str, data: bytes) -> CacheEntry:
    """`encode`'s inverse; arrays are read-only views of `data`. Raises InvalidFileError for anything else."""
    if len(data) < PREFIX.size + CHECKSUM_BYTES:
        raise InvalidFileError("shorter than its frame")
    magic, header_size = PREFIX.unpack_from(data)
    end = len(data) - CHECKSUM_BYTES
    if magic != MAGIC or header_size > end - PREFIX.size:
        raise InvalidFileError("another format")
    if data[end:] != _checksum(memoryview(data)[:end]):
        raise InvalidFileError("the checksum differs")
    start = PREFIX.size + header_size
    try:
        header = json.loads(data[PREFIX.size : start])
        if header["key"] != key:
            raise InvalidFileError("it belongs to another key")
        arrays = {str(item["name"]): _array(data, start, end, item) for item in header["arrays"]}
        return CacheEntry(arrays, dict(header["meta"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # a right checksum over a wrong description
        raise InvalidFileError(str(error)) from error


def _array(data: bytes, start: int, end: int, item: dict[str, Any]) -> np.ndarray:
    dtype, shape, offset = item["dtype"], item["shape"], item["offset"]
    if dtype not in DTYPES or not all(type(n) is int and n >= 0 for n in (offset, *shape)):
        raise InvalidFileError("an array is described wrongly")
    count = math.prod(shape)
    if start + offset + count * np.dtype(dtype).itemsize > end:
        raise InvalidFileError("an array reaches beyond the file")
    if count == 0:
        return _read_only(np.zeros(shape, dtype))
    return np.frombuffer(data, dtype, count, start + offset).reshape(shape)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()
