"""The library as its table asks for it: a page of tracks, sorted and filtered, the numbers over them, their embeddings.

A list is made in two steps: first which tracks, in which order, touching only the columns that the filter and the order
name; then all that is shown of the few on the page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kept import NOT_MUSIC, Column, LibraryStats, SongTags, Track, TrackFilter, TrackPage
from . import search

if TYPE_CHECKING:
    from .database import Connection, Database

N_BINS = 10  # of the confidence histogram

# What counts for a track `t`: its first file, its newest analysis, that one's reading, the decision in force.
_FILE = (
    "JOIN files f ON f.id = (SELECT id FROM files WHERE track_id = t.id AND state = 'ok' ORDER BY missing, id LIMIT 1)"
)
_ANALYSIS = "LEFT JOIN analyses a ON a.id = (SELECT max(id) FROM analyses WHERE track_id = t.id)"
_VERDICT = "LEFT JOIN verdicts v ON v.analysis_id = (SELECT max(id) FROM analyses WHERE track_id = t.id)"
_DECISION = (
    "LEFT JOIN in_force i ON i.track_id = t.id "
    "LEFT JOIN decisions d ON d.id = i.decision_id AND d.kind IN ('genre', 'not_music')"
)
_DECIDED = f"CASE d.kind WHEN 'not_music' THEN '{NOT_MUSIC}' ELSE d.genre END"
_GENRE = f"coalesce({_DECIDED}, v.top_genre, '')"
_HELD = "EXISTS (SELECT 1 FROM files WHERE track_id = t.id AND state = 'ok')"
_JOINS = {"files": _FILE, "verdicts": _VERDICT, "decisions": _DECISION}
# of the newest analysis, by an index alone: its row lies between blobs
_MODEL = "(SELECT model_id FROM analyses WHERE track_id = t.id ORDER BY id DESC LIMIT 1)"
_DURATION = "(SELECT duration_s FROM analyses WHERE track_id = t.id ORDER BY id DESC LIMIT 1)"

# The last part of a path: what is left after all that a folder's name may hold is stripped from the right.
_SEP = os.sep.replace("'", "''")
_BASENAME = f"substr(f.shown, length(rtrim(f.shown, replace(f.shown, '{_SEP}', ''))) + 1)"
_NAME = f"CASE f.title WHEN '' THEN {_BASENAME} ELSE f.title END"

# column -> (tables, what is sorted by, whether empty ones come last both ways)
_SORTS: dict[Column, tuple[set[str], str, str]] = {
    "title": ({"files"}, f"{_NAME} COLLATE NOCASE", ""),
    "artist": ({"files"}, "f.artist COLLATE NOCASE", "f.artist = ''"),
    "album": ({"files"}, "f.album COLLATE NOCASE", "f.album = ''"),
    "genre": ({"verdicts", "decisions"}, f"{_GENRE} COLLATE NOCASE", f"{_GENRE} = ''"),
    "confidence": ({"verdicts"}, "v.confidence", "v.confidence IS NULL"),
    "duration": (set(), _DURATION, f"{_DURATION} IS NULL"),
    "added": (set(), "t.added_at", ""),
    "path": ({"files"}, "f.path", ""),
}


class Catalogue:
    """Reads of `database`; it never writes. Any method may raise LibraryError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        what: TrackFilter | None = None,
        sort: Column = "added",
        descending: bool = True,
        offset: int = 0,
        limit: int = 50,
    ) -> TrackPage:
        """`limit` rows from `offset` on of what the filter leaves, and how many it leaves in all. With the flag
        "errors" the rows are files that could not be analysed."""
        what = what or TrackFilter()

        def work(db: Connection) -> TrackPage:
            if what.flag == "errors":
                return _failed(db, what, sort, descending, offset, limit)
            query, values = _matching(what, _SORTS[sort][0])
            statement = f"SELECT t.id {query} ORDER BY {_order(sort, descending)}"
            if what == TrackFilter():  # counting costs little then, and few of many need be sorted out
                n_total = db.execute(f"SELECT count(*) {_matching(what, set())[0]}").fetchone()[0]
                shown = [row[0] for row in db.execute(f"{statement} LIMIT ? OFFSET ?", (limit, offset))]
            else:
                ids = [row[0] for row in db.execute(statement, values)]
                n_total, shown = len(ids), ids[offset : offset + limit]
            return TrackPage(tuple(_details(db, shown, what.folder)), n_total)

        return self._database.read(work)

    def ids(self, what: TrackFilter | None = None, sort: Column = "added", descending: bool = True) -> list[int]:
        """All that the filter leaves, in the table's order; none for the flag "errors"."""
        what = what or TrackFilter()
        if what.flag == "errors":
            return []
        query, values = _matching(what, _SORTS[sort][0])
        statement = f"SELECT t.id {query} ORDER BY {_order(sort, descending)}"
        return self._database.read(lambda db: [row[0] for row in db.execute(statement, values)])

    def track(self, track_id: int) -> Track | None:
        """The track of this id, None where no file of the library holds it."""
        return next(iter(self.tracks([track_id])), None)

    def tracks(self, track_ids: Sequence[int]) -> list[Track]:
        """The tracks of these ids in this order; those that no file holds are left out."""
        return self._database.read(lambda db: _details(db, track_ids))

    def files(self, track_ids: Sequence[int], *, gone: bool = False) -> dict[int, tuple[bytes, ...]]:
        """All places where each of these contents lies now; with `gone` also those where a scan has missed it since,
        last."""
        statement = (
            "SELECT track_id, path FROM files WHERE track_id IN (SELECT value FROM json_each(?)) AND state = 'ok' "
            f"{'' if gone else 'AND missing = 0'} ORDER BY missing, id"
        )

        def work(db: Connection) -> dict[int, tuple[bytes, ...]]:
            found: dict[int, list[bytes]] = {}
            for track_id, path in db.execute(statement, (json.dumps(list(track_ids)),)):
                found.setdefault(track_id, []).append(path)
            return {track_id: tuple(paths) for track_id, paths in found.items()}

        return self._database.read(work)

    def folders(self) -> list[bytes]:
        """The folders that were scanned, without those that lie in another of them."""
        roots = self._database.read(lambda db: [row[0] for row in db.execute("SELECT DISTINCT root FROM scans")])
        spans = {root: _beginning(root) for root in roots}
        return sorted(
            root
            for root, (low, _) in spans.items()
            if not any(other[0] <= low < other[1] for holder, other in spans.items() if holder != root)
        )

    def stats(self, what: TrackFilter | None = None) -> LibraryStats:
        """The numbers over what the filter leaves; with the flag "errors" only the failed files are counted."""
        what = what or TrackFilter()
        return self._database.read(lambda db: _stats(db, what))

    def version(self) -> int:
        """Another number whenever something was written into the library, by whatever program; costs next to
        nothing."""
        return self._database.version()

    def newest_model(self) -> int | None:
        """The id of the model that spoke last; None while there is no analysis."""
        statement = "SELECT model_id FROM analyses ORDER BY id DESC LIMIT 1"
        row = self._database.read(lambda db: db.execute(statement).fetchone())
        return row[0] if row else None

    def embeddings(self, model_id: int | None = None, after: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Track ids (n,) int64 and embeddings (n, D) float16 of a model's analyses with an id above `after`, in the
        order in which they were made; without a `model_id` of the newest model. (0,) and (0, 0) where there are
        none."""
        model_id = self.newest_model() if model_id is None else model_id
        statement = "SELECT track_id, embedding FROM analyses WHERE model_id = ? AND id > ? ORDER BY id"
        rows = self._database.read(lambda db: [(r[0], r[1]) for r in db.execute(statement, (model_id, after))])
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float16)
        ids = np.array([track_id for track_id, _ in rows], np.int64)
        return ids, np.frombuffer(b"".join(blob for _, blob in rows), np.float16).reshape(len(rows), -1)

    def last_analysis(self) -> int:
        """The largest id of an analysis, 0 where there is none."""
        return self._database.read(lambda db: db.execute("SELECT coalesce(max(id), 0) FROM analyses").fetchone()[0])

    def genres(self, track_ids: Sequence[int] | None = None) -> dict[int, str]:
        """The genre that counts for each track that has one."""
        query, values = _matching(TrackFilter(ids=tuple(track_ids or ())), {"verdicts", "decisions"})
        return self._database.read(lambda db: dict(map(tuple, db.execute(f"SELECT t.id, {_GENRE} {query}", values))))


# --- which tracks, in which order ---


def _matching(what: TrackFilter, tables: set[str]) -> tuple[str, list[Any]]:
    """(FROM ... WHERE ..., values) of the tracks that the filter leaves, with at least these `tables` joined."""
    tables = set(tables)
    where: list[str] = []
    values: list[Any] = []

    def need(condition: str, *given: Any, of: tuple[str, ...] = ()) -> None:
        where.append(condition)
        values.extend(given)
        tables.update(of)

    if what.genre:
        need(f"{_GENRE} = ?", what.genre, of=("verdicts", "decisions"))
    if what.flag == "review":
        need("v.needs_review = 1 AND d.id IS NULL", of=("verdicts", "decisions"))
    elif what.flag == "decided":
        need("d.id IS NOT NULL", of=("decisions",))
    elif what.flag == "undecided":
        need("d.id IS NULL", of=("decisions",))
    elif what.flag == "duplicates":
        held = "SELECT track_id FROM files WHERE state = 'ok' AND missing = 0"
        need(f"t.id IN ({held} GROUP BY track_id HAVING count(*) > 1)")
    elif what.flag == "missing":
        need("NOT EXISTS (SELECT 1 FROM files WHERE track_id = t.id AND state = 'ok' AND missing = 0)")
    if what.min_confidence > 0.0:
        need("v.confidence >= ?", what.min_confidence, of=("verdicts",))
    if what.max_confidence < 1.0:
        need("v.confidence <= ?", what.max_confidence, of=("verdicts",))
    if what.model:
        need(f"{_MODEL} IN (SELECT id FROM models WHERE name = ?)", what.model)
    if what.ids:
        need("t.id IN (SELECT value FROM json_each(?))", json.dumps(what.ids))
    condition, given = _file_condition(what)
    if condition:
        need(f"t.id IN (SELECT track_id FROM files WHERE state = 'ok' AND {condition})", *given)
    if "files" not in tables:
        where.append(_HELD)
    joins = " ".join(join for table, join in _JOINS.items() if table in tables)
    return f"FROM tracks t {joins} WHERE {' AND '.join(where) or '1'}", values


def _file_condition(what: TrackFilter) -> tuple[str, list[Any]]:
    """What text and folder ask of one row of `files`; empty where they ask nothing."""
    conditions, values = search.conditions(what.text)
    if what.folder:
        low, high = _beginning(what.folder)
        conditions.append("path >= ? AND path < ?")
        values += [low, high]
    return " AND ".join(conditions), values


def _beginning(folder: bytes) -> tuple[bytes, bytes]:
    """All paths p inside `folder` have low <= p < high."""
    sep = os.fsencode(os.sep)
    low = folder.rstrip(sep) + sep
    return low, low[:-1] + bytes([low[-1] + 1])


def _order(sort: Column, descending: bool) -> str:
    _, by, empty = _SORTS[sort]
    way = "DESC" if descending else "ASC"
    return f"{empty + ', ' if empty else ''}{by} {way}, t.id {way}"


# --- what is shown of them ---


def _details(db: Connection, track_ids: Sequence[int], folder: bytes = b"") -> list[Track]:
    """In this order; of several files the one in `folder` is named first."""
    low, high = _beginning(folder) if folder else (b"", b"")
    first = (
        "SELECT id FROM files WHERE track_id = t.id AND state = 'ok' "
        "ORDER BY (path >= :low AND path < :high) DESC, missing, id LIMIT 1"
    )
    statement = f"""
        SELECT t.id, t.added_at, f.path, f.title, f.artist, f.album, f.year, f.genres, f.missing, a.duration_s,
            v.top_genre, v.confidence, v.uncertainty, v.needs_review, v.review_reasons, v.prediction_set, v.personal,
            m.name AS model, {_DECIDED} AS decided,
            (SELECT count(*) FROM files WHERE track_id = t.id AND state = 'ok' AND missing = 0) AS n_files
        FROM tracks t JOIN files f ON f.id = ({first}) {_ANALYSIS}
        LEFT JOIN verdicts v ON v.analysis_id = a.id LEFT JOIN models m ON m.id = a.model_id {_DECISION}
        WHERE t.id IN (SELECT value FROM json_each(:ids))"""
    wanted = [int(track_id) for track_id in track_ids]
    rows = db.execute(statement, {"low": low, "high": high, "ids": json.dumps(wanted)})
    found = {row["id"]: _track(row) for row in rows}
    return [found[track_id] for track_id in wanted if track_id in found]


def _track(row: Any) -> Track:
    return Track(
        id=row["id"],
        path=row["path"],
        n_files=row["n_files"],
        tags=_tags(row),
        duration_s=row["duration_s"] or 0.0,
        top_genre=row["top_genre"] or "",
        confidence=row["confidence"] or 0.0,
        uncertainty=row["uncertainty"] or 0.0,
        needs_review=bool(row["needs_review"]) and row["decided"] is None,
        review_reasons=tuple(json.loads(row["review_reasons"] or "[]")),
        prediction_set=tuple(json.loads(row["prediction_set"] or "[]")),
        decided=row["decided"],
        model=row["model"] or "",
        personal=row["personal"] or "",
        missing=bool(row["missing"]),
        added_at=row["added_at"],
    )


def _tags(row: Any) -> SongTags:
    return SongTags(row["title"], row["artist"], row["album"], row["year"], tuple(json.loads(row["genres"])))


def _failed(db: Connection, what: TrackFilter, sort: Column, descending: bool, offset: int, limit: int) -> TrackPage:
    """Files that could not be analysed, by path or (any other order) by when they were first seen."""
    condition, values = _file_condition(what)
    query = f"FROM files f WHERE state = 'error' AND missing = 0{' AND ' + condition if condition else ''}"
    n_total = db.execute(f"SELECT count(*) {query}", values).fetchone()[0]
    by = "path" if sort in ("path", "title") else "id"
    columns = "path, title, artist, album, year, genres, missing, error_code, error_message, error_hint"
    rows = db.execute(
        f"SELECT {columns} {query} ORDER BY {by} {'DESC' if descending else 'ASC'} LIMIT ? OFFSET ?",
        (*values, limit, offset),
    )
    tracks = [
        Track(
            id=0,
            path=row["path"],
            tags=_tags(row),
            missing=bool(row["missing"]),
            error={
                "code": row["error_code"],
                "message": row["error_message"] or "",
                "hint": row["error_hint"] or "",
            },
        )
        for row in rows
    ]
    return TrackPage(tuple(tracks), n_total)


# --- the numbers over them ---


def _stats(db: Connection, what: TrackFilter) -> LibraryStats:
    condition, values = _file_condition(what)
    n_errors = db.execute(
        f"SELECT count(*) FROM files WHERE state = 'error' AND missing = 0{' AND ' + condition if condition else ''}",
        values,
    ).fetchone()[0]
    if what.flag == "errors":
        return LibraryStats(0, 0, n_errors, 0, 0, 0, 0.0, confidence=(0,) * N_BINS)
    query, values = _matching(what, {"verdicts", "decisions"})
    chosen = f"""
        WITH chosen AS MATERIALIZED (
            SELECT t.id, {_GENRE} AS genre, v.confidence, v.needs_review, d.id IS NOT NULL AS decided,
                {_DURATION} AS duration_s, {_MODEL} AS model_id,
                (SELECT count(*) FROM files WHERE track_id = t.id AND state = 'ok' AND missing = 0) AS n_files
            {query})"""
    statement = f"""{chosen}
        SELECT 'all' AS what, count(*) AS n, '' AS name, coalesce(sum(n_files), 0) AS n_files,
            coalesce(sum(needs_review AND NOT decided), 0) AS n_review, coalesce(sum(decided), 0) AS n_decided,
            coalesce(sum(n_files > 1), 0) AS n_duplicates, coalesce(sum(duration_s), 0.0) / 3600 AS hours
            FROM chosen
        UNION ALL SELECT 'genre', count(*), genre, 0, 0, 0, 0, 0 FROM chosen WHERE genre <> '' GROUP BY genre
        UNION ALL SELECT 'bin', count(*), min(CAST(confidence * {N_BINS} AS INTEGER), {N_BINS - 1}) AS bin, 0, 0, 0, 0,
            0 FROM chosen WHERE confidence IS NOT NULL GROUP BY bin
        UNION ALL SELECT 'model', count(*), m.name, 0, 0, 0, 0, 0 FROM chosen JOIN models m ON m.id = model_id
            GROUP BY m.name"""
    rows = db.execute(statement, values).fetchall()
    total = next(row for row in rows if row["what"] == "all")
    bins = {int(row["name"]): row["n"] for row in rows if row["what"] == "bin"}
    return LibraryStats(
        n_tracks=total["n"],
        n_files=total["n_files"],
        n_errors=n_errors,
        n_review=total["n_review"],
        n_decided=total["n_decided"],
        n_duplicates=total["n_duplicates"],
        hours=total["hours"],
        genres=_counted(rows, "genre"),
        confidence=tuple(bins.get(i, 0) for i in range(N_BINS)),
        models=_counted(rows, "model"),
    )


def _counted(rows: Sequence[Any], what: str) -> tuple[tuple[str, int], ...]:
    """(name, n), commonest first."""
    return tuple(sorted(((r["name"], r["n"]) for r in rows if r["what"] == what), key=lambda pair: (-pair[1], pair[0])))
