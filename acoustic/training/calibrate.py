"""What turns a trained network's scores into an answer that can be trusted, fitted on held-out groups only.

Temperature and conformal quantile on labelled tracks; the review threshold as the least confidence from which on the
answers reach a stated accuracy; the music score as a logistic regression on a few tags, from music, speech and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from ..errors import ManifestError
from ..records import Calibration, SegmentSpec, Votes, Waveform
from ..signal.mel import log_mel, normalize
from ..signal.segments import take
from ..verdict import calibration as fitting
from ..verdict import metrics
from ..verdict.uncertainty import music_score
from ..verdict.voting import Voting, combine
from .config import TrainConfig
from .targets import WaveformStore

MUSIC_TAGS = ("Music", "Speech", "Musical instrument")
MUSIC_KEPT = 0.98
"""share of held-out music that must stay above the music threshold"""
FOLDS = 5
VOTINGS: tuple[Voting, ...] = ("mean", "log_mean", "majority")


@dataclass(frozen=True, slots=True)
class TrackVotes:
    """The votes of one held-out track; `genre` is its class index, or None where nobody says."""

    votes: Votes
    genre: int | None
    is_music: bool
    group: str


def votes_of(store: WaveformStore, track: int, config: TrainConfig, spec: SegmentSpec, network: Any) -> Votes:
    """The votes of one track as the engine would take them: `network` maps normalised mels (K, n_mels, 224) to
    Votes.
    """
    rate = store.sample_rate

    def read(start_s: float, length_s: float) -> Waveform:
        start = min(round(start_s * rate), store.length(track))
        n = min(round(length_s * rate), store.length(track) - start)
        return Waveform(store.read(track)[start : start + n], rate)

    segments = take(read, store.length(track) / rate, spec, config.mel)
    return network(normalize(log_mel(segments.samples, config.mel), config.mel).numpy())


def fit_calibration(
    tracks: Sequence[TrackVotes], tag_labels: Sequence[str], config: TrainConfig
) -> tuple[Calibration, dict[str, Any]]:
    """Calibration fitted on all held-out tracks, and a report for the card.

    Every number of the report is cross-fitted: the held-out groups are dealt into FOLDS folds, each is answered with
    the calibration that was fitted on the others, and the answers are put together.
    """
    labelled = [t for t in tracks if t.genre is not None]
    if not labelled:
        raise ManifestError("the held-out part has no labelled track", "Raise `held_out`, or label more files.")
    folds = _folds(tracks)
    answers: list[tuple[TrackVotes, Calibration]] = []
    for fold in range(FOLDS):
        others = [t for t, f in zip(tracks, folds, strict=True) if f != fold]
        mine = [t for t, f in zip(tracks, folds, strict=True) if f == fold]
        if mine:
            fitted = _fit(others, tag_labels, config)
            answers += [(t, fitted) for t in mine]
    return _fit(tracks, tag_labels, config), _report(answers, tag_labels, config)


def _folds(tracks: Sequence[TrackVotes]) -> list[int]:
    """A fold for each track; tracks of one group share it, and every kind of track is spread over all folds."""
    fold_of: dict[str, int] = {}
    counts: dict[object, int] = {}
    for track in sorted(tracks, key=lambda t: t.group):
        if track.group not in fold_of:
            kind = (track.is_music, track.genre is not None)
            fold_of[track.group] = counts.get(kind, 0) % FOLDS
            counts[kind] = counts.get(kind, 0) + 1
    return [fold_of[t.group] for t in tracks]


def _fit(tracks: Sequence[TrackVotes], tag_labels: Sequence[str], config: TrainConfig) -> Calibration:
    labelled = [t for t in tracks if t.genre is not None]
    targets = _targets(labelled)
    logits = [t.votes.logits for t in labelled]
    temperatures = {v: fitting.fit_temperature(logits, targets, voting=v) for v in VOTINGS}
    loss = {v: metrics.nll(_probabilities(labelled, temperatures[v], v), targets) for v in VOTINGS}
    voting = min(VOTINGS, key=lambda v: loss[v])
    p = _probabilities(labelled, temperatures[voting], voting)
    weights, bias, threshold = _fit_music(tracks, tag_labels)
    return Calibration(
        temperature=temperatures[voting],
        voting=voting,
        conformal_quantile=fitting.fit_conformal(p, targets, config.coverage),
        coverage=config.coverage,
        review_below_confidence=review_threshold(p, targets, config.review_accuracy),
        music_weights=weights,
        music_bias=bias,
        music_threshold=threshold,
    )


def _report(
    answers: Sequence[tuple[TrackVotes, Calibration]], tag_labels: Sequence[str], config: TrainConfig
) -> dict[str, Any]:
    """Metrics of tracks that were each answered with a calibration fitted without their group."""
    labelled = [(t, c) for t, c in answers if t.genre is not None]
    targets = _targets([t for t, _ in labelled])
    before = np.concatenate([_probabilities([t], 1.0, c.voting) for t, c in labelled])
    after = np.concatenate([_probabilities([t], c.temperature, c.voting) for t, c in labelled])
    sets = [fitting.prediction_set(p, c.conformal_quantile) for p, (_, c) in zip(after, labelled, strict=True)]
    covered = sum(int(target in chosen) for target, chosen in zip(targets, sets, strict=True))
    sure = np.asarray([p.max() >= c.review_below_confidence for p, (_, c) in zip(after, labelled, strict=True)])
    right = after.argmax(axis=1) == targets
    n, hits = len(targets), int(right.sum())
    flagged: dict[bool, list[bool]] = {True: [], False: []}
    for track, calibration in answers:
        score = music_score(track.votes.tag_logits, tag_labels, calibration)
        flagged[track.is_music].append(score is not None and score < calibration.music_threshold)
    return {
        "how": f"{FOLDS}-fold by group within the held-out part",
        "n": n,
        "n_groups": len({t.group for t, _ in labelled}),
        "accuracy": hits / n,
        "accuracy_interval_95": list(metrics.wilson_interval(hits, n)),
        "top_2": metrics.top_k_accuracy(after, targets, 2),
        "macro_f1": metrics.macro_f1(targets, after.argmax(axis=1), len(config.labels)),
        **{f"{name}_before": score(before, targets) for name, score in _SCORES.items()},
        **{f"{name}_after": score(after, targets) for name, score in _SCORES.items()},
        "set_coverage": covered / n,
        "set_coverage_interval_95": list(metrics.wilson_interval(covered, n)),
        "set_size": float(np.mean([len(chosen) for chosen in sets])),
        "below_review_confidence": float(1 - sure.mean()),
        "accuracy_above_review_confidence": float(right[sure].mean()) if sure.any() else None,
        "not_music": {
            "n_music": len(flagged[True]),
            "n_other": len(flagged[False]),
            "music_flagged": float(np.mean(flagged[True])) if flagged[True] else None,
            "other_flagged": float(np.mean(flagged[False])) if flagged[False] else None,
        },
    }


_SCORES = {"nll": metrics.nll, "brier": metrics.brier, "ece": metrics.expected_calibration_error}


def _targets(labelled: Sequence[TrackVotes]) -> np.ndarray:
    return np.asarray([t.genre for t in labelled], dtype=np.int64)


def _probabilities(tracks: Sequence[TrackVotes], temperature: float, voting: Voting) -> np.ndarray:
    return np.stack([combine(fitting.segment_probabilities(t.votes.logits, temperature), voting) for t in tracks])


def review_threshold(probabilities: np.ndarray, targets: np.ndarray, accuracy: float) -> float:
    """The least confidence such that the answers at or above it are right as often as `accuracy`; 1.0 if none are."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == targets)[order]
    share = np.cumsum(right) / np.arange(1, len(right) + 1)
    good = np.nonzero(share >= accuracy)[0]
    return float(confidence[order][good[-1]]) if len(good) else 1.0


def _fit_music(
    tracks: Sequence[TrackVotes], tag_labels: Sequence[str]
) -> tuple[tuple[tuple[str, float], ...], float, float]:
    """Weights and bias of the music score, and the threshold that keeps MUSIC_KEPT of the music; no weights, and so no
    score, for a model without these tags or without anything that is not music to fit it on."""
    if not set(MUSIC_TAGS) <= set(tag_labels) or len({t.is_music for t in tracks}) < 2:
        return (), 0.0, 0.5
    columns = [list(tag_labels).index(tag) for tag in MUSIC_TAGS]
    x = np.stack([t.votes.tag_logits.mean(axis=0)[columns] for t in tracks])
    y = np.asarray([t.is_music for t in tracks])
    model = LogisticRegression(class_weight="balanced", C=0.1).fit(x, y)
    weights = tuple((tag, float(w)) for tag, w in zip(MUSIC_TAGS, model.coef_[0], strict=True))
    music = np.sort(model.predict_proba(x[y])[:, 1])
    threshold = min(0.5, float(music[int((1 - MUSIC_KEPT) * len(music))]))
    return weights, float(model.intercept_[0]), threshold
