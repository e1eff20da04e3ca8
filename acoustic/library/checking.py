"""What a library holds, in numbers, and whether it is sound."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import LibraryError
from ..kept import shown_path
from .database import SQLITE_VERSION, Connection, Database
from .decisions import STANDS, counting

MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Status:
    """The library in numbers. `n_waiting` songs are flagged for review and nobody decided them; `last_scan` is empty
    where there was none."""

    path: str
    n_bytes: int
    n_songs: int
    n_files: int
    n_missing: int
    n_errors: int
    n_analysed: int
    n_waiting: int
    n_decided: int
    n_skipped: int
    n_history: int
    last_scan: str
    schema: str
    sqlite: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def status(database: Database) -> Status:
    """Counted in one snapshot."""
    return database.read(lambda connection: _status(database, connection))


def check(database: Database) -> list[str]:
    """What is wrong with the library, a sentence each; empty where nothing is. Reads all of it; writes nothing."""
    problems: list[str] = []
    for look in (_damage, _foreign_keys, _in_force, _search):
        try:
            problems += database.read(look)
        except LibraryError as error:  # damage that ends the look itself
            problems.append(error.message)
    try:
        database.write(lambda connection: connection.execute("INSERT INTO search (search) VALUES ('integrity-check')"))
    except LibraryError as error:
        problems.append(f"the search index: {error.message}")
    return problems


def _status(database: Database, connection: Connection) -> Status:
    def count(sql: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {sql}").fetchone()[0])

    scan = connection.execute("SELECT root, started_at, state FROM scans ORDER BY id DESC LIMIT 1").fetchone()
    in_force = "in_force AS f JOIN decisions AS d ON d.id = f.decision_id"
    return Status(
        path=shown_path(bytes(database.path)),
        n_bytes=database.path.stat().st_size,
        n_songs=count("tracks AS t WHERE EXISTS (SELECT 1 FROM files WHERE track_id = t.id AND state = 'ok')"),
        n_files=count("files"),
        n_missing=count("files WHERE missing = 1"),
        n_errors=count("files WHERE state = 'error' AND missing = 0"),
        n_analysed=count("(SELECT DISTINCT track_id FROM analyses)"),
        n_waiting=count(
            """verdicts AS v JOIN analyses AS a ON a.id = v.analysis_id WHERE v.needs_review = 1
            AND a.id = (SELECT max(b.id) FROM analyses AS b WHERE b.track_id = a.track_id)
            AND NOT EXISTS (SELECT 1 FROM in_force AS f WHERE f.track_id = a.track_id)
            AND EXISTS (SELECT 1 FROM files AS f WHERE f.track_id = a.track_id AND state = 'ok' AND missing = 0)"""
        ),
        n_decided=count(f"{in_force} WHERE d.kind <> 'skip'"),
        n_skipped=count(f"{in_force} WHERE d.kind = 'skip'"),
        n_history=count("decisions"),
        last_scan=f"{shown_path(scan['root'])}, {scan['started_at'][:19]}, {scan['state']}" if scan else "",
        schema=connection.execute("SELECT max(name) FROM migrations").fetchone()[0],
        sqlite=SQLITE_VERSION,
    )


def _damage(connection: Connection) -> list[str]:
    rows = connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})").fetchall()
    return [f"damaged: {row[0]}" for row in rows if row[0] != "ok"]


def _foreign_keys(connection: Connection) -> list[str]:
    rows = itertools.islice(connection.execute("PRAGMA foreign_key_check"), MAX_PROBLEMS)
    return [f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in rows]


def _in_force(connection: Connection) -> list[str]:
    """Whether what counts follows from the history."""
    rows = connection.execute(
        f"SELECT d.track_id, d.id, d.kind FROM decisions AS d WHERE {STANDS} ORDER BY d.track_id, d.made_at, d.id"
    )
    right = {
        track_id: counting([(row[1], row[2]) for row in group])
        for track_id, group in itertools.groupby(rows, key=lambda row: row[0])
    }
    said = dict(connection.execute("SELECT track_id, decision_id FROM in_force").fetchall())
    wrong = [track_id for track_id in sorted({*right, *said}) if right.get(track_id) != said.get(track_id)]
    return [
        f"song {track_id}: decision {said.get(track_id)} counts, the history says {right.get(track_id)}"
        for track_id in wrong[:MAX_PROBLEMS]
    ]


def _search(connection: Connection) -> list[str]:
    """Whether the words that are searched are those of the files."""
    rows = connection.execute(
        """SELECT f.id FROM files AS f LEFT JOIN search AS s ON s.rowid = f.id
        WHERE s.rowid IS NULL OR (s.shown, s.title, s.artist, s.album, s.genres)
            IS NOT (f.shown, f.title, f.artist, f.album, f.genres)
        UNION ALL SELECT s.rowid FROM search AS s LEFT JOIN files AS f ON f.id = s.rowid WHERE f.id IS NULL
        LIMIT ?""",
        (MAX_PROBLEMS,),
    )
    return [f"file {row[0]}: what is searched is not what the file says" for row in rows]
