"""The frozen records that cross the borders between rooms.

Arrays are numpy; shapes and units stand beside the fields. K is the number of segments, C of classes, T of tags, D the
width of the embedding.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

N_FRAMES = 224
"""Width of the model input in STFT frames. The one number that every part of the house agrees on."""

Normalization = Literal["mean", "minmax", "fixed"]
SegmentMode = Literal["spread", "middle"]


# --- signal ---


@dataclass(frozen=True, slots=True)
class Waveform:
    """Mono float32 samples, shape (n,), nominally in [-1, 1]."""

    samples: np.ndarray
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header claims. `n_bytes` is the file's size; `duration_s` is None where the container does not
    say.
    """

    container: str
    codec: str
    decoder: Literal["libsndfile", "ffmpeg"]
    sample_rate: int
    n_channels: int
    duration_s: float | None
    n_bytes: int


@dataclass(frozen=True, slots=True)
class AudioWarning:
    """Something that a person should know about a file that could be analysed: TRUNCATED, SILENT, CLIPPED."""

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class MelSpec:
    """How a segment becomes a mel. Frames are centred, as librosa's are; a segment of `n_samples` gives exactly
    N_FRAMES.

    `top_db` limits the range below each segment's own loudest bin; `normalization` is applied before the network:
    "mean" subtracts the segment's mean and divides by `std_db`; "minmax" maps each segment to 0..1; "fixed" is
    (mel - mean_db) / std_db.
    """

    sample_rate: int = 22_050
    n_fft: int = 2_048
    hop_length: int = 1_024
    n_mels: int = 96
    fmin_hz: float = 20.0
    fmax_hz: float = 11_025.0
    mel_scale: Literal["slaney", "htk"] = "slaney"
    top_db: float = 80.0
    normalization: Normalization = "mean"
    mean_db: float = 0.0
    std_db: float = 20.0

    @property
    def n_samples(self) -> int:
        """Samples of one segment: one hop a frame."""
        return N_FRAMES * self.hop_length

    @property
    def segment_s(self) -> float:
        return self.n_samples / self.sample_rate


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """Which slices of a track the model sees: `n_segments` spread over it, or those that fill the middle `middle_s`."""

    n_segments: int = 3
    mode: SegmentMode = "spread"
    middle_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Segments:
    """K slices of a track: `samples` (K, n_samples) float32; `start_s` and `end_s` are exact places in the track.

    A track shorter than a segment is tiled: its one segment then ends where the track ends.
    """

    samples: np.ndarray
    sample_rate: int
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Musical measurements; None where the music gives no answer. `vocal_presence` comes from the network's tags."""

    tempo_bpm: float | None = None
    beat_strength: float | None = None
    low_freq_ratio: float | None = None
    vocal_presence: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return dataclasses.asdict(self)


# --- network ---


@dataclass(frozen=True, slots=True)
class Votes:
    """The network's raw answers for K segments: genre logits (K, C), tag logits (K, T), embeddings (K, D); float32."""

    logits: np.ndarray
    tag_logits: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted on held-out sources, kept in the model card; the defaults change nothing.

    `temperature`, and where they are not empty `class_scale` and `class_bias` (one number a class), make a segment's
    probabilities; `voting` and `segment_correlation` make the track's of them (see `verdict.calibration`).
    `conformal_quantile` is the score threshold of a track's split-conformal prediction set at `coverage`, None when it
    was not fitted; `segment_conformal_quantile` is that of a segment's own set. Review thresholds are on the track's
    calibrated values; the confidence decides, margin and agreement explain. `music_threshold` is on the track's music
    score (see `verdict.uncertainty`).
    """

    temperature: float = 1.0
    class_scale: tuple[float, ...] = ()
    class_bias: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    voting: Literal["mean", "log_mean", "majority"] = "mean"
    segment_correlation: float = 1.0
    conformal_quantile: float | None = None
    segment_conformal_quantile: float | None = None
    coverage: float = 0.9
    review_below_confidence: float = 0.5
    review_below_margin: float = 0.1
    review_below_agreement: float = 0.5
    music_threshold: float = 0.5
    music_weights: tuple[tuple[str, float], ...] = (("Music", 1.0),)
    """(tag, weight) of the music score: sigmoid(music_bias + sum of weight * mean logit of the tag)"""
    music_bias: float = 0.0


class Personal(Protocol):
    """What a person taught: another reading of the same votes, over the model's labels and then the person's own.

    The engine knows no more of it than this.
    """

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def calibration(self) -> Calibration:
        """That of the logits which `read` returns."""

    def read(self, votes: Votes) -> Votes:
        """The same votes with (K, len(labels)) genre logits."""


# --- verdict ---


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """One music-knowledge rule that changed the probabilities: `genre`'s was multiplied by `factor`."""

    rule: str
    genre: str
    factor: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The calibrated answer for a track. `probabilities` (C,) sums to 1; `segment_probabilities` is (K, C)."""

    labels: tuple[str, ...]
    probabilities: np.ndarray
    segment_probabilities: np.ndarray
    uncertainty: float
    """entropy / log(C): 0 sure, 1 no idea"""
    margin: float
    """first minus second probability"""
    variation_ratio: float
    """share of segments that do not vote for the commonest genre"""
    agreement: float
    """share of segments that vote for the top genre"""
    prediction_set: tuple[str, ...]
    needs_review: bool
    review_reasons: tuple[str, ...]
    rules_applied: tuple[AppliedRule, ...] = ()

    @property
    def top_genre(self) -> str:
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def top_confidence(self) -> float:
        return float(np.max(self.probabilities))

    def ranked(self) -> list[tuple[str, float]]:
        """(genre, probability), best first; ties keep the card's order."""
        order = np.argsort(-self.probabilities, kind="stable")
        return [(self.labels[i], float(self.probabilities[i])) for i in order]


# --- analysis ---


@dataclass(frozen=True, slots=True)
class Analysis:
    """One run on one track: the verdict with all that explains it. `timings_ms` is by stage, with "total"."""

    path: str
    model: str
    duration_s: float
    analyzed_s: float
    cached: bool
    verdict: Verdict
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    tags: tuple[tuple[str, float], ...]
    """(tag, probability), best first"""
    embedding: np.ndarray
    """(D,) mean over the segments"""
    timings_ms: Mapping[str, float]
    descriptors: Descriptors | None = None
    warnings: tuple[AudioWarning, ...] = ()
    info: AudioInfo | None = None
    votes: Votes | None = None
    """what the network said, before any calibration or personal model"""
    personal: str | None = None
    """name of the personal model whose reading the verdict is; None for the model alone"""

    def to_dict(self, top_k: int = 5, n_tags: int = 8) -> dict[str, Any]:
        """The JSON contract's object for a file that could be analysed."""
        verdict = self.verdict
        ranked = verdict.ranked()
        segment_best = verdict.segment_probabilities.argmax(axis=1)
        return {
            **file_fields(self.path),
            "status": "ok",
            "error": None,
            "model": self.model,
            **({"personal": self.personal} if self.personal is not None else {}),
            "duration_s": round(self.duration_s, 3),
            "analyzed_s": round(self.analyzed_s, 3),
            "cached": self.cached,
            "top_genre": verdict.top_genre,
            "top_confidence": verdict.top_confidence,
            "predictions": [{"genre": genre, "confidence": p} for genre, p in ranked[:top_k]],
            "probabilities": {label: float(p) for label, p in zip(verdict.labels, verdict.probabilities, strict=True)},
            "uncertainty": verdict.uncertainty,
            "agreement": verdict.agreement,
            "prediction_set": list(verdict.prediction_set),
            "needs_review": verdict.needs_review,
            "review_reasons": list(verdict.review_reasons),
            "segments": [
                {
                    "start_s": round(start, 3),
                    "end_s": round(end, 3),
                    "top_genre": verdict.labels[best],
                    "confidence": float(row[best]),
                }
                for start, end, best, row in zip(
                    self.start_s, self.end_s, segment_best, verdict.segment_probabilities, strict=True
                )
            ],
            "descriptors": self.descriptors.to_dict() if self.descriptors else None,
            "tags": [{"tag": tag, "confidence": p} for tag, p in self.tags[:n_tags]],
            "rules_applied": [rule.to_dict() for rule in verdict.rules_applied],
            "warnings": [warning.to_dict() for warning in self.warnings],
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that could not be analysed, and why: `error` is AcousticError.to_dict()."""

    path: str
    error: Mapping[str, str]

    def to_dict(self, top_k: int = 5) -> dict[str, Any]:
        """The JSON contract's object for a file that failed."""
        return {**file_fields(self.path), "status": "error", "error": {k: printable(v) for k, v in self.error.items()}}


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole track as a picture for the eye: mel spectrogram of at most about a thousand columns.

    `mel_db` (n_mels, n_columns) float32 in dB; `times_s` (n_columns,) are the columns' centres, evenly spaced; `mel_hz`
    (n_mels,) the bands' centre frequencies, rising.
    """

    mel_db: np.ndarray
    times_s: np.ndarray
    mel_hz: np.ndarray
    duration_s: float


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A derived value: named arrays and a JSON-able description."""

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any] = field(default_factory=dict)


def printable(text: str) -> str:
    """`text` with the bytes that are not UTF-8 (surrogate escapes), and lone surrogates, shown as U+FFFD."""
    if not _has_surrogates(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8", errors="replace")
    except UnicodeEncodeError:  # no bytes of a name, but half a character, as JSON can hold
        return text.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def neutral(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula, with an apostrophe before it; all else unchanged.

    Source: OWASP, "CSV Injection". Leading spaces do not protect, so they are looked through.
    """
    if isinstance(value, str) and (value.startswith(FORMULA_STARTS) or value.lstrip(" ").startswith(FORMULA_STARTS)):
        return "'" + value
    return value


def file_fields(path: str) -> dict[str, str]:
    """{"file": shown name}, and {"file_bytes": base64} where the name is not valid UTF-8."""
    if not _has_surrogates(path):
        return {"file": path}
    try:
        return {"file": printable(path), "file_bytes": base64.b64encode(os.fsencode(path)).decode("ascii")}
    except UnicodeEncodeError:  # the name of no file
        return {"file": printable(path)}


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
