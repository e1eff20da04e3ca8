"""How good the answers are on files whose genre is known: what `acoustic evaluate MANIFEST.csv` prints.

Everything goes through the engine, as a person's own files would.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from ..engine import OptimizedAudioClassifier
from ..errors import AudioError, ManifestError
from ..library.genres import key, tidy
from ..records import Analysis, Failure
from ..settings import Settings
from ..signal import audio
from ..verdict import metrics
from .augment import add_noise
from .held_out import calibration_error, selective_curve
from .manifest import read_table

Report = Callable[[str, int, int], None]
CHUNK = 16
"""noisy copies that stand on the disk at a time"""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row of an evaluation manifest."""

    file: Path
    genre: str
    group: str = ""


def read_manifest(path: Path, labels: Sequence[str] | None) -> list[Labelled]:
    """Rows of a CSV with the columns file and genre, and group where songs belong together (else a file by itself; one
    that is listed again is of its first group); files are relative to the manifest or to the folder above it, as they
    are found. ManifestError names the line of a missing column, a genre that is none of `labels` (None takes any that a
    genre can be called), a missing file or one with two genres."""
    rows: list[Labelled] = []
    said: dict[str, tuple[str, str, int]] = {}
    for line, cells in read_table(path, ("file", "genre")):
        file, genre = cells.get("file"), cells.get("genre")
        if not file or not genre:
            raise ManifestError(f"{path}, line {line}: the columns file and genre must both be filled")
        if labels is None:
            try:
                tidy(genre)
            except ManifestError as error:
                raise ManifestError(f"{path}, line {line}: {error.message}", error.hint) from None
        if labels is not None and genre not in labels:
            raise ManifestError(f"{path}, line {line}: unknown genre {genre!r}", f"Known: {', '.join(labels)}.")
        found = next((base / file for base in (path.parent, path.parent.parent) if os.path.isfile(base / file)), None)
        if found is None:
            raise ManifestError(f"{path}, line {line}: no file {file!r} beside the manifest or in the folder above it")
        same = os.path.realpath(found)
        other, group, there = said.setdefault(same, (genre, cells.get("group") or same, line))
        if key(other) != key(genre):
            raise ManifestError(
                f"{path}, line {line}: {file!r} is {genre!r} here and {other!r} in line {there}",
                "Take one of them out.",
            )
        rows.append(Labelled(found, genre, group))
    if not rows:
        raise ManifestError(f"{path}: no rows", "The first line must be the header file,genre.")
    return rows


def evaluate(
    classifier: OptimizedAudioClassifier,
    rows: Sequence[Labelled],
    *,
    among: Sequence[str] = (),
    noise: Path | None = None,
    snr_db: float = 10.0,
    report: Report = lambda name, done, n: None,
) -> dict[str, Any]:
    """Accuracy with its 95 % interval, in which songs of one group count as far as they differ, top-2, macro-F1, ECE
    beside that of a calibrated model, accuracy when the least certain are set aside, confusion matrix and review flags,
    as a JSON-able dict.

    `among` restricts the choice to these genres (probabilities renormalised; rows of other genres are left out).
    `noise` is a folder of recordings of which one is mixed into each file at `snr_db`, the same one at every call.
    """
    labels = list(classifier.labels)
    unknown = sorted(set(among) - set(labels))
    if unknown:
        raise ManifestError(f"--among: unknown genre {unknown[0]!r}", f"Known: {', '.join(labels)}.")
    kept = [i for i, label in enumerate(labels) if not among or label in among]
    rows = [row for row in rows if not among or row.genre in among]
    if not rows:
        raise ManifestError("no row has one of the genres that --among names")
    answers = _answers(classifier, rows, noise, snr_db, report)
    good = [(row, a) for row, a in zip(rows, answers, strict=True) if isinstance(a, Analysis)]
    failures = [a.to_dict() for a in answers if isinstance(a, Failure)]
    if not good:
        raise ManifestError("none of the files could be analysed", failures[0]["error"]["message"] if failures else "")
    p = np.stack([a.verdict.probabilities[kept] for _, a in good])
    p = p / p.sum(axis=1, keepdims=True)
    names = [labels[i] for i in kept]
    targets = np.asarray([names.index(row.genre) for row, _ in good])
    predicted = p.argmax(axis=1)
    hits = int((predicted == targets).sum())
    groups = [row.group for row, _ in good]
    covered = [row.genre in a.verdict.prediction_set for row, a in good]
    sure = np.asarray([not a.verdict.needs_review for _, a in good])
    return {
        "model": classifier.card.name,
        "n": len(good),
        "n_failed": len(failures),
        "labels": names,
        "accuracy": hits / len(good),
        "accuracy_interval_95": list(metrics.grouped_interval(predicted == targets, groups)),
        "top_2": metrics.top_k_accuracy(p, targets, 2),
        "macro_f1": metrics.macro_f1(targets, predicted, len(names)),
        **calibration_error(p, targets),
        "nll": metrics.nll(p, targets),
        "brier": metrics.brier(p, targets),
        "selective": selective_curve(p.max(axis=1), predicted == targets, groups),
        "set_coverage": float(np.mean(covered)),
        "set_size": float(np.mean([len(a.verdict.prediction_set) for _, a in good])),
        "flagged": float(1 - sure.mean()),
        "accuracy_unflagged": float((predicted == targets)[sure].mean()) if sure.any() else None,
        "not_music": float(np.mean(["NOT_MUSIC" in a.verdict.review_reasons for _, a in good])),
        "confusion": metrics.confusion_matrix(targets, predicted, len(names)).tolist(),
        "failures": failures,
    }


def _answers(
    classifier: OptimizedAudioClassifier, rows: Sequence[Labelled], noise: Path | None, snr_db: float, report: Report
) -> list[Analysis | Failure]:
    answers: dict[int, Analysis | Failure] = {}
    rng = np.random.default_rng(0)
    step = CHUNK if noise is not None else len(rows)
    for first in range(0, len(rows), step):
        with tempfile.TemporaryDirectory(prefix="acoustic-noisy-") as folder:
            paths = [row.file for row in rows[first : first + step]]
            if noise is not None:
                paths = list(_with_noise(paths, noise, snr_db, Path(folder), classifier.settings, rng))
            for index, answer in classifier.analyze_many(paths):
                answers[first + index] = answer
                report("evaluate", len(answers), len(rows))
    return [answers[i] for i in range(len(rows))]


def _with_noise(
    paths: Sequence[Path], noise: Path, snr_db: float, folder: Path, settings: Settings, rng: np.random.Generator
) -> Iterator[Path]:
    """Float WAV copies of `paths` in `folder` with a stretch of a noise recording added, drawn by `rng`.

    Raises ManifestError for a folder without audio; a file that cannot be read is passed on as it is, so that its own
    error is reported.
    """
    recordings = list(audio.find_audio(noise))
    if not recordings:
        raise ManifestError(f"{noise}: no audio files", "Name a folder of noise recordings.")
    bounds = Settings(min_duration_s=0.1)
    for i, path in enumerate(paths):
        chosen = recordings[int(rng.integers(len(recordings)))]
        try:
            with audio.open_audio(path, None, settings) as reader:
                rate = reader.info.sample_rate
            music = audio.load(path, rate, settings).samples
        except AudioError:
            yield path
            continue
        noisy = add_noise(music, audio.load(chosen, rate, bounds).samples, snr_db)
        target = folder / f"{i:06d}.wav"
        wavfile.write(target, rate, noisy.astype(np.float32))
        yield target
