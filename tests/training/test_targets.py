from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.training.config import TeacherSpec
from acoustic.training.labels import features_of, fit_teacher_space, mix
from acoustic.training.targets import TeacherAnswers

TEACHER = '''
import torch
SAMPLE_RATE = 8000
def labels(): return ["low", "high"]
class Teacher:
    """Mean amplitudes of the halves of the spectrum; as embedding, those of its sixths against the whole."""
    def __call__(self, x):
        s = torch.fft.rfft(x.unfold(1, 256, 256), dim=2).abs().mean(1)  # short transforms: OpenVINO has no fast one
        half = s.shape[1] // 2
        sixths = torch.stack([b.mean(1) / s.mean(1).clamp_min(1e-6) for b in s.chunk(6, 1)], 1)
        return torch.stack([s[:, :half].mean(1), s[:, half:].mean(1)], 1), sixths
'''


def answers(window_s: float, hop_s: float, n: int) -> TeacherAnswers:
    """Windows whose logits are their own number."""
    return TeacherAnswers(
        TeacherSpec("t", "t.py", window_s=window_s, hop_s=hop_s),
        ("x",),
        np.arange(n, dtype=np.float32)[:, None],
        np.ones((n, 2), np.float32),
        np.arange(n) * hop_s,
        np.asarray([0, n]),
    )


def test_a_crop_on_a_window_gets_its_answer() -> None:
    logits, embedding = answers(10.0, 10.0, 5).of_crop(0, 20.0, 10.0)
    assert logits[0] == pytest.approx(2.0, abs=1e-6)
    assert embedding == pytest.approx([1.0, 1.0])


def test_a_crop_half_way_gets_the_mean() -> None:
    assert answers(10.0, 10.0, 5).of_crop(0, 25.0, 10.0)[0][0] == pytest.approx(2.5, abs=1e-6)


@given(st.floats(0, 50), st.floats(0.5, 30))
def test_weights_are_a_share_of_one(start_s: float, length_s: float) -> None:
    _, weight = answers(3.0, 3.0, 20).weights(0, start_s, length_s)
    assert weight.sum() == pytest.approx(1.0)
    assert (weight >= 0).all()


def test_features_are_embeddings_and_logits_teacher_by_teacher() -> None:
    first, second = (np.asarray([1.0]), np.asarray([2.0, 3.0])), (np.asarray([4.0, 5.0]), np.asarray([6.0]))
    assert features_of([first, second]).tolist() == [2, 3, 1, 6, 4, 5]


def test_teacher_space_separates_what_can_be_separated() -> None:
    rng = np.random.default_rng(0)
    genres = np.repeat([0, 1, 2], 30)
    features = rng.normal(0, 0.3, (90, 5))
    features[np.arange(90), genres] += 3
    space = fit_teacher_space(features, genres, np.ones(90), 3, regularisation=1.0)
    p = space.probabilities(features)
    assert p.sum(1) == pytest.approx(np.ones(90))
    assert (p.argmax(1) == genres).mean() > 0.95


def test_a_label_is_mixed_by_its_weight() -> None:
    soft = np.asarray([0.5, 0.3, 0.2])
    assert mix(soft, 2, 0.5) == pytest.approx([0.25, 0.15, 0.6])
    assert mix(soft, None, 0.5) is soft
    assert mix(soft, 1, 0.0) is soft
