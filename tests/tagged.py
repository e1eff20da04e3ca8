"""Songs with tags as other programs write them, in a library: for the tests of tags. Loads no torch."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import mutagen
import numpy as np
from mutagen.asf import ASFByteArrayAttribute
from mutagen.flac import Picture
from mutagen.id3 import APIC, COMM, TALB, TDRC, TIT2, TPE1, TXXX
from mutagen.mp4 import MP4Cover

from acoustic.library.database import Connection, Database
from acoustic.library.tag_plan import Change
from acoustic.library.tags import read_tags
from acoustic.settings import Settings
from acoustic.signal import audio

from . import makers

KINDS = ("wav", "flac", "ogg", "opus", "mp3", "noxing.mp3", "aiff", "m4a", "alac.m4a", "wma")
TITLE, ARTIST, ALBUM, YEAR = "Дом, милый дом 家", "Björk & فيروز", "Ça ira ☕", "1997"
COVER = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


def kinds() -> list[str]:
    return [kind for kind in KINDS if makers.can_write(kind)]


def song(path: Path, kind: str, seed: int = 0, seconds: float = 1.2) -> Path:
    """A song of `kind` at `path` without tags."""
    path.write_bytes(_made(kind, seed, seconds))
    return path


@functools.cache
def _made(kind: str, seed: int, seconds: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return makers.write_as(kind, Path(folder) / f"made.{kind}", makers.music(seconds, seed=seed)).read_bytes()


def furnish(path: Path, genres: Sequence[str] = ()) -> Path:
    """Title, artist, album, year, a cover, a comment and something of another program's, in the file's own way."""
    with open(path, "r+b") as raw:
        file = mutagen.File(raw)
        if file.tags is None:
            file.add_tags()
        tags = file.tags
        if hasattr(tags, "getall"):  # ID3
            for frame in (TIT2, TPE1, TALB, TDRC):
                text = {TIT2: TITLE, TPE1: ARTIST, TALB: ALBUM, TDRC: YEAR}[frame]
                tags.add(frame(encoding=3, text=[text]))
            tags.add(APIC(encoding=3, mime="image/png", type=3, desc="cover", data=COVER))
            tags.add(COMM(encoding=3, lang="deu", desc="", text=["Größe"]))
            tags.add(TXXX(encoding=3, desc="REPLAYGAIN_TRACK_GAIN", text=["-7.12 dB"]))
            if genres:
                tags.add(mutagen.id3.TCON(encoding=3, text=list(genres)))
        elif isinstance(file, mutagen.mp4.MP4):
            tags.update({"\xa9nam": [TITLE], "\xa9ART": [ARTIST], "\xa9alb": [ALBUM], "\xa9day": [YEAR]})
            tags["covr"] = [MP4Cover(COVER, MP4Cover.FORMAT_PNG)]
            tags["trkn"] = [(3, 12)]
            tags["----:com.apple.iTunes:MOOD"] = [b"calm"]
            if genres:
                tags["\xa9gen"] = list(genres)
        elif isinstance(file, mutagen.asf.ASF):
            tags["Title"], tags["Author"], tags["WM/AlbumTitle"], tags["WM/Year"] = TITLE, ARTIST, ALBUM, YEAR
            tags["WM/Picture"] = ASFByteArrayAttribute(COVER)
            if genres:
                tags["WM/Genre"] = list(genres)
        else:
            tags["title"], tags["artist"], tags["album"], tags["date"] = TITLE, ARTIST, ALBUM, YEAR
            tags["mood"] = ["calm", "dark"]
            if isinstance(file, mutagen.flac.FLAC):
                picture = Picture()
                picture.type, picture.mime, picture.data = 3, "image/png", COVER
                file.add_picture(picture)
            if genres:
                tags["Genre"] = list(genres)
        raw.seek(0)
        file.save(raw)
    return path


def quick_digest(path: bytes) -> str:
    """The decoded samples of a short song, as the analysis hears them."""
    samples = audio.load(os.fsdecode(path), None, Settings(min_duration_s=0.0)).samples
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()


def change(path: Path | bytes, *after: str) -> Change:
    """A change of the file as it is now."""
    name = os.fsencode(path)
    status = os.stat(name)
    return Change(
        name, read_tags(name).genres, after, "model", 0.9, n_bytes=status.st_size, mtime_ns=status.st_mtime_ns
    )


def keep(
    database: Database,
    paths: Sequence[Path | bytes],
    probabilities: dict[str, float] | None = None,
    decided: str | None = None,
    kind: str = "genre",
    added_at: str = "1999",
) -> int:
    """A track of one content that lies at `paths`, as a scan and a person leave it; its id."""
    names = [os.fsencode(path) for path in paths]
    digest, status = audio.digest(os.fsdecode(names[0])), os.stat(names[0])

    def insert(c: Connection, table: str, **values: object) -> int:
        marks = ", ".join("?" * len(values))
        return int(
            c.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values())).lastrowid
            or 0
        )

    def work(c: Connection) -> int:
        c.execute("INSERT OR IGNORE INTO models (id, name, weights_digest, settings) VALUES (1, 'small', 'w', '{}')")
        c.execute(
            "INSERT OR IGNORE INTO scans (id, root, engine, model_id, started_at, state)"
            " VALUES (1, x'2f', 'local', 1, 'then', 'done')"
        )
        track = insert(c, "tracks", digest=digest, n_bytes=status.st_size, added_at=added_at)
        for name in names:
            at = os.stat(name)
            insert(
                c, "files", path=name, shown=name.decode("utf-8", "replace"), track_id=track, n_bytes=at.st_size,
                mtime_ns=at.st_mtime_ns, state="ok", scan_id=1, genres=json.dumps(read_tags(name).genres),
            )  # fmt: skip
        if probabilities is not None:
            analysis = insert(
                c, "analyses", track_id=track, model_id=1, made_at="then", duration_s=1.0, analyzed_s=1.0,
                n_segments=1, places=b"", logits=b"", tag_logits=b"", embeddings=b"", embedding=b"", warnings="[]",
            )  # fmt: skip
            top = max(probabilities, key=lambda genre: probabilities[genre])
            insert(
                c, "verdicts", analysis_id=analysis, personal="", top_genre=top, confidence=probabilities[top],
                margin=0.1, uncertainty=0.1, agreement=1.0, needs_review=0, review_reasons="[]", prediction_set="[]",
                probabilities=json.dumps(probabilities),
            )  # fmt: skip
        if decided is not None or kind != "genre":
            values = {"track_id": track, "made_at": "then", "who": "Ana", "kind": kind, "genre": decided}
            said = insert(c, "decisions", **values)
            insert(c, "in_force", track_id=track, decision_id=said)
        return track

    return database.write(work)


def left_beside(folder: Path) -> list[str]:
    """What of ours lies in `folder` that should not."""
    return [name for name in os.listdir(folder) if name.startswith(".acoustic-")]


def killed_at(step_number: int, library: Path, path: bytes, genre: str, exit_: Callable[[int], object]) -> None:
    """In a process of its own: write `genre` into the file at `path` (empty: undo the latest batch), and end the
    process at the given step, counted from 0, as a kill would; exit status 9 then, 0 where there is no such step."""
    from acoustic.library.tagging import Policy, TagJournal

    n = iter(range(1_000))

    def at_step(name: str, _: bytes) -> None:
        if next(n) == step_number:
            exit_(9)

    journal = TagJournal(Database(library))
    if genre:
        done = journal.apply([change(path, genre)], Policy(), quick_digest, at_step=at_step)
    else:
        done = journal.undo(audio_digest=quick_digest, at_step=at_step)
    assert not done.failures, done.failures
    exit_(0)
