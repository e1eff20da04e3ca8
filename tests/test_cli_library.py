"""`acoustic library ...` as a person meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acoustic.cli.library import app
from acoustic.errors import AcousticError, LibraryError
from acoustic.library.store import Library
from tests.documented import keys_of
from tests.library.made_library import add_file, add_tracks

runner = CliRunner()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library in the person's data folder: two songs, one decided, and a file with an evil name."""
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ACOUSTIC_CACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "data" / "library.db"
    with Library(place) as library:
        a, b = add_tracks(library.database, "a", "b")
        library.database.write(lambda c: c.execute("DELETE FROM files WHERE track_id = ?", (b,)))
        library.database.write(lambda c: add_file(c, b, b"/music/\xff\x1b[31m[red].mp3"))
        library.decisions.decide(a, "Forró", who="Ana", expected=None)
        library.decisions.decide(b, None, kind="skip", who="Ana", expected=None)
        library.decisions.undo("Ana")
    return place


def out(*arguments: object, status: int = 0) -> str:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done.stdout


def refused(*arguments: object) -> AcousticError:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, AcousticError), done.output
    assert done.exception.hint
    return done.exception


def test_status(path: Path) -> None:
    said = json.loads(out("status", "--json"))
    assert set(said) == keys_of("library status")
    assert said["path"] == str(path)
    assert [said[name] for name in ("n_songs", "n_files", "n_decided", "n_skipped", "n_waiting", "n_history")] == [
        *(2, 2, 1, 0, 1, 3)
    ]
    shown = out("status")
    assert "2, of which 2 analysed" in shown
    assert "1; 0 skipped; 1 wait for you" in shown


def test_check(path: Path) -> None:
    assert "is sound" in out("check")
    assert json.loads(out("check", "--json")) == {"library": str(path), "problems": []}
    assert keys_of("library check") == {"library", "problems"}
    with Library(path) as library:
        library.database.write(lambda c: c.execute("DELETE FROM in_force"))
    assert "song 1: decision None counts" in out("check", status=1)
    assert len(json.loads(out("check", "--json", status=1))["problems"]) == 1


def test_backup_and_where_it_is_named(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / os.fsdecode(b"copy \xff.db")
    runner.invoke(app, ["backup", str(copy)])
    assert json.loads(out("status", "--json", "--library", copy))["n_history"] == 3
    assert "there already" in refused("backup", copy).message
    out("backup", copy, "--overwrite")


def test_export_and_import(path: Path, tmp_path: Path) -> None:
    lines = out("export")
    assert [json.loads(line)["kind"] for line in lines.splitlines()[1:]] == ["genre", "skip", "undo"]
    out("export", tmp_path / "decisions.jsonl")
    (tmp_path / "song.mp3").write_text("a song")
    assert "is there already" in refused("export", tmp_path / "song.mp3").message
    assert (tmp_path / "song.mp3").read_text() == "a song"
    out("export", tmp_path / "decisions.jsonl", "--overwrite")
    assert (tmp_path / "decisions.jsonl").read_text(encoding="utf-8").splitlines()[1:] == lines.splitlines()[1:]
    elsewhere = tmp_path / "elsewhere" / "library.db"
    assert "3 added, 0 known" in out("import", tmp_path / "decisions.jsonl", "--library", elsewhere)
    again = json.loads(out("import", tmp_path / "decisions.jsonl", "--library", elsewhere, "--json"))
    assert again == {"added": 0, "known": 3, "new_songs": 0, "refused": 0, "errors": []}
    assert set(again) == keys_of("library import")
    with open(tmp_path / "decisions.jsonl", "ab") as file:
        file.write(b"nonsense\n")
    done = runner.invoke(app, ["import", str(tmp_path / "decisions.jsonl"), "--library", str(elsewhere)])
    assert done.exit_code == 1
    assert "line 5: not JSON" in done.stderr
    assert "cannot be read" in refused("import", tmp_path / "missing.jsonl", "--library", elsewhere).message


def test_history(path: Path) -> None:
    shown = out("history")
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert "takes back 2" in lines[1]
    assert "\x1b" not in shown
    assert "\ufffd\ufffd[31m[red].mp3" in lines[1]
    assert "Forró" in lines[3]
    assert "Jazz 50%" in lines[3]
    [newest] = [json.loads(line) for line in out("history", "--json", "--limit", 1).splitlines()]
    assert (newest["kind"], newest["undoes"], newest["who"]) == ("undo", 2, "Ana")
    assert "file_bytes" in newest
    assert set(newest) - {"file_bytes"} == keys_of("library history")


@pytest.mark.parametrize("command", [["status"], ["check"], ["history"], ["export"], ["backup", "copy.db"]])
def test_a_library_that_is_not_there_is_not_made_by_looking(command: list[str], path: Path, tmp_path: Path) -> None:
    place = tmp_path / "typo" / "library.db"
    error = refused(*command, "--library", place)
    assert isinstance(error, LibraryError)
    assert "acoustic scan" in error.hint
    assert not place.parent.exists()


def test_the_environment_names_it_too(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACOUSTIC_LIBRARY", str(tmp_path / "none.db"))
    assert "none.db" in refused("status").message
    assert json.loads(out("status", "--json", "--library", path))["n_songs"] == 2
