"""libsndfile: WAV, RF64, W64, AIFF, AU and FLAC, whose seeks are exact; for Ogg and MP3 the second choice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import soundfile

from .reader import BLOCK_VALUES, DecodingError

VERSION = str(soundfile.__libsndfile_version__)


class SoundfileDecoder:
    """libsndfile on the descriptor."""

    name: Literal["libsndfile", "ffmpeg"] = "libsndfile"

    def __init__(self, fd: int) -> None:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            self._file = soundfile.SoundFile(fd, closefd=False)
        except (soundfile.SoundFileError, OSError) as error:
            raise DecodingError(f"libsndfile: {error}") from error
        self.codec = self._file.subtype
        self.sample_rate, self.n_channels = self._file.samplerate, self._file.channels
        self.n_frames: int | None = self._file.frames if 0 < self._file.frames < 1 << 48 else None
        if self.n_frames is None:
            raise DecodingError("libsndfile: it finds no samples")

    def blocks(self, start: int, n: int) -> Iterator[np.ndarray]:
        size = max(1, BLOCK_VALUES // self.n_channels)
        try:
            self._file.seek(start)
            while n > 0:
                block = self._file.read(min(n, size), dtype="float32", always_2d=True)
                if len(block) == 0:
                    return
                n -= len(block)
                yield block
        except soundfile.SoundFileError as error:
            raise DecodingError(f"libsndfile: {error}") from error

    def count(self, max_frames: int) -> int | None:
        return None

    def close(self) -> None:
        self._file.close()
