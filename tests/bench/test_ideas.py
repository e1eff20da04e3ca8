"""The runs that `bench.ideas` compares: alike but for one thing, trained once, judged on the same tracks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from acoustic.settings import PROJECT_ROOT
from acoustic.training.config import TrainConfig
from acoustic.training.prepare import prepare
from bench import ideas
from bench.ideas import IDEAS, Idea, judge, run, short, third_teacher, told
from bench.segments import reference
from tests.training.test_train import CONFIG, data, silent  # noqa: F401 (a fixture)

EMBEDDED = TrainConfig.read(PROJECT_ROOT / "configs" / "embedded.toml")


def test_each_idea_changes_something_and_keeps_the_split() -> None:
    for name, idea in IDEAS.items():
        changed = idea.change(EMBEDDED)
        same = changed == EMBEDDED
        assert same == (name == "as configured" or idea.masked > 0), name
        assert (changed.seed, changed.held_out, changed.sources) == (EMBEDDED.seed, EMBEDDED.held_out, EMBEDDED.sources)
        assert changed.samples == EMBEDDED.samples


def test_short_segments_have_teachers_that_hear_as_little() -> None:
    config = short(EMBEDDED)
    assert config.mel.segment_s == pytest.approx(EMBEDDED.mel.segment_s / 2, rel=0.02)
    asked = {t.name: (t.window_s, t.hop_s) for t in config.teachers}
    assert asked == {"mn04_as-short": (5.0, 3.75), "musicnn_msd": (3.0, 3.0)}
    assert [t.name for t in third_teacher(EMBEDDED).teachers] == ["mn04_as", "musicnn_msd", "musicnn_mtt"]


def test_a_run_is_trained_once_and_judged_as_the_first(
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(CONFIG, samples=16)
    idea = Idea(short, segments=(1, 2))  # songs of 9 s hold two segments of half of 7.2 s
    model, prepared, changed = run("an idea", idea, config, data, tmp_path)
    monkeypatch.setattr(ideas, "fit", None)
    assert run("an idea", idea, config, data, tmp_path)[0] == model
    tracks = [t for t in prepared.held if prepared.rows[t].kind == "music"]
    truth = {t: reference(prepared, t) for t in tracks}
    first = prepare(config, data, tmp_path, silent)
    one, two = judge(model, changed, idea, prepared, first, truth)
    assert np.isfinite(one.cross_entropy).all()
    assert set(one.right) <= {0.0, 1.0}
    assert np.array_equal(one.embedding, two.embedding)
    assert not np.array_equal(one.cross_entropy, two.cross_entropy)


def test_a_difference_is_told_of_what_both_know() -> None:
    nan = float("nan")
    values, first = np.asarray([1.0, 2.0, nan, 4.0]), np.asarray([0.5, 1.0, 7.0, 3.5])
    assert told(values, first, ["a", "b", "c", "d"]).startswith("2.333 (+0.667 +- ")
    assert not told(np.full(4, nan), first, ["a", "b", "c", "d"]).strip()
