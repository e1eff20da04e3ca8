"""A track -> the K slices of it that the model sees, as long as the model's input, at exact places.

The plan (`plan`) is arithmetic on the track's length; `take` reads the planned slices, and no more of the track unless
some of them are silent.

- "spread": the track is cut into K equal parts and a segment stands in the middle of each. A track shorter than K
  segments takes them edge to edge, its first at 0 and its last at the end, as long as neighbours share at most
  MAX_OVERLAP of a segment; beyond that it gets fewer.
- "middle": the same plan, for as many segments as fill the middle `middle_s` seconds.
- A track shorter than one segment is repeated until it fills one, as is usual for this model family; to fade the rounds
  into each other or to cut them at zero crossings changed nothing that could be measured (docs/robustness.md).
- A silent slice is replaced by another place: of its part of the track, then beside slices that sound; in a fixed
  order, with at most READS_PER_SEGMENT reads a segment. Where none is found it is left out; if nothing sounds, the
  planned slices are what there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ..errors import CorruptAudioError, EmptyAudioError, InternalError, SettingsError
from ..records import MelSpec, Segments, SegmentSpec, Waveform
from .levels import energy

Read = Callable[[float, float], Waveform]
"""read(start_s, length_s): that slice at the mel's sample rate, shorter only where the track ends."""

SILENCE_DBFS = -60.0
"""RMS, after removing the mean, below which a slice is silent; a full-scale square wave is 0 dBFS."""
MAX_OVERLAP = 0.25
"""Most that two segments of a track share, as a share of a segment. Tracks of 15 to 30 s were measured with up to 0.75:
more segments, the same answers (docs/robustness.md)."""
PLACES_IN_PART = (0.0, 1.0, 0.25, 0.75, 0.5)
"""Where a silent slice's replacement is looked for: shares of the room that a segment has in its part of the track."""
PLACES_BESIDE = 2
"""Then: how many places right beside sounding segments, nearest first."""
READS_PER_SEGMENT = 1 + len(PLACES_IN_PART) + PLACES_BESIDE
"""Most reads that a planned segment can cost."""


def take(read: Read, duration_s: float, spec: SegmentSpec, mel: MelSpec) -> Segments:
    """Segments of a track of `duration_s`, in the order of time: samples (K, mel.n_samples) float32, contiguous.

    `duration_s` may be a container's claim: where a read shows that the track ends earlier, its end is searched for and
    the segments are planned anew. Raises EmptyAudioError if nothing can be read, SettingsError for an unusable spec.
    """
    slices = _Slices(read, mel)
    n_track = math.floor(duration_s * mel.sample_rate + 1e-6)
    for _ in range(4):  # the end that is found is exact, so a second plan is enough for a steady reader
        try:
            if n_track < mel.n_samples:
                return slices.tiled(n_track)
            return slices.pack(_sounding(slices, n_track, plan(n_track, spec, mel)))
        except _EndsEarlierError as found:
            n_track = found.n_track
    raise CorruptAudioError(f"the end of the track moved while it was read (now {n_track / mel.sample_rate:.3f} s)")


def plan(n_track: int, spec: SegmentSpec, mel: MelSpec) -> tuple[int, ...]:
    """First samples of the segments planned for a track of `n_track` samples, ascending; (0,) for a short track."""
    n = mel.n_samples
    if spec.n_segments < 1 or not spec.middle_s > 0:
        raise SettingsError(f"n_segments = {spec.n_segments}, middle_s = {spec.middle_s}: both must be positive")
    if n_track <= n:
        return (0,)
    if spec.mode == "spread":
        return _spread(n_track, spec.n_segments, n)
    n_window = min(n_track, max(n, round(spec.middle_s * mel.sample_rate)))
    offset = (n_track - n_window) // 2
    return tuple(offset + start for start in _spread(n_window, math.ceil(n_window / n), n))


def is_silent(samples: np.ndarray) -> bool:
    """Whether a slice holds nothing to hear; a constant offset is silence too."""
    # `np.std(samples, dtype=np.float64)` says the same and takes twice as long. The mean is taken
    # off first, so that a quiet sound on a large offset does not drown in rounding.
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    return energy(centred) < len(samples) * 10 ** (SILENCE_DBFS / 10)


def _spread(n_track: int, n_segments: int, n: int) -> tuple[int, ...]:
    """At most `n_segments` starts over `n_track` >= n samples: in the middle of equal parts, or edge to edge."""
    step = n - math.floor(MAX_OVERLAP * n)
    k = min(n_segments, 1 + (n_track - n) // step)
    if k == 1 or n_track >= k * n:
        return tuple((2 * i + 1) * n_track // (2 * k) - n // 2 for i in range(k))
    return tuple(i * (n_track - n) // (k - 1) for i in range(k))


def _sounding(slices: _Slices, n_track: int, planned: tuple[int, ...]) -> tuple[int, ...]:
    """The planned starts with the silent ones replaced or left out; `planned` itself if nothing sounds."""
    sounding = [start for start in planned if not slices.silent(start)]
    missing = [i for i, start in enumerate(planned) if start not in sounding]
    still_missing = []
    for i in missing:
        places = _places_in_part(i, len(planned), n_track, slices.n)
        sounding += (found := _first_sounding(slices, places, sounding, len(PLACES_IN_PART)))
        still_missing += [] if found else [planned[i]]
    for start in still_missing:
        places = _places_beside(sounding, start, n_track, slices.n)
        sounding += _first_sounding(slices, places, sounding, PLACES_BESIDE)
    return tuple(sorted(sounding)) or planned


def _first_sounding(slices: _Slices, places: Iterable[int], sounding: list[int], max_reads: int) -> list[int]:
    """[the first of `places` that sounds and repeats nothing], or [] after `max_reads` reads."""
    for start in places:
        repeats = any(abs(start - other) < (1 - MAX_OVERLAP) * slices.n for other in sounding)
        if repeats or slices.known_silent(start):
            continue
        if max_reads == 0:
            break
        if not slices.silent(start):
            return [start]
        max_reads -= 1
    return []


def _places_in_part(i: int, k: int, n_track: int, n: int) -> list[int]:
    """Places in the i-th of the track's k equal parts: its two ends first, then between."""
    low = i * n_track // k
    high = (i + 1) * n_track // k - n
    if high <= low:  # a part shorter than a segment has one place, as near to it as the track allows
        return [min(max(0, (low + high) // 2), n_track - n)]
    return [low + math.floor(share * (high - low)) for share in PLACES_IN_PART]


def _places_beside(sounding: list[int], planned: int, n_track: int, n: int) -> list[int]:
    """Places right after and right before segments that sound, the nearest to the planned place first."""
    places = {place for start in sounding for place in (start - n, start + n) if 0 <= place <= n_track - n}
    return sorted(places, key=lambda place: (abs(place - planned), place))


class _EndsEarlierError(Exception):
    """A read came back short: the track has exactly `n_track` samples."""

    def __init__(self, n_track: int) -> None:
        self.n_track = n_track


class _Slices:
    """The track as slices of `n` samples, each read once."""

    def __init__(self, read: Read, mel: MelSpec) -> None:
        self.n = mel.n_samples
        self._rate = mel.sample_rate
        self._read = read
        self._slices: dict[int, np.ndarray] = {}
        self._silent: set[int] = set()

    def silent(self, start: int) -> bool:
        """Whether the slice at `start` is silent; raises _EndsEarlierError where the track does not fill it."""
        samples = self._slice(start, self.n)
        if len(samples) < self.n:
            raise _EndsEarlierError(start + len(samples) if len(samples) else self._find_end(start))
        if is_silent(samples):
            self._silent.add(start)
        return start in self._silent

    def known_silent(self, start: int) -> bool:
        """Whether more than half of the slice at `start` lies in slices that were found silent."""
        return any(abs(start - other) < self.n / 2 for other in self._silent)

    def pack(self, starts: tuple[int, ...]) -> Segments:
        """The slices at `starts`, all of them read before."""
        return Segments(
            samples=np.stack([self._slices[start] for start in starts]).astype(np.float32, copy=False),
            sample_rate=self._rate,
            start_s=tuple(start / self._rate for start in starts),
            end_s=tuple((start + self.n) / self._rate for start in starts),
        )

    def tiled(self, n_track: int) -> Segments:
        """The one segment of a track shorter than a segment: the track, repeated."""
        samples = self._slice(0, n_track)[:n_track]
        if not len(samples):
            raise EmptyAudioError("the track holds no samples")
        tiled = np.resize(samples, (1, self.n)).astype(np.float32, copy=False)
        return Segments(tiled, self._rate, (0.0,), (len(samples) / self._rate,))

    def _find_end(self, at_most: int) -> int:
        """The exact number of readable samples, given that none stands at `at_most`: bisection, 12 reads for 10 h."""
        low, high = 0, at_most  # all before `low` can be read, nothing from `high` on
        while low < high:
            middle = (low + high) // 2 if high - low > self.n else low
            n_got = len(self._slice(middle, self.n))
            if n_got < self.n and (n_got or middle == low):
                return middle + n_got
            low, high = (middle + n_got, high) if n_got else (low, middle)
        return high

    def _slice(self, start: int, n: int) -> np.ndarray:
        if start not in self._slices:
            waveform = self._read(start / self._rate, n / self._rate)
            if waveform.sample_rate != self._rate:
                raise InternalError(f"a slice came at {waveform.sample_rate} Hz; the mel needs {self._rate} Hz")
            self._slices[start] = waveform.samples[:n]
        return self._slices[start]
