"""Content keys: hex digits that stand for values of any of a few kinds."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import struct
from collections.abc import Iterator
from typing import Any

from ..errors import InternalError

KEY = re.compile(r"[0-9a-f]{16,128}")


def make_key(*parts: Any) -> str:
    """40 hex digits that stand for `parts`: None, bool, int, float, str, bytes, tuples and frozen dataclasses of these.

    Every value is encoded with its kind and length, so that no two lists of parts run together: ("ab", "c") is not
    ("a", "bc"), and 1 is neither 1.0 nor True. Raises InternalError for another type: its text may not be its value.

    >>> make_key("ab", "c") == make_key("a", "bc")
    False
    """
    return hashlib.blake2b(b"".join(_canonical(parts)), digest_size=20).hexdigest()


def _canonical(value: Any) -> Iterator[bytes]:
    if value is None or isinstance(value, bool):
        yield _tagged(b"c", repr(value).encode())
    elif isinstance(value, int):
        yield _tagged(b"i", b"%d" % value)
    elif isinstance(value, float):
        yield _tagged(b"f", struct.pack("<d", value))
    elif isinstance(value, str):
        yield _tagged(b"s", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        yield _tagged(b"b", value)
    elif isinstance(value, tuple):
        yield _tagged(b"t", b"".join(part for item in value for part in _canonical(item)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        named = tuple((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        yield _tagged(b"d", b"".join(_canonical((type(value).__qualname__, named))))
    else:
        raise InternalError(f"a cache key cannot be made of {type(value).__name__}: {value!r:.80}")


def _tagged(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<Q", len(data)) + data
