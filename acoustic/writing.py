"""A file is there as a whole, or as it was before."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, data: bytes) -> None:
    """Write beside `file`, bring it to the disk, and only then give it its name. OSError is the caller's."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with open(aside, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
