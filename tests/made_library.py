"""A library of made-up songs, written as a scan writes it but with no audio: genres are directions in an embedding."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acoustic.library.store import Library

LABELS = ("Blues", "Classical", "Jazz", "Folk", "Pop", "Electronic", "Disco", "Rock", "Hip-Hop", "Rap", "Metal", "R&B",
          "Reggae", "World", "Latin", "Country")  # fmt: skip
ADJECTIVES = ("Blue", "Silent", "Golden", "Broken", "Electric", "Slow", "Last", "Secret", "Midnight", "Paper")
NOUNS = ("River", "Train", "Garden", "Heart", "Machine", "Letter", "Mirror", "Harbour", "Winter", "Satellite")
ARTISTS = (
    "The Lanterns",
    "Ada Moreau",
    "Kofi & Sons",
    "Northbound",
    "Мария Светлова",
    "久石 譲",
    "Los Faroles",
    "Oona",
)


@dataclass(frozen=True)
class Song:
    """One row to be written; what is None is made up from the number."""

    path: bytes
    title: str = ""
    artist: str = ""
    album: str = ""
    genre: str = "Jazz"
    confidence: float = 0.8
    review: bool = False
    duration_s: float = 180.0
    model: str = "made-up"
    copies: tuple[bytes, ...] = ()
    missing: bool = False
    tagged: tuple[str, ...] = ()


def made_songs(n: int, root: bytes = b"/music", seed: int = 0) -> list[Song]:
    """`n` songs of all genres, some to review, some twice there."""
    rng = np.random.default_rng(seed)
    songs = []
    for i in range(n):
        genre = LABELS[int(rng.integers(len(LABELS)))]
        artist = ARTISTS[int(rng.integers(len(ARTISTS)))]
        title = f"{ADJECTIVES[int(rng.integers(10))]} {NOUNS[int(rng.integers(10))]}"
        album = f"{NOUNS[int(rng.integers(10))]} {1960 + int(rng.integers(60))}"
        confidence = float(np.clip(rng.beta(5, 2), 0.07, 0.999))
        folder = root + b"/" + os.fsencode(genre) + b"/" + os.fsencode(artist)
        path = folder + b"/%05d %s.flac" % (i, os.fsencode(title))
        songs.append(
            Song(
                path=path,
                title=title,
                artist=artist,
                album=album,
                genre=genre,
                confidence=confidence,
                review=confidence < 0.5,
                duration_s=float(rng.uniform(60, 420)),
                copies=(folder + b"/%05d copy.flac" % i,) if i % 50 == 7 else (),
            )
        )
    return songs


def fill(
    library: Library,
    songs: Sequence[Song],
    failed: Sequence[tuple[bytes, str, str]] = (),
    width: int = 32,
    seed: int = 1,
) -> list[int]:
    """Write `songs` and (path, code, message) failures as one scan; returns the tracks' ids, in order."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(LABELS), width))

    def work(db: Any) -> list[int]:
        models = {}
        for name in dict.fromkeys(song.model for song in songs) or ["made-up"]:
            digest = hashlib.sha256(name.encode()).hexdigest()
            db.execute(
                "INSERT OR IGNORE INTO models (name, weights_digest, settings) VALUES (?, ?, '{}')", (name, digest)
            )
            models[name] = db.execute("SELECT id FROM models WHERE weights_digest = ?", (digest,)).fetchone()[0]
        root = os.path.commonpath([s.path for s in songs] or [b"/music"])
        scan = db.execute(
            "INSERT INTO scans (root, engine, model_id, started_at, state) VALUES (?, 'local', ?, '2026', 'done')",
            (root, next(iter(models.values()))),
        ).lastrowid
        return [_song(db, song, scan, models[song.model], rng, centres) for song in songs] + [
            _failure(db, scan, *one) for one in failed
        ]

    return library.database.write(work)[: len(songs)]


def _song(db: Any, song: Song, scan: int, model: int, rng: np.random.Generator, centres: np.ndarray) -> int:
    digest = hashlib.sha256(song.path).hexdigest()
    added = f"2026-01-{1 + len(song.path) % 28:02d}T12:00:00.000000+00:00"
    track = db.execute("INSERT INTO tracks (digest, n_bytes, added_at) VALUES (?, 1000, ?)", (digest, added)).lastrowid
    for path in (song.path, *song.copies):
        seen = os.stat(path) if os.path.exists(path) else None  # some tests bring real files
        size, mtime_ns = (seen.st_size, seen.st_mtime_ns) if seen else (1000, 0)
        db.execute(
            "INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, missing, scan_id, title, artist, "
            "album, genres) VALUES (?, ?, ?, ?, ?, 'ok', ?, ?, ?, ?, ?, ?)",
            (path, path.decode("utf-8", "replace"), track, size, mtime_ns, song.missing, scan, song.title, song.artist,
             song.album, json.dumps(song.tagged)),
        )  # fmt: skip
    analyse(db, track, model, song, rng, centres)
    return track


def analyse(
    db: Any, track: int, model: int, song: Song, rng: np.random.Generator, centres: np.ndarray, personal: str = ""
) -> int:
    """Three segments that scatter around the direction of the song's genre, and the reading of them."""
    where = LABELS.index(song.genre) if song.genre in LABELS else 0
    segments = (centres[where] + rng.normal(0, 0.6, (3, centres.shape[1]))).astype(np.float16)
    rest = (1.0 - song.confidence) / (len(LABELS) - 1)
    probabilities = dict.fromkeys(LABELS, rest) | {song.genre: song.confidence}
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    logits = np.log(np.tile(list(probabilities.values()), (3, 1))).astype(np.float32)
    places = np.array([[10.0, 60.0, 110.0], [20.4, 70.4, 120.4]])
    analysis = db.execute(
        "INSERT INTO analyses (track_id, model_id, made_at, duration_s, analyzed_s, n_segments, warnings, embedding, "
        "places, logits, tag_logits, embeddings) VALUES (?, ?, '2026-01-01', ?, 31.2, 3, '[]', ?, ?, ?, ?, ?)",
        (track, model, song.duration_s, segments.mean(0).astype(np.float16).tobytes(), places.tobytes(),
         logits.tobytes(), np.zeros((3, 4), np.float16).tobytes(), segments.tobytes()),
    ).lastrowid  # fmt: skip
    db.execute(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, 1.0, ?, ?, ?, ?)",
        (analysis, personal, song.genre, song.confidence, song.confidence - rest, 1.0 - song.confidence, song.review,
         json.dumps(["LOW_CONFIDENCE"] if song.review else []), json.dumps(ranked[:3] if song.review else ranked[:1]),
         json.dumps(probabilities)),
    )  # fmt: skip
    return analysis


def _failure(db: Any, scan: int, path: bytes, code: str, message: str) -> int:
    return db.execute(
        "INSERT INTO files (path, shown, n_bytes, mtime_ns, state, error_code, error_message, error_hint, scan_id) "
        "VALUES (?, ?, 10, 0, 'error', ?, ?, 'Choose a music file.', ?)",
        (path, path.decode("utf-8", "replace"), code, message, scan),
    ).lastrowid


def decide(library: Library, track: int, genre: str | None, kind: str = "genre", who: str = "test") -> None:
    """A decision as it stands in the tables."""

    def work(db: Any) -> None:
        number = db.execute(
            "INSERT INTO decisions (track_id, made_at, who, kind, genre) VALUES (?, '2026-01-02', ?, ?, ?)",
            (track, who, kind, genre),
        ).lastrowid
        db.execute("INSERT OR REPLACE INTO in_force VALUES (?, ?)", (track, number))

    library.database.write(work)


def open_library(folder: Path, n: int = 300, **more: Any) -> Library:
    library = Library(folder / "library.db")
    fill(library, made_songs(n, **more))
    return library
