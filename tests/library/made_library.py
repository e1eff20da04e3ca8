"""Rows for the tests of the library, as a scan would leave them."""

from __future__ import annotations

import hashlib

from acoustic.library.database import Connection, Database


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def add_track(connection: Connection, name: str, genre: str = "Jazz", confidence: float = 0.5, flag: int = 1) -> int:
    """A song with a file of that name, an analysis and a verdict; its id."""
    connection.execute(
        "INSERT OR IGNORE INTO models (id, name, weights_digest, settings) VALUES (1, 'small', 'w', '{}')"
    )
    connection.execute(
        "INSERT OR IGNORE INTO scans (id, root, engine, model_id, started_at, state)"
        " VALUES (1, x'2f', 'local', 1, '2026-01-01T00:00:00.000000+00:00', 'done')"
    )
    sql = "INSERT INTO tracks (digest, n_bytes, added_at) VALUES (?, 1000, '2026-01-01T00:00:00.000000+00:00')"
    track_id = connection.execute(sql, (digest_of(name),)).lastrowid
    assert track_id is not None
    add_file(connection, track_id, f"/music/{name}.mp3".encode())
    analysis_id = connection.execute(
        "INSERT INTO analyses (track_id, model_id, made_at, duration_s, analyzed_s, n_segments, warnings, embedding,"
        " places, logits, tag_logits, embeddings) VALUES (?, 1, 'then', 180, 30, 1, '[]', x'', x'', x'', x'', x'')",
        (track_id,),
    ).lastrowid
    connection.execute(
        "INSERT INTO verdicts (analysis_id, personal, top_genre, confidence, margin, uncertainty, agreement,"
        " needs_review, review_reasons, prediction_set, probabilities)"
        " VALUES (?, '', ?, ?, 0, 0, 1, ?, '[]', '[]', '{}')",
        (analysis_id, genre, confidence, flag),
    )
    return track_id


def add_file(connection: Connection, track_id: int, path: bytes) -> None:
    connection.execute(
        "INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, scan_id, title)"
        " VALUES (?, ?, ?, 1000, 1, 'ok', 1, 'A title')",
        (path, path.decode("utf-8", "replace"), track_id),
    )


def add_tracks(database: Database, *names: str) -> list[int]:
    return database.write(lambda connection: [add_track(connection, name) for name in names])
