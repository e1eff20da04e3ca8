"""What a person decided, carried elsewhere: a whole copy of the library, or the decisions as JSON Lines.

A line is one line of the history, and says all that it needs to be known again anywhere: the song by the digest of its
content, so that it is found though it was moved; the line itself by song, time, person, kind and genre; what an "undo"
took back by the same. Importing twice adds nothing, and a library that went its own way is merged by the times.

A song into whose file a tag was written has another content than before. Both are the same song: a line names those
that it had before (`known_as`); an import follows the journal of the library that it goes into, and remembers them for
files that a scan will find. The journal itself stays: it undoes writes into the very files of this machine, and goes
along only in a whole copy (`backup`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import LibraryError
from ..records import file_fields
from .database import Connection, Database, DatabaseError, Row, now
from .decision_lines import FORMAT, VERSION, Key, Line, NewerFormatError, encode, parse
from .decisions import STANDS, append, counting, path_of
from .lineage import also, contents, track_of

LINES_A_WRITE = 500
SQLITE_HEADER = b"SQLite format 3\0"
MAX_ERRORS = 1_000


_LINES = """SELECT d.*, t.digest, t.n_bytes, u.made_at AS u_made_at, u.who AS u_who, u.kind AS u_kind,
        u.genre AS u_genre
    FROM decisions AS d JOIN tracks AS t ON t.id = d.track_id LEFT JOIN decisions AS u ON u.id = d.undoes_id"""


@dataclass(frozen=True, slots=True)
class Exported:
    """Lines that were written, and lines of a damaged library that could not be read."""

    n_lines: int
    n_lost: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: lines added, lines that were there already, songs that the library had not met, lines
    that could not be taken; and of the first MAX_ERRORS of these why, in messages that begin with the line's number."""

    n_added: int
    n_known: int
    n_new_songs: int
    n_refused: int
    errors: tuple[LibraryError, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "added": self.n_added,
            "known": self.n_known,
            "new_songs": self.n_new_songs,
            "refused": self.n_refused,
            "errors": [error.to_dict() for error in self.errors],
        }


def backup(database: Database, target: Path, *, overwrite: bool = False) -> None:
    """A whole copy of the library in `target`, checked before it gets that name; others may go on writing. A copy is a
    library: it can be opened as one, or put in the place of a lost one.

    LibraryError, and nothing in `target`, if it exists (and `overwrite` is not set), is a library in use, or cannot be
    written.
    """
    target = target.absolute()
    if target.exists() and not overwrite:
        raise LibraryError(f"{target} is there already", "Choose another name, or use `--overwrite`.")
    if target.is_dir() or os.path.lexists(f"{target}-wal") or (target.exists() and target.samefile(database.path)):
        raise LibraryError(f"{target} is a folder or a library in use", "Choose another name.")
    aside = _beside(target)
    try:
        aside.touch(exist_ok=False)  # what is wrong with the folder is told by the system
        database.copy_to(aside)
        _put_in_place(aside, target)
    except OSError as error:
        raise LibraryError(
            f"{target} cannot be written: {error.strerror}", "Choose a folder that you may write in."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def export(database: Database, out: IO[bytes]) -> Exported:
    """Write all decisions with their history as JSON Lines, in one snapshot. Of a damaged library all those that can be
    read. OSError is the caller's."""

    def work(connection: Connection) -> Exported:
        out.write(encode({"format": FORMAT, "version": VERSION, "exported_at": now()}))
        n = n_lost = last = 0
        try:
            for row in connection.execute(f"{_LINES} ORDER BY d.id"):
                out.write(_line(connection, row))
                n, last = n + 1, row["id"]
            return Exported(n, 0)
        except (DatabaseError, UnicodeDecodeError):
            greatest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'decisions'").fetchone()[0]
        for number in range(last + 1, greatest + 1):  # one by one, over what is damaged
            try:
                row = connection.execute(f"{_LINES} WHERE d.id = ?", (number,)).fetchone()
                if row is not None:
                    out.write(_line(connection, row))
                    n += 1
            except (DatabaseError, UnicodeDecodeError):
                n_lost += 1
        return Exported(n, n_lost)

    return database.read(work)


def _line(connection: Connection, row: Row) -> bytes:
    path = path_of(connection, row["track_id"])
    undone = {name: row[f"u_{name}"] for name in ("made_at", "who", "kind", "genre")}
    said = {
        "digest": row["digest"],
        "n_bytes": row["n_bytes"],
        **({"known_as": before} if (before := contents(connection, row["digest"])[1:]) else {}),
        **(file_fields(os.fsdecode(path)) if path is not None else {}),
        **{name: row[name] for name in ("made_at", "who", "kind", "genre")},
        "undoes": undone if row["undoes_id"] is not None else None,
        **{name: row[name] for name in ("batch", "said_genre", "said_confidence", "took_s")},
    }
    return encode(said)


def export_to(database: Database, target: Path, *, overwrite: bool = False) -> Exported:
    """`export` into a file, which has either all of it or is as it was. LibraryError if it cannot be written, exists
    (and `overwrite` is not set), or is a library (this one, another, a backup), which it would replace."""
    if _is_database(target):
        raise LibraryError(f"{target} is a library: it would be lost", "Choose another name for what is exported.")
    if os.path.lexists(target) and not overwrite:
        raise LibraryError(f"{target} is there already", "Choose another name, or use `--overwrite`.")
    aside = _beside(target.absolute())
    try:
        with open(aside, "xb") as out:
            done = export(database, out)
        _put_in_place(aside, target.absolute())
    except OSError as error:
        raise LibraryError(
            f"{target} cannot be written: {error.strerror}", "Choose a folder that you may write in."
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return done


def import_(database: Database, lines: Iterable[bytes]) -> Imported:
    """Take what `export` wrote, here or elsewhere. Lines that are not sound are left out and told, all others go in; a
    song that the library has not met is kept by its digest until a scan finds it. NewerFormatError for a file whose
    heading says that it is of another form; nothing below it is taken.
    """
    n_added = n_known = n_new_songs = 0
    errors: list[tuple[int, LibraryError]] = []
    waiting: list[tuple[int, Line]] = []  # an undo may stand before what it takes back

    def put(chunk: list[tuple[int, Line]], last: bool) -> None:
        nonlocal n_added, n_known, n_new_songs
        taken = database.write(lambda connection: _take(connection, chunk, last))
        n_added += taken.n_added
        n_known += taken.n_known
        n_new_songs += taken.n_new_songs
        errors.extend(taken.refused)
        waiting.extend(taken.later)

    chunk: list[tuple[int, Line]] = []
    for number, line in enumerate(lines, 1):
        try:
            parsed = parse(line)
        except NewerFormatError:
            raise
        except LibraryError as error:
            errors.append((number, error))
            continue
        if parsed is not None:
            chunk.append((number, parsed))
        if len(chunk) == LINES_A_WRITE:
            put(chunk, False)
            chunk = []
    put(chunk, False)
    for first in range(0, len(held := list(waiting)), LINES_A_WRITE):
        put(held[first : first + LINES_A_WRITE], True)
    told = [LibraryError(f"line {number}: {error.message}", error.hint) for number, error in errors[:MAX_ERRORS]]
    return Imported(n_added, n_known, n_new_songs, len(errors), tuple(told))


# --- into the library ---


@dataclass(slots=True)
class _Taken:
    """What became of some lines; `later` wait for a line that is not there yet."""

    n_added: int = 0
    n_known: int = 0
    n_new_songs: int = 0
    refused: list[tuple[int, LibraryError]] = field(default_factory=list)
    later: list[tuple[int, Line]] = field(default_factory=list)


def _take(connection: Connection, lines: list[tuple[int, Line]], last: bool) -> _Taken:
    taken = _Taken()
    for number, line in lines:
        track_id = _song(connection, line)
        undoes = None
        if track_id is not None and _find(connection, track_id, line.key) is not None:
            taken.n_known += 1
            continue
        if line.undoes is not None:
            undoes = _find(connection, track_id, line.undoes) if track_id is not None else None
            if undoes is None and not last:
                taken.later.append((number, line))
                continue
            if undoes is None:
                why = "it takes back a decision that is neither in the file nor in the library"
                taken.refused.append((number, LibraryError(why, "Export the whole history, and import that.")))
                continue
            if connection.execute("SELECT 1 FROM decisions WHERE undoes_id = ?", (undoes,)).fetchone():
                taken.n_known += 1  # taken back here and elsewhere: it can be so once
                continue
        if track_id is None:
            track_id = _new_song(connection, line)
            taken.n_new_songs += 1
        also(connection, track_id, (line.digest, *line.known_as))
        _add(connection, track_id, line, undoes)
        taken.n_added += 1
    return taken


def _song(connection: Connection, line: Line) -> int | None:
    """The song of a line by its content, else by what that was or became when tags were written, there or here."""
    found = (track_of(connection, digest) for digest in (line.digest, *line.known_as))
    return next((track_id for track_id in found if track_id is not None), None)


def _new_song(connection: Connection, line: Line) -> int:
    sql = "INSERT INTO tracks (digest, n_bytes, added_at) VALUES (?, ?, ?) RETURNING id"
    [row] = connection.execute(sql, (line.digest, line.n_bytes, now())).fetchall()
    return int(row[0])


def _find(connection: Connection, track_id: int, key: Key) -> int | None:
    sql = "SELECT id FROM decisions WHERE track_id = ? AND made_at = ? AND who = ? AND kind = ? AND genre IS ?"
    row = connection.execute(sql, (track_id, *key)).fetchone()
    return row[0] if row else None


def _add(connection: Connection, track_id: int, line: Line, undoes: int | None) -> None:
    made_at, who, kind, genre = line.key
    sql = f"""SELECT d.id, d.kind FROM decisions AS d WHERE d.track_id = ? AND d.made_at < ? AND {STANDS}
        ORDER BY d.made_at, d.id"""
    standing = [(row[0], row[1]) for row in connection.execute(sql, (track_id, made_at))]
    append(
        connection,
        {
            "track_id": track_id,
            "made_at": made_at,
            "who": who,
            "kind": kind,
            "genre": genre,
            "before_id": counting(standing),
            "undoes_id": undoes,
            "batch": line.batch,
            "said_genre": line.said_genre,
            "said_confidence": line.said_confidence,
            "took_s": line.took_s,
        },
    )


# --- files ---


def _is_database(target: Path) -> bool:
    try:
        with open(target, "rb") as file:
            return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    except OSError:  # none there; what else is wrong is told when it is written
        return False


def _beside(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.part")


def _put_in_place(aside: Path, target: Path) -> None:
    """On disk first, then under its name."""
    with open(aside, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, target)
