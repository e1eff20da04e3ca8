"""Tags written so that nothing can be lost, and taken back byte for byte."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import SettingsError, TagError
from acoustic.kept import NOT_MUSIC, FileRecord, SongTags
from acoustic.library import patch as patch_module
from acoustic.library import rewriting, tag_plan
from acoustic.library.database import Database
from acoustic.library.decisions import Decisions
from acoustic.library.lineage import also, track_of
from acoustic.library.patch import apply_patch, make_patch
from acoustic.library.tag_plan import AS_WANTED
from acoustic.library.tagging import Candidate, Change, Policy, TagJournal, Written, candidates, plan
from acoustic.library.tags import read_tags, write_genres
from acoustic.library.tracks import Tracks
from acoustic.signal import audio
from tests.scan_records import analysis
from tests.tagged import change, furnish, keep, killed_at, kinds, left_beside, quick_digest, song

STEPS = ["planned", "copied", "tagged", "checked", "synced", "kept", "replaced", "folder synced", "written"]
UNDO_STEPS = ["undoing", "rebuilt", "replaced", "folder synced", "undone"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "library.db") as opened:
        yield opened


@pytest.fixture
def journal(database: Database) -> TagJournal:
    return TagJournal(database)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "music").mkdir()
    return tmp_path / "music"


def write(journal: TagJournal, *changes: Change, policy: Policy | None = None, **how: object) -> Written:
    return journal.apply(changes, policy or Policy(), quick_digest, **how)


def undo(journal: TagJournal, batch: int | None = None, **how: object) -> Written:
    return journal.undo(batch, audio_digest=quick_digest, **how)


def refusal(done: Written) -> TagError:
    [one] = done.outcomes
    assert one.error is not None
    assert one.error.hint
    assert one.after == one.before
    return one.error


def rows(database: Database) -> list[tuple[bytes, str]]:
    found = database.read(lambda c: c.execute("SELECT path, state FROM tag_writes ORDER BY id").fetchall())
    return [tuple(row) for row in found]


# --- there and back ---


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("genres", [(), ("Jazz",)])
def test_there_and_back_byte_for_byte(
    kind: str, genres: tuple[str, ...], journal: TagJournal, database: Database, music: Path
) -> None:
    path = furnish(song(music / f"Дом {kind} 家", kind), genres)
    old, times, sound = path.read_bytes(), path.stat().st_mtime_ns, quick_digest(bytes(path))
    done = write(journal, change(path, "Forró", "Русский рок"))
    assert not done.failures
    assert read_tags(path).genres == ("Forró", "Русский рок")
    assert quick_digest(bytes(path)) == sound
    assert path.stat().st_mtime_ns != times
    kept = database.read(lambda c: c.execute("SELECT length(kept) FROM tag_writes").fetchone()[0])
    assert kept < 12_000, "what is kept is about as large as the tags, not as the song"
    back = undo(journal)
    assert [one.error for one in back.outcomes] == [None]
    assert back.batch_id == done.batch_id
    assert path.read_bytes() == old
    assert path.stat().st_mtime_ns == times
    assert left_beside(music) == []


def test_mode_and_attributes_go_over_and_times_where_asked(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    path.chmod(0o640)
    os.utime(path, ns=(1_111_111_111, 2_222_222_222))
    try:
        os.setxattr(path, "user.mood", b"calm")
    except OSError:
        pytest.skip("no extended attributes here")
    write(journal, change(path, "Rock"), policy=Policy(keep_times=True))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 2_222_222_222)
    assert os.getxattr(path, "user.mood") == b"calm"
    undo(journal, keep_times=False)
    assert path.stat().st_mtime_ns > 2_222_222_222
    assert os.getxattr(path, "user.mood") == b"calm"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_names_that_are_not_utf8_and_very_long_ones(journal: TagJournal, database: Database, music: Path) -> None:
    paths = [
        bytes(music) + b"/" + name for name in (b"caf\xe9\xff.mp3", b"-" + b"x" * 254, "\u202eevil\n.mp3".encode())
    ]
    for path in paths:
        os.replace(song(music / "made", "mp3"), path)
    keep(database, paths)
    assert not write(journal, *(change(path, "Rock") for path in paths)).failures
    assert all(read_tags(path).genres == ("Rock",) for path in paths)
    assert [path for path, _ in rows(database)] == paths
    assert not undo(journal).failures
    assert all(read_tags(path).genres == () for path in paths)


def test_a_link_stays_and_its_target_is_written(journal: TagJournal, music: Path) -> None:
    target = song(music / "song.mp3", "mp3")
    old = target.read_bytes()
    (music / "links").mkdir()
    link = music / "links" / "link.mp3"
    link.symlink_to("../song.mp3")
    assert not write(journal, change(link, "Rock")).failures
    assert link.is_symlink()
    assert read_tags(target).genres == ("Rock",)
    undo(journal)
    assert link.is_symlink()
    assert target.read_bytes() == old


def test_files_with_several_names_part_only_if_asked(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    os.link(path, music / "b.mp3")
    assert "2 names" in refusal(write(journal, change(path, "Rock"))).message
    assert not write(journal, change(path, "Rock"), hard_links=True).failures
    assert read_tags(path).genres == ("Rock",)
    assert read_tags(music / "b.mp3").genres == ()


def test_several_at_a_time(journal: TagJournal, database: Database, music: Path) -> None:
    paths = [song(music / f"{i}.mp3", "mp3", seed=i % 3) for i in range(9)]
    old = [path.read_bytes() for path in paths]
    seen: list[tuple[int, int]] = []
    done = write(
        journal, *(change(p, "Rock") for p in paths), n_workers=3, on_progress=lambda n, of: seen.append((n, of))
    )
    assert [one.path for one in done.outcomes] == [bytes(path) for path in paths]
    assert not done.failures
    assert seen == [(n, 9) for n in range(1, 10)]
    [batch] = journal.batches()
    assert (batch.n_written, batch.n_failed) == (9, 0)
    undo(journal)
    assert [path.read_bytes() for path in paths] == old


def test_a_stop_leaves_the_rest_alone(journal: TagJournal, music: Path) -> None:
    paths = [song(music / f"{i}.mp3", "mp3") for i in range(4)]
    stop = threading.Event()
    done = write(
        journal,
        *(change(path, "Rock") for path in paths),
        stopped=stop.is_set,
        at_step=lambda step, path: stop.set() if step == "checked" and path == bytes(paths[1]) else None,
    )
    assert [one.path for one in done.outcomes] == [bytes(path) for path in paths[:2]]
    assert [read_tags(path).genres for path in paths] == [("Rock",), ("Rock",), (), ()]


# --- batches ---


def test_one_batch_of_several_is_undone(journal: TagJournal, music: Path) -> None:
    a, b, c = (song(music / f"{name}.flac", "flac") for name in "abc")
    old_a, old_b = a.read_bytes(), b.read_bytes()
    first = write(journal, change(a, "Rock"), change(b, "Rock"))
    second = write(journal, change(b, "Pop"), change(c, "Pop"))
    assert first.batch_id is not None
    back = undo(journal, first.batch_id)
    assert a.read_bytes() == old_a
    [failed] = back.failures
    assert failed.path == bytes(b)
    assert failed.error is not None
    assert f"batch {second.batch_id}" in failed.error.message
    assert read_tags(b).genres == ("Pop",)
    undo(journal)  # the latest: the second
    assert [read_tags(p).genres for p in (b, c)] == [("Rock",), ()]
    undo(journal)  # what is left of the first
    assert b.read_bytes() == old_b
    assert [(batch.n_written, batch.n_undone) for batch in journal.batches()] == [(0, 2), (0, 2)]
    with pytest.raises(TagError, match="nothing is written"):
        undo(journal)
    with pytest.raises(TagError, match="no batch 99"):
        undo(journal, 99)
    with pytest.raises(TagError, match="no batch 99"):
        journal.files_of(99)
    assert [(f.path, f.before, f.after, f.note) for f in journal.files_of(first.batch_id)] == [
        (bytes(a), (), ("Rock",), "undone"),
        (bytes(b), (), ("Rock",), "undone"),
    ]


def test_no_two_write_at_once(journal: TagJournal, database: Database, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    refused: list[str] = []

    def meanwhile(step: str, _: bytes) -> None:
        if step == "checked":
            for attempt in (lambda: undo(TagJournal(database)), TagJournal(database).recover):
                with pytest.raises(TagError) as caught:
                    attempt()
                refused.append(caught.value.message)

    assert not write(journal, change(path, "Rock"), at_step=meanwhile).failures
    assert refused == ["tags are being written already"] * 2


def test_a_file_that_was_moved_is_found_by_what_was_written_into_it(
    journal: TagJournal, database: Database, music: Path
) -> None:
    """Where a scan met it since; before that there is nothing to find it by, and the hint says so."""
    path, other = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3", 2)
    old = path.read_bytes()
    keep(database, [path])
    keep(database, [other])
    write(journal, change(path, "Rock"), change(other, "Jazz"))
    (music / "sub").mkdir()
    moved = path.rename(music / "sub" / "a.mp3")
    first = undo(journal)
    assert "scan the folder where it is now" in next(one.error.hint for one in first.outcomes if one.error)
    scanned = "UPDATE files SET path = ?, shown = 'moved' WHERE path = ?"
    database.write(lambda c: c.execute(scanned, (bytes(moved), bytes(path))))
    [found] = candidates(database, folder=bytes(moved.parent))
    [renewed] = journal.plan([replace(found, decided="Folk")], Policy(only_empty=False))
    assert renewed.after == ("Folk",), "our own genre is known as ours where it is now"
    back = undo(journal)
    assert [(one.path, one.error) for one in back.outcomes] == [(bytes(moved), None)]
    assert moved.read_bytes() == old
    assert undo_refused(journal) == "nothing is written that could be undone"


def test_songs_that_exchanged_their_names_get_their_own_genres_back(
    journal: TagJournal, database: Database, music: Path
) -> None:
    one, two = furnish(song(music / "01.mp3", "mp3"), ["Polka"]), furnish(song(music / "02.mp3", "mp3", 2), ["Blues"])
    old = one.read_bytes(), two.read_bytes()
    tracks = [keep(database, [path]) for path in (one, two)]
    write(journal, change(one, "Rock"), change(two, "Rock"))
    aside = one.rename(music / "x.mp3")
    two.rename(one)
    aside.rename(two)
    refused = undo(journal)
    assert [one.error.message.split(" lies ")[0] for one in refused.outcomes if one.error] == ["another song"] * 2
    assert [path.read_bytes() for path in (one, two)] != list(old)
    scanned = "UPDATE files SET path = ? WHERE track_id = ?"
    for track, path in zip(tracks, (two, one), strict=True):  # as a scan finds them
        database.write(lambda c, p=path, t=track: c.execute(scanned, (b"aside " + bytes(p), t)))
    database.write(lambda c: c.execute("UPDATE files SET path = CAST(substr(path, 7) AS BLOB)"))
    back = undo(journal)
    assert [one.error for one in back.outcomes] == [None, None]
    assert (two.read_bytes(), one.read_bytes()) == old


def test_a_content_that_an_undo_made_is_still_the_song(journal: TagJournal, database: Database, music: Path) -> None:
    import mutagen

    path = furnish(song(music / "a.flac", "flac"), ["Jazz"])
    track = keep(database, [path], decided="Forró")
    write(journal, change(path, "Forró"))
    file = mutagen.File(path)
    file["album"] = "another"
    file.save()
    database.write(lambda c: also(c, track, [audio.digest(str(path))]))  # as a scan finds it
    [outcome] = undo(journal).outcomes
    assert "only its genres were put back" in outcome.note
    with_album = audio.digest(str(path))
    assert database.read(lambda c: track_of(c, with_album)) == track


def test_a_stranger_in_the_place_of_a_song_does_not_become_it(
    journal: TagJournal, database: Database, music: Path
) -> None:
    path = furnish(song(music / "a.mp3", "mp3"), ["Jazz"])
    keep(database, [path], decided="Forró")
    write(journal, change(path, "Forró"))
    path.write_bytes(furnish(song(music / "x.mp3", "mp3", 2), ["Polka"]).read_bytes())
    stranger = audio.digest(str(path))
    undo(journal)
    assert read_tags(path).genres == ("Polka",)
    assert database.read(lambda c: track_of(c, stranger)) is None


def test_a_copy_that_was_as_the_song_became_is_left_alone(
    journal: TagJournal, database: Database, music: Path, tmp_path: Path
) -> None:
    """The same song was known with and without the genre before it was written."""
    path, copy = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3")
    old = path.read_bytes()
    with Database(tmp_path / "other.db") as elsewhere:
        write(TagJournal(elsewhere), change(copy, "Rock"))
    with_genre = copy.read_bytes()
    for one in (path, copy):
        keep(database, [one])
    write(journal, change(path, "Rock"))
    assert path.read_bytes() == with_genre
    assert not undo(journal).failures
    assert (path.read_bytes(), copy.read_bytes()) == (old, with_genre)
    write(journal, change(path, "Rock"))
    path.write_bytes(old)  # from a backup
    [outcome] = undo(journal).outcomes
    assert outcome.note == "it was as before already"
    assert copy.read_bytes() == with_genre


def test_a_song_that_is_not_to_be_found_does_not_stand_in_the_way_of_an_older_batch(
    journal: TagJournal, database: Database, music: Path
) -> None:
    older, newer, stranger = (furnish(song(music / f"{n}.mp3", "mp3", n), ["Jazz"]) for n in (1, 2, 3))
    for path in (older, newer, stranger):
        keep(database, [path])
    write(journal, change(older, "Rock"))
    second = write(journal, change(newer, "Rock")).batch_id
    away = newer.rename(music / "away.mp3")
    shutil.copy(stranger, newer)
    refused = refusal(undo(journal))
    assert "another song lies at" in refused.message
    assert f"`acoustic tag undo {second}`" in refused.hint
    assert [one.path for one in undo(journal).outcomes] == [bytes(older)]
    assert read_tags(older).genres == ("Jazz",)
    assert "another song" in refusal(undo(journal)).message, "nothing else is left"
    away.replace(newer)
    assert not undo(journal, second).failures
    assert read_tags(newer).genres == ("Jazz",)
    assert newer.read_bytes() == furnish(song(music / "again.mp3", "mp3", 2), ["Jazz"]).read_bytes()


def test_a_song_with_new_tags_under_its_old_name_is_still_the_song(
    journal: TagJournal, database: Database, music: Path
) -> None:
    """Another program wrote its tags and moved it about, so that a scan took it for a new one."""
    import mutagen

    path = furnish(song(music / "a.flac", "flac"), ["Jazz"])
    keep(database, [path])
    write(journal, change(path, "Rock"))
    file = mutagen.File(path)
    file["album"] = "another"
    file.save()
    database.write(lambda c: c.execute("UPDATE files SET path = x'00'"))
    keep(database, [path], added_at="2999")
    assert not undo(journal).failures
    assert read_tags(path).genres == ("Jazz",)
    assert read_tags(path).album == "another"


def undo_refused(journal: TagJournal) -> str:
    with pytest.raises(TagError) as caught:
        undo(journal)
    return caught.value.message


def test_a_kind_of_file_that_takes_no_tags_is_left_in_the_plan(journal: TagJournal, music: Path) -> None:
    path = music / "a.wv"
    path.write_bytes(b"wvpk" + bytes(28) + b"\0" * 64)
    status = path.stat()
    [line] = plan(
        [Candidate(bytes(path), status.st_size, status.st_mtime_ns, "Rock", ())], Policy(), {}, lambda path: SongTags()
    )
    assert line.reason == "no tags are written into this kind of file"
    assert refusal(write(journal, replace(line, after=("Rock",), reason=""))).message.endswith(line.reason)


def test_nothing_to_write_is_no_batch(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    left = Change(bytes(path), (), (), reason=AS_WANTED)
    missing = Change(bytes(music / "none.mp3"), (), ("Rock",))
    done = write(journal, left, missing)
    assert done.batch_id is None
    assert "is not there" in refusal(done).message
    assert journal.batches() == []


# --- other programs ---


def test_a_file_changed_since_the_plan_is_left(journal: TagJournal, music: Path) -> None:
    path, other = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3")
    planned = change(path, "Rock")
    write_genres(path, ["Theirs"])
    now = path.read_bytes()
    done = write(journal, planned, change(other, "Rock"))
    assert [one.error is None for one in done.outcomes] == [False, True]
    assert "changed since the plan" in (done.failures[0].error or TagError("")).message
    assert path.read_bytes() == now


def test_a_genre_written_meanwhile_with_the_old_time_is_seen(journal: TagJournal, music: Path) -> None:
    path = furnish(song(music / "a.mp3", "mp3"))
    planned = change(path, "Rock")
    status = path.stat()
    write_genres(path, ["Theirs"])  # into the padding: the size stays
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert "changed since the plan" in refusal(write(journal, planned)).message
    assert read_tags(path).genres == ("Theirs",)


@pytest.mark.parametrize("step", STEPS[1:6])
def test_a_file_changed_while_it_is_written_keeps_that(step: str, journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")

    def meanwhile(name: str, _: bytes) -> None:
        if name == step:
            write_genres(path, ["Theirs"])

    assert "chang" in refusal(write(journal, change(path, "Rock"), at_step=meanwhile)).message
    assert read_tags(path).genres == ("Theirs",)
    assert left_beside(music) == []


def test_undo_after_another_program_changed_the_file(journal: TagJournal, music: Path) -> None:
    kept, changed, gone = (furnish(song(music / f"{name}.flac", "flac"), ["Jazz"]) for name in ("k", "c", "g"))
    write(journal, *(change(path, "Rock") for path in (kept, changed, gone)))
    import mutagen

    for path, genre in ((kept, "Rock"), (changed, "Polka")):
        file = mutagen.File(path)
        file["title"], file["genre"] = "another", genre
        file.save()
    gone.unlink()
    back = {os.path.basename(one.path): one for one in undo(journal).outcomes}
    assert "only its genres" in back[b"k.flac"].note
    assert (read_tags(kept).title, read_tags(kept).genres) == ("another", ("Jazz",))
    assert "left as they are" in back[b"c.flac"].note
    assert (read_tags(changed).title, read_tags(changed).genres) == ("another", ("Polka",))
    assert back[b"g.flac"].error is not None
    [batch] = journal.batches()
    assert (batch.n_written, batch.n_undone) == (1, 2)


def test_undo_where_the_old_bytes_were_too_many(
    journal: TagJournal, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = furnish(song(music / "a.mp3", "mp3"), ["Jazz", "Swing"])
    monkeypatch.setattr(patch_module, "MAX_LITERAL_BYTES", 3)
    assert not write(journal, change(path, "Rock")).failures
    [one] = undo(journal).outcomes
    assert "too many to keep" in one.note
    assert read_tags(path).genres == ("Jazz", "Swing")


# --- what the system refuses ---


def refuses(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch, only: Callable[..., bool] = lambda *_: True
) -> None:
    real = getattr(os, call)

    def refusing(*arguments: object, **named: object) -> object:
        if only(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, refusing)


def is_ours(name: object, *_: object) -> bool:
    return b".acoustic-" in name if isinstance(name, bytes) else False


@pytest.mark.parametrize(
    ("call", "number", "says"),
    [
        ("write", errno.ENOSPC, "no room"),
        ("replace", errno.EACCES, "may not be written"),
        ("replace", errno.EPERM, "may not be written"),
        ("open", errno.EROFS, "may not be written"),
        ("fsync", errno.EIO, "Input/output"),
        ("chown", errno.EIO, "Input/output"),
    ],
)
@pytest.mark.parametrize("undoing", [False, True])
def test_a_disk_that_refuses_loses_nothing(
    call: str, number: int, says: str, undoing: bool, journal: TagJournal, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = furnish(song(music / "a.mp3", "mp3"), ["Jazz"])
    if undoing:
        write(journal, change(path, "Rock"))
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        temps = is_ours if call in ("open", "replace", "chown") else lambda fd, *_: opens_ours(fd)
        refuses(call, number, patched, temps)
        done = undo(journal) if undoing else write(journal, change(path, "Rock"))
    assert says in refusal(done).message
    assert path.read_bytes() == old
    assert left_beside(music) == []
    assert not (undo(journal) if undoing else write(journal, change(path, "Rock"))).failures
    assert read_tags(path).genres == (("Jazz",) if undoing else ("Rock",))


def opens_ours(fd: int) -> bool:
    return b".acoustic-" in os.readlink(f"/proc/self/fd/{fd}".encode())


def test_a_full_disk_while_mutagen_writes(journal: TagJournal, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = song(music / "a.mp3", "mp3")
    old = path.read_bytes()

    def full(target: bytes, genres: object) -> None:
        with open(target, "r+b") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rewriting, "write_genres", full)
    assert "no room" in refusal(write(journal, change(path, "Rock"))).message
    assert path.read_bytes() == old
    assert left_beside(music) == []


def test_a_really_full_device_is_said_to_be_full() -> None:
    with pytest.raises(OSError, match="No space") as caught, open("/dev/full", "wb", buffering=0) as full:
        rewriting._write(full.fileno(), b"x")
    with pytest.raises(TagError, match="no room"), rewriting.translated(b"/a.mp3"):
        raise caught.value


def test_read_only_files_and_folders(journal: TagJournal, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = song(music / "a.mp3", "mp3")
    path.chmod(0o444)
    assert "read-only" in refusal(write(journal, change(path, "Rock"))).message
    path.chmod(0o644)
    real = os.access
    monkeypatch.setattr(os, "access", lambda name, mode: name != bytes(music) and real(name, mode))
    assert "folder may not be written" in refusal(write(journal, change(path, "Rock"))).message
    assert read_tags(path).genres == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_is_really_read_only(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    music.chmod(0o555)
    try:
        refusal(write(journal, change(path, "Rock")))
    finally:
        music.chmod(0o755)
    assert read_tags(path).genres == ()


# --- what must not be written ---


def test_other_audio_is_never_put_in_place(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    old = path.read_bytes()
    done = journal.apply([change(path, "Rock")], Policy(), lambda name: str(b".acoustic-" in name))
    assert "audio would have changed" in refusal(done).message
    assert path.read_bytes() == old


def test_other_tags_are_never_lost(journal: TagJournal, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = furnish(song(music / "a.flac", "flac"))
    old = path.read_bytes()

    def careless(target: bytes, genres: list[str]) -> None:
        import mutagen

        file = mutagen.File(os.fsdecode(target))
        file.delete()
        file["genre"] = list(genres)
        file.save()

    monkeypatch.setattr(rewriting, "write_genres", careless)
    assert "other tags" in refusal(write(journal, change(path, "Rock"))).message
    assert path.read_bytes() == old


def test_a_genre_that_does_not_read_back(journal: TagJournal, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    error = refusal(write(journal, change(path, "17")))  # ID3 takes a number for one of its own genres
    assert "read back as Rock" in error.message
    assert error.message.startswith("a.mp3")
    assert read_tags(path).genres == ()


def test_audio_that_cannot_be_decoded_is_left(journal: TagJournal, music: Path) -> None:
    from acoustic.signal.sound_digest import sound_digest

    path = song(music / "a.flac", "flac")
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes(len(data) - 200))
    done = journal.apply([change(path, "Rock")], Policy(), sound_digest)
    assert "cannot be checked" in refusal(done).message
    assert read_tags(path).genres == ()


# --- ends at the wrong moment ---


def killed(step: int, library: Path, path: Path, genre: str) -> int:
    """The exit status of a process that ended at `step`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tagged", "acoustic.library.tagging"])
    process = context.Process(target=killed_at, args=(step, library, bytes(path), genre, os._exit))
    process.start()
    process.join(60)
    return process.exitcode if process.exitcode is not None else -1


@pytest.mark.parametrize("kind", ["mp3", "wav"])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_kill_at_every_step_of_a_write(step: int, kind: str, music: Path, tmp_path: Path) -> None:
    path, library = furnish(song(music / "song", kind)), tmp_path / "library.db"
    old = path.read_bytes()
    assert killed(step, library, path, "Rock") == 9
    replaced = step >= STEPS.index("replaced")
    assert (path.read_bytes() != old) == replaced
    assert read_tags(path).genres == (("Rock",) if replaced else ())
    assert bool(left_beside(music)) == (STEPS.index("copied") <= step < STEPS.index("replaced"))
    with Database(library) as database:
        journal = TagJournal(database)
        settled = journal.recover()
        assert len(settled) == (STEPS[step] != "written")
        assert journal.recover() == []
        assert left_beside(music) == []
        assert rows(database) == [(bytes(path), "written" if replaced else "failed")]
        if replaced:
            undo(journal)
        else:
            assert not write(journal, change(path, "Rock")).failures
            undo(journal)
        assert path.read_bytes() == old


@pytest.mark.parametrize("step", range(len(UNDO_STEPS)))
def test_a_kill_at_every_step_of_an_undo(step: int, music: Path, tmp_path: Path) -> None:
    path, library = furnish(song(music / "song", "mp3"), ["Jazz"]), tmp_path / "library.db"
    old = path.read_bytes()
    with Database(library) as database:
        write(TagJournal(database), change(path, "Rock"))
    new = path.read_bytes()
    assert killed(step, library, path, "") == 9
    replaced = step >= UNDO_STEPS.index("replaced")
    assert path.read_bytes() == (old if replaced else new)
    with Database(library) as database:
        journal = TagJournal(database)
        journal.recover()
        assert left_beside(music) == []
        assert rows(database) == [(bytes(path), "undone" if replaced else "written")]
        if not replaced:
            undo(journal)
        assert path.read_bytes() == old


def test_the_steps_are_all(journal: TagJournal, music: Path, tmp_path: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    seen: list[str] = []
    write(journal, change(path, "Rock"), at_step=lambda step, _: seen.append(step))
    assert seen == STEPS
    seen.clear()
    undo(journal, at_step=lambda step, _: seen.append(step))
    assert seen == UNDO_STEPS
    assert killed(len(STEPS), tmp_path / "other.db", path, "Rock") == 0


def test_what_was_written_and_then_changed_by_another_program_can_still_be_taken_back(
    music: Path, tmp_path: Path
) -> None:
    import mutagen

    path, library = furnish(song(music / "a.flac", "flac"), ["Jazz"]), tmp_path / "library.db"
    first = audio.digest(str(path))
    with Database(library) as database:
        track = keep(database, [path])
    assert killed(STEPS.index("replaced"), library, path, "Rock") == 9
    file = mutagen.File(path)
    file["album"] = "another"
    file.save()
    with Database(library) as database:
        journal = TagJournal(database)
        [settled] = journal.recover()
        assert "changed by another program since" in settled.note
        assert rows(database) == [(bytes(path), "written")]
        assert database.read(lambda c: track_of(c, first)) == track
        assert not undo(journal).failures
        assert database.read(lambda c: track_of(c, first)) == track
    assert read_tags(path).genres == ("Jazz",)
    assert read_tags(path).album == "another"


def test_what_never_took_its_place_was_not_written_whatever_the_file_says_now(music: Path, tmp_path: Path) -> None:
    import mutagen

    path, library = furnish(song(music / "a.flac", "flac"), ["Jazz"]), tmp_path / "library.db"
    assert killed(STEPS.index("kept"), library, path, "Rock") == 9
    file = mutagen.File(path)
    file["album"], file["genre"] = "another", "Rock"  # a person, with another program
    file.save()
    with Database(library) as database:
        journal = TagJournal(database)
        journal.recover()
        assert rows(database) == [(bytes(path), "failed")]
        assert undo_refused(journal) == "nothing is written that could be undone"
    assert read_tags(path).genres == ("Rock",)
    assert left_beside(music) == []


def test_a_file_on_a_disk_that_is_away_waits(music: Path, tmp_path: Path) -> None:
    path, library = song(music / "a.mp3", "mp3"), tmp_path / "library.db"
    assert killed(STEPS.index("replaced"), library, path, "Rock") == 9
    away = path.rename(tmp_path / "away")
    with Database(library) as database:
        journal = TagJournal(database)
        assert journal.recover() == []
        assert rows(database) == [(bytes(path), "planned")]
        away.rename(path)
        assert len(journal.recover()) == 1
        assert rows(database) == [(bytes(path), "written")]


# --- what the library knows of the file ---


def known(database: Database, path: Path) -> tuple[str, int, int, str]:
    """(digest of the track, size, time, genres) of a file in the library."""
    row = database.read(
        lambda c: c.execute(
            "SELECT t.digest, f.n_bytes, f.mtime_ns, f.genres FROM files f JOIN tracks t ON t.id = f.track_id"
            " WHERE f.path = ?",
            (bytes(path),),
        ).fetchone()
    )
    return tuple(row)


def true(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def test_the_library_still_knows_the_song(journal: TagJournal, database: Database, music: Path) -> None:
    path = song(music / "a.mp3", "mp3")
    keep(database, [path])
    write(journal, change(path, "Forró"))
    assert known(database, path) == (audio.digest(path), *true(path), '["Forró"]')
    undo(journal)
    assert known(database, path) == (audio.digest(path), *true(path), "[]")


def test_a_file_that_comes_back_without_our_tag_is_the_song_that_it_was(
    journal: TagJournal, database: Database, music: Path
) -> None:
    """From a backup of the music, say, and not by `undo`: what was decided of it is not lost."""
    path, copy = song(music / "a.mp3", "mp3"), music / "restored" / "a.mp3"
    keep(database, [path])
    tracks = Tracks(database)
    [(track_id, scan_id, model_id)] = database.read(
        lambda c: c.execute(
            "SELECT f.track_id, f.scan_id, s.model_id FROM files f JOIN scans s ON s.id = f.scan_id"
        ).fetchall()
    )
    Decisions(database).decide(track_id, "Forró", who="Ana", expected=None)
    copy.parent.mkdir()
    shutil.copy(path, copy)
    write(journal, change(path, "Forró"))
    write(journal, change(path, "Baião"))
    old = audio.digest(copy)
    assert known(database, path)[0] != old
    assert tracks.analysed(old, model_id) == tracks.analysed(audio.digest(path), model_id)
    record = FileRecord(bytes(copy), *true(copy), old, analysis(1))
    tracks.record(scan_id, model_id, [record])
    assert tracks.analysed(old, model_id)
    found = database.read(lambda c: c.execute("SELECT DISTINCT track_id FROM files").fetchall())
    assert [row[0] for row in found] == [track_id]


def test_copies_of_a_song_stay_one_song(journal: TagJournal, database: Database, music: Path) -> None:
    a, b = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3")
    keep(database, [a, b])
    old = audio.digest(a)
    write(journal, change(a, "Rock"))
    assert known(database, a) == (old, *true(a), '["Rock"]')  # the other still has the content that was analysed
    write(journal, change(b, "Rock"))
    assert known(database, b) == (audio.digest(b), *true(b), '["Rock"]')
    assert audio.digest(a) == audio.digest(b) != old
    undo(journal)
    undo(journal)
    assert known(database, a) == (old, *true(a), "[]")


def test_a_content_that_another_song_has_stays_that_song_s(
    journal: TagJournal, database: Database, music: Path
) -> None:
    a, b = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3")
    write_genres(b, ["Rock"])
    keep(database, [a])
    keep(database, [b])
    old = audio.digest(a)
    write(journal, change(a, "Rock"))
    assert audio.digest(a) == audio.digest(b)
    assert known(database, a)[0] == old
    assert known(database, b)[0] == audio.digest(b)


def test_the_library_follows_after_a_crash(music: Path, tmp_path: Path) -> None:
    path, library = song(music / "a.mp3", "mp3"), tmp_path / "library.db"
    with Database(library) as database:
        keep(database, [path])
    assert killed(STEPS.index("replaced"), library, path, "Rock") == 9
    with Database(library) as database:
        TagJournal(database).recover()
        assert known(database, path)[0] == audio.digest(path)


# --- patches ---


def patched(folder: Path, old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """(patch, what it makes of `new`)"""
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    made: list[bytes] = []
    with open(folder / "old", "rb") as a, open(folder / "new", "rb") as b:
        patch = make_patch(a.fileno(), b.fileno())
        assert patch is not None
        apply_patch(patch, b.fileno(), made.append)
    return patch, b"".join(made)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 90_000)), max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 90_000)), max_size=6),
    st.binary(max_size=40),
)
def test_a_patch_gives_back_the_old(
    tmp_path_factory: pytest.TempPathFactory, old: list[tuple[int, int]], new: list[tuple[int, int]], odd: bytes
) -> None:
    pool = [os.urandom(90_000) if i else bytes(90_000) for i in range(6)]
    first, second = (odd.join(pool[which][:n] for which, n in parts) for parts in (old, new))
    assert patched(tmp_path_factory.getbasetemp(), first, second)[1] == first


def test_a_patch_is_small_where_little_moved(tmp_path: Path) -> None:
    song_, tag = os.urandom(3_000_000), os.urandom(40_000)
    scattered = bytearray(song_)
    for at in range(0, len(scattered), 100_000):
        scattered[at] ^= 255
    for old, new in (
        (tag + song_, tag[:100] + b"genre" + tag[100:] + song_),
        (b"head" + song_, b"HEAD" + song_ + tag),
        (b"a" * 500 + tag + b"tail" + song_, tag + b"tail" + b"b" * 700 + song_),  # what follows changed its place
        (bytes(scattered), b"x" + song_),
    ):
        patch, back = patched(tmp_path, old, new)
        assert back == old
        assert len(patch) < 6_000


def test_a_damaged_patch_is_refused(tmp_path: Path) -> None:
    patch, _ = patched(tmp_path, b"old" * 100, b"new" * 100)
    with open(tmp_path / "new", "rb") as new:
        for damaged in (b"", b"x" + patch, patch[:-5], patch[:20] + b"\0" * 10 + patch[30:]):
            with pytest.raises(TagError, match="damaged"):
                apply_patch(damaged, new.fileno(), lambda block: None)


# --- the plan ---


def planned(
    policy: Policy, before: tuple[str, ...] = (), ours: tuple[str, ...] | None = None, **known: object
) -> Change:
    """The plan for one file that has the genres `before`."""
    one = Candidate(os.fsencode(__file__), os.stat(__file__).st_size, os.stat(__file__).st_mtime_ns, **known)
    [change] = plan([one], policy, {} if ours is None else {one.path: ours}, lambda path: SongTags(genres=before))
    return change


RANKED = (("Rock", 0.75), ("Metal", 0.72), ("Pop", 0.1))


@pytest.mark.parametrize(
    ("policy", "decided", "ranked", "after"),
    [
        (Policy(), None, RANKED, ("Rock",)),
        (Policy(max_genres=8), None, RANKED, ("Rock", "Metal")),
        (Policy(max_genres=2, min_confidence=0.73), None, RANKED, ("Rock",)),
        (Policy(min_confidence=0.75), None, RANKED, ("Rock",)),
        (Policy(min_confidence=0.76), None, RANKED, tag_plan.NOT_SURE),
        (Policy(min_confidence=0.0, max_genres=3), None, RANKED, ("Rock", "Metal", "Pop")),
        (Policy(), None, (), tag_plan.NO_ANSWER),
        (Policy(), NOT_MUSIC, RANKED, tag_plan.NO_MUSIC),
        (Policy(min_confidence=1.0, max_genres=3), "Forró", RANKED, ("Forró",)),
        (Policy(), "Forró", (), ("Forró",)),
        (Policy(mapping={"rock": ("Hard", "Soft")}), None, RANKED, ("Hard", "Soft")),
        (Policy(mapping={"Rock": ("M",), "Metal": ("M",)}, max_genres=2), None, RANKED, ("M",)),
        (Policy(mapping={"Rock": ()}, max_genres=2), None, RANKED, ("Metal",)),
        (Policy(mapping={"Rock": ()}), None, RANKED, tag_plan.MAPPED_AWAY),
        (Policy(mapping={"FORRO": ("Baião",)}), "Forró", RANKED, ("Baião",)),
    ],
)
def test_what_is_wanted(
    policy: Policy, decided: str | None, ranked: tuple[tuple[str, float], ...], after: tuple[str, ...] | str
) -> None:
    change = planned(policy, decided=decided, ranked=ranked)
    assert (change.reason if change.reason else change.after) == after
    assert change.writes == isinstance(after, tuple)


RENEW, OVERWRITE = Policy(only_empty=False), Policy(only_empty=False, overwrite=True)


@pytest.mark.parametrize(
    ("policy", "before", "ours", "reason"),
    [
        (Policy(), ("Jazz",), None, tag_plan.HAS_GENRE),
        (Policy(), ("Jazz",), ("Jazz",), tag_plan.HAS_GENRE),
        (RENEW, ("Jazz",), None, tag_plan.HAS_GENRE),
        (RENEW, ("Jazz",), ("Jazz",), ""),
        (RENEW, ("Jazz", "Theirs"), ("Jazz",), tag_plan.HAS_GENRE),
        (OVERWRITE, ("Jazz",), None, ""),
        (OVERWRITE, ("Rock",), None, AS_WANTED),
        (Policy(), ("Rock",), ("Rock",), AS_WANTED),
    ],
)
@pytest.mark.parametrize("decided", [None, "Rock"])
def test_what_a_person_set_stays(
    policy: Policy, before: tuple[str, ...], ours: tuple[str, ...] | None, reason: str, decided: str | None
) -> None:
    change = planned(policy, before, ours, ranked=RANKED, decided=decided)
    assert change.reason == reason
    assert change.after == (before if reason else ("Rock",))


@pytest.mark.parametrize(
    "wrong", [{"min_confidence": 1.1}, {"min_confidence": -0.1}, {"max_genres": 0}, {"max_genres": 9}]
)
def test_a_policy_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Policy(**wrong)


def test_candidates_of_a_folder_or_of_some_songs(database: Database, music: Path) -> None:
    for name in ("a", "a b", "ab"):
        (music / name).mkdir()
    paths = [song(music / name / "x.mp3", "mp3", seed) for seed, name in enumerate(("a", "a b", "ab"))]
    ids = [keep(database, [path], {"Rock": 0.2, "Pop": 0.8}) for path in paths]
    database.write(lambda c: c.execute("UPDATE files SET missing = 1 WHERE path = ?", (bytes(paths[1]),)))
    assert [one.path for one in candidates(database)] == [bytes(paths[0]), bytes(paths[2])]
    assert [one.path for one in candidates(database, folder=bytes(music / "a"))] == [bytes(paths[0])]
    assert [one.path for one in candidates(database, folder=b"/")] == [bytes(paths[0]), bytes(paths[2])]
    [one] = candidates(database, [ids[2], *range(1_000, 3_000)])
    assert (one.path, one.track_id) == (bytes(paths[2]), ids[2])
    assert one.ranked == (("Pop", 0.8), ("Rock", 0.2))
    assert candidates(database, []) == []


def test_plan_reads_what_is_there(journal: TagJournal, database: Database, music: Path) -> None:
    a, b = song(music / "a.mp3", "mp3"), song(music / "b.mp3", "mp3", 1)
    keep(database, [a], {"Rock": 0.9})
    keep(database, [b], {"Rock": 0.9})
    write_genres(b, ["Theirs"])
    found = journal.plan(candidates(database), Policy())
    assert [(one.before, one.after, one.reason) for one in found] == [
        ((), ("Rock",), ""),
        (("Theirs",), ("Theirs",), tag_plan.CHANGED),
    ]
