"""The rows of the journal of tags, and what the library knows of a file, in step with what was written into it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .database import Connection, Database, now
from .lineage import also, track_of
from .rewriting import Original
from .tag_plan import Change, Policy
from .tracks import sounds_otherwise

ELSEWHERE = "ELSEWHERE"
"""error_code of a row in the state 'written' whose file was not to be found: another song lies in its place"""
UNDOING = "UNDOING"
"""error_code of a row in the state 'written' whose undo has begun"""

_COLUMNS = (
    "id, batch_id, path, state, genres_before, genres_after, digest_before, digest_after, mtime_ns_before, "  # all but
    "error_message"  # kept, which may be large
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of `apply`, as the list of them shows it; of its files some are written, undone, or failed."""

    id: int
    made_at: str
    policy: Mapping[str, Any]
    n_written: int
    n_undone: int
    n_failed: int


@dataclass(frozen=True, slots=True)
class Row:
    """What was planned for one file, and what became of it."""

    id: int
    batch_id: int
    path: bytes
    state: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    digest_before: str
    digest_after: str | None
    mtime_ns_before: int
    error_message: str


class TagRows:
    """The tables tag_batches and tag_writes of `database`. Any method may raise LibraryError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def batches(self) -> list[Batch]:
        """All batches, the newest first."""

        def work(connection: Connection) -> list[Batch]:
            rows = connection.execute(
                """
                SELECT b.id, b.made_at, b.policy, count(w.id) FILTER (WHERE w.state = 'written') AS n_written,
                    count(w.id) FILTER (WHERE w.state = 'undone') AS n_undone,
                    count(w.id) FILTER (WHERE w.state IN ('failed', 'planned')) AS n_failed
                FROM tag_batches b LEFT JOIN tag_writes w ON w.batch_id = b.id GROUP BY b.id ORDER BY b.id DESC
                """
            )
            return [Batch(r[0], r[1], json.loads(r[2]), r[3], r[4], r[5]) for r in rows]

        return self._database.read(work)

    def where(self, condition: str, *values: Any) -> list[Row]:
        query = f"SELECT {_COLUMNS} FROM tag_writes WHERE {condition}"
        return [_row(row) for row in self._database.read(lambda c: c.execute(query, values).fetchall())]

    def kept(self, row: int) -> bytes | None:
        """The patch that brings the old bytes back; None where none was kept."""
        query = "SELECT kept FROM tag_writes WHERE id = ?"
        found: bytes | None = self._database.read(lambda c: c.execute(query, (row,)).fetchone()[0])
        return found

    def ours(self, paths: Sequence[bytes]) -> dict[bytes, tuple[str, ...]]:
        """What we wrote last into each of `paths` and did not take back, there or where the song lay then."""
        marks = ",".join("?" * len(paths))
        rows = self.where(f"state = 'written' AND path IN ({marks}) ORDER BY id", *paths)
        moved = f"""SELECT f.path, w.genres_after FROM files AS f JOIN tracks AS t ON t.id = f.track_id
            JOIN tag_writes AS w ON w.digest_after = t.digest AND w.state = 'written'
            WHERE f.path IN ({marks}) ORDER BY w.id"""
        found = self._database.read(lambda c: c.execute(moved, tuple(paths)).fetchall())
        return {row[0]: tuple(json.loads(row[1])) for row in found} | {row.path: row.after for row in rows}

    def moved_to(self, row: Row) -> list[bytes]:
        """Where the scans found the song of this write since, but for places where its batch wrote the same content
        itself."""
        sql = """SELECT path FROM files AS f WHERE track_id = ? AND state = 'ok' AND missing = 0 AND path <> ?
            AND NOT EXISTS (SELECT 1 FROM tag_writes WHERE batch_id = ? AND path = f.path AND digest_after IS ?)
            ORDER BY path"""

        def work(connection: Connection) -> list[bytes]:
            track_id = track_of(connection, row.digest_after or "")
            args = (track_id, row.path, row.batch_id, row.digest_after)
            return [found[0] for found in connection.execute(sql, args)]

        return self._database.read(work)

    def lies_elsewhere(self, row: Row) -> bool:
        """Whether a scan has found another song in the place of the one that was written."""

        def work(connection: Connection) -> bool:
            own = _tracks_of(connection, row)
            found = connection.execute("SELECT track_id FROM files WHERE path = ? AND state = 'ok'", (row.path,))
            return bool(own) and any(track_id not in own for (track_id,) in found)

        return self._database.read(work)

    def is_of_another(self, digest: str, row: Row) -> bool:
        """Whether the library knows this content as surely another song than the one that was written: it knew it
        before the batch was made, or one model has heard both, and not the same. What came later and sounds alike, or
        was heard by another model only, may be the song itself with tags that another program wrote."""
        older = """SELECT t.added_at < b.made_at FROM tracks AS t, tag_batches AS b WHERE t.id = ? AND b.id = ?"""

        def work(connection: Connection) -> bool:
            found, own = track_of(connection, digest), _tracks_of(connection, row)
            if found is None or not own or found in own:
                return False
            is_older = connection.execute(older, (found, row.batch_id)).fetchone()
            return bool(is_older and is_older[0]) or any(sounds_otherwise(connection, found, one) for one in own)

        return self._database.read(work)

    def new_batch(self, policy: Policy) -> int:
        values = now(), policy.to_json()
        return self._insert("INSERT INTO tag_batches (made_at, policy) VALUES (?, ?)", values)

    def insert(self, batch_id: int, change: Change, original: Original) -> int:
        """A row in the state 'planned'; its id."""
        values = (
            batch_id,
            change.path,
            _list(change.before),
            _list(change.after),
            original.digest,
            original.status.st_mtime_ns,
        )
        return self._insert(
            "INSERT INTO tag_writes (batch_id, path, state, genres_before, genres_after, digest_before, "
            "mtime_ns_before) VALUES (?, ?, 'planned', ?, ?, ?, ?)",
            values,
        )

    def set(self, row: int, **columns: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        values = (*columns.values(), row)
        self._database.write(lambda c: c.execute(f"UPDATE tag_writes SET {names} WHERE id = ?", values))

    def move(self, row: int, path: bytes) -> None:
        """Remember where the file of a row is now; where another of its batch stood there before, that keeps its place
        in the journal."""
        statement = "UPDATE OR IGNORE tag_writes SET path = ? WHERE id = ?"
        self._database.write(lambda c: c.execute(statement, (path, row)))

    def settle(self, row: int, found: Original, digest: str, state: str, genres: Sequence[str]) -> None:
        """The row's last word, and what the library knows of the file that was `found` and has now `digest` and
        `genres`, in one transaction. Once nothing of ours stands in the file, what was kept of it is let go."""
        try:
            status = os.stat(found.real)
        except OSError:  # gone in this moment
            status = found.status

        def work(connection: Connection) -> None:
            connection.execute(
                "UPDATE tag_writes SET state = ?, error_code = NULL, error_message = NULL, "
                "kept = CASE ? WHEN 'written' THEN kept END WHERE id = ?",
                (state, state, row),
            )
            song = track_of(connection, found.digest)
            _follow(connection, found, digest, status, genres)
            if song is not None:  # the new bytes may be none that were ever written or scanned
                also(connection, song, [digest])

        self._database.write(work)

    def _insert(self, statement: str, values: Sequence[Any]) -> int:
        return self._database.write(lambda c: int(c.execute(statement, values).lastrowid or 0))


def _tracks_of(connection: Connection, row: Row) -> set[int]:
    """The song of a row, by what its file was and what it became; two where a copy of either was known before."""
    found = {track_of(connection, digest) for digest in (row.digest_before, row.digest_after) if digest}
    return {track_id for track_id in found if track_id is not None}


def _follow(
    connection: Connection, found: Original, digest: str, status: os.stat_result, genres: Sequence[str]
) -> None:
    """Let the library know the file as it is now, where it knew it as it was `found`: so a scan passes it over. The
    track's content becomes `digest` once all its files have that, so that a scan knows the track again."""
    paths = tuple({found.path, found.real})
    marks = ",".join("?" * len(paths))
    connection.execute(
        f"UPDATE files SET n_bytes = ?, mtime_ns = ?, genres = ? "
        f"WHERE path IN ({marks}) AND state = 'ok' AND n_bytes = ? AND mtime_ns = ?",
        (
            status.st_size,
            status.st_mtime_ns,
            _list(genres),
            *paths,
            found.status.st_size,
            found.status.st_mtime_ns,
        ),
    )
    connection.execute(
        f"""
        UPDATE OR IGNORE tracks SET digest = ?, n_bytes = ?
        WHERE digest = ? AND id IN (SELECT track_id FROM files WHERE path IN ({marks})) AND NOT EXISTS (
            SELECT 1 FROM files f WHERE f.track_id = tracks.id AND f.state = 'ok' AND f.missing = 0
                AND f.path NOT IN ({marks})
                AND ? IS NOT (
                    SELECT CASE state WHEN 'written' THEN digest_after ELSE digest_before END FROM tag_writes
                    WHERE path = f.path AND state IN ('written', 'undone') ORDER BY id DESC LIMIT 1
                )
        )
        """,
        (digest, status.st_size, found.digest, *paths, *paths, digest),
    )


def _row(row: Any) -> Row:
    before, after = (tuple(json.loads(row[f"genres_{which}"])) for which in ("before", "after"))
    return Row(
        row["id"],
        row["batch_id"],
        row["path"],
        row["state"],
        before,
        after,
        row["digest_before"],
        row["digest_after"],
        row["mtime_ns_before"],
        row["error_message"] or "it was not written",
    )


def _list(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
