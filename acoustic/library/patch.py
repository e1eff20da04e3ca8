"""How an old file is made from a new one that differs little: what is kept so that a write can be undone byte for byte.

A patch is a list of steps: copy a stretch of the new file, or take literal bytes. Tags move what follows them (by the
difference in length) or leave it in place, and change a few bytes elsewhere (lengths in headers, page numbers and sums
of Ogg); so each block of the old file is looked for at those two places, then where its first bytes are found, then in
halves. Files are read by place in blocks, so that memory is flat and a file that shrinks meanwhile does no harm.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import TagError

MAGIC = b"acoustic patch 1\n"
MAX_LITERAL_BYTES = 64 << 20
BLOCK = 1 << 16
SMALLEST = 16  # bytes that are no longer halved
SEARCHED_FROM = 4_096  # bytes that are worth a search
SEARCHED_BYTES = 16 << 20  # of the new file's beginning, where tags are
NEEDLE = 64
MAX_SEARCHES = 128
MAX_SHIFTS = 6
_COPY, _LITERAL = 0, 1
_STEP = struct.Struct("<BQQ")  # kind, place in the new file, length


@dataclass(frozen=True, slots=True)
class _Piece:
    """`n` bytes of the old file from `start`: they lie `shift` further in the new one, or (None) are `literal`."""

    start: int
    n: int
    shift: int | None
    literal: bytes = b""


def make_patch(old: int, new: int) -> bytes | None:
    """The patch that makes the file open as `old` from the one open as `new`; None where that takes more than
    MAX_LITERAL_BYTES of literal bytes. OSError where one cannot be read."""
    finder = _Finder(new, os.fstat(old).st_size, os.fstat(new).st_size)
    packer = zlib.compressobj()
    parts = [MAGIC, struct.pack("<Q", finder.n_old)]
    n_literal = 0
    for piece in _merged(_pieces(old, finder)):
        if piece.shift is None:
            n_literal += piece.n
            if n_literal > MAX_LITERAL_BYTES:
                return None
            parts.append(packer.compress(_STEP.pack(_LITERAL, 0, piece.n) + piece.literal))
        else:
            parts.append(packer.compress(_STEP.pack(_COPY, piece.start + piece.shift, piece.n)))
    parts.append(packer.flush())
    return b"".join(parts)


def apply_patch(patch: bytes, new: int, write: Callable[[bytes], object]) -> None:
    """Hand the old file to `write`, in blocks. TagError for a patch that is damaged or does not fit the file `new`."""
    try:
        if not patch.startswith(MAGIC):
            raise ValueError("not a patch")
        at = len(MAGIC) + 8
        (left,) = struct.unpack("<Q", patch[len(MAGIC) : at])
        steps = zlib.decompress(patch[at:])
    except (ValueError, struct.error, zlib.error) as error:
        raise TagError(f"what was kept of the file is damaged: {error}") from error
    at = 0
    while at < len(steps):
        kind, offset, n = _STEP.unpack_from(steps, at)
        at += _STEP.size
        left -= n
        if kind == _LITERAL:
            write(steps[at : at + n])
            at += n
            continue
        while n > 0:
            block = os.pread(new, min(n, 1 << 20), offset)
            if not block:
                raise TagError("what was kept of the file does not fit it: it became shorter")
            write(block)
            offset += len(block)
            n -= len(block)
    if left:
        raise TagError("what was kept of the file is damaged: its end is missing")


class _Finder:
    """Where stretches of the old file lie in the new one."""

    def __init__(self, new: int, n_old: int, n_new: int) -> None:
        self._new, self.n_old, self._n_new = new, n_old, n_new
        self._shifts = list(dict.fromkeys((0, n_new - n_old)))
        self._n_searches = 0
        self._beginning: bytes | None = None

    def find(self, start: int, data: bytes) -> int | None:
        """The shift by which `data`, from `start` in the old file, lies in the new one; None where it is not found."""
        for shift in self._shifts:
            if self._same(start + shift, data):
                return shift
        if len(data) >= SEARCHED_FROM and self._n_searches < MAX_SEARCHES:
            self._n_searches += 1
            if self._beginning is None:
                self._beginning = os.pread(self._new, SEARCHED_BYTES, 0)
            at = self._beginning.find(data[:NEEDLE])
            if at >= 0 and self._same(at, data):
                self._shifts = [at - start, *self._shifts][:MAX_SHIFTS]
                return at - start
        return None

    def _same(self, at: int, data: bytes) -> bool:
        return 0 <= at <= self._n_new - len(data) and os.pread(self._new, len(data), at) == data


def _pieces(old: int, finder: _Finder) -> Iterator[_Piece]:
    start = 0
    while start < finder.n_old:
        block = os.pread(old, min(BLOCK, finder.n_old - start), start)
        if not block:
            raise TagError("the file became shorter while it was read")
        yield from _cover(start, block, finder)
        start += len(block)


def _cover(start: int, data: bytes, finder: _Finder) -> Iterator[_Piece]:
    shift = finder.find(start, data)
    if shift is not None:
        yield _Piece(start, len(data), shift)
    elif len(data) <= SMALLEST:
        yield _Piece(start, len(data), None, data)
    else:
        half = len(data) // 2
        yield from _cover(start, data[:half], finder)
        yield from _cover(start + half, data[half:], finder)


def _merged(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """Neighbours of one kind in one piece; literal ones up to about a block."""
    held: _Piece | None = None
    for piece in pieces:
        if held is not None and held.shift == piece.shift and (piece.shift is not None or held.n < BLOCK):
            held = _Piece(held.start, held.n + piece.n, held.shift, held.literal + piece.literal)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held
