"""libsndfile: WAV, RF64, W64, AIFF, AU and FLAC, whose seeks are exact; MP3 that says how long it is; and the second
choice for Ogg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import soundfile

from .reader import BLOCK_VALUES, DecodingError

MPEG_LEAD_S = 0.3
"""decoded and dropped before a slice of MP3, whose frames borrow bits from up to nine frames before them"""
MPEG_VALUES_AT_ONCE = 1 << 20
"""values of MP3 that are read at once: those of a segment, so that it needs one lead-in"""
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
        mpeg = self.codec.startswith("MPEG")
        self._lead = int(MPEG_LEAD_S * self._file.samplerate) if mpeg else 0
        self._values_at_once = MPEG_VALUES_AT_ONCE if mpeg else BLOCK_VALUES
        self.sample_rate, self.n_channels = self._file.samplerate, self._file.channels
        self.n_frames: int | None = self._file.frames if 0 < self._file.frames < 1 << 48 else None
        if self.n_frames is None:
            self._file.close()
            raise DecodingError("libsndfile: it finds no samples")

    def blocks(self, start: int, n: int) -> Iterator[np.ndarray]:
        size, at_once = (max(1, values // self.n_channels) for values in (BLOCK_VALUES, self._values_at_once))
        try:
            while n > 0:
                lead = min(start, self._lead)
                # soundfile ends each read with a seek, so every read of MP3 begins with a lead-in of its own
                self._file.seek(start - lead)
                read = self._file.read(lead + min(n, at_once), dtype="float32", always_2d=True)[lead:]
                if len(read) == 0:
                    return
                start, n = start + len(read), n - len(read)
                for at in range(0, len(read), size):
                    yield read[at : at + size]
        except soundfile.SoundFileError as error:
            raise DecodingError(f"libsndfile: {error}") from error

    def count(self, max_frames: int) -> int | None:
        return None

    def close(self) -> None:
        self._file.close()
