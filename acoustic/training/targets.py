"""What the teachers say of every file, asked once and kept.

A folder holds all waveforms at the model's rate as one flat int16 file, and for each teacher its logits and
embeddings on a regular grid of windows. The target of any crop is then the mean of the windows, each weighted by the
fourth power of its overlap: a crop that starts between two windows gets a blend of both, one that coincides with a
window gets just that. Everything is written aside and renamed, a teacher's answers part by part, so a run that was
killed goes on with what was finished.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch

from ..errors import AudioError, ManifestError
from ..settings import Settings
from ..signal import audio
from ..signal.files import digest
from ..writing import write_whole
from .config import TeacherSpec
from .manifest import Row, check_one_recording
from .teachers import Answer, accelerate, load_teacher, windows_of

BATCH = 32
PART = 500
"""tracks that a teacher is asked about between two times that its answers are kept"""
FULL_SCALE = 32_767
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TeacherAnswers:
    """One teacher's answers: logits (W, T) and embeddings (W, D) of W windows that start at `start_s` (W,). The
    windows of track i are `first[i]` to `first[i + 1]`. `stamp` names what they depend on."""

    spec: TeacherSpec
    tags: tuple[str, ...]
    logits: np.ndarray
    embedding: np.ndarray
    start_s: np.ndarray
    first: np.ndarray
    stamp: str = ""

    def weights(self, track: int, start_s: float, length_s: float) -> tuple[slice, np.ndarray]:
        """The windows of `track` and what each counts for the crop, shape (n,), sum 1."""
        windows = slice(int(self.first[track]), int(self.first[track + 1]))
        begin = self.start_s[windows]
        overlap = np.minimum(begin + self.spec.window_s, start_s + length_s) - np.maximum(begin, start_s)
        weight = np.clip(overlap / self.spec.window_s, 1e-3, None) ** 4
        return windows, weight / weight.sum()

    def joined(self, other: TeacherAnswers) -> TeacherAnswers:
        """These answers and, for the tracks after them, those of the same teacher on other tracks."""
        return dataclasses.replace(
            self,
            logits=np.concatenate([self.logits, other.logits]),
            embedding=np.concatenate([self.embedding, other.embedding]),
            start_s=np.concatenate([self.start_s, other.start_s]),
            first=np.concatenate([self.first, self.first[-1] + other.first[1:]]),
            stamp=stamp(self.stamp, other.stamp),
        )

    def of_crop(self, track: int, start_s: float, length_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Logits (T,) and embedding (D,) of one crop."""
        windows, weight = self.weights(track, start_s, length_s)
        return weight @ self.logits[windows], weight @ self.embedding[windows]


class WaveformStore:
    """All waveforms of a data set, mono int16 at one rate, as one memory-mapped file, or several joined; `stamp` names
    what it was made of.
    """

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.stamp = str(index["stamp"])
        self.sample_rate = int(index["sample_rate"])
        self.files: list[str] = index["files"]
        self.offsets = np.asarray(index["offsets"], dtype=np.int64)
        self._parts = [np.memmap(folder / "waveforms.i16", dtype=np.int16, mode="r")]
        self._part_of = np.zeros(len(self.files), dtype=np.int64)
        self._begin = self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.files)

    def joined(self, other: WaveformStore) -> WaveformStore:
        """These tracks, and after them those of another store at the same rate."""
        both = copy.copy(self)
        both.stamp = stamp(self.stamp, other.stamp)
        both.files = self.files + other.files
        both.offsets = np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]])
        both._parts = self._parts + other._parts
        both._part_of = np.concatenate([self._part_of, len(self._parts) + other._part_of])
        both._begin = np.concatenate([self._begin, other._begin])
        return both

    def length(self, track: int) -> int:
        return int(self.offsets[track + 1] - self.offsets[track])

    def read(self, track: int, start: int = 0, n: int | None = None) -> np.ndarray:
        """Samples [start, start + n) as float32 in [-1, 1]; tiled where the track is shorter than n."""
        begin = int(self._begin[track])
        end = begin + self.length(track)
        stop = end if n is None else min(end, begin + start + n)
        samples = self._parts[self._part_of[track]][begin + start : stop].astype(np.float32) / FULL_SCALE
        if n is not None and len(samples) < n:
            whole = self.read(track)
            samples = np.tile(whole, -(-(start + n) // len(whole)))[start : start + n]
        return samples


def build_waveforms(
    rows: Sequence[Row], digests: Sequence[str], data: Path, folder: Path, sample_rate: int, report: Report
) -> WaveformStore:
    """Decode every row once; `digests` are those of the files. ManifestError names the row of a file that cannot be
    decoded, or that holds the recording of another row in another group or of another genre."""
    settings = Settings(min_duration_s=0.1)

    def decoded() -> Iterator[np.ndarray]:
        for i, row in enumerate(rows):
            report("decode", i, len(rows))
            try:
                yield audio.load(data / row.file, sample_rate, settings).samples
            except AudioError as error:
                raise ManifestError(f"{row.where}: {error.message}", error.hint) from error

    made_of = stamp(sample_rate, [(row.file, content) for row, content in zip(rows, digests, strict=True)])
    store = keep_waveforms([row.file for row in rows], decoded(), folder, sample_rate, made_of)
    _check_recordings(rows, store)
    return store


def _check_recordings(rows: Sequence[Row], store: WaveformStore) -> None:
    """ManifestError for music in two rows that say different things of it. Files of other bytes can hold one recording:
    tagged anew, or kept without loss in another format. Those that agree in length and in their middle are read."""
    alike: dict[tuple[int, bytes], list[int]] = {}
    for track, row in enumerate(rows):
        if row.kind == "music":
            n = store.length(track)
            middle = store.read(track, n // 2, min(store.sample_rate, n - n // 2))
            alike.setdefault((n, hashlib.blake2b(middle.tobytes()).digest()), []).append(track)
    for tracks in (some for some in alike.values() if len(some) > 1):
        first: dict[bytes, Row] = {}
        for track in tracks:
            samples = store.read(track)
            if samples.any():  # silence is nobody's
                check_one_recording(
                    first.setdefault(hashlib.blake2b(samples.tobytes()).digest(), rows[track]), rows[track]
                )


def keep_waveforms(
    files: list[str], waveforms: Iterable[np.ndarray], folder: Path, sample_rate: int, made_of: str
) -> WaveformStore:
    """The store in `folder` if it was made of the same (the stamp `made_of`), else a new one of `waveforms`, one for
    each of `files`, which only then are asked for."""
    kept = _kept_waveforms(folder)
    if kept is not None and kept.stamp == made_of:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    offsets = [0]
    with open(folder / "waveforms.part", "wb") as out:
        for samples in waveforms:
            # not `tofile`, whose error of a full disk does not say what it is
            out.write(np.clip(np.round(samples * FULL_SCALE), -32_768, 32_767).astype(np.int16).tobytes())
            offsets.append(offsets[-1] + len(samples))
        out.flush()
        os.fsync(out.fileno())
    (folder / "index.json").unlink(missing_ok=True)  # so that an index never stands beside another's waveforms
    (folder / "waveforms.part").replace(folder / "waveforms.i16")
    index = {"stamp": made_of, "sample_rate": sample_rate, "files": files, "offsets": offsets}
    write_whole(folder / "index.json", json.dumps(index).encode())
    return WaveformStore(folder)


def _kept_waveforms(folder: Path) -> WaveformStore | None:
    """What lies in `folder`, None where that is nothing whole."""
    try:
        store = WaveformStore(folder)
        size = (folder / "waveforms.i16").stat().st_size
    except (FileNotFoundError, ValueError, TypeError, LookupError, ArithmeticError):
        return None
    whole = len(store.offsets) == len(store.files) + 1 and size == store.offsets[-1] * np.dtype(np.int16).itemsize
    return store if whole else None


def kept_answers(spec: TeacherSpec, folder: Path) -> Path:
    """Where a teacher's answers are kept."""
    return folder / f"{spec.name}.npz"


def ask_teacher(spec: TeacherSpec, store: WaveformStore, data: Path, folder: Path, report: Report) -> TeacherAnswers:
    """The teacher's answers on every track, computed once and kept in `folder` for these waveforms and this teacher."""
    kept = kept_answers(spec, folder)
    made_of = teacher_stamp(spec, store, data)
    if not kept.exists() or _kept_stamp(kept) != made_of:
        _compute(spec, store, data, kept, made_of, report)
    shutil.rmtree(_parts_of(kept), ignore_errors=True)
    with np.load(kept, allow_pickle=False) as arrays:
        track, start_s = arrays["track"], arrays["start_s"]
        first = np.searchsorted(track, np.arange(len(store) + 1))
        tags = tuple(str(tag) for tag in arrays["tags"])
        return TeacherAnswers(spec, tags, arrays["logits"], arrays["embedding"], start_s, first, made_of)


def teacher_stamp(spec: TeacherSpec, store: WaveformStore, data: Path) -> str:
    """Names what a teacher's answers depend on: the waveforms, the teacher's file or folder and how it is asked."""
    file = data / spec.file
    source = file.read_bytes().hex() if file.is_file() else ""
    if file.is_dir():
        source = "".join(digest(part) for part in sorted(file.iterdir()) if part.suffix in (".json", ".safetensors"))
    return stamp(store.stamp, source, spec.arguments, spec.window_s, spec.hop_s)


def _kept_stamp(kept: Path) -> str:
    try:
        with open(kept, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return str(arrays["stamp"]) if "stamp" in arrays else ""
    except (ValueError, EOFError, zipfile.BadZipFile):  # damaged: the teacher is asked again
        return ""


def _compute(spec: TeacherSpec, store: WaveformStore, data: Path, kept: Path, made_of: str, report: Report) -> None:
    plugged = load_teacher(data / spec.file, spec.arguments)
    n_window = round(spec.window_s * plugged.sample_rate)
    example = torch.randn(BATCH, n_window, generator=torch.Generator().manual_seed(0)) * 0.1
    ask = accelerate(plugged, example)
    # which precision is fastest is measured and not the same every time: parts of another one are not mixed in
    part_of = stamp(made_of, PART, [answer.tobytes().hex() for answer in ask(example.numpy())])
    parts = []
    for begin in range(0, len(store), PART):
        tracks = range(begin, min(begin + PART, len(store)))
        file = _parts_of(kept) / f"{begin}.npz"
        if not file.exists() or _kept_stamp(file) != part_of:
            answers = _answers(spec, plugged.sample_rate, ask, store, tracks, report)
            file.parent.mkdir(exist_ok=True)
            _save_aside(file, stamp=np.asarray(part_of), **answers)
        with np.load(file, allow_pickle=False) as arrays:
            parts.append({name: arrays[name] for name in arrays.files if name != "stamp"})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _save_aside(kept, **whole, tags=np.asarray(plugged.tags), stamp=np.asarray(made_of))


def _answers(
    spec: TeacherSpec,
    rate: int,
    ask: Callable[[np.ndarray], Answer],
    store: WaveformStore,
    tracks: range,
    report: Report,
) -> dict[str, np.ndarray]:
    """What is kept of these tracks; it depends on nothing that was asked before."""
    n_window, hop = round(spec.window_s * rate), round(spec.hop_s * rate)
    batch = np.zeros((BATCH, n_window), np.float32)
    logits, embeddings, of_track, starts = [], [], [], []
    filled = 0
    for track in tracks:
        report(spec.name, track, len(store))
        samples = soxr.resample(store.read(track), store.sample_rate, rate)
        for start, window in zip(*windows_of(samples, n_window, hop), strict=True):
            batch[filled] = window
            of_track.append(track)
            starts.append(start / rate)
            filled += 1
            if filled == BATCH:
                answer = ask(batch)
                logits.append(answer[0])
                embeddings.append(answer[1])
                filled = 0
    if filled:
        answer = ask(batch)
        logits.append(answer[0][:filled])
        embeddings.append(answer[1][:filled])
    said = [np.concatenate(part).astype(np.float32) for part in (logits, embeddings)]
    unsound = ~np.isfinite(np.concatenate(said, axis=1)).all(axis=1)
    if unsound.any():
        file = store.files[of_track[int(np.argmax(unsound))]]
        raise ManifestError(
            f"the teacher {spec.name!r} answers {file!r} with what are no numbers", "Take that file out."
        )
    return {
        "logits": said[0],
        "embedding": said[1],
        "track": np.asarray(of_track, dtype=np.int64),
        "start_s": np.asarray(starts, dtype=np.float64),
    }


def _parts_of(kept: Path) -> Path:
    """Where the parts of a teacher's answers lie until it was asked about every track."""
    return kept.with_suffix(".parts")


def stamp(*parts: object) -> str:
    """A digest of what can be written as JSON."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _save_aside(path: Path, **arrays: np.ndarray) -> None:
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)
