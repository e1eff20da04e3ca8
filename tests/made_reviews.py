"""A library of songs whose votes were made up, and read as the engine reads them: for what waits, and what is learned.

Genres are directions in an embedding. The made-up network hears the second genre well, and the first as the second more
often than not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acoustic.kept import SongTags
from acoustic.library.store import Library
from acoustic.records import AudioWarning, Calibration, Verdict, Votes
from acoustic.verdict.decision import decide

GENRES = ("Blues", "Classical", "Jazz", "Folk")
OWN = "Forró"
TAGS = ("Speech", "Singing", "Music")
CALIBRATION = Calibration(conformal_quantile=0.9, review_below_confidence=0.6)
WIDTH = 8
SEGMENT_S = 10.4
CENTRES = np.linalg.qr(np.random.default_rng(5).normal(size=(WIDTH, WIDTH)))[0]
"""rows: the directions of the genres, then of what the network does not know"""


@dataclass(frozen=True)
class Heard:
    """A song as the network heard it."""

    path: bytes
    votes: Votes
    tags: SongTags = field(default_factory=SongTags)
    warnings: tuple[AudioWarning, ...] = ()
    missing: bool = False
    digest: str = ""

    @property
    def start_s(self) -> np.ndarray:
        return np.arange(len(self.votes)) * 20.0


def votes(genre: int, seed: int, *, sure: float = 1.0, n_segments: int = 3, scatter: float = 0.3) -> Votes:
    """Of a song of the genre number; `sure` scales the scores, 0 is no idea. From len(GENRES) on the network does not
    know it."""
    rng = np.random.default_rng((genre, seed))
    embeddings = CENTRES[genre] + rng.normal(0, scatter / WIDTH**0.5, (n_segments, WIDTH))
    logits = 3.0 * embeddings @ CENTRES[: len(GENRES)].T
    if genre == 0:
        logits[:, 1] += 3.0  # what it hears wrongly
    logits = sure * (logits + rng.normal(0, 0.2, logits.shape))
    tag_logits = np.tile([-3.0, 0.0, 4.0], (n_segments, 1))
    return Votes(logits.astype(np.float32), tag_logits.astype(np.float32), embeddings.astype(np.float32))


def heard(genre: int, seed: int, *, folder: bytes = b"/music", **more: Any) -> Heard:
    """A song with a path and tags of its own."""
    tags = more.pop("tags", SongTags(title=f"Song {genre}/{seed}", artist=f"Artist {seed}"))
    plain = {name: more.pop(name) for name in ("warnings", "missing") if name in more}
    path = more.pop("path", folder + f"/{genre}-{seed:05d}.ogg".encode())
    return Heard(path, votes(genre, seed, **more), tags, **plain)


def read(song: Heard, calibration: Calibration = CALIBRATION) -> Verdict:
    return decide(song.votes, GENRES, TAGS, calibration, warnings=song.warnings)


def fill(
    library: Library,
    songs: Sequence[Heard],
    *,
    weights_digest: str = "0" * 64,
    calibration: Calibration = CALIBRATION,
    model: str = "made-up",
    settings: str = "{}",
) -> list[int]:
    """Write the songs as a scan does; the tracks' ids, in order."""

    def work(db: Any) -> list[int]:
        db.execute(
            "INSERT OR IGNORE INTO models (name, weights_digest, settings) VALUES (?, ?, ?)",
            (model, weights_digest, settings),
        )
        found = db.execute(
            "SELECT id FROM models WHERE weights_digest = ? AND settings = ?", (weights_digest, settings)
        )
        model_id = found.fetchone()[0]
        scan = db.execute(
            "INSERT INTO scans (root, engine, model_id, started_at, finished_at, state) "
            "VALUES (x'2f', 'local', ?, '2026-01-01', '2026-01-01', 'done')",
            (model_id,),
        ).lastrowid
        return [_song(db, song, scan, model_id, read(song, calibration)) for song in songs]

    return library.database.write(work)


def _song(db: Any, song: Heard, scan: int, model_id: int, verdict: Verdict) -> int:
    digest = song.digest or hashlib.sha256(song.path).hexdigest()
    track = db.execute(
        "INSERT INTO tracks (digest, n_bytes, added_at) VALUES (?, 1000, '2026-01-01')", (digest,)
    ).lastrowid
    t = song.tags
    db.execute(
        "INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, missing, scan_id, title, artist, album, "
        "year, genres) VALUES (?, ?, ?, 1000, 0, 'ok', ?, ?, ?, ?, ?, ?, '[]')",
        (song.path, os.fsdecode(song.path).encode("utf-8", "replace").decode(), track, song.missing, scan, t.title,
         t.artist, t.album, t.year),
    )  # fmt: skip
    v, k = song.votes, len(song.votes)
    places = np.stack([song.start_s, song.start_s + SEGMENT_S])
    analysis = db.execute(
        "INSERT INTO analyses (track_id, model_id, made_at, duration_s, analyzed_s, n_segments, warnings, embedding, "
        "places, logits, tag_logits, embeddings) VALUES (?, ?, '2026-01-01', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (track, model_id, 20.0 * k, SEGMENT_S * k, k, json.dumps([w.to_dict() for w in song.warnings]),
         v.embeddings.mean(axis=0).astype(np.float16).tobytes(), places.tobytes(), v.logits.tobytes(),
         v.tag_logits.astype(np.float16).tobytes(), v.embeddings.astype(np.float16).tobytes()),
    ).lastrowid  # fmt: skip
    write_verdict(db, analysis, verdict)
    return track


def write_verdict(db: Any, analysis: int, verdict: Verdict, personal: str = "") -> None:
    db.execute(
        "INSERT INTO verdicts (analysis_id, personal, top_genre, confidence, margin, uncertainty, agreement, "
        "needs_review, review_reasons, prediction_set, probabilities) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (analysis, personal, verdict.top_genre, verdict.top_confidence, verdict.margin, verdict.uncertainty,
         verdict.agreement, verdict.needs_review, json.dumps(verdict.review_reasons),
         json.dumps(verdict.prediction_set),
         json.dumps(dict(zip(verdict.labels, verdict.probabilities.tolist(), strict=True)))),
    )  # fmt: skip


def unsure(n: int, genre: int = 2, **more: Any) -> list[Heard]:
    """`n` songs that need review."""
    return [heard(genre, seed, **{"sure": 0.3, **more}) for seed in range(n)]


def sure(n: int, genre: int = 2, first: int = 50_000) -> list[Heard]:
    """`n` songs that need none."""
    return [heard(genre, seed, sure=3.0) for seed in range(first, first + n)]


def open_library(folder: Path, songs: Sequence[Heard]) -> tuple[Library, list[int]]:
    library = Library(folder / "library.db")
    return library, fill(library, songs)


def tagged(song: Heard, **tags: str) -> Heard:
    return dataclasses.replace(song, tags=SongTags(**tags))
