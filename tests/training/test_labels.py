"""Soft labels: what the teachers say as genres, begun with what their tags are called."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from acoustic.errors import ManifestError, SettingsError
from acoustic.training.labels import RIDGE, TAGS_SAY, Layout, features_of, fit_teacher_space, mix

GENRES = ("Low", "High", "Loud")
TEACHERS = [(("low", "treble", "hiss"), 2), (("High", "low"), 1)]
"""the vector: two of an embedding, low, treble, hiss; one of an embedding, High, low"""
NAMES = {"Low": ("low",), "High": ("treble", "hiss", "High")}
LAYOUT = Layout.of(GENRES, NAMES, TEACHERS)


def test_features_are_embeddings_and_logits_teacher_by_teacher() -> None:
    first, second = (np.asarray([1.0]), np.asarray([2.0, 3.0])), (np.asarray([4.0, 5.0]), np.asarray([6.0]))
    assert features_of([first, second]).tolist() == [2, 3, 1, 6, 4, 5]


def test_a_label_is_mixed_by_its_weight() -> None:
    soft = np.asarray([0.5, 0.3, 0.2])
    assert mix(soft, 2, 0.5) == pytest.approx([0.25, 0.15, 0.6])
    assert mix(soft, None, 0.5) is soft
    assert mix(soft, 1, 0.0) is soft


def test_tags_are_found_with_each_teacher_that_has_them() -> None:
    assert LAYOUT.widths == (5, 3)
    assert LAYOUT.named == (((2,), (7,)), ((3, 4), (6,)), ())


def test_a_tag_that_no_teacher_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match="High: no teacher knows 'screech'"):
        Layout.of(GENRES, {"High": ("treble", "screech")}, TEACHERS)


def test_the_loudest_tag_of_a_teacher_speaks_and_teachers_are_averaged() -> None:
    said = np.asarray([[9, 9, 1.0, 2.0, -3.0, 9, 0.5, 4.0], [9, 9, 0.0, -2.0, 1.0, 9, -1.0, 0.0]])
    assert LAYOUT.opinion(said).tolist() == [[2.5, 1.25, 0.0], [0.0, 0.0, 0.0]]


def test_teachers_have_the_same_say_together() -> None:
    ridges = LAYOUT.ridges
    assert (1 / ridges[:5]).sum() == pytest.approx((1 / ridges[5:]).sum())
    assert np.ptp(ridges[:5]) == np.ptp(ridges[5:]) == 0
    assert Layout((4,), ()).ridges == pytest.approx(np.ones(4))


def heard(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 8) and genres: tags speak for theirs by one deviation, the first embedding for the genre Loud."""
    rng = np.random.default_rng(seed)
    genres = np.arange(n) % 3
    features = rng.normal(0, 1, (n, 8)) * [3, 1, 1, 1, 0.1, 1, 1, 1] + 5
    for genre, columns in ((0, (2, 7)), (1, (3, 6)), (2, (0,))):
        for column in columns:
            features[genres == genre, column] += 2.0 * (3 if column == 0 else 1)
    return features, genres


def test_what_can_be_separated_is() -> None:
    features, genres = heard(300)
    p = fit_teacher_space(features, genres, np.ones(300), LAYOUT, ridge=0.01).probabilities(features)
    assert p.sum(1) == pytest.approx(np.ones(300))
    assert (p.argmax(1) == genres).mean() > 0.85


def test_names_help_where_files_are_few() -> None:
    """Three files are no evidence of which of eight numbers matter; what the tags are called is."""
    few, genres = heard(3, seed=1)
    many, truth = heard(600, seed=2)
    right = {
        names: (fit_teacher_space(few, genres, np.ones(3), layout).probabilities(many).argmax(1) == truth).mean()
        for names, layout in (("named", LAYOUT), ("unnamed", Layout.of(GENRES, {}, TEACHERS)))
    }
    assert right["named"] > right["unnamed"] + 0.05


def test_without_names_and_with_one_teacher_it_is_logistic_regression() -> None:
    features, genres = heard(90)
    space = fit_teacher_space(features, genres, np.ones(90), Layout.of(GENRES, {}, [((), 8)]))
    standard = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=1 / (2 * 90 * RIDGE), max_iter=1_000).fit(standard, genres).predict_proba(standard)
    assert np.abs(space.probabilities(features) - theirs).max() < 1e-3


def test_held_down_entirely_it_says_what_the_tags_say() -> None:
    features, genres = heard(300)
    space = fit_teacher_space(features, genres, np.ones(300), LAYOUT, ridge=1e6)
    said = TAGS_SAY * LAYOUT.opinion((features - space.mean) / space.std) + space.change[-1]
    assert space.probabilities(features) == pytest.approx(softmax(said, axis=1), abs=1e-3)


def test_genres_are_balanced() -> None:
    """A genre with ten times as many files is not ten times as likely."""
    features = np.random.default_rng(0).normal(size=(110, 8))
    genres = np.repeat([0, 1], [100, 10])
    space = fit_teacher_space(features, genres, np.ones(110), Layout.of(("a", "b"), {}, [((), 8)]), ridge=1e6)
    assert space.probabilities(features) == pytest.approx(np.full((110, 2), 0.5), abs=0.01)


def test_a_genre_without_a_file_is_refused() -> None:
    features, genres = heard(30)
    with pytest.raises(ManifestError, match="class number 2"):
        fit_teacher_space(features[genres < 2], genres[genres < 2], np.ones(20), LAYOUT)
