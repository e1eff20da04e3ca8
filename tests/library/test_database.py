"""The library's file: what was acknowledged is there, whoever wrote and whoever was killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acoustic.errors import InternalError, LibraryError
from acoustic.library import database as module
from acoustic.library.checking import check
from acoustic.library.database import Connection, Database
from acoustic.library.migrations import MIGRATIONS
from acoustic.library.writer_lock import WriterLock
from tests.library.made_library import add_track, add_tracks, digest_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "library.db") as opened:
        yield opened


def count(database: Database, table: str = "tracks") -> int:
    return database.read(lambda c: int(c.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


def insert(name: str) -> str:
    return f"INSERT INTO tracks (digest, n_bytes, added_at) VALUES ('{digest_of(name)}', 1, 'then')"


# --- what a file of any age becomes ---


@pytest.mark.parametrize("n", range(len(MIGRATIONS) + 1))
def test_a_file_of_every_earlier_schema_opens_with_its_rows(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "library.db"
    monkeypatch.setattr(module, "MIGRATIONS", MIGRATIONS[:n])
    with Database(path) as old:
        if n:
            [song] = add_tracks(old, "a")
        if n >= 2:
            old.write(
                lambda c: c.execute(
                    "INSERT INTO decisions (track_id, made_at, who, kind, genre)"
                    " VALUES (?, 'then', 'Ana', 'genre', 'Folk')",
                    (song,),
                )
            )
    monkeypatch.undo()
    with Database(path) as new:
        applied = new.read(lambda c: [row[0] for row in c.execute("SELECT name FROM migrations ORDER BY name")])
        assert applied == [migration.name for migration in MIGRATIONS]
        assert count(new) == count(new, "files") == count(new, "verdicts") == (1 if n else 0)
        assert count(new, "decisions") == (1 if n >= 2 else 0)
        found = new.read(lambda c: c.execute("SELECT rowid FROM search WHERE search MATCH 'title'").fetchall())
        assert len(found) == (1 if n else 0)


def test_the_names_of_migrations_are_in_order_and_differ() -> None:
    names = [migration.name for migration in MIGRATIONS]
    assert names == sorted(set(names))


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "library.db"
    bad = module.Migration("9999 bad", "CREATE TABLE half (a) STRICT; CREATE TABLE half (a INTEGER) STRICT;")
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, bad))
    with pytest.raises(LibraryError):
        Database(path)
    monkeypatch.undo()
    with Database(path) as opened:
        assert opened.read(lambda c: c.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone()) is None


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    with Database(path) as opened:
        add_tracks(opened, "a")
        opened.write(lambda c: c.execute("INSERT INTO migrations VALUES ('9999 of the future', 'then')"))
    before = path.read_bytes()
    with pytest.raises(LibraryError, match=r"newer version.*9999 of the future") as caught:
        Database(path)
    assert "Update" in caught.value.hint
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(LibraryError, match="something else than a library"):
        Database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=len)
def test_a_damaged_file_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    path.write_bytes(content)
    with pytest.raises(LibraryError) as caught:
        Database(path)
    assert caught.value.hint
    assert path.read_bytes() == content


def test_damage_inside_is_a_typed_error_and_the_check_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    with Database(path) as opened:
        opened.write(lambda c: [add_track(c, f"song {i}") for i in range(300)] and None)
        page = opened.read(
            lambda c: c.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tracks'").fetchone()[0]
        )
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\x5a" * 4096
    path.write_bytes(content)
    with Database(path) as opened:
        with pytest.raises(LibraryError, match="malformed") as caught:
            opened.read(lambda c: c.execute("SELECT * FROM tracks").fetchall())
        assert "backup" in caught.value.hint
        assert check(opened)


@pytest.mark.parametrize(
    "name", ["a?mode=ro", "50%41", "#1; DROP", "ö 中 \u202e", "back\\slash", os.fsdecode(b"\xff\xfe")]
)
def test_a_library_may_have_any_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / f"{name}.db"
    with Database(path) as opened:
        add_tracks(opened, "a")
    assert path.stat().st_size > 0
    with Database(path) as opened:
        assert count(opened) == 1


@pytest.mark.parametrize("place", [".", "file.txt/library.db", "file.txt/deep/library.db", "/proc/library.db"])
def test_a_place_that_cannot_hold_a_library(place: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a file", encoding="utf-8")
    with pytest.raises(LibraryError) as caught:
        Database(tmp_path / place)
    assert "--library" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs another user")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        with Database(folder / "library.db") as opened:
            add_tracks(opened, "a")
        folder.chmod(0o555)
        me = os.geteuid()
        if me == 0:  # who may write everything is somebody else for a moment
            os.seteuid(65534)
        try:
            with pytest.raises(LibraryError) as caught:
                Database(folder / "library.db")
        finally:
            os.seteuid(me)
        assert "write" in caught.value.hint
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


# --- one writer, many readers ---


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        connection.execute(insert("a"))
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        database.write(work)
    assert count(database) == 0
    add_tracks(database, "a")
    assert count(database) == 1


def test_constraints_hold(database: Database) -> None:
    for sql in (
        "INSERT INTO tracks (digest, n_bytes, added_at) VALUES ('short', 1, 'then')",
        "INSERT INTO in_force (track_id, decision_id) VALUES (7, 7)",
        "INSERT INTO scans (root, engine, model_id, started_at, state) VALUES (x'2f', 'local', 9, 'then', 'running')",
    ):
        with pytest.raises(LibraryError, match="constraint failed"):
            database.write(lambda c, sql=sql: c.execute(sql))


def test_what_is_written_is_on_disk_before_it_is_acknowledged(database: Database) -> None:
    got = database.write(
        lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "foreign_keys")]
    )
    assert got == [2, 1]
    assert database.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(LibraryError, match="readonly"):
        database.read(lambda c: c.execute(insert("a")))


def test_a_reader_sees_one_snapshot(database: Database) -> None:
    add_tracks(database, "a")

    def work(connection: Connection) -> tuple[int, int]:
        first = connection.execute("SELECT count(*) FROM tracks").fetchone()[0]
        add_tracks(database, "b")
        return first, connection.execute("SELECT count(*) FROM tracks").fetchone()[0]

    assert database.read(work) == (1, 1)
    assert count(database) == 2


def test_a_read_within_a_read_and_within_a_write(database: Database) -> None:
    add_tracks(database, "a")
    assert database.read(lambda _: count(database)) == 1
    assert database.write(lambda _: count(database)) == 1
    with pytest.raises(InternalError, match="executescript"):
        database.write(lambda c: c.executescript("DELETE FROM files;"))
    with pytest.raises(InternalError, match="within a write"):
        database.write(lambda _: database.write(lambda c: c.execute(insert("b"))))


def test_many_threads(database: Database) -> None:
    def work(who: int) -> None:
        for i in range(10):
            database.write(lambda c, i=i: c.execute(insert(f"{who}/{i}")))
            assert count(database) > i

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 80


def test_after_it_is_closed(tmp_path: Path) -> None:
    database = Database(tmp_path / "library.db")
    add_tracks(database, "a")
    database.close()
    database.close()
    for use in (lambda: count(database), lambda: add_tracks(database, "b")):
        with pytest.raises(LibraryError, match="closed"):
            use()


def test_a_library_at_rest_has_no_log(tmp_path: Path) -> None:
    for _ in range(20):
        with Database(tmp_path / "library.db") as opened:
            assert opened.read(lambda _, opened=opened: count(opened)) == 0  # two readers
        assert not list(tmp_path.glob("*-wal"))


def test_the_log_does_not_grow_without_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 1 << 16)
    database._log_allowed = 1 << 16
    database.write(lambda c: c.execute(f"PRAGMA journal_size_limit = {1 << 16}"))
    log = database.path.with_name("library.db-wal")
    sizes = []
    for _ in range(100):
        database.write(
            lambda c: c.execute("INSERT INTO tag_batches (made_at, policy) VALUES ('t', ?)", ("x" * 20_000,))
        )
        sizes.append(log.stat().st_size)
    assert max(sizes) < 12 << 16  # at ten times the length it is copied, whatever waits
    assert count(database, "tag_batches") == 100


def test_a_full_disk_is_told_and_what_was_there_stays(database: Database) -> None:
    add_tracks(database, "a")
    pages = database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}"))  # as a disk that has two pages left
    with pytest.raises(LibraryError, match="full") as caught:
        database.write(
            lambda c: c.execute("INSERT INTO tag_batches (made_at, policy) VALUES ('t', ?)", ("x" * 50_000,))
        )
    assert "make room" in caught.value.hint
    assert count(database) == 1
    database.write(lambda c: c.execute("PRAGMA max_page_count = 100000"))
    add_tracks(database, "b")
    assert count(database) == 2


# --- several programs ---

CHILD = """
import sys
from pathlib import Path
from acoustic.library.database import Database
from tests.library.test_database import insert
who, n = sys.argv[2], int(sys.argv[3])
with Database(Path(sys.argv[1])) as database:
    print("open", flush=True)
    for i in range(n):
        database.write(lambda c: c.execute(insert(f"{who} {i}")))
        print(i, flush=True)
"""


def child(path: Path, who: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), who, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_killed_while_it_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    for round_, after in enumerate((1, 40, 90)):
        writing = child(path, f"round {round_}", 100_000)
        assert writing.stdout is not None
        said = [writing.stdout.readline() for _ in range(after + 1)]
        writing.send_signal(signal.SIGKILL)
        said += writing.stdout.readlines()
        writing.wait()
        writing.stdout.close()
        acknowledged = [int(line) for line in said if line.endswith("\n") and line != "open\n"]
        assert len(acknowledged) >= after
        with Database(path) as opened:
            there = {row[0] for row in opened.read(lambda c: c.execute("SELECT digest FROM tracks").fetchall())}
            assert {digest_of(f"round {round_} {i}") for i in acknowledged} <= there
            assert check(opened) == []


def test_two_programs_that_write_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_BYTES", 1 << 15)  # here many checkpoints come among the other's writes
    path = tmp_path / "library.db"
    with Database(path) as mine:
        other = child(path, "theirs", 150)
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        slowest = 0.0
        for i in range(150):
            start = time.perf_counter()
            mine.write(lambda c, i=i: c.execute(insert(f"mine {i}")))
            slowest = max(slowest, time.perf_counter() - start)
        assert other.wait(60) == 0
        other.stdout.close()
        assert count(mine) == 300
        assert check(mine) == []
    assert slowest < 5.0


def test_programs_that_make_a_library_at_once_make_one(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    children = [child(path, f"program {i}", 3) for i in range(3)]
    for one in children:
        assert one.wait(60) == 0
        assert one.stdout is not None
        one.stdout.close()
    with Database(path) as opened:
        assert count(opened) == 9
        assert count(opened, "migrations") == len(MIGRATIONS)


def test_who_writes_too_long_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    others = WriterLock(database.path)
    with (
        others.held(1.0),
        pytest.raises(LibraryError, match=f"process {os.getpid()} on .* has been writing") as caught,
    ):
        add_tracks(database, "a")
    others.close()
    assert "try again" in caught.value.hint
    add_tracks(database, "a")
    assert count(database) == 1


def test_nobody_is_kept_out_by_one_who_writes_without_pause(tmp_path: Path) -> None:
    """Two holders that never rest take turns."""
    turns: list[int] = []
    stop = threading.Event()

    def work(who: int) -> None:
        lock = WriterLock(tmp_path / "library.db")
        while not stop.is_set():
            with lock.held(10.0):
                turns.append(who)
                time.sleep(0.001)
        lock.close()

    threads = [threading.Thread(target=work, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(turns) > 20
    assert abs(turns.count(0) - turns.count(1)) < len(turns) / 5
