"""A decoded track, read by slices: length, downmix, resampling, checks and warnings; no word about file formats.

Downmix. See `levels.mix_weights`. The weights are fixed once for the track, from short probes spread over it, so that
slices agree with one another and the result is linear and continuous.

Resampling. soxr (HQ), in a stream. A slice is taken with MARGIN_S of the track on both sides, from a place where the
two rates share a sample, so it holds the samples that the whole track would hold there (to 1e-5, see the tests).
"""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import soxr

from ..errors import (
    AudioError,
    BadParamsError,
    CorruptAudioError,
    EmptyAudioError,
    SettingsError,
    StorageError,
    TooLongError,
    TooShortError,
)
from ..records import AudioInfo, AudioWarning, Waveform
from ..settings import Settings
from .levels import Levels, check_samples, covariance_of, downmix, mix_weights
from .segments import SILENCE_DBFS
from .sniff import Sniffed

BLOCK_VALUES = 1 << 18  # values (frames x channels) that a decoder hands on at a time
MARGIN_S = 0.1  # soxr HQ's filter needs about a tenth of that at 4 kHz
PROBE_S, PROBES = 0.2, (0.2, 0.5, 0.8)  # length and places (share of the track) of the probes for the downmix
END_PROBE_S = 0.5  # how far before the claimed end a long file is tried
PADDING_S = 0.1  # by how much containers overstate a whole stream: its codec's delay and padding
TRUNCATED_S, TRUNCATED_SHARE = 0.25, 0.01  # a track shorter than claimed by less than either is whole: codecs pad
CLIPPED_SHARE = 0.005  # of all samples, two neighbours at full scale make a clipped one; loud masters reach 0.001


class DecodingError(Exception):
    """A decoder gave up; another one may not."""


class Decoder(Protocol):
    """One way to decode an open file. Frames (a sample of each channel) are counted from the track's first."""

    name: Literal["libsndfile", "ffmpeg"]
    codec: str
    sample_rate: int
    n_channels: int
    n_frames: int | None
    """as the container says or estimates"""

    def blocks(self, start: int, n: int) -> Iterator[np.ndarray]:
        """Frames start .. start + n as float32 (m, n_channels) blocks; fewer where the track ends. DecodingError."""
        ...

    def count(self, max_frames: int) -> int | None:
        """Frames up to the readable end, without decoding them; more than `max_frames` may be cut off. None: cannot."""
        ...

    def close(self) -> None: ...


def check_params(sample_rate: int, n_channels: int, settings: Settings) -> None:
    """Raises BadParamsError where rate or channels are out of bounds: before anything is allocated by them."""
    low, high = settings.min_sample_rate_hz, settings.max_sample_rate_hz
    if not low <= sample_rate <= high:
        raise BadParamsError(f"a sample rate of {sample_rate:,} Hz; accepted are {low:,} to {high:,} Hz")
    if not 1 <= n_channels <= settings.max_channels:
        raise BadParamsError(f"{n_channels:,} channels; accepted are 1 to {settings.max_channels}")


class AudioReader:
    """An open track; made by `open_audio`, a context manager, for one thread at a time."""

    info: AudioInfo
    duration_s: float
    """up to the readable end"""

    def __init__(
        self,
        fd: int,
        n_bytes: int,
        sniffed: Sniffed,
        decoders: Sequence[Callable[[], Decoder]],
        sample_rate: int | None,
        settings: Settings,
    ) -> None:
        """Takes over `fd`, which is closed with the reader, or here where this raises."""
        self._fd, self._n_bytes, self._sniffed, self._settings = fd, n_bytes, sniffed, settings
        self._decoders = iter(decoders)
        self._decoder: Decoder | None = None
        self._whole: np.ndarray | None = None
        self._weights: np.ndarray | None = None
        self._levels = Levels()
        self._failure = ""
        try:
            self._start(sample_rate)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; reading afterwards is an error."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, start_s: float, length_s: float) -> Waveform:
        """The slice from `start_s`: mono float32 at `sample_rate`, round(length_s * rate) samples from round(start_s *
        rate), fewer only where the track ends.

        Raises NonFiniteError, CorruptAudioError (nothing can be decoded there) or StorageError; SettingsError for a
        place that is no number or before the start.
        """
        if not (math.isfinite(start_s) and math.isfinite(length_s) and start_s >= 0 and length_s >= 0):
            raise SettingsError(f"a slice from {start_s} s of {length_s} s: both must be finite and not negative")
        first = round(start_s * self.sample_rate)
        last = min(first + round(length_s * self.sample_rate), self.n_samples)
        if self._whole is not None:
            return Waveform(self._whole[first:last], self.sample_rate)
        if self._fd < 0:
            raise StorageError("the track was closed before this read")
        if first >= last:
            return Waveform(np.zeros(0, np.float32), self.sample_rate)
        samples = self._resampled(first, last)
        if len(samples) == 0:
            raise self._lost() or CorruptAudioError(f"nothing could be decoded at {start_s:.1f} s{self._because()}")
        return Waveform(samples, self.sample_rate)

    def may_be_shared(self) -> bool:
        """Whether another reader of the same file gives the same slices, and sooner: it is read by slices, its downmix
        is fixed, and libsndfile decodes it, which works while Python does something else (with FFmpeg's single frames
        two threads take turns: Ogg took 1.4 times as long)."""
        decoder = self._decoder
        return (
            self._whole is None and self._weights is not None and decoder is not None and decoder.name == "libsndfile"
        )

    def beside(self, fd: int, decoder: Decoder) -> AudioReader:
        """Another reader of what this one has opened, for another thread: `decoder` reads `fd`, which it takes over,
        and no other may step in. Raises StorageError, with `fd` closed, where that is not the same file."""
        other = copy.copy(self)
        other._fd, other._decoder, other._decoders, other._levels = fd, decoder, iter(()), Levels()
        mine, its = os.fstat(self._fd), os.fstat(fd)
        same = (mine.st_dev, mine.st_ino, mine.st_size) == (its.st_dev, its.st_ino, its.st_size)
        shapes = [(d.sample_rate, d.n_channels, d.n_frames) for d in (self._decoder, decoder) if d is not None]
        if not same or len(shapes) != 2 or shapes[0] != shapes[1]:
            other.close()
            raise StorageError("the file was exchanged while it was read")
        return other

    def take_over(self, other: AudioReader) -> None:
        """Count what `other`, which read beside this one, has read."""
        self._levels.join(other._levels)

    def raw_blocks(self) -> Iterator[np.ndarray]:
        """All frames in one pass from the first to where decoding ends, unchecked: float32 (m, n_channels) at the
        file's own rate. CorruptAudioError where the decoder gives up, after what it gave."""
        if self._decoder is None:
            raise StorageError("the track was closed before this read")
        try:
            yield from self._decoder.blocks(0, sys.maxsize)
        except DecodingError as error:
            raise CorruptAudioError(str(error)) from error

    def warnings(self) -> tuple[AudioWarning, ...]:
        """What a person should know of the file as far as it was read: TRUNCATED, SILENT, CLIPPED."""
        found: list[AudioWarning] = []
        claimed_s, missing_s = self._claimed_s, self._claimed_s - self.duration_s
        if missing_s > TRUNCATED_S and missing_s > TRUNCATED_SHARE * claimed_s:
            share = 100 * self.duration_s / claimed_s
            text = f"the file claims {claimed_s:.1f} s, but only {self.duration_s:.1f} s ({share:.0f} %) can be decoded"
            found.append(AudioWarning("TRUNCATED", text + self._because()))
        elif not self._sniffed.ended:
            text = f"the stream breaks off without its end mark after {self.duration_s:.1f} s; 100 % of what is there"
            found.append(AudioWarning("TRUNCATED", text + " can be decoded, its full length is unknown"))
        levels = self._levels
        if levels.n_samples and levels.rms() < 10 ** (SILENCE_DBFS / 20):
            text = (
                f"{levels.n_samples / self._rate:.1f} s were read and all of it is silent (below {SILENCE_DBFS:g} dBFS)"
            )
            found.append(AudioWarning("SILENT", text))
        if levels.clipped_share() >= CLIPPED_SHARE:
            found.append(
                AudioWarning("CLIPPED", f"{levels.clipped_share():.1%} of what was read is cut off at full scale")
            )
        return tuple(found)

    # --- opening ---

    def _start(self, sample_rate: int | None) -> None:
        settings, sniffed = self._settings, self._sniffed
        decoder = self._next_decoder()
        self._rate, self._n_channels = decoder.sample_rate, decoder.n_channels
        self.sample_rate = sample_rate or self._rate
        self._n_frames = self._length(decoder)
        told = sniffed.length != "unknown" and (decoder.n_frames or 0) > 0
        claims = told and sniffed.length == "claimed"
        self._claimed_s = sniffed.claimed_s or (decoder.n_frames or 0) / self._rate * claims
        self._check_longest(self._n_frames / self._rate)
        short = self._n_frames <= settings.whole_file_s * self._rate
        if not short and (claims or decoder.name == "ffmpeg"):  # libsndfile's count of plain PCM needs no trial
            self._n_frames = self._readable_end(decoder)
            short = self._n_frames <= settings.whole_file_s * self._rate
        self._probe()
        if short:
            self._read_whole()
        elif not self._levels_probed:
            raise self._lost() or CorruptAudioError(f"none of it could be decoded{self._because()}")
        self.duration_s = self._n_frames / self._rate
        self._check_shortest()
        known = self._claimed_s or (self.duration_s if told else None)
        self.info = AudioInfo(
            sniffed.container, decoder.codec, decoder.name, self._rate, self._n_channels, known, self._n_bytes
        )

    @property
    def n_samples(self) -> int:
        """Samples of the whole track at `sample_rate`."""
        return self._n_frames * self.sample_rate // self._rate

    def _next_decoder(self) -> Decoder:
        """The next decoder that opens the file; the last one's error where none does."""
        reasons: list[str] = []
        for create in self._decoders:
            try:
                decoder = create()
            except DecodingError as error:
                reasons.append(str(error))
                continue
            self._decoder = decoder
            check_params(decoder.sample_rate, decoder.n_channels, self._settings)
            return decoder
        raise self._lost() or CorruptAudioError(
            f"the {self._sniffed.container} file cannot be decoded ({'; '.join(reasons) or 'no decoder is left'})"
        )

    def _length(self, decoder: Decoder) -> int:
        """Frames of the track as its container tells, or counted where that is unknown or a guess."""
        if self._sniffed.length != "unknown" and decoder.n_frames:
            return decoder.n_frames
        n_frames = decoder.count(int(self._settings.max_duration_s * decoder.sample_rate) + 1)
        return decoder.n_frames or 0 if n_frames is None else n_frames

    def _readable_end(self, decoder: Decoder) -> int:
        """Where a long track that claims `_n_frames` ends: tried just before that, counted where nothing is there."""
        probe = min(self._n_frames, int(END_PROBE_S * self._rate))
        start = self._n_frames - probe
        got = sum(len(block) for block in self._blocks(start, probe))
        if got > 0.5 * probe:
            return start + got
        counted = self._decoder.count(self._n_frames) if self._decoder is not None else None
        return start + got if counted is None else min(counted, self._n_frames)

    def _read_whole(self) -> None:
        self._whole = np.zeros(0, np.float32)
        if self.n_samples > 0:
            self._whole = self._resampled(0, self.n_samples)
            self._n_frames = min(self._n_frames, self._levels.n_samples)
            self._whole = self._whole[: self.n_samples]

    def _check_longest(self, duration_s: float) -> None:
        if duration_s > self._settings.max_duration_s:
            bound = self._settings.max_duration_s
            raise TooLongError(f"{duration_s:,.0f} s of audio ({duration_s / 3600:,.1f} h); the bound is {bound:,g} s")

    def _check_shortest(self) -> None:
        if self._n_frames == 0:
            if self._claimed_s or self._failure:
                raise self._lost() or CorruptAudioError(
                    f"the header claims {self._claimed_s:.1f} s, but none of it can be decoded{self._because()}"
                )
            raise EmptyAudioError(f"the {self._sniffed.container} file holds no samples")
        if self.duration_s < self._settings.min_duration_s:
            cut = f" of the {self._claimed_s:.1f} s claimed" if self._claimed_s > 2 * self.duration_s else ""
            bound = self._settings.min_duration_s
            raise TooShortError(f"{self.duration_s:.3f} s of audio{cut}; the bound is {bound:g} s")

    # --- decoding ---

    def _blocks(self, start: int, n: int) -> Iterator[np.ndarray]:
        """Checked blocks of [start, start + n), from the next decoder where the present one fails or stops short."""
        done = 0
        while self._decoder is not None:
            try:
                for block in self._decoder.blocks(start + done, n - done):
                    check_samples(block)
                    done += len(block)
                    yield block
                if n - done <= PADDING_S * self._rate:
                    break
            except DecodingError as error:
                self._failure = str(error)
            if not self._fall_back():
                break

    def _fall_back(self) -> bool:
        """Whether another decoder that counts the same frames took the place of the present one."""
        before = self._decoder
        if (lost := self._lost()) is not None:
            raise lost
        try:
            after = self._next_decoder()
        except AudioError:
            self._decoder = before
            return False
        if (after.sample_rate, after.n_channels) != (self._rate, self._n_channels):
            after.close()
            self._decoder = before
            return False
        if before is not None:
            before.close()
        return True

    def _lost(self) -> StorageError | None:
        """The error where the file was cut or exchanged under our hands."""
        n_bytes = os.fstat(self._fd).st_size if self._fd >= 0 else 0
        if n_bytes != self._n_bytes:
            return StorageError(f"the file changed while it was read: {self._n_bytes:,} bytes became {n_bytes:,}")
        return None

    def _because(self) -> str:
        return f" ({self._failure})" if self._failure else ""

    def _probe(self) -> None:
        """Fix the downmix from short stretches spread over the track."""
        length = int(PROBE_S * self._rate)
        covariance = np.zeros((self._n_channels, self._n_channels))
        self._levels_probed = 0
        for share in PROBES:
            for block in self._blocks(int(share * max(0, self._n_frames - length)), min(length, self._n_frames)):
                self._levels_probed += len(block)
                covariance += covariance_of(block)
        self._decide(covariance / max(1, self._levels_probed))

    def _decide(self, covariance: np.ndarray) -> None:
        """Fix the downmix if there is anything to hear; else the next block that sounds does."""
        if np.trace(covariance) / len(covariance) > 10 ** (SILENCE_DBFS / 10):
            self._weights = mix_weights(covariance)

    def _mono(self, start: int, n: int) -> Iterator[np.ndarray]:
        for block in self._blocks(start, n):
            if self._weights is None:
                self._decide(covariance_of(block) / len(block))
            weights = self._weights
            if weights is None:
                weights = np.full(self._n_channels, 1 / self._n_channels, np.float32)
            mono = downmix(block, weights)
            self._levels.add(block, mono)
            yield mono

    def _resampled(self, first: int, last: int) -> np.ndarray:
        """Samples [first, last) of the track at `sample_rate`."""
        rate_in, rate_out = self._rate, self.sample_rate
        if rate_in == rate_out:
            return np.ascontiguousarray(_joined(list(self._mono(first, last - first))))
        common = math.gcd(rate_in, rate_out)  # places per second where both rates have a sample
        place = max(0, math.floor((first / rate_out - MARGIN_S) * common))
        start = place * (rate_in // common)
        end = min(self._n_frames, math.ceil((last / rate_out + MARGIN_S) * rate_in))
        resampler = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
        parts = [resampler.resample_chunk(np.ascontiguousarray(mono)) for mono in self._mono(start, end - start)]
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        skip = first - place * (rate_out // common)
        return _joined(parts)[skip : skip + last - first]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
