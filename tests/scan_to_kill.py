"""A scan without a network, to be killed: `python -m tests.scan_to_kill LIBRARY FOLDER`. Worker processes look at the
files, analyses are made up; prints how many files are finished and the memory in MB, again and again once there are
some."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from acoustic.errors import CorruptAudioError
from acoustic.kept import FoundFile, ScanProgress, SongTags
from acoustic.library import scan as module
from acoustic.library.database import Database
from acoustic.library.scan import Looked, Stages, alone, scan_files
from acoustic.library.tracks import Tracks
from acoustic.records import Analysis, CacheEntry
from acoustic.settings import Settings
from acoustic.signal.files import digest, walk_audio
from acoustic.workers import Workers
from tests.scan_records import analysis


def look(path: str, context: Mapping[str, Any]) -> CacheEntry:
    return CacheEntry({}, {"digest": digest(path, Settings())})


def main(library: str, folder: str) -> None:
    module.BATCH_FILES = 4
    workers = Workers({"look": "tests.scan_to_kill:look"}, {}, n=2, timeout_s=60, memory_mb=1_000)

    def analyse(found: FoundFile, digest: str) -> Analysis:
        time.sleep(0.03)
        if b"bad" in found.path:
            raise CorruptAudioError("bad")
        return analysis(seed=int(digest[:8], 16), path=os.fsdecode(found.path))

    stages = Stages(
        lambda told: walk_audio(os.fsencode(folder), told),
        lambda path: Looked(workers.ask("look", os.fsdecode(path)).meta["digest"], SongTags()),
        analyse,
        workers.stop,
        n_at_once=4,
    )
    with Database(Path(library)) as database, alone(Path(library)), workers:
        tracks = Tracks(database)
        model_id = tracks.model_id("made-up", "0" * 64, {})
        print("begun", flush=True)  # noqa: T201
        scan_files(
            tracks,
            os.fsencode(folder),
            model_id,
            stages,
            on_progress=tell,
        )


def tell(progress: ScanProgress) -> None:
    if progress.n_finished:
        print(progress.state, progress.n_finished, psutil.Process().memory_info().rss >> 20, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
