"""The table's pages: what each filter leaves, in which order, whatever is typed; and that they stay quick."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.kept import NOT_MUSIC, TrackFilter
from acoustic.library import search
from acoustic.library.store import Library
from tests.made_library import Song, analyse, decide, fill, made_songs

SONGS = (
    Song(b"/music/Jazz/So What.flac", "So What", "Miles Davis", "Kind of Blue", "Jazz", 0.91, duration_s=562),
    Song(b"/music/Jazz/Blue in Green.flac", "Blue in Green", "Miles Davis", "Kind of Blue", "Jazz", 0.42, review=True),
    Song(b"/music/Jazz2/caf\xe9.mp3", "", "", "", "Folk", 0.66),
    Song("/music/世界/上を向いて歩こう.m4a".encode(), "上を向いて歩こう", "坂本 九", "", "Pop", 0.75),
    Song(b"/other/100%_sure.mp3", "100%_sure", "AC/DC", "High Voltage", "Rock", 0.99, tagged=("Hard Rock",)),
    Song(b"/music/Jazz/copy/So What.flac.1", "Twice", "Édith Piaf", "", "World", 0.5,
         copies=(b"/other/twice.flac", b"/music/Jazz/zz.flac")),
    Song(b"/gone/lost.mp3", "Lost", "Nobody", "", "Metal", 0.3, review=True, missing=True, model="older"),
)  # fmt: skip
FAILED = ((b"/music/Jazz/notes.txt.mp3", "NOT_AUDIO", "it is text"), (b"/other/x<b>.mp3", "EMPTY", "no bytes"))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    with Library(tmp_path_factory.mktemp("library") / "library.db") as library:
        fill(library, SONGS, FAILED)
        decide(library, 3, "Forró")
        decide(library, 5, None, "not_music")
        decide(library, 7, None, "skip")
        yield library


@pytest.fixture(scope="module")
def catalogue(library):
    return library.catalogue


def ids(catalogue, **what) -> set[int]:
    return set(catalogue.ids(TrackFilter(**what)))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({}, {1, 2, 3, 4, 5, 6, 7}),
        ({"genre": "Jazz"}, {1, 2}),
        ({"genre": "Forró"}, {3}),
        ({"genre": "Folk"}, set()),  # the person's word counts, not the model's
        ({"genre": NOT_MUSIC}, {5}),
        ({"flag": "review"}, {2, 7}),  # a skipped song still waits
        ({"flag": "decided"}, {3, 5}),
        ({"flag": "undecided"}, {1, 2, 4, 6, 7}),
        ({"flag": "duplicates"}, {6}),
        ({"flag": "missing"}, {7}),
        ({"flag": "errors"}, set()),
        ({"min_confidence": 0.42, "max_confidence": 0.66}, {2, 3, 6}),
        ({"folder": b"/music/Jazz"}, {1, 2, 6}),
        ({"folder": b"/music/Jazz/"}, {1, 2, 6}),
        ({"folder": b"/music"}, {1, 2, 3, 4, 6}),
        ({"folder": b"/music/Jazz2"}, {3}),
        ({"folder": b"/other"}, {5, 6}),
        ({"folder": b"/"}, {1, 2, 3, 4, 5, 6, 7}),
        ({"model": "older"}, {7}),
        ({"ids": (4, 2, 99)}, {2, 4}),
        ({"genre": "Jazz", "flag": "review", "text": "green", "folder": b"/music"}, {2}),
    ],
)
def test_a_filter_leaves_what_it_says(catalogue, what, expected):
    assert ids(catalogue, **what) == expected
    page = catalogue.page(TrackFilter(**what), limit=3)
    if what.get("flag") != "errors":
        assert page.n_total == len(expected)
        assert catalogue.stats(TrackFilter(**what)).n_tracks == len(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("miles", {1, 2}),
        ("MILES dav", {1, 2}),
        ("blue", {1, 2}),  # an album's word and a title's
        ("edith", {6}),  # accents need not be typed
        ("ac/dc", {5}),
        ("hard", {5}),  # what the file's own tags say
        ("向いて", {4}),  # from the middle of a run of letters
        ("坂", {4}),
        ("100%_s", {5}),
        ("%", {5}),
        ("_", {5}),
        ("\\", set()),
        ("twice.flac", {6}),  # the name of any copy
        ("so AND what", set()),  # words, not operators
        ("miles NOT what", set()),
        ('"so wh', {1, 6}),
        ("nothing of the kind", set()),
        ("   ", {1, 2, 3, 4, 5, 6, 7}),
    ],
)
def test_words_are_found_wherever_they_stand(catalogue, text, expected):
    assert ids(catalogue, text=text) == expected


NASTY = [
    '"',
    "'",
    "*",
    "-",
    "^",
    ":",
    "(",
    "NEAR(",
    "a*b",
    "title:so",
    "\0",
    "a\0b",
    "\udcff",
    "{",
    "+",
    "'; DROP TABLE",
]


@pytest.mark.parametrize("text", NASTY)
def test_odd_text_never_raises(catalogue, text):
    assert catalogue.page(TrackFilter(text=text)).n_total >= 0


@given(st.text(max_size=30))
def test_no_text_raises(catalogue, text):
    assert ids(catalogue, text=text) <= {1, 2, 3, 4, 5, 6, 7}


@given(st.text(alphabet=st.sampled_from("abcé石向ไทยक्ष€∞♥'\"*() "), max_size=12))
def test_the_index_is_asked_in_its_own_language(catalogue, text):
    catalogue.ids(TrackFilter(text=text))
    assert len(search.words(text)) <= search.MAX_WORDS


@pytest.mark.parametrize(
    ("sort", "first_up"),
    [
        ("title", 5),  # "100%_sure"
        ("artist", 5),  # "AC/DC"
        ("album", 5),
        ("genre", 5),  # "(not music)"
        ("confidence", 7),
        ("path", 7),
        ("added", 2),  # the maker dates by the length of the path, modulo 28
    ],
)
def test_every_column_sorts_both_ways(catalogue, sort, first_up):
    up, down = (catalogue.ids(TrackFilter(), sort, descending) for descending in (False, True))
    assert sorted(up) == sorted(down) == [1, 2, 3, 4, 5, 6, 7]
    assert up[0] == first_up
    if sort not in ("artist", "album"):
        assert down == up[::-1]


def test_what_has_no_artist_comes_last_both_ways(catalogue):
    assert catalogue.ids(TrackFilter(), "artist", False)[-1] == catalogue.ids(TrackFilter(), "artist", True)[-1] == 3


def test_a_title_that_is_missing_sorts_by_the_files_name(catalogue):
    order = catalogue.ids(TrackFilter(), "title", False)
    names = [catalogue.track(i).name for i in order]
    assert names == sorted(names, key=str.casefold)
    assert "caf\ufffd.mp3" in names


def test_pages_together_are_the_whole_list(catalogue):
    whole = catalogue.ids(TrackFilter(), "title", False)
    pages = [catalogue.page(TrackFilter(), "title", False, offset, 3) for offset in (0, 3, 6, 9)]
    assert [track.id for page in pages for track in page.tracks] == whole
    assert {page.n_total for page in pages} == {7}


def test_a_track_says_all_that_is_known(catalogue):
    track = catalogue.track(2)
    assert (track.tags.title, track.tags.artist, track.tags.album) == ("Blue in Green", "Miles Davis", "Kind of Blue")
    assert (track.top_genre, track.genre, track.decided) == ("Jazz", "Jazz", None)
    assert track.confidence == pytest.approx(0.42)
    assert track.needs_review
    assert track.review_reasons == ("LOW_CONFIDENCE",)
    assert len(track.prediction_set) == 3
    assert (track.model, track.duration_s, track.n_files, track.missing) == ("made-up", 180.0, 1, False)
    assert track.added_at.startswith("2026-01-")
    assert catalogue.track(99) is None
    assert catalogue.track(0) is None


def test_the_persons_word_counts_and_settles_the_review(catalogue):
    assert (catalogue.track(3).genre, catalogue.track(3).top_genre) == ("Forró", "Folk")
    assert catalogue.track(5).decided == NOT_MUSIC
    assert catalogue.track(7).decided is None
    assert catalogue.track(7).missing
    assert catalogue.track(3).path == b"/music/Jazz2/caf\xe9.mp3"


def test_of_several_files_the_one_in_the_folder_is_named(catalogue):
    (in_other,) = (t for t in catalogue.page(TrackFilter(folder=b"/other")).tracks if t.id == 6)
    assert in_other.path == b"/other/twice.flac"
    assert in_other.n_files == 3
    assert catalogue.files([6, 1]) == {
        6: (b"/music/Jazz/copy/So What.flac.1", b"/other/twice.flac", b"/music/Jazz/zz.flac"),
        1: (b"/music/Jazz/So What.flac",),
    }


def test_failed_files_are_rows_with_their_error(catalogue):
    page = catalogue.page(TrackFilter(flag="errors"), "path", descending=False)
    assert [(t.id, t.path, t.error["code"]) for t in page.tracks] == [
        (0, b"/music/Jazz/notes.txt.mp3", "NOT_AUDIO"),
        (0, b"/other/x<b>.mp3", "EMPTY"),
    ]
    assert page.tracks[0].error["hint"]
    assert page.n_total == 2
    assert catalogue.page(TrackFilter(flag="errors", folder=b"/other")).n_total == 1
    assert catalogue.page(TrackFilter(flag="errors", text="notes")).n_total == 1
    assert catalogue.ids(TrackFilter(flag="errors")) == []


def test_the_numbers_add_up(catalogue):
    stats = catalogue.stats()
    assert (stats.n_tracks, stats.n_files, stats.n_errors, stats.n_review) == (7, 8, 2, 2)  # and one that is missing
    assert (stats.n_decided, stats.n_duplicates) == (2, 1)
    assert stats.hours == pytest.approx((562 + 6 * 180) / 3600)
    assert dict(stats.genres) == {"Jazz": 2, "Forró": 1, "Pop": 1, NOT_MUSIC: 1, "World": 1, "Metal": 1}
    assert stats.genres[0] == ("Jazz", 2)
    assert stats.confidence == (0, 0, 0, 1, 1, 1, 1, 1, 0, 2)
    assert dict(stats.models) == {"made-up": 6, "older": 1}
    assert catalogue.stats(TrackFilter(flag="errors")).n_errors == 2
    assert catalogue.stats(TrackFilter(folder=b"/other")).n_errors == 1


def test_an_empty_library_has_empty_pages(tmp_path):
    with Library(tmp_path / "library.db") as library:
        catalogue = library.catalogue
        assert catalogue.page().tracks == ()
        assert catalogue.stats().genres == ()
        assert catalogue.stats().confidence == (0,) * 10
        assert catalogue.embeddings()[1].shape == (0, 0)
        assert catalogue.newest_model() is None
        assert catalogue.folders() == []
        assert catalogue.version() == 0


def test_whatever_is_written_gives_another_version_and_nothing_else_does(tmp_path):
    with Library(tmp_path / "library.db") as library, Library(tmp_path / "library.db") as other:
        fill(library, SONGS[:3])
        seen = {library.catalogue.version()}
        for sql in (
            "UPDATE files SET missing = 1 WHERE id = 1",
            "UPDATE files SET title = 'Another' WHERE id = 2",
            "UPDATE verdicts SET top_genre = 'Jazz'",
        ):
            other.database.write(lambda db, sql=sql: db.execute(sql))
            assert library.catalogue.version() not in seen
            seen.add(library.catalogue.version())
        library.catalogue.page()
        library.database.write(lambda db: db.execute("UPDATE files SET missing = 0 WHERE id = 99"))
        assert library.catalogue.version() in seen


def test_what_is_gone_is_no_duplicate_and_no_failed_file(tmp_path):
    with Library(tmp_path / "library.db") as library:
        fill(library, SONGS[:1], [(b"/music/broken.mp3", "CORRUPT", "...")])
        copy = "INSERT INTO files (path, shown, track_id, n_bytes, mtime_ns, state, missing, scan_id) "
        library.database.write(lambda db: db.execute(f"{copy} VALUES (x'2f63', '/c', 1, 1, 1, 'ok', 0, 1)"))
        catalogue = library.catalogue
        assert (catalogue.stats().n_duplicates, catalogue.stats().n_errors) == (1, 1)
        assert catalogue.ids(TrackFilter(flag="duplicates")) == [1]
        assert len(catalogue.files([1])[1]) == 2
        gone = "UPDATE files SET missing = 1 WHERE path = x'2f63' OR state = 'error'"
        library.database.write(lambda db: db.execute(gone))
        assert (catalogue.stats().n_duplicates, catalogue.stats().n_errors, catalogue.stats().n_files) == (0, 0, 1)
        assert catalogue.ids(TrackFilter(flag="duplicates")) == []
        assert len(catalogue.files([1])[1]) == 1
        assert catalogue.page(TrackFilter(flag="errors")).n_total == 0
        assert catalogue.track(1).n_files == 1


def test_what_no_file_holds_any_more_is_not_shown(tmp_path):
    with Library(tmp_path / "library.db") as library:
        fill(library, SONGS[:2])
        library.database.write(lambda db: db.execute("UPDATE files SET track_id = 2 WHERE track_id = 1"))
        assert library.catalogue.ids() == [2]
        assert library.catalogue.stats().n_tracks == 1
        assert library.catalogue.track(1) is None


def test_the_newest_analysis_counts_and_its_embeddings_are_the_newest_models(tmp_path):
    import numpy as np

    with Library(tmp_path / "library.db") as library:
        fill(library, [Song(b"/a", genre="Folk", model="one"), Song(b"/b", genre="Folk", model="one")])
        before = library.catalogue.version()
        fill(library, [Song(b"/c", genre="Pop", model="two")])
        rng = np.random.default_rng(0)
        anew = Song(b"/a", genre="Rock", confidence=0.7)
        library.database.write(lambda db: analyse(db, 1, 2, anew, rng, np.zeros((16, 32))))
        catalogue = library.catalogue
        assert [catalogue.track(i).top_genre for i in (1, 2, 3)] == ["Rock", "Folk", "Pop"]
        assert catalogue.track(1).model == "two"
        assert set(catalogue.ids(TrackFilter(model="two"))) == {1, 3}
        tracks, rows = catalogue.embeddings()
        assert tracks.tolist() == [3, 1]
        assert rows.dtype == np.float16
        assert rows.shape == (2, 32)
        assert catalogue.embeddings(1)[0].tolist() == [1, 2]
        assert catalogue.embeddings(2, after=3)[0].tolist() == [1]
        assert catalogue.version() != before
        assert catalogue.genres([1, 2]) == {1: "Rock", 2: "Folk"}
        assert catalogue.genres() == {1: "Rock", 2: "Folk", 3: "Pop"}


def test_scanned_folders_are_told_without_those_inside_others(tmp_path):
    with Library(tmp_path / "library.db") as library:
        for root in (b"/music/Jazz", b"/music", b"/music2", b"/x\xff"):
            fill(library, [Song(root + b"/one"), Song(root + b"/two")])
        assert library.catalogue.folders() == [b"/music", b"/music2", b"/x\xff"]


@pytest.mark.slow
def test_a_page_of_twenty_thousand_takes_a_moment(tmp_path):
    with Library(tmp_path / "library.db") as library:
        fill(library, made_songs(20_000), width=584)
        for sort in ("title", "artist", "genre", "confidence", "duration", "added", "path"):
            library.catalogue.page(sort=sort)
            began = time.process_time()
            assert library.catalogue.page(sort=sort).n_total == 20_000
            assert time.process_time() - began < 0.25, sort


@pytest.mark.parametrize("sort", ["title", "genre", "confidence", "duration", "added"])
def test_no_list_reads_the_rows_that_hold_blobs(library, sort):
    """EXPLAIN: analyses are looked up in an index alone, files by the index of their track."""
    from acoustic.library import catalogue as module

    query, values = module._matching(TrackFilter(model="made-up"), module._SORTS[sort][0])
    statement = f"EXPLAIN QUERY PLAN SELECT t.id {query} ORDER BY {module._order(sort, True)}"
    plan = [row["detail"] for row in library.database.read(lambda db: db.execute(statement, values).fetchall())]
    of_blobs = [step for step in plan if "analyses" in step or step.split()[1] == "a"]
    assert of_blobs
    assert all("COVERING INDEX" in step for step in of_blobs)
    assert all("INDEX" in step or "KEY" in step for step in plan if step.startswith("SEARCH files"))


def test_a_path_that_is_no_utf8_is_found_by_what_is_shown(catalogue):
    assert ids(catalogue, text="caf") == {3}
    assert os.fsencode(os.fsdecode(catalogue.track(3).path)) == b"/music/Jazz2/caf\xe9.mp3"
