"""kill -9 at random moments: the records are the state, so a scan that is begun again goes on."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from acoustic.library.database import Database
from acoustic.library.decisions import Decisions

ROOT = Path(__file__).resolve().parent.parent.parent
N, N_BAD = 2_000, 20
FLAT_MB = 100


def rows(library: Path, sql: str) -> list[tuple]:
    with sqlite3.connect(f"file:{library}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def mb_of(line: str) -> int:
    """What a scan says of its memory in a line of progress."""
    return int(line.split()[2])


@pytest.mark.slow
def test_killed_twenty_times_each_file_ends_in_one_state(tmp_path: Path) -> None:
    chance = random.Random(0)
    folder, library = tmp_path / "music", tmp_path / "library.db"
    folder.mkdir()
    for i in range(N):
        (folder / f"{i}{' bad' if i % (N // N_BAD) == 3 else ''}.mp3").write_text(f"song {i}")
    args = [sys.executable, "-m", "tests.scan_to_kill", str(library), str(folder)]
    kept, decided, memory_mb = [], set(), []
    for i in range(20):
        process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.choice((1, 3, 5, 7)))]
        memory_mb += [mb_of(line) for line in lines[1:]]
        workers = psutil.Process(process.pid).children(recursive=True)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        process.stdout.close()
        _, left = psutil.wait_procs(workers, timeout=10)
        assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]
        kept.append(rows(library, "SELECT count(*) FROM files")[0][0])
        if kept[-1]:  # a person decides between the kills
            [(track_id,)] = rows(library, f"SELECT max(id) - {i % 3} FROM tracks")
            if track_id > 0 and track_id not in decided:
                with Database(library) as database:
                    Decisions(database).decide(track_id, "Jazz", who="me", expected=None)
                decided.add(track_id)
    assert kept == sorted(kept)
    assert any(0 < count < N for count in kept)
    assert kept[-1] < N  # the last one still has something to do
    last = subprocess.run(args, capture_output=True, text=True, cwd=ROOT, check=True).stdout.splitlines()
    assert last[-1].startswith(f"done {N} ")
    memory_mb += [mb_of(line) for line in last[1:]]
    assert max(memory_mb) - min(memory_mb) < FLAT_MB
    assert rows(library, "SELECT count(*), count(DISTINCT path) FROM files") == [(N, N)]
    assert Counter(code for (code,) in rows(library, "SELECT error_code FROM files")) == {
        None: N - N_BAD,
        "CORRUPT": N_BAD,
    }
    assert rows(library, "SELECT count(*), count(DISTINCT track_id) FROM analyses") == [(N - N_BAD, N - N_BAD)]
    assert rows(library, "SELECT count(*) FROM verdicts") == [(N - N_BAD,)]
    states = Counter(state for (state,) in rows(library, "SELECT state FROM scans"))
    assert states["done"] == 1
    assert states["running"] == 0
    assert {track_id for (track_id,) in rows(library, "SELECT track_id FROM decisions")} == decided
    assert rows(library, "PRAGMA integrity_check") == [("ok",)]
    assert not os.path.exists(f"{library}-journal")
