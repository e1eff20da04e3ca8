from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from acoustic.library import fitting
from acoustic.library.background import Background
from acoustic.library.fitting import background_answers, gather, learn, song_weights, track_answers
from acoustic.library.personal import plain
from acoustic.verdict.calibration import softmax
from acoustic.verdict.decision import calibrated
from tests.library.conftest import World


def material_of(world: World, counts: dict[int, int], background: Background | None = None) -> fitting.Material:
    songs = world.songs(counts, n_segments=3)
    genres = [world.base.labels.index(s.genre) for s in songs]
    return gather([s.votes for s in songs], genres, [s.group for s in songs], world.base, 0, background)


def test_without_a_prior_it_is_scikit_learns_logistic_regression(world: World) -> None:
    """Same loss (balanced genres, a constant feature that is penalised too), so the same probabilities."""
    material = material_of(world, {0: 8, 1: 8, 2: 8, 3: 8})
    flat = np.zeros_like(material.prior)
    without = fitting.Material(**{**_fields(material), "prior": flat})
    for strength in (0.05, 1.0):
        ours = softmax(material.x @ learn(without, np.ones(material.n, bool), strength))
        theirs = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-8, max_iter=2000)
        expected = theirs.fit(material.x, material.genre).predict_proba(material.x)
        assert ours == pytest.approx(expected, abs=5e-3)


def _fields(material: fitting.Material) -> dict:
    return {name: getattr(material, name) for name in material.__dataclass_fields__}


def test_a_strong_ridge_keeps_the_base(world: World, background: Background) -> None:
    material = material_of(world, {0: 3, 1: 3}, background)
    everything = np.ones(len(material.x), bool)
    sizes = [float(np.abs(learn(material, everything, s)).max()) for s in (0.05, 0.5, 5.0, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-4


def test_the_weights_are_at_the_minimum(world: World, background: Background) -> None:
    """No small step in any drawn direction is lower."""
    material = material_of(world, {0: 3, 2: 5}, background)
    everything = np.ones(len(material.x), bool)
    found = learn(material, everything, 0.3)

    def loss(w: np.ndarray) -> float:
        log_p = np.log(softmax(material.prior + material.x @ w))
        cross = -(material.target * log_p).sum(axis=1)
        songs = (song_weights(material.genre, material.n_base) * cross[: material.n]).sum()
        rest = fitting.background_weight(material.n) * cross[material.n :].mean()
        return float(songs + rest + 0.15 * np.square(w).sum())

    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(size=found.shape)
        assert loss(found) < loss(found + 0.1 * step / np.linalg.norm(step)) + 1e-3


def test_without_songs_to_disagree_the_background_pulls_nothing(world: World, background: Background) -> None:
    """At zero weights the background's gradient is zero: what was not taught has no reason to move."""
    material = material_of(world, {0: 1}, background)
    rows = np.arange(material.n_background)
    at_zero = background_answers(material, np.zeros((material.x.shape[1], 4)), rows)
    assert at_zero == pytest.approx(material.target[material.n :], abs=1e-9)


def test_songs_of_a_small_genre_and_own_ones_weigh_more() -> None:
    u = song_weights(np.asarray([0] * 16 + [1] * 4), n_base=2)
    assert u.mean() == pytest.approx(1)
    assert u[-1] / u[0] == pytest.approx(2)
    own = song_weights(np.asarray([0] * 16 + [1] * 4), n_base=1)
    assert own[-1] / u[-1] == pytest.approx(np.sqrt(2))
    assert own[0] == pytest.approx(u[0])


@pytest.mark.parametrize("voting", ["mean", "log_mean", "majority"])
def test_tracks_are_answered_as_the_verdict_does(world: World, voting: str) -> None:
    import dataclasses

    songs = [world.song(g, 0, n) for g, n in ((0, 1), (1, 4), (2, 2), (3, 4))]
    how = dataclasses.replace(plain(world.base.calibration, 0.7, None), voting=voting, segment_correlation=0.4)
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(len(s.votes), 5)) for s in songs]
    together = track_answers(np.concatenate(scores), np.repeat(np.arange(4), [1, 4, 2, 4]), how)
    assert together == pytest.approx(np.stack([calibrated(s, how)[1] for s in scores]), abs=1e-12)


def test_raw_features_give_the_same_scores(world: World, background: Background) -> None:
    from acoustic.library.personal import features

    material = material_of(world, {0: 3, 1: 2}, background)
    weights = np.random.default_rng(0).normal(size=(material.x.shape[1], 4))
    raw = material.to_raw @ weights
    votes = world.song(0, 0, 3).votes
    assert features(votes) @ raw[:-1] + raw[-1] == pytest.approx(material.x_segment[:3] @ weights, abs=1e-9)


def test_an_embedding_that_never_changes_does_no_harm(world: World) -> None:
    """A network without an embedding of its own, or songs that are all alike."""
    import dataclasses

    songs = [world.song(g, s) for g in (0, 1) for s in range(3)]
    flat = [dataclasses.replace(s.votes, embeddings=np.ones_like(s.votes.embeddings)) for s in songs]
    material = gather(flat, [0, 0, 0, 1, 1, 1], [s.group for s in songs], world.base, 0, None)
    assert np.isfinite(learn(material, np.ones(6, bool), 0.1)).all()
