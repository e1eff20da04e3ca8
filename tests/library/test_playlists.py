"""Playlists and tables that other programs read safely, whatever a file is called."""

from __future__ import annotations

import base64
import csv
import io
import os
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.kept import SongTags, Track
from acoustic.library.playlists import m3u8, to_csv
from acoustic.library.store import Library
from tests.made_library import Song, fill


def track(path: bytes = b"/music/a.mp3", title: str = "", artist: str = "", **more) -> Track:
    return Track(id=1, path=path, tags=SongTags(title, artist), **more)


def lines(tracks, relative_to=None) -> list[str]:
    text = m3u8(tracks, relative_to)
    assert text.endswith("\n")
    text.encode("utf-8")
    return text.split("\n")[:-1]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_a_playlist_names_seconds_artist_and_title():
    assert lines([track(title="So What", artist="Miles Davis", duration_s=561.6), track(b"/x/\xc3\xbc.ogg")]) == [
        "#EXTM3U",
        "#EXTINF:562,Miles Davis - So What",
        "/music/a.mp3",
        "#EXTINF:0,ü.ogg",
        "/x/ü.ogg",
    ]


def test_paths_can_be_relative_to_where_the_playlist_lies():
    assert lines([track(b"/music/jazz/a.mp3"), track(b"/other/b.mp3")], b"/music/lists")[2::2] == [
        "../jazz/a.mp3",
        "../../other/b.mp3",
    ]


@pytest.mark.parametrize(
    "path", [b"/m/caf\xe9.mp3", b"/m/two\nlines.mp3", b"/m/a\r#EXTINF.mp3", b"/m/ends \n", b"/m/\xff\n%41"]
)
def test_a_path_that_cannot_stand_in_a_line_is_told_as_a_uri_without_loss(path):
    told = lines([track(path)])
    assert len(told) == 3
    assert told[2].startswith("file:///")
    assert unquote_to_bytes(urlsplit(told[2]).path) == path


def test_a_relative_name_that_looks_like_a_directive_is_encoded():
    told = lines([track(b"/m/#EXTM3U")], b"/m")[2]
    assert told == "%23EXTM3U"


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(title=st.text(max_size=20), artist=st.text(max_size=20), name=NAMES)
def test_no_name_breaks_out_of_its_line(title, artist, name):
    path = b"/music/" + name.replace(b"\0", b"0")
    told = lines([track(path, title, artist)])
    assert len(told) == 3
    assert len(m3u8([track(path, title, artist)]).splitlines()) <= 3 + sum(c in "\x85\x1c\x1d\x1e" for c in told[2])
    assert told[1].startswith("#EXTINF:0")
    if told[2].startswith("file:///"):
        assert unquote_to_bytes(urlsplit(told[2]).path) == path
    else:
        assert os.fsencode(told[2]) == path


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_table_begins_as_a_formula(start):
    text = f"{start}HYPERLINK(1)"
    row = rows(to_csv([track(text.encode(), text, text)]))[0]
    assert row["title"] == row["artist"] == row["file"] == "'" + text


def test_a_row_says_what_the_table_says():
    one = track(b"/m/caf\xe9.mp3", "T", "A", decided="Forró", top_genre="Folk", confidence=0.5, needs_review=False)
    row = rows(to_csv([one]))[0]
    assert (row["genre"], row["decided_by_you"], row["model_genre"], row["confidence"]) == (
        "Forró",
        "yes",
        "Folk",
        "0.5",
    )
    assert row["file"] == "/m/caf\ufffd.mp3"
    assert base64.b64decode(row["file_bytes"]) == b"/m/caf\xe9.mp3"
    assert rows(to_csv([track()]))[0]["file_bytes"] == ""


def test_a_library_lists_by_ids_in_their_order_and_tells_its_duplicates(tmp_path):
    with Library(tmp_path / "library.db") as library:
        fill(library, [Song(b"/a", "A", "X"), Song(b"/b", "B", copies=(b"/b2",)), Song(b"/c", "C")])
        assert library.playlists.m3u8([3, 1, 99]).split("\n")[2::2] == ["/c", "/a", ""][:2]
        assert [row["title"] for row in rows(library.playlists.csv([3, 1]))] == ["C", "A"]
        duplicates = rows(library.playlists.duplicates([1, 2, 3]))
        assert [(row["group"], row["file"]) for row in duplicates] == [("1", "/b"), ("1", "/b2")]
