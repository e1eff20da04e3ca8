"""What a scan writes, and what is read back of it: files, their contents, what a network said of each.

Each file that was met has one row, which is its terminal state: `ok`, or `error` with the error. A content (a track) is
known by its digest, however many files hold it, and is analysed once by each model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kept import FileRecord, shown_path
from ..records import Analysis, AudioWarning, Descriptors, Failure, Verdict, Votes, printable
from .database import now
from .lineage import also, track_of

if TYPE_CHECKING:
    from .database import Connection, Database, Row

AGAIN = ("STORAGE", "STOPPED", "INTERNAL", "BACKEND")
"""errors that say nothing about the file's content: the next scan tries again though the file is unchanged"""
BOUNDED = ("TOO_SHORT", "TOO_LONG", "TOO_LARGE", "BAD_PARAMS", "POISON")
"""errors by bounds that a person sets: a scan with other ones tries again"""
SAME_DURATION_S = 0.05
SAME_LOGITS = 0.25
"""what two analyses of one sound differ by at most, each by the backend that was the fastest then; two songs of one
length differ by much more in some segment"""
AT_ONCE = 500
"""rows that one statement or transaction takes"""


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a file. `done`: as long as size and mtime stay, this model has no more to say of it."""

    n_bytes: int
    mtime_ns: int
    done: bool
    missing: bool = False


@dataclass(frozen=True, slots=True)
class StoredVotes:
    """The votes of an analysis as they are kept: tags and embeddings with half precision. `descriptors` are there where
    rules were on, and are what they went by."""

    analysis_id: int
    track_id: int
    votes: Votes
    warnings: tuple[AudioWarning, ...]
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    descriptors: Descriptors | None = None


Judge = Callable[[Sequence[StoredVotes]], Sequence[Verdict]]
"""how the votes of some songs are read, all at once because that is much faster; one verdict for each, in order"""


class Tracks:
    """The tables models, scans, tracks, files, analyses and verdicts of a library. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- scans ---

    def model_id(self, name: str, weights_digest: str, settings: dict[str, Any]) -> int:
        """The row of a model with the settings that change what it says; made where there is none."""
        key = (weights_digest, json.dumps(settings, sort_keys=True))

        def find(connection: Connection) -> int | None:
            row = connection.execute("SELECT id FROM models WHERE weights_digest = ? AND settings = ?", key).fetchone()
            return row["id"] if row else None

        def make(connection: Connection) -> int:
            found = find(connection)
            if found is not None:
                return found
            sql = "INSERT INTO models (weights_digest, settings, name) VALUES (?, ?, ?)"
            return int(connection.execute(sql, (*key, name)).lastrowid or 0)

        found = self._database.read(find)
        return self._database.write(make) if found is None else found

    def models(self, weights_digest: str) -> list[int]:
        """The rows of the model of these weights, the latest first: one for each way in which it was asked."""
        sql = "SELECT id FROM models WHERE weights_digest = ? ORDER BY id DESC"
        return [row[0] for row in self._rows(sql, (weights_digest,))]

    def begin_scan(self, root: bytes, engine: str, model_id: int, bounds: str = "") -> int:
        """A new running scan, which holds files to `bounds` (any text that tells them apart). What still stands as
        running is marked failed: its process is dead, because no two scans run at a time (see `scan.alone`)."""

        def work(connection: Connection) -> int:
            connection.execute("UPDATE scans SET state = 'failed', finished_at = ? WHERE state = 'running'", (now(),))
            sql = """INSERT INTO scans (root, engine, model_id, started_at, state, bounds)
                VALUES (?, ?, ?, ?, 'running', ?)"""
            return int(connection.execute(sql, (root, engine, model_id, now(), bounds)).lastrowid or 0)

        return self._database.write(work)

    def end_scan(self, scan_id: int, state: str) -> None:
        """`state` is "done", "cancelled" or "failed"."""

        def work(connection: Connection) -> None:
            connection.execute("UPDATE scans SET state = ?, finished_at = ? WHERE id = ?", (state, now(), scan_id))

        self._database.write(work)

    # --- files ---

    def known(self, paths: Sequence[bytes], model_id: int, scan_id: int | None = None) -> dict[bytes, Known]:
        """What is kept of those of the files that were met before. With a `scan_id`, a file that failed by bounds which
        that scan does not share is not done."""
        found: dict[bytes, Known] = {}

        def work(connection: Connection) -> None:
            for part in _parts(paths):
                sql = f"""
                    SELECT f.path, f.n_bytes, f.mtime_ns, f.missing, f.state, f.error_code, EXISTS (
                            SELECT 1 FROM analyses WHERE track_id = f.track_id AND model_id = ?) AS analysed,
                        coalesce(s.bounds = (SELECT bounds FROM scans WHERE id = ?), 1) AS as_bound
                    FROM files f JOIN scans s ON s.id = f.scan_id WHERE f.path IN ({_marks(part)})"""
                for row in connection.execute(sql, (model_id, scan_id, *part)):
                    failed = row["error_code"]
                    told = failed not in AGAIN and (failed not in BOUNDED or row["as_bound"])
                    done = row["analysed"] if row["state"] == "ok" else told
                    found[row["path"]] = Known(row["n_bytes"], row["mtime_ns"], bool(done), bool(row["missing"]))

        self._database.read(work)
        return found

    def analysed(self, digest: str, model_id: int) -> bool:
        """Whether this model has analysed this content, in whatever file it lay and with whatever tags of ours."""
        sql = "SELECT 1 FROM analyses WHERE track_id = ? AND model_id = ?"
        return self._database.read(lambda c: c.execute(sql, (track_of(c, digest), model_id)).fetchone() is not None)

    def record(self, scan_id: int, model_id: int, records: Sequence[FileRecord]) -> None:
        """Keep the terminal records of files, all in one transaction. A content that this model has analysed already
        keeps that analysis; `result` None says that it has."""

        def work(connection: Connection) -> None:
            for record in records:
                _keep_file(connection, scan_id, record, _keep_track(connection, model_id, record))

        self._database.write(work)

    def found_again(self, paths: Sequence[bytes], scan_id: int) -> None:
        """Files that were missing are there, unchanged."""
        self._set_missing(paths, 0, scan_id)

    def mark_missing(self, root: bytes, is_gone: Callable[[bytes], bool]) -> int:
        """Mark the files at or below the folder `root` (or the file of this name) that `is_gone`; returns how many."""
        after, n = b"", 0
        low, high = _below(root)
        while True:
            sql = """
                SELECT path FROM files WHERE (path = ? OR path > ? AND path < ?) AND path > ? AND NOT missing
                ORDER BY path LIMIT ?"""
            args = (root, low, high, after, AT_ONCE)
            paths = [row["path"] for row in self._rows(sql, args)]
            if not paths:
                return n
            gone = [path for path in paths if is_gone(path)]
            if gone:
                self._set_missing(gone, 1, None)
            n, after = n + len(gone), paths[-1]

    def errors(self, root: bytes, limit: int = 20) -> tuple[dict[str, int], list[tuple[bytes, str, str]]]:
        """Of the files at or below `root` that could not be analysed: how many by error code, and of the first of them
        (path, code, message)."""
        where = "FROM files WHERE (path = ? OR path > ? AND path < ?) AND state = 'error' AND NOT missing"
        place = (root, *_below(root))
        counts = self._rows(f"SELECT error_code, count(*) AS n {where} GROUP BY error_code ORDER BY n DESC", place)
        first = self._rows(f"SELECT path, error_code, error_message {where} ORDER BY path LIMIT ?", (*place, limit))
        return {row["error_code"]: row["n"] for row in counts}, [tuple(row) for row in first]

    def _rows(self, sql: str, args: Sequence[Any]) -> list[Row]:
        return self._database.read(lambda connection: connection.execute(sql, args).fetchall())

    def _set_missing(self, paths: Sequence[bytes], missing: int, scan_id: int | None) -> None:
        def work(connection: Connection) -> None:
            for part in _parts(paths):
                connection.execute(
                    f"UPDATE files SET missing = ?, scan_id = coalesce(?, scan_id) WHERE path IN ({_marks(part)})",
                    (missing, scan_id, *part),
                )

        self._database.write(work)

    # --- analyses ---

    def votes(self, track_ids: Sequence[int], model_id: int | None = None) -> Iterator[StoredVotes]:
        """The kept votes of the tracks, of this model or (None) of their newest analysis; in chunks, so that a whole
        library does not stand in memory. The order is not the one asked for."""
        newest = "a.id = (SELECT max(id) FROM analyses WHERE track_id = a.track_id)"
        wanted = newest if model_id is None else "a.model_id = ?"
        for part in _parts(track_ids):
            sql = f"SELECT a.* FROM analyses a WHERE a.track_id IN ({_marks(part)}) AND {wanted}"
            args = (*part, *(() if model_id is None else (model_id,)))
            for row in self._rows(sql, args):
                yield _stored(row)

    def is_behind(self, model_id: int, personal: str) -> bool:
        """Whether an analysis of this model is read otherwise than by this version."""
        sql = """SELECT EXISTS (SELECT 1 FROM analyses a LEFT JOIN verdicts v ON v.analysis_id = a.id
            WHERE a.model_id = ? AND v.personal IS NOT ?)"""
        return bool(self._rows(sql, (model_id, personal))[0][0])

    def reread(
        self,
        judge: Judge,
        personal: str,
        model_id: int,
        on_progress: Callable[[int, int], None] = lambda done, n: None,
    ) -> int:
        """Read all kept votes of a model anew (a person taught something, or took it back) and keep the verdicts;
        returns how many. `personal` is the version that `judge` reads with, "" the model alone."""
        count = "SELECT count(*) FROM analyses WHERE model_id = ?"
        n = int(self._database.read(lambda c: c.execute(count, (model_id,)).fetchone()[0]))
        done, after = 0, 0
        while True:
            sql = "SELECT * FROM analyses WHERE model_id = ? AND id > ? ORDER BY id LIMIT ?"
            args = (model_id, after, AT_ONCE)
            rows = self._rows(sql, args)
            if not rows:
                return done
            stored = [_stored(row) for row in rows]
            verdicts = [(one.analysis_id, verdict) for one, verdict in zip(stored, judge(stored), strict=True)]

            def work(connection: Connection, verdicts: list[tuple[int, Verdict]] = verdicts) -> None:
                for analysis_id, verdict in verdicts:
                    _keep_verdict(connection, analysis_id, verdict, personal)

            self._database.write(work)
            done, after = done + len(rows), rows[-1]["id"]
            on_progress(done, n)


def _below(folder: bytes) -> tuple[bytes, bytes]:
    """The paths below a folder lie between these two."""
    separator = os.fsencode(os.sep)
    start = folder.rstrip(separator)
    return start + separator, start + bytes([separator[0] + 1])


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


def _marks(items: Sequence[Any]) -> str:
    return ",".join("?" * len(items))


def _keep_track(connection: Connection, model_id: int, record: FileRecord) -> int | None:
    """The track of what was analysed, made where it is new, with its analysis; None for a file that was not."""
    if isinstance(record.result, Failure) or record.digest is None:
        return None
    track_id = track_of(connection, record.digest)
    if track_id is None and record.result is not None:
        track_id = _same_sound(connection, model_id, record.path, record.result)
        if track_id is not None:
            also(connection, track_id, [record.digest])
    if track_id is None:
        sql = "INSERT INTO tracks (digest, n_bytes, added_at) VALUES (?, ?, ?)"
        track_id = int(connection.execute(sql, (record.digest, record.n_bytes, now())).lastrowid or 0)
    if record.result is not None:
        _keep_analysis(connection, track_id, model_id, record.result)
    return track_id


def _same_sound(connection: Connection, model_id: int, path: bytes, analysis: Analysis) -> int | None:
    """The track that lay at `path` when it could be read last, where this model heard in it what it hears now: another
    program wrote its tags, and whatever a person decided of the song stands."""
    sql = """SELECT a.* FROM files AS f JOIN analyses AS a ON a.track_id = f.track_id
        WHERE f.path = ? AND a.model_id = ?"""
    row = connection.execute(sql, (path, model_id)).fetchone()
    if row is None or analysis.votes is None:
        return None
    before = (row["duration_s"], _stored(row).votes.logits)
    return int(row["track_id"]) if _alike(before, (analysis.duration_s, analysis.votes.logits)) else None


def sounds_otherwise(connection: Connection, one: int, other: int) -> bool:
    """Whether a model has heard both tracks, and not the same in them."""
    sql = """SELECT a.* FROM analyses AS a WHERE a.track_id = ?
        AND a.model_id IN (SELECT model_id FROM analyses WHERE track_id = ?) ORDER BY a.model_id"""
    pairs = zip(
        connection.execute(sql, (one, other)).fetchall(), connection.execute(sql, (other, one)).fetchall(), strict=True
    )
    heard = ([(row["duration_s"], _stored(row).votes.logits) for row in pair] for pair in pairs)
    return any(not _alike(*both) for both in heard)


def _alike(one: tuple[float, np.ndarray], other: tuple[float, np.ndarray]) -> bool:
    """Whether two analyses (duration in s, logits) by one model are of the same sound."""
    (duration_s, logits), (other_s, other_logits) = one, other
    if abs(duration_s - other_s) > SAME_DURATION_S or logits.shape != other_logits.shape:
        return False
    return bool(np.abs(logits - other_logits).max() < SAME_LOGITS)


def _keep_analysis(connection: Connection, track_id: int, model_id: int, analysis: Analysis) -> None:
    votes = analysis.votes
    assert votes is not None  # the engine's analyses always carry them
    done = connection.execute(
        """INSERT INTO analyses (track_id, model_id, made_at, duration_s, analyzed_s, n_segments, places, logits,
            tag_logits, embeddings, embedding, warnings, descriptors)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (track_id, model_id) DO NOTHING""",
        (
            *(track_id, model_id, now(), analysis.duration_s, analysis.analyzed_s, len(votes)),
            np.array([analysis.start_s, analysis.end_s], "<f8").tobytes(),
            votes.logits.astype("<f4").tobytes(),
            votes.tag_logits.astype("<f2").tobytes(),
            votes.embeddings.astype("<f2").tobytes(),
            analysis.embedding.astype("<f2").tobytes(),
            json.dumps([warning.to_dict() for warning in analysis.warnings]),
            json.dumps(analysis.descriptors.to_dict()) if analysis.descriptors is not None else None,
        ),
    )
    if done.rowcount:
        _keep_verdict(connection, int(done.lastrowid or 0), analysis.verdict, analysis.personal or "")


def _keep_verdict(connection: Connection, analysis_id: int, verdict: Verdict, personal: str) -> None:
    connection.execute(
        """INSERT OR REPLACE INTO verdicts (analysis_id, personal, top_genre, confidence, margin, uncertainty,
            agreement, needs_review, review_reasons, prediction_set, probabilities)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            *(analysis_id, personal, verdict.top_genre, min(1.0, verdict.top_confidence), verdict.margin),
            *(verdict.uncertainty, verdict.agreement, int(verdict.needs_review)),
            *(json.dumps(verdict.review_reasons), json.dumps(verdict.prediction_set, ensure_ascii=False)),
            json.dumps(
                {label: float(p) for label, p in zip(verdict.labels, verdict.probabilities, strict=True)},
                ensure_ascii=False,
            ),
        ),
    )


def _keep_file(connection: Connection, scan_id: int, record: FileRecord, track_id: int | None) -> None:
    """A file that cannot be read now keeps its track: it may be the same song when it can be read again."""
    failed = record.result.error if isinstance(record.result, Failure) else None
    error = [printable(failed[key]) for key in ("code", "message", "hint")] if failed else [None, None, None]
    tags = record.tags
    connection.execute(
        """INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, error_code, error_message, error_hint,
            missing, scan_id, title, artist, album, year, genres)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (path) DO UPDATE SET shown = excluded.shown,
            track_id = coalesce(excluded.track_id, files.track_id),
            n_bytes = excluded.n_bytes, mtime_ns = excluded.mtime_ns, state = excluded.state,
            error_code = excluded.error_code, error_message = excluded.error_message,
            error_hint = excluded.error_hint, missing = 0, scan_id = excluded.scan_id, title = excluded.title,
            artist = excluded.artist, album = excluded.album, year = excluded.year, genres = excluded.genres""",
        (
            *(record.path, shown_path(record.path), track_id, record.n_bytes, record.mtime_ns),
            *("error" if failed else "ok", *error, scan_id),
            *(printable(text) for text in (tags.title, tags.artist, tags.album, tags.year)),
            json.dumps([printable(genre) for genre in tags.genres], ensure_ascii=False),
        ),
    )


def _stored(row: Row) -> StoredVotes:
    k = row["n_segments"]

    def rows_of(column: str, dtype: str) -> np.ndarray:
        return np.frombuffer(row[column], dtype).reshape(k, -1).astype(np.float32)

    start_s, end_s = np.frombuffer(row["places"], "<f8").reshape(2, k)
    return StoredVotes(
        analysis_id=row["id"],
        track_id=row["track_id"],
        votes=Votes(rows_of("logits", "<f4"), rows_of("tag_logits", "<f2"), rows_of("embeddings", "<f2")),
        warnings=tuple(AudioWarning(**warning) for warning in json.loads(row["warnings"])),
        start_s=tuple(float(s) for s in start_s),
        end_s=tuple(float(s) for s in end_s),
        descriptors=Descriptors(**json.loads(row["descriptors"])) if row["descriptors"] is not None else None,
    )
