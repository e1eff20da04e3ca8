"""A digest of what a file sounds like, bit for bit, whatever its tags are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CorruptAudioError
from ..records import CacheEntry
from ..settings import Settings
from . import audio

ANY_AUDIO = Settings(min_duration_s=0.0, max_duration_s=1e9, max_file_mb=1e9, whole_file_s=0.0)
"""The bounds of an analysis do not matter here, and nothing is read whole."""


def sound_digest(path: bytes | str | os.PathLike[str]) -> str:
    """BLAKE2b (256 bits, hexadecimal) of all decoded samples of all channels, in blocks; of damaged audio, of what is
    decoded before it breaks off. Two files with the same digest sound the same to the last bit. Any AudioError where
    nothing can be decoded."""
    hasher = hashlib.blake2b(digest_size=32)
    with audio.open_audio(os.fsdecode(path), None, ANY_AUDIO) as reader:
        hasher.update(f"{reader.info.sample_rate} {reader.info.n_channels} ".encode())
        try:
            for block in reader.raw_blocks():
                hasher.update(np.ascontiguousarray(block).data)
        except CorruptAudioError:
            hasher.update(b"broken off")
    return hasher.hexdigest()


def digest_remotely(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """For a worker process: `meta["digest"]` is the `sound_digest`."""
    return CacheEntry({}, {"digest": sound_digest(path)})
