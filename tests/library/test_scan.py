"""The scan without audio: a file's text says what becomes of it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acoustic.errors import CorruptAudioError, LibraryError, ModelError, StoppedError
from acoustic.kept import FoundFile, ScanProgress, SongTags
from acoustic.library import scan as module
from acoustic.library.database import Database
from acoustic.library.scan import Looked, Stages, alone, scan_files
from acoustic.library.tracks import Tracks
from acoustic.records import Analysis
from acoustic.signal.files import walk_audio
from tests.scan_records import analysis, digest


class Site:
    """A folder, a library, and stages that count what they were asked."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.music = folder / "music"
        self.music.mkdir()
        self.root = os.fsencode(self.music)
        self.database, self.tracks = database, Tracks(database)
        self.model_id = self.tracks.model_id("made-up", "0" * 64, {})
        self.looked: list[str] = []
        self.analysed: list[str] = []
        self.stopped = threading.Event()
        self.before_analysis: Callable[[str], None] = lambda name: None

    def write(self, name: str, text: str, mtime: int = 1) -> Path:
        path = self.music / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (mtime, mtime))
        return path

    def look(self, path: bytes) -> Looked:
        self.looked.append(os.path.basename(os.fsdecode(path)))
        text = Path(os.fsdecode(path)).read_text()
        if text == "unreadable":
            raise CorruptAudioError("unreadable")
        return Looked(digest(text), SongTags(title=text))

    def analyse(self, found: FoundFile, digest: str) -> Analysis:
        name = os.path.basename(os.fsdecode(found.path))
        self.before_analysis(name)
        self.analysed.append(name)
        text = Path(os.fsdecode(found.path)).read_text()
        module.check_unchanged(found)
        if text == "bad":
            raise CorruptAudioError("bad")
        if text == "fault":
            raise RuntimeError("our own")
        if text == "no model":
            raise ModelError("no model")
        return analysis(seed=len(text), path=name)

    def scan(self, **more: object) -> ScanProgress:
        self.looked, self.analysed = [], []
        walk = more.pop("walk", lambda told: walk_audio(self.root, told))
        stages = Stages(walk, self.look, self.analyse, self.stopped.set, n_at_once=3)
        return scan_files(self.tracks, self.root, self.model_id, stages, **more)

    def rows(self, sql: str) -> list[tuple]:
        return [tuple(row) for row in self.database.read(lambda c: c.execute(sql).fetchall())]

    def states(self) -> dict[str, str | None]:
        """Error code (None: ok) by file name, of those that are there."""
        rows = self.rows("SELECT shown, error_code FROM files WHERE NOT missing")
        return {os.path.basename(shown): code for shown, code in rows}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Database(tmp_path / "library.db") as database:
        yield Site(tmp_path, database)


def test_each_file_gets_one_record(site: Site) -> None:
    texts = {"a.mp3": "one", "b.mp3": "two", "x/c.mp3": "bad", "d.mp3": "fault", "e.mp3": "unreadable"}
    for name, text in texts.items():
        site.write(name, text)
    site.write("cover.jpg", "no song")
    told: list[ScanProgress] = []
    done = site.scan(on_progress=told.append)
    assert site.states() == {"a.mp3": None, "b.mp3": None, "c.mp3": "CORRUPT", "d.mp3": "INTERNAL", "e.mp3": "CORRUPT"}
    assert (done.state, done.n_found, done.n_ok, done.n_errors, done.n_finished) == ("done", 5, 2, 3, 5)
    assert not done.walking
    assert told[-1] == done
    assert site.rows("SELECT state FROM scans") == [("done",)]
    assert site.rows("SELECT title FROM files WHERE shown LIKE '%a.mp3'") == [("one",)]


def test_what_is_unchanged_costs_nothing(site: Site) -> None:
    for i in range(40):
        site.write(f"{i}.mp3", f"song {i}")
    site.write("bad.mp3", "bad")
    site.scan()
    again = site.scan()
    assert (again.n_unchanged, again.n_ok, again.n_errors) == (41, 0, 0)
    assert (site.looked, site.analysed) == ([], [])


def test_what_changed_is_analysed_anew(site: Site) -> None:
    site.write("a.mp3", "one")
    site.write("b.mp3", "two")
    site.scan()
    site.write("a.mp3", "six", mtime=2)
    site.write("b.mp3", "longer")
    done = site.scan()
    assert (done.n_ok, done.n_unchanged) == (2, 0)
    assert sorted(site.analysed) == ["a.mp3", "b.mp3"]
    assert len(site.rows("SELECT DISTINCT track_id FROM files")) == 2
    assert len(site.states()) == 2


def test_a_touched_a_moved_and_a_copied_file_are_known_by_content(site: Site) -> None:
    touched, moved = site.write("a.mp3", "one"), site.write("b.mp3", "two")
    site.scan()
    os.utime(touched, (5, 5))
    moved.rename(moved.with_name("renamed.mp3"))
    shutil.copy(touched, site.music / "copy.mp3")
    done = site.scan()
    assert sorted(site.looked) == ["a.mp3", "copy.mp3", "renamed.mp3"]
    assert site.analysed == []
    assert (done.n_ok, done.n_known, done.n_missing) == (3, 3, 1)
    assert site.rows("SELECT count(DISTINCT track_id) FROM files") == [(2,)]
    assert sorted(site.states()) == ["a.mp3", "copy.mp3", "renamed.mp3"]
    assert site.scan().n_unchanged == 3


def test_copies_in_one_scan_are_analysed_once(site: Site) -> None:
    for i in range(30):
        site.write(f"{i}.mp3", "the same" if i % 2 else "another")
    for i in range(5):
        site.write(f"bad {i}.mp3", "bad")
    site.before_analysis = lambda name: time.sleep(0.05)
    done = site.scan()
    assert (done.n_ok, done.n_errors) == (30, 5)
    assert len(site.analysed) <= 2 + 5
    assert site.rows("SELECT count(*) FROM tracks") == [(2,)]


def test_what_is_gone_is_marked_and_found_again(site: Site, tmp_path: Path) -> None:
    path = site.write("x/a.mp3", "one")
    site.write("b.mp3", "two")
    site.scan()
    shutil.move(path.parent, tmp_path / "away")
    assert site.scan().n_missing == 1
    assert list(site.states()) == ["b.mp3"]
    assert site.scan().n_missing == 0
    shutil.move(tmp_path / "away", path.parent)
    assert site.scan().n_unchanged == 2
    assert sorted(site.states()) == ["a.mp3", "b.mp3"]
    assert site.looked == []


def test_another_model_analyses_all_anew(site: Site) -> None:
    site.write("a.mp3", "one")
    site.scan()
    site.model_id = site.tracks.model_id("another", "1" * 64, {})
    assert site.scan().n_ok == 1
    assert site.rows("SELECT count(*) FROM analyses") == [(2,)]


def test_cancel_keeps_what_is_finished_and_the_next_scan_goes_on(site: Site) -> None:
    for i in range(40):
        site.write(f"{i:02}.mp3", f"song {i}")
    cancel = threading.Event()

    def hesitate(name: str) -> None:
        if len(site.analysed) >= 10:
            cancel.set()
            site.stopped.wait(20)
            raise StoppedError("stopped")

    site.before_analysis = hesitate
    began = time.monotonic()
    done = site.scan(cancel=cancel)
    assert time.monotonic() - began < 2
    assert done.state == "cancelled"
    assert 5 <= done.n_ok < 40  # what a thread was about to hand in when the scan was stopped is analysed again
    assert len(site.states()) == done.n_ok
    site.before_analysis = lambda name: None
    rest = site.scan()
    assert (rest.n_unchanged, rest.n_ok) == (done.n_ok, 40 - done.n_ok)
    assert site.rows("SELECT state FROM scans ORDER BY id") == [("cancelled",), ("done",)]


def test_a_walk_that_hangs_can_be_cancelled(site: Site) -> None:
    cancel = threading.Event()

    def hang(told: Callable[[bytes], None]) -> Iterator[FoundFile]:
        cancel.set()
        time.sleep(5)
        yield FoundFile(b"/x.mp3", 1, 1)

    began = time.monotonic()
    assert site.scan(walk=hang, cancel=cancel).state == "cancelled"
    assert time.monotonic() - began < 2


def test_without_a_model_the_scan_fails_with_what_is_finished_kept(site: Site) -> None:
    site.write("a.mp3", "one")
    site.scan()
    site.write("b.mp3", "no model")
    with pytest.raises(ModelError):
        site.scan()
    assert site.rows("SELECT state FROM scans ORDER BY id") == [("done",), ("failed",)]
    assert site.states() == {"a.mp3": None}


def test_a_walk_that_fails_ends_the_scan(site: Site) -> None:
    def broken(told: Callable[[bytes], None]) -> Iterator[FoundFile]:
        raise OSError("the disk is gone")
        yield

    with pytest.raises(OSError, match="the disk is gone"):
        site.scan(walk=broken)
    assert site.rows("SELECT state FROM scans") == [("failed",)]


def test_a_file_that_changes_while_it_is_heard_is_no_answer_and_is_tried_again(site: Site) -> None:
    path = site.write("a.mp3", "one song")
    site.write("copy.mp3", "one song")

    def exchange(name: str) -> None:
        site.write(name, "quite another song", mtime=7)
        site.before_analysis = lambda name: None

    site.before_analysis = exchange
    done = site.scan()
    assert done.n_errors == 1, "its copy is heard by itself"
    assert sorted(map(str, site.states().values())) == ["None", "STORAGE"]
    assert site.rows("SELECT digest FROM tracks") == [(digest("one song"),)]
    again = site.scan()
    assert again.n_errors == 0
    assert set(site.states().values()) == {None}
    rows = site.rows("SELECT f.shown, t.digest FROM files f JOIN tracks t ON t.id = f.track_id")
    assert {os.path.basename(shown): found for shown, found in rows} == {
        name: digest(Path(site.music / name).read_text()) for name in ("a.mp3", "copy.mp3")
    }
    assert path.exists()


def test_unreadable_folders_are_counted(site: Site) -> None:
    def walk(told: Callable[[bytes], None]) -> Iterator[FoundFile]:
        told(b"/music/locked")
        yield from ()

    assert site.scan(walk=walk).unreadable == ("/music/locked",)


def test_the_walk_does_not_run_far_ahead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million files must not stand in memory because they cannot be analysed as fast as they are found."""
    monkeypatch.setattr(module, "CHUNK_FILES", 10)
    first = site.write("a.mp3", "one")
    cancel, ahead = threading.Event(), []
    walkers: list[list[int]] = []

    def walk(told: Callable[[bytes], None]) -> Iterator[FoundFile]:
        walkers.append(count := [0])
        for i in range(5_000):
            count[0] += 1
            yield FoundFile(os.fsencode(first), i, 1)

    def hesitate(name: str) -> None:
        time.sleep(0.3)
        ahead.append(walkers[0][0])
        cancel.set()

    site.before_analysis = hesitate
    site.scan(walk=walk, cancel=cancel)
    assert 10 <= ahead[0] <= 100


def test_the_rest_is_counted_while_the_first_are_analysed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_FILES", 10)
    monkeypatch.setattr(module, "TOLD_S", 0.0)
    monkeypatch.setattr(module, "BATCH_FILES", 1)
    for i in range(200):
        site.write(f"{i}.mp3", f"song {i}")
    site.before_analysis = lambda name: time.sleep(0.005)
    told: list[ScanProgress] = []
    site.scan(on_progress=told.append)
    early = [p for p in told if not p.walking and 0 < p.n_ok < 100]
    assert early
    assert all(p.n_found == 200 for p in early)
    assert any(p.eta_s and 0.1 < p.eta_s < 60 for p in early)
    assert all(p.files_per_s > 1 for p in early if p.eta_s)


def test_one_scan_at_a_time(tmp_path: Path) -> None:
    library = tmp_path / "library.db"
    with alone(library), pytest.raises(LibraryError, match="another scan"), alone(library):
        pass
    with alone(tmp_path / "library.db"):
        pass
