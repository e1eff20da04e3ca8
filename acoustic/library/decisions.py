"""What a person decided: a history that only grows, and of each song the decision that counts.

A decision stands until an "undo" takes it back. What counts for a song is its last standing decision, but that a skip
does not displace a genre. `in_force` says so in the same transaction in which the history grows. Two that decide one
song at the same time cannot both: who decides says what was seen, and is refused if that no longer counts.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import ConflictError, LibraryError
from ..kept import NOT_MUSIC, Decision, DecisionKind, shown_path
from .database import Connection, Database, Row, now
from .genres import tidy

STANDS = "d.kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM decisions AS u WHERE u.undoes_id = d.id)"
"""SQL: the decision d was not taken back"""
MAX_WHO_CHARS = 100


class Decisions:
    """The decisions of a library. What a method returns is on disk. LibraryError where the file fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decide(
        self,
        track_id: int,
        genre: str | None,
        *,
        kind: DecisionKind = "genre",
        who: str,
        expected: int | None,
        took_s: float | None = None,
        batch: str = "",
    ) -> Decision:
        """Record what `who` said of a song: a genre, NOT_MUSIC (or the kind "not_music"), or, as kind "skip", nothing.

        `expected` is the id of the decision in force that the person had seen, None for none: ConflictError, which says
        who decided what and when, if another is in force now. Decisions of one `batch` are undone together.
        ManifestError for a name that no genre can have, LibraryError for a song that is not there.
        """
        new = _meant(genre, kind, who, took_s, batch)

        def work(connection: Connection) -> Decision:
            _refuse_unknown(connection, track_id)
            current = _in_force(connection, track_id)
            if (current.id if current else None) != expected:
                raise _conflict(connection, track_id, current)
            return _record(connection, track_id, new, _stamp(connection, new.who, [track_id]))

        return self._database.write(work)

    def decide_many(
        self, track_ids: Iterable[int], genre: str, *, who: str, took_s: float | None = None
    ) -> list[Decision]:
        """The same word for several songs ("same album"), in one step and one transaction. Songs that have a genre, or
        were called no music, are left alone; `took_s` is shared out among the others."""
        ids = list(dict.fromkeys(track_ids))
        batch = uuid.uuid4().hex
        _meant(genre, "genre", who, took_s, batch)

        def work(connection: Connection) -> list[Decision]:
            open_ids = []
            for track_id in ids:
                _refuse_unknown(connection, track_id)
                current = _in_force(connection, track_id)
                if current is None or current.kind == "skip":
                    open_ids.append(track_id)
            if not open_ids:
                return []
            share = took_s / len(open_ids) if took_s is not None else None
            new = _meant(genre, "genre", who, share, batch)
            made_at = _stamp(connection, new.who, open_ids)
            return [_record(connection, track_id, new, made_at) for track_id in open_ids]

        return self._database.write(work)

    def undo(self, who: str, decision_id: int | None = None) -> list[Decision]:
        """Take back the last step of `who` that still stands (a batch is one step), or the named decision of whomever;
        what was in force before is so again. Returns the lines that say so.

        ConflictError, and nothing is taken back, if one of the songs was decided again since. LibraryError if there is
        nothing to take back.
        """
        who = _tidy_who(who)

        def work(connection: Connection) -> list[Decision]:
            step = _last_step(connection, who) if decision_id is None else [_standing(connection, decision_id)]
            for decision in step:
                last = _last_standing(connection, decision.track_id)
                if last is not None and last.id != decision.id:
                    raise _conflict(connection, decision.track_id, last)
            made_at = _stamp(connection, who, [decision.track_id for decision in step])
            batch = uuid.uuid4().hex if len(step) > 1 else ""
            return [
                _record(connection, decision.track_id, _New("undo", None, who, None, batch, decision.id), made_at)
                for decision in step
            ]

        return self._database.write(work)

    def in_force(self, track_id: int) -> Decision | None:
        """The decision that counts for a song."""
        return self._database.read(lambda connection: _in_force(connection, track_id))

    def history(self, track_id: int | None = None, limit: int = 100) -> list[Decision]:
        """The last `limit` lines, latest first: of one song, or of all."""
        where, values = ("", ()) if track_id is None else ("WHERE track_id = ?", (track_id,))
        sql = f"SELECT * FROM decisions {where} ORDER BY made_at DESC, id DESC LIMIT ?"
        rows = self._database.read(lambda connection: connection.execute(sql, (*values, limit)).fetchall())
        return [decision_of(row) for row in rows]

    def labelled(self) -> list[tuple[int, str]]:
        """(track_id, genre) of every song that counts as of a genre; neither skips nor what is not music."""
        sql = """SELECT f.track_id, d.genre FROM in_force AS f JOIN decisions AS d ON d.id = f.decision_id
            WHERE d.kind = 'genre' ORDER BY f.track_id"""
        rows = self._database.read(lambda connection: connection.execute(sql).fetchall())
        return [(row[0], row[1]) for row in rows]

    def paths(self, track_ids: Iterable[int]) -> dict[int, bytes]:
        """Of each song the first of its files that is there, else the first; nothing for a song without a file."""
        ids = set(track_ids)

        def work(connection: Connection) -> dict[int, bytes]:
            found = {track_id: path_of(connection, track_id) for track_id in ids}
            return {track_id: path for track_id, path in found.items() if path is not None}

        return self._database.read(work)


@dataclass(frozen=True, slots=True)
class _New:
    """What is to be recorded, tidied."""

    kind: DecisionKind
    genre: str | None
    who: str
    took_s: float | None
    batch: str
    undoes: int | None = None


def decision_of(row: Row) -> Decision:
    """A row of `decisions` as the record of it."""
    return Decision(
        id=row["id"],
        track_id=row["track_id"],
        made_at=row["made_at"],
        who=row["who"],
        kind=row["kind"],
        genre=NOT_MUSIC if row["kind"] == "not_music" else row["genre"],
        said_genre=row["said_genre"],
        said_confidence=row["said_confidence"],
        took_s=row["took_s"],
        batch=row["batch"],
        undoes=row["undoes_id"],
    )


def counting(standing: Sequence[tuple[int, str]]) -> int | None:
    """Which of the standing decisions (id, kind) of a song, in order, counts."""
    found: tuple[int, str] | None = None
    for decision in standing:
        if decision[1] != "skip" or found is None or found[1] == "skip":
            found = decision
    return found[0] if found else None


def renew(connection: Connection, track_id: int) -> None:
    """Let `in_force` follow from the history of a song."""
    sql = f"SELECT d.id, d.kind FROM decisions AS d WHERE d.track_id = ? AND {STANDS} ORDER BY d.made_at, d.id"
    decision_id = counting([(row[0], row[1]) for row in connection.execute(sql, (track_id,))])
    if decision_id is None:
        connection.execute("DELETE FROM in_force WHERE track_id = ?", (track_id,))
    else:
        connection.execute(
            """INSERT INTO in_force (track_id, decision_id) VALUES (?, ?)
            ON CONFLICT (track_id) DO UPDATE SET decision_id = excluded.decision_id""",
            (track_id, decision_id),
        )


def append(connection: Connection, columns: Mapping[str, object]) -> Decision:
    """A new line of the history, by the names of its columns; `in_force` follows."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    sql = f"INSERT INTO decisions ({names}) VALUES ({marks}) RETURNING *"
    [row] = connection.execute(sql, tuple(columns.values())).fetchall()
    renew(connection, row["track_id"])
    return decision_of(row)


def path_of(connection: Connection, track_id: int) -> bytes | None:
    """The first file of a song that is there, else the first."""
    sql = "SELECT path FROM files WHERE track_id = ? ORDER BY state = 'error', missing, id LIMIT 1"
    row = connection.execute(sql, (track_id,)).fetchone()
    return row[0] if row else None


def _meant(genre: str | None, kind: DecisionKind, who: str, took_s: float | None, batch: str) -> _New:
    """What was asked for, tidied; ManifestError or LibraryError if it cannot be recorded."""
    if kind == "undo" or not batch.isprintable():
        raise LibraryError("this cannot be decided", "Use `undo` to take a decision back.")
    clean = tidy(genre) if kind == "genre" and genre is not None else None
    if NOT_MUSIC in (genre, clean):
        kind = "not_music"
    if kind == "genre" and genre is None:
        raise LibraryError("no genre was named", "Name a genre, or skip the song.")
    if took_s is not None and not (math.isfinite(took_s) and took_s >= 0):
        took_s = None  # a clock that was set back; how long it took is then not known
    return _New(kind, clean if kind == "genre" else None, _tidy_who(who), took_s, batch)


def _tidy_who(who: str) -> str:
    clean = who.strip()
    if not 1 <= len(clean) <= MAX_WHO_CHARS or not clean.isprintable():
        raise LibraryError(f"{clean!r} is nobody's name", f"Use 1 to {MAX_WHO_CHARS} characters that can be printed.")
    return clean


def _record(connection: Connection, track_id: int, new: _New, made_at: str) -> Decision:
    before = connection.execute("SELECT decision_id FROM in_force WHERE track_id = ?", (track_id,)).fetchone()
    said = connection.execute(
        """SELECT v.top_genre, v.confidence FROM verdicts AS v JOIN analyses AS a ON a.id = v.analysis_id
        WHERE a.track_id = ? ORDER BY a.id DESC LIMIT 1""",
        (track_id,),
    ).fetchone() or ("", 0.0)
    columns = {
        "track_id": track_id,
        "made_at": made_at,
        "who": new.who,
        "kind": new.kind,
        "genre": new.genre,
        "before_id": before[0] if before else None,
        "undoes_id": new.undoes,
        "batch": new.batch,
        "said_genre": said[0],
        "said_confidence": said[1],
        "took_s": new.took_s,
    }
    return append(connection, columns)


def _stamp(connection: Connection, who: str, track_ids: Sequence[int]) -> str:
    """Now; but later than all that this person, or anybody of these songs, decided before, though the clock was set
    back: the order of the times is the order of the steps."""
    sql = "SELECT max(made_at) FROM decisions WHERE {} = ?"
    asked = [("who", who), *(("track_id", track_id) for track_id in track_ids)]
    last = max(connection.execute(sql.format(column), (value,)).fetchone()[0] or "" for column, value in asked)
    made_at = now()
    if made_at > last:
        return made_at
    return (datetime.fromisoformat(last) + timedelta(microseconds=1)).isoformat(timespec="microseconds")


def _in_force(connection: Connection, track_id: int) -> Decision | None:
    sql = "SELECT d.* FROM in_force AS f JOIN decisions AS d ON d.id = f.decision_id WHERE f.track_id = ?"
    row = connection.execute(sql, (track_id,)).fetchone()
    return decision_of(row) if row else None


def _standing(connection: Connection, decision_id: int) -> Decision:
    row = connection.execute(f"SELECT d.* FROM decisions AS d WHERE d.id = ? AND {STANDS}", (decision_id,)).fetchone()
    if row is None:
        raise LibraryError(
            f"there is no decision {decision_id} to take back", "See `acoustic library history` for those that stand."
        )
    return decision_of(row)


def _last_standing(connection: Connection, track_id: int) -> Decision | None:
    sql = f"SELECT d.* FROM decisions AS d WHERE d.track_id = ? AND {STANDS} ORDER BY d.made_at DESC, d.id DESC LIMIT 1"
    row = connection.execute(sql, (track_id,)).fetchone()
    return decision_of(row) if row else None


def _last_step(connection: Connection, who: str) -> list[Decision]:
    """The last decision of `who` that stands, with those of its batch."""
    sql = f"SELECT d.* FROM decisions AS d WHERE d.who = ? AND {STANDS} ORDER BY d.made_at DESC, d.id DESC LIMIT 1"
    row = connection.execute(sql, (who,)).fetchone()
    if row is None:
        raise LibraryError(f"{who} decided nothing that could be taken back", "There is nothing to undo.")
    if not row["batch"]:
        return [decision_of(row)]
    sql = f"SELECT d.* FROM decisions AS d WHERE d.batch = ? AND d.who = ? AND {STANDS} ORDER BY d.id"
    return [decision_of(row) for row in connection.execute(sql, (row["batch"], who))]


def _refuse_unknown(connection: Connection, track_id: int) -> None:
    if connection.execute("SELECT 1 FROM tracks WHERE id = ?", (track_id,)).fetchone() is None:
        raise LibraryError(f"the library has no song {track_id}", "Load the page again.")


def _conflict(connection: Connection, track_id: int, found: Decision | None) -> ConflictError:
    """Who decided what and when."""
    path = path_of(connection, track_id)
    name = os.path.basename(shown_path(path)) if path is not None else f"song {track_id}"
    if found is None:
        return ConflictError(f"{name}: the decision that you saw was taken back", "Look at the song again and decide.")
    said = {"skip": "skipped it", "not_music": "called it no music"}.get(found.kind, f"said {found.genre}")
    return ConflictError(f"{name}: {found.who} {said} on {found.made_at[:19].replace('T', ' at ')} UTC")
