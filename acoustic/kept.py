"""The frozen records of what the library keeps: files, tracks, decisions, what waits for a person, what was written.

Paths are bytes, as the system has them: a name that is not valid UTF-8 survives, and `shown` is what a person reads.
Times are ISO 8601 in UTC. Confidences and probabilities are in [0, 1].
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from .records import Analysis, Failure, printable

NOT_MUSIC = "(not music)"
"""stands where a genre does, for what a person called no music; no genre can have this name"""

Flag = Literal["all", "review", "decided", "undecided", "errors", "duplicates", "missing"]
Column = Literal["title", "artist", "album", "genre", "confidence", "duration", "added", "path"]
DecisionKind = Literal["genre", "not_music", "skip", "undo"]


def shown_path(path: bytes) -> str:
    """`path` as a person reads it, with U+FFFD for what is not UTF-8."""
    return printable(os.fsdecode(path))


@dataclass(frozen=True, slots=True)
class SongTags:
    """What a file's own tags say; empty where they say nothing. `genres` in the order in which they stand."""

    title: str = ""
    artist: str = ""
    album: str = ""
    year: str = ""
    genres: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as a walk met it."""

    path: bytes
    n_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The terminal record of one file of a scan: `result` is an Analysis, or the Failure that says why there is none;
    None where the library has this model's analysis of the content already.

    `digest` is the SHA- or BLAKE-digest of the content (64 hexadecimal digits), None where it could not be read.
    """

    path: bytes
    n_bytes: int
    mtime_ns: int
    digest: str | None
    result: Analysis | Failure | None
    tags: SongTags = field(default_factory=SongTags)


@dataclass(frozen=True, slots=True)
class Track:
    """One recording of the library, as its table shows it: one content, however many files hold it.

    `path` is the first of its files that is there. `top_genre` and `confidence` are the latest verdict's; `decided` is
    what a person said (a genre, or NOT_MUSIC), None where nobody did. A file that could not be analysed is shown with
    its `error` and `id` 0.
    """

    id: int
    path: bytes
    n_files: int = 1
    tags: SongTags = field(default_factory=SongTags)
    duration_s: float = 0.0
    top_genre: str = ""
    confidence: float = 0.0
    uncertainty: float = 0.0
    needs_review: bool = False
    review_reasons: tuple[str, ...] = ()
    prediction_set: tuple[str, ...] = ()
    decided: str | None = None
    model: str = ""
    personal: str = ""
    missing: bool = False
    error: dict[str, str] | None = None
    added_at: str = ""

    @property
    def shown(self) -> str:
        return shown_path(self.path)

    @property
    def name(self) -> str:
        """Title, or the file's name where there is no title."""
        return self.tags.title or os.path.basename(self.shown)

    @property
    def genre(self) -> str:
        """What counts: the person's word, else the model's."""
        return self.decided if self.decided is not None else self.top_genre


@dataclass(frozen=True, slots=True)
class TrackFilter:
    """Which tracks: all conditions together. `text` is free text over names, artists, albums, genres and paths; `genre`
    is what counts (the person's word, else the model's); `folder` a path's beginning."""

    text: str = ""
    genre: str = ""
    flag: Flag = "all"
    min_confidence: float = 0.0
    max_confidence: float = 1.0
    folder: bytes = b""
    model: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackPage:
    """Some rows of the table, and how many there are in all."""

    tracks: tuple[Track, ...]
    n_total: int


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the history, which only grows. `genre` is NOT_MUSIC's or the chosen genre; `said_genre` and
    `said_confidence` are what the model said then; `took_s` how long the person needed; decisions of one `batch` were
    one step. `undoes` is the decision that an "undo" took back."""

    id: int
    track_id: int
    made_at: str
    who: str
    kind: DecisionKind
    genre: str | None
    said_genre: str = ""
    said_confidence: float = 0.0
    took_s: float | None = None
    batch: str = ""
    undoes: int | None = None


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One song that waits for a person. `why` is a sentence a person reads; `listen_s` is where its most ambiguous
    segment starts; `ranked` are (genre, probability), best first, over the model's genres and the person's own;
    `segments` are (start_s, end_s, top genre, confidence)."""

    track: Track
    why: str
    listen_s: float
    ranked: tuple[tuple[str, float], ...]
    segments: tuple[tuple[float, float, str, float], ...]
    n_neighbours: int = 0
    """how many other waiting songs sound so alike that this decision is likely to settle them"""
    in_force: int | None = None
    """id of the decision that counts at present (of a song that waits it is a skip), for `Decisions.decide`"""


@dataclass(frozen=True, slots=True)
class ReviewProgress:
    """`n_left` songs wait, `n_skipped` of them for a second time. Of the `n_decided` songs `n_genre` were given a
    genre, and `n_agreed` of those the one that the model said; `minutes` is what the person spent on deciding.
    `reliability` are (mean confidence, share right, n) of the songs that were given a genre, by bins of equal mass."""

    n_left: int
    n_decided: int
    n_skipped: int
    n_genre: int
    n_agreed: int
    minutes: float
    reliability: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LibraryStats:
    """What the library holds. `genres` are (genre, n), commonest first; `confidence` counts tracks in ten equal bins
    from 0 to 1; `models` are (name, n)."""

    n_tracks: int
    n_files: int
    n_errors: int
    n_review: int
    n_decided: int
    n_duplicates: int
    hours: float
    genres: tuple[tuple[str, int], ...] = ()
    confidence: tuple[int, ...] = ()
    models: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """How far a scan is. `n_found` still grows while `walking`; `eta_s` is None until it ends and a rate is known.
    `n_unchanged` are files whose answer was kept; of the `n_ok`, `n_known` hold a content that was analysed before
    (moved, copied or only touched); `n_missing` those that are no longer there; `unreadable` are
    folders that could not be listed. `state` is "running", "done", "cancelled" or "failed"."""

    state: str
    n_found: int
    n_unchanged: int
    n_ok: int
    n_errors: int
    walking: bool
    files_per_s: float
    eta_s: float | None
    elapsed_s: float
    n_missing: int = 0
    unreadable: tuple[str, ...] = ()
    n_known: int = 0

    @property
    def n_finished(self) -> int:
        return self.n_unchanged + self.n_ok + self.n_errors

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"unreadable": list(self.unreadable)}
