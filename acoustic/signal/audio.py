"""File -> mono waveform: the door to the decoders.

`sniff` says by the bytes what a file is and which decoders may try it (`soundfile_decoder`, `ffmpeg_decoder`); `reader`
makes the track of what they give. Measured (180 s of stereo at 44.1 kHz, one core):

- libsndfile reads WAV, RF64, W64, AIFF, AU and FLAC; seeks are exact. So they are in MP3 that tells its length, with a
  lead-in: FFmpeg's samples to 1e-6. FFmpeg takes over where libsndfile fails or stops short.
- FFmpeg (through PyAV) reads all the rest, also MP3 without such a header, cut ones, and those of low rates, of which
  libsndfile's mpg123 complains on the process's stderr. It is told the one format to use, so it never probes, and it
  may open no further file. Frames are placed by their time stamps, see there. Ogg: three times as fast for Opus, of
  which libsndfile 1.2.2 calls one valid file in twelve malformed; libsndfile is the second choice there.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import CorruptAudioError, SettingsError, StorageError
from ..records import Waveform
from ..settings import Settings
from . import ffmpeg_decoder, soundfile_decoder
from .ffmpeg_decoder import FfmpegDecoder, Source
from .files import DEFAULTS, digest, file_identity, find_audio, open_regular, shown, sketch
from .reader import AudioReader, Decoder, DecodingError, check_params
from .sniff import sniff
from .soundfile_decoder import SoundfileDecoder

__all__ = [
    "AudioReader",
    "decoders",
    "digest",
    "file_identity",
    "find_audio",
    "load",
    "open_audio",
    "open_beside",
    "sketch",
]

Path = str | os.PathLike[str]


def open_audio(path: Path, sample_rate: int | None, settings: Settings = DEFAULTS) -> AudioReader:
    """Open a track to read slices at `sample_rate` (None: its own). Use it as a context manager.

    Everything that can be known without decoding it all is checked here. Tracks up to `settings.whole_file_s` are
    decoded whole at once. Raises any AudioError; SettingsError for an impossible `sample_rate`.
    """
    if sample_rate is not None and not 1 <= sample_rate <= DEFAULTS.max_sample_rate_hz:
        raise SettingsError(f"sample_rate = {sample_rate} Hz; possible are 1 to {DEFAULTS.max_sample_rate_hz} Hz")
    fd, n_bytes = open_regular(path, settings)
    try:
        source = Source(fd, n_bytes)
        sniffed = sniff(source.pread, n_bytes)
        if sniffed.sample_rate is not None and sniffed.n_channels is not None:
            check_params(sniffed.sample_rate, sniffed.n_channels, settings)
        create: dict[str, Callable[[], Decoder]] = {
            "libsndfile": lambda: SoundfileDecoder(fd),
            "ffmpeg": lambda: FfmpegDecoder(source, sniffed, settings),
        }
    except OSError as error:
        os.close(fd)
        raise StorageError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    except BaseException:
        os.close(fd)
        raise
    return AudioReader(fd, n_bytes, sniffed, [create[name] for name in sniffed.decoders], sample_rate, settings)


def open_beside(path: Path, reader: AudioReader, settings: Settings = DEFAULTS) -> AudioReader:
    """Another reader of `path`, which `reader` has open and which `may_be_shared`: nothing is looked at twice. Raises
    AudioError where it cannot be had."""
    fd, _ = open_regular(path, settings)
    try:
        decoder = SoundfileDecoder(fd)
    except DecodingError as error:
        os.close(fd)
        raise CorruptAudioError(str(error)) from error
    return reader.beside(fd, decoder)


def load(path: Path, sample_rate: int | None, settings: Settings = DEFAULTS) -> Waveform:
    """The whole file as one waveform at `sample_rate` (None: its own); raises what `open_audio` and `read` raise."""
    with open_audio(path, sample_rate, settings) as reader:
        return reader.read(0.0, reader.duration_s)


def decoders() -> dict[str, str]:
    """Version of each decoder at hand, by name."""
    return {"libsndfile": soundfile_decoder.VERSION, "FFmpeg": ffmpeg_decoder.VERSION}
