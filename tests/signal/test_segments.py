"""Which slices of a track are taken: arithmetic, silence, short tracks, and tracks that end earlier than they claim."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.errors import EmptyAudioError, InternalError, SettingsError
from acoustic.records import MelSpec, SegmentSpec, Waveform
from acoustic.signal.segments import MAX_OVERLAP, READS_PER_SEGMENT, is_silent, plan, take

RATE = 1_000
MEL = MelSpec(sample_rate=RATE, n_fft=64, hop_length=10, n_mels=16, fmax_hz=500.0)
N = MEL.n_samples  # 2,240 samples, 2.24 s
SHARED = int(MAX_OVERLAP * N)


class Track:
    """A track in memory behind `read`, as a decoder would give it: shorter slices only at its end."""

    def __init__(self, samples: np.ndarray, claimed: int | None = None) -> None:
        self.samples = samples.astype(np.float32)
        self.duration_s = (len(samples) if claimed is None else claimed) / RATE
        self.reads: list[tuple[int, int]] = []

    def read(self, start_s: float, length_s: float) -> Waveform:
        start, length = round(start_s * RATE), round(length_s * RATE)
        assert start >= 0
        assert start + length <= max(round(self.duration_s * RATE), 1), "read outside of what the track claims"
        self.reads.append((start, length))
        return Waveform(self.samples[start : start + length], RATE)

    def take(self, n_segments: int = 3, **spec: object):  # type: ignore[no-untyped-def]
        return take(self.read, self.duration_s, SegmentSpec(n_segments, **spec), MEL)  # type: ignore[arg-type]


def sounding(n: int) -> np.ndarray:
    """Samples that name their own place: no two slices are alike, none is silent."""
    return np.sin(np.arange(n) * 2.0) * (0.1 + 0.8 * np.arange(n) / n)


def starts_of(segments) -> list[int]:  # type: ignore[no-untyped-def]
    return [round(start * RATE) for start in segments.start_s]


# --- the plan --------------------------------------------------------------------------------------------------------


def test_spread_stands_in_the_middle_of_equal_parts() -> None:
    n_track = 3 * 10_000
    assert plan(n_track, SegmentSpec(3), MEL) == (5_000 - N // 2, 15_000 - N // 2, 25_000 - N // 2)


def test_middle_fills_the_middle_seconds() -> None:
    # 6 s hold 2.68 segments: three, edge to edge, sharing a little
    starts = plan(60_000, SegmentSpec(1, "middle", 6.0), MEL)
    assert starts[0] == 27_000
    assert starts[-1] + N == 33_000
    assert len(starts) == 3
    # 4.48 s hold exactly two
    assert plan(60_000, SegmentSpec(9, "middle", 4.48), MEL) == (30_000 - N, 30_000)
    # less than one segment: one, in the middle
    assert plan(60_000, SegmentSpec(3, "middle", 1.0), MEL) == (30_000 - N // 2,)
    # more than the track: the whole of it
    assert plan(2 * N, SegmentSpec(3, "middle", 30.0), MEL) == (0, N)


def test_thirty_seconds_hold_three_segments_of_the_default_spec() -> None:
    starts = plan(30 * 22_050, SegmentSpec(3), MelSpec())
    assert len(starts) == 3
    assert (starts[0], starts[-1] + MelSpec().n_samples) == (0, 30 * 22_050)


@pytest.mark.parametrize(("n_track", "n_segments"), [(N, 1), (N + 1, 1), (2 * N - SHARED - 1, 1), (2 * N - SHARED, 2)])
def test_a_track_with_less_room_gets_fewer(n_track: int, n_segments: int) -> None:
    assert len(plan(n_track, SegmentSpec(6), MEL)) == n_segments


@settings(max_examples=200, deadline=None)
@given(
    n_track=st.integers(1, 40 * N),
    k=st.integers(1, 12),
    mode=st.sampled_from(["spread", "middle"]),
    middle_s=st.floats(0.5, 60),
)
def test_every_plan_is_ascending_inside_and_overlaps_little(n_track: int, k: int, mode: str, middle_s: float) -> None:
    starts = plan(n_track, SegmentSpec(k, mode, middle_s), MEL)  # type: ignore[arg-type]
    assert starts[0] >= 0
    assert starts[-1] + N <= max(N, n_track)
    assert all(b - a >= N - SHARED for a, b in pairwise(starts))
    if mode == "spread":
        assert len(starts) <= k
        assert len(starts) == k or n_track < k * N
        # as much before the first as after the last
        assert n_track < N or abs(starts[0] - (n_track - starts[-1] - N)) <= 2


@pytest.mark.parametrize(
    "spec", [SegmentSpec(0), SegmentSpec(3, "middle", 0.0), SegmentSpec(3, "middle", float("nan"))]
)
def test_an_unusable_spec_is_named(spec: SegmentSpec) -> None:
    with pytest.raises(SettingsError, match="must be positive"):
        plan(10 * N, spec, MEL)


# --- taking ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(n_track=st.integers(1, 30 * N), k=st.integers(1, 8), mode=st.sampled_from(["spread", "middle"]))
def test_samples_are_those_at_the_stated_places(n_track: int, k: int, mode: str) -> None:
    track = Track(sounding(n_track))
    segments = track.take(k, mode=mode, middle_s=6.0)
    assert segments.samples.shape == (len(segments.start_s), N)
    assert segments.samples.dtype == np.float32
    assert segments.samples.flags.c_contiguous
    assert segments.sample_rate == RATE
    for row, start_s, end_s in zip(segments.samples, segments.start_s, segments.end_s, strict=True):
        start, end = start_s * RATE, end_s * RATE
        assert start == pytest.approx(round(start), abs=1e-6), "a start stands on the sample grid"
        here = track.samples[round(start) : round(end)]
        np.testing.assert_array_equal(row, np.resize(here, N))
    assert len(track.reads) == len(segments.start_s), "a track that sounds is read only where it is heard"


def test_a_duration_off_the_grid_keeps_starts_on_it() -> None:
    track = Track(sounding(30_000))
    segments = take(track.read, 30.0 - 0.0004, SegmentSpec(3), MEL)
    assert all(start * RATE == pytest.approx(round(start * RATE), abs=1e-6) for start in segments.start_s)


@pytest.mark.parametrize("n_track", [1, 100, N - 1])
@pytest.mark.parametrize("mode", ["spread", "middle"])
def test_a_short_track_is_tiled(n_track: int, mode: str) -> None:
    track = Track(sounding(n_track) + 0.5)
    segments = track.take(5, mode=mode)
    assert (segments.start_s, segments.end_s) == ((0.0,), (n_track / RATE,))
    period = segments.samples[0, : n_track * (N // n_track)].reshape(-1, n_track)
    assert (period == track.samples).all()
    assert track.reads == [(0, n_track)]


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        (np.zeros(N), True),
        (np.full(N, 0.7), True),
        (0.5 + 0.9e-3 * np.sign(sounding(N)), True),
        (0.5 + 1.1e-3 * np.sign(sounding(N)), False),
        (np.full(N, 1e-3) * np.sign(sounding(N)) * 1.1, False),
    ],
)
def test_silence_is_below_minus_60_dbfs_without_the_mean(samples: np.ndarray, silent: bool) -> None:
    assert is_silent(samples.astype(np.float32)) == silent


def test_a_silent_slice_moves_within_its_part() -> None:
    samples = sounding(30_000)
    planned = plan(30_000, SegmentSpec(3), MEL)
    samples[planned[1] - 200 : planned[1] + N + 200] = 0.25
    segments = Track(samples).take()
    assert starts_of(segments)[0::2] == [planned[0], planned[2]]
    assert starts_of(segments)[1] == 10_000  # where the second third begins
    assert not any(is_silent(row) for row in segments.samples)


def test_a_song_in_a_mostly_silent_track_is_found() -> None:
    samples = np.zeros(60_000)
    samples[:8_000] = sounding(8_000)
    segments = Track(samples).take()
    assert len(segments.start_s) == 3
    assert segments.end_s[-1] <= 8.0 + MAX_OVERLAP * N / RATE
    assert all(b - a >= (N - SHARED - 1) / RATE for a, b in pairwise(segments.start_s))
    assert not any(is_silent(row) for row in segments.samples)


def test_what_cannot_be_replaced_is_left_out() -> None:
    """Three segments fill the track; the first third is silent; nothing else is free."""
    samples = sounding(3 * N)
    samples[: N + 100] = 0.0
    segments = Track(samples).take()
    assert starts_of(segments) == [N, 2 * N]


@pytest.mark.parametrize("mode", ["spread", "middle"])
@pytest.mark.parametrize("n_track", [N, 3 * N, 60_000])
def test_all_silent_returns_the_plan(n_track: int, mode: str) -> None:
    track = Track(np.full(n_track, 0.1))
    segments = track.take(3, mode=mode, middle_s=6.0)
    spec = SegmentSpec(3, mode, 6.0)  # type: ignore[arg-type]
    assert tuple(starts_of(segments)) == plan(n_track, spec, MEL)
    assert len(track.reads) <= len(segments.start_s) * READS_PER_SEGMENT


def test_places_mostly_known_to_be_silent_are_not_read() -> None:
    """Parts of one and a half segments: every other place in them shares most of the planned slice."""
    track = Track(np.zeros(9 * N // 2))
    track.take(3)
    assert len(track.reads) == 3


def test_the_search_beside_sounding_slices_is_bounded() -> None:
    """Only five of six planned slices sound: four other places of the sixth's part, then two beside the five."""
    n_track = 60 * N
    planned = plan(n_track, SegmentSpec(6), MEL)
    samples = np.zeros(n_track)
    for start in planned[:5]:
        samples[start : start + N] = sounding(N)
    track = Track(samples)
    assert starts_of(track.take(6)) == list(planned[:5])
    assert len(track.reads) == 6 + 4 + 2


@settings(max_examples=100, deadline=None)
@given(
    n_track=st.integers(N, 40 * N),
    k=st.integers(1, 6),
    mode=st.sampled_from(["spread", "middle"]),
    edges=st.lists(st.floats(0, 1), max_size=8),
)
def test_with_silence_anywhere(n_track: int, k: int, mode: str, edges: list[float]) -> None:
    """Alternating stretches of sound and silence: bounded reads, places inside, little overlap, the same every time."""
    samples = sounding(n_track)
    bounds = sorted(round(edge * n_track) for edge in edges)
    for low, high in zip(bounds[0::2], bounds[1::2], strict=False):
        samples[low:high] = 0.0
    track, again = Track(samples), Track(samples)
    segments = track.take(k, mode=mode, middle_s=6.0)
    n_planned = len(plan(n_track, SegmentSpec(k, mode, 6.0), MEL))  # type: ignore[arg-type]
    assert len(track.reads) <= n_planned * READS_PER_SEGMENT
    assert len(set(track.reads)) == len(track.reads), "no place is read twice"
    starts = starts_of(segments)
    assert 1 <= len(starts) <= n_planned
    assert starts == sorted(starts)
    assert starts[0] >= 0
    assert starts[-1] + N <= n_track
    assert all(b - a >= N - SHARED - 1 for a, b in pairwise(starts))
    silent = [is_silent(row) for row in segments.samples]
    assert not any(silent) or (all(silent) and len(starts) == n_planned)
    for row, start in zip(segments.samples, starts, strict=True):
        np.testing.assert_array_equal(row, track.samples[start : start + N])
    assert starts_of(again.take(k, mode=mode, middle_s=6.0)) == starts
    assert again.reads == track.reads


# --- tracks that end earlier -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(real=st.integers(1, 30 * N), more=st.integers(0, 400 * N), k=st.integers(1, 6))
def test_a_cut_track_gives_what_is_there(real: int, more: int, k: int) -> None:
    """A header may claim more than can be read. The segments lie in what can; a missing end that no one would have
    heard is not searched for."""
    track = Track(sounding(real), claimed=real + more)
    segments = track.take(k)
    assert segments.end_s[-1] <= real / RATE + 1e-9
    for row, start_s, end_s in zip(segments.samples, segments.start_s, segments.end_s, strict=True):
        np.testing.assert_array_equal(row, np.resize(track.samples[round(start_s * RATE) : round(end_s * RATE)], N))
    claimed_plan = plan(real + more, SegmentSpec(k), MEL)
    if claimed_plan[-1] + N > real:
        assert tuple(starts_of(segments)) == plan(real, SegmentSpec(k), MEL)
    assert len(track.reads) <= 2 * k + 15


def test_nothing_to_read_is_empty() -> None:
    with pytest.raises(EmptyAudioError):
        Track(np.zeros(0), claimed=50_000).take()
    with pytest.raises(EmptyAudioError):
        Track(np.zeros(0), claimed=100).take()


def test_a_slice_at_another_rate_is_our_own_fault() -> None:
    with pytest.raises(InternalError, match="44100 Hz; the mel needs 1000 Hz"):
        take(lambda start, length: Waveform(np.ones(N, np.float32), 44_100), 20.0, SegmentSpec(), MEL)
