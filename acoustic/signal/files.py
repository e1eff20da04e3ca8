"""Files before anybody decodes them: opened without waiting, bounded, identified, digested, found.

Names may hold newlines, emoji or bytes that are not UTF-8: everything after the opening works on the descriptor.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import EmptyAudioError, NotAudioError, StorageError, TooLargeError
from ..kept import FoundFile
from ..records import printable
from ..settings import Settings

DIGEST_BLOCK = 1 << 20
SKETCHED = 1 << 16  # bytes of each part
MB = 1 << 20
DEFAULTS = Settings()
AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc"}
    | {".au", ".snd", ".caf", ".m4a", ".m4b", ".aac", ".wma", ".webm", ".mka", ".wv", ".ape", ".tta", ".ac3", ".dts"}
    | {".amr", ".mpc", ".dsf", ".tak"}
)
"""What `find_audio` takes for audio. Only a way to choose files: what a file is, is decided by its bytes."""


def shown(path: str | os.PathLike[str]) -> str:
    """The file's name as a message can show it: one line, no bytes that are not text."""
    name = os.path.basename(os.fspath(path).rstrip("/")) or os.fspath(path)
    return printable("".join(c if c.isprintable() or c > "\x7f" else " " for c in name))


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int, int, int, int]:
    """(device, inode, size, mtime in ns, ctime in ns) of a regular file: as long as they stay, so does its content.
    The mtime is not enough: a copy may bring it along, into an inode that another file had just before.

    Raises StorageError (missing, unreadable) or NotAudioError (not a regular file).
    """
    status = _stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_regular(path: str | os.PathLike[str], settings: Settings) -> tuple[int, int]:
    """(descriptor, size in bytes) of a regular file, for reading; the caller closes it.

    Never waits: a FIFO or a device is refused before it is opened, and again afterwards should it have been exchanged.
    Raises StorageError, NotAudioError, EmptyAudioError (no bytes) or TooLargeError.
    """
    _check_size(path, _stat(path), settings)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise _storage(path, error) from error
    try:
        status = os.fstat(fd)
        _check_regular(path, status)
        _check_size(path, status, settings)
    except BaseException:
        os.close(fd)
        raise
    return fd, status.st_size


def sketch(path: str | os.PathLike[str], settings: Settings = DEFAULTS) -> str:
    """Of a file's size and of its beginning, middle and end: equal for copies, hardly ever for others, and read in no
    time. Raises what `open_regular` raises."""
    fd, n_bytes = open_regular(path, settings)
    try:
        hasher = hashlib.blake2b(str(n_bytes).encode(), digest_size=32)
        for place in (0, n_bytes // 2, max(0, n_bytes - SKETCHED)):
            os.lseek(fd, place, os.SEEK_SET)
            hasher.update(os.read(fd, SKETCHED))
        return hasher.hexdigest()
    except OSError as error:
        raise _storage(path, error) from error
    finally:
        os.close(fd)


def digest(path: str | os.PathLike[str], settings: Settings = DEFAULTS) -> str:
    """BLAKE2b (256 bits, hexadecimal) of the file's bytes; raises what `open_regular` raises."""
    fd, _ = open_regular(path, settings)
    try:
        hasher = hashlib.blake2b(digest_size=32)
        while block := os.read(fd, DIGEST_BLOCK):
            hasher.update(block)
        return hasher.hexdigest()
    except OSError as error:
        raise _storage(path, error) from error
    finally:
        os.close(fd)


def find_audio(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Audio files below `folder` by suffix, in the order of their names, each folder once however it is linked.

    Hidden files (macOS leaves `._song.mp3` beside songs) and sub-folders that cannot be read are passed over.
    Raises StorageError where `folder` itself cannot be listed.
    """
    try:
        status = os.stat(folder)
        os.scandir(folder).close()
    except (OSError, ValueError) as error:
        raise _storage(folder, error) from error
    yield from _walk(Path(folder), {(status.st_dev, status.st_ino)})


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue  # a dangling link, or gone since it was listed
        if stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                yield from _walk(folder / entry.name, seen)
        elif stat.S_ISREG(status.st_mode) and is_song(entry.name):
            yield folder / entry.name


def walk_audio(root: bytes, on_unreadable: Callable[[bytes], None] = lambda folder: None) -> Iterator[FoundFile]:
    """Audio files below the folder `root`, as `find_audio` finds them but in no order, so that the memory it takes does
    not grow with their number. Each folder once however it is linked: links are followed after all that is not linked.
    """
    folders, links = [root], list[bytes]()
    seen: set[tuple[int, int]] = set()
    while folders or links:
        if not folders:
            links.sort(reverse=True)
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                for entry in listing:
                    try:
                        found = _met(entry, folders, links)
                    except OSError:  # of this entry alone: the others are there all the same
                        on_unreadable(folder)
                        continue
                    if found is not None:
                        yield found
        except OSError:
            on_unreadable(folder)


def found_audio(path: bytes) -> FoundFile | None:
    """The file of this name, if a walk would find it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or not is_song(os.path.basename(os.fsdecode(path))):
        return None
    return FoundFile(path, status.st_size, status.st_mtime_ns)


def _met(entry: os.DirEntry[bytes], folders: list[bytes], links: list[bytes]) -> FoundFile | None:
    """The file if it is one to hear; a folder is added to those to be walked. OSError for what may be either and cannot
    be looked at; what hangs in the air, turns in a circle, or is gone since it was listed is neither."""
    try:
        if entry.is_dir():
            (links if entry.is_symlink() else folders).append(entry.path)
            return None
        if not is_song(os.fsdecode(entry.name)):
            return None
        status = entry.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    return FoundFile(entry.path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def is_song(name: str) -> bool:
    """Whether a file of this name is taken for a song: no hidden one, with the suffix of a music file."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def _stat(path: str | os.PathLike[str]) -> os.stat_result:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _storage(path, error) from error
    _check_regular(path, status)
    return status


def _check_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if not stat.S_ISREG(status.st_mode):
        kind = kinds.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise NotAudioError(f"{shown(path)} is {kind}, not an audio file")


def _check_size(path: str | os.PathLike[str], status: os.stat_result, settings: Settings) -> None:
    if status.st_size == 0:
        raise EmptyAudioError(f"{shown(path)} is empty: 0 bytes")
    if status.st_size > settings.max_file_mb * MB:
        raise TooLargeError(
            f"{shown(path)} has {status.st_size / MB:,.1f} MB; the bound is {settings.max_file_mb:,g} MB"
        )


def _storage(path: str | os.PathLike[str], error: Exception) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StorageError(f"{shown(path)} cannot be read: {reason}")
