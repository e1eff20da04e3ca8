"""Which genres are to be written into which files, before anything is written: the policy and its dry run."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ManifestError, SettingsError, TagError
from ..kept import NOT_MUSIC, SongTags
from .database import Connection, Database
from .genres import key, tidy
from .tags import is_writable, read_tags

MAX_RANKED = 8
_CHUNK = 500  # values in one SQL statement

# why a file is left alone
HAS_GENRE = "has a genre"
AS_WANTED = "has this genre already"
NOT_SURE = "not sure enough"
NO_ANSWER = "not analysed yet"
NO_MUSIC = "you said that it is no music"
MAPPED_AWAY = "your mapping has no genre for it"
CHANGED = "changed since the scan"
UNREADABLE = "cannot be read"
NOT_WRITTEN = "no tags are written into this kind of file"
SAME_FILE = "a link to a file of this list"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is written where.

    A genre in a file stays, whoever wrote it (`only_empty`); or one that we wrote ourselves may be renewed
    (`only_empty` False); or any is written over (`overwrite`). The person's decision in the library goes before the
    model's genres, of which up to `max_genres` are taken in their order, each from `min_confidence` on. `mapping` gives
    a genre other names, one or several (none: it is not written); they do not count for `max_genres`. `keep_times`
    leaves a file's time of change as it was.
    """

    only_empty: bool = True
    overwrite: bool = False
    min_confidence: float = 0.7
    max_genres: int = 1
    mapping: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep_times: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise SettingsError(
                f"min_confidence = {self.min_confidence}; it is a share from 0 to 1", "On the page it is 0 to 100 %."
            )
        if not 1 <= self.max_genres <= MAX_RANKED:
            raise SettingsError(f"max_genres = {self.max_genres}; it is a number from 1 to {MAX_RANKED}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, default=list)

    def named(self, genres: Iterable[str]) -> tuple[str, ...]:
        """`genres` by the names of the mapping, each once."""
        names = {key(genre): to for genre, to in self.mapping.items()}
        return tuple(dict.fromkeys(name for genre in genres for name in names.get(key(genre), (genre,))))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file of the library and what is known of its song. `ranked` are (genre, probability), best first, at most
    MAX_RANKED. `n_bytes` and `mtime_ns` are as the scan saw the file."""

    path: bytes
    n_bytes: int
    mtime_ns: int
    decided: str | None = None
    ranked: tuple[tuple[str, float], ...] = ()
    track_id: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the dry run: the genres in the file and those that it is to have, or the `reason` why it is left
    alone (with more about it in `detail`). `source` is whose word they are; `confidence` the model's in the first."""

    path: bytes
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str = ""
    confidence: float | None = None
    reason: str = ""
    detail: str = ""
    n_bytes: int = 0
    mtime_ns: int = 0
    track_id: int = 0

    @property
    def writes(self) -> bool:
        return not self.reason


def read_mapping(path: Path) -> dict[str, tuple[str, ...]]:
    """A TOML file of lines such as `"Hip-Hop" = "Hip Hop/Rap"` and `"R&B" = ["Soul", "R&B"]`; an empty list leaves a
    genre out. SettingsError for a file that cannot be read or says something else."""
    hint = 'Write lines like "Hip-Hop" = "Hip Hop/Rap" or "R&B" = ["Soul", "R&B"].'
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the mapping {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the mapping {path} is not TOML: {error}", hint) from error
    found: dict[str, tuple[str, ...]] = {}
    for genre, to in said.items():
        values = [to] if isinstance(to, str) else to
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise SettingsError(f"the mapping {path}: {genre!r} is neither a text nor a list of texts", hint)
        try:
            found[genre] = tuple(tidy(value) for value in values)
        except ManifestError as error:
            raise SettingsError(f"the mapping {path}: {genre!r}: {error.message}", error.hint) from error
    return found


def candidates(database: Database, track_ids: Sequence[int] | None = None, folder: bytes = b"") -> list[Candidate]:
    """The files that are there of the given tracks (None: of all), below `folder` (empty: anywhere), by path."""
    where, values = "f.state = 'ok' AND f.missing = 0", []
    if folder:
        below = folder.rstrip(os.sep.encode()) + os.sep.encode()
        where += " AND f.path >= ? AND f.path < ?"
        values = [below, below[:-1] + bytes([below[-1] + 1])]

    def work(connection: Connection) -> list[Candidate]:
        if track_ids is None:
            return _rows(connection, where, values)
        found: list[Candidate] = []
        for start in range(0, len(track_ids), _CHUNK):
            some = track_ids[start : start + _CHUNK]
            found += _rows(connection, f"{where} AND f.track_id IN ({','.join('?' * len(some))})", [*values, *some])
        return sorted(found, key=lambda one: one.path)

    return database.read(work)


def _rows(connection: Connection, where: str, values: Sequence[Any]) -> list[Candidate]:
    rows = connection.execute(
        f"""
        SELECT f.path, f.n_bytes, f.mtime_ns, f.track_id, d.kind, d.genre, v.probabilities
        FROM files f
        LEFT JOIN verdicts v ON v.analysis_id = (SELECT max(id) FROM analyses WHERE track_id = f.track_id)
        LEFT JOIN in_force i ON i.track_id = f.track_id
        LEFT JOIN decisions d ON d.id = i.decision_id
        WHERE {where} ORDER BY f.path
        """,
        values,
    )
    return [_candidate(row) for row in rows]


def _candidate(row: Any) -> Candidate:
    said = json.loads(row["probabilities"] or "{}")
    ranked = sorted(said.items(), key=lambda one: -one[1])[:MAX_RANKED]
    decided = NOT_MUSIC if row["kind"] == "not_music" else row["genre"]
    return Candidate(
        row["path"], row["n_bytes"], row["mtime_ns"], decided, tuple((g, float(p)) for g, p in ranked), row["track_id"]
    )


def plan(
    files: Iterable[Candidate],
    policy: Policy,
    ours: Mapping[bytes, tuple[str, ...]],
    read: Callable[[bytes], SongTags] = read_tags,
) -> list[Change]:
    """What `policy` would write into each of `files`, or why it would not. `ours` are the genres that we wrote last, by
    path. Reads the files, writes nothing, raises nothing."""
    return [_change(one, policy, ours.get(one.path), read) for one in files]


def _change(one: Candidate, policy: Policy, ours: tuple[str, ...] | None, read: Callable[[bytes], SongTags]) -> Change:
    after, source, confidence, reason = _wanted(one, policy)
    before: tuple[str, ...] = ()
    detail = ""
    try:
        status = os.stat(one.path)
        before = read(one.path).genres
    except OSError as error:
        reason, detail = UNREADABLE, error.strerror or str(error)
    except TagError as error:
        reason, detail = UNREADABLE, error.message
    else:
        if (status.st_size, status.st_mtime_ns) != (one.n_bytes, one.mtime_ns):
            reason = CHANGED
        elif not reason:
            reason = _protected(before, after, policy, ours)
            if not reason and not is_writable(one.path):
                reason = NOT_WRITTEN
    return Change(
        one.path, before, before if reason else after, source, confidence, reason, detail, one.n_bytes, one.mtime_ns,
        one.track_id,
    )  # fmt: skip


def _wanted(one: Candidate, policy: Policy) -> tuple[tuple[str, ...], str, float | None, str]:
    """(genres, whose, the model's confidence, why there are none)"""
    if one.decided == NOT_MUSIC:
        return (), "person", None, NO_MUSIC
    if one.decided is not None:
        genres = policy.named([one.decided])
        return genres, "person", None, "" if genres else MAPPED_AWAY
    if not one.ranked:
        return (), "", None, NO_ANSWER
    confidence = one.ranked[0][1]
    sure = [genre for genre, p in one.ranked[: policy.max_genres] if p >= policy.min_confidence]
    genres = policy.named(sure)
    return genres, "model", confidence, "" if genres else MAPPED_AWAY if sure else NOT_SURE


def _protected(before: tuple[str, ...], after: tuple[str, ...], policy: Policy, ours: tuple[str, ...] | None) -> str:
    """Why what is in the file stays; empty where it does not."""
    if before == after:
        return AS_WANTED
    if not before or policy.overwrite:
        return ""
    return "" if not policy.only_empty and ours == before else HAS_GENRE
