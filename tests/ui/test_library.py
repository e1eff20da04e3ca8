"""What the Library tab shows and does, without a browser: everything is escaped, every click means one thing."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_site import NASTY, MadeScan, Workstation, build, songs_in
from workstation_double import LABELS

from acoustic.errors import LibraryError, StorageError
from acoustic.kept import LibraryStats, ScanProgress, SongTags, Track, TrackFilter, TrackPage
from acoustic.library.store import Library
from acoustic.library.tags import read_tags
from acoustic.ui import library_map, library_scan, library_table, uploads, wording
from acoustic.ui.library_desk import LibraryDesk
from acoustic.ui.library_scan import ScanDesk
from acoustic.ui.library_tags import Planned, TagDesk
from acoustic.ui.shelf import PAGE_SIZE, Shelf, folder_named
from tests.made_library import decide, fill

HOSTILE = st.text(alphabet=st.sampled_from("<>&\"'`=/ a\u202e\u2067\x07\n\r\0é石ש{}$"), max_size=25)
ALLOWED = {"div", "table", "thead", "tbody", "tr", "th", "td", "button", "span", "input", "bdi", "strong", "svg",
           "path", "nav", "p", "circle", "section", "h3", "ol", "ul", "li", "audio", "a"}  # fmt: skip


class Tags(HTMLParser):
    """The elements and attribute names of some HTML; broken nesting is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.open = set(), set(), []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("input", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def track(**more) -> Track:
    fields = {"id": 7, "path": b"/music/a.mp3", "top_genre": "Jazz", "confidence": 0.8, "duration_s": 61.0}
    return Track(**{**fields, **more})


def rendered(one: Track, shelf: Shelf | None = None) -> str:
    return library_table.table(TrackPage((one,), 1), shelf or Shelf(), LABELS, {})


# --- what is shown ---


PRINTABLE = HOSTILE.map(lambda text: "".join(c for c in text if c.isprintable()))  # a genre is tidied before it is kept


@given(title=HOSTILE, artist=HOSTILE, genre=PRINTABLE, path=st.binary(min_size=1, max_size=20))
def test_nothing_of_a_song_becomes_an_element_or_an_attribute(title, artist, genre, path):
    one = track(
        path=path, tags=SongTags(title, artist, genre), top_genre=genre, review_reasons=(genre,), needs_review=True
    )
    failed = track(id=0, path=path, error={"code": genre, "message": title, "hint": artist})
    html = (
        rendered(one)
        + rendered(failed)
        + library_table.player(one, "x", "", LABELS, 1)
        + library_table.player(one, "", title, LABELS, 0)
        + library_table.similar([(one, 0.5)], title, LABELS)
        + library_table.genre_bars(LibraryStats(1, 1, 0, 0, 0, 0, 1.0, ((genre, 1),)), TrackFilter(), LABELS)
    )
    seen = Tags(html)
    assert seen.tags <= ALLOWED
    assert not {name for name in seen.attributes if name.startswith("on") or name == "srcset"}
    assert not set("\x07\0\u202e\u2067") & set(html)


def test_text_of_the_other_direction_keeps_to_itself():
    html = rendered(track(tags=SongTags("שלום", "\u202eabc", "")))
    assert "<bdi>שלום</bdi>" in html
    assert "<bdi>\ufffdabc</bdi>" in html


def test_what_joins_letters_is_not_taken_for_what_hides_them():
    assert wording.visible("می\u200cخواهم 👩\u200d🎤") == "می\u200cخواهم 👩\u200d🎤"


def test_a_row_says_who_said_the_genre():
    assert "To review: no genre stands out" in rendered(track(needs_review=True, review_reasons=("LOW_CONFIDENCE",)))
    assert "You decided; the model said Jazz" in rendered(track(decided="Forró"))
    assert "<bdi>not music</bdi>" in rendered(track(decided="(not music)"))
    assert "not there now" in rendered(track(missing=True))
    assert "3 files" in rendered(track(n_files=3))


def test_an_empty_library_says_what_to_do():
    html = library_table.tiles(LibraryStats(0, 0, 0, 0, 0, 0, 0.0), TrackFilter())
    assert "Scan a folder" in html
    assert "as-tiles" not in html
    assert "as-tiles" in library_table.tiles(LibraryStats(0, 0, 3, 0, 0, 0, 0.0), TrackFilter())


def test_the_histogram_is_in_proportion_and_marks_what_is_chosen():
    stats = LibraryStats(30, 30, 0, 0, 0, 0, 1.0, (), (0, 0, 0, 0, 5, 0, 20, 0, 5, 0))
    html = library_table.histogram(stats, TrackFilter(min_confidence=0.4, max_confidence=0.5))
    assert re.findall(r"--share:([0-9.]+)", html)[4:7] == ["0.2500", "0.0000", "1.0000"]
    assert html.count('aria-pressed="true"') == 1
    assert "5 songs with a confidence of 40 to 50 %" in html


def test_the_pager_leads_everywhere_and_nowhere_beyond():
    page = TrackPage((track(),), 3 * PAGE_SIZE + 1)
    html = library_table.table(page, Shelf(offset=3 * PAGE_SIZE), LABELS, {})
    assert "Page <strong>4</strong> of 4" in html
    assert re.findall(r'data-do="page" data-value="(-?\d+)" aria-label="([^"]+)"( disabled)?', html) == [
        ("0", "First page", ""),
        (str(2 * PAGE_SIZE), "Previous page", ""),
        (str(4 * PAGE_SIZE), "Next page", " disabled"),
        (str(3 * PAGE_SIZE), "Last page", " disabled"),
    ]


def test_the_map_is_sent_in_few_bytes_and_comes_out_as_it_went_in():
    ids = np.array([5, 9, 12])
    places = np.array([[-1, -1], [1, 1], [0, 0.5]], np.float32)
    sent = json.loads(library_map.points(ids, places, {5: "Jazz", 12: "My <own>"}, LABELS, "note"))
    assert sent["n"] == 2
    assert np.frombuffer(base64.b64decode(sent["ids"]), "<u4").tolist() == [5, 12]
    steps = np.frombuffer(base64.b64decode(sent["places"]), "<u2").reshape(-1, 2) / 65_535
    assert steps == pytest.approx(np.array([[0, 0], [0.5, 0.75]]), abs=1e-4)
    assert [sent["genres"][i]["name"] for i in np.frombuffer(base64.b64decode(sent["genre"]), "<u2")] == [
        "Jazz",
        "My <own>",
    ]
    empty = json.loads(library_map.points(np.zeros(0, int), np.zeros((0, 2)), {}, LABELS))
    assert (empty["n"], empty["ids"]) == (0, "")
    marks = json.loads(library_map.marks([1, 2], (7,), None))
    assert np.frombuffer(base64.b64decode(marks["shown"]), "<u4").tolist() == [1, 2]
    assert json.loads(library_map.marks(None, (), 3)) == {"shown": None, "selected": "", "chosen": 3}


# --- what a click means ---


def test_clicks_change_the_shelf_as_they_say():
    shelf = Shelf()
    assert not shelf.act("sort", "title")
    assert (shelf.sort, shelf.descending) == ("title", False)
    shelf.act("sort", "title")
    assert shelf.descending
    shelf.act("sort", "confidence")
    assert shelf.descending
    shelf.act("tick", "4")
    shelf.act("tick", "2")
    shelf.act("tick", "2")  # said twice, it is ticked all the same
    shelf.act("untick", "4")
    shelf.act("untick", "7")
    assert shelf.selected == (2,)
    shelf.act("lasso", "add", [9, 2])
    assert shelf.selected == (2, 9)
    shelf.act("lasso", "", [])
    assert shelf.selected == (2, 9)
    shelf.act("lasso", "", [1])
    assert shelf.selected == (1,)
    assert shelf.act("only", "")
    assert shelf.what.ids == (1,)
    assert shelf.act("drop", "")
    assert (shelf.selected, shelf.what) == ((), TrackFilter())
    assert shelf.act("genre", "Jazz")
    assert shelf.act("flag", "review")
    assert shelf.act("bin", "4")
    assert shelf.what == TrackFilter(genre="Jazz", flag="review", min_confidence=0.4, max_confidence=0.5)
    assert shelf.act("bin", "4")
    assert shelf.act("genre", "Jazz")
    assert shelf.act("flag", "review")
    assert shelf.what == TrackFilter()
    shelf.act("play", "3")
    assert (shelf.chosen, shelf.plays, shelf.playing) == (3, 1, True)
    shelf.act("choose", "5")
    shelf.act("play", "5")
    assert (shelf.chosen, shelf.plays, shelf.playing) == (5, 2, True)
    shelf.act("close", "")
    assert shelf.chosen is None


@given(
    do=st.sampled_from(
        ["sort", "tick", "untick", "lasso", "choose", "play", "flag", "bin", "page", "similar", "x", ""]
    ),
    value=st.text(),
)
def test_a_click_that_makes_no_sense_changes_nothing(do, value):
    shelf = Shelf()
    if not value.isdecimal() and value not in ("title", "all", "review"):
        shelf.act(do, value)
        assert shelf == Shelf()


def test_pages_stay_within_the_list():
    shelf = Shelf()
    shelf.turn_to(10_000, 120)
    assert shelf.offset == 100
    shelf.turn_to(-5, 120)
    assert shelf.offset == 0
    shelf.turn_to(50, 0)
    assert shelf.offset == 0


def test_a_folder_is_known_by_what_is_shown_of_it():
    known = [("/m/caf\ufffd", b"/m/caf\xe9")]
    assert folder_named("/m/caf\ufffd", known) == b"/m/caf\xe9"
    assert folder_named(" /other ", known) == b"/other"
    assert folder_named("", known) == b""
    assert folder_named("\ud800", known) == b""


# --- scanning ---


def test_one_scan_runs_at_a_time_and_can_be_stopped():
    go, seen = threading.Event(), []

    def scan(folder, on_progress, cancel):
        on_progress(ScanProgress("running", 10, 1, 3, 1, True, 2.5, 4.0, 2.0))
        seen.append(folder)
        go.wait(30)
        state = "cancelled" if cancel.is_set() else "done"
        return ScanProgress(state, 10, 1, 8, 1, False, 2.5, None, 4.0)

    desk = ScanDesk(scan)
    with pytest.raises(StorageError, match="no folder"):
        desk.start("  ")
    assert library_scan.status(desk) == ""
    desk.start(" /m<b> ")
    with pytest.raises(StorageError, match="being scanned"):
        desk.start("/other")
    while not seen:
        threading.Event().wait(0.01)
    html = library_scan.status(desk)
    assert "<strong>5</strong> of 10+ files" in html
    assert "2.5 files/s" in html
    assert "about 4 s left" in html
    assert "&lt;b&gt;" in html
    desk.stop()
    assert "stopping" in library_scan.status(desk)
    go.set()
    desk.wait(30)
    assert "Stopped; what was finished is kept" in library_scan.status(desk)
    desk.start("/m")
    desk.wait(30)
    assert "8 analysed · 1 unchanged · 1 failed" in library_scan.status(desk)
    assert seen == ["/m<b>", "/m"]


@pytest.mark.parametrize("error", [StorageError("no <such> folder", "Name another."), ZeroDivisionError("oops")])
def test_a_scan_that_fails_says_why(error):
    def scan(folder, on_progress, cancel):
        raise error

    desk = ScanDesk(scan)
    desk.start("/m")
    desk.wait(30)
    html = library_scan.status(desk)
    assert ("No &lt;such&gt; folder" in html) if isinstance(error, StorageError) else ("oops" in html)
    assert not desk.running


# --- the desk over a library ---


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with Library(folder / "library.db") as library:
        fill(library, songs_in(folder / "music", 120), [(b"/x/<b>.mp3", "NOT_AUDIO", "it is <i>text</i>")])
        decide(library, 10, "Forró")
        # parts stand for themselves: handlers only use them as keys
        parts = SimpleNamespace(
            **{name: name for name in LibraryDesk.__init__.__globals__["Parts"].__dataclass_fields__}
        )
        workstation = Workstation(folder, library)
        desk = LibraryDesk(workstation, folder / "uploads", ScanDesk(MadeScan(library)), parts)
        yield SimpleNamespace(desk=desk, library=library, folder=folder, workstation=workstation)


def click(desk, shelf, do, value="", **more):
    return desk.act(shelf, SimpleNamespace(do=do, value=value, **more))


def heard(desk, shelf, do, value):
    click(desk, shelf, do, value)
    return desk.play(shelf)["player"]


def test_everything_is_told_on_arrival_and_only_once(shop):
    shelf = Shelf()
    told = shop.desk.arrive(shelf)
    assert {"tiles", "table", "summary", "genres", "histogram", "marks", "similar"} <= set(told)
    assert "<strong>124</strong>" in told["tiles"]
    assert json.loads(shop.desk.redraw(shelf, "pca")["map"])["n"] == 124
    assert shop.desk.play(shelf)["player"] == ""
    assert shop.desk.redraw(shelf, "pca") == gr.skip()
    assert told["genre"]["choices"][1] == ("Blues", "Blues")
    assert shop.desk.tick(shelf) == gr.skip()
    decide(shop.library, 11, "Jazz")
    assert "table" in shop.desk.tick(shelf)
    assert "map" in shop.desk.redraw(shelf, "pca")


def test_news_that_could_not_be_told_are_told_at_the_next_tick(shop, monkeypatch):
    shelf = Shelf()
    shop.desk.arrive(shelf)
    reread = "UPDATE verdicts SET top_genre = 'Metal'"  # no new row anywhere: another reading of what was heard
    shop.library.database.write(lambda db: db.execute(reread))

    def busy(*_args, **_more):
        raise LibraryError("busy")

    for name in ("stats", "page"):
        with monkeypatch.context() as patch:
            patch.setattr(shop.library.catalogue, name, busy)
            assert shop.desk.tick(shelf) == gr.skip()
    told = shop.desk.tick(shelf)
    assert "Metal" in told["table"]
    assert "Metal" in told["genres"]
    assert shop.desk.tick(shelf) == gr.skip()


def test_a_filter_changes_its_own_condition_alone(shop):
    shelf = Shelf()
    told = shop.desk.filter_by("text")(shelf, "nasty")
    assert told["table"].count("<tr data-id") == len(NASTY)
    told = shop.desk.filter_by("high")(shelf, 65)
    assert told["table"].count("<tr data-id") == 1
    assert shelf.what == TrackFilter(text="nasty", max_confidence=0.65)
    assert shop.desk.filter_by("high")(shelf, 65) == gr.skip()
    shop.desk.filter_by("flag")(shelf, "errors")
    shop.desk.filter_by("text")(shelf, "")
    table = shop.desk.act(shelf, SimpleNamespace(do="sort", value="path"))["table"]
    assert "It is &lt;i&gt;text&lt;/i&gt;" in table
    told = click(shop.desk, shelf, "reset")
    assert shelf.what == TrackFilter()
    assert (told["flag"], told["high"]) == ("all", 100)
    assert "text" not in told  # nothing is put into a field that says the same already


def test_numbers_follow_the_filter_and_are_not_counted_twice(shop):
    shelf = Shelf()
    assert "genres" in shop.desk.numbers(shelf)
    assert set(shop.desk.numbers(shelf)) == {"marks"}
    shop.desk.filter_by("genre")(shelf, "Forró")
    told = shop.desk.numbers(shelf)
    assert told["genres"].count("<li>") == 1
    marks = json.loads(re.search(r'data-marks="([^"]*)"', told["marks"])[1].replace("&quot;", '"'))
    assert np.frombuffer(base64.b64decode(marks["shown"]), "<u4").tolist() == [10]


def test_only_songs_of_the_library_can_be_heard_each_under_its_own_address(shop):
    shelf = Shelf()
    sources = set()
    for track_id in (1, 2, 1):
        player = heard(shop.desk, shelf, "play", str(track_id))
        sources.add(re.search(r'src="gradio_api/file=([^"]+)"', player)[1])
    assert len(sources) == 2
    assert all(source.startswith(str(shop.folder / "uploads")) and source.endswith(".ogg") for source in sources)
    assert "cannot be played: no such file" in heard(shop.desk, shelf, "choose", "50")
    assert heard(shop.desk, shelf, "play", "99999") == ""


def test_the_song_that_was_clicked_last_is_the_one_that_plays(shop, monkeypatch):
    """Though the file of the one before comes later."""
    shelf, lend = Shelf(), uploads.lent

    def slow(file, folder):
        monkeypatch.setattr(uploads, "lent", lend)
        click(shop.desk, shelf, "play", "2")
        return lend(file, folder)

    monkeypatch.setattr(uploads, "lent", slow)
    click(shop.desk, shelf, "play", "1")
    assert shop.desk.play(shelf) == gr.skip()
    assert 'data-id="2"' in shop.desk.play(shelf)["player"]


def test_a_song_plays_on_though_its_tags_are_written(shop):
    shelf = Shelf()
    player = heard(shop.desk, shelf, "play", "3")
    path = shop.library.catalogue.track(3).path
    os.utime(path, (1, 1))
    assert shop.desk.play(shelf)["player"] == player
    assert heard(shop.desk, shelf, "play", "3") != player


def test_what_sounds_alike_is_found_for_a_song_and_a_selection(shop):
    shelf = Shelf()
    assert "Select songs first" in shop.desk.alike(shelf)["told"]
    told = click(shop.desk, shelf, "similar", "3")["similar"]
    assert told.count("<li>") == 12
    assert 3 not in [track_id for track_id, _ in shelf.similar]
    click(shop.desk, shelf, "lasso", "", ids=[1, 2, 3])
    assert "3 selected songs" in shop.desk.alike(shelf)["similar"]
    click(shop.desk, shelf, "take")
    assert len(shelf.selected) == 15
    assert click(shop.desk, shelf, "forget")["similar"] == ""


def test_playlist_and_csv_hold_the_selection_or_else_the_list(shop):
    shelf = Shelf()
    shop.desk.filter_by("text")(shelf, "nasty")

    def made(told) -> str:
        assert 'download="' in told["told"]
        path = re.search(r'href="gradio_api/file=([^"]+)"', told["told"])[1]
        return open(path, encoding="utf-8", newline="").read()

    assert made(shop.desk.playlist(shelf)).count("#EXTINF") == len(NASTY)
    assert "'=SUM(1)" in made(shop.desk.csv(shelf))
    shelf.selected = (5, 6)
    assert made(shop.desk.playlist(shelf)).count("#EXTINF") == 2
    shelf = Shelf(what=TrackFilter(flag="duplicates"))
    assert made(shop.desk.csv(shelf)).startswith("\ufeffgroup,file")
    shelf = Shelf(what=TrackFilter(text="no such song"))
    assert "no songs to list" in shop.desk.csv(shelf)["told"]


def test_a_map_that_cannot_be_made_gives_way_with_a_word_why(shop, monkeypatch):
    from acoustic.errors import BackendError

    real = shop.library.neighbours.points

    def points(method="pca"):
        if method == "umap":
            raise BackendError("UMAP is not here", "Install it.")
        return real(method)

    monkeypatch.setattr(shop.library.neighbours, "points", points)
    sent = json.loads(shop.desk.draw(Shelf(), "umap")["map"])
    assert sent["n"] == 124
    assert sent["note"] == "UMAP is not here. Install it."


def test_a_broken_library_is_told_and_not_raised(shop, tmp_path):
    library = Library(tmp_path / "library.db")
    library.close()
    desk = LibraryDesk(Workstation(tmp_path, library), tmp_path, ScanDesk(MadeScan(library)), shop.desk.parts)
    assert "as-problem" in desk.arrive(Shelf())["tiles"]
    assert "closed" in click(desk, Shelf(), "sort", "title")["told"]
    assert "closed" in desk.playlist(Shelf())["told"]


def test_a_page_of_any_kind_is_lent_only_as_sound(tmp_path):
    page = tmp_path / "evil.html"
    page.write_bytes(b"<script>")
    lent = uploads.lent(bytes(page), tmp_path / "up")
    assert lent.suffix == ""
    song = tmp_path / "a.MP3"
    song.write_bytes(b"one")
    first = uploads.lent(bytes(song), tmp_path / "up")
    assert first.suffix == ".mp3"
    assert uploads.lent(bytes(song), tmp_path / "up") == first
    song.write_bytes(b"three")
    assert uploads.lent(bytes(song), tmp_path / "up") != first
    with pytest.raises(OSError, match="regular"):
        uploads.lent(bytes(tmp_path), tmp_path / "up")
    assert not [p for p in (tmp_path / "up").rglob("*") if len(p.stem) != 32 and p.is_file()]


def test_tags_are_shown_first_then_written_and_taken_back(tmp_path):
    with Library(tmp_path / "library.db") as library:
        songs = songs_in(tmp_path / "music", 6)
        fill(library, [dataclasses.replace(song, confidence=0.9) for song in songs])
        decide(library, 2, "Forró <b>")
        heard = [Path(os.fsdecode(song.path)) for song in songs[:3]]
        before = [file.read_bytes() for file in heard]
        desk, planned, shelf = TagDesk(Workstation(tmp_path, library)), Planned(), Shelf()

        shown, write, undo = desk.plan(shelf, planned, "empty", 70, 1)
        assert "<strong>3 files</strong> would be written" in shown
        assert "Forró &lt;b&gt;" in shown
        assert "cannot be read" in shown  # the other songs have no files
        assert Tags(shown).tags <= ALLOWED
        assert (write["value"], write["interactive"], undo["interactive"]) == ("Write 3 files", True, False)
        assert [file.read_bytes() for file in heard] == before

        told, write, undo = desk.write(planned)
        assert "<strong>3 files</strong> written" in told
        assert (write["interactive"], undo["interactive"]) == (False, True)
        assert read_tags(songs[1].path).genres == ("Forró <b>",)
        assert desk.write(planned)[0] == ""  # a plan is written once

        told, _, undo = desk.undo(planned)
        assert "<strong>3 files</strong> put back as they were" in told
        assert not undo["interactive"]
        assert [file.read_bytes() for file in heard] == before
        assert 'role="alert"' in desk.undo(planned)[0]

        shelf.selected = (1,)
        assert "<strong>1 file</strong> would be written" in desk.plan(shelf, planned, "empty", 70, 1)[0]
        assert "not sure enough" in desk.plan(shelf, planned, "empty", 95, 1)[0]
        assert "from 1 to" in desk.plan(shelf, planned, "empty", 70, 99)[0]
        assert planned.policy is None


def test_no_generator_writes_where_the_browser_would_patch(shop, tmp_path):
    import inspect

    page = build(shop.workstation, tmp_path / "up", MadeScan(shop.library))
    assert not any(inspect.isgeneratorfunction(f.fn) for f in page.fns.values())
