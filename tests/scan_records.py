"""Records as a scan makes them, without a scan: analyses of made-up votes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from acoustic.errors import CorruptAudioError
from acoustic.kept import FileRecord, SongTags
from acoustic.records import Analysis, AudioWarning, Calibration, Failure, Votes
from acoustic.verdict.decision import decide

LABELS = ("Blues", "Jazz", "Hip-Hop", "R&B")
TAGS = ("Music", "Singing")
N_EMBEDDING = 8


def votes(seed: int, n_segments: int = 3) -> Votes:
    rng = np.random.default_rng(seed)
    shapes = ((n_segments, len(LABELS)), (n_segments, len(TAGS)), (n_segments, N_EMBEDDING))
    return Votes(*(rng.normal(0, 2, shape).astype(np.float32) for shape in shapes))


def analysis(seed: int = 0, path: str = "a.wav", **changes: object) -> Analysis:
    said = votes(seed)
    made = Analysis(
        path=path,
        model="made-up",
        duration_s=30.0,
        analyzed_s=30.0,
        cached=False,
        verdict=decide(said, LABELS, TAGS, Calibration()),
        start_s=(0.0, 10.0, 20.0),
        end_s=(10.0, 20.0, 30.0),
        tags=(),
        embedding=said.embeddings.mean(axis=0),
        timings_ms={},
        warnings=(AudioWarning("CLIPPED", "loud"),),
        votes=said,
    )
    return replace(made, **changes)


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def ok(path: bytes, seed: int = 0, mtime_ns: int = 1, tags: SongTags | None = None) -> FileRecord:
    """A file whose content is the number `seed`."""
    return FileRecord(path, 1_000, mtime_ns, digest(str(seed)), analysis(seed), tags or SongTags())


def failed(path: bytes, code: str = "CORRUPT", mtime_ns: int = 1) -> FileRecord:
    error = {**CorruptAudioError("damaged").to_dict(), "code": code}
    return FileRecord(path, 1_000, mtime_ns, digest("bad"), Failure("x", error))
