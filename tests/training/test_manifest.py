from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import ManifestError
from acoustic.network.vit import Architecture
from acoustic.training.background import choose
from acoustic.training.config import Source, TrainConfig
from acoustic.training.manifest import Row, read_rows, split

LABELS = ("Blues", "Jazz")


def config(**source: object) -> TrainConfig:
    chosen = Source("songs", **{"manifest": "songs.csv", "group": ("artist",), **source})  # type: ignore[arg-type]
    return TrainConfig("t", "a test", LABELS, (chosen,), Architecture())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "same.wav").write_bytes(b"a.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "link.wav").symlink_to("a.wav")
    (tmp_path / "songs.csv").write_text("file,genre,artist\na.wav,Blues,Ann\nb.wav,,Bob\nc.wav,Jazz,Bob\n")
    return tmp_path


def test_rows_are_read_with_their_group(data: Path) -> None:
    rows = read_rows(config(), data)
    assert [(r.file, r.genre, r.group) for r in rows] == [
        ("a.wav", "Blues", "songs:Ann"),
        ("b.wav", "", "songs:Bob"),
        ("c.wav", "Jazz", "songs:Bob"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,genre,artist\nd.wav,Blues,Ann\n", r"line 2: no file 'd.wav'"),
        ("file,genre,artist\na.wav,Blues,Ann\nempty.wav,Jazz,Bob\n", r"line 3: 'empty.wav' is empty"),
        ("file,genre,artist\na.wav,Blues,Ann\nb.wav,Polka,Bob\n", r"line 3: unknown genre 'Polka'"),
        ("file,genre,artist\n\na.wav,Blues,Ann\n\nb.wav,Polka,Bob\n", r"line 5: unknown genre 'Polka'"),
        ('file,genre,artist\na.wav,Blues,"Ann\nLee"\nb.wav,Polka,Bob\n', r"line 4: unknown genre 'Polka'"),
        ("file,genre,artist\na.wav,Blues,\n", r"line 2: no value in column 'artist'"),
        ("file,genre\na.wav,Blues\n", r"line 1: no column 'artist'; there are 'file', 'genre'"),
        ("file;genre;artist\na.wav;Blues;Ann\n", r"line 1: no column 'file'; there are 'file;genre;artist'"),
        ("", r"songs\.csv: is empty"),
        ('\nfile,genre,artist\na.wav,Blues,Ann\n\n\nc.wav,Jazz,"Bob\n', r"line 6: the row that begins here"),
        ('file,genre,artist\na.wav,Blues,Ann,"more\nyet"\nb.wav,Polka,Bob,"\n\n"\n', r"line 4: unknown genre 'Polka'"),
        ("file,genre,artist\na.wav,Blues,Ann\n,,,x\n", r"line 3: no value in column 'file'"),
        ("file,genre,genre,artist\na.wav,Blues,Jazz,Ann\n", r"line 1: the column 'genre' is there twice"),
        ('file,genre,artist\na.wav,Blues,Ann\nc.wav,Jazz,"Bob\nb.wav,,Bob\n', r"line 3: the row that begins here"),
        ('file,genre,artist\n"a.wav"x,Blues,Ann\n', r"line 2: the row that begins here"),
        ('file,genre,artist\na.wav,Blues,Ann\nb.wav,Polka,"Bob\nLee"\n', r"line 3: unknown genre 'Polka'"),
        ("file,genre,artist\na.wav,Blues,  \n", r"line 2: no value in column 'artist'"),
        (
            "file,genre,artist\na.wav,Blues,Ann\n./a.wav,Blues,Ann\n",
            r"line 3: './a.wav' is given already, as 'a.wav': .*line 2",
        ),
        ("file,genre,artist\na.wav,Blues,Ann\nlink.wav,Blues,Ann\n", r"line 3: 'link.wav' is given already"),
        ("file,genre,artist\na.wav,Blues,Ann\na.wav,Jazz,Ann\n", r"line 3: 'a.wav' is given already: .*line 2"),
        ("file,genre,artist\na.wav,Blues,Ann\nc.wav,,Bob\n", r"no file has the genre 'Jazz'"),
        (
            "file,genre,artist\nc.wav,Jazz,Ann\na.wav,Blues,Ann\nsame.wav,Blues,Bob\n",
            r"line 4: 'same.wav' in the group 'songs:Bob' is the same recording as 'a.wav' in 'songs:Ann': .*line 3",
        ),
        (
            "file,genre,artist\nc.wav,Jazz,Ann\na.wav,Blues,Ann\nsame.wav,Jazz,Ann\n",
            r"line 4: 'same.wav' is 'Jazz', and the same recording as 'a.wav', which is 'Blues': .*line 3",
        ),
        (f"file,genre,artist\n{'x' * 300}.wav,Blues,Ann\n", r"line 2: no file 'xxx"),
        ("file,genre,artist\n", r"source 'songs' has no files: .*songs\.csv"),
    ],
)
def test_a_broken_manifest_is_refused_with_its_row(data: Path, text: str, complaint: str) -> None:
    (data / "songs.csv").write_text(text)
    with pytest.raises(ManifestError, match=complaint) as caught:
        read_rows(config(), data)
    assert caught.value.hint


def test_blanks_around_cells_do_not_count(data: Path) -> None:
    (data / "songs.csv").write_text("file, genre ,artist\na.wav, Blues ,Ann \nb.wav,,Ann\nc.wav,Jazz,Bob\n  \n , ,\n")
    assert [(r.genre, r.group) for r in read_rows(config(), data)] == [
        ("Blues", "songs:Ann"),
        ("", "songs:Ann"),
        ("Jazz", "songs:Bob"),
    ]


def test_another_encoding_is_said(data: Path) -> None:
    (data / "songs.csv").write_bytes("file,genre,artist\na.wav,Blues,Andr\xe9\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"songs\.csv: not a CSV file in UTF-8") as caught:
        read_rows(config(), data)
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize("name", ["nowhere", "x" * 300])
def test_a_folder_that_is_not_there_is_told_with_its_source(data: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=rf"source 'songs': no folder .*{name}"):
        read_rows(config(manifest="", folder=name), data)


def test_one_recording_twice_in_one_group_leaks_nothing(data: Path) -> None:
    (data / "songs.csv").write_text("file,genre,artist\na.wav,Blues,Ann\nsame.wav,Blues,Ann\nc.wav,Jazz,Bob\n")
    assert len(read_rows(config(), data)) == 3


def test_a_group_in_two_sources_is_refused_with_both_rows(data: Path) -> None:
    (data / "more.csv").write_text("file,artist\nb.wav,Cid\nsame.wav,Ann\n")
    both = dataclasses.replace(config(), sources=(*config().sources, Source("more", "more.csv", group=("artist",))))
    (data / "songs.csv").write_text("file,genre,artist\nc.wav,Jazz,Bob\na.wav,Blues,Ann\n")
    with pytest.raises(ManifestError, match=r"more\.csv, line 3: the group 'Ann' .* 'songs' too: .*songs\.csv, line 3"):
        read_rows(both, data)


def test_a_recording_in_two_sources_is_refused_with_both_rows(data: Path) -> None:
    (data / "noise").mkdir()
    (data / "noise" / "rain.wav").write_bytes(b"c.wav")
    both = dataclasses.replace(config(), sources=(*config().sources, Source("noise", folder="noise", kind="noise")))
    with pytest.raises(ManifestError, match=r"folder noise: 'noise/rain\.wav' .* same recording as 'c\.wav'.*line 4"):
        read_rows(both, data)


def test_a_folder_may_lie_elsewhere(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("noise")
    (elsewhere / "rain.wav").write_bytes(b"rain")
    noise = Source("noise", folder=str(elsewhere), kind="noise")
    rows = read_rows(dataclasses.replace(config(), sources=(*config().sources, noise)), data)
    assert data / rows[-1].file == elsewhere / "rain.wav"


def test_a_group_is_found_in_the_name(data: Path) -> None:
    """Slices of one recording are one group, of a folder and of a manifest alike."""
    (data / "noise").mkdir()
    for name in ("1-100032-A", "1-100032-B", "2-7-A"):
        (data / "noise" / f"Dog__{name}.wav").write_bytes(name.encode())
    rows = ["noise/Dog__1-100032-A.wav,Blues", "noise/Dog__1-100032-B.wav,Jazz", "noise/Dog__2-7-A.wav,Jazz"]
    (data / "noise.csv").write_text("\n".join(["file,genre", *rows]) + "\n")
    pattern = r"__\d-(\d+)-[A-Z]\."
    expected = ["songs:100032", "songs:100032", "songs:7"]
    manifest = config(manifest="noise.csv", group=("file",), group_pattern=pattern)
    assert [row.group for row in read_rows(manifest, data)] == expected
    folder = Source("noise", folder="noise", kind="noise", group_pattern=pattern)
    both = dataclasses.replace(config(), sources=(*config().sources, folder))
    assert [row.group for row in read_rows(both, data)][3:] == [g.replace("songs", "noise") for g in expected]
    for wrong in (r"([a-z]+)-nothing", r"(x?)Dog"):
        with pytest.raises(ManifestError, match=r"line 2: group_pattern .* finds nothing in 'noise/Dog__1-100032-A"):
            read_rows(dataclasses.replace(config(manifest="noise.csv", group=("file",), group_pattern=wrong)), data)


def test_what_is_not_music_has_no_genre(data: Path) -> None:
    (data / "talk.csv").write_text("file,genre\nb.wav,Blues\n")
    (data / "songs.csv").write_text("file,genre,artist\nc.wav,Jazz,Bob\na.wav,Blues,Ann\n")
    talk = Source("talk", "talk.csv", kind="speech")
    rows = read_rows(dataclasses.replace(config(), sources=(*config().sources, talk)), data)
    assert [(row.file, row.genre) for row in rows] == [("c.wav", "Jazz"), ("a.wav", "Blues"), ("b.wav", "")]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf_8_is_split_and_chosen_like_any_other(data: Path) -> None:
    (data / "noise").mkdir()
    with open(os.path.join(os.fsencode(data), b"noise", b"caf\xe9.wav"), "wb") as file:
        file.write(b"rain")
    both = dataclasses.replace(config(), sources=(*config().sources, Source("noise", folder="noise", kind="noise")))
    rows = read_rows(both, data)
    assert os.fsencode(rows[-1].file) == b"noise/caf\xe9.wav"
    assert len(split(rows, both)) == len(rows)
    assert choose([dataclasses.replace(rows[-1], kind="music", genre="Blues")], LABELS)


def test_a_missing_manifest_is_named(data: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.csv"):
        read_rows(config(manifest="none.csv"), data)


@given(
    st.lists(st.tuples(st.sampled_from(["", *LABELS]), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(0, 100),
    st.floats(0.0, 0.9),
)
def test_no_group_crosses_the_split_and_each_side_has_what_it_needs(
    files: list[tuple[str, int]], seed: int, share: float
) -> None:
    rows = [Row(f"{i}", "songs", "music", genre, f"songs:{artist}") for i, (genre, artist) in enumerate(files)]
    held = split(rows, dataclasses.replace(config(), seed=seed, held_out=share))
    sides = {(row.group, kept) for row, kept in zip(rows, held, strict=True)}
    assert len(sides) == len({row.group for row in rows})
    groups = {genre: {row.group for row in rows if row.genre == genre} for genre in {r.genre for r in rows} - {""}}
    trained = {row.group for row, kept in zip(rows, held, strict=True) if not kept}
    assert all(having & trained for having in groups.values())
    disjoint = sum(map(len, groups.values())) == len(set().union(*groups.values()))
    if disjoint and sum(len(having) - 1 for having in groups.values()) >= 2:
        assert len(set().union(*groups.values()) - trained) >= 2


def test_the_split_has_about_its_share_and_changes_with_the_seed() -> None:
    rows = [Row(f"{i}", "songs", "music", "", f"songs:{i}") for i in range(4000)]
    chosen = [split(rows, dataclasses.replace(config(), seed=seed, held_out=0.2)) for seed in (0, 1)]
    assert all(0.17 < sum(side) / len(side) < 0.23 for side in chosen)
    assert chosen[0] != chosen[1]
    more = [*rows, *(Row(f"{i}", "songs", "music", "", f"songs:{i}") for i in range(4000, 4100))]
    assert split(more, dataclasses.replace(config(), seed=0, held_out=0.2))[:4000] == chosen[0]  # it moves nobody
