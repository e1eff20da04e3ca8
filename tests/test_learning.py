"""Learning from decisions: what is offered, what accepting changes, and that going back brings everything back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from acoustic.errors import ConflictError, ManifestError, ModelError
from acoustic.kept import NOT_MUSIC, SongTags, Track
from acoustic.library.fitting import track_answers
from acoustic.records import Descriptors
from acoustic.verdict.rules import apply_rules
from acoustic.workstation import Workstation, learning, reviewing
from tests import made_reviews as made


@pytest.fixture
def station(fresh):
    with Workstation(fresh, cache=False) as workstation:
        yield workstation


def fill(station, songs):
    card = station.card()
    assert card.labels == made.GENRES
    return made.fill(
        station.library, songs, weights_digest=card.weights_digest, calibration=card.calibration, model=card.name
    )


def said_by_genre(station, songs, ids, n_each):
    """A person who hears every genre rightly decides some of each."""
    named = (*made.GENRES, made.OWN)
    seen: dict[int, int] = {}
    for song, track in zip(songs, ids, strict=True):
        genre = int(song.path.split(b"/")[-1].split(b"-")[0])
        seen[genre] = seen.get(genre, 0) + 1
        if seen[genre] <= n_each:
            station.library.decisions.decide(track, named[genre], who="ada", expected=None)


def some_songs(n_each=25, genres=(0, 1, 2, 4)):
    return [made.heard(genre, seed, sure=0.6) for genre in genres for seed in range(n_each)]


def verdicts(station):
    sql = "SELECT * FROM verdicts ORDER BY analysis_id"
    return station.library.database.read(lambda db: [tuple(row) for row in db.execute(sql)])


def lessons(station):
    sql = "SELECT version, n_songs, accuracy_before, accuracy_after, state FROM lessons ORDER BY id"
    return station.library.database.read(lambda db: [tuple(row) for row in db.execute(sql)])


@pytest.fixture
def taught(station):
    """A library in which ten songs of each genre were decided, one genre the person's own, and the offer."""
    songs = some_songs()
    ids = fill(station, songs)
    said_by_genre(station, songs, ids, 10)
    return songs, ids, learning.learn(station)


def test_an_offer_says_what_it_is_worth_and_changes_nothing(station, taught):
    songs, _, offer = taught
    before = verdicts(station)
    assert (offer.n_songs, offer.n_read) == (40, len(songs))
    assert offer.personal.own == (made.OWN,)
    was, becomes = offer.accuracy
    assert becomes > was + 0.2
    assert offer.lesson.comparison.n == 40
    assert offer.warnings  # the small model brings no background of other music
    assert verdicts(station) == before
    assert station.active_personal() is None
    assert lessons(station) == []


def test_accepting_reads_all_songs_anew_exactly_as_was_offered(station, taught):
    songs, ids, offer = taught
    first = {track: row[2] for track, row in zip(ids, verdicts(station), strict=True)}
    told = []
    name = learning.accept(station, offer, lambda *progress: told.append(progress))
    now = verdicts(station)
    assert {row[1] for row in now} == {name}
    changed = {t: (first[t], row[2]) for t, row in zip(ids, now, strict=True) if first[t] != row[2]}
    assert changed == {c.track_id: (c.before, c.after) for c in offer.changes}
    by_id = dict(zip(ids, now, strict=True))
    assert all(by_id[c.track_id][3] == pytest.approx(c.confidence) for c in offer.changes)
    assert [c.confidence for c in offer.changes] == sorted((c.confidence for c in offer.changes), reverse=True)
    assert told[-1] == ("Reading all songs anew", len(songs), len(songs))
    assert station.active_personal() == name
    assert lessons(station) == [(name, 40, *offer.accuracy, "accepted")]


def test_accuracy_on_songs_that_nobody_decided_rises(station, taught):
    songs, ids, offer = taught
    named = (*made.GENRES, made.OWN)
    truth = {t: named[int(s.path.split(b"/")[-1].split(b"-")[0])] for s, t in zip(songs, ids, strict=True)}
    decided = dict(station.library.decisions.labelled())

    def right():
        rows = zip(ids, verdicts(station), strict=True)
        others = [row[2] == truth[t] for t, row in rows if t not in decided]
        return sum(others) / len(others)

    before = right()
    learning.accept(station, offer)
    assert right() > before + 0.1


def test_the_queue_shrinks_by_what_was_offered(station, taught):
    offer = taught[2]
    before = set(station.library.reviews.waiting())
    assert offer.n_waiting == len(before)
    learning.accept(station, offer)
    left = before - set(station.library.reviews.waiting())
    assert len(left) == offer.n_leaving > 0


def test_rolling_back_brings_every_verdict_back(station, taught):
    offer = taught[2]
    before = verdicts(station)
    learning.accept(station, offer)
    assert verdicts(station) != before
    with pytest.raises(ConflictError, match="not in use any more: version 1 is"):
        learning.roll_back(station, shown="0")  # what the page showed, before another put version 1 to use
    assert station.active_personal() == "1"
    assert learning.roll_back(station, shown="1") is None
    again = verdicts(station)
    assert [row[:3] for row in again] == [row[:3] for row in before]
    # tags and embeddings are kept with half precision, genre scores are not
    assert [json.loads(row[10]) for row in again] == [pytest.approx(json.loads(row[10])) for row in before]
    assert lessons(station)[0][-1] == "rolled back"
    with pytest.raises(ModelError, match="nothing to undo"):
        learning.roll_back(station)


def test_discarding_leaves_everything_and_is_remembered(station, taught):
    before = verdicts(station)
    learning.discard(station, taught[2])
    assert verdicts(station) == before
    assert station.active_personal() is None
    assert [row[-1] for row in lessons(station)] == ["discarded"]


def test_a_second_lesson_is_offered_against_what_is_in_use(station, taught):
    offer = taught[2]
    learning.accept(station, offer)
    again = learning.learn(station)
    assert len(again.changes) == 0  # nothing was decided since
    assert learning.accept(station, offer) != learning.accept(station, offer)  # each under a name of its own


def test_what_a_dead_process_left_is_caught_up_with(station, taught):
    offer = taught[2]
    station.keep_personal(offer.personal)
    station.use_personal(offer.personal.name)  # and here it died
    assert {row[1] for row in verdicts(station)} == {""}
    assert station.is_behind()
    assert learning.catch_up(station) == len(taught[0])
    assert {row[1] for row in verdicts(station)} == {offer.personal.name}
    assert learning.catch_up(station) == 0
    assert not station.is_behind()


def test_neither_skips_nor_what_is_no_music_is_learned(station):
    songs = some_songs(5)
    ids = fill(station, songs)
    station.library.decisions.decide(ids[0], None, kind="skip", who="ada", expected=None)
    station.library.decisions.decide(ids[1], NOT_MUSIC, who="ada", expected=None)
    with pytest.raises(ManifestError, match="was given a genre"):
        learning.learn(station)


def test_what_other_weights_heard_is_not_learned(station):
    songs = some_songs(5)
    ids = made.fill(station.library, songs, weights_digest="f" * 64)
    station.library.decisions.decide(ids[0], "Jazz", who="ada", expected=None)
    with pytest.raises(ManifestError, match="was given a genre"):
        learning.learn(station)
    assert reviewing.segment_reader(station)("f" * 64, songs[0].votes) is None


def test_songs_of_one_artist_or_album_are_one_group():
    def track(number, path=b"/m/x.mp3", **tags):
        return Track(id=number, path=path, tags=SongTags(**tags))

    of = learning.groups(
        [
            track(1, artist="Ada"),
            track(2, artist=" ADA "),
            track(3, artist="Bob", album="Live"),
            track(4, artist="Cleo", album="live"),
            track(5, path=b"/other/x.mp3", album="Live"),
            track(6, artist="Various Artists"),
            track(7, artist="Various Artists"),
            track(8, artist="Ada", album="Live"),
        ]
    )
    assert of[1] == of[2] == of[3] == of[4] == of[8]
    assert len({of[n] for n in (1, 5, 6, 7)}) == 4


# --- how kept votes are read ---


def test_the_segments_are_read_as_what_is_in_use_reads_them(station, taught):
    songs, ids, offer = taught
    digest = station.card().weights_digest
    labels, before = reviewing.segment_reader(station)(digest, songs[0].votes)
    assert labels == made.GENRES
    assert before.sum(axis=1) == pytest.approx(1.0)
    learning.accept(station, offer)
    labels, after = reviewing.segment_reader(station)(digest, songs[0].votes)
    assert labels == (*made.GENRES, made.OWN)
    assert after.shape == (3, 5)
    analysis = reviewing.kept_analysis(station, ids[0])
    assert analysis.verdict.top_genre == verdicts(station)[0][2]
    assert analysis.start_s == tuple(songs[0].start_s)


def test_a_genre_is_called_as_it_is_known(station):
    ids = fill(station, some_songs(1))
    station.library.decisions.decide(ids[0], "Forró", who="ada", expected=None)
    assert reviewing.genres(station) == (*made.GENRES, "Forró")
    assert [reviewing.called(station, name) for name in ("forro", " JAZZ ", "New  thing")] == [
        "Forró",
        "Jazz",
        "New thing",
    ]
    with pytest.raises(ManifestError):
        reviewing.called(station, "\x00")


def test_the_file_of_a_song_is_one_that_is_there(station, tmp_path):
    there = tmp_path / "x.ogg"
    there.write_bytes(b"x")
    ids = fill(station, [made.heard(1, 1, path=bytes(there)), made.heard(1, 2, path=bytes(tmp_path / "gone.ogg"))])
    assert reviewing.heard_file(station, ids[0]) == there
    station.library.database.write(lambda db: db.execute("UPDATE files SET missing = 1"))  # its disk was away
    assert reviewing.heard_file(station, ids[0]) == there
    with pytest.raises(Exception, match="is not there any more"):
        reviewing.heard_file(station, ids[1])
    with pytest.raises(Exception, match="no song 99"):
        reviewing.heard_file(station, 99)


def test_songs_that_were_heard_with_rules_are_read_anew_with_them(station):
    songs = some_songs()
    ids = fill(station, songs)
    classical = [t for s, t in zip(songs, ids, strict=True) if s.path.split(b"/")[-1].startswith(b"1-")]
    measured = Descriptors(tempo_bpm=170.0, beat_strength=0.9, low_freq_ratio=0.1, vocal_presence=0.9)

    def with_rules(db):
        sql = "UPDATE analyses SET descriptors = ? WHERE track_id = ?"
        return [db.execute(sql, (json.dumps(measured.to_dict()), t)).rowcount for t in classical]

    assert sum(station.library.database.write(with_rules)) == 25
    [(model_id,)] = station.library.database.read(lambda db: db.execute("SELECT id FROM models").fetchall())
    plain = dict(zip(ids, verdicts(station), strict=True))
    station.library.tracks.reread(reviewing.judge(station, None), "", model_id)
    ruled = dict(zip(ids, verdicts(station), strict=True))
    assert {t for t in ids if plain[t][2:4] != pytest.approx(ruled[t][2:4])} <= set(classical)
    for track in classical:
        before, after = (json.loads(one[track][10]) for one in (plain, ruled))
        expected, applied = apply_rules(tuple(before), np.array(list(before.values())), measured)
        assert list(after.values()) == pytest.approx(list(expected), rel=1e-3)
        assert len(applied) == 3

    said_by_genre(station, songs, ids, 10)
    offer = learning.learn(station)
    learning.accept(station, offer)
    now = dict(zip(ids, verdicts(station), strict=True))
    assert {t for t in ids if ruled[t][2] != now[t][2]} == {c.track_id for c in offer.changes}
    assert all(now[c.track_id][3] == pytest.approx(c.confidence) for c in offer.changes)
    personal = station.personal()
    for one in station.library.tracks.votes(classical):
        assert one.descriptors == measured
        read = track_answers(personal.read(one.votes).logits, np.zeros(len(one.votes), int), personal.calibration)[0]
        assert json.loads(now[one.track_id][10]) == pytest.approx(
            dict(zip(personal.labels, apply_rules(personal.labels, read, measured)[0], strict=True))
        )
