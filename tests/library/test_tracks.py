from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acoustic.errors import LibraryError
from acoustic.kept import SongTags
from acoustic.library.database import Database
from acoustic.library.tracks import AT_ONCE, Known, StoredVotes, Tracks, sounds_otherwise
from acoustic.records import AudioWarning, Calibration, Descriptors, Verdict
from acoustic.verdict.decision import decide
from tests.scan_records import LABELS, TAGS, analysis, digest, failed, ok, votes

ODD = "/music/Björk \N{MUSICAL NOTE}/".encode() + b"\xff\n<b>.mp3"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "library.db") as made:
        yield made


@pytest.fixture
def tracks(database: Database) -> Tracks:
    return Tracks(database)


@pytest.fixture
def model(tracks: Tracks) -> int:
    return tracks.model_id("made-up", "0" * 64, {"n_segments": 3})


@pytest.fixture
def scan(tracks: Tracks, model: int) -> int:
    return tracks.begin_scan(b"/music", "local", model)


def rows(database: Database, sql: str, *args: object) -> list[tuple]:
    return [tuple(row) for row in database.read(lambda c: c.execute(sql, args).fetchall())]


def test_a_model_is_its_weights_and_settings(tracks: Tracks, model: int) -> None:
    assert tracks.model_id("renamed", "0" * 64, {"n_segments": 3}) == model
    assert tracks.model_id("made-up", "0" * 64, {"n_segments": 4}) != model
    assert tracks.model_id("made-up", "1" * 64, {"n_segments": 3}) != model


def test_a_scan_that_never_ended_has_failed(tracks: Tracks, database: Database, model: int, scan: int) -> None:
    second = tracks.begin_scan(b"/more", "local", model)
    tracks.end_scan(second, "done")
    assert rows(database, "SELECT id, state, finished_at IS NULL FROM scans ORDER BY id") == [
        (scan, "failed", 0),
        (second, "done", 0),
    ]


def test_files_are_known_by_their_bytes(tracks: Tracks, database: Database, model: int, scan: int) -> None:
    tags = SongTags("Title", "Someone \udcff", "Album", "1999", ("Jazz", "Bop"))
    tracks.record(scan, model, [ok(ODD, 1, tags=tags), failed(b"/music/bad.mp3")])
    asked = [ODD, b"/music/bad.mp3", b"/music/new.mp3"]
    assert tracks.known(asked, model) == {ODD: Known(1_000, 1, True), b"/music/bad.mp3": Known(1_000, 1, True)}
    assert not tracks.known(asked, model + 1).get(ODD, Known(0, 0, True)).done
    [kept] = rows(database, "SELECT shown, title, artist, genres, state FROM files WHERE path = ?", ODD)
    assert kept == ("/music/Björk \N{MUSICAL NOTE}/\ufffd\n<b>.mp3", "Title", "Someone \ufffd", '["Jazz", "Bop"]', "ok")


def test_more_paths_than_one_statement_takes(tracks: Tracks, model: int, scan: int) -> None:
    paths = [b"/music/%d.mp3" % i for i in range(AT_ONCE * 2 + 3)]
    tracks.record(scan, model, [failed(path) for path in paths])
    assert len(tracks.known(paths, model)) == len(paths)
    assert tracks.mark_missing(b"/music", lambda path: True) == len(paths)


@pytest.mark.parametrize(
    ("code", "done"), [("CORRUPT", True), ("POISON", True), ("STORAGE", False), ("INTERNAL", False)]
)
def test_errors_that_say_nothing_of_the_content_are_tried_again(
    tracks: Tracks, model: int, scan: int, code: str, done: bool
) -> None:
    tracks.record(scan, model, [failed(b"/x.mp3", code)])
    assert tracks.known([b"/x.mp3"], model)[b"/x.mp3"].done is done


@pytest.mark.parametrize(("code", "again"), [("TOO_LONG", True), ("POISON", True), ("CORRUPT", False)])
def test_what_failed_by_a_bound_is_tried_again_with_another_bound(
    tracks: Tracks, model: int, code: str, again: bool
) -> None:
    first = tracks.begin_scan(b"/", "local", model, '{"max_duration_s": 60}')
    tracks.record(first, model, [failed(b"/x.mp3", code), ok(b"/a.mp3", 1)])
    same = tracks.begin_scan(b"/", "local", model, '{"max_duration_s": 60}')
    assert tracks.known([b"/x.mp3"], model, same)[b"/x.mp3"].done
    other = tracks.begin_scan(b"/", "local", model, '{"max_duration_s": 90}')
    known = tracks.known([b"/x.mp3", b"/a.mp3"], model, other)
    assert known[b"/x.mp3"].done is not again
    assert known[b"/a.mp3"].done


def test_a_song_whose_tags_another_program_wrote_stays_the_song(
    tracks: Tracks, database: Database, model: int, scan: int
) -> None:
    """By its place and its sound; from then on wherever the new content lies."""

    def track_of(path: bytes) -> int:
        return int(rows(database, "SELECT track_id FROM files WHERE path = ?", path)[0][0])

    tracks.record(scan, model, [ok(b"/a.mp3", 1), ok(b"/b.mp3", 2)])
    song = track_of(b"/a.mp3")
    said = votes(1)
    rounded = replace(said, logits=said.logits + 0.01)  # by another backend
    tracks.record(scan, model, [replace(ok(b"/a.mp3", 1), digest=digest("tagged"), result=analysis(1, votes=rounded))])
    assert track_of(b"/a.mp3") == song
    assert tracks.analysed(digest("tagged"), model)
    tracks.record(scan, model, [replace(ok(b"/copy.mp3", 1), digest=digest("tagged"), result=None)])
    tracks.record(scan, model, [replace(ok(b"/a.mp3", 1), digest=digest("tagged again"))])
    assert track_of(b"/copy.mp3") == track_of(b"/a.mp3") == song
    tracks.record(scan, model, [failed(b"/a.mp3", "STORAGE")])  # it was being written when a scan came by
    tracks.record(scan, model, [replace(ok(b"/a.mp3", 1), digest=digest("tagged once more"))])
    assert track_of(b"/a.mp3") == song
    others = [
        replace(ok(b"/b.mp3", 3), digest=digest("another song in its place")),
        replace(ok(b"/elsewhere.mp3", 1), digest=digest("the sound alone is not enough")),
        replace(ok(b"/a.mp3", 1), digest=digest("longer"), result=analysis(1, duration_s=31.0)),
    ]
    before = {track_of(path) for path in (b"/a.mp3", b"/b.mp3")}
    tracks.record(scan, model, others)
    assert {track_of(record.path) for record in others}.isdisjoint(before)


def test_two_songs_sound_otherwise_where_one_model_heard_both(
    tracks: Tracks, database: Database, model: int, scan: int
) -> None:
    other = tracks.model_id("another", "1" * 64, {})
    said = votes(1)
    alike = analysis(1, votes=replace(said, logits=said.logits + 0.01))
    tracks.record(scan, model, [ok(b"/a.mp3", 1), ok(b"/b.mp3", 2)])
    tracks.record(scan, model, [replace(ok(b"/c.mp3", 3), result=alike)])
    tracks.record(scan, other, [ok(b"/d.mp3", 4)])
    a, b, c, d = (row[0] for row in rows(database, "SELECT track_id FROM files ORDER BY path"))
    told = [database.read(lambda db, one=one: sounds_otherwise(db, a, one)) for one in (a, b, c, d)]
    assert told == [False, True, False, False]


def test_one_content_is_one_track_and_keeps_its_analysis(
    tracks: Tracks, database: Database, model: int, scan: int
) -> None:
    assert not tracks.analysed(digest("1"), model)
    tracks.record(scan, model, [ok(b"/a.mp3", 1), replace(ok(b"/b.mp3", 1), result=analysis(seed=2))])
    tracks.record(scan, model, [replace(ok(b"/moved.mp3", 1), result=None)])
    assert tracks.analysed(digest("1"), model)
    assert not tracks.analysed(digest("1"), model + 1)
    assert rows(database, "SELECT count(DISTINCT track_id), count(*) FROM files") == [(1, 3)]
    [stored] = tracks.votes([1])
    assert np.array_equal(stored.votes.logits, votes(1).logits)


def test_a_file_has_one_row_whatever_becomes_of_it(tracks: Tracks, database: Database, model: int, scan: int) -> None:
    state = "SELECT state, track_id, error_code, missing FROM files"
    tracks.record(scan, model, [ok(b"/a.mp3", 1)])
    assert rows(database, state) == [("ok", 1, None, 0)]
    tracks.record(scan, model, [failed(b"/a.mp3", mtime_ns=2)])
    assert rows(database, state) == [("error", 1, "CORRUPT", 0)]  # it may be that song again
    tracks.mark_missing(b"/a.mp3", lambda path: True)
    assert rows(database, state) == [("error", 1, "CORRUPT", 1)]
    tracks.record(scan, model, [ok(b"/a.mp3", 2, mtime_ns=3)])
    assert rows(database, state) == [("ok", 2, None, 0)]


def test_records_are_kept_together_or_not_at_all(tracks: Tracks, database: Database, model: int, scan: int) -> None:
    unfit = replace(ok(b"/b.mp3", 2), digest="short")
    with pytest.raises(LibraryError):
        tracks.record(scan, model, [ok(b"/a.mp3", 1), unfit])
    assert rows(database, "SELECT count(*) FROM files") == [(0,)]


def test_missing_is_marked_below_a_folder_only(tracks: Tracks, model: int, scan: int) -> None:
    paths = [b"/m/a.mp3", b"/m/x/b.mp3", b"/m-more/c.mp3", b"/m0.mp3"]
    tracks.record(scan, model, [failed(path) for path in paths])
    asked: list[bytes] = []
    assert tracks.mark_missing(b"/m", lambda path: asked.append(path) or path.endswith(b"b.mp3")) == 1
    assert asked == paths[:2]
    assert [path for path in paths if tracks.known([path], model)[path].missing] == [b"/m/x/b.mp3"]
    tracks.found_again([b"/m/x/b.mp3"], scan)
    assert not tracks.known(paths, model)[b"/m/x/b.mp3"].missing


def test_errors_are_counted_below_a_folder(tracks: Tracks, model: int, scan: int) -> None:
    tracks.record(
        scan, model, [failed(b"/m/a"), failed(b"/m/b"), failed(b"/m/c", "POISON"), failed(b"/n/d"), ok(b"/m/e")]
    )
    counts, first = tracks.errors(b"/m", limit=1)
    assert counts == {"CORRUPT": 2, "POISON": 1}
    assert first == [(b"/m/a", "CORRUPT", "damaged")]


def test_votes_come_back_as_they_were(tracks: Tracks, model: int, scan: int) -> None:
    other = tracks.model_id("other", "1" * 64, {})
    tracks.record(scan, model, [ok(b"/a", 1), ok(b"/b", 2)])
    tracks.record(scan, other, [replace(ok(b"/a", 1), result=analysis(seed=7))])
    newest = {one.track_id: one for one in tracks.votes([1, 2, 99])}
    assert np.array_equal(newest[1].votes.logits, votes(7).logits)
    [first] = tracks.votes([1], model)
    assert np.array_equal(first.votes.logits, votes(1).logits)
    assert np.allclose(first.votes.tag_logits, votes(1).tag_logits, atol=4e-3)
    assert np.allclose(first.votes.embeddings, votes(1).embeddings, atol=4e-3)
    assert first.votes.embeddings.dtype == np.float32
    assert first.warnings == (AudioWarning("CLIPPED", "loud"),)
    assert (first.start_s, first.end_s) == ((0.0, 10.0, 20.0), (10.0, 20.0, 30.0))
    assert first.descriptors is None


def test_what_rules_went_by_is_kept_with_the_votes(tracks: Tracks, model: int, scan: int) -> None:
    measured = Descriptors(tempo_bpm=150.5, beat_strength=0.25, low_freq_ratio=None, vocal_presence=0.1)
    tracks.record(scan, model, [replace(ok(b"/a", 1), result=analysis(seed=1, descriptors=measured))])
    assert [one.descriptors for one in tracks.votes([1])] == [measured]


def test_verdicts_are_read_anew_from_what_is_kept(tracks: Tracks, database: Database, model: int, scan: int) -> None:
    tracks.record(scan, model, [ok(b"/a", 1), ok(b"/b", 2)])
    verdicts = "SELECT personal, top_genre, confidence FROM verdicts ORDER BY analysis_id"
    before = rows(database, verdicts)

    def judge(stored: Sequence[StoredVotes]) -> list[Verdict]:
        assert all(one.warnings for one in stored)
        return [decide(replace(one.votes, logits=-one.votes.logits), LABELS, TAGS, Calibration()) for one in stored]

    told: list[tuple[int, int]] = []
    assert tracks.reread(judge, "mine", model, lambda done, n: told.append((done, n))) == 2
    after = rows(database, verdicts)
    assert told == [(2, 2)]
    assert [row[0] for row in before] == ["", ""]
    assert [row[0] for row in after] == ["mine", "mine"]
    assert all(a[1] != b[1] for a, b in zip(before, after, strict=True))
    assert tracks.reread(judge, "mine", model + 1) == 0
