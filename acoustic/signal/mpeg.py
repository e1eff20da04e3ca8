"""Frame headers of MPEG audio (ISO 11172-3, 13818-3) and ADTS AAC (ISO 13818-7): enough to know them from noise."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

RUN = 3  # frames in a row that make a stream: by chance about once in 2^27 windows of random bytes

# kbit/s by bitrate index: (MPEG-1 layers I, II, III), (MPEG-2 and 2.5 layer I, layers II and III)
_V1L1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1L2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1L3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2L1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2L23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True, slots=True)
class Frames:
    """Where a run of frames begins, and of what kind it is; `layer` is 1 to 3, of ADTS 0."""

    kind: Literal["mpeg", "adts"]
    layer: int
    offset: int


def frame_length(data: bytes, at: int) -> tuple[int, int, int]:
    """(bytes of the frame whose header stands at `at`, its layer, what must agree between frames); 0 bytes: no frame.

    Frames of free format are not known.
    """
    if at + 7 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return 0, 0, 0
    second, third = data[at + 1], data[at + 2]
    version, layer_bits = second >> 3 & 3, second >> 1 & 3
    if layer_bits == 0:  # ADTS: twelve sync bits and a layer of 0
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        valid = second & 0xF0 == 0xF0 and third >> 2 & 15 < 13 and length > 7
        return (length, 0, second << 8 | third & 0xFC) if valid else (0, 0, 0)
    index, rate_index = third >> 4, third >> 2 & 3
    if version == 1 or index in (0, 15) or rate_index == 3:
        return 0, 0, 0
    layer = 4 - layer_bits
    rate, padding = _RATES[version][rate_index], third >> 1 & 1
    if layer == 1:
        kbits = (_V1L1 if version == 3 else _V2L1)[index]
        length = (12_000 * kbits // rate + padding) * 4
    else:
        kbits = (_V2L23 if version != 3 else _V1L2 if layer == 2 else _V1L3)[index]
        length = (72_000 if layer == 3 and version != 3 else 144_000) * kbits // rate + padding
    return length, layer, (second & 0xFE) << 8 | third & 0x0C


def find_frames(data: bytes, more: bool, window: int, tagged: bool) -> Frames | None:
    """The first run of RUN frames that begins within `window` bytes of `data`.

    A run may be shorter where the file ends (`more` is False) and either a tag announced it or it is of layer III.
    """
    at = data.find(b"\xff")
    while 0 <= at < window:
        length, layer, key = frame_length(data, at)
        next_at, run = at, 0
        while length and run < RUN:
            run += 1
            next_at += length
            if next_at + 7 > len(data):
                break
            length, _, next_key = frame_length(data, next_at)
            if next_key != key:
                break
        cut = not more and next_at + 7 > len(data) and run > 0 and at == 0 and (tagged or layer == 3)
        if run >= RUN or cut:
            return Frames("adts" if layer == 0 else "mpeg", layer, at)
        at = data.find(b"\xff", at + 1)
    return None


@dataclass(frozen=True, slots=True)
class Counts:
    """What the first frame of a layer III stream says of the whole of it (a Xing, Info or VBRI header); 0: nothing."""

    n_frames: int
    n_bytes: int


def counts_of(data: bytes, offset: int) -> Counts | None:
    """The counts in the frame at `offset`; None where it is an ordinary frame."""
    length, layer, _ = frame_length(data, offset)
    if not length or layer != 3:
        return None
    frame = data[offset : offset + length]
    mono, first = frame[3] >> 6 == 3, data[offset + 1] >> 3 & 3 == 3
    side = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    for magic in (b"Xing", b"Info"):
        if frame.startswith(magic, side) and len(frame) >= side + 16:
            flags, *fields = struct.unpack_from(">III", frame, side + 4)
            return Counts(fields.pop(0) if flags & 1 else 0, fields.pop(0) if flags & 2 else 0)
    if frame.startswith(b"VBRI", 36) and len(frame) >= 54:
        n_bytes, n_frames = struct.unpack_from(">II", frame, 46)
        return Counts(n_frames, n_bytes)
    return None


def is_mpeg_1(data: bytes, offset: int) -> bool:
    """Whether the frame at `offset` is of MPEG-1, not of the low sample rates that came with MPEG-2."""
    return data[offset + 1] >> 3 & 3 == 3
