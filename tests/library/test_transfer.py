"""What a person decided survives: as a copy of the file, and as lines that find their songs by content."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import LibraryError
from acoustic.kept import NOT_MUSIC
from acoustic.library.checking import check, status
from acoustic.library.decision_lines import MAX_LINE_BYTES, NewerFormatError, parse, read_lines
from acoustic.library.lineage import track_of
from acoustic.library.store import Library
from acoustic.library.transfer import Exported, Imported, backup, export, export_to, import_
from tests.library.made_library import add_file, add_track, add_tracks, digest_of

BAD_NAME = b"/music/\xff\xfe caf\xe9.mp3"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Three songs, decided, decided again, taken back, and one whose file has no name in UTF-8."""
    with Library(tmp_path / "library.db") as opened:
        a, b, c = add_tracks(opened.database, "a", "b", "c")
        opened.database.write(lambda k: k.execute("DELETE FROM files WHERE track_id = ?", (c,)))
        opened.database.write(lambda k: add_file(k, c, BAD_NAME))
        first = opened.decisions.decide(a, "Forró", who="Ana", expected=None, took_s=1.5)
        opened.decisions.decide(a, "Jazz", who="Ben", expected=first.id)
        opened.decisions.undo("Ben")
        opened.decisions.decide_many([b, c], NOT_MUSIC, who="Ana")
        opened.decisions.undo("Ana")
        opened.decisions.decide(b, None, kind="skip", who="Ana", expected=None)
        opened.decisions.decide(c, "Folk", who="Ana", expected=None)
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "other" / "library.db") as opened:
        yield opened


def exported(library: Library) -> list[bytes]:
    out = io.BytesIO()
    export(library.database, out)
    return out.getvalue().splitlines(keepends=True)


def told(library: Library) -> list[dict[str, Any]]:
    """The history without what is this machine's: where files lie, and the heading."""
    lines = [json.loads(line) for line in exported(library)[1:]]
    return [{key: value for key, value in line.items() if not key.startswith("file")} for line in lines]


def in_force(library: Library) -> dict[str, str | None]:
    sql = """SELECT t.digest, d.kind || coalesce(d.genre, '') FROM in_force AS f
        JOIN tracks AS t ON t.id = f.track_id JOIN decisions AS d ON d.id = f.decision_id"""
    return library.database.read(lambda c: dict(c.execute(sql).fetchall()))


def test_round_trip(library: Library, other: Library) -> None:
    lines = exported(library)
    came = import_(other.database, lines)
    assert came == Imported(9, 0, 3, 0, ())
    assert told(other) == told(library)
    assert in_force(other) == in_force(library)
    assert in_force(other) == {digest_of("a"): "genreForró", digest_of("b"): "skip", digest_of("c"): "genreFolk"}
    assert check(other.database) == []
    mine, theirs = (lib.decisions.history() for lib in (library, other))
    assert [(d.made_at, d.undoes, d.batch, d.took_s) for d in mine] == [
        (d.made_at, d.undoes, d.batch, d.took_s) for d in theirs
    ]
    other.decisions.undo("Ana")  # and goes on as it would have here
    assert digest_of("c") not in in_force(other)


def test_importing_twice_adds_nothing(library: Library, other: Library) -> None:
    lines = exported(library)
    import_(other.database, lines)
    assert import_(other.database, lines) == Imported(0, 9, 0, 0, ())
    assert import_(library.database, lines) == Imported(0, 9, 0, 0, ())
    assert import_(other.database, lines + lines) == Imported(0, 18, 0, 0, ())
    assert told(other) == told(library)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_lines_does_not_matter(seed: int, library: Library, other: Library) -> None:
    lines = exported(library)
    random.Random(seed).shuffle(lines)
    assert import_(other.database, lines).n_added == 9
    assert in_force(other) == in_force(library)
    assert check(other.database) == []


def test_songs_are_known_by_content_wherever_they_lie(library: Library, other: Library) -> None:
    moved = other.database.write(lambda c: add_track(c, "c"))
    other.database.write(lambda c: c.execute("UPDATE files SET path = ?", (b"/elsewhere/x.mp3",)))
    assert import_(other.database, exported(library)).n_new_songs == 2
    found = other.decisions.in_force(moved)
    assert found is not None
    assert found.genre == "Folk"


def test_a_line_cannot_make_a_genre_of_what_is_no_music(library: Library, other: Library) -> None:
    lines = [line.replace('"Forró"'.encode(), f'" {NOT_MUSIC}"'.encode()) for line in exported(library)]
    came = import_(other.database, lines)
    assert "not_music" in came.errors[0].message
    assert other.decisions.labelled() == [(track, "Folk") for track, _ in other.decisions.labelled()]


def test_an_export_never_takes_the_place_of_a_library(library: Library, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    backup(library.database, copy)
    before = in_force(library)
    for target in (library.path, copy):
        with pytest.raises(LibraryError, match="is a library"):
            export_to(library.database, target)
    for path in (library.path, copy):
        with Library(path) as opened:
            assert in_force(opened) == before
    lines = tmp_path / "lines.jsonl"
    assert export_to(library.database, lines) == Exported(9, 0)
    with pytest.raises(LibraryError, match="there already"):
        export_to(library.database, lines)
    assert export_to(library.database, lines, overwrite=True) == Exported(9, 0)


def retag(library: Library, before: str, after: str) -> None:
    """As the journal leaves it once a tag was written into the file of `before`."""

    def work(c: Any) -> None:
        batch = c.execute("INSERT INTO tag_batches (made_at, policy) VALUES ('', '{}')").lastrowid
        values = (batch, f"/music/{before}.mp3".encode(), digest_of(before), digest_of(after))
        c.execute(
            """INSERT INTO tag_writes (batch_id, path, state, genres_before, genres_after, digest_before, digest_after,
                mtime_ns_before) VALUES (?, ?, 'written', '[]', '[]', ?, ?, 0)""",
            values,
        )
        c.execute("UPDATE tracks SET digest = ? WHERE digest = ?", (digest_of(after), digest_of(before)))

    library.database.write(work)


def test_what_was_exported_before_tags_were_written_is_known_after(library: Library) -> None:
    lines, before = exported(library), in_force(library)
    retag(library, "a", "a with a genre")
    retag(library, "a with a genre", "a with two")
    assert import_(library.database, lines) == Imported(0, 9, 0, 0, ())
    before[digest_of("a with two")] = before.pop(digest_of("a"))
    assert in_force(library) == before


def test_a_song_is_known_elsewhere_by_what_it_was_before_tags_were_written(library: Library, other: Library) -> None:
    here = other.database.write(lambda c: add_track(c, "a"))
    retag(other, "a", "a tagged there")
    retag(library, "a", "a tagged here")
    assert import_(other.database, exported(library)).n_new_songs == 2
    found = other.decisions.in_force(here)
    assert found is not None
    assert found.genre == "Forró"
    assert import_(library.database, exported(other)) == Imported(0, 9, 0, 0, ())


def test_a_song_that_is_found_after_the_import_is_known_by_what_it_was(library: Library, other: Library) -> None:
    """Tags were written there; the scan here finds the files as they were, or as they are there, or both."""
    retag(library, "a", "a tagged there")
    lines = exported(library)
    assert import_(other.database, lines).n_new_songs == 3
    found = {other.database.read(lambda c, d=name: track_of(c, digest_of(d))) for name in ("a", "a tagged there")}
    assert len(found) == 1
    [song] = found
    assert song is not None
    decision = other.decisions.in_force(song)
    assert decision is not None
    assert decision.genre == "Forró"
    assert import_(other.database, lines) == Imported(0, 9, 0, 0, ())
    again = [json.loads(line) for line in exported(other)[1:]]
    assert {tuple(line.get("known_as", ())) for line in again if line["digest"] == digest_of("a tagged there")} == {
        (digest_of("a"),)
    }


def test_of_a_damaged_library_all_that_can_be_read_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    with Library(path) as opened:
        for song in add_tracks(opened.database, *(f"song {i}" for i in range(400))):
            opened.decisions.decide(song, "Rock" * 12, who="Ana", expected=None)
        sql = "SELECT pageno FROM dbstat WHERE name = 'decisions' AND pagetype = 'leaf' ORDER BY pageno"
        try:
            pages = [row[0] for row in opened.database.read(lambda c: c.execute(sql).fetchall())]
        except LibraryError:
            pytest.skip("this SQLite does not tell which page is whose")
    content = bytearray(path.read_bytes())
    middle = pages[len(pages) // 2]
    content[(middle - 1) * 4096 : middle * 4096] = bytes(4096)
    path.write_bytes(content)
    with Library(path) as opened:
        done = export_to(opened.database, tmp_path / "saved.jsonl")
    assert 0 < done.n_lost < 50
    assert done.n_lines == 400 - done.n_lost
    with Library(tmp_path / "new.db") as other, open(tmp_path / "saved.jsonl", "rb") as lines:
        assert import_(other.database, read_lines(lines)).n_added == done.n_lines


def test_a_tag_that_was_taken_back_or_never_came_to_be_is_followed_as_well_or_not_at_all(library: Library) -> None:
    lines = exported(library)
    retag(library, "a", "a with a genre")
    later = exported(library)
    library.database.write(lambda c: c.execute("UPDATE tag_writes SET state = 'undone'"))
    library.database.write(lambda c: c.execute("UPDATE tracks SET digest = ? WHERE id = 1", (digest_of("a"),)))
    assert import_(library.database, lines + later) == Imported(0, 18, 0, 0, ())
    library.database.write(lambda c: c.execute("UPDATE tag_writes SET state = 'failed'"))
    assert import_(library.database, [line.replace(b'"known_as"', b'"_"') for line in later]).n_new_songs == 1


def test_a_name_that_is_not_utf8_is_exported_without_loss(library: Library) -> None:
    lines = [json.loads(line) for line in exported(library)]
    [name] = {(line["file"], line["file_bytes"]) for line in lines if "file_bytes" in line}
    assert name[0] == "/music/\ufffd\ufffd caf\ufffd.mp3"
    assert base64.b64decode(name[1]) == BAD_NAME


def test_two_libraries_that_went_their_own_ways_agree_after_an_exchange(library: Library, other: Library) -> None:
    import_(other.database, exported(library))
    by_digest = other.database.read(lambda c: dict(c.execute("SELECT digest, id FROM tracks").fetchall()))
    a_here, a_there = 1, by_digest[digest_of("a")]
    here, there = library.decisions.in_force(a_here), other.decisions.in_force(a_there)
    assert here is not None
    assert there is not None
    library.decisions.decide(a_here, "Rock", who="Ana", expected=here.id)
    other.decisions.decide(a_there, "Metal", who="Ben", expected=there.id)  # later
    library.decisions.undo("Ana")
    for to, of in ((library, other), (other, library)):
        assert import_(to.database, exported(of)).errors == ()
    assert in_force(library) == in_force(other)
    assert in_force(library)[digest_of("a")] == "genreMetal"
    for one in (library, other):
        assert check(one.database) == []


def test_what_both_took_back_is_taken_back_once(library: Library, other: Library) -> None:
    import_(other.database, exported(library))
    for one in (library, other):
        one.decisions.undo("Ana")
    came = import_(library.database, exported(other))
    assert (came.n_added, came.n_refused) == (0, 0)
    assert in_force(library) == in_force(other)


def test_bad_lines_are_told_by_number_and_the_others_go_in(library: Library, other: Library) -> None:
    good = exported(library)
    line = json.loads(good[1])
    bad: dict[bytes, str] = {
        b"{": "not JSON",
        b"[1]": "not an object",
        b"\xff\xfe": "not JSON",
        b"[" * 100_000: "not JSON",
        json.dumps({**line, "took_s": float("nan")}).encode(): "NaN",
        json.dumps({**line, "digest": "abc"}).encode(): "digest",
        json.dumps({**line, "digest": None}).encode(): "digest",
        json.dumps({**line, "n_bytes": -1}).encode(): "n_bytes",
        json.dumps({**line, "n_bytes": 10**30}).encode(): "n_bytes",
        json.dumps({**line, "kind": "wish"}).encode(): "kind",
        json.dumps({**line, "kind": "skip"}).encode(): "genre",
        json.dumps({**line, "genre": ""}).encode(): "genre",
        json.dumps({**line, "genre": "\ud800"}).encode(): "genre",
        json.dumps({**line, "who": ""}).encode(): "who",
        json.dumps({**line, "who": "\ud800"}).encode(): "who",
        json.dumps({**line, "made_at": "yesterday"}).encode(): "made_at",
        json.dumps({**line, "made_at": "2026-01-01T00:00:00"}).encode(): "made_at",
        json.dumps({**line, "said_confidence": 2}).encode(): "said_confidence",
        json.dumps({**line, "took_s": 10**400}).encode(): "took_s",
        json.dumps({**line, "undoes": {}}).encode(): "undoes",
        json.dumps({**line, "file_bytes": "%"}).encode(): "file_bytes",
        json.dumps({**line, "kind": "undo", "genre": None, "undoes": {**line, "who": "Eve"}}).encode(): "takes back",
        b'"' + b"x" * MAX_LINE_BYTES: "longer",
    }
    lines = [item for pair in zip(bad, [*good, *[b"\n"] * len(bad)], strict=False) for item in pair]
    came = import_(other.database, lines)
    assert (came.n_added, came.n_refused) == (9, len(bad))
    for error in came.errors:
        number = int(error.message.split(":")[0].removeprefix("line "))
        assert bad[lines[number - 1]] in error.message
        assert error.hint
    assert told(other) == told(library)


def test_a_file_of_a_newer_form_is_refused(library: Library, other: Library) -> None:
    heading, *rest = exported(library)
    newer = json.dumps({**json.loads(heading), "version": 2}).encode()
    with pytest.raises(NewerFormatError, match="newer"):
        import_(other.database, [newer, *rest])
    assert status(other.database).n_history == 0


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["digest", "n_bytes", "kind", "genre", "who", "made_at", "undoes", "took_s", "format"]),
                inner,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_a_line_holds_is_read_or_refused(line: bytes) -> None:
    with contextlib.suppress(LibraryError):
        parse(line)


def test_lines_of_any_length_are_read_in_bounded_pieces() -> None:
    long = b"x" * (3 * MAX_LINE_BYTES)
    got = list(read_lines(io.BytesIO(b"one\n" + long + b"\ntwo\n" + long)))
    assert [len(line) for line in got] == [4, MAX_LINE_BYTES + 1, 4, MAX_LINE_BYTES + 1]


# --- whole copies ---


def test_a_backup_is_a_library(library: Library, tmp_path: Path) -> None:
    target = tmp_path / "copies"
    target.mkdir()
    backup(library.database, target / "copy?.db")
    assert [path.name for path in target.iterdir()] == ["copy?.db"]
    with Library(target / "copy?.db") as copy:
        assert exported(copy)[1:] == exported(library)[1:]
        assert check(copy.database) == []


def test_a_backup_while_others_write(library: Library, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        n = 0
        while not stop.is_set():
            names = (f"new {n} one", f"new {n} two")
            library.database.write(lambda c, names=names: [add_track(c, name) for name in names])
            n += 1

    writing = threading.Thread(target=work)
    writing.start()
    try:
        for i in range(5):
            backup(library.database, tmp_path / f"copy {i}.db")
    finally:
        stop.set()
        writing.join()
    for i in range(5):
        with Library(tmp_path / f"copy {i}.db") as copy:
            assert check(copy.database) == []
            assert (status(copy.database).n_songs - 3) % 2 == 0  # what was one transaction is whole


def test_a_backup_overwrites_only_where_it_may(library: Library, other: Library, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_bytes(b"something dear")
    with pytest.raises(LibraryError, match="there already"):
        backup(library.database, target)
    assert target.read_bytes() == b"something dear"
    backup(library.database, target, overwrite=True)
    assert target.read_bytes().startswith(b"SQLite")
    for forbidden in (library.path, other.path, tmp_path):
        with pytest.raises(LibraryError, match="in use"):
            backup(library.database, forbidden, overwrite=True)


def test_nothing_is_left_of_a_copy_that_cannot_be_written(library: Library, tmp_path: Path) -> None:
    for write in (backup, export_to):
        with pytest.raises(LibraryError, match="cannot be written"):
            write(library.database, tmp_path / "no such folder" / "copy.db")
    before = sorted(os.listdir(tmp_path))
    (tmp_path / "taken").mkdir()
    with pytest.raises(LibraryError):
        export_to(library.database, tmp_path / "taken")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "taken"])


# --- the check ---


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM in_force WHERE track_id = 1", "song 1: decision None counts, the history says 1"),
        ("UPDATE in_force SET decision_id = 2 WHERE track_id = 1", "song 1: decision 2 counts"),
        ("UPDATE search SET title = 'other'", "what is searched"),
        ("DELETE FROM search WHERE rowid = 1", "what is searched"),
        ("INSERT INTO search (rowid, title) VALUES (77, 'x')", "file 77"),
        ("INSERT INTO in_force VALUES (999, 3)", "row 999 of in_force refers to a row of"),
    ],
)
def test_the_check_finds_what_does_not_agree(sql: str, told: str, library: Library) -> None:
    assert check(library.database) == []
    other = sqlite3.connect(library.path)  # another program, which knows nothing of what must agree
    other.execute(sql)
    other.commit()
    other.close()
    assert any(told in problem for problem in check(library.database)), check(library.database)
