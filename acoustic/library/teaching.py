"""Labelled songs -> what a person taught: fitted, cross-validated, calibrated.

The strength of the ridge (see `fitting`) is a usual one, or another that is clearly better in cross-validation by
group; one candidate is to learn nothing, so that songs which teach nothing leave the built-in model as it is, bit for
bit. Temperature and conformal quantile come from the same left-out answers. The order of the songs changes no bit of
the result.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ..errors import ManifestError
from ..records import Calibration, Votes
from ..verdict import metrics
from ..verdict.calibration import fit_conformal
from .background import Background
from .comparison import Comparison, compare, share
from .fitting import Material, background_answers, background_weight, gather, learn, song_weights, track_answers
from .genres import settle
from .personal import Base, PersonalModel, plain

STRENGTHS = (1.5, 0.5, 0.15, 0.05)
"""Candidates, strong to weak."""
USUAL_STRENGTH = 0.15
"""For songs that cannot be tested on one another, such as one song of a new genre, and for all others unless another
candidate (to learn nothing is one) is better by EVIDENCE."""
EVIDENCE = 2.0
"""nats of cross-validated loss in all. A person's labels are right more often than not, and the choice between
candidates that are as good is noise; labels drawn by lot cost more than this."""
MANY = 200
FOLDS_FEW, FOLDS_MANY = 10, 4
"""Folds for up to MANY groups, and for more."""
TEMPERATURE_SD = 0.25
"""How far from 0 log(temperature) is expected before a song was tested: a few songs must not move it far."""
CONFORMAL_MIN = 100
"""Groups of tested songs from which on their own conformal quantile takes the place of the base's."""


@dataclass(frozen=True, slots=True, eq=False)
class Song:
    """One labelled song as the network heard it. Songs of one `group` (a file, an artist) are left out together."""

    votes: Votes
    genre: str
    group: str


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What came of teaching. `personal` is None where the songs teach nothing that the base does not know better;
    `strength` then is None, too.

    `songs` counts them by genre. `comparison` is base against taught on songs that were left out of the fit, None if
    none could be: `n_untested` songs are the only ones of their genre. Of `n_background` songs that nobody taught,
    which were left out in turn as well, `n_same` keep their top genre.
    """

    personal: PersonalModel | None
    strength: float | None
    songs: dict[str, int]
    comparison: Comparison | None
    n_untested: int
    n_background: int
    n_same: int

    def to_dict(self) -> dict[str, Any]:
        """What is kept with the version, as JSON."""
        return {
            "songs": self.songs,
            "strength": self.strength,
            "left_out": self.comparison.to_dict() if self.comparison else None,
            "n_untested": self.n_untested,
            "n_background": self.n_background,
            "background_unchanged": share(self.n_same, self.n_background),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Cross-validation: `tested` (n,) songs were left out once; `after` (n, C') their answers then, each at the
    strength that was best without its fold. `n_same` is about the background."""

    strength: float | None
    temperature: float
    tested: np.ndarray
    after: np.ndarray
    n_same: int


def teach(songs: Sequence[Song], base: Base, background: Background | None = None, *, name: str = "") -> Lesson:
    """Fit, test and calibrate. ManifestError for no songs, for a genre's name that cannot be one, and for songs that
    are all of one genre when there is no background to tell it from."""
    if not songs:
        raise ManifestError("there are no songs to learn from", "Name at least one that can be analysed.")
    genres = settle([song.genre for song in songs], base.labels)
    if background is None and len(set(genres)) < 2:
        raise ManifestError(
            f"all songs are {genres[0]!r}, and {base.model!r} brings no background of other music",
            "Add songs of at least one other genre.",
        )
    own = tuple(sorted(set(genres) - set(base.labels)))
    labels = base.labels + own
    pairs = sorted(zip(songs, genres, strict=True), key=lambda pair: _order(*pair))
    material = gather(
        [song.votes for song, _ in pairs],
        [labels.index(genre) for _, genre in pairs],
        _groups([song for song, _ in pairs]),
        base,
        len(own),
        background,
    )
    trial = _cross_validate(material, base, len(own))
    counts = Counter(genres)
    lesson = Lesson(
        personal=None,
        strength=trial.strength,
        songs={label: counts[label] for label in labels if label in counts},
        comparison=_compare(material, trial, base, labels),
        n_untested=int((~trial.tested).sum()),
        n_background=material.n_background,
        n_same=trial.n_same,
    )
    if trial.strength is None:
        return lesson
    weights = material.to_raw @ learn(material, np.ones(len(material.x), bool), trial.strength)
    weights = weights.astype(np.float32)  # as it is kept on disk, where it must answer with the same bits
    personal = PersonalModel(
        name=name,
        base=base,
        own=own,
        weights=weights[:-1],
        bias=weights[-1],
        temperature=trial.temperature,
        conformal_quantile=_quantile(material, trial, base.calibration),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        report=lesson.to_dict(),
    )
    return dataclasses.replace(lesson, personal=personal)


def _order(song: Song, genre: str) -> tuple[str, str, bytes]:
    """Where a song stands, wherever it stood."""
    return genre, song.group, np.ascontiguousarray(song.votes.embeddings).tobytes()


def _groups(songs: Sequence[Song]) -> list[str]:
    """Each song's group; a recording that is there twice, under two names, is one group."""
    first: dict[bytes, str] = {}
    return [first.setdefault(np.ascontiguousarray(s.votes.logits).tobytes(), s.group) for s in songs]


def _deal(material: Material) -> tuple[np.ndarray, np.ndarray]:
    """A fold for each song (n,) and each song of the background (M,); -1 for a song that is always fitted.

    The groups of each genre are dealt out evenly, and a group is never divided. The only group of a genre always stays:
    left out, it would be told to be anything but its genre by all the others.
    """
    leading: dict[int, int] = {}  # a group that holds several genres is dealt with its first
    groups_of: dict[int, set[int]] = {}
    for genre, group in zip(material.genre, material.group, strict=True):
        leading.setdefault(int(group), int(genre))
        groups_of.setdefault(int(genre), set()).add(int(group))
    stays = {group for groups in groups_of.values() if len(groups) == 1 for group in groups}
    dealt = sorted((genre, group) for group, genre in leading.items() if group not in stays)
    n_folds = min(FOLDS_FEW if len(leading) <= MANY else FOLDS_MANY, len(dealt))
    fold_of = {group: i % n_folds for i, (_, group) in enumerate(dealt)}
    songs = np.asarray([fold_of.get(int(group), -1) for group in material.group])
    return songs, np.arange(material.n_background) % max(n_folds, FOLDS_MANY)


def _cross_validate(material: Material, base: Base, n_own: int) -> _Trial:
    song_fold, rest_fold = _deal(material)
    fold_of = np.concatenate([song_fold, rest_fold])
    tested = song_fold >= 0
    candidates: list[float | None] = [*STRENGTHS] if n_own else [None, *STRENGTHS]
    scores, rest = _left_out(material, candidates, song_fold, rest_fold)
    how = [_tempered(material, s, tested, base.calibration) for s in scores]
    answers = np.stack([track_answers(s, material.song, h) for s, h in zip(scores, how, strict=True)])
    losses = _losses(material, answers, rest)
    usual = candidates.index(USUAL_STRENGTH)
    as_it_is = plain(base.calibration, 1.0, None)
    untaught = _losses(material, track_answers(scores[0], material.song, as_it_is)[None], rest[:1])[0]

    def best(rows: np.ndarray) -> int:
        total = losses[:, rows].sum(axis=1)
        if candidates[0] is None:  # at its best temperature, for a fair comparison, and never worse than it is
            total[0] = min(total[0], untaught[rows].sum())
        total[usual] -= EVIDENCE
        return int(total.argmin())

    chosen = best(fold_of >= 0) if tested.any() else usual
    after = answers[chosen].copy()
    for fold in np.unique(song_fold[tested]):
        left_out = song_fold == fold
        without = best((fold_of >= 0) & (fold_of != fold))
        known = as_it_is  # whoever learns nothing leaves the base as it is
        if candidates[without] is not None:
            known = _tempered(material, scores[without], tested & ~left_out, base.calibration)
        after[left_out] = track_answers(scores[without], material.song, known)[left_out]
    same = rest[chosen].argmax(axis=1) == material.target[material.n :].argmax(axis=1)
    return _Trial(candidates[chosen], how[chosen].temperature, tested, after, int(same.sum()))


def _left_out(
    material: Material, candidates: Sequence[float | None], song_fold: np.ndarray, rest_fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each candidate, of what was fitted without them: the scores of the songs' segments (candidates, K, C') and
    the background's answers (candidates, M, C'). Songs that are never left out keep the base's scores."""
    scores = np.repeat(material.prior_segment[None], len(candidates), axis=0)
    rest = np.repeat(material.target[None, material.n :], len(candidates), axis=0)
    fold_of = np.concatenate([song_fold, rest_fold])
    for fold in np.unique(fold_of[fold_of >= 0]):
        mine, others = song_fold[material.song] == fold, np.nonzero(rest_fold == fold)[0]
        weights = None
        for i, strength in enumerate(candidates):
            if strength is not None:
                weights = learn(material, fold_of != fold, strength, weights)
                scores[i, mine] += material.x_segment[mine] @ weights
                rest[i, others] = background_answers(material, weights, others)
    return scores, rest


def _tempered(material: Material, scores: np.ndarray, tested: np.ndarray, calibration: Calibration) -> Calibration:
    """With the likeliest temperature of the left-out answers, given that log(temperature) is normal with
    TEMPERATURE_SD.

    Candidates are compared after it: else one that is merely less sure would win wherever the base is too sure.
    """
    how = plain(calibration, 1.0, None)
    if not tested.any():
        return how

    def loss(log_temperature: float) -> float:
        tried = dataclasses.replace(how, temperature=math.exp(log_temperature))
        p = track_answers(scores, material.song, tried)[tested]
        return metrics.nll(p, material.genre[tested]) * len(p) + 0.5 * (log_temperature / TEMPERATURE_SD) ** 2

    found = minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded", options={"xatol": 0.02})
    return dataclasses.replace(how, temperature=math.exp(float(found.x)))


def _losses(material: Material, answers: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(candidates, n + M): what each song and each song of the background adds to the loss."""
    tiny = np.finfo(np.float64).tiny
    of_songs = -np.log(np.maximum(answers[:, np.arange(material.n), material.genre], tiny))
    of_rest = -(material.target[None, material.n :] * np.log(np.maximum(rest, tiny))).sum(axis=2)
    share_of_each = background_weight(material.n) / max(material.n_background, 1)
    weights = song_weights(material.genre, material.n_base)
    return np.concatenate([weights * of_songs, share_of_each * of_rest], axis=1)


def _quantile(material: Material, trial: _Trial, calibration: Calibration) -> float | None:
    if len(np.unique(material.group[trial.tested])) < CONFORMAL_MIN:
        return calibration.conformal_quantile
    return fit_conformal(trial.after[trial.tested], material.genre[trial.tested], calibration.coverage)


def _compare(material: Material, trial: _Trial, base: Base, labels: Sequence[str]) -> Comparison | None:
    if not trial.tested.any():
        return None
    known = material.prior_segment[:, : len(base.labels)]
    before = track_answers(known, material.song, plain(base.calibration, 1.0, None))
    tested = trial.tested
    return compare(labels, material.genre[tested], material.group[tested], before[tested], trial.after[tested])
