"""What the Review tab's script can ask for: every answer, without a browser."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import review_site

from acoustic.errors import LibraryError, StorageError
from acoustic.kept import NOT_MUSIC, ReviewProgress, SongTags
from acoustic.ui import review, review_cards
from acoustic.ui.review_desk import ReviewDesk
from tests import made_reviews as made

NASTY = "<img src=x onerror=alert(1)>\u202e\u0007"


@pytest.fixture
def desk(tmp_path):
    with review_site.station(tmp_path) as workstation:
        yield ReviewDesk(workstation, tmp_path / "uploads")


@pytest.fixture
def ids(desk):
    return review_site.fill(desk._workstation, made.unsure(6))


def asker(desk):
    functions = {function.__name__: function for function in desk.functions()}

    def ask(name, **what):
        answer = functions[f"review_{name}"]({"token": desk.token, "who": "ada", **what})
        return json.loads(json.dumps(answer))  # as the browser gets it

    return ask


@pytest.fixture
def ask(desk):
    return asker(desk)


def test_opening_brings_all_that_a_page_needs(ask, ids, desk):
    page = ask("open")
    assert page["ok"]
    assert page["token"] == desk.token
    assert page["not_music"] == NOT_MUSIC
    assert sorted(item["id"] for item in page["items"]) == ids
    first = page["items"][0]
    assert first["why"].endswith(".")
    assert first["expected"] is None
    assert [genre for genre, _ in first["ranked"]] != []
    assert {genre["name"] for genre in page["genres"]} == set(made.GENRES)
    assert page["progress"]["n_left"] == 6
    assert page["reasons"][0][0] == "LOW_CONFIDENCE"


def test_without_the_token_nothing_is_done(desk, ids, ask):
    functions = {function.__name__: function for function in desk.functions()}
    for name, function in functions.items():
        if name != "review_open":
            answer = function({"id": ids[0], "genre": "Jazz", "step": "a", "who": "eve", "expected": None})
            assert answer["error"]["code"] == "STALE", name
    assert desk._workstation.library.decisions.history() == []


def test_a_decision_is_on_disk_when_it_is_answered_and_a_repeated_one_is_kept_once(desk, ids, ask):
    what = {"id": ids[0], "genre": "jazz", "step": "s1", "expected": None, "took_s": 2.5}
    first = ask("decide", **what)
    again = ask("decide", **what)
    assert first == again == {"ok": True, "decision": 1, "said": "Jazz", "batch": "s1"}
    [line] = desk._workstation.library.decisions.history()
    assert (line.genre, line.who, line.took_s) == ("Jazz", "ada", 2.5)


def test_the_second_of_two_hears_who_was_first_and_gets_the_song_as_it_is_now(ids, ask):
    ask("decide", id=ids[0], genre="Jazz", step="s1", expected=None)
    refused = ask("decide", id=ids[0], genre="Folk", step="s2", expected=None, who="bob")
    assert not refused["ok"]
    assert refused["error"]["code"] == "CONFLICT"
    assert "ada said Jazz" in refused["error"]["message"]
    [item] = ask("item", id=ids[0])["items"]
    assert item["decided"] == "Jazz"
    assert ask("decide", id=ids[0], genre="Folk", step="s3", expected=item["expected"], who="bob")["ok"]


def test_what_somebody_decided_meanwhile_is_named_to_the_pages_that_hold_it(ids, ask):
    ask("decide", id=ids[0], genre="Jazz", step="s1", expected=None)
    ask("decide", id=ids[1], kind="skip", step="s2", expected=None)
    state = ask("state", hold=ids[:3], n=10)
    assert state["taken"] == [ids[0]]
    assert sorted(item["id"] for item in state["items"]) == ids[3:]
    assert [line["said"] for line in state["history"]] == ["skipped", "Jazz"]


@pytest.mark.parametrize("name", ["", "\u0000", "x" * 61, NOT_MUSIC[:-1] + "\u202e)"])
def test_a_name_that_no_genre_can_have_is_refused(ids, ask, name):
    answer = ask("decide", id=ids[0], genre=name, step="s", expected=None)
    assert answer["error"]["code"] == "MANIFEST"
    assert answer["error"]["hint"]


def test_what_makes_no_sense_is_answered_with_an_error(ids, ask):
    assert ask("decide", id="x", genre="Jazz", step="s", expected=None)["error"]["code"] == "INTERNAL"
    assert ask("decide", id=999, genre="Jazz", step="s", expected=None)["error"]["code"] == "LIBRARY"
    assert ask("undo")["error"]["code"] == "LIBRARY"
    assert ask("accept", offer="gone")["error"]["code"] == "SETTINGS"


def test_undo_takes_back_a_step_of_the_page_once(desk, ids, ask):
    ask("decide", id=ids[0], genre="Jazz", step="s1", expected=None)
    ask("decide", id=ids[1], genre=NOT_MUSIC, step="s2", expected=None)
    for _ in range(2):  # the second time its answer had been lost
        answer = ask("undo", id=ids[0], batch="s1")
        assert answer["ok"]
    assert desk._workstation.library.decisions.in_force(ids[0]) is None
    assert desk._workstation.library.decisions.in_force(ids[1]).genre == NOT_MUSIC
    [item] = ask("undo")["items"]
    assert item["id"] == ids[1]


def test_any_decision_of_the_history_can_be_taken_back(ids, ask):
    for number, track in enumerate(ids[:3]):
        ask("decide", id=track, genre="Folk", step=f"s{number}", expected=None)
    line = ask("state")["history"][1]
    assert line["track"] == ids[1]
    assert ask("undo", decision=line["id"], who="bob")["items"][0]["id"] == ids[1]
    assert [one["undone"] for one in ask("state")["history"]] == [False, True, False]


def test_an_album_is_decided_and_undone_in_one_step(desk, ask):
    tags = SongTags(album="Live", artist="Ada")
    songs = [made.heard(2, seed, sure=0.3, tags=tags) for seed in range(4)]
    ids = review_site.fill(desk._workstation, songs)
    ask("decide", id=ids[3], genre="Folk", step="s0", expected=None, who="bob")
    others = ask("album", id=ids[0])["songs"]
    assert [(one["id"], one["decided"]) for one in others] == [(ids[1], False), (ids[2], False), (ids[3], True)]
    answer = ask("decide_album", id=ids[0], ids=ids[1:], genre="blues", step="s1", took_s=3)
    assert sorted(answer["decided"]) == ids[:3]
    assert ask("decide_album", id=ids[0], ids=ids[1:], genre="blues", step="s1")["decided"] == []
    library = desk._workstation.library
    assert [library.decisions.in_force(i).genre for i in ids] == ["Blues"] * 3 + ["Folk"]
    back = ask("undo", id=ids[0], batch=answer["batch"])
    assert sorted(item["id"] for item in back["items"]) == ids[:3]
    assert [library.decisions.in_force(i) is None for i in ids] == [True, True, True, False]


def test_an_album_is_undone_whole_though_more_was_decided_since(desk, ask, ids):
    answer = ask("decide_album", id=ids[0], ids=[ids[1]], genre="Jazz", step="s1")
    ask("decide", id=ids[2], genre="Folk", step="s2", expected=None)
    assert len(ask("undo", id=ids[1], batch=answer["batch"])["items"]) == 2
    assert desk._workstation.library.decisions.in_force(ids[2]).genre == "Folk"


def test_only_files_of_the_library_are_lent(desk, ask, tmp_path):
    there = tmp_path / "x.ogg"
    there.write_bytes(b"sound")
    songs = [made.heard(2, 1, path=bytes(there)), made.heard(2, 2, path=bytes(tmp_path / "gone.ogg"))]
    ids = review_site.fill(desk._workstation, songs)
    url = ask("listen", id=ids[0])["url"]
    assert (tmp_path / "uploads" / "lent").is_dir()
    assert url.endswith(".ogg")
    assert str(there) not in url
    assert ask("listen", id=ids[1])["error"]["code"] == "STORAGE"
    assert ask("listen", id=999)["error"]["code"] == "LIBRARY"


def test_names_go_out_as_they_are_and_the_page_makes_text_of_them(desk, ask):
    tags = SongTags(title=NASTY, artist=NASTY, album=NASTY)
    path = b"/music/\xff\xfe<b>.ogg"
    review_site.fill(desk._workstation, [made.heard(2, 1, sure=0.3, tags=tags, path=path)])
    item = ask("open")["items"][0]
    assert item["name"] == NASTY[:-2] + "\ufffd\ufffd"  # what reorders or hides text is made visible
    assert "\ufffd" in item["path"]


# --- fragments ---


def test_an_offer_is_escaped(desk, ask):
    songs = [made.heard(genre, seed, sure=0.6, tags=SongTags(title=NASTY)) for genre in (0, 1, 2) for seed in range(20)]
    ids = review_site.fill(desk._workstation, songs)
    for i, track in enumerate(ids):
        if i % 20 < 10:
            genre = "<b>Own</b>" if i < 20 else made.GENRES[i // 20]
            assert ask("decide", id=track, genre=genre, step=str(i), expected=None)["ok"]
    answer = ask("learn")
    assert answer["ok"]
    assert "&lt;b&gt;Own&lt;/b&gt;" in answer["html"]
    assert "<b>Own" not in answer["html"]
    assert "<img" not in answer["html"]
    assert "n = " in answer["html"]
    assert 'data-do="accept"' in answer["html"]
    key = answer["html"].split('data-offer="')[1].split('"')[0]
    assert "is in use" in ask("accept", offer=key)["told"]
    assert 'data-do="roll-back"' in ask("state")["lesson"]
    assert {"name": "<b>Own</b>"}.items() <= ask("state")["genres"][-1].items()
    assert ask("roll_back", version="7")["error"]["code"] == "CONFLICT"
    assert "model alone" in ask("roll_back", version="1")["told"]
    assert ask("accept", offer=key)["error"]["code"] == "SETTINGS"


def test_one_lesson_at_a_time(desk, ask, ids, monkeypatch):
    entered, go_on = threading.Event(), threading.Event()

    def slow(workstation, tell):
        tell("Learning from 3 songs", 1, 3)
        entered.set()
        go_on.wait(60)
        raise LibraryError("stopped")

    monkeypatch.setattr("acoustic.workstation.learning.learn", slow)
    worker = threading.Thread(target=ask, args=("learn",))
    worker.start()
    try:
        entered.wait(60)
        assert ask("learn")["error"]["code"] == "LIBRARY"
        assert ask("told")["told"] == "Learning from 3 songs: 1 of 3"
    finally:
        go_on.set()
        worker.join()
    assert ask("told")["told"] == ""


def test_the_diagram_says_its_numbers_also_in_words():
    svg = review_cards.reliability([(0.3, 0.5, 12), (0.6, 0.75, 12)])
    assert svg.count("<circle") == 2
    assert "30 % sure, 50 % right; 60 % sure, 75 % right" in svg
    assert "n = 24" in svg
    assert "<svg" not in review_cards.reliability([])
    numbers = review_cards.progress(ReviewProgress(3, 10, 1, 8, 4, 12.34))
    assert (numbers["agreement"], numbers["minutes"]) == ("50 %", "12")
    assert review_cards.progress(ReviewProgress(3, 0, 0, 0, 0, 0.0))["agreement"] == "–"


# --- the picture ---


def test_a_picture_says_whose_it_is_and_what_is_wrong(desk, ids, tmp_path, monkeypatch):
    workstation = desk._workstation
    figure = review.picture_of(workstation, desk, ids[0])
    assert figure.layout.meta["track"] == ids[0]
    assert "No spectrogram" in figure.layout.annotations[0].text  # the file is not there
    other = made.fill(workstation.library, [made.heard(1, 9)], weights_digest="e" * 64, model="another")
    assert review.picture_of(workstation, desk, other[0]) is None


def test_pictures_of_the_last_songs_are_kept(desk, ids, monkeypatch):
    made_of = []
    monkeypatch.setattr("acoustic.workstation.reviewing.heard_file", lambda workstation, track: track)
    monkeypatch.setattr(desk._workstation, "overview", lambda file: made_of.append(file) or object())
    for track in [*range(8), 7, 6, 0]:
        desk.overview(track)
    assert made_of == [*range(8), 0]


def test_a_file_that_cannot_be_copied_is_an_error(desk, ids, monkeypatch):
    def broken(file, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("acoustic.workstation.reviewing.heard_file", lambda workstation, track: Path("x"))
    monkeypatch.setattr("acoustic.ui.uploads.lent", broken)
    with pytest.raises(StorageError, match="No space left"):
        desk.listen({"id": ids[0]})
