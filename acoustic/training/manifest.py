"""Manifest -> rows, checked before anything is computed, and split so that no group crosses."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ManifestError
from ..signal.audio import find_audio
from .config import Source, TrainConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the training data. `genre` is empty where nobody says; `group` never crosses the split."""

    file: str
    source: str
    kind: str
    genre: str
    group: str


def read_rows(config: TrainConfig, data: Path) -> list[Row]:
    """Every row of every source. ManifestError names the manifest and the line of a missing file, an unknown genre, a
    missing column, a file given twice, or a source without files."""
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for source in config.sources:
        found = _from_folder(source, data) if source.folder else _from_csv(source, data, config.labels)
        if not found:
            raise ManifestError(
                f"source {source.name!r} has no files", "Give it a manifest with rows, or a folder of audio."
            )
        for row in found:
            if row.file in seen:
                raise ManifestError(f"{row.file!r} is in {seen[row.file]!r} and again in {source.name!r}")
            seen[row.file] = source.name
        rows += found
    return rows


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells) of every row of a CSV file with a header. ManifestError names the file that cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin a file with a mark
            return list(enumerate(csv.DictReader(stream), 2))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "Check the name of the manifest and its folder.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not a CSV file: {error}") from None


def _from_folder(source: Source, data: Path) -> list[Row]:
    files = (path.relative_to(data).as_posix() for path in find_audio(data / source.folder))
    return [Row(file, source.name, source.kind, "", f"{source.name}:{file}") for file in files]


def _from_csv(source: Source, data: Path, labels: Sequence[str]) -> list[Row]:
    path = data / source.manifest
    rows = []
    for line, cells in read_table(path):
        missing = [column for column in ("file", *source.group) if not cells.get(column)]
        if missing:
            raise ManifestError(f"{path}, line {line}: no value in column {missing[0]!r}")
        genre = cells.get("genre") or ""
        if genre and genre not in labels:
            raise ManifestError(f"{path}, line {line}: unknown genre {genre!r}", f"Known: {', '.join(labels)}.")
        if not (data / cells["file"]).is_file():
            raise ManifestError(f"{path}, line {line}: no file {cells['file']!r}")
        group = "/".join(cells[column] for column in source.group)
        rows.append(Row(cells["file"], source.name, source.kind, genre, f"{source.name}:{group}"))
    return rows


def held_out(row: Row, seed: int, share: float) -> bool:
    """Whether the row's group is kept from training. Decided by a hash of the group alone, so rows that are added later
    move nobody."""
    digest = hashlib.blake2b(f"{seed}:{row.group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
