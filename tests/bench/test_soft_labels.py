"""What `bench.soft_labels` prints: that no track is judged by its own group, and how far two ways are apart."""

from __future__ import annotations

import numpy as np
import pytest

from acoustic.training.labels import Layout
from bench.soft_labels import REPEATS, SameForEach, cross_fitted, measures

LAYOUT = Layout((4,), ((), ()))


def test_no_track_is_judged_by_a_fit_that_saw_its_group() -> None:
    """Each group has a number of its own that tells its genre: nothing to be learned from the others."""
    groups = np.repeat([f"group {i}" for i in range(20)], 4)
    genres = np.repeat(np.random.default_rng(0).permutation(20) % 2, 4)
    features = np.eye(20)[np.repeat(np.arange(20), 4)]
    tested, always = (features, genres, np.ones(80)), (np.zeros((2, 20)), np.asarray([0, 1]), np.ones(2))
    layout = Layout((20,), ((), ()))
    apart = cross_fitted(tested, always, groups, layout, 1e-3)
    within = cross_fitted(tested, always, np.asarray([f"track {i}" for i in range(80)]), layout, 1e-3)
    assert apart.shape == (REPEATS, 80, 2)
    assert measures(within, genres)["accuracy"].min() == 1.0
    assert measures(within, genres)["NLL"].mean() < 0.3 < 0.6 < measures(apart, genres)["NLL"].mean()


def test_measures_by_hand() -> None:
    p = np.asarray([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]])
    found = measures(p, np.asarray([0, 1]))
    assert found["accuracy"].tolist() == [0.5, 0.0]
    assert found["top-2"].tolist() == [0.5, 1.0]
    assert found["NLL"] == pytest.approx([-(np.log(0.5) + np.log(0.2)) / 2, -np.log(0.2)])


def test_a_say_for_each_number_is_an_even_ridge() -> None:
    assert SameForEach((3, 1), ()).ridges.tolist() == [1, 1, 1, 1]
