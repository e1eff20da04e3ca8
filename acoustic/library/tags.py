"""What a file's own tags say, and the one thing that is ever written into them: genres. The only user of mutagen.

    MP3                      ID3v2 TCON; version 2.3 or 2.4 as found (2.2 becomes 2.3, none becomes 2.4)
    WAV, AIFF                the same, in their ID3 chunk
    FLAC, Ogg, Opus          GENRE comments
    M4A                      (c)gen atoms
    WMA                      WM/Genre attributes

What a file is, is told by its bytes, never by its name. Several genres are several values, but for ID3v2.3, which has
no place for them: there they are one text, joined and split by "; ". An ID3v1 tag stays as it is; where it is the only
one, what it says is carried over into the new ID3v2 tag, which would hide it from most players otherwise.

Tags that say nothing are an empty SongTags; a file that has no tags that can be read is a TagError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from mutagen import MutagenError
from mutagen.aiff import AIFF
from mutagen.apev2 import APEv2
from mutagen.asf import ASF
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, ID3NoHeaderError
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from ..errors import TagError
from ..kept import SongTags, shown_path
from .tag_containers import chunks, kind_of

MAX_CHARS = 1_000  # of one value; a tag may hold megabytes
MAX_GENRES = 100
_TAIL = 256  # bytes at the end of an MP3 that hold an ID3v1 tag, with room to spare
_JOIN_V23 = "; "
_CHUNKED = {"wav": ("<", b"data", b"id3 "), "aiff": (">", b"SSND", b"ID3 ")}

_OGG: tuple[tuple[bytes, type], ...] = (
    (b"\x01vorbis", OggVorbis),
    (b"OpusHead", OggOpus),
    (b"\x7fFLAC", OggFLAC),
    (b"Speex   ", OggSpeex),
)
_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {  # title, artist, album, year
    "id3": (("TIT2",), ("TPE1",), ("TALB",), ("TDRC", "TYER", "TDOR")),
    "comments": (("title",), ("artist",), ("album",), ("date", "year", "originaldate")),
    "m4a": (("\xa9nam",), ("\xa9ART",), ("\xa9alb",), ("\xa9day",)),
    "wma": (("Title",), ("Author",), ("WM/AlbumTitle",), ("WM/Year",)),
    "ape": (("Title",), ("Artist",), ("Album",), ("Year",)),
    "info": (("INAM",), ("IART",), ("IPRD",), ("ICRD",)),
}
_GENRE = {"comments": "genre", "m4a": "\xa9gen", "wma": "WM/Genre", "ape": "Genre", "info": "IGNR"}
_FAMILY = {"mp3": "id3", "wav": "id3", "aiff": "id3", "flac": "comments", "ogg": "comments"}

AnyPath = bytes | str | os.PathLike[str]


def read_tags(path: AnyPath) -> SongTags:
    """What the tags of the file say; TagError for one that cannot be read. Several artists are joined by ", "."""
    with _opened(path, "rb") as file:
        kind = kind_of(file)
        if kind == "ape":
            return _read("ape", _ape(file))
        tags = _load(kind, file).tags
        if kind == "wav" and not tags:
            return _read("info", _wave_info(file))
        return SongTags() if tags is None else _read(_FAMILY.get(kind, kind), tags)


def write_genres(path: AnyPath, genres: Sequence[str]) -> None:
    """Write `genres` over those of the file, in place, and nothing else; none removes them.

    Nothing protects the file if this is interrupted: it is made for a copy. Raises TagError, also for tags of which
    mutagen could not keep all, and OSError where the disk is full or the file may not be written.
    """
    wanted = list(genres)
    with _opened(path, "r+b") as file:
        kind = kind_of(file)
        if kind == "mp3":
            _load(kind, file)  # a stream of MPEG audio, and not something else behind an ID3 tag
            return _write_mp3(file, wanted)
        if kind == "ape":
            raise TagError("no tags are written into this kind of file")
        song = _load(kind, file)
        if song.tags is None:
            song.add_tags()
        tags = song.tags
        if kind in _CHUNKED:
            if kind == "wav" and any(name == b"ID3 " for name, _, _ in chunks(file, "<")):
                raise TagError("its tags are in a chunk of an old kind, which is not written")
            version = _set_id3(tags, wanted)
            file.seek(0)
            tags.save(file, v2_version=version, v23_sep=None)
            return None
        family = _FAMILY.get(kind, kind)
        if family == "comments":
            if any("\ufffd" in value for _, value in tags):
                raise TagError("some of its tags are not UTF-8 and could not be kept as they are")
            _set_comments(tags, wanted)
        elif wanted:
            tags[_GENRE[family]] = wanted
        else:
            with contextlib.suppress(KeyError):
                del tags[_GENRE[family]]
        file.seek(0)
        song.save(file)
    return None


def other_tags(path: AnyPath) -> str:
    """A digest of all that the tags say but for genres: the same before and after `write_genres`. TagError."""
    with _opened(path, "rb") as file:
        kind = kind_of(file)
        song = _load(kind, file)
        tags = song.tags
        said: list[Any] = []
        if _FAMILY.get(kind) == "id3":
            said = [] if tags is None else [_frame(frame) for frame in tags.values() if frame.FrameID != "TCON"]
            said += [] if tags is None else [bytes(data).hex() for data in tags.unknown_frames]
        elif tags is not None:
            family = _FAMILY.get(kind, kind)
            pairs = tags.items() if family == "m4a" else tags
            said = [f"{k}={v!r}" for k, v in pairs if k.lower() != _GENRE[family].lower()]
        if kind == "flac":
            said += [(b.code, b.write().hex()) for b in song.metadata_blocks if b.code not in (1, 4)]
        if kind in _CHUNKED:
            order, audio, ours = _CHUNKED[kind]
            for name, offset, length in chunks(file, order):
                if name not in (audio, ours):
                    file.seek(offset)
                    said.append((name.hex(), file.read(min(length, 1 << 24)).hex()))
        hasher = hashlib.blake2b(digest_size=32)
        for one in sorted(map(repr, said)):
            hasher.update(one.encode("utf-8", "surrogatepass") + b"\n")
        return hasher.hexdigest()


def clean_genres(values: Iterable[Any]) -> tuple[str, ...]:
    """Genres as they are shown and compared: trimmed, without empty and repeated ones."""
    found = (_text(value) for value in values)
    return tuple(dict.fromkeys(genre for genre in found if genre))[:MAX_GENRES]


# --- files ---


@contextlib.contextmanager
def _opened(path: AnyPath, mode: str) -> Iterator[BinaryIO]:
    """The file, if it is a regular one. What mutagen raises becomes TagError; a full disk stays an OSError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise TagError(f"{_shown(path)} is not a file")
        with open(path, mode) as file:
            yield file  # type: ignore[misc]
    except TagError as error:
        raise (
            error if error.message.startswith(_shown(path)) else TagError(f"{_shown(path)}: {error.message}")
        ) from None
    except Exception as error:  # mutagen raises whatever Python raises on bytes that make no sense
        cause = error.args[0] if isinstance(error, MutagenError) and error.args else error
        if isinstance(cause, OSError):
            if mode != "rb" or cause.errno == errno.ENOSPC:
                raise cause from error
            raise TagError(f"{_shown(path)} cannot be read: {cause.strerror or cause}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TagError(f"{_shown(path)}: its tags cannot be read ({_text(reason)})") from error


def is_writable(path: AnyPath) -> bool:
    """Whether genres can be written into a file of this kind; what is none of any kind is told when it is read."""
    try:
        with _opened(path, "rb") as file:
            return kind_of(file) != "ape"
    except TagError:
        return True


def _load(kind: str, file: BinaryIO) -> Any:
    """What mutagen makes of the file; frames of ID3 stay of the version in which they were found."""
    file.seek(0)
    if kind == "mp3":
        return MP3(file, translate=False)
    if kind in _CHUNKED:
        return (WAVE if kind == "wav" else AIFF)(file, translate=False, load_v1=False)
    if kind == "ogg":
        first = file.read(4096)
        file.seek(0)
        for mark, of in _OGG:
            if mark in first[:128]:
                return of(file)
        raise TagError("an Ogg file of a kind whose tags are not read")
    classes: dict[str, Callable[[BinaryIO], Any]] = {"flac": FLAC, "m4a": MP4, "wma": ASF}
    if kind not in classes:
        raise TagError("no tags are read from this kind of file")
    return classes[kind](file)


def _ape(file: BinaryIO) -> Mapping[str, Any]:
    try:
        return {key: str(value).split("\0") for key, value in APEv2(file).items() if value.kind == 0}
    except MutagenError:
        return {}


def _wave_info(file: BinaryIO) -> Mapping[str, Any]:
    """What a WAV without an ID3 chunk of today's kind says: an older one, or the texts of its LIST INFO chunk."""
    for name, offset, length in chunks(file, "<"):
        file.seek(offset)
        if name == b"ID3 ":
            tags = ID3(io.BytesIO(file.read(length)), load_v1=False)
            song = _read("id3", tags)
            values = (song.title, song.artist, song.album, song.year)
            return {field[0]: [v] for field, v in zip(_FIELDS["info"], values, strict=True)} | {"IGNR": song.genres}
        if name == b"LIST" and file.read(4) == b"INFO":
            body, found, at = file.read(min(length - 4, 1 << 20)), {}, 0
            while at + 8 <= len(body):
                key, n = struct.unpack("<4sI", body[at : at + 8])
                text = body[at + 8 : at + 8 + n].split(b"\0")[0]
                with contextlib.suppress(UnicodeDecodeError):
                    found[key.decode("ascii")] = [_decoded(text)]
                at += 8 + n + n % 2
            return found
    return {}


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace")


# --- values ---


def _read(family: str, tags: Any) -> SongTags:
    def values(keys: Iterable[str]) -> list[Any]:
        for key in keys:
            try:
                found = tags[key]
            except (KeyError, ValueError):
                continue
            held = getattr(found, "text", found)  # a frame of ID3, or a list
            return [one for one in held if _text(one)]
        return []

    title, artist, album, year = (values(keys) for keys in _FIELDS[family])
    genres = _id3_genres(tags) if family == "id3" else clean_genres(values((_GENRE[family],)))
    found = re.search(r"\d{4}", _text(year[0])) if year else None
    return SongTags(
        title=_text(title[0]) if title else "",
        artist=", ".join(dict.fromkeys(map(_text, artist)))[:MAX_CHARS],
        album=_text(album[0]) if album else "",
        year=found[0] if found else "",
        genres=genres,
    )


def _text(value: Any) -> str:
    """One line of text that can be stored: spaces for line ends and NUL, U+FFFD for lone surrogates."""
    clean = " ".join(str(value)[: 4 * MAX_CHARS].replace("\0", " ").split())
    return clean[:MAX_CHARS].encode("utf-8", "replace").decode("utf-8")


def _shown(path: AnyPath) -> str:
    return os.path.basename(shown_path(os.fsencode(path)))


# --- ID3 ---


def _id3_genres(tags: Any) -> tuple[str, ...]:
    """Genres by name, where the tag has their ID3v1 numbers; of ID3v2.3 each text may hold several."""
    named = [genre for frame in tags.getall("TCON") for genre in frame.genres]
    if tags.version < (2, 4, 0):
        named = [part for genre in named for part in genre.split(_JOIN_V23.strip())]
    return clean_genres(named)


def _set_id3(tags: Any, genres: list[str]) -> int:
    """Set the frame; the minor version in which the tag is to be saved."""
    minor = 4 if tags.version >= (2, 4, 0) or not tags.size else 3
    if tags.version < (2, 3, 0) and tags.size:
        if tags.unknown_frames:
            raise TagError("its ID3v2.2 tag holds frames that cannot be carried over to a version of today")
        tags.update_to_v23()
    tags.delall("TCON")
    if not genres:
        return minor
    if minor == 3:
        if any(_JOIN_V23.strip() in genre for genre in genres):
            raise TagError(f"a genre with {_JOIN_V23.strip()!r} in it cannot be written into an ID3v2.3 tag")
        genres = [_JOIN_V23.join(genres)]
        genres = ["(" + genres[0] if genres[0].startswith("(") else genres[0]]
    try:
        "".join(genres).encode("latin-1")
        encoding = 0 if minor == 3 else 3
    except UnicodeEncodeError:
        encoding = 1 if minor == 3 else 3
    tags.add(TCON(encoding=encoding, text=genres))
    return minor


def _write_mp3(file: BinaryIO, genres: list[str]) -> None:
    file.seek(0)
    try:
        tags = ID3(file, translate=False, load_v1=False)
    except ID3NoHeaderError:
        file.seek(0)
        try:
            tags = ID3(file, translate=False)  # of ID3v1 alone
        except ID3NoHeaderError:
            tags = ID3()
    n_before, size_before = os.fstat(file.fileno()).st_size, tags.size
    file.seek(-min(_TAIL, n_before - size_before), os.SEEK_END)
    tail = file.read()
    version = _set_id3(tags, genres)
    file.seek(0)
    tags.save(file, v2_version=version, v23_sep=None)
    file.seek(0)
    n_after = n_before - size_before + ID3(file, load_v1=False).size
    file.seek(n_after - len(tail))  # mutagen writes the genre into an ID3v1 tag, too: as it was
    file.write(tail)
    file.truncate()


def _frame(frame: Any) -> str:
    """A frame as text, without its encoding, which depends on the version of the tag."""
    said = re.sub(r"encoding=<[^>]*>(, )?", "", repr(frame), count=1)
    for short, full in (("PNG", "image/png"), ("JPG", "image/jpeg")):  # as ID3v2.2 has them
        said = said.replace(f"mime='{short}'", f"mime='{full}'")
    return said


# --- comments ---


def _set_comments(tags: Any, genres: list[str]) -> None:
    spelled = next((key for key, _ in tags if key.lower() == "genre"), "GENRE")
    at = next((i for i, (key, _) in enumerate(tags) if key.lower() == "genre"), len(tags))
    rest = [pair for pair in tags if pair[0].lower() != "genre"]
    tags[:] = [*rest[:at], *((spelled, genre) for genre in genres), *rest[at:]]
