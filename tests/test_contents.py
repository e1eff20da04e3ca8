"""A file is known again by its content, under any name, and read no more than it must be."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acoustic.cache import Cache
from acoustic.contents import Contents
from acoustic.errors import NotAudioError, StorageError
from acoustic.settings import Settings
from acoustic.signal import audio


@pytest.fixture
def song(tmp_path: Path) -> str:
    path = tmp_path / "song.wav"
    path.write_bytes(b"RIFF" + bytes(range(256)) * 2_000)
    return str(path)


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return Contents(Cache(tmp_path / "cache"), Settings(max_file_mb=10))


def test_a_digest_is_remembered_as_long_as_the_file_stays_as_it_is(contents: Contents, song: str) -> None:
    identity, digest = contents.known(song)
    assert identity is not None
    assert digest is None
    digest = contents.digest(song, identity)
    assert digest == audio.digest(song)
    assert contents.known(song) == (identity, digest)
    os.utime(song, (1, 1))
    assert contents.known(song)[1] is None


def test_another_song_of_the_same_size_and_time_in_its_place_is_another(contents: Contents, song: str) -> None:
    """As `cp -p` leaves it, in the same inode."""
    os.utime(song, (1, 1))
    identity, _ = contents.known(song)
    assert identity is not None
    contents.digest(song, identity)
    other = bytes(reversed(Path(song).read_bytes()))
    Path(song).write_bytes(other)
    os.utime(song, (1, 1))
    again, digest = contents.known(song)
    assert again is not None
    assert again[:4] == identity[:4]
    assert digest is None


def test_what_was_changed_while_it_was_read_is_not_remembered(
    contents: Contents, song: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = audio.digest
    identity, _ = contents.known(song)
    assert identity is not None

    def changed_meanwhile(path: str, settings: Settings) -> str:
        found = real(path, settings)
        os.utime(song, (2, 2))
        return found

    with monkeypatch.context() as at:
        at.setattr(audio, "digest", changed_meanwhile)
        with pytest.raises(StorageError, match="was changed while it was read"):
            contents.digest(song, identity)
    assert contents.known(song)[1] is None
    contents.check_unchanged(song, contents.known(song)[0] or ())


def test_the_bound_of_the_settings_holds_for_all_that_is_read(tmp_path: Path) -> None:
    """A sparse file larger than the default bound, with a higher one."""
    large = tmp_path / "large.wav"
    with open(large, "wb") as file:
        file.truncate(int(Settings().max_file_mb * 2**20) + 1)
    higher = Contents(Cache(tmp_path / "cache"), Settings(max_file_mb=4_096.0))
    assert not higher.looks_known(str(large))
    higher.remember_looks(str(large))
    assert higher.looks_known(str(large))


def test_only_what_looks_like_something_known_may_be_a_copy(contents: Contents, song: str, tmp_path: Path) -> None:
    assert not contents.looks_known(song)
    contents.remember_looks(song)
    copy = tmp_path / "copy.mp3"
    copy.write_bytes(Path(song).read_bytes())
    assert contents.looks_known(str(copy))
    copy.write_bytes(Path(song).read_bytes()[:-1] + b"?")
    assert not contents.looks_known(str(copy))


def test_what_is_kept_behind_is_waited_for_where_it_is_asked_for(
    contents: Contents, song: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, kept = threading.Event(), []
    real = audio.digest
    monkeypatch.setattr(audio, "digest", lambda path, _: real(path) if hold.wait(60) else "")
    identity, _ = contents.known(song)
    assert identity is not None
    with ThreadPoolExecutor(1) as executor:
        contents.keep_behind(executor, song, identity, kept.append)
        assert not contents.wait(0.02)
        threading.Timer(0.1, hold.set).start()
        assert contents.known(song) == (identity, real(song))
    assert kept == [real(song)]
    assert contents.wait(0)
    assert contents.looks_known(song)


@pytest.mark.parametrize("lost", [True, False])
def test_what_is_no_longer_there_is_not_kept(contents: Contents, song: str, lost: bool) -> None:
    identity, _ = contents.known(song)
    assert identity is not None
    if lost:
        os.remove(song)
    else:
        os.utime(song, (1, 1))
    kept: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        contents.keep_behind(executor, song, identity, kept.append)
    assert kept == []
    assert contents.wait(0)


def test_nothing_is_kept_without_a_cache_or_of_what_is_too_large(song: str, tmp_path: Path) -> None:
    for nothing in (
        Contents(None, Settings(max_file_mb=10)),
        Contents(Cache(tmp_path / "cache"), Settings(max_file_mb=0.1)),
    ):
        assert nothing.known(song) == (None, None)
    assert not Contents(None, Settings(max_file_mb=10)).looks_known(song)
    with pytest.raises(StorageError):
        Contents(None, Settings(max_file_mb=10)).known(str(tmp_path / "none.wav"))
    with pytest.raises(NotAudioError):
        Contents(None, Settings(max_file_mb=10)).known(str(tmp_path))
