"""One file rewritten so that nothing can be lost: the new content is made beside it, checked, brought to the disk, and
only then takes its place in one step.

At any moment the path holds the whole old file or the whole new one. Where the path is a symbolic link, the link stays
and its target is replaced. Mode, owner, extended attributes (where Python reads them: on Linux)
and, where asked for, times go over to the new file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import DISK_FULL, AcousticError, TagError
from ..kept import shown_path
from .patch import apply_patch, make_patch
from .tags import clean_genres, other_tags, read_tags, write_genres

AudioDigest = Callable[[bytes], str]
"""a digest of the decoded samples of the file at a path; AcousticError where they cannot be decoded"""
Step = Callable[[str], object]

_BLOCK = 1 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it was found: `path` as it was named, `real` where it lies, BLAKE2b-256 `digest` of its bytes."""

    path: bytes
    real: bytes
    status: os.stat_result
    digest: str

    def unchanged(self) -> bool:
        """Whether it is still the file that was found, by its place, size and time."""
        try:
            now = os.stat(self.real)
        except OSError:
            return False
        return _identity(now) == _identity(self.status)


def examine(path: bytes, *, hard_links: bool = False) -> Original:
    """The file, if it may be rewritten. TagError where it is missing, no regular file, read-only, in a folder that may
    not be written, or (unless `hard_links`) has further names, which would keep the old content."""
    with translated(path):
        real = os.path.realpath(path)
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):
            raise TagError(f"{shown(path)} is not a file")
        if not status.st_mode & 0o222 or not os.access(real, os.W_OK):
            raise TagError(f"{shown(path)} is read-only", "Make it writable if its tags are to be changed.")
        if not os.access(os.path.dirname(real), os.W_OK | os.X_OK):
            raise TagError(f"{shown(path)}: its folder may not be written", "Check the permissions of the folder.")
        if status.st_nlink > 1 and not hard_links:
            raise TagError(
                f"{shown(path)} has {status.st_nlink} names (hard links); the others would keep the old tags",
                "Ask for it (`--hard-links`) if they may part.",
            )
        original = Original(path, real, status, digest_of(real))
        if not original.unchanged():
            raise _changing(path)
        return original


def digest_of(path: bytes) -> str:
    """BLAKE2b (256 bits, hexadecimal) of the file's bytes: what the library knows a content by. OSError."""
    hasher = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def aside(real: bytes, row: int, digest: str) -> bytes:
    """The hidden name beside `real` under which its next content is made: always the same for one row of the journal,
    so that it is found again after a crash, and no two libraries' the same."""
    return os.path.join(os.path.dirname(real), b".acoustic-%d-%s.part" % (row, digest[:24].encode("ascii")))


def discard(temp: bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(temp)


def tagged_copy(
    original: Original,
    temp: bytes,
    genres: Sequence[str],
    audio_digest: AudioDigest,
    *,
    keep_times: bool,
    step: Step,
) -> str:
    """Make `temp`: the original with `genres`; its digest. Read back: genres as wanted, all other tags and the decoded
    audio as they were; TagError otherwise, or where there is no room. It is on the disk then."""
    with translated(original.path, temp):
        _copy(original, temp)
        step("copied")
        write_genres(temp, genres)
        step("tagged")
        _check(original, temp, genres, audio_digest)
        step("checked")
        _dress(original, temp, original.status.st_mtime_ns if keep_times else None)
        step("synced")
        return digest_of(temp)


def patch_back(original: Original, temp: bytes) -> bytes | None:
    """What makes the original's bytes of those of `temp`, tried out; None where it would be too large."""
    with translated(original.path), open(original.real, "rb") as old, open(temp, "rb") as new:
        patch = make_patch(old.fileno(), new.fileno())
        if patch is None:
            return None
        hasher = hashlib.blake2b(digest_size=32)
        apply_patch(patch, new.fileno(), hasher.update)
        if hasher.hexdigest() != original.digest:
            raise TagError(
                f"{shown(original.path)} changed while it was read", "Try again when nothing else writes it."
            )
        return patch


def patched_copy(original: Original, temp: bytes, patch: bytes, digest: str, mtime_ns: int | None, step: Step) -> None:
    """Make `temp`: what the file was before, of which the patch was kept. TagError if that is not what comes out."""
    with translated(original.path):
        hasher = hashlib.blake2b(digest_size=32)
        with open(original.real, "rb") as now, _new(temp) as target:

            def write(block: bytes) -> None:
                hasher.update(block)
                _write(target, block)

            apply_patch(patch, now.fileno(), write)
        if hasher.hexdigest() != digest:
            raise TagError(f"{shown(original.path)}: what was kept of it does not give back the old file")
        _dress(original, temp, mtime_ns)
        step("rebuilt")


def put_in_place(original: Original, temp: bytes, step: Step) -> None:
    """`temp` becomes the file. TagError, with nothing changed, where the file is no longer the one that was found."""
    with translated(original.path):
        if not original.unchanged():
            raise TagError(f"{shown(original.path)} was changed by another program meanwhile", "Plan again.")
        os.replace(temp, original.real)
    step("replaced")
    _sync_folder(os.path.dirname(original.real))
    step("folder synced")


def shown(path: bytes) -> str:
    return os.path.basename(shown_path(path))


@contextlib.contextmanager
def translated(path: bytes, temp: bytes = b"") -> Iterator[None]:
    """What the system refuses, as TagError; what is said of `temp` is said of the file."""
    try:
        yield
    except OSError as error:
        raise _refusal(path, error) from error
    except AcousticError as error:
        message = error.message.replace(shown(temp), shown(path)) if temp else error.message
        if not isinstance(error, TagError):
            raise TagError(f"{shown(path)}: its audio cannot be checked: {message}", error.hint) from error
        raise TagError(message, error.hint) from error


def _refusal(path: bytes, error: OSError) -> TagError:
    name = shown(path)
    if isinstance(error, FileNotFoundError):
        return TagError(f"{name} is not there", "If it was moved, scan the folder where it is now, and try again.")
    if error.errno in DISK_FULL:
        return TagError(
            f"{name}: no room on its disk for a copy", "Make room and write again; the file was left as it was."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TagError(f"{name} may not be written: {error.strerror}", "Check the permissions of the file and folder.")
    return TagError(f"{name}: {error.strerror or error}")


def _changing(path: bytes) -> TagError:
    return TagError(f"{shown(path)} changed while it was read", "Try again when nothing else writes it.")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _new(temp: bytes) -> Iterator[int]:
    """A new file of this account alone, open for writing."""
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(fd, left) :]


def _copy(original: Original, temp: bytes) -> None:
    hasher = hashlib.blake2b(digest_size=32)
    with open(original.real, "rb") as source, _new(temp) as target:
        while block := source.read(_BLOCK):
            hasher.update(block)
            _write(target, block)
    if hasher.hexdigest() != original.digest:
        raise _changing(original.path)


def _check(original: Original, temp: bytes, genres: Sequence[str], audio_digest: AudioDigest) -> None:
    name = shown(original.path)
    found = read_tags(temp).genres
    if found != clean_genres(genres):
        raise TagError(f"{name}: the genres were written, but read back as {', '.join(found) or 'nothing'}")
    if other_tags(temp) != other_tags(original.real):
        raise TagError(f"{name}: other tags would have changed")
    if audio_digest(temp) != audio_digest(original.real):
        raise TagError(f"{name}: the audio would have changed")


def _dress(original: Original, temp: bytes, mtime_ns: int | None) -> None:
    """Owner, mode, extended attributes and time (None: now) as they are to be; all of it on the disk."""
    fd = os.open(temp, os.O_RDWR | _NOFOLLOW)
    try:
        status = original.status
        if hasattr(os, "chown"):
            with contextlib.suppress(PermissionError):  # another's file in a folder of ours becomes ours
                os.chown(temp, status.st_uid, status.st_gid)
        shutil.copystat(original.real, temp)
        if mtime_ns is None:
            os.utime(temp)
        else:
            os.utime(temp, ns=(status.st_atime_ns, mtime_ns))
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: bytes) -> None:
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # some network disks cannot; the file itself is on the disk
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
