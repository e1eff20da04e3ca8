"""Manifest -> rows, checked before anything is computed, and split so that no group crosses."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ManifestError
from ..signal.audio import find_audio
from ..signal.files import digest
from .config import Source, TrainConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the training data. `genre` is empty where nobody says; `group` never crosses the split; `dataset` is
    the manifest's own name for a part of a source, if it has that column."""

    file: str
    source: str
    kind: str
    genre: str
    group: str
    dataset: str = ""


Located = tuple[str, Row]
"""a row and where it stands, for messages"""


def read_rows(config: TrainConfig, data: Path) -> list[Row]:
    """Every row of every source. ManifestError names the manifest and the line of a missing or empty file, an unknown
    genre or a missing column, both rows of a file given twice or of a group that is in two places and so could be on
    both sides of the split, a source without files, and a genre without files."""
    found: list[Located] = []
    for source in config.sources:
        part = _from_folder(source, data) if source.folder else _from_csv(source, data, config.labels)
        if not part:
            raise ManifestError(
                f"source {source.name!r} has no files", "Give it a manifest with rows, or a folder of audio."
            )
        found += part
    _check_files(found)
    _check_groups(found)
    _check_contents(found, data)
    used = {row.genre for _, row in found}
    for label in config.labels:
        if label not in used:
            raise ManifestError(f"no file has the genre {label!r}", "Label some files, or take it out of `labels`.")
    return [row for _, row in found]


def _check_files(found: Sequence[Located]) -> None:
    first: dict[str, str] = {}
    for where, row in found:
        if row.file in first:
            raise ManifestError(f"{where}: {row.file!r} is given already: {first[row.file]}", "Take one of them out.")
        first[row.file] = where


def _check_groups(found: Sequence[Located]) -> None:
    """No group by the same name in two sources: each is split by itself, so they could come to lie on both sides."""
    first: dict[str, tuple[str, str]] = {}
    for where, row in found:
        name = row.group.removeprefix(f"{row.source}:")
        source, there = first.setdefault(name, (row.source, where))
        if source != row.source:
            raise ManifestError(
                f"{where}: the group {name!r} is in the source {source!r} too: {there}",
                "Put both into one source if they are the same, or give them different names.",
            )


def _check_contents(found: Sequence[Located], data: Path) -> None:
    """No recording in two groups under two names. Only files of one size are read."""
    sizes: dict[int, list[Located]] = {}
    for where, row in found:
        sizes.setdefault((data / row.file).stat().st_size, []).append((where, row))
    if 0 in sizes:
        where, row = sizes[0][0]
        raise ManifestError(f"{where}: {row.file!r} is empty")
    for alike in (some for some in sizes.values() if len(some) > 1):
        first: dict[str, Located] = {}
        for where, row in alike:
            there, other = first.setdefault(digest(data / row.file), (where, row))
            if other.group != row.group:
                raise ManifestError(
                    f"{where}: {row.file!r} in the group {row.group!r} is the same recording as {other.file!r} in"
                    f" {other.group!r}: {there}",
                    "Take one of them out, or put both into one group.",
                )


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells) of every row of a CSV file with a header. ManifestError names the file that cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin a file with a mark
            return list(enumerate(csv.DictReader(stream), 2))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "Check the name of the manifest and its folder.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not a CSV file: {error}") from None


def _from_folder(source: Source, data: Path) -> list[Located]:
    files = [path.relative_to(data).as_posix() for path in find_audio(data / source.folder)]
    where = f"folder {source.folder}"
    return [(where, Row(file, source.name, source.kind, "", _group(source, file, file, where))) for file in files]


def _from_csv(source: Source, data: Path, labels: Sequence[str]) -> list[Located]:
    path = data / source.manifest
    rows = []
    for line, cells in read_table(path):
        where = f"{path}, line {line}"
        missing = [column for column in ("file", *source.group) if not cells.get(column)]
        if missing:
            raise ManifestError(f"{where}: no value in column {missing[0]!r}")
        genre = cells.get("genre") or ""
        if genre and genre not in labels:
            raise ManifestError(f"{where}: unknown genre {genre!r}", f"Known: {', '.join(labels)}.")
        if not (data / cells["file"]).is_file():
            raise ManifestError(f"{where}: no file {cells['file']!r}")
        group = _group(source, cells["file"], "/".join(cells[column] for column in source.group), where)
        rows.append((where, Row(cells["file"], source.name, source.kind, genre, group, cells.get("dataset") or "")))
    return rows


def _group(source: Source, file: str, otherwise: str, where: str) -> str:
    """The group of a file: what the source's pattern finds in its name, or `otherwise` where there is no pattern."""
    if not source.group_pattern:
        return f"{source.name}:{otherwise}"
    found = re.search(source.group_pattern, file)
    if found is None or not found[1]:
        raise ManifestError(
            f"{where}: group_pattern {source.group_pattern!r} finds nothing in {file!r}",
            "Mend the pattern or the name.",
        )
    return f"{source.name}:{found[1]}"


def held_out(row: Row, seed: int, share: float) -> bool:
    """Whether the row's group is kept from training. Decided by a hash of the group alone, so rows that are added later
    move nobody."""
    digest = hashlib.blake2b(f"{seed}:{row.group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
