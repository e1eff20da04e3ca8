"""What `acoustic models show` and `acoustic evaluate` print of what was measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from acoustic import terminal
from acoustic.library.versions import Version
from acoustic.network.card import ModelCard
from acoustic.network.vit import Architecture
from acoustic.records import Calibration, MelSpec, SegmentSpec, Votes
from acoustic.terminal import models
from acoustic.training.held_out import Answer, TrackVotes, report

CARD = ModelCard(
    name="small",
    labels=("A", "B"),
    tag_labels=("Music",),
    architecture=Architecture(),
    mel=MelSpec(),
    segments=SegmentSpec(),
    calibration=Calibration(temperature=0.5, conformal_quantile=0.6, segment_conformal_quantile=0.8),
    training={},
    metrics={},
    licence="MIT",
    description="a test",
    created="2026-01-01",
    weights={},
)


def measured(n: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    answers = []
    for i in range(n):
        logits = rng.normal(0, 1, (2, 2)).astype(np.float32)
        votes = Votes(logits, np.full((2, 1), 3.0), logits)
        source = "[red]songs" if i % 2 else "others"
        answers.append(Answer(TrackVotes(votes, int(rng.integers(2)), True, str(i), source), CARD.calibration))
    rain = TrackVotes(Votes(logits, np.full((2, 1), -3.0), logits), None, False, "rain", "rain")
    return report([*answers, Answer(rain, CARD.calibration)], ("Music",), 2, 5)


def shown(card: ModelCard, capsys: pytest.CaptureFixture[str]) -> str:
    terminal.print_card(card)
    return capsys.readouterr().out


def test_a_card_shows_calibration_before_and_after_by_source_and_as_a_diagram(
    capsys: pytest.CaptureFixture[str],
) -> None:
    held = measured()
    text = shown(dataclasses.replace(CARD, metrics={"held_out": held, "other": 7}), capsys)
    assert f"{held['nll_before']:.3f} > {held['nll_after']:.3f}" in text
    assert f"(<{held['ece_6_calibrated_95']:.3f})" in text
    for source, of in held["by_source"].items():
        assert f"tracks of {source}" in text  # its brackets are text, not style
        assert f"{of['accuracy_interval_95'][0]:.2f} to {of['accuracy_interval_95'][1]:.2f}" in text
    lines = text.splitlines()
    for name, of in (("tracks ", held), ("segments ", held["segments"])):
        [line] = [line for line in lines if line.lstrip().startswith(name) and "tracks of" not in line]
        low, high = of["set_coverage_interval_95"]
        assert f"{of['set_coverage']:.2f} ({low:.2f} to {high:.2f})" in line
        assert f"{of['set_size']:.1f}" in line
    assert '"segment_conformal_quantile": 0.8' in text
    assert "each track counts once" in text
    start = next(i for i, line in enumerate(lines) if "reliability" in line) + 2
    assert len(lines[start : start + len(held["reliability_after"])]) == len(held["reliability_after"])
    for row, line in zip(held["reliability_after"], lines[start:], strict=False):
        assert f"{row[1]:.2f}" in line
        assert f"{row[2]:.2f}" in line
        assert line.count("|") == 2
    assert "rain 100% of 1" in text
    assert "music 0.0% of 40" in text
    assert '"other": 7' in text
    assert "reliability_after" not in text


def test_a_card_from_before_segments_had_sets_is_shown_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    held = measured()
    for key in [key for key in held["segments"] if key.startswith("set_")]:
        del held["segments"][key]
    text = shown(dataclasses.replace(CARD, metrics={"held_out": held}), capsys)
    assert f"{held['set_coverage']:.2f} (" in text
    assert "each track counts once" not in text


@pytest.mark.parametrize("metrics", [{"held_out": {"n": 3}}, {"held_out": "fine"}, {"accuracy": 1.0}])
def test_what_another_measured_is_shown_as_it_is(metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(dataclasses.replace(CARD, metrics=metrics), capsys)
    assert all(str(key) in text for key in metrics)
    assert "reliability" not in text


def test_the_list_of_versions_says_which_were_taught_on_an_earlier_calibration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def told(version: Version) -> str:
        terminal.print_versions([version])
        return " ".join(capsys.readouterr().out.split())

    version = Version("dance", True, "2026-01-01", "small", ("Forró",), 6, 0.5, 0.75)
    assert "calibrated" not in told(version)
    assert "small, as it was calibrated then" in told(dataclasses.replace(version, recalibrated=True))
    assert "`acoustic personal fit`" in told(dataclasses.replace(version, recalibrated=True))


@pytest.mark.parametrize(("share", "mark"), [(0.0, 0.0), (0.5, 0.2), (1.0, 1.0), (0.3, 0.9)])
def test_a_bar_is_as_long_as_its_share_with_the_mark_where_it_says(share: float, mark: float) -> None:
    bar = models._bar_with_mark(share, mark, width=20).plain
    assert len(bar) == 20
    assert bar.index("|") == min(19, round(20 * mark))
    assert abs(bar.count("#") - round(20 * share)) <= 1
