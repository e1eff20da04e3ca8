"""Manifest -> rows, checked before anything is computed, and split so that no group crosses."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ManifestError
from ..signal.audio import find_audio
from ..signal.files import digest
from .config import Source, TrainConfig

MIN_HELD_OUT = 2
"""labelled groups that calibration needs: each is judged by what was fitted on the others"""


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the training data. `genre` is empty where nobody says and for what is not music; `group` never
    crosses the split; `dataset` is the manifest's own name for a part of a source, if it has that column."""

    file: str
    source: str
    kind: str
    genre: str
    group: str
    dataset: str = ""
    where: str = field(default="", compare=False)
    """manifest and line, for messages"""


def read_rows(config: TrainConfig, data: Path) -> list[Row]:
    """Every row of every source. ManifestError names the manifest and the line of a missing or empty file, an unknown
    genre or a missing column, both rows of a file given twice or of a group that is in two places and so could be on
    both sides of the split, a source without files, and a genre without files."""
    found: list[Row] = []
    for source in config.sources:
        part = _from_folder(source, data) if source.folder else _from_csv(source, data, config.labels)
        if not part:
            where = data / (source.folder or source.manifest)
            raise ManifestError(
                f"source {source.name!r} has no files: {where}", "Give it a manifest with rows, or a folder of audio."
            )
        found += part
    _check_files(found, data)
    _check_groups(found)
    _check_contents(found, data)
    used = {row.genre for row in found}
    for label in config.labels:
        if label not in used:
            raise ManifestError(f"no file has the genre {label!r}", "Label some files, or take it out of `labels`.")
    return found


def _check_files(found: Sequence[Row], data: Path) -> None:
    """No file twice, by whatever way its name leads there."""
    first: dict[str, Row] = {}
    for row in found:
        path = os.path.realpath(data / row.file)
        if path in first:
            as_name = f", as {first[path].file!r}" if first[path].file != row.file else ""
            raise ManifestError(
                f"{row.where}: {row.file!r} is given already{as_name}: {first[path].where}", "Take one of them out."
            )
        first[path] = row


def _check_groups(found: Sequence[Row]) -> None:
    """No group by the same name in two sources: each is split by itself, so they could come to lie on both sides."""
    first: dict[str, tuple[str, str]] = {}
    for row in found:
        name = row.group.removeprefix(f"{row.source}:")
        source, there = first.setdefault(name, (row.source, row.where))
        if source != row.source:
            raise ManifestError(
                f"{row.where}: the group {name!r} is in the source {source!r} too: {there}",
                "Put both into one source if they are the same, or give them different names.",
            )


def _check_contents(found: Sequence[Row], data: Path) -> None:
    """No recording in two groups under two names. Only files of one size are read."""
    sizes: dict[int, list[Row]] = {}
    for row in found:
        sizes.setdefault((data / row.file).stat().st_size, []).append(row)
    if 0 in sizes:
        row = sizes[0][0]
        raise ManifestError(f"{row.where}: {row.file!r} is empty")
    for alike in (some for some in sizes.values() if len(some) > 1):
        first: dict[str, Row] = {}
        for row in alike:
            check_one_recording(first.setdefault(digest(data / row.file), row), row)


def check_one_recording(other: Row, row: Row) -> None:
    """ManifestError where these two rows, which are of one recording, say different things of it."""
    if other.group != row.group:
        raise ManifestError(
            f"{row.where}: {row.file!r} in the group {row.group!r} is the same recording as {other.file!r} in"
            f" {other.group!r}: {other.where}",
            "Take one of them out, or put both into one group.",
        )
    if other.genre and row.genre and other.genre != row.genre:
        raise ManifestError(
            f"{row.where}: {row.file!r} is {row.genre!r}, and the same recording as {other.file!r}, which is"
            f" {other.genre!r}: {other.where}",
            "Take one of them out.",
        )


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line that it begins on, cells without blanks around them) of every row of a CSV file with a header; a file's
    name stays as it is. ManifestError names the file that cannot be read, or the line of a column of `needed` that the
    header lacks, of one that it has twice and of a quotation mark that nothing closes."""
    names: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    begin = 1
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin a file with a mark
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    pass  # a blank line, or one of separators alone
                elif not names:
                    names = [cell.strip() for cell in cells]
                    _check_header(f"{path}, line {begin}", names, needed)
                else:
                    given = dict(zip(names, [*cells, *[""] * len(names)], strict=False))
                    rows.append(
                        (begin, {name: given[name] if name == "file" else given[name].strip() for name in names})
                    )
                begin = reader.line_num + 1
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "Check the name of the manifest and its folder.") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not a CSV file in UTF-8: {error}", "Save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise ManifestError(
            f"{path}, line {begin}: the row that begins here is none: {error}",
            "Look for a quotation mark that nothing closes, or one inside a cell that is not written twice.",
        ) from None
    if not names:
        raise ManifestError(f"{path}: is empty", _columns(needed))
    return rows


def _columns(needed: Sequence[str]) -> str:
    return f"The first line names the columns, with commas between them: {','.join(dict.fromkeys(needed))}."


def _check_header(where: str, names: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            there = ", ".join(map(repr, names))
            raise ManifestError(f"{where}: no column {name!r}; there are {there}", _columns(needed))
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise ManifestError(f"{where}: the column {twice!r} is there twice", "Take one of them out.")


def _from_folder(source: Source, data: Path) -> list[Row]:
    if not os.path.isdir(data / source.folder):  # a name too long for the disk is none, too
        raise ManifestError(f"source {source.name!r}: no folder {data / source.folder}", "Check its name.")
    found: dict[str, Path] = {}
    for path in find_audio(data / source.folder):
        found.setdefault(os.path.realpath(path), path)  # a link to another file of the folder is no more data
    files = [(path.relative_to(data) if path.is_relative_to(data) else path).as_posix() for path in found.values()]
    where = f"folder {source.folder}"
    return [Row(file, source.name, source.kind, "", _group(source, file, file, where), where=where) for file in files]


def _from_csv(source: Source, data: Path, labels: Sequence[str]) -> list[Row]:
    path = data / source.manifest
    rows = []
    for line, cells in read_table(path, ("file", *source.group)):
        where = f"{path}, line {line}"
        missing = [column for column in ("file", *source.group) if not cells.get(column)]
        if missing:
            raise ManifestError(f"{where}: no value in column {missing[0]!r}")
        genre = (cells.get("genre") or "") if source.kind == "music" else ""
        if genre and genre not in labels:
            raise ManifestError(f"{where}: unknown genre {genre!r}", f"Known: {', '.join(labels)}.")
        if not os.path.isfile(data / cells["file"]):  # a name too long for the disk is none, too
            raise ManifestError(f"{where}: no file {cells['file']!r}")
        group = _group(source, cells["file"], "/".join(cells[column] for column in source.group), where)
        rows.append(Row(cells["file"], source.name, source.kind, genre, group, cells.get("dataset") or "", where))
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


def split(rows: Sequence[Row], config: TrainConfig) -> list[bool]:
    """Whether each row is held out, (n,): a group is on one side as a whole.

    A hash of the group alone decides, so rows that are added later move nobody. Only where chance leaves a side of a
    small manifest without what it needs are groups moved, in the order of their hashes: the last groups of a genre
    whose label is trusted go back to be trained on, and of genres that have groups to spare some are held out, until
    MIN_HELD_OUT labelled ones are.
    """
    place = {row.group: _place(row.group, config.seed) for row in rows}
    held = {group for group in place if place[group] < config.held_out}
    trusted = {source.name for source in config.sources if source.label_weight > 0}
    groups: dict[str, set[str]] = {}
    for row in rows:
        if row.genre and row.source in trusted:
            groups.setdefault(row.genre, set()).add(row.group)
    for having in groups.values():
        if having <= held:
            held.remove(max(having, key=place.__getitem__))
    labelled = {group for having in groups.values() for group in having}
    for group in sorted(labelled - held, key=place.__getitem__):
        if len(held & labelled) >= MIN_HELD_OUT:
            break
        if all(having - held - {group} for having in groups.values() if group in having):
            held.add(group)
    return [row.group in held for row in rows]


def _place(group: str, seed: int) -> float:
    """Where in [0, 1) the group lies: below `held_out` it is held out."""
    digest = hashlib.blake2b(os.fsencode(f"{seed}:{group}"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
