"""What turns a trained network's scores into an answer that can be trusted, fitted on held-out groups only.

Probabilities first: one temperature, fitted on segments, and the mean of the segments; vector scaling, another vote or
a sharpened one take their places only where they clearly win across groups, since there are few groups. Then, from
answers that were each given without their own group: the conformal quantiles of tracks and of segments, and the
confidence below which a person should look. Labels count by their source's `label_weight`, so that noisy ones do not
make the model humbler than it must be; the conformal quantiles alone count all alike, since their promise is about
held-out tracks as they are.

The music score is in `not_music`; how good it all is, in `held_out`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from ..errors import ManifestError
from ..records import Calibration, SegmentSpec, Votes, Waveform
from ..signal.mel import log_mel, normalize
from ..signal.segments import take
from ..verdict import calibration as fitting
from ..verdict.decision import calibrated
from ..verdict.uncertainty import margin
from ..verdict.voting import Voting, agreement
from .config import TrainConfig
from .held_out import Answer, TrackVotes, report
from .manifest import Row
from .not_music import fit_music_score, not_music_signals
from .targets import WaveformStore

FOLDS = 5
VOTINGS: tuple[Voting, ...] = ("mean", "log_mean", "majority")
CLEARLY = 2.0
"""standard errors over groups by which a richer calibration must beat a plainer one"""
CURVE_SPREAD = 0.35
"""how far accuracy may lie from a calibrated confidence before the data are asked: standard deviation, as log-odds"""
EXPLAINED = 1 / 3
"""share of held-out tracks whose margin (or agreement) counts as small"""

CHANGES: tuple[dict[str, Any], ...] = (
    {"vector": True},
    *({"voting": voting} for voting in VOTINGS[1:]),
    {"correlation": True},
)
"""what is tried on top of the plainest recipe"""

Network = Callable[[np.ndarray], Votes]
"""normalised mels (K, n_mels, 224) -> Votes"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How logits become probabilities: temperature alone or vector scaling, how votes are combined, and whether the
    correlation of a track's segments is fitted or taken as 1."""

    vector: bool = False
    voting: Voting = "mean"
    correlation: bool = False


def held_out_votes(
    store: WaveformStore, rows: Sequence[Row], held: Sequence[int], config: TrainConfig, network: Network
) -> list[TrackVotes]:
    """The votes of the held-out tracks `held` of `rows`, and of made signals that are not music."""
    trust = {source.name: source.label_weight for source in config.sources}
    tracks = []
    for track in held:
        row = rows[track]
        votes = votes_of(store, track, config, config.segments, network)
        genre = config.labels.index(row.genre) if row.genre else None
        part = row.dataset or row.source
        tracks.append(TrackVotes(votes, genre, row.kind == "music", row.group, part, trust[row.source]))
    for kind, samples in not_music_signals(config.mel.sample_rate):
        votes = _votes(Waveform(samples, config.mel.sample_rate), config, config.segments, network)
        tracks.append(TrackVotes(votes, None, False, f"made:{kind}", kind))
    return tracks


def votes_of(store: WaveformStore, track: int, config: TrainConfig, spec: SegmentSpec, network: Network) -> Votes:
    """The votes of one track as the engine would take them."""
    return _votes(Waveform(store.read(track), store.sample_rate), config, spec, network)


def _votes(waveform: Waveform, config: TrainConfig, spec: SegmentSpec, network: Network) -> Votes:
    rate, samples = waveform.sample_rate, waveform.samples

    def read(start_s: float, length_s: float) -> Waveform:
        start = round(start_s * rate)
        return Waveform(samples[start : start + round(length_s * rate)], rate)

    segments = take(read, waveform.duration_s, spec, config.mel)
    return network(normalize(log_mel(segments.samples, config.mel), config.mel))


def fit_calibration(
    tracks: Sequence[TrackVotes],
    tag_labels: Sequence[str],
    config: TrainConfig,
    answers: Sequence[Answer] | None = None,
) -> tuple[Calibration, dict[str, Any]]:
    """Calibration fitted on all held-out tracks, and a report for the card on `answers`: those of `cross_fitted`, which
    is called where they are not given. ManifestError where no track is labelled.
    """
    if answers is None:
        answers = cross_fitted(tracks, tag_labels, config)
    return _fit(tracks, tag_labels, config), report(answers, tag_labels, len(config.labels), FOLDS)


def cross_fitted(tracks: Sequence[TrackVotes], tag_labels: Sequence[str], config: TrainConfig) -> list[Answer]:
    """Every track with a calibration that was fitted without its group: the groups are dealt into FOLDS folds, each is
    answered with what was fitted on the others. ManifestError where these have no label."""
    _labelled(tracks)
    fold_of = folds(tracks)
    answers: list[Answer] = []
    for fold in range(FOLDS):
        others = [t for t, f in zip(tracks, fold_of, strict=True) if f != fold]
        mine = [t for t, f in zip(tracks, fold_of, strict=True) if f == fold]
        if mine:
            fitted = _fit(others, tag_labels, config)
            answers += [Answer(t, fitted) for t in mine]
    return answers


def _fit(tracks: Sequence[TrackVotes], tag_labels: Sequence[str], config: TrainConfig) -> Calibration:
    labelled = _labelled(tracks)
    recipe, p, by_segment = _chosen(labelled)
    targets = _targets(labelled)
    right = p.argmax(axis=1) == targets
    agreed = [agreement(s, int(q.argmax())) for s, q in zip(by_segment, p, strict=True) if len(s) > 1]
    weights, bias, threshold = fit_music_score(
        np.stack([t.votes.tag_logits.mean(axis=0) for t in tracks]),
        np.asarray([t.is_music for t in tracks]),
        tag_labels,
    )
    return dataclasses.replace(
        _richer(_plain(labelled), labelled, recipe),
        conformal_quantile=fitting.fit_conformal(p, targets, config.coverage),
        segment_conformal_quantile=fitting.fit_segment_conformal(by_segment, targets, config.coverage),
        coverage=config.coverage,
        review_below_confidence=review_threshold(p.max(axis=1), right, config.review_accuracy, _trust(labelled)),
        review_below_margin=float(np.quantile([margin(q) for q in p], EXPLAINED)),
        review_below_agreement=float(np.quantile(agreed, EXPLAINED)) if agreed else 0.5,
        music_weights=weights,
        music_bias=bias,
        music_threshold=threshold,
    )


def folds(tracks: Sequence[TrackVotes]) -> list[int]:
    """A fold of FOLDS for each track; tracks of one group share it, every kind of track is spread over all folds."""
    labelled = {track.group for track in tracks if track.genre is not None}
    kinds: dict[tuple[bool, bool, str], list[str]] = {}
    for group, track in sorted({track.group: track for track in tracks}.items()):
        kind = (track.is_music, group in labelled, track.source if track.is_music else "")
        kinds.setdefault(kind, []).append(group)
    # each kind begins where the one before it ended: the only groups of two kinds do not share a fold
    in_turn = itertools.chain.from_iterable(kinds[kind] for kind in sorted(kinds))
    fold_of = {group: i % FOLDS for i, group in enumerate(in_turn)}
    return [fold_of[t.group] for t in tracks]


def review_threshold(
    confidence: np.ndarray, right: np.ndarray, accuracy: float, weights: np.ndarray | None = None
) -> float:
    """The least confidence such that the answers at or above it are right as often as `accuracy`; 1.0 if none are.

    `confidence` and `right` are (N,), `weights` (N,) how much each item counts. The accuracy is not counted but read
    off a smooth curve, log-odds of being right = a + b * log-odds of the confidence, with a near 0 and b near 1
    (normal, CURVE_SPREAD) unless the data say otherwise. Counting finds the luckiest of N thresholds: simulated with
    120 answers of an accuracy of 0.63, where 0.80 is aimed at, those kept are then right in 0.797 +- 0.053 and are
    0.45 +- 0.18 of all; with the curve in 0.804 +- 0.041 and 0.42 +- 0.14. The lower end of Wilson's interval would
    keep 0.14 of all, and nothing in every other case.
    """
    w = np.ones(len(confidence)) if weights is None else np.asarray(weights, dtype=np.float64)
    confidence, right, w = (np.asarray(x, dtype=np.float64)[w > 0] for x in (confidence, right, w))
    said = logit(np.clip(confidence, 1e-6, 1 - 1e-6))
    w = w * (w.sum() / np.square(w).sum())  # sums to the number of equal items that are worth as much

    def loss(v: np.ndarray) -> float:
        x = v[0] + v[1] * said
        likelihood = w @ (np.logaddexp(0.0, x) - right * x)
        return float(likelihood + 0.5 * (v[0] ** 2 + (v[1] - 1.0) ** 2) / CURVE_SPREAD**2)

    offset, slope = minimize(loss, np.asarray([0.0, 1.0])).x
    order = np.argsort(-said, kind="stable")
    expected = expit(offset + slope * said)[order]
    good = np.nonzero(np.cumsum(w[order] * expected) / np.cumsum(w[order]) >= accuracy)[0]
    return float(confidence[order][good[-1]]) if len(good) else 1.0


# --- pieces ---


def _labelled(tracks: Sequence[TrackVotes]) -> list[TrackVotes]:
    labelled = [t for t in tracks if t.genre is not None]
    if not labelled:
        raise ManifestError("the held-out part has no labelled track", "Raise `held_out`, or label more files.")
    return labelled


def _targets(labelled: Sequence[TrackVotes]) -> np.ndarray:
    return np.asarray([t.genre for t in labelled], dtype=np.int64)


def _trust(labelled: Sequence[TrackVotes], balanced: bool = False) -> np.ndarray:
    """(n,) trust in each label as a share of the greatest; all alike where no source is trusted. `balanced` gives every
    genre that occurs the same sum."""
    weight = np.asarray([t.weight for t in labelled], dtype=np.float64)
    weight = weight / weight.max() if weight.max() > 0 else np.ones(len(labelled))
    if balanced:
        targets = _targets(labelled)
        sums = np.bincount(targets, weights=weight)
        weight = weight * np.divide(weight.sum() / np.count_nonzero(sums), sums, where=sums > 0, out=sums * 0)[targets]
    return weight


def _segments(labelled: Sequence[TrackVotes], trust: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every segment by itself: logits (n, C), targets (n,), weights (n,) that add up to each track's."""
    counts = [len(t.votes) for t in labelled]
    logits = np.concatenate([t.votes.logits for t in labelled]).astype(np.float64)
    return logits, np.repeat(_targets(labelled), counts), np.repeat(trust / counts, counts)


@dataclass(frozen=True, slots=True)
class Fold:
    """Tracks to fit on, the plainest calibration of these, and which tracks are answered with it."""

    others: Sequence[TrackVotes]
    plain: Calibration
    answered: Sequence[int]


def _plain(labelled: Sequence[TrackVotes]) -> Calibration:
    logits, targets, weights = _segments(labelled, _trust(labelled))
    temperature = fitting.fit_temperature(logits, targets, weights=weights, spread=fitting.TEMPERATURE_SD)
    return Calibration(temperature=temperature)


def _richer(plain: Calibration, labelled: Sequence[TrackVotes], recipe: Recipe) -> Calibration:
    """`plain`, which was fitted on `labelled`, with what `recipe` adds, fitted on the same."""
    fitted = dataclasses.replace(plain, voting=recipe.voting)
    if recipe.vector:
        logits, targets, weights = _segments(labelled, _trust(labelled, balanced=True))
        scale, bias = fitting.fit_vector(logits, targets, plain.temperature, weights)
        fitted = dataclasses.replace(fitted, class_scale=tuple(scale.tolist()), class_bias=tuple(bias.tolist()))
    if recipe.correlation:
        by_segment = [calibrated(t.votes.logits, fitted)[0] for t in labelled]
        correlation = fitting.fit_segment_correlation(
            by_segment, _targets(labelled), weights=_trust(labelled), voting=recipe.voting
        )
        fitted = dataclasses.replace(fitted, segment_correlation=correlation)
    return fitted


def _chosen(labelled: Sequence[TrackVotes]) -> tuple[Recipe, np.ndarray, list[np.ndarray]]:
    """The plainest recipe, or what beats it by CLEARLY standard errors over groups, one change at a time; and the
    probabilities of tracks and segments that it gives without their groups.

    Compared is the likelihood of groups that were not fitted on; every genre counts alike, so that no recipe can win by
    the mixture of genres alone.
    """
    trust = _trust(labelled, balanced=True)
    groups = np.unique([t.group for t in labelled], return_inverse=True)[1]
    parts = _split(labelled)

    def gains(p: np.ndarray) -> np.ndarray:
        of_target = p[np.arange(len(p)), _targets(labelled)]
        return np.bincount(groups, weights=trust * np.log(np.maximum(of_target, np.finfo(np.float64).tiny)))

    best = Recipe()
    answers = _cross_probabilities(labelled, parts, best)
    for change in CHANGES:
        candidate = dataclasses.replace(best, **change)
        other = _cross_probabilities(labelled, parts, candidate)
        gained = gains(other[0]) - gains(answers[0])
        if gained.sum() > CLEARLY * np.sqrt(np.square(gained).sum()):
            best, answers = candidate, other
    return best, *answers


def _split(labelled: Sequence[TrackVotes]) -> list[Fold]:
    """The folds of `labelled`; where there is only one group, it is fitted on and answered at once."""
    fold_of = np.asarray(folds(labelled))
    parts = []
    for fold in np.unique(fold_of):
        others = [t for t, f in zip(labelled, fold_of, strict=True) if f != fold] or labelled
        parts.append(Fold(others, _plain(others), np.nonzero(fold_of == fold)[0].tolist()))
    return parts


def _cross_probabilities(
    labelled: Sequence[TrackVotes], parts: Sequence[Fold], recipe: Recipe
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Probabilities (n, C) of the tracks and those of their segments, each answered by what was fitted without its
    group."""
    p = np.zeros((len(labelled), labelled[0].votes.logits.shape[1]))
    by_segment: list[np.ndarray] = [p] * len(labelled)
    for part in parts:
        fitted = _richer(part.plain, part.others, recipe)
        for i in part.answered:
            by_segment[i], p[i] = calibrated(labelled[i].votes.logits, fitted)
    return p, by_segment
