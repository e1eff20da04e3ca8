"""One line of the history as JSON, and back. Nothing is believed that was not checked."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, NoReturn, cast

from ..errors import AcousticError, LibraryError
from ..kept import NOT_MUSIC
from .decisions import MAX_WHO_CHARS
from .genres import tidy
from .lineage import MAX_CONTENTS

FORMAT, VERSION = "acousticsense decisions", 1
MAX_LINE_BYTES = 1 << 20
_KINDS = ("genre", "not_music", "skip", "undo")

Key = tuple[str, str, str, str | None]
"""made_at, who, kind, genre: with the song it is one line of the history"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history, checked. `known_as` are digests that the song had before tags were written into it."""

    digest: str
    n_bytes: int
    key: Key
    undoes: Key | None
    batch: str
    said_genre: str
    said_confidence: float
    took_s: float | None
    known_as: tuple[str, ...] = ()


def encode(said: dict[str, Any]) -> bytes:
    """`said` as a line of JSON in UTF-8."""
    return json.dumps(said, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def parse(line: bytes) -> Line | None:
    """The line, None for an empty one or a heading; LibraryError for anything else."""
    if len(line) > MAX_LINE_BYTES:
        _refuse(f"longer than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        return None
    try:
        said = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        _refuse(f"not JSON ({str(error)[:100]})")
    if not isinstance(said, dict):
        _refuse("not an object")
    if "format" in said:
        if said["format"] != FORMAT or said.get("version") != VERSION:
            raise NewerFormatError(
                "written by a newer version, or by another program", "Update AcousticSense, then import."
            )
        return None
    digest, n_bytes = said.get("digest"), said.get("n_bytes")
    if not _is_digest(digest):
        _refuse("`digest` is not one: 64 hexadecimal digits")
    known_as = said.get("known_as", [])
    if not isinstance(known_as, list) or len(known_as) >= MAX_CONTENTS or not all(map(_is_digest, known_as)):
        _refuse(f"`known_as` is not a list of fewer than {MAX_CONTENTS} digests")
    if type(n_bytes) is not int or not 0 <= n_bytes < 1 << 63:
        _refuse("`n_bytes` is not a length")
    if "file_bytes" in said:
        _check_base64(said["file_bytes"])
    key, undoes = _key(said), said.get("undoes")
    if (key[2] == "undo") != isinstance(undoes, dict):
        _refuse("`undoes` goes with the kind 'undo'")
    undone = _key(undoes) if isinstance(undoes, dict) else None
    if undone is not None and undone[2] == "undo":
        _refuse("an undo cannot be taken back")
    confidence, took_s = said.get("said_confidence", 0.0), said.get("took_s")
    if not _is_number(confidence) or confidence > 1:
        _refuse("`said_confidence` is not between 0 and 1")
    if took_s is not None and not _is_number(took_s):
        _refuse("`took_s` is not a duration")
    batch, said_genre = (_text(said, name, MAX_WHO_CHARS, "") for name in ("batch", "said_genre"))
    return Line(
        cast(str, digest),
        n_bytes,
        key,
        undone,
        batch,
        said_genre,
        float(confidence),
        None if took_s is None else float(took_s),
        tuple(known_as),
    )


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than any of ours, its beginning, which is then refused."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return


def _key(said: dict[str, Any]) -> Key:
    kind, genre = said.get("kind"), said.get("genre")
    if kind not in _KINDS:
        _refuse(f"`kind` is none of {', '.join(_KINDS)}")
    if (kind == "genre") != isinstance(genre, str):
        _refuse("`genre` goes with the kind 'genre'")
    who = _text(said, "who", MAX_WHO_CHARS)
    try:
        made_at = datetime.fromisoformat(_text(said, "made_at", MAX_WHO_CHARS))
        if made_at.tzinfo is None or not 1970 <= made_at.year < 9999:
            raise ValueError
        clean = tidy(genre) if isinstance(genre, str) else None
    except ValueError:
        _refuse("`made_at` is not a time with its time zone")
    except AcousticError as error:
        raise LibraryError(f"`genre`: {error.message}", error.hint) from None
    if clean == NOT_MUSIC:
        _refuse(f"`genre` cannot be {NOT_MUSIC!r}: that is the kind 'not_music'")
    return made_at.astimezone(UTC).isoformat(timespec="microseconds"), who, cast(str, kind), clean


def _text(said: dict[str, Any], name: str, longest: int, default: str | None = None) -> str:
    text = said.get(name, default)
    if (
        not isinstance(text, str)
        or len(text) > longest
        or not text.isprintable()
        or (default is None and not text.strip())
    ):
        _refuse(f"`{name}` is not a text of up to {longest} characters that can be printed")
    return text


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:
        return False


def _check_base64(value: object) -> None:
    try:
        base64.b64decode(cast(str, value), validate=True)
    except (TypeError, ValueError):
        _refuse("`file_bytes` is not base64")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class NewerFormatError(LibraryError):
    """The whole file is refused."""


def _refuse(why: str) -> NoReturn:
    raise LibraryError(why, "Export it again; a line that was edited must keep its form.")
