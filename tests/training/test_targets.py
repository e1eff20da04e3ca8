from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import SettingsError
from acoustic.training.config import TeacherSpec
from acoustic.training.labels import fit_teacher_space, mix
from acoustic.training.targets import TeacherAnswers, _grid
from acoustic.training.teachers import accelerate, load_teacher


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


@given(st.integers(100, 5000), st.integers(10, 100), st.integers(1, 100))
def test_the_grid_stays_inside_and_covers_the_track(n: int, window: int, hop: int) -> None:
    starts = _grid(n, window, hop)
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert 0 <= n - (starts[-1] + window) <= max(hop, window / 6)


TEACHER = '''
import torch
SAMPLE_RATE = 8000
def labels(): return ["low", "high"]
class Teacher:
    """Energies of the halves of the spectrum."""
    def __call__(self, x):
        s = torch.fft.rfft(x, dim=1).abs()
        half = s.shape[1] // 2
        return torch.stack([s[:, :half].mean(1), s[:, half:].mean(1)], 1), s[:, :6]
'''


def test_a_teacher_is_plugged_in_by_path(tmp_path: Path) -> None:
    file = tmp_path / "teacher.py"
    file.write_text(TEACHER)
    plugged = load_teacher(file)
    assert (plugged.sample_rate, plugged.tags) == (8000, ("low", "high"))
    example = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    logits, embedding = accelerate(plugged, example)(example.numpy())
    expected = plugged.teacher(example)
    assert logits == pytest.approx(expected[0].numpy(), abs=1e-3)
    assert embedding == pytest.approx(expected[1].numpy(), abs=1e-3)
    with pytest.raises(SettingsError, match="no teacher"):
        load_teacher(tmp_path / "none.py")


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
