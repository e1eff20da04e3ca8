"""The desk keeps a session's files together, and a batch shows each file's stages and end."""

from __future__ import annotations

import json
import os

import pytest
from workstation_double import WorkstationDouble, analysis, clip

from acoustic.records import Analysis, Failure
from acoustic.ui import uploads
from acoustic.ui.desk import Desk, run
from acoustic.ui.serving import free_port


@pytest.fixture
def workstation(tmp_path):
    return WorkstationDouble(tmp_path, pause_s=0.0)


def test_a_batch_ends_with_every_file_answered_and_each_finish_told_once(workstation, tmp_path):
    desk = Desk()
    desk.add([("earlier.wav", "e")])
    indices = desk.add([(name, str(clip(tmp_path / name, 1.0))) for name in ("a.ogg", "bad.ogg", "review.ogg")])
    told = [i for finished in run(desk, indices, workstation) for i in finished]
    assert sorted(told) == indices == [1, 2, 3]
    assert [type(entry.result) for entry in desk.entries] == [type(None), Analysis, Failure, Analysis]
    assert [entry.needs_review for entry in desk.entries[1:]] == [False, False, True]


def test_stages_are_shown_before_the_end(tmp_path):
    desk = Desk()
    indices = desk.add([("a.ogg", str(clip(tmp_path / "a.ogg", 1.0)))])
    stages = [desk.entries[0].stage for _ in run(desk, indices, WorkstationDouble(tmp_path, pause_s=0.2))]
    assert "inference" in stages
    assert stages[-1] == "done"


def test_a_workstation_that_breaks_leaves_an_error_beside_every_unfinished_file(tmp_path):
    class Broken(WorkstationDouble):
        def analyze(self, paths, **_):
            yield 0, analysis(paths[0])
            raise ZeroDivisionError("boom")

    desk = Desk()
    indices = desk.add([("a", "a"), ("b", "b"), ("c", "c")])
    list(run(desk, indices, Broken(tmp_path)))
    assert isinstance(desk.entries[0].result, Analysis)
    for entry in desk.entries[1:]:
        assert isinstance(entry.result, Failure)
        assert entry.result.error["code"] == "INTERNAL"
        assert "boom" in entry.result.error["message"]


def test_exports_carry_the_persons_names_and_each_session_has_its_own_place(tmp_path):
    one, other = Desk(), Desk()
    assert one.write_exports(tmp_path) is None
    for desk in (one, other):
        desk.add([("My song.mp3", "/elsewhere/upload.mp3")])
        desk.entries[0].result = analysis("/elsewhere/upload.mp3")
    csv_path, json_path = one.write_exports(tmp_path)
    assert json.loads(json_path.read_text())[0]["file"] == "My song.mp3"
    assert "/elsewhere" not in csv_path.read_text(encoding="utf-8")
    assert other.write_exports(tmp_path)[0] != csv_path
    assert one.write_exports(tmp_path)[0] == csv_path


def test_clearing_leaves_nothing_chosen():
    desk = Desk()
    desk.add([("a", "a")])
    desk.chosen = 0
    desk.clear()
    assert (desk.entries, desk.current, desk.edition) == ([], None, 1)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Music\\song.mp3", "song.mp3"),
        ("two\nlines.mp3", "two\ufffdlines.mp3"),
        ("\u202egpj.exe", "\ufffdgpj.exe"),
        ("", "unnamed file"),
    ],
)
def test_names_from_a_browser_are_one_plain_line(sent, shown):
    assert uploads.shown_name(sent) == shown


def test_received_keeps_order_and_falls_back_to_the_copys_name():
    payload = [{"path": "/u/1/x.mp3", "orig_name": "<x>.mp3"}, {"path": "/u/2/y.mp3", "orig_name": None}]
    assert uploads.received(payload) == [("<x>.mp3", "/u/1/x.mp3"), ("y.mp3", "/u/2/y.mp3")]
    assert uploads.received(None) == []


def test_sweeping_takes_old_uploads_and_torn_ones_and_leaves_the_new(tmp_path):
    old, new, torn = tmp_path / "h1" / "old.mp3", tmp_path / "h2" / "new.mp3", tmp_path / "tmpabc"
    for path in (old, new, torn):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    now = new.stat().st_mtime
    for path in (old, torn):
        os.utime(path, (now - 1000, now - 1000))
    assert uploads.sweep(tmp_path, older_than_s=500, now_s=now + 1) == 2
    os.utime(tmp_path / "h1", (now - 1000, now - 1000))
    uploads.sweep(tmp_path, older_than_s=500, now_s=now + 1)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["h2", "new.mp3"]
    assert uploads.sweep(tmp_path / "missing") == 0


def test_a_borrowed_file_is_a_copy_inside_the_folder_made_anew_each_time(tmp_path):
    source = tmp_path / "own" / "demo.ogg"
    source.parent.mkdir()
    source.write_bytes(b"one")
    folder = tmp_path / "uploads"
    assert uploads.borrowed(source, folder).read_bytes() == b"one"
    source.write_bytes(b"two")
    assert uploads.borrowed(source, folder).read_bytes() == b"two"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1


def test_a_busy_port_gives_way_to_the_next():
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert taken < free_port("127.0.0.1", taken) <= taken + 100
