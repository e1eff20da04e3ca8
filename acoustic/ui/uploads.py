"""What a browser sends: the files' shown names and places, and the sweeping of copies that nobody needs any more.

Gradio keeps every upload for the life of the process, and what an interrupted upload or an earlier process left behind
for ever; both lie in its upload folder. Names that a browser sends are text from outside: shown, never used as a path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ..records import printable

KEEP_S = 12 * 3600.0  # an upload can be listened to for half a day
AUDIO_ENDINGS = (".aac", ".aif", ".aifc", ".aiff", ".alac", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka",
                 ".mp2", ".mp3", ".mp4", ".mpc", ".oga", ".ogg", ".opus", ".snd", ".wav", ".wave", ".weba", ".webm",
                 ".wma", ".wv")  # fmt: skip


def received(payload: Sequence[Mapping[str, Any]] | None) -> list[tuple[str, str]]:
    """[(shown name, path of the copy)] of what the drop zone delivers, in its order."""
    return [
        (shown_name(str(item.get("orig_name") or Path(item["path"]).name)), str(item["path"])) for item in payload or ()
    ]


def shown_name(name: str) -> str:
    """The last part of a name, on one line, without control characters that could reorder or hide text."""
    return on_one_line(name).replace("\\", "/").rsplit("/", 1)[-1] or "unnamed file"


def on_one_line(text: str) -> str:
    """`text` with U+FFFD for line ends, for what could reorder or hide text, and for what is not UTF-8."""
    return "".join(c if c.isprintable() else "\ufffd" for c in printable(text))


def borrowed(file: Path, folder: Path) -> Path:
    """A copy of one of our own files where the browser may fetch it: nothing outside the upload folder is served."""
    copy = folder / "borrowed" / file.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    aside = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}")
    shutil.copyfile(file, aside)
    aside.replace(copy)
    return copy


def lent(file: bytes, folder: Path) -> Path:
    """A copy of a person's own audio file where the browser may fetch it; one that is there already is used again.

    Its name is made of the place, length and time of the file, so that a changed file has another address. Only the
    endings of audio are kept: a file that ends in ".html" is never served as a page. Raises OSError.
    """
    stat = os.stat(file)
    if not S_ISREG(stat.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    name = hashlib.sha256(b"%s\0%d\0%d" % (file, stat.st_size, stat.st_mtime_ns)).hexdigest()[:32]
    ending = os.path.splitext(os.fsdecode(file))[1].lower()
    copy = folder / "lent" / f"{name}{ending if ending in AUDIO_ENDINGS else ''}"
    if copy.is_file():
        os.utime(copy)  # listened to again: kept for another while
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    aside = copy.with_name(f"{name}.{uuid.uuid4().hex}")
    try:
        shutil.copyfile(file, aside)
        aside.replace(copy)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return copy


def sweep(folder: Path, older_than_s: float = KEEP_S, *, now_s: float | None = None) -> int:
    """Delete files under `folder` that nobody touched for `older_than_s`, then empty folders; returns how many files.

    Safe beside other processes that do the same: what vanishes meanwhile counts as swept.
    """
    now_s = time.time() if now_s is None else now_s
    n_swept = 0
    if not folder.is_dir():
        return 0
    for path in sorted(folder.rglob("*"), reverse=True):  # children before their folder
        with contextlib.suppress(OSError):  # another sweep was faster, the folder is not empty, or it is not ours
            if path.is_dir() and not path.is_symlink():
                if now_s - path.stat().st_mtime > 60.0:  # a new folder may be about to receive its file
                    path.rmdir()
            elif now_s - path.lstat().st_mtime > older_than_s:
                path.unlink()
                n_swept += 1
    return n_swept
