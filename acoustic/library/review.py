"""What waits for a person: the next songs with why they are here, how far the person is, what else is on the album.

In which order they come is told in `review_order`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..kept import ReviewItem, ReviewProgress, Track
from ..records import Votes
from ..verdict.calibration import softmax
from ..verdict.uncertainty import entropy_ratio
from .catalogue import Catalogue
from .database import Connection, Database, Row
from .review_order import Flagged, Said, compare, in_order, key_of, n_alike, said_of
from .tracks import StoredVotes, Tracks

MAX_SECONDS_A_DECISION = 300.0
"""What counts of the time for one decision: a page that lies open is no work."""
BIN_MASS, MAX_BINS = 12, 8
"""Songs a bin of the reliability diagram, at least, and its bins, at most."""
CALM = 10.0
"""While a scan adds songs, comparing them anew may take a tenth of the time, if it takes long at all."""
QUICK_S = 0.2

SegmentReader = Callable[[str, Votes], "tuple[Sequence[str], np.ndarray] | None"]
"""(digest of the weights that voted, votes) -> labels and (K, C) probabilities of the segments; None if it cannot."""


class ReviewQueue:
    """The queue over a database. Nothing here writes; any method may raise LibraryError. Safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._catalogue = Catalogue(database)
        self._tracks = Tracks(database)
        self._flagged: Flagged | None = None
        self._comparing = threading.Lock()

    # --- the queue ---

    def next(
        self, n: int = 8, *, reason: str = "", after: Sequence[int] = (), read: SegmentReader | None = None
    ) -> list[ReviewItem]:
        """The next `n` songs: those whose decision is worth most, then what was skipped, the longest ago first.

        `reason` keeps those that were flagged for it. The songs `after` are left out, as somebody holds them already;
        what sounds like the last of them is held back. `read` tells what the segments say; without it, and where it
        cannot, they are read as the network scored them.
        """
        with self._comparing:
            flagged, said = self._current()
            order = in_order(flagged, said, reason, after, n)
        return self._items(order, read)

    def item(self, track_id: int, read: SegmentReader | None = None) -> ReviewItem | None:
        """One song as the queue would show it, whether or not it waits; None if it is not in the library."""
        return next(iter(self._items([track_id], read)), None)

    def reasons(self) -> dict[str, int]:
        """How many waiting songs were flagged for each reason, commonest first."""
        with self._comparing:
            flagged, said = self._current()
        counts: dict[str, int] = {}
        for track_id, reasons in zip(flagged.track.tolist(), flagged.reasons, strict=True):
            for reason in reasons if track_id not in said.decided else ():
                counts[reason] = counts.get(reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def waiting(self) -> list[int]:
        """The ids of all songs that wait, in no particular order."""
        with self._comparing:
            flagged, said = self._current()
        return [track_id for track_id in flagged.track.tolist() if track_id not in said.decided]

    def refresh(self) -> None:
        """Look at all verdicts anew, even if that was done a moment ago."""
        with self._comparing:
            self._flagged = None

    # --- beside the queue ---

    def album(self, track_id: int) -> list[Track]:
        """The other songs of the same album: of the same album tag by the same artist or in the same folder; where
        there is no such tag, those in the folder that have none either. By path; songs that are missing are left out.
        """

        def work(db: Connection) -> list[int]:
            mine = db.execute(
                "SELECT path, album, artist FROM files WHERE track_id = ? AND state = 'ok' "
                "ORDER BY missing, id LIMIT 1",
                (track_id,),
            ).fetchone()
            if mine is None:
                return []
            folder = os.path.dirname(mine["path"])
            rows = db.execute(
                "SELECT track_id, path, artist FROM files WHERE album = ? AND state = 'ok' AND missing = 0 "
                "AND track_id <> ? ORDER BY path",
                (mine["album"], track_id),
            )
            same_artist = mine["album"] and mine["artist"]
            return [
                row["track_id"]
                for row in rows
                if os.path.dirname(row["path"]) == folder or (same_artist and row["artist"] == mine["artist"])
            ]

        return self._catalogue.tracks(list(dict.fromkeys(self._database.read(work))))

    def progress(self, who: str = "") -> ReviewProgress:
        """How far `who` is, or everybody together; what is left is left for all."""
        with self._comparing:
            flagged, said = self._current()
        left = [track_id for track_id in flagged.track.tolist() if track_id not in said.decided]

        def work(db: Connection) -> tuple[list[Row], float]:
            mine = "WHERE d.who = ?" if who else "WHERE 1"
            values = (who,) if who else ()
            rows = db.execute(
                "SELECT d.kind, d.genre, d.said_genre, d.said_confidence FROM in_force i "
                f"JOIN decisions d ON d.id = i.decision_id {mine} AND d.kind IN ('genre', 'not_music')",
                values,
            ).fetchall()
            seconds = db.execute(
                f"SELECT coalesce(sum(min(took_s, {MAX_SECONDS_A_DECISION})), 0.0) FROM decisions d {mine}", values
            ).fetchone()[0]
            return rows, seconds

        rows, seconds = self._database.read(work)
        of_genre = [row for row in rows if row["kind"] == "genre"]
        right = [row["genre"] == row["said_genre"] for row in of_genre]
        heard = [(row["said_confidence"], ok) for row, ok in zip(of_genre, right, strict=True) if row["said_genre"]]
        return ReviewProgress(
            n_left=len(left),
            n_decided=len(rows),
            n_skipped=sum(track_id in said.skipped for track_id in left),
            n_genre=len(of_genre),
            n_agreed=sum(right),
            minutes=seconds / 60.0,
            reliability=reliability(heard),
        )

    # --- what is known at present; the lock is held ---

    def _current(self) -> tuple[Flagged, Said]:
        key, said = self._database.read(lambda db: (key_of(db), said_of(db)))
        known = self._flagged
        if known is not None and known.key != key:
            waited_s = time.monotonic() - known.made_at
            if known.took_s < QUICK_S or waited_s > CALM * known.took_s:
                known = None
        if known is None:
            known = self._flagged = self._database.read(lambda db: compare(db, key))
        return known, said

    def _items(self, track_ids: Sequence[int], read: SegmentReader | None) -> list[ReviewItem]:
        known = self._flagged
        tracks = {track.id: track for track in self._catalogue.tracks(track_ids)}
        rows, said = self._database.read(lambda db: (_analyses(db, track_ids), said_of(db)))
        heard = {one.track_id: one for one in self._tracks.votes(track_ids)}
        neighbours = n_alike(known, said, track_ids) if known else {}
        return [
            _item(tracks[i], rows[i], heard[i], said, neighbours.get(i, 0), read)
            for i in track_ids
            if i in tracks and i in rows and i in heard
        ]


def reliability(answers: Iterable[tuple[float, bool]]) -> tuple[tuple[float, float, int], ...]:
    """(confidence, whether it was right) of songs -> (mean confidence, share right, n) by bins of equal mass, of rising
    confidence; none for no songs."""
    ordered = sorted(answers)
    if not ordered:
        return ()
    values = np.asarray(ordered, dtype=np.float64)
    bins = np.array_split(values, min(MAX_BINS, max(1, len(values) // BIN_MASS)))
    return tuple((float(b[:, 0].mean()), float(b[:, 1].mean()), len(b)) for b in bins)


# --- one song ---


def _analyses(db: Connection, track_ids: Sequence[int]) -> dict[int, Row]:
    statement = """
        SELECT a.track_id, a.n_segments, v.top_genre, v.confidence, v.agreement, v.review_reasons, v.probabilities,
            m.weights_digest
        FROM analyses a JOIN verdicts v ON v.analysis_id = a.id JOIN models m ON m.id = a.model_id
        WHERE a.track_id IN (SELECT value FROM json_each(?))
            AND a.id = (SELECT max(id) FROM analyses WHERE track_id = a.track_id)"""
    return {row["track_id"]: row for row in db.execute(statement, (json.dumps([int(i) for i in track_ids]),))}


def _item(
    track: Track, row: Row, heard: StoredVotes, said: Said, n_neighbours: int, read: SegmentReader | None
) -> ReviewItem:
    probabilities: dict[str, float] = json.loads(row["probabilities"])
    labels, by_segment = (read(row["weights_digest"], heard.votes) if read else None) or (
        tuple(probabilities)[: heard.votes.logits.shape[1]],
        softmax(heard.votes.logits),
    )
    best = by_segment.argmax(axis=1)
    doubt = [entropy_ratio(p) for p in by_segment]
    return ReviewItem(
        track=track,
        why=_why(row, probabilities, n_neighbours, again=track.id in said.skipped),
        listen_s=heard.start_s[int(np.argmax(doubt))],
        ranked=tuple(sorted(probabilities.items(), key=lambda pair: -pair[1])),
        segments=tuple(
            (start, end, labels[b], float(p[b]))
            for start, end, b, p in zip(heard.start_s, heard.end_s, best, by_segment, strict=True)
        ),
        n_neighbours=n_neighbours,
        in_force=said.decided.get(track.id, said.skipped.get(track.id)),
    )


def _why(row: Row, probabilities: dict[str, float], n_neighbours: int, *, again: bool) -> str:
    """One sentence: what the model is unsure of, and what else hangs on it."""
    reasons = set(json.loads(row["review_reasons"]))
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    parts = []
    if "SILENT" in reasons:
        parts.append("it is silent")
    if "NOT_MUSIC" in reasons:
        parts.append("it may be no music at all: the network hears speech, noise or other sounds")
    if "LOW_CONFIDENCE" in reasons:
        close = "SMALL_MARGIN" in reasons and len(ranked) > 1
        second = f", {ranked[1][0]} {_percent(ranked[1][1])}" if close else ""
        parts.append(f"no genre stands out: {row['top_genre']} has only {_percent(row['confidence'])}{second}")
    if "SEGMENTS_DISAGREE" in reasons:
        n = row["n_segments"]
        parts.append(f"only {round(row['agreement'] * n)} of its {n} segments say {row['top_genre']}")
    if "TRUNCATED" in reasons:
        parts.append("the file is cut short, so that only a part of it was heard")
    known = {"SILENT", "NOT_MUSIC", "LOW_CONFIDENCE", "SMALL_MARGIN", "SEGMENTS_DISAGREE", "TRUNCATED"}
    parts += [reason.replace("_", " ").lower() for reason in sorted(reasons - known)]
    if not parts:
        parts.append(f"the model is sure that it is {row['top_genre']} ({_percent(row['confidence'])})")
    if n_neighbours:
        one = n_neighbours == 1
        parts.append(f"{n_neighbours} other waiting song{'' if one else 's'} sound{'s' if one else ''} like it")
    if again:
        parts.append("you come back to it after it was skipped")
    words = "; ".join(parts) + "."
    return words[0].upper() + words[1:]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
