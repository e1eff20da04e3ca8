"""What kind of file it is that holds tags, and where its parts lie: by its bytes alone, never by its name."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import TagError

MAX_CHUNKS = 1_000
APE = (b"wvpk", b"MAC ", b"MPCK", b"MP+", b"tBaK", b"OFR ")  # read only


def kind_of(file: BinaryIO) -> str:
    """mp3, flac, ogg, m4a, wma, wav, aiff or ape, by the file's bytes. TagError for anything else."""
    head = file.read(64)
    at = 0
    while head[:3] == b"ID3" and len(head) >= 10:
        at += 10 + (head[6] & 127) * 0x200000 + (head[7] & 127) * 0x4000 + (head[8] & 127) * 128 + (head[9] & 127)
        file.seek(at)
        head = file.read(64)
    file.seek(0)
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"OggS":
        return "ogg"
    if head[4:8] == b"ftyp":
        return "m4a"
    if head[:8] == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11":
        return "wma"
    if head.startswith(APE):
        return "ape"
    if (
        at
        or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0 and head[1] & 6)
        or not head.strip(b"\0")
    ):
        return "mp3"
    raise TagError("no tags are read from this kind of file")


def chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset of the body, its length) of the chunks of a RIFF or IFF file."""
    size, at = os.fstat(file.fileno()).st_size, 12
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        name, length = struct.unpack(order + "4sI", header)
        yield name, at + 8, min(length, size - at - 8)
        at += 8 + length + length % 2
