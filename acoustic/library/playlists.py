"""Tracks -> what other programs read: an M3U8 playlist, a CSV table, a list of duplicates. Text; nothing is written.

A title or path is text from outside: it cannot end a line, begin a directive, or be run by a spreadsheet.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from ..errors import LibraryError
from ..kept import Track, shown_path
from ..records import neutral

if TYPE_CHECKING:
    from .catalogue import Catalogue

COLUMNS = (
    "file",
    "file_bytes",
    "title",
    "artist",
    "album",
    "year",
    "genre",
    "decided_by_you",
    "model_genre",
    "confidence",
    "uncertainty",
    "prediction_set",
    "needs_review",
    "review_reasons",
    "duration_s",
    "n_files",
    "missing",
    "file_genres",
    "model",
)


class Playlists:
    """Lists of tracks of a library by their ids, in the order of the ids. Any method may raise LibraryError."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def m3u8(self, track_ids: Sequence[int], relative_to: bytes | None = None) -> str:
        """See `m3u8`."""
        return m3u8(self._catalogue.tracks(track_ids), relative_to)

    def csv(self, track_ids: Sequence[int]) -> str:
        """See `to_csv`."""
        return to_csv(self._catalogue.tracks(track_ids))

    def duplicates(self, track_ids: Sequence[int]) -> str:
        """CSV with a row for every file of the contents that lie in more than one place; equal ones share a `group`."""
        places = self._catalogue.files(track_ids)
        rows = [
            {"group": group, **_file(path), "title": track.tags.title, "artist": track.tags.artist}
            for group, track in enumerate((t for t in self._catalogue.tracks(track_ids) if t.n_files > 1), start=1)
            for path in places[track.id]
        ]
        return _table(("group", "file", "file_bytes", "title", "artist"), rows)


def m3u8(tracks: Iterable[Track], relative_to: bytes | None = None) -> str:
    """An extended M3U playlist in UTF-8, with absolute paths or with paths relative to the folder `relative_to`.

    A path that cannot stand in such a file as it is (not UTF-8, a line break) becomes a percent-encoded file URI, which
    players read as well; relative ones become percent-encoded references. Raises LibraryError for a `relative_to` on
    another drive.
    """
    lines = ["#EXTM3U"]
    for track in tracks:
        name = " - ".join(part for part in (_line(track.tags.artist), _line(track.name)) if part)
        lines += [f"#EXTINF:{round(track.duration_s)},{name}", _place(track.path, relative_to)]
    return "\n".join(lines) + "\n"


def to_csv(tracks: Iterable[Track]) -> str:
    """CSV (RFC 4180) with a byte order mark, one row a track. `file_bytes` is base64 of a path that is not UTF-8."""
    return _table(COLUMNS, [_row(track) for track in tracks])


def _place(path: bytes, relative_to: bytes | None) -> str:
    if relative_to is not None:
        try:
            path = os.path.relpath(path, relative_to)
        except ValueError as error:
            raise LibraryError(
                f"{shown_path(path)} cannot be told relative to {shown_path(relative_to)}: {error}",
                "Use absolute paths.",
            ) from error
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in text):
        plain = text.strip() == text and not text.startswith("#")
        if plain:
            return text
    if relative_to is None:
        return Path(os.fsdecode(path)).as_uri() if os.path.isabs(path) else quote_from_bytes(path)
    return quote_from_bytes(path.replace(os.fsencode(os.sep), b"/"))


def _line(text: str) -> str:
    """On one line, without control characters."""
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") else c for c in text).split())


def _row(track: Track) -> dict[str, Any]:
    return {
        **_file(track.path),
        "title": track.tags.title,
        "artist": track.tags.artist,
        "album": track.tags.album,
        "year": track.tags.year,
        "genre": track.genre,
        "decided_by_you": "yes" if track.decided is not None else "no",
        "model_genre": track.top_genre,
        "confidence": round(track.confidence, 6),
        "uncertainty": round(track.uncertainty, 6),
        "prediction_set": "; ".join(track.prediction_set),
        "needs_review": "yes" if track.needs_review else "no",
        "review_reasons": "; ".join(track.review_reasons),
        "duration_s": round(track.duration_s, 3),
        "n_files": track.n_files,
        "missing": "yes" if track.missing else "no",
        "file_genres": "; ".join(track.tags.genres),
        "model": track.model,
    }


def _file(path: bytes) -> dict[str, str]:
    shown = shown_path(path)
    return {"file": shown, "file_bytes": "" if os.fsencode(shown) == path else base64.b64encode(path).decode("ascii")}


def _table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: neutral(value) for key, value in row.items()} for row in rows)
    return "\ufeff" + out.getvalue()
