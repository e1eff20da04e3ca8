"""A file -> what the network is asked about, without the network: the part that can run in a process of its own.

`hear` is decode -> segments -> mels in one call. `look_remotely` and `hear_remotely` are the same for a worker process
(see `workers`): all they need comes as plain JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, wait
from typing import Any

import numpy as np

from .errors import AcousticError, AudioError
from .kept import SongTags
from .records import CacheEntry, Descriptors, MelSpec, Segments, SegmentSpec, Waveform
from .settings import Settings
from .signal import audio, descriptors, enhance, segments
from .signal.mel import log_mel

DESCRIBED_S = 30.0
"""length of the middle part of a track from which its descriptors are measured"""
PathLike = str | os.PathLike[str]


def read(
    path: PathLike, mel: MelSpec, spec: SegmentSpec, settings: Settings, beside: Executor | None = None
) -> tuple[Segments, dict[str, Any]]:
    """The segments of a track, and what is known of it: duration_s, warnings, info. Raises AudioError.

    With `beside`, for a machine that has a core to spare, the later half of the segments is read there by a reader of
    its own: the same samples, sooner.
    """
    with audio.open_audio(path, mel.sample_rate, settings) as reader, contextlib.ExitStack() as stack:
        read_slice = reader.read
        if beside is not None and reader.may_be_shared():
            read_slice = stack.enter_context(_ReadBeside(path, reader, mel, spec, settings, beside)).read
        chosen = segments.take(read_slice, reader.duration_s, spec, mel)
        return chosen, {
            "duration_s": reader.duration_s,
            "warnings": [dataclasses.asdict(w) for w in reader.warnings()],
            "info": dataclasses.asdict(reader.info),
        }


class _ReadBeside:
    """The later half of the planned slices, read in another thread; whatever goes wrong there is read here instead."""

    def __init__(
        self,
        path: PathLike,
        reader: audio.AudioReader,
        mel: MelSpec,
        spec: SegmentSpec,
        settings: Settings,
        beside: Executor,
    ) -> None:
        self._path, self._reader, self._mel, self._settings = path, reader, mel, settings
        starts = segments.plan(int(reader.duration_s * mel.sample_rate + 1e-6), spec, mel)
        self._places = [start / mel.sample_rate for start in starts[(len(starts) + 1) // 2 :]]
        self._waveforms: dict[float, Waveform] | None = None
        self._other: audio.AudioReader | None = None
        self._reading = beside.submit(self._read_all) if self._places else None

    def __enter__(self) -> _ReadBeside:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reading is not None and not self._reading.cancel():
            wait([self._reading])
        if self._other is not None:
            self._other.close()

    def read(self, start_s: float, length_s: float) -> Waveform:
        """As AudioReader.read."""
        if start_s in self._places and length_s == self._length_s:
            found = self._found().get(start_s)
            if found is not None:
                return found
        return self._reader.read(start_s, length_s)

    @property
    def _length_s(self) -> float:
        return self._mel.n_samples / self._mel.sample_rate

    def _found(self) -> dict[float, Waveform]:
        if self._waveforms is None:
            assert self._reading is not None
            self._waveforms = self._reading.result()
            if self._waveforms and self._other is not None:
                self._reader.take_over(self._other)
        return self._waveforms

    def _read_all(self) -> dict[float, Waveform]:
        """In the other thread: place -> slice, empty where they cannot all be read."""
        try:
            self._other = audio.open_beside(self._path, self._reader, self._settings)
            waveforms = {place: self._other.read(place, self._length_s) for place in self._places}
        except Exception:  # an AudioError, or a fault of ours: the first reader meets it too, and says so
            return {}
        whole = all(len(waveform.samples) == self._mel.n_samples for waveform in waveforms.values())
        return waveforms if whole else {}


def mels_of(
    chosen: Segments, about: Mapping[str, Any], mel: MelSpec, settings: Settings, beside: Executor | None = None
) -> CacheEntry:
    """The dB mels of the segments (K, n_mels, 224), enhanced as the settings say, with their `start_s` and `end_s`; the
    later half of them is made in `beside`, as in `read`."""
    samples = chosen.samples
    if settings.denoise:
        samples = enhance.denoise(samples, chosen.sample_rate)
    if settings.compress:
        samples = enhance.compress(samples, chosen.sample_rate)
    places = {"start_s": np.asarray(chosen.start_s), "end_s": np.asarray(chosen.end_s)}
    half = (len(samples) + 1) // 2 if beside is not None else len(samples)
    later = beside.submit(log_mel, samples[half:], mel) if beside is not None and half < len(samples) else None
    mels = log_mel(samples[:half], mel)
    if later is not None:
        mels = np.concatenate([mels, later.result()])
    return CacheEntry({"mels": mels, **places}, about)


def describe(path: PathLike, sample_rate: int, settings: Settings) -> Descriptors:
    """Tempo, beat and low frequencies of the middle of the track, without vocal presence. Raises AudioError."""
    with audio.open_audio(path, sample_rate, settings) as reader:
        length = min(DESCRIBED_S, reader.duration_s)
        return descriptors.measure(reader.read((reader.duration_s - length) / 2, length))


def hear(path: PathLike, mel: MelSpec, spec: SegmentSpec, settings: Settings) -> CacheEntry:
    """All that the network and the verdict need of a file; raises AudioError.

    Where the rules are on, `meta["descriptors"]` are their measurements, or {"problem": why there are none}.
    `meta["timings_ms"]` is stage -> ms, in their order: whoever measures the run may be in another process.
    """
    moments = [time.perf_counter()]
    chosen, about = read(path, mel, spec, settings)
    moments.append(time.perf_counter())
    entry = mels_of(chosen, about, mel, settings)
    moments.append(time.perf_counter())
    found: dict[str, Any] = {}
    if settings.rules:
        try:
            found["descriptors"] = describe(path, mel.sample_rate, settings).to_dict()
        except AudioError as error:  # the verdict stands without them
            found["descriptors"] = {"problem": error.message}
        moments.append(time.perf_counter())
    took = (1e3 * (end - start) for start, end in itertools.pairwise(moments))
    timings = dict(zip(("load_audio", "mel_spectrogram", "descriptors"), took, strict=False))
    return CacheEntry(entry.arrays, {**entry.meta, **found, "timings_ms": timings})


# --- in a worker process ---
#
# `context` holds what is the same for all files: "mel", "segments" and "settings" with the fields of MelSpec,
# SegmentSpec and Settings, and "read_tags", which names a function path -> SongTags as "module:function" ("" for none).


def prepare(context: Mapping[str, Any]) -> None:
    """What is slow the first time, before files (and limits) come: the filter bank."""
    mel = MelSpec(**context["mel"])
    log_mel(np.zeros((1, mel.n_samples), np.float32), mel)
    if context["settings"]["rules"]:
        descriptors.warm_up()


def hear_remotely(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """See `hear`."""
    spec = SegmentSpec(**context["segments"])
    return hear(path, MelSpec(**context["mel"]), spec, Settings(**context["settings"]))


def look_remotely(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """`meta` is {"digest": of the content, "tags": SongTags as a dict}. Tags that cannot be read are empty: a song with
    damaged tags is a song. Raises AudioError."""
    digest = audio.digest(path, Settings(**context["settings"]))
    tags = SongTags()
    if context["read_tags"]:
        module, _, name = context["read_tags"].partition(":")
        read_tags: Callable[[str], SongTags] = getattr(importlib.import_module(module), name)
        with contextlib.suppress(AcousticError):
            tags = read_tags(path)
    return CacheEntry({}, {"digest": digest, "tags": dataclasses.asdict(tags)})
