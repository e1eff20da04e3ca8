"""What a lesson may and may not do, on made-up music."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.errors import ManifestError
from acoustic.library import teaching
from acoustic.library.background import Background
from acoustic.library.personal import PersonalModel
from acoustic.library.teaching import CONFORMAL_MIN, Song, teach
from acoustic.records import Votes
from tests.library.conftest import LABELS, N_EMBEDDING, World

FORRO, WEDDING = len(LABELS), len(LABELS) + 1


def fresh(world: World, genre: int, n: int = 60) -> list[Song]:
    """Songs that no lesson saw."""
    return world.songs({genre: n}, first=5_000)


def test_a_genre_that_is_misheard_is_learned_from_a_few_songs(world: World, background: Background) -> None:
    lesson = teach(world.songs({2: 8}), world.base, background)
    assert lesson.personal is not None
    assert lesson.comparison is not None
    assert lesson.comparison.after > lesson.comparison.before
    assert lesson.songs == {"Hip-Hop": 8}
    before, after = (world.right(fresh(world, 2), p) for p in (None, lesson.personal))
    assert after > before + 0.2


def test_a_temperature_is_not_fitted_on_the_songs_that_it_answers(
    world: World, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown of a left-out song hangs on none of its labels: neither weights nor temperature saw it."""
    fitted: list[np.ndarray] = []
    tempered = teaching._tempered

    def spy(material: Any, scores: Any, tested: np.ndarray, calibration: Any) -> Any:
        fitted.append(tested.copy())
        return tempered(material, scores, tested, calibration)

    monkeypatch.setattr(teaching, "_tempered", spy)
    lesson = teach(world.songs(dict.fromkeys(range(4), 6)), world.base, background)
    assert lesson.personal is not None
    by_fold = [tested for tested in fitted if not tested.all()]
    assert np.stack([~tested for tested in by_fold]).sum(axis=0).tolist() == [1] * 24  # each song is left out once


def test_the_left_out_songs_foretell_new_ones(world: World, background: Background) -> None:
    lesson = teach(world.songs(dict.fromkeys(range(4), 25)), world.base, background)
    assert lesson.comparison is not None
    new = [song for genre in range(4) for song in fresh(world, genre)]
    assert lesson.comparison.after / lesson.comparison.n == pytest.approx(world.right(new, lesson.personal), abs=0.08)
    assert lesson.comparison.before / lesson.comparison.n == pytest.approx(world.right(new, None), abs=0.1)


def test_what_was_not_taught_is_not_forgotten(world: World, background: Background) -> None:
    with_it = teach(world.songs({2: 6, 3: 6}), world.base, background)
    without = teach(world.songs({2: 6, 3: 6}), world.base)
    others = fresh(world, 0) + fresh(world, 1)
    before = world.right(others, None)
    assert world.right(others, with_it.personal) > before - 0.05
    assert world.right(others, without.personal) < world.right(others, with_it.personal)
    assert with_it.n_same / with_it.n_background > 0.85


def test_genres_by_lot_teach_next_to_nothing(world: World, background: Background) -> None:
    """The stated bound: nothing is learned at all in most draws, and what is costs little."""
    rng = np.random.default_rng(0)
    new = [song for genre in range(4) for song in fresh(world, genre)]
    before, nothing, changes = world.right(new, None), 0, []
    for _ in range(12):
        songs = world.songs(dict.fromkeys(range(4), 6), first=int(rng.integers(1000)))
        lot = rng.permutation([s.genre for s in songs])
        lesson = teach([dataclasses.replace(s, genre=str(g)) for s, g in zip(songs, lot, strict=True)], world.base,
                       background)  # fmt: skip
        nothing += lesson.personal is None
        changes.append(world.right(new, lesson.personal) - before)
    assert nothing >= 8
    assert np.mean(changes) > -0.03


@pytest.mark.parametrize(("n", "least", "most"), [(1, 0.2, 0.1), (5, 0.7, 0.15), (12, 0.8, 0.15)])
def test_an_own_genre_from_a_handful(world: World, background: Background, n: int, least: float, most: float) -> None:
    lesson = teach(world.songs({FORRO: n}), world.base, background, name="mine")
    assert lesson.personal is not None
    assert lesson.personal.labels == (*LABELS, "Forró")
    assert world.right(fresh(world, FORRO), lesson.personal) >= least
    others = [song for genre in range(4) for song in fresh(world, genre)]
    taken = world.answers(others, lesson.personal).argmax(axis=1) == len(LABELS)
    assert taken.mean() <= most


def test_one_song_of_a_new_genre_is_learned_and_said_to_be_untested(world: World, background: Background) -> None:
    lesson = teach(world.songs({FORRO: 1}), world.base, background)
    assert (lesson.n_untested, lesson.comparison) == (1, None)
    assert lesson.strength == teaching.USUAL_STRENGTH
    assert lesson.personal is not None
    assert lesson.personal.temperature == 1.0
    [song] = world.songs({FORRO: 1})
    before = world.answers([song], dataclasses.replace(lesson.personal, weights=np.zeros_like(lesson.personal.weights),
                                                       bias=np.zeros_like(lesson.personal.bias)))  # fmt: skip
    assert world.answers([song], lesson.personal)[0, -1] > 2 * before[0, -1]


def test_one_correction_moves_its_song_towards_its_genre(world: World, background: Background) -> None:
    song = next(s for s in fresh(world, 2) if world.right([s], None) == 0)
    lesson = teach([song], world.base, background)
    assert world.answers([song], lesson.personal)[0, 2] > world.answers([song], None)[0, 2]


def test_own_and_built_in_genres_together(world: World, background: Background) -> None:
    lesson = teach(world.songs({0: 5, 2: 5, FORRO: 5, WEDDING: 5}), world.base, background)
    assert lesson.personal is not None
    assert lesson.personal.own == ("Forró", "Wedding first dance")
    assert lesson.comparison is not None
    own = [g for g in lesson.comparison.by_genre if g.genre in lesson.personal.own]
    assert [g.before for g in own] == [0, 0]
    assert sum(g.after for g in own) >= 6
    for genre in (FORRO, WEDDING):
        assert world.right(fresh(world, genre), lesson.personal) > 0.6


def test_own_genres_need_something_to_be_told_from(world: World) -> None:
    with pytest.raises(ManifestError, match="all songs are 'Forró'"):
        teach(world.songs({FORRO: 5}), world.base)
    assert teach(world.songs({FORRO: 5, 0: 5}), world.base).personal is not None
    with pytest.raises(ManifestError, match="no songs"):
        teach([], world.base)


def test_names_are_settled(world: World, background: Background) -> None:
    songs = [world.song(2, s, name=n) for s, n in enumerate(("hip hop", "HIP-HOP", "Hip-Hop"))]
    assert teach(songs, world.base, background).songs == {"Hip-Hop": 3}
    with pytest.raises(ManifestError):
        teach([world.song(0, 0, name="\n")], world.base, background)


def test_a_recording_under_two_names_is_not_tested_on_itself(world: World, background: Background) -> None:
    song = world.song(2, 0)
    lesson = teach([song, dataclasses.replace(song, group="copy")], world.base, background)
    assert lesson.n_untested == 2


def test_a_group_is_left_out_as_a_whole(world: World, background: Background) -> None:
    """Two artists of one genre: each is tested on the other alone; one artist cannot be tested."""
    songs = [dataclasses.replace(s, group=f"artist {i % 2}") for i, s in enumerate(world.songs({2: 6}))]
    assert teach(songs, world.base, background).n_untested == 0
    alone = [dataclasses.replace(s, group="artist") for s in songs]
    assert teach(alone, world.base, background).n_untested == 6


def test_one_song_listed_often_is_one_song(world: World, background: Background) -> None:
    """Of twelve groups, however many songs are in them, no conformal quantile is made, and intervals stay wide."""
    songs = [song for i in range(12) for song in [world.songs({i % 3: 1}, first=700 + i)[0]] * 10]
    often = [dataclasses.replace(song, group=str(i // 10)) for i, song in enumerate(songs)]
    lesson = teach(often, world.base, background)
    assert lesson.personal is not None
    assert lesson.personal.calibration.conformal_quantile == world.base.calibration.conformal_quantile
    alone = teach(songs[::10], world.base, background)
    assert lesson.comparison is not None
    assert alone.comparison is not None
    assert (lesson.comparison.n, alone.comparison.n) == (120, 12)
    assert lesson.comparison.intervals["before"] == pytest.approx(alone.comparison.intervals["before"])


def test_enough_songs_bring_their_own_conformal_quantile(world: World, background: Background) -> None:
    few = teach(world.songs(dict.fromkeys(range(4), 10)), world.base, background).personal
    many = teach(world.songs(dict.fromkeys(range(4), CONFORMAL_MIN // 4 + 1)), world.base, background).personal
    assert few is not None
    assert many is not None
    assert few.calibration.conformal_quantile == world.base.calibration.conformal_quantile
    assert many.calibration.conformal_quantile != world.base.calibration.conformal_quantile
    new = [song for genre in range(4) for song in fresh(world, genre)]
    p = world.answers(new, many)
    of_target = p[np.arange(len(new)), [LABELS.index(s.genre) for s in new]]
    assert (1 - of_target <= many.calibration.conformal_quantile).mean() > 0.8


@pytest.mark.parametrize("by_lot", [False, True])
def test_songs_of_the_models_genres_cost_it_no_more_than_is_stated(
    world: World, background: Background, monkeypatch: pytest.MonkeyPatch, by_lot: bool
) -> None:
    """Two nats in all, cross-validated, over songs and background: also where labels mean nothing."""
    found: list[np.ndarray] = []
    losses_of = teaching._losses

    def spy(*arguments: Any) -> np.ndarray:
        found.append(losses_of(*arguments))
        return found[-1]

    monkeypatch.setattr(teaching, "_losses", spy)
    rng, costs = np.random.default_rng(1), [0.0]  # to learn nothing costs nothing
    for first in range(0, 200, 50):
        songs = world.songs(dict.fromkeys(range(4), int(rng.integers(2, 9))), first=first)
        genres = [s.genre for s in songs]
        genres = [str(g) for g in rng.permutation(genres)] if by_lot else genres
        lesson = teach(
            [dataclasses.replace(s, genre=g) for s, g in zip(songs, genres, strict=True)], world.base, background
        )
        assert lesson.n_untested == 0  # so the losses are all of answers that were left out
        candidates, untaught = found
        found.clear()
        if lesson.strength is not None:
            taught = candidates[1 + teaching.STRENGTHS.index(lesson.strength)]
            costs.append(taught.sum() - untaught.sum())
    assert max(costs) <= 2.0


def test_the_answers_are_calibrated_better_than_before(world: World, background: Background) -> None:
    """Against songs that nobody saw, in nats."""
    lesson = teach(world.songs(dict.fromkeys(range(4), 20)), world.base, background)
    new = [song for genre in range(4) for song in fresh(world, genre)]
    targets = [LABELS.index(s.genre) for s in new]
    before, after = (
        -np.log(world.answers(new, p)[np.arange(len(new)), targets]).mean() for p in (None, lesson.personal)
    )
    assert after < before


@settings(max_examples=5)
@given(st.permutations(range(14)), st.booleans())
def test_the_order_of_the_songs_changes_no_bit(order: list[int], with_own: bool) -> None:
    world = World(3)
    songs = world.songs({0: 4, 2: 5, FORRO if with_own else 3: 5})
    background = world.background(6)
    one = teach(songs, world.base, background).personal
    other = teach([songs[i] for i in order], world.base, background).personal
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.weights.tobytes() == other.weights.tobytes()
        assert one.bias.tobytes() == other.bias.tobytes()
        assert (one.temperature, one.labels, one.report) == (other.temperature, other.labels, other.report)


numbers = st.floats(-40, 40, width=32)


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.sampled_from([*LABELS, "Forró", "Polka"]), st.integers(1, 3)), min_size=1, max_size=9),
    st.lists(numbers, min_size=8, max_size=8),
    st.integers(0, 2**16),
)
def test_whatever_was_taught_the_answers_are_probabilities(
    taught: list[tuple[str, int]], wild: list[float], seed: int
) -> None:
    """Also for songs that resemble nothing: no NaN, no infinity, rows that sum to 1."""
    world, rng = World(1), np.random.default_rng(seed)
    songs = [
        Song(
            Votes(
                rng.normal(0, 5, (k, 4)).astype(np.float32),
                np.zeros((k, 0), np.float32),
                rng.normal(0, 2, (k, N_EMBEDDING)).astype(np.float32),
            ),
            genre,
            str(i),
        )
        for i, (genre, k) in enumerate(taught)
    ]
    lesson = teach(songs, world.base, world.background(5))
    personal = lesson.personal
    if personal is None:
        return
    assert_sound(personal)
    far = np.resize(np.asarray(wild, np.float32), (2, N_EMBEDDING)) * 10
    odd = Song(Votes(np.resize(far, (2, 4)), np.zeros((2, 0), np.float32), far), "Blues", "odd")
    for p in (world.answers([odd], personal), world.answers(songs[:1], personal)):
        assert np.isfinite(p).all()
        assert p.sum(axis=1) == pytest.approx(1)
        assert p.shape == (1, len(personal.labels))


def assert_sound(personal: PersonalModel) -> None:
    assert np.isfinite(personal.weights).all()
    assert np.isfinite(personal.bias).all()
    assert 0.2 < personal.temperature < 5.0
    assert personal.weights.shape == (personal.base.n_features, len(personal.labels))
