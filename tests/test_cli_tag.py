"""`acoustic tag` as a person meets it: shown first, written when asked for, taken back."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acoustic.cli.tag import app
from acoustic.errors import AcousticError
from acoustic.library.database import Database
from acoustic.library.tag_plan import Change
from acoustic.library.tagging import TagJournal
from acoustic.library.tags import read_tags, write_genres
from acoustic.signal.sound_digest import sound_digest
from acoustic.workstation import tagging
from tests.documented import keys_of
from tests.tagged import furnish, keep, song

runner = CliRunner()


class Place:
    """A library with five songs: sure, unsure, decided, with a genre, and no music."""

    def __init__(self, folder: Path) -> None:
        self.library, self.music = folder / "library.db", folder / "music"
        (self.music / "more").mkdir(parents=True)
        self.sure = song(self.music / "sure.mp3", "mp3", 1)
        self.unsure = song(self.music / "unsure.flac", "flac", 2)
        self.decided = song(self.music / "more" / "decided.ogg", "ogg", 3)
        self.full = furnish(song(self.music / "full.wav", "wav", 4), ["Polka"])
        self.speech = song(self.music / "speech.aiff", "aiff", 5)
        with Database(self.library) as database:
            keep(database, [self.sure], {"Hip-Hop": 0.8, "Rap": 0.15, "Pop": 0.05})
            keep(database, [self.unsure], {"Rock": 0.6, "Metal": 0.4})
            keep(database, [self.decided], {"Rock": 0.95, "Metal": 0.05}, decided="Forró")
            keep(database, [self.full], {"Jazz": 0.99, "Blues": 0.01})
            keep(database, [self.speech], {"Jazz": 0.99, "Blues": 0.01}, kind="not_music")

    def run(self, *arguments: object, status: int = 0) -> str:
        done = self._invoke(*arguments)
        assert done.exit_code == status, done.output
        return done.output

    def lines(self, *arguments: object, status: int = 0) -> list[dict]:
        done = self._invoke(*arguments, "--json")
        assert done.exit_code == status, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refused(self, *arguments: object) -> AcousticError:
        done = self._invoke(*arguments)
        assert isinstance(done.exception, AcousticError), done.output
        assert done.exception.hint
        return done.exception

    def _invoke(self, *arguments: object) -> object:
        return runner.invoke(app, [*map(str, arguments), "--library", str(self.library)])

    def genres(self) -> dict[str, tuple[str, ...]]:
        return {
            path.stem: read_tags(path).genres for path in (self.sure, self.unsure, self.decided, self.full, self.speech)
        }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(tagging, "remote_digest", lambda n: nullcontext(sound_digest))  # its own tests take the time
    return Place(tmp_path)


def test_the_first_run_only_shows(place: Place) -> None:
    before = {path: path.read_bytes() for path in place.music.rglob("*.*")}
    said = place.run()
    assert "2 files would be written" in said
    assert all(why in said for why in ("1 has a genre", "1 not sure enough", "1 you said that it is no music"))
    assert "`--write` writes them" in said
    [shown] = [line for line in said.splitlines() if "sure.mp3" in line]
    assert "(none)" in shown
    assert "Hip-Hop" in shown
    assert "model, 80%" in shown
    assert "Forró" in said
    assert {path: path.read_bytes() for path in place.music.rglob("*.*")} == before
    assert place.lines("list") == []


def test_write_list_undo(place: Place) -> None:
    before = {path: path.read_bytes() for path in place.music.rglob("*.*")}
    assert "2 files written" in place.run("--write")
    assert place.genres() == {
        "sure": ("Hip-Hop",), "unsure": (), "decided": ("Forró",), "full": ("Polka",), "speech": ()
    }  # fmt: skip
    assert "0 files would be written" in place.run()
    [batch] = place.lines("list")
    assert set(batch) == keys_of("tag list")
    assert {frozenset(line) for line in place.lines("list", 1)} == {keys_of("tag list N")}
    assert (batch["batch"], batch["written"], batch["undone"], batch["failed"]) == (1, 2, 0, 0)
    assert batch["policy"]["min_confidence"] == 0.7
    assert "1 " in place.run("list")
    assert "Forró" in place.run("list", 1)
    assert {line["status"] for line in place.lines("list", 1)} == {"written"}
    undone = place.lines("undo")
    assert {frozenset(line) for line in undone} == {keys_of("tag undo")}
    assert [(line["status"], line["batch"], line["genres"]) for line in undone] == [("undone", 1, [])] * 2
    assert {path: path.read_bytes() for path in place.music.rglob("*.*")} == before
    assert "nothing is written" in place.refused("undo").message
    assert "no batch 7" in place.refused("undo", 7).message


def test_json_tells_each_file(place: Place) -> None:
    lines = {os.path.basename(line["file"]): line for line in place.lines("--write")}
    assert {frozenset(line) for line in lines.values()} == {keys_of("tag")}
    assert lines["sure.mp3"] == {
        "file": str(place.sure), "status": "written", "before": [], "after": ["Hip-Hop"], "source": "model",
        "confidence": 0.8, "reason": None, "detail": None, "batch": 1, "error": None,
    }  # fmt: skip
    assert lines["decided.ogg"]["source"] == "person"
    assert lines["decided.ogg"]["confidence"] is None
    assert (lines["full.wav"]["status"], lines["full.wav"]["reason"]) == ("left", "has a genre")
    assert lines["full.wav"]["after"] == ["Polka"]


def test_how_sure_how_many_and_by_which_names(place: Place, tmp_path: Path) -> None:
    mapping = tmp_path / "mine.toml"
    mapping.write_text('"hip hop" = "Hip Hop/Rap"\nRock = ["Rock", "Guitars"]\nMetal = []\n"Forró" = "Forro"\n')
    place.run("--write", "--min-confidence", 0.4, "--max-genres", 2, "--mapping", mapping)
    assert place.genres() == {
        "sure": ("Hip Hop/Rap",), "unsure": ("Rock", "Guitars"), "decided": ("Forro",), "full": ("Polka",), "speech": ()
    }  # fmt: skip


def test_what_may_be_written_over(place: Place) -> None:
    place.run("--write")
    with Database(place.library) as database:
        said = "UPDATE verdicts SET probabilities = replace(probabilities, 'Hip-Hop', 'Funk')"
        database.write(lambda c: c.execute(said))
    write_genres(place.decided, ["Theirs"])
    stat = place.decided.stat()
    with Database(place.library) as database:  # as the next scan would
        database.write(
            lambda c: c.execute(
                "UPDATE files SET n_bytes = ?, mtime_ns = ? WHERE path = ?",
                (stat.st_size, stat.st_mtime_ns, bytes(place.decided)),
            )
        )
    assert "0 files would be written" in place.run()
    place.run("--write", "--renew")
    assert place.genres()["sure"] == ("Funk",)
    assert place.genres()["decided"] == ("Theirs",)
    assert place.genres()["full"] == ("Polka",)
    place.run("--write", "--overwrite")
    assert place.genres()["decided"] == ("Forró",)
    assert place.genres()["full"] == ("Jazz",)
    assert place.genres()["speech"] == ()
    place.run("undo")
    place.run("undo")
    said = place.run("undo")
    assert "decided.ogg: its genres were changed by another program" in said
    assert place.genres()["decided"] == ("Theirs",)
    assert place.genres()["sure"] == ()


@pytest.mark.parametrize("option", [("--library", "other.db"), ("--json",), ("--write",), ("--hard-links",)])
@pytest.mark.parametrize("command", ["undo", "list"])
def test_an_option_before_a_command_below_is_not_passed_over(
    place: Place, option: tuple[str, ...], command: str
) -> None:
    """It would be heard by nobody, and another library than the named one worked on."""
    place.run("--write")
    written = place.genres()
    error = place.refused(*option, command)
    assert f"{option[0]} stands before `{command}`" in error.message
    assert f"`acoustic tag {command} --help`" in (error.hint or "")
    assert place.genres() == written


def test_a_link_to_a_file_of_the_list_is_the_same_file(place: Place) -> None:
    link = place.music / "a link.mp3"
    link.symlink_to(place.sure)
    also = """INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, scan_id)
        SELECT ?, 'a link', track_id, n_bytes, mtime_ns, state, scan_id FROM files WHERE path = ?"""
    with Database(place.library) as database:
        database.write(lambda c: c.execute(also, (bytes(link), bytes(place.sure))))
    said = {Path(line["file"]).name: (line["status"], line["reason"]) for line in place.lines("--write")}
    assert said["a link.mp3"] == ("written", None)
    assert said["sure.mp3"] == ("left", "a link to a file of this list")
    assert place.genres()["sure"] == ("Hip-Hop",)


def test_a_write_that_is_interrupted_says_what_was_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TagJournal._write

    def interrupted(self: TagJournal, batch_id: int, change: Change, *others: object) -> None:
        if change.path == bytes(place.sure):
            raise KeyboardInterrupt
        plain(self, batch_id, change, *others)

    monkeypatch.setattr(TagJournal, "_write", interrupted)
    said = place.run("--write", status=130)
    assert "stopped; 1 file written. `acoustic tag undo 1` takes it back." in said
    assert place.genres()["decided"] == ("Forró",)


def test_a_folder_alone_and_times_kept(place: Place) -> None:
    link = place.music.parent / "link"
    link.symlink_to(place.music / "more")
    times = place.decided.stat().st_mtime_ns
    assert "1 file would be written" in place.run("--folder", link)
    (place.music / "mor").mkdir()
    assert "0 files" in place.run("--folder", place.music / "mor")
    for none in (place.music / "more2", place.sure):
        assert "no such folder" in place.refused("--folder", none).message
    place.run("--write", "--folder", link, "--keep-times")
    assert place.genres()["decided"] == ("Forró",)
    assert place.genres()["sure"] == ()
    assert place.decided.stat().st_mtime_ns == times


def test_a_file_that_fails_is_told_and_the_rest_goes_on(place: Place) -> None:
    place.sure.chmod(0o444)
    said = place.run("--write", status=1)
    assert "sure.mp3 is read-only" in said
    assert "1 file written" in said
    assert "1 failed" in said
    assert place.genres()["decided"] == ("Forró",)
    [line] = [line for line in place.lines("--write", status=1) if line["file"] == str(place.sure)]
    assert (line["status"], line["error"]["code"], line["after"]) == ("error", "TAGS", [])


def test_files_that_are_gone_or_cannot_be_read(place: Place) -> None:
    place.sure.unlink()
    place.decided.write_bytes(b"OggS" + bytes(100))
    said = place.run()
    assert "0 files would be written" in said
    assert "2 cannot be read" in said
    assert "sure.mp3: No such file" in said


def test_names_are_shown_as_text(place: Place) -> None:
    evil = os.fsencode(place.music) + b"/\x1b[31m<b>\xff\xe2\x80\xae.mp3"
    os.replace(song(place.music / "made", "mp3", 6), evil)
    with Database(place.library) as database:
        keep(database, [evil], {"Rock": 0.9})
    said = place.run()
    assert "\x1b" not in said
    assert "\u202e" not in said
    [line] = [line for line in place.lines() if "<b>" in line["file"]]
    assert line["file_bytes"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = ", "not TOML"),
        ("Rock = 3", "neither"),
        ("Rock = [1]", "neither"),
        ('Rock = "\\n"', "genre's name"),
        ("", ""),
    ],
)
def test_a_mapping_that_makes_no_sense(text: str, says: str, place: Place, tmp_path: Path) -> None:
    mapping = tmp_path / "mine.toml"
    mapping.write_text(text)
    if says:
        assert says in place.refused("--mapping", mapping).message
    else:
        assert "2 files" in place.run("--mapping", mapping)
    assert "cannot be read" in place.refused("--mapping", tmp_path / "none.toml").message


def test_wrong_usage(place: Place) -> None:
    assert "exclude" in place.refused("--renew", "--overwrite").message
    assert "--min-confidence" in place.run("--min-confidence", 2, status=2)
    assert (
        "no library"
        in runner.invoke(app, ["list", "--library", str(place.library.with_name("no.db"))]).exception.message
    )
