"""Reading the tags of every container, and writing genres and nothing else."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import mutagen
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutagen.apev2 import APEv2
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, TIT2, TRCK
from mutagen.oggvorbis import OggVorbis

from acoustic.errors import TagError
from acoustic.kept import SongTags
from acoustic.library.tags import MAX_CHARS, other_tags, read_tags, write_genres
from acoustic.signal.sound_digest import sound_digest
from tests import makers
from tests.tagged import ALBUM, ARTIST, COVER, TITLE, YEAR, furnish, kinds, song

GENRES = ["Rock", "Forró", "Русский рок", "R&B"]


def told(path: Path) -> str:
    """All that mutagen itself tells of the tags, but for genres."""
    with open(path, "rb") as raw:
        lines = mutagen.File(raw).pprint().split("\n")[1:]
    ours = ("genre=", "TCON=", "\xa9gen=", "WM/Genre=", "ID3v1")
    return "\n".join(sorted(line for line in lines if not line.lower().startswith(tuple(o.lower() for o in ours))))


@pytest.fixture(params=kinds())
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_song_without_tags_says_nothing(kind: str, tmp_path: Path) -> None:
    assert read_tags(song(tmp_path / "song", kind)) == SongTags()


def test_what_other_programs_wrote_is_read(kind: str, tmp_path: Path) -> None:
    path = furnish(song(tmp_path / "song", kind), ["Jazz", "Русский рок"])
    assert read_tags(path) == SongTags(TITLE, ARTIST, ALBUM, YEAR, ("Jazz", "Русский рок"))


@pytest.mark.parametrize("furnished", [False, True])
def test_genres_are_written_and_nothing_else(kind: str, furnished: bool, tmp_path: Path) -> None:
    path = song(tmp_path / "song", kind)
    if furnished:
        furnish(path, ["Jazz"])
    before, others, sound = read_tags(path), other_tags(path), sound_digest(path)
    seen = told(path)
    for genres in (GENRES, ["Polka"], []):
        write_genres(path, genres)
        assert read_tags(path) == SongTags(before.title, before.artist, before.album, before.year, tuple(genres))
        assert other_tags(path) == others
        assert sound_digest(path) == sound
        assert told(path) == seen
    if furnished:
        assert COVER in path.read_bytes() or kind in ("ogg", "opus")


def test_a_change_of_another_tag_is_seen(kind: str, tmp_path: Path) -> None:
    path = furnish(song(tmp_path / "song", kind), ["Jazz"])
    others = other_tags(path)
    data = path.read_bytes()
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        old, new = ALBUM.encode(encoding), ALBUM.replace("ira", "irb").encode(encoding)
        if old in data:
            break
    assert old in data
    if kind in ("ogg", "opus"):  # their pages have sums
        with open(path, "r+b") as raw:
            file = mutagen.File(raw)
            file.tags["album"] = ALBUM.replace("ira", "irb")
            raw.seek(0)
            file.save(raw)
    else:
        path.write_bytes(data.replace(old, new))
    assert other_tags(path) != others


# --- ID3 ---


def with_id3(path: Path, version: int, *frames: object, v1: int = 0) -> Path:
    tags = ID3()
    for frame in frames:
        tags.add(frame)
    tags.save(path, v2_version=version, v1=v1)
    return path


@pytest.mark.parametrize("version", [3, 4])
def test_the_version_of_id3_stays(version: int, tmp_path: Path) -> None:
    path = with_id3(song(tmp_path / "a.mp3", "mp3"), version, TIT2(encoding=1, text=["x"]), TRCK(encoding=0, text="3"))
    write_genres(path, ["Rock", "Forró"])
    tags = ID3(path, translate=False)
    assert tags.version == (2, version, 0)
    assert tags["TCON"].text == (["Rock", "Forró"] if version == 4 else ["Rock; Forró"])
    assert read_tags(path).genres == ("Rock", "Forró")


def test_frames_of_one_version_are_not_turned_into_another_s(tmp_path: Path) -> None:
    path = song(tmp_path / "a.mp3", "mp3")
    year = b"TYER" + struct.pack(">IH", 5, 0) + b"\x001999"
    date = b"TDAT" + struct.pack(">IH", 5, 0) + b"\x002512"
    private = b"XRVA" + struct.pack(">IH", 4, 0) + b"\x01\x02\x03\x04"
    body = year + date + private
    path.write_bytes(b"ID3\x03\0\0" + struct.pack(">I", len(body)) + body + path.read_bytes())
    write_genres(path, ["Rock"])
    assert private in path.read_bytes()
    tags = ID3(path, translate=False)
    assert {name: str(tags[name]) for name in tags} == {"TYER": "1999", "TDAT": "2512", "TCON": "Rock"}
    assert read_tags(path) == SongTags(year="1999", genres=("Rock",))


def test_id3v2_2_becomes_v2_3(tmp_path: Path) -> None:
    path = song(tmp_path / "a.mp3", "mp3")
    title = b"TT2\0\0\x05\0Home"
    picture = b"PIC" + (6 + 1 + 5).to_bytes(3, "big") + b"\0PNG\x03\0" + b"image\0"
    body = title + picture + b"TCO\0\0\x05\0(17)"
    path.write_bytes(b"ID3\x02\0\0" + struct.pack(">I", len(body)) + body + path.read_bytes())
    assert read_tags(path) == SongTags(title="Home", genres=("Rock",))
    others = other_tags(path)
    write_genres(path, ["Folk"])
    assert ID3(path).version == (2, 3, 0)
    assert other_tags(path) == others
    assert read_tags(path) == SongTags(title="Home", genres=("Folk",))


def id3v1(title: str, genre: int) -> bytes:
    return b"TAG" + title.encode("latin-1").ljust(30, b"\0") + bytes(94) + bytes([genre])


def test_id3v1_is_read_kept_and_carried_over(tmp_path: Path) -> None:
    path = song(tmp_path / "a.mp3", "mp3")
    old = id3v1("Old song", 8)
    with open(path, "ab") as file:
        file.write(old)
    sound = sound_digest(path)
    assert read_tags(path) == SongTags(title="Old song", genres=("Jazz",))
    write_genres(path, ["Swing"])
    assert path.read_bytes().endswith(old)
    assert read_tags(path) == SongTags(title="Old song", genres=("Swing",))
    assert str(ID3(path, load_v1=False)["TIT2"]) == "Old song"
    assert sound_digest(path) == sound


def test_id3v1_beside_id3v2_stays_as_it_is(tmp_path: Path) -> None:
    path = with_id3(song(tmp_path / "a.mp3", "mp3"), 4, TIT2(encoding=3, text=["New"]))
    with open(path, "ab") as file:
        file.write(id3v1("Old", 255))
    write_genres(path, ["Rock"])
    assert path.read_bytes().endswith(id3v1("Old", 255))
    assert "TCON" in ID3(path, load_v1=False)
    assert read_tags(path).title == "New"


@pytest.mark.parametrize(
    ("text", "genres"),
    [
        (["(17)"], ("Rock",)),
        (["17"], ("Rock",)),
        (["(4)Eurodisco"], ("Disco", "Eurodisco")),
        (["(31)(39)"], ("Trance", "Noise")),
        (["Rock", "rock", "Rock", " "], ("Rock", "rock")),
        (["Rock; Pop;"], ("Rock", "Pop")),
        (["Hip Hop/Rap"], ("Hip Hop/Rap",)),
        (["((live)"], ("(live)",)),
    ],
)
def test_the_forms_of_genres_in_id3v2_3(text: list[str], genres: tuple[str, ...], tmp_path: Path) -> None:
    path = song(tmp_path / "a.mp3", "mp3")
    tags = ID3()
    tags.add(TCON(encoding=0, text=text))
    tags.save(path, v2_version=3, v23_sep=None)
    assert read_tags(path).genres == genres
    write_genres(path, genres)
    assert read_tags(path).genres == genres


def test_a_semicolon_has_no_place_in_id3v2_3(tmp_path: Path) -> None:
    path = with_id3(song(tmp_path / "a.mp3", "mp3"), 3, TIT2(encoding=0, text=["x"]))
    before = path.read_bytes()
    with pytest.raises(TagError, match=r"a\.mp3.*';'"):
        write_genres(path, ["Rock; Pop"])
    assert path.read_bytes() == before


# --- other containers ---


def test_a_wav_s_info_chunk_is_read_and_kept(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", "wav")
    said = ((b"INAM", b"Caf\xe9\0"), (b"IART", "Ángel\0".encode()), (b"ICRD", b"2001-05-01"), (b"IGNR", b"Rumba"))
    info = b"INFO" + b"".join(
        name + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2) for name, text in said
    )
    data = path.read_bytes() + b"LIST" + struct.pack("<I", len(info)) + info
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert read_tags(path) == SongTags("Café", "Ángel", "", "2001", ("Rumba",))
    sound = sound_digest(path)
    write_genres(path, ["Salsa"])
    assert info in path.read_bytes()
    assert read_tags(path).genres == ("Salsa",)
    assert sound_digest(path) == sound


def test_a_wav_with_an_id3_chunk_of_the_old_kind_is_read_only(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", "wav")
    write_genres(path, ["Salsa"])
    path.write_bytes(path.read_bytes().replace(b"id3 ", b"ID3 "))
    assert read_tags(path).genres == ("Salsa",)
    with pytest.raises(TagError, match="old kind"):
        write_genres(path, ["Rumba"])


@pytest.mark.skipif("m4a" not in kinds(), reason="no AAC encoder")
def test_a_numbered_genre_of_m4a_becomes_a_name(tmp_path: Path) -> None:
    path = furnish(song(tmp_path / "a.m4a", "m4a"), ["Rock"])
    gen = struct.pack(">I", 28) + b"\xa9gen" + struct.pack(">I", 20) + b"data" + struct.pack(">II", 1, 0) + b"Rock"
    data = path.read_bytes()
    assert gen in data
    short = struct.pack(">I", 26) + b"gnre" + struct.pack(">I", 18) + b"data" + struct.pack(">II", 0, 0) + b"\0\x12"
    at = data.index(b"ilst") - 4
    (size,) = struct.unpack(">I", data[at : at + 4])
    body = data[at + 8 : at + size].replace(gen, short)
    free = data.index(b"free", at) - 4  # the two bytes go to the padding
    (padding,) = struct.unpack(">I", data[free : free + 4])
    assert free == at + size
    new = struct.pack(">I", size - 2) + b"ilst" + body + struct.pack(">I", padding + 2) + b"free\0\0"
    path.write_bytes(data[:at] + new + data[free + 8 :])
    assert read_tags(path).genres == ("Rock",)
    write_genres(path, ["Polka"])
    assert read_tags(path).genres == ("Polka",)
    assert b"gnre" not in path.read_bytes()


def test_comments_keep_their_order_and_their_spelling(tmp_path: Path) -> None:
    path = song(tmp_path / "a.flac", "flac")
    file = FLAC(path)
    file.add_tags() if file.tags is None else None
    file.tags[:] = [("Title", "a"), ("gEnRe", "Rock"), ("MOOD", "calm"), ("genre", "Pop"), ("title", "b")]
    file.save()
    write_genres(path, ["Polka", "Ska"])
    found = list(FLAC(path).tags)
    assert found == [("Title", "a"), ("gEnRe", "Polka"), ("gEnRe", "Ska"), ("MOOD", "calm"), ("title", "b")]


def test_an_id3_tag_before_flac_is_kept(tmp_path: Path) -> None:
    path = song(tmp_path / "a.flac", "flac")
    tags = ID3()
    tags.add(TIT2(encoding=3, text=["before"]))
    tags.save(tmp_path / "tag")
    tag = (tmp_path / "tag").read_bytes()
    path.write_bytes(tag + path.read_bytes())
    write_genres(path, ["Polka"])
    assert path.read_bytes().startswith(tag)
    assert read_tags(path).genres == ("Polka",)


def test_comments_that_are_not_utf8_are_not_damaged(tmp_path: Path) -> None:
    path = song(tmp_path / "a.ogg", "ogg")
    file = OggVorbis(path)
    file["artist"] = "Bj?rk"
    file.save()
    page = mutagen.ogg.OggPage
    with open(path, "r+b") as raw:  # page by page, so that its sum is right again
        while b"Bj?rk" not in (found := page(raw)).packets[0]:
            pass
        found.packets = [packet.replace(b"Bj?rk", b"Bj\xf6rk") for packet in found.packets]
        raw.seek(found.offset)
        raw.write(found.write())
    before = path.read_bytes()
    assert read_tags(path).artist == "Bj\ufffdrk"
    with pytest.raises(TagError, match="UTF-8"):
        write_genres(path, ["Polka"])
    assert path.read_bytes() == before


def test_flac_in_ogg(tmp_path: Path) -> None:
    path = makers.write_av(tmp_path / "a.oga", makers.music(1.2), container="ogg", codec="flac")
    furnish(path)
    sound = sound_digest(path)
    write_genres(path, ["Polka"])
    assert read_tags(path) == SongTags(TITLE, ARTIST, ALBUM, YEAR, ("Polka",))
    assert sound_digest(path) == sound


def test_ape_tags_are_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wv"
    path.write_bytes(b"wvpk" + bytes(100))
    assert read_tags(path) == SongTags()
    tags = APEv2()
    tags.update({"Title": TITLE, "Artist": ["a", "b"], "Year": "1997", "Genre": ["Rock", "Pop"]})
    tags.save(path)
    assert read_tags(path) == SongTags(TITLE, "a, b", "", "1997", ("Rock", "Pop"))
    with pytest.raises(TagError, match="no tags are written"):
        write_genres(path, ["Polka"])


# --- files that are none, and what may be in tags ---


def test_what_has_no_tags_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "text.flac").write_text("not a song\n" * 100)
    (tmp_path / "zero.mp3").write_bytes(bytes(5_000))
    (tmp_path / "cut.flac").write_bytes(b"fLaC")
    (tmp_path / "cut.ogg").write_bytes(b"OggS\0\x02" + bytes(30))
    (tmp_path / "folder.mp3").mkdir()
    os.mkfifo(tmp_path / "pipe.mp3")
    for path in [*tmp_path.iterdir(), tmp_path / "missing.mp3"]:
        with pytest.raises(TagError, match=path.name):
            read_tags(path)
        with pytest.raises((TagError, OSError)):
            write_genres(path, ["Rock"])


@pytest.mark.parametrize("other", ["au", "webm", "aac"])
def test_containers_whose_tags_are_not_written(other: str, tmp_path: Path) -> None:
    path = song(tmp_path / "song", other)
    before = path.read_bytes()
    with pytest.raises(TagError, match="song"):
        write_genres(path, ["Rock"])
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("furnished")
    return folder, [furnish(song(folder / kind, kind), ["Rock"]).read_bytes() for kind in kinds()]


@given(st.data())
def test_damaged_files_are_told_apart_or_read(furnished: tuple[Path, list[bytes]], data: st.DataObject) -> None:
    folder, songs = furnished
    content = bytearray(data.draw(st.sampled_from(songs)))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, min(len(content), 12_000) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = folder / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tags = read_tags(path)
    except TagError:
        pass
    else:
        assert all(len(text) <= MAX_CHARS for text in (tags.title, tags.artist, tags.album, *tags.genres))
        (tags.title + tags.artist + tags.album + "".join(tags.genres)).encode("utf-8")


def test_long_and_many_lined_tags_are_one_short_line(tmp_path: Path) -> None:
    path = song(tmp_path / "a.flac", "flac")
    file = FLAC(path)
    file["title"] = "two\r\nlines\0and\tmore" + "x" * 100_000
    file["genre"] = ["", "  ", " Rock\n", "Rock"]
    file.save()
    tags = read_tags(path)
    assert tags.title.startswith("two lines and more")
    assert len(tags.title) == MAX_CHARS
    assert tags.genres == ("Rock",)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp3"
    os.replace(song(tmp_path / "a", "mp3"), path)
    write_genres(path, ["Rock"])
    assert read_tags(path).genres == ("Rock",)
    assert read_tags(os.fsdecode(path)).genres == ("Rock",)
