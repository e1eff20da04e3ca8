"""Nearest neighbours are those that a look at every pair finds; the map is stable; what is added is seen."""

from __future__ import annotations

import builtins
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import BackendError
from acoustic.library import neighbours as module
from acoustic.library.neighbours import Neighbours
from acoustic.library.store import Library
from tests.made_library import LABELS, fill, made_songs


class Rows:
    """A catalogue's face over an array: track i + 1 is row i."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float16)
        self.asked: list[int] = []

    def last_analysis(self) -> int:
        return len(self.rows)

    def newest_model(self) -> int | None:
        return 1 if len(self.rows) else None

    def embeddings(self, model_id, after: int = 0):
        self.asked.append(after)
        return np.arange(after + 1, len(self.rows) + 1), self.rows[after:]


def by_hand(rows: np.ndarray, own: list[int], k: int) -> list[int]:
    unit = rows.astype(np.float16).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit = unit.astype(np.float16).astype(np.float32)
    cosines = unit @ unit[[i - 1 for i in own]].mean(axis=0)
    order = [int(i) + 1 for i in np.argsort(-cosines, kind="stable")]
    return [i for i in order if i not in own][:k]


@given(seed=st.integers(0, 1000), width=st.sampled_from([3, 70, 120]), decay=st.sampled_from([0.0, 0.1]))
def test_the_answer_is_that_of_looking_at_all(seed, width, decay):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((150, width)) * np.exp(-decay * np.arange(width))
    near = Neighbours(Rows(rows))
    for own in ([7], [1, 2, 150]):
        found = near.nearest(own, 10)
        assert [track for track, _ in found] == by_hand(rows, own, 10)
        cosines = [cosine for _, cosine in found]
        assert cosines == sorted(cosines, reverse=True)
        assert -1.0 <= cosines[-1] <= cosines[0] <= 1.0


def test_length_does_not_matter_and_nothing_breaks_it():
    rows = np.random.default_rng(0).standard_normal((20, 8))
    rows[3] = 5 * rows[0]
    rows[4] = 0.0
    rows[5] = np.nan
    near = Neighbours(Rows(rows))
    track, cosine = near.nearest([1], 1)[0]
    assert track == 4
    assert cosine == pytest.approx(1.0, abs=2e-3)  # float16
    assert len(near.nearest([1], 100)) == 19
    assert len(near.nearest([5], 3)) == 3
    assert near.nearest([99], 3) == []
    assert near.nearest([], 3) == []
    assert near.nearest([1], 0) == []
    assert np.isfinite(near.points().places).all()


def test_what_was_added_is_read_and_nothing_twice():
    rows = np.random.default_rng(1).standard_normal((30, 8))
    source = Rows(rows[:20])
    near = Neighbours(source)
    near.nearest([1])
    source.rows = rows.astype(np.float16)
    assert {track for track, _ in near.nearest([1], 100)} == set(range(2, 31))
    near.nearest([2])
    assert source.asked == [0, 20]
    assert near.nearest([1], 5) == Neighbours(Rows(rows)).nearest([1], 5)


def test_an_empty_library_has_no_neighbours_and_an_empty_map():
    near = Neighbours(Rows(np.zeros((0, 8))))
    assert near.nearest([1]) == []
    assert near.points().places.shape == (0, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 60])
def test_the_map_has_a_place_for_every_track_within_its_frame(n):
    rows = np.random.default_rng(2).standard_normal((n, 40))
    points = Neighbours(Rows(rows)).points()
    assert points.ids.tolist() == list(range(1, n + 1))
    assert points.places.shape == (n, 2)
    assert np.abs(points.places).max() <= 1.0
    if n == 60:
        assert np.ptp(points.places, axis=0).max() == pytest.approx(2.0)


def test_the_map_is_the_two_directions_of_greatest_variance():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((400, 12)) * np.array([8, 4, *[0.1] * 10]) + 3.0
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    expected = (unit - unit.mean(0)) @ axes[:2].T
    places = Neighbours(Rows(rows)).points().places
    for axis in (0, 1):
        assert abs(np.corrcoef(places[:, axis], expected[:, axis])[0, 1]) > 0.999


def test_without_umap_its_map_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *more, **how):
        if name == "umap":
            raise ImportError(name)
        return real(name, *more, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendError, match="UMAP") as caught:
        Neighbours(Rows(np.ones((9, 4)))).points("umap")
    assert "umap-learn" in caught.value.hint


def test_two_pages_that_want_the_map_at_once_get_it_from_one_run(monkeypatch):
    runs, both = [], threading.Barrier(2)

    def slow(all_):
        runs.append(1)
        time.sleep(0.2)
        return np.zeros((len(all_.ids), 2), np.float32)

    monkeypatch.setattr(module, "_umap", slow)
    near = Neighbours(Rows(np.ones((9, 4))))

    def ask(_):
        both.wait(10)
        return near.points("umap")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first is second
    assert len(runs) == 1


@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 120])
def test_umap_where_it_is_installed_keeps_what_sounds_alike_together(n, recwarn):
    pytest.importorskip("umap")
    rng = np.random.default_rng(5)
    group = np.arange(n) % 4
    rows = rng.normal(0, 1, (4, 40))[group] + rng.normal(0, 0.2, (n, 40))
    points = Neighbours(Rows(rows)).points("umap")
    assert points.places.shape == (n, 2)
    assert np.abs(points.places).max() <= 1.0
    assert not [one for one in recwarn if "n_jobs" in str(one.message)]
    if n == 120:
        apart = np.linalg.norm(points.places[:, None] - points.places, axis=2) + 9 * np.eye(n)
        assert np.mean(group[apart.argmin(axis=1)] == group) > 0.95


def test_songs_of_a_library_are_near_their_own_genre(tmp_path):
    with Library(tmp_path / "library.db") as library:
        songs = made_songs(200)
        fill(library, songs)
        jazz = [i for i, song in enumerate(songs, start=1) if song.genre == "Jazz"]
        found = library.neighbours.nearest(jazz[:2], 5)
        assert all(library.catalogue.track(track).top_genre == "Jazz" for track, _ in found)
        assert not {track for track, _ in found} & set(jazz[:2])
        assert len(library.neighbours.points().ids) == 200
        assert len(LABELS) == 16


def test_few_tracks_are_looked_at_in_full(monkeypatch):
    """What makes it quick: with embeddings as networks give them, the first look leaves little to compute."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((5_000, 200)) * np.exp(-0.08 * np.arange(200))
    near = Neighbours(Rows(rows))
    near.nearest([1])
    looked_at = []
    real = module._cosines
    monkeypatch.setattr(
        module, "_cosines", lambda r, which, wanted: looked_at.append(len(which)) or real(r, which, wanted)
    )
    near.nearest([17], 20)
    assert sum(looked_at) < 200
