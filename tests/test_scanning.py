"""Whole scans: worker processes, the small model, a library. What kills, hangs or interrupts is slow and marked so."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import LibraryError, ModelError, StorageError
from acoustic.kept import ScanProgress
from acoustic.library.scan import alone
from acoustic.library.store import Library
from acoustic.settings import Settings
from acoustic.workstation import Workstation
from acoustic.workstation.scanning import FUNCTIONS, QUIET_S, scan, watch
from tests.makers import write
from tests.test_engine import song

ROOT = Path(__file__).resolve().parent.parent
UNTRUSTED = {**FUNCTIONS, "hear": "tests.untrusted:hear"}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten songs, a copy, a name that is not UTF-8, and three files that are none."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "album").mkdir()
    for i in range(8):
        song(folder / ("album" if i % 2 else ".") / f"{i}.{('wav', 'flac', 'ogg')[i % 3]}", 8.0 + i, seed=i)
    shutil.copy(folder / "0.wav", folder / "copy of 0.wav")
    song(folder / "strange.wav", 11, seed=20).rename(Path(os.fsdecode(os.fsencode(folder) + b"/\xff strange.wav")))
    song(folder / "<b>$(x)\n\N{MUSICAL NOTE}.wav", 11, seed=21)
    (folder / "text.mp3").write_text("this is no music at all")
    (folder / "empty.wav").touch()
    (folder / "cut.flac").write_bytes((folder / "album" / "1.flac").read_bytes()[:2_000])
    return folder


def rows(settings: Settings, sql: str) -> list[tuple]:
    with sqlite3.connect(f"file:{settings.library_file()}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def error_codes(settings: Settings) -> dict[str, str]:
    found = rows(settings, "SELECT shown, error_code FROM files WHERE state = 'error'")
    return {os.path.basename(shown): code for shown, code in found}


def test_a_folder_into_the_library_and_again(fresh: Settings, music: Path) -> None:
    told: list[ScanProgress] = []
    with Workstation(fresh) as station:
        scanning = []
        done = scan(station, music, on_progress=lambda one: (told.append(one), scanning.append(station.scanning)))
        assert (done.state, done.n_found, done.n_ok, done.n_errors) == ("done", 14, 11, 3)
        assert (set(scanning), station.scanning) == ({True}, False)
        assert error_codes(fresh) == {"text.mp3": "NOT_AUDIO", "empty.wav": "EMPTY", "cut.flac": "CORRUPT"}
        assert rows(fresh, "SELECT count(*), count(DISTINCT track_id) FROM files WHERE state = 'ok'") == [(11, 10)]
        assert [path for (path,) in rows(fresh, "SELECT path FROM files") if path.endswith(b"/\xff strange.wav")]

        with OptimizedAudioClassifier(settings=fresh, cache=False) as alone_:
            expected = alone_.analyze(music / "album" / "1.flac").verdict
        verdict = """SELECT top_genre, confidence FROM verdicts
            JOIN analyses a ON a.id = analysis_id JOIN files f USING (track_id)"""
        assert rows(fresh, f"{verdict} WHERE shown LIKE '%/1.flac'") == [
            (expected.top_genre, pytest.approx(expected.top_confidence, abs=1e-5))
        ]

        again = scan(station, music)
        assert (again.n_unchanged, again.n_ok, again.n_errors) == (14, 0, 0)

        (music / "2.ogg").rename(music / "moved.ogg")
        moved = scan(station, music)
        (music / "moved.ogg").rename(music / "2.ogg")
        assert (moved.n_unchanged, moved.n_ok, moved.n_missing) == (13, 1, 1)
        assert station.classifier.get_stats()["total_requests"] == 10
    assert rows(fresh, "SELECT count(*) FROM analyses") == [(10,)]


def test_a_rescan_loads_no_torch(fresh: Settings, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "text.mp3").write_text("this is no music at all")
    code = """
import sys
from acoustic.settings import Settings
from acoustic.workstation import Workstation
from acoustic.workstation.scanning import scan
with Workstation(Settings(model=sys.argv[1], data_dir=sys.argv[2], cache_dir=sys.argv[3])) as station:
    done = scan(station, sys.argv[4])
heavy = {"torch", "av", "scipy", "librosa", "transformers", "gradio"} & set(sys.modules)
print(done.n_errors, done.n_unchanged, sorted(heavy))
"""
    args = [sys.executable, "-c", code, fresh.model, fresh.data_dir, fresh.cache_dir, str(tmp_path / "music")]
    said = [subprocess.run(args, capture_output=True, text=True, cwd=ROOT, check=True).stdout for _ in range(2)]
    assert said == ["1 0 []\n", "0 1 []\n"]


def test_a_file_that_a_bound_kept_out_comes_in_once_the_bound_is_another(fresh: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    song(folder / "short.wav", 3.0)
    strict = dataclasses.replace(fresh, min_duration_s=5.0)
    with Workstation(strict) as station:
        scan(station, folder)
        assert error_codes(strict) == {"short.wav": "TOO_SHORT"}
        assert scan(station, folder).n_unchanged == 1
    with Workstation(fresh) as station:
        assert scan(station, folder).n_ok == 1
        assert scan(station, folder).n_unchanged == 1
    assert error_codes(fresh) == {}


def test_what_cannot_be_scanned_says_so(fresh: Settings, tmp_path: Path) -> None:
    with Workstation(fresh) as station:
        for folder in (tmp_path / "nowhere", "a\0b"):
            with pytest.raises(StorageError, match="cannot be scanned"):
                scan(station, folder)
        with alone(station.library.path), pytest.raises(LibraryError, match="another scan"):
            scan(station, tmp_path)
    with Workstation(dataclasses.replace(fresh, model="no-such-model")) as station, pytest.raises(ModelError):
        scan(station, tmp_path)


@pytest.mark.slow
def test_poison_is_quarantined_and_the_scan_goes_on(fresh: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(fresh, decode_timeout_s=8.0, decode_memory_mb=1_000.0)
    (tmp_path / "music").mkdir()
    for i, harm in enumerate(("kill", "hang", "eat", "once", "", "", "", "")):
        song(tmp_path / "music" / f"{i} {harm}.wav", 9, seed=i)
    with Workstation(settings) as station:
        done = scan(station, tmp_path / "music", functions=UNTRUSTED)
        assert (done.state, done.n_ok, done.n_errors) == ("done", 5, 3)
        assert error_codes(settings) == dict.fromkeys(("0 kill.wav", "1 hang.wav", "2 eat.wav"), "POISON")
        messages = [message for (message,) in rows(settings, "SELECT error_message FROM files WHERE state = 'error'")]
        for said in ("SIGKILL", "longer than 8 s", "more than 1000 MB"):
            assert any(said in message for message in messages), messages
        assert scan(station, tmp_path / "music", functions=UNTRUSTED).n_unchanged == 8


@pytest.mark.slow
def test_cancel_within_two_seconds_even_while_a_file_hangs(fresh: Settings, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    for i in range(30):
        song(tmp_path / "music" / f"{i:02}{' hang' if i % 10 == 9 else ''}.wav", 9, seed=i)
    cancel = threading.Event()
    asked: list[float] = []

    def on_progress(progress: ScanProgress) -> None:
        if progress.n_ok >= 5 and not asked:
            asked.append(time.monotonic())
            cancel.set()

    with Workstation(fresh) as station:
        done = scan(station, tmp_path / "music", on_progress=on_progress, cancel=cancel, functions=UNTRUSTED)
        assert time.monotonic() - asked[0] < 2
        assert done.state == "cancelled"
        kept = rows(fresh, "SELECT count(*) FROM files")[0][0]
        assert kept == done.n_ok >= 5
        rest = scan(station, tmp_path / "music")
    assert (rest.n_unchanged, rest.n_ok) == (kept, 30 - kept)


@pytest.mark.slow
def test_watching_follows_what_changes(fresh: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    song(folder / "a.wav", 9, seed=1)
    cancel = threading.Event()
    ends: list[ScanProgress] = []

    def on_progress(progress: ScanProgress) -> None:
        if progress.state == "done":
            ends.append(progress)

    def until(reached: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < limit
            time.sleep(0.1)

    def names() -> set[str]:
        return {os.path.basename(shown) for (shown,) in rows(fresh, "SELECT shown FROM files WHERE NOT missing")}

    with Workstation(fresh) as station:
        watcher = threading.Thread(
            target=watch, args=(station, folder), kwargs={"on_progress": on_progress, "cancel": cancel}
        )
        watcher.start()
        until(lambda: bool(ends))
        song(folder / "b.wav", 9, seed=2)
        (folder / "new").mkdir()
        song(folder / "new" / "c.wav", 9, seed=3)
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.wav")).write_bytes((folder / "b.wav").read_bytes())
        until(lambda: names() == {"a.wav", "b.wav", "c.wav", "\ufffd.wav"})
        (folder / "a.wav").unlink()
        shutil.rmtree(folder / "new")
        until(lambda: names() == {"b.wav", "\ufffd.wav"})
        cancel.set()
        watcher.join(3)
        assert not watcher.is_alive()


@pytest.mark.slow
def test_watching_waits_for_a_file_that_grows_and_does_not_see_its_own_library(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    inside = dataclasses.replace(fresh, library=str(folder / "library.db"))
    whole = song(tmp_path / "whole.wav", 9, seed=1).read_bytes()
    cancel, ends = threading.Event(), list[ScanProgress]()
    with Workstation(inside) as station:
        watcher = threading.Thread(
            target=watch,
            args=(station, folder),
            kwargs={"on_progress": lambda p: ends.append(p) if p.state == "done" else None, "cancel": cancel},
        )
        watcher.start()
        limit = time.monotonic() + 120
        while not ends:
            assert time.monotonic() < limit
            time.sleep(0.1)
        with open(folder / "grows.wav", "wb") as growing:
            for start in range(0, len(whole), len(whole) // 8):
                growing.write(whole[start : start + len(whole) // 8])
                growing.flush()
                time.sleep(0.3)
        while len(ends) < 2 or not ends[-1].n_ok:
            assert time.monotonic() < limit
            time.sleep(0.1)
        time.sleep(2 * QUIET_S)
        cancel.set()
        watcher.join(10)
    assert len(ends) <= 3, "the first, and one for the file; its folder may come by itself"
    assert [done.n_errors for done in ends] == [0] * len(ends)
    with Library(folder / "library.db") as library:
        assert library.database.read(lambda db: db.execute("SELECT count(*) FROM tracks").fetchone()[0]) == 1


def many_songs(folder: Path, n: int) -> Path:
    """Tiny songs in two folders, one in ten of which is none."""
    for i in range(n):
        path = folder / ("x" if i % 2 else "y") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 10 == 3:
            path.write_bytes(b"no music, number %d" % i)
        else:
            write(path, _tone(i), 8_000)
    return folder


def _tone(i: int) -> object:
    from tests.makers import sine

    return sine(1.5, 200.0 + i, 8_000)


@pytest.mark.slow
def test_killed_each_file_ends_in_one_state(fresh: Settings, tmp_path: Path) -> None:
    """The whole of it, three times; see tests/library/test_scan_killed.py for many times."""
    n, chance = 150, random.Random(0)
    folder = many_songs(tmp_path / "music", n)
    code = """
import sys
from acoustic.settings import Settings
from acoustic.workstation import Workstation
from acoustic.workstation.scanning import scan
with Workstation(Settings(model=sys.argv[1], data_dir=sys.argv[2], cache_dir=sys.argv[3])) as station:
    scan(station, sys.argv[4], on_progress=lambda p: p.n_ok and print(p.n_finished, flush=True))
"""
    args = [sys.executable, "-c", code, fresh.model, fresh.data_dir, fresh.cache_dir, str(folder)]
    kept = []
    for _ in range(3):
        process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        process.stdout.readline()
        workers = psutil.Process(process.pid).children(recursive=True)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
        process.stdout.close()
        _, left = psutil.wait_procs(workers, timeout=10)
        assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]
        kept.append(rows(fresh, "SELECT count(*) FROM files")[0][0])
    assert kept == sorted(kept)
    assert 0 < kept[0] < n
    with Workstation(fresh) as station:
        done = scan(station, folder)
    assert (done.state, done.n_found, done.n_unchanged) == ("done", n, kept[-1])
    codes = Counter(code for (code,) in rows(fresh, "SELECT error_code FROM files"))
    assert codes == {None: 135, "NOT_AUDIO": 15}
    assert rows(fresh, "SELECT count(*), count(DISTINCT track_id) FROM analyses") == [(135, 135)]
    assert rows(fresh, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_memory_stays_flat(fresh: Settings, tmp_path: Path) -> None:
    """Between the 100th and the last file the scanning process grows by less than 100 MB."""
    folder = many_songs(tmp_path / "music", 600)
    here = psutil.Process()
    sizes: dict[int, int] = {}

    def on_progress(progress: ScanProgress) -> None:
        sizes[progress.n_finished] = here.memory_info().rss

    with Workstation(fresh) as station:
        scan(station, folder, on_progress=on_progress)
    early = max(size for n, size in sizes.items() if n <= 200)
    assert max(sizes.values()) - early < 100 * 2**20


@pytest.mark.slow
def test_ctrl_c_ends_within_two_seconds_and_says_how_to_go_on(fresh: Settings, tmp_path: Path) -> None:
    folder = many_songs(tmp_path / "music", 150)
    env = {**os.environ, "ACOUSTIC_MODEL": fresh.model, "ACOUSTIC_DATA_DIR": fresh.data_dir}
    env |= {"ACOUSTIC_CACHE_DIR": fresh.cache_dir, "ACOUSTIC_DECODE_WORKERS": "1"}
    args = [sys.executable, "-m", "acoustic", "scan", str(folder)]
    process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    limit = time.monotonic() + 60
    while not (fresh.library_file().exists() and _n_files(fresh)):
        assert time.monotonic() < limit
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert "Run the same command again" in err
    assert "Traceback" not in out + err
    done = subprocess.run(args, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 1
    assert "NOT_AUDIO 15" in done.stderr
    assert _n_files(fresh) == 150


def _n_files(settings: Settings) -> int:
    try:
        return int(rows(settings, "SELECT count(*) FROM files")[0][0])
    except sqlite3.OperationalError:  # not made yet
        return 0
