"""The order in which songs are put before a person: those first whose decision is worth most.

A decision is worth the song's uncertainty times what it settles: the song itself, and the waiting songs that sound like
it and of which nobody has said anything yet. Once a song stands in the queue, those that sound like it are worth less,
which also brings variety (greedy maximum coverage: Nemhauser, Wolsey and Fisher, "An analysis of approximations for
maximizing submodular set functions", 1978). What was skipped comes again after all others.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .database import Connection

ALIKE = 0.8
"""Cosine of two mean embeddings, less the mean of all that wait, from which songs sound alike. Of a few hundred songs
that nobody chose for it, 70 % of such pairs have the same top genre, and a song has three or four such neighbours."""
DOUBT = 0.3
"""What a song is still worth of which a decision about one that sounds like it has spoken: so often that is wrong."""
STRANGERS = 0.3
"""Cosine up to which two songs may follow each other without being held back."""
VARIETY = 8
"""A song is held back by each of so many before it that sounds like it, the more the nearer that stands."""
MAX_COMPARED = 4_000
"""So many songs are compared with one another; of more, those whose answer is surest come last, by uncertainty."""

_WAITING = """
    SELECT a.track_id, a.id AS analysis_id, v.uncertainty, v.review_reasons
    FROM verdicts v JOIN analyses a ON a.id = v.analysis_id
    WHERE v.needs_review = 1 AND a.id = (SELECT max(id) FROM analyses WHERE track_id = a.track_id)
        AND EXISTS (SELECT 1 FROM files WHERE track_id = a.track_id AND state = 'ok' AND missing = 0)
    ORDER BY a.track_id"""


@dataclass(frozen=True, slots=True)
class Said:
    """{track: decision in force} of what was decided, and of what was only skipped, the longest ago first."""

    decided: dict[int, int]
    skipped: dict[int, int]


@dataclass(eq=False)
class Flagged:
    """All n flagged songs, decided or not, with what follows from the comparison of the first of them by uncertainty.

    `track`, `analysis`, `uncertainty` are (n,), `reasons` n tuples. Of the m that are compared (`row` (m,) are their
    places among the n) `directions` (m, D) are unit vectors and `alike` (m, m) says which pairs sound alike, each song
    with itself.
    """

    key: tuple[object, ...]
    track: np.ndarray
    analysis: np.ndarray
    uncertainty: np.ndarray
    reasons: list[tuple[str, ...]]
    row: np.ndarray
    directions: np.ndarray
    alike: np.ndarray
    took_s: float
    made_at: float
    covered: np.ndarray
    gain: np.ndarray
    """(m,) how many songs that are not `covered` (m,) sound like each"""

    def cover(self, covered: np.ndarray) -> None:
        """Let `gain` follow a change of what is covered; it is small, as a rule."""
        for places, sign in ((np.nonzero(covered & ~self.covered)[0], -1), (np.nonzero(~covered & self.covered)[0], 1)):
            if len(places):
                self.gain += sign * self.alike[places].sum(axis=0, dtype=np.int64)
        self.covered = covered


# --- reading ---


def key_of(db: Connection) -> tuple[object, ...]:
    """Changes when songs are analysed, read anew, found or lost."""
    row = db.execute(
        "SELECT (SELECT max(id) FROM analyses), (SELECT max(id) FROM scans), (SELECT max(finished_at) FROM scans), "
        "count(*), total(uncertainty), max(analysis_id) FROM verdicts WHERE needs_review = 1"
    ).fetchone()
    return tuple(row)


def said_of(db: Connection) -> Said:
    rows = db.execute(
        "SELECT i.track_id, d.id, d.kind FROM in_force i JOIN decisions d ON d.id = i.decision_id ORDER BY d.id"
    ).fetchall()
    return Said(
        {row[0]: row[1] for row in rows if row[2] != "skip"}, {row[0]: row[1] for row in rows if row[2] == "skip"}
    )


def compare(db: Connection, key: tuple[object, ...]) -> Flagged:
    """All flagged songs, and which of the least sure of them sound alike: the work of a second for some thousands."""
    begin = time.monotonic()
    rows = db.execute(_WAITING).fetchall()
    uncertainty = np.asarray([row["uncertainty"] for row in rows], dtype=np.float64)
    analysis = np.asarray([row["analysis_id"] for row in rows], dtype=np.int64)
    chosen = np.argsort(-uncertainty, kind="stable")[:MAX_COMPARED]
    directions = _directions(db, analysis[chosen])
    row_of = chosen[: len(directions)]
    alike = np.empty((len(directions), len(directions)), dtype=bool)
    for start in range(0, len(directions), 512):
        alike[start : start + 512] = directions[start : start + 512] @ directions.T >= ALIKE
    np.fill_diagonal(alike, True)
    m = len(alike)
    return Flagged(
        key=key,
        track=np.asarray([row["track_id"] for row in rows], dtype=np.int64),
        analysis=analysis,
        uncertainty=uncertainty,
        reasons=[tuple(json.loads(row["review_reasons"])) for row in rows],
        row=row_of,
        directions=directions,
        alike=alike,
        took_s=time.monotonic() - begin,
        made_at=time.monotonic(),
        covered=np.zeros(m, dtype=bool),
        gain=alike.sum(axis=0, dtype=np.int64),
    )


def _directions(db: Connection, analyses: np.ndarray) -> np.ndarray:
    """(m, D) unit vectors of the mean embeddings less their own mean; embeddings of another width are zero vectors, and
    so sound like nothing."""
    blobs = dict(
        db.execute(
            "SELECT id, embedding FROM analyses WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(analyses.tolist()),),
        ).fetchall()
    )
    if not blobs:
        return np.zeros((0, 0), np.float32)
    width = max(len(blob) for blob in blobs.values())
    fits = np.asarray([len(blobs[int(i)]) == width for i in analyses])
    raw = np.zeros((len(analyses), width // 2), np.float32)
    raw[fits] = np.stack([np.frombuffer(blobs[int(i)], np.float16) for i in analyses[fits]])
    raw[fits] -= raw[fits].mean(axis=0)
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    return raw / np.maximum(length, 1e-6)


# --- ordering ---


def in_order(flagged: Flagged, said: Said, reason: str, after: Sequence[int], n: int) -> list[int]:
    """The next `n` tracks of those that wait, without those of `after`; see the top. `reason` leaves only the songs
    that were flagged for it."""
    held = set(after)
    track = flagged.track.tolist()
    open_ = [
        t not in said.decided and t not in held and (not reason or reason in reasons)
        for t, reasons in zip(track, flagged.reasons, strict=True)
    ]
    fresh = np.asarray([o and t not in said.skipped for o, t in zip(open_, track, strict=True)], bool)
    order = _greedy(flagged, said, fresh, after, n)
    if len(order) < n:  # what was not compared is the surest of all
        chosen = set(order)
        rest = [track[i] for i in np.argsort(-flagged.uncertainty, kind="stable").tolist() if fresh[i]]
        order += [t for t in rest if t not in chosen][: n - len(order)]
    if len(order) < n:
        again = {t for o, t in zip(open_, track, strict=True) if o and t in said.skipped}
        order += [t for t in said.skipped if t in again][: n - len(order)]
    return order


def _greedy(flagged: Flagged, said: Said, fresh: np.ndarray, after: Sequence[int], n: int) -> list[int]:
    """Up to `n` of the compared songs that are `fresh`, the one first that is worth most after those before it."""
    track = flagged.track[flagged.row]
    if not len(track):
        return []
    place = {t: i for i, t in enumerate(track.tolist())}
    spoken_of = np.asarray([place[t] for t in [*said.decided, *after] if t in place], dtype=np.intp)
    flagged.cover(np.asarray(flagged.alike[spoken_of].any(axis=0)))
    covered, gain = flagged.covered.copy(), flagged.gain.copy()
    uncertainty = flagged.uncertainty[flagged.row]
    free = fresh[flagged.row].copy()
    recent = deque((_likeness(flagged, place[t]) for t in after[-VARIETY:] if t in place), maxlen=VARIETY)
    found: list[int] = []
    while len(found) < n and free.any():
        held_back = np.zeros(len(track), np.float32)
        for age, likeness in enumerate(reversed(recent)):
            np.maximum(held_back, likeness * (1.0 - age / VARIETY), out=held_back)
        worth = (0.01 + uncertainty) * (DOUBT + gain) * (1.01 - held_back)
        best = int(np.where(free, worth, -1.0).argmax())
        found.append(int(track[best]))
        free[best] = False
        newly = np.nonzero(flagged.alike[best] & ~covered)[0]
        covered[newly] = True
        gain -= flagged.alike[newly].sum(axis=0, dtype=np.int64)
        recent.append(_likeness(flagged, best))
    return found


def _likeness(flagged: Flagged, place: int) -> np.ndarray:
    """(m,) from 0, a stranger to this song, to 1, sounds like it."""
    cosine = flagged.directions @ flagged.directions[place]
    return np.clip((cosine - STRANGERS) / (ALIKE - STRANGERS), 0.0, 1.0)


def n_alike(flagged: Flagged, said: Said, track_ids: Sequence[int]) -> dict[int, int]:
    """How many other waiting songs sound like each of these; nothing is known of those that were not compared."""
    track = flagged.track[flagged.row].tolist()
    waits = np.asarray([t not in said.decided for t in track], bool)
    asked = set(track_ids)
    place = {t: i for i, t in enumerate(track) if t in asked}
    return {t: int(np.count_nonzero(flagged.alike[i] & waits)) - int(waits[i]) for t, i in place.items()}
