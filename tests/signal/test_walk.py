from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from acoustic.kept import FoundFile
from acoustic.signal.files import find_audio, found_audio, walk_audio


def names(root: Path) -> list[str]:
    return sorted(
        os.fsdecode(os.path.relpath(found.path, os.fsencode(root))) for found in walk_audio(os.fsencode(root))
    )


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_walk_finds_what_find_audio_finds(tmp_path: Path) -> None:
    for name in ("a.mp3", "deep/er/b.FLAC", "deep/c.txt", "deep/.hidden.mp3", "._d.mp3", "e", "ü\n🎵.ogg"):
        touch(tmp_path / name)
    (tmp_path / "folder.mp3").mkdir()
    touch(tmp_path / "folder.mp3" / "in.wav")
    assert names(tmp_path) == sorted(str(p.relative_to(tmp_path)) for p in find_audio(tmp_path))
    assert names(tmp_path) == ["a.mp3", "deep/er/b.FLAC", "folder.mp3/in.wav", "ü\n🎵.ogg"]


def test_a_file_comes_with_size_time_and_the_bytes_of_its_name(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.mp3"
    with open(path, "wb") as file:
        file.write(b"12345")
    os.utime(path, ns=(7, 123_456_789))
    assert list(walk_audio(os.fsencode(tmp_path))) == [FoundFile(path, 5, 123_456_789)]
    assert found_audio(path) == FoundFile(path, 5, 123_456_789)
    assert found_audio(path + b"x") is None
    assert found_audio(os.fsencode(tmp_path)) is None


def test_links_in_circles_and_twice_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "z" / "a.mp3")
    outside = touch(tmp_path / "outside" / "b.mp3").parent
    (tmp_path / "in" / "z" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "0").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "1").symlink_to(outside)
    (tmp_path / "in" / "2").symlink_to(outside)
    (tmp_path / "in" / "none").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "none.mp3").symlink_to(tmp_path / "nowhere.mp3")
    assert names(tmp_path / "in") == ["1/b.mp3", "z/a.mp3"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_fifos_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")
    touch(tmp_path / "a.mp3")
    assert names(tmp_path) == ["a.mp3"]


def test_folders_that_cannot_be_listed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "locked" / "a.mp3")
    touch(tmp_path / "b.mp3")
    scandir = os.scandir

    def guarded(path: bytes) -> object:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    told: list[bytes] = []
    found = [os.path.basename(one.path) for one in walk_audio(os.fsencode(tmp_path), told.append)]
    assert (found, told) == ([b"b.mp3"], [os.fsencode(tmp_path / "locked")])


def test_one_entry_that_cannot_be_looked_at_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        touch(tmp_path / f"{i}.mp3")
    touch(tmp_path / "deep" / "x.mp3")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "loop.mp3").symlink_to(tmp_path / "loop.mp3")
    (tmp_path / "dangling.mp3").symlink_to(tmp_path / "nowhere")
    assert len(names(tmp_path)) == 13
    told: list[bytes] = []
    scandir = os.scandir

    class Guarded:
        """An entry that may not be looked at: a link into a folder that is somebody else's."""

        def __init__(self, entry: os.DirEntry[bytes]) -> None:
            self.name, self.path = entry.name, entry.path

        def is_dir(self) -> bool:
            raise PermissionError(13, "Permission denied")

    class Listing:
        def __init__(self, path: bytes) -> None:
            self._listing = scandir(path)

        def __enter__(self) -> object:
            return (Guarded(one) if one.name == b"3.mp3" else one for one in self._listing)

        def __exit__(self, *_: object) -> None:
            self._listing.close()

    monkeypatch.setattr(os, "scandir", Listing)
    found = {os.path.basename(one.path) for one in walk_audio(os.fsencode(tmp_path), told.append)}
    assert len(found) == 12
    assert b"3.mp3" not in found
    assert told == [os.fsencode(tmp_path)]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        folder = tmp_path / str(n)
        folder.mkdir()
        for i in range(n):
            (folder / f"{'a long name ' * 8}{i}.mp3").touch()
        tracemalloc.start()
        assert sum(1 for _ in walk_audio(os.fsencode(folder))) == n
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # 3,800 more names would be half a megabyte; other threads of the process may allocate some kilobytes meanwhile
    assert peak(4_000) < peak(200) + 150_000
