"""Decoders for the tests of workers, named by import path: what they do is written in the file's name.

A name with "kill" ends the process, "hang" never comes back, "eat" takes all memory it can get, "once" does its harm
only the first time (it leaves a mark beside the file); any other file is decoded as it should be.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acoustic.errors import CorruptAudioError
from acoustic.records import CacheEntry


def hear(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """`decoding.hear_remotely`, but for the names that do harm."""
    from acoustic import decoding

    _harm(path)
    return decoding.hear_remotely(path, context)


def echo(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """Light: the name's length, the process, and what harm the name asks for."""
    _harm(path)
    name = os.path.basename(path)
    if "bad" in name:
        raise CorruptAudioError(f"{name} is damaged", "a hint")
    if "fault" in name:
        raise RuntimeError("a fault")
    os.write(1, b"what a library prints does not disturb")
    arrays = {"letters": np.arange(len(name), dtype=np.float32), "two": np.ones((2, 3), np.int64)}
    return CacheEntry(arrays, {"path": path, "pid": os.getpid(), **context})


def look(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """`decoding.look_remotely`, made slow by "slow" in the name."""
    from acoustic import decoding

    if "slow" in os.path.basename(path):
        time.sleep(0.2)
    return decoding.look_remotely(path, context)


def fail(context: Mapping[str, Any]) -> None:
    """A preparation that fails."""
    os._exit(3)


def _harm(path: str) -> None:
    name = os.path.basename(path)
    if "once" in name:
        mark = Path(path + ".mark")
        with contextlib.suppress(FileExistsError):
            mark.touch(exist_ok=False)
            os.kill(os.getpid(), 11)
    if "kill" in name:
        os.kill(os.getpid(), 9)
    if "hang" in name:
        time.sleep(1_000)
    if "eat" in name:
        kept = []
        while True:
            kept.append(np.empty(1 << 24))  # address space is what is limited
