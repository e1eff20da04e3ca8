"""A file that is written is there as a whole, or as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from acoustic.writing import write_whole


def test_what_cannot_be_finished_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept.json"
    write_whole(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as at:
        at.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["kept.json"]
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"
