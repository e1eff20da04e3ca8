"""A Workstation's face for tests: real records made from numbers, no model, no decoding.

What a file gives is read from its name: `bad…` fails, `review…` needs review, all else is clear.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from acoustic.errors import LibraryError, NotAudioError
from acoustic.library.store import Library
from acoustic.records import Analysis, AppliedRule, AudioWarning, Descriptors, Failure, Overview, Verdict

LABELS = ("Blues", "Classical", "Jazz", "Folk", "Pop", "Electronic", "Disco", "Rock", "Hip-Hop", "Rap", "Metal", "R&B",
          "Reggae", "World", "Latin", "Country")  # fmt: skip
TAGS = (
    ("Music", 0.97),
    ("Saxophone", 0.64),
    ("Piano", 0.41),
    ("Double bass", 0.33),
    ("Male singing", 0.08),
    ("Speech", 0.002),
)
TIMINGS = {"load_audio": 38.2, "mel_spectrogram": 6.1, "preprocess": 0.6, "inference": 74.9, "postprocess": 0.5}


def probabilities(*best: tuple[str, float]) -> np.ndarray:
    """(C,) with the named probabilities; the rest shared evenly."""
    given = dict(best)
    rest = (1.0 - sum(given.values())) / (len(LABELS) - len(given))
    return np.array([given.get(label, rest) for label in LABELS])


def analysis(
    path: str = "song.wav", *, review: bool = False, duration_s: float = 183.2, n_segments: int = 5, **more: Any
) -> Analysis:
    """Segments of 10.4 s spread evenly over the track; they overlap where it is short."""
    top = (
        probabilities(("Jazz", 0.38), ("Blues", 0.31), ("Folk", 0.12))
        if review
        else probabilities(("Jazz", 0.81), ("Blues", 0.09))
    )
    votes = np.tile(top, (n_segments, 1))
    votes[1::2] = probabilities(("Blues", 0.52), ("Jazz", 0.3))
    start = np.linspace(0, max(0.0, duration_s - 10.4), n_segments)
    verdict = Verdict(
        labels=LABELS,
        probabilities=top,
        segment_probabilities=votes,
        uncertainty=0.62 if review else 0.22,
        margin=0.07 if review else 0.72,
        variation_ratio=0.4,
        agreement=0.6,
        prediction_set=("Jazz", "Blues", "Folk") if review else ("Jazz",),
        needs_review=review,
        review_reasons=("LOW_CONFIDENCE", "SMALL_MARGIN") if review else (),
        rules_applied=(AppliedRule("fast and a strong beat", "Classical", 0.3),) if review else (),
    )
    fields: dict[str, Any] = {
        "path": path,
        "model": "test-double",
        "duration_s": duration_s,
        "analyzed_s": min(duration_s, n_segments * 10.4),
        "cached": False,
        "verdict": verdict,
        "start_s": tuple(float(s) for s in start),
        "end_s": tuple(float(min(s + 10.4, duration_s)) for s in start),
        "tags": TAGS,
        "embedding": np.zeros(4, np.float32),
        "timings_ms": {**TIMINGS, "total": sum(TIMINGS.values()) + 12.0},
        "warnings": (AudioWarning("CLIPPED", "3 % of the samples are at full scale"),) if review else (),
    }
    return Analysis(**{**fields, **more})


def overview(duration_s: float = 183.2, n_mels: int = 96, n_columns: int = 600) -> Overview:
    """A picture with something to see: harmonics that rise and fall over a tilted floor."""
    times = (np.arange(n_columns) + 0.5) * duration_s / n_columns
    bands = np.arange(n_mels)[:, None]
    tune = 30 + 12 * np.sin(times / 9.0) + 6 * np.sin(times * 1.7)
    mel_db = -40.0 - 0.3 * bands + 6 * np.random.default_rng(0).standard_normal((n_mels, n_columns))
    for harmonic in (0, 14, 24, 32):
        mel_db = np.maximum(mel_db, -8 * harmonic / 14 - 1.5 * (bands - tune - harmonic) ** 2)
    mel_hz = 700 * (10 ** (np.linspace(40, 3080, n_mels) / 2595) - 1)
    return Overview(mel_db.astype(np.float32), times, mel_hz, duration_s)


HELD_S = 600.0  # no test holds on to it that long, however slow the machine; a thread must not wait for ever


class WorkstationDouble:
    """Answers after `pause_s` a stage; `hold` keeps everything that follows the verdict waiting until it is set."""

    def __init__(self, folder: Path, pause_s: float = 0.02) -> None:
        self.folder = folder
        self.pause_s = pause_s
        self.hold = threading.Event()
        self.hold.set()

    def analyze(
        self, paths: Sequence[str], *, descriptors: bool = False, on_stage: Callable[[int, str], None] | None = None
    ) -> Iterator[tuple[int, Analysis | Failure]]:
        for i, path in enumerate(paths):
            for stage in TIMINGS:
                if on_stage:
                    on_stage(i, stage)
                time.sleep(self.pause_s)
            name = Path(path).name
            if name.startswith("bad"):
                error = NotAudioError("the file begins like <b>HTML</b>, not like audio")
                yield i, Failure(path, error.to_dict())
            else:
                yield i, analysis(path, review=name.startswith("review"), duration_s=self._length(path), n_segments=3)

    def _length(self, path: str) -> float:
        return float(sf.info(path).duration)

    def overview(self, path: str) -> Overview:
        self.hold.wait(HELD_S)
        return overview(self._length(path), n_columns=300)

    def describe(self, path: str) -> Descriptors:
        self.hold.wait(HELD_S)
        return Descriptors(118.2, 0.41, 0.22, None)

    def status(self) -> dict[str, Any]:
        return {"model": "test-double", "device": "cpu", "precision": "float32", "backend": "none", "version": "0"}

    @cached_property
    def library(self) -> Library:
        """None: the tabs beside the first one say so."""
        raise LibraryError("this double keeps nothing")

    def demo_clip(self) -> Path:
        return clip(self.folder / "demo.ogg", 20.0)


def clip(path: Path, duration_s: float) -> Path:
    """A quiet tone that a browser can play."""
    t = np.arange(round(duration_s * 16_000)) / 16_000
    sf.write(path, 0.1 * np.sin(2 * np.pi * 440 * t).astype(np.float32), 16_000)
    return path
