"""Tags as the page and the command line write them: the library's songs, audio checked in other processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from acoustic.kept import TrackFilter
from acoustic.library.store import Library
from acoustic.library.tagging import Policy
from acoustic.library.tags import read_tags
from acoustic.records import CacheEntry
from acoustic.workstation import tagging
from tests.tagged import keep, left_beside, song


def deadly(path: str, context: Mapping[str, Any]) -> CacheEntry:
    """A decoder that dies of one file."""
    if "poison" in os.listdir(os.path.dirname(path)):
        os._exit(139)
    return CacheEntry({}, {"digest": "the same"})


def test_plan_write_and_undo_of_some_songs(tmp_path: Path) -> None:
    a, b = song(tmp_path / "a.mp3", "mp3"), song(tmp_path / "b.ogg", "ogg", 1)
    old = a.read_bytes(), b.read_bytes()
    with Library(tmp_path / "library.db") as library:
        ids = [keep(library.database, [path], {"Rock": 0.9}) for path in (a, b)]
        assert [c.path for c in tagging.plan_tags(library, Policy(), TrackFilter(ids=(ids[1],)))] == [bytes(b)]
        assert tagging.plan_tags(library, Policy(), TrackFilter(genre="Jazz")) == []
        seen: list[tuple[int, int]] = []
        changes = tagging.plan_tags(library, Policy(), on_progress=lambda n, of: seen.append((n, of)))
        assert seen == [(2, 2)]
        done = tagging.write_tags(library, changes, Policy())
        assert not done.failures
        assert [read_tags(path).genres for path in (a, b)] == [("Rock",)] * 2
        assert not tagging.undo_tags(library, done.batch_id).failures
    assert (a.read_bytes(), b.read_bytes()) == old


def test_a_file_that_kills_its_decoder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "poison").touch()
    bad, good = song(tmp_path / "bad" / "a.mp3", "mp3"), song(tmp_path / "b.mp3", "mp3", 1)
    monkeypatch.setattr(tagging, "DIGEST", {"digest": "tests.test_workstation_tagging:deadly"})
    with Library(tmp_path / "library.db") as library:
        for path in (bad, good):
            keep(library.database, [path], {"Rock": 0.9})
        done = tagging.write_tags(library, tagging.plan_tags(library, Policy()), Policy())
    [failed] = done.failures
    assert failed.path == bytes(bad)
    assert failed.error is not None
    assert "a.mp3 was tried twice" in failed.error.message
    assert read_tags(bad).genres == ()
    assert read_tags(good).genres == ("Rock",)
    assert left_beside(tmp_path / "bad") == []
