"""FFmpeg through PyAV: all that libsndfile does not read, and what it stops at.

It is told the one format to use, so it never probes, and it may open no further file. Frames are placed by their time
stamps, see `_place`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any, Literal

import av
import numpy as np

from ..errors import NotAudioError, UnsupportedAudioError
from ..settings import Settings
from .reader import BLOCK_VALUES, DecodingError, check_params
from .sniff import Sniffed

Frames = Iterator[tuple[Any, int]]
"""(PyAV's frame, its samples); None for the silence in place of a packet that cannot be decoded"""

VERSION = f"libavcodec {'.'.join(str(n) for n in av.library_versions['libavcodec'])} (PyAV {av.__version__})"
PREROLL_S = (0.3, 5.0)  # decoded and dropped before a slice: Opus needs 80 ms, MP3's bit reservoir up to 0.26 s
EXACT_FRAMES = 8  # frames whose exact time stamps are compared: one in a few may be wrong
COARSE_FRAMES, COARSE_S = 128, 3.0  # frames whose rounded time stamps together tell the place within a sample
MIN_BLOCK, MAX_TINY_BLOCKS = 16, 4_096  # no codec has frames under 32 samples; damaged headers have, and cost minutes
MAX_BAD_PACKETS = 50  # undecodable packets in a row; a few are replaced by silence, as players do
SAMPLE_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}
# What FFmpeg raises through PyAV on damaged files: its own errors, and those of the Python types that PyAV builds.
FFMPEG_ERRORS = (
    av.error.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError, AssertionError, MemoryError
)  # fmt: skip


class Source:
    """The open file as FFmpeg reads it: by place, so that it disturbs nobody who shares the descriptor.

    It has no name on purpose: PyAV would hand it on, and FFmpeg would look at the extension.
    """

    def __init__(self, fd: int, n_bytes: int) -> None:
        self._fd, self._n_bytes, self._at = fd, n_bytes, 0

    def pread(self, offset: int, n: int) -> bytes:
        return os.pread(self._fd, n, offset)

    def read(self, n: int) -> bytes:
        data = os.pread(self._fd, n, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


class FfmpegDecoder:
    """FFmpeg through PyAV, with the one demuxer that the file's bytes ask for."""

    name: Literal["libsndfile", "ffmpeg"] = "ffmpeg"

    def __init__(self, source: Source, sniffed: Sniffed, settings: Settings) -> None:
        self._source, self._sniffed, self._settings = source, sniffed, settings
        self.sample_rate = 0  # the first frame tells the truth: HE-AAC declares half its rate
        self._container: Any = None
        try:
            self._open()
            self._first_frames()
        except BaseException:
            self.close()
            raise
        self.n_frames = self._said_frames()

    def _open(self) -> None:
        """Open the container at its start: more reliable than seeking there, which leaves Opus's padding in."""
        self.close()
        self._source.seek(0)
        try:
            self._container = av.open(
                self._source,
                format=self._sniffed.demuxer,
                metadata_errors="replace",
                buffer_size=1 << 16,
                io_open=_refuse,
            )
        except FFMPEG_ERRORS as error:
            raise DecodingError(f"FFmpeg: {_reason(error)}") from error
        self._stream = self._audio_stream()
        self._tick_s = float(self._stream.time_base or 1)
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = av.stream.Discard.all

    def _audio_stream(self) -> Any:
        """The first stream that can be played, within bounds."""
        name, streams = self._sniffed.container, self._container.streams.audio
        if not streams:
            kinds = sorted({str(stream.type) for stream in self._container.streams}) or ["nothing"]
            raise NotAudioError(f"the {name} file holds {', '.join(kinds)}, but no audio")
        playable = [stream for stream in streams if stream.codec_context is not None]
        if not playable:
            raise UnsupportedAudioError(f"the audio in this {name} file is in a codec that no decoder here knows")
        context = playable[0].codec_context
        context.thread_count = 1  # files are decoded side by side; threads inside one only cost
        if context.sample_rate and context.layout.nb_channels:
            check_params(context.sample_rate, context.layout.nb_channels, self._settings)
        self.codec = str(context.codec.name)
        return playable[0]

    def _first_frames(self) -> None:
        """Rate, channels, and where frame 0 stands: `_base_s` by time stamp, `_grid` by size of the codec's frames."""
        self._base_s = 0.0
        self._grid: tuple[int, int] | None = None
        stamps, frames = self._gather(self._frames())
        if not frames:
            raise DecodingError("FFmpeg: not one frame can be decoded")
        sizes = [n for _, n in frames]
        if self._coarse() and len(set(sizes[1:])) == 1:
            self._grid = sizes[0], sizes[1]
        if stamps:
            self._base_s = self._place(stamps, sizes, None) / self.sample_rate

    def _coarse(self) -> bool:
        """Whether time stamps are rounded to more than a sample."""
        return self._tick_s * self.sample_rate > 1

    def _gather(self, frames: Frames) -> tuple[list[float], list[tuple[Any, int]]]:
        """Time stamps (s) and the next frames, as many as tell the place; no stamps where one is missing."""
        stamps: list[float] = []
        gathered: list[tuple[Any, int]] = []
        n_done = 0
        for frame, n in frames:
            check_params(self.sample_rate, self.n_channels, self._settings)
            gathered.append((frame, n))
            stamps += [] if frame is None or frame.pts is None else [frame.pts * self._tick_s]
            n_done += n
            coarse = self._coarse() and self._grid is None
            enough = len(gathered) >= COARSE_FRAMES or n_done >= COARSE_S * self.sample_rate
            if len(gathered) >= EXACT_FRAMES and (enough or not coarse):
                break
        return (stamps if len(stamps) == len(gathered) else []), gathered

    def _said_frames(self) -> int | None:
        """Length by the container; None where it says nothing about this stream."""
        if self._stream.duration is not None:
            return round(self._stream.duration * self._tick_s * self.sample_rate)
        alone = len(self._container.streams) == 1
        if self._container.duration is not None and alone:
            return round(self._container.duration / av.time_base * self.sample_rate)
        return None

    def blocks(self, start: int, n: int) -> Iterator[np.ndarray]:
        at, frames = self._from(start)
        end = start + n
        pieces: list[tuple[Any, int, int]] = []
        n_pieces = 0
        size = max(1, BLOCK_VALUES // self.n_channels)
        failure: DecodingError | None = None
        while at < end:
            try:
                frame, n_frame = next(frames, (None, 0))
            except DecodingError as error:
                failure = error
                break
            if n_frame == 0:
                break
            first, last = max(0, start - at), min(n_frame, end - at)
            at += n_frame
            if first < last:
                pieces.append((frame, first, last))
                n_pieces += last - first
            if n_pieces >= size:
                yield self._block(pieces, n_pieces)
                pieces, n_pieces = [], 0
        if pieces:
            yield self._block(pieces, n_pieces)
        if failure is not None:
            raise failure

    def _from(self, start: int) -> tuple[int, Frames]:
        """(place of the first frame, frames) from somewhere before `start`."""
        for lead_s in PREROLL_S:
            lead = int(lead_s * self.sample_rate)
            if start <= 2 * lead or not self._seek((start - lead) / self.sample_rate):
                break
            frames = self._frames()
            try:
                stamps, gathered = self._gather(frames)
            except DecodingError:
                continue
            if stamps:
                at = round(self._place(stamps, [n for _, n in gathered], self._grid))
                if at <= start:
                    return at, itertools.chain(gathered, frames)
        self._open()
        return 0, self._frames()

    def _place(self, stamps: list[float], sizes: list[int], grid: tuple[int, int] | None) -> float:
        """The place, in frames of the track, of the first of some blocks, from their time stamps (s) and sizes.

        Containers that stamp in milliseconds round each stamp, so a single one is off by up to half a tick: of all the
        estimates `stamp - what precedes it` the middle of the range is taken, which is within a sample (where stamps
        jump, as FFmpeg's do at a Vorbis block between long and short windows: the lower median). The first stamp is
        left out: codecs shorten their first frame. Where such a container has blocks of one size, but for its first,
        the place is then exact: it lies on their `grid` (first size, others).
        """
        before = np.concatenate(([0], np.cumsum(sizes[:-1])))
        estimates = (np.asarray(stamps) - self._base_s) * self.sample_rate - before
        if len(estimates) > 1:
            estimates = estimates[1:]
        low, high = float(estimates.min()), float(estimates.max())
        place = (low + high) / 2
        if high - low > self._tick_s * self.sample_rate + 1:
            place = float(np.sort(estimates)[(len(estimates) - 1) // 2])  # one of them, never the mean of two
        if grid is not None and set(sizes[1:]) == {grid[1]}:
            second = place + sizes[0] - grid[0]
            place = grid[0] + round(second / grid[1]) * grid[1] - sizes[0]
        return place

    def _seek(self, place_s: float) -> bool:
        try:
            self._container.seek(int((place_s + self._base_s) / self._tick_s), stream=self._stream)
        except FFMPEG_ERRORS:
            return False
        return True

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except FFMPEG_ERRORS as error:
            raise DecodingError(f"FFmpeg: {_reason(error)}") from error

    def _frames(self) -> Frames:
        """Every frame that holds samples, from here to the end of the file."""
        n_bad = n_last = n_frames = n_done = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except FFMPEG_ERRORS as error:
                n_bad += 1
                if n_bad > MAX_BAD_PACKETS:
                    raise DecodingError(f"FFmpeg: {_reason(error)}") from error
                if n_last:
                    yield None, n_last
                continue
            for frame in frames:
                if frame.sample_rate != self.sample_rate:
                    self._take_rate(frame)
                n_bad, n_last = 0, frame.samples
                n_frames, n_done = n_frames + 1, n_done + n_last
                if n_frames > MAX_TINY_BLOCKS and n_done < MIN_BLOCK * n_frames:
                    raise DecodingError(f"FFmpeg: packets of {n_done / n_frames:.1f} samples")
                if n_last:
                    yield frame, n_last

    def _take_rate(self, frame: Any) -> None:
        """Rate and channels of the first frame are the track's."""
        if self.sample_rate:
            raise DecodingError(f"the sample rate changes from {self.sample_rate} to {frame.sample_rate} Hz on the way")
        self.sample_rate, self.n_channels = frame.sample_rate, frame.layout.nb_channels

    def _block(self, pieces: list[tuple[Any, int, int]], n: int) -> np.ndarray:
        """Pieces (frame, first sample, last) of `n` samples in all as one block, float32 (n, n_channels) in [-1, 1].

        A codec's frames are short, so all of them are written into one array, channel by channel as most codecs leave
        them: what numpy takes for an array of each would be half of what decoding takes.
        """
        block = np.empty((self.n_channels, n), np.float32)
        rows = list(block)
        at = 0
        for frame, first, last in pieces:
            end = at + last - first
            if frame is None:
                block[:, at:end] = 0.0
            elif frame.format.name == "fltp" and len(planes := frame.planes) == self.n_channels:
                for row, plane in zip(rows, planes, strict=True):
                    row[at:end] = np.frombuffer(plane, np.float32, last - first, 4 * first)
            else:  # broadcasts change between mono and stereo
                values = _values(frame)[:, first:last]
                block[:, at:end] = values if len(values) == self.n_channels else values.mean(axis=0)
            at = end
        return block.T

    def count(self, max_frames: int) -> int | None:
        """From the packets' stamps and lengths; reads the file once, decodes nothing."""
        self._open()
        end_s = summed_s = 0.0
        try:
            for packet in self._packets():
                length_s = (packet.duration or 0) * self._tick_s
                summed_s += length_s
                if packet.pts is not None:
                    end_s = max(end_s, packet.pts * self._tick_s + length_s - self._base_s)
                if max(end_s, summed_s) * self.sample_rate > max_frames:
                    break
        except DecodingError:
            pass  # up to here it is readable
        return round((end_s or summed_s) * self.sample_rate)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()


def _values(frame: Any) -> np.ndarray:
    """A frame as float32 (channels, samples) in [-1, 1]; by hand, because PyAV's to_ndarray takes as long as the
    decoding."""
    layout, planes = frame.format.name, frame.planes
    values: np.ndarray
    if layout[-1] == "p":  # planar
        kind = SAMPLE_TYPES[layout[:-1]]
        values = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes])
    else:
        n_channels = frame.layout.nb_channels
        values = np.frombuffer(planes[0], SAMPLE_TYPES[layout], frame.samples * n_channels).reshape(-1, n_channels).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(-float(np.iinfo(values.dtype).min))
    return values.astype(np.float32)


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    """Asked by FFmpeg for a further file (a playlist's, an external reference's)."""
    raise PermissionError("a file may not open other files")


def _reason(error: BaseException) -> str:
    """A foreign error's reason in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
