from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from acoustic.library.personal import OWN_PRIOR, PersonalModel, features
from acoustic.records import Votes
from acoustic.verdict.decision import decide
from tests.library.conftest import LABELS, World


def blank(world: World, own: tuple[str, ...] = ()) -> PersonalModel:
    """A version that learned nothing."""
    shape = (world.base.n_features, len(LABELS) + len(own))
    return PersonalModel(
        "blank", world.base, own, np.zeros(shape, np.float32), np.zeros(shape[1], np.float32), 1.0, None
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_with_nothing_learned_it_answers_as_the_base(world: World, scaled: bool) -> None:
    """Whatever the base's calibration is made of."""
    calibration = dataclasses.replace(
        world.base.calibration,
        label_smoothing=0.05,
        segment_correlation=0.5,
        segment_conformal_quantile=0.9,
        **({"class_scale": (1.0, 1.2, 0.8, 1.0), "class_bias": (0.0, 0.3, -0.2, 0.1)} if scaled else {}),
    )
    personal = blank(world)
    personal = dataclasses.replace(personal, base=dataclasses.replace(world.base, calibration=calibration))
    votes = world.song(1, 0, 4).votes
    plain = decide(votes, LABELS, (), calibration)
    taught = decide(personal.read(votes), personal.labels, (), personal.calibration)
    assert personal.calibration.segment_conformal_quantile is None, "that of the base's segments is not of these scores"
    assert taught.probabilities == pytest.approx(plain.probabilities, abs=1e-12)
    assert taught.segment_probabilities == pytest.approx(plain.segment_probabilities, abs=1e-12)


def test_an_own_genre_of_which_nothing_is_known_has_its_prior(world: World) -> None:
    personal = blank(world, ("Forró",))
    votes = world.song(1, 0, 1).votes
    verdict = decide(personal.read(votes), personal.labels, (), personal.calibration)
    assert verdict.probabilities[-1] == pytest.approx(OWN_PRIOR / (1 + OWN_PRIOR))
    known = decide(votes, LABELS, (), world.base.calibration).probabilities
    assert verdict.probabilities[:-1] / verdict.probabilities[:-1].sum() == pytest.approx(known)


def test_a_verdict_over_own_genres_is_of_one_piece(world: World) -> None:
    """Segments, set and top genre all come from the same scores."""
    personal = blank(world, ("Forró",))
    personal = dataclasses.replace(personal, bias=np.asarray([0, 0, 0, 0, 6], np.float32))
    verdict = decide(personal.read(world.song(0, 0, 3).votes), personal.labels, (), personal.calibration)
    assert verdict.top_genre == "Forró"
    assert verdict.segment_probabilities.shape == (3, 5)
    assert verdict.agreement == 1.0
    assert verdict.prediction_set == ("Forró",)


def test_a_constant_on_the_logits_means_nothing(world: World) -> None:
    votes = world.song(0, 0).votes
    shifted = Votes(votes.logits + 7, votes.tag_logits, votes.embeddings)
    assert features(shifted) == pytest.approx(features(votes), abs=1e-5)
