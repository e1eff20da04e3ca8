"""Whether backends say the same, on answers that are made up; the pieces on which they are asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acoustic.errors import BackendError
from acoustic.records import Failure
from bench import agreement, songs
from bench.agreement import Heard


def answer(*probabilities: float, flag: bool = False) -> Any:
    """As much of an Analysis as is compared."""
    genre = "ABC"[int(np.argmax(probabilities))]
    return SimpleNamespace(
        verdict=SimpleNamespace(probabilities=probabilities, top_genre=genre, needs_review=flag), path="a song"
    )


def failure(name: str) -> Failure:
    return Failure(name, {"message": "not finite"})


def compared(exact: Sequence[Any], found: Sequence[Any]) -> agreement.Agreement:
    return agreement.compare(Heard(tuple(exact)), Heard(tuple(found)))


SURE = answer(0.9, 0.1)


def test_the_same_answers_agree() -> None:
    one = compared([SURE] * 3, [SURE] * 3)
    assert (one.n_songs, one.same, one.most_apart, one.same_flag) == (3, 1.0, 0.0, 1.0)
    assert one.reached
    assert agreement.line(one).endswith("agrees")


def test_a_song_that_only_the_exact_way_answers_is_told_and_is_no_agreement() -> None:
    one = compared([SURE, SURE, failure("bad.wav")], [SURE, failure("lost.wav"), failure("bad.wav")])
    assert one.failed == ("lost.wav: not finite",), "what nobody can hear counts for nobody"
    assert (one.n_songs, one.same) == (1, 1.0)
    assert not one.reached


@pytest.mark.parametrize(("n_other", "agrees"), [(1, True), (2, False)])
def test_one_song_in_a_hundred_may_have_another_genre(n_other: int, agrees: bool) -> None:
    exact = [answer(0.505, 0.495)] * 100
    found = [answer(0.495, 0.505)] * n_other + exact[n_other:]
    assert compared(exact, found).reached is agrees


@pytest.mark.parametrize(("apart", "agrees"), [(0.019, True), (0.021, False), (math.nan, False)])
def test_no_probability_may_differ_by_more_than_the_bound(apart: float, agrees: bool) -> None:
    assert compared([SURE] * 200, [SURE] * 199 + [answer(0.9 - apart, 0.1 + apart)]).reached is agrees


def test_without_an_answer_there_is_no_agreement() -> None:
    one = compared([failure("a.wav")], [failure("a.wav")])
    assert math.isnan(one.same)
    assert not one.reached
    assert agreement.line(one).endswith("DIFFERS")


def test_a_compiled_network_says_what_it_left_to_eager() -> None:
    sizes = {"1": {"state": "ready"}, "3": {"state": "slower"}, "8": {"state": "failed"}}
    assert agreement.left_to_eager({"sizes": sizes, "error": "no memory"}) == (
        "eager answered in place of batches of 3 (slower), 8 (failed): no memory"
    )
    assert agreement.left_to_eager({"sizes": {"1": {"state": "ready"}}, "error": None}) == ""
    assert agreement.left_to_eager({}) == ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four songs in a folder that is the command's argument; nothing in it is ever decoded."""
    for i in range(4):
        (tmp_path / f"{i}.wav").touch()
    monkeypatch.setattr(agreement, "prepare_process", lambda _: None)
    return tmp_path


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, ways: dict[tuple[str, str], Heard], *more: str) -> int:
    """The command, where the ways that are not in `ways` are not to be had."""

    def heard(_settings: object, backend: str, precision: str, _files: object) -> Heard:
        if (backend, precision) not in ways:
            raise BackendError(f"{backend} in {precision} cannot be had")
        return ways[backend, precision]

    monkeypatch.setattr(agreement, "heard", heard)
    monkeypatch.setattr("sys.argv", ["agreement", str(folder), *more])
    return agreement.main()


EXACT = Heard((SURE,) * 4)


def analyses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "Analysis", SimpleNamespace)


def test_the_command_ends_with_0_where_all_that_can_be_had_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    analyses(monkeypatch)
    assert run(folder, monkeypatch, {agreement.EXACT: EXACT, ("openvino", "float32"): EXACT}) == 0
    said = capsys.readouterr().out
    assert said.startswith("4 of 4 songs answered by eager float32")
    assert "missing: openvino in int8 cannot be had" in said
    assert "compiled" not in said


def test_the_command_ends_with_1_where_one_song_has_no_answer_and_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    analyses(monkeypatch)
    lost = Heard((*EXACT.answers[:3], failure("lost.wav")))
    ways = {agreement.EXACT: EXACT, ("openvino", "float32"): lost, ("eager", "bfloat16"): EXACT}
    assert run(folder, monkeypatch, ways) == 1
    said = capsys.readouterr().out
    assert "lost.wav: not finite" in said
    assert said.count("DIFFERS") == 1


def test_the_command_asks_the_compiled_network_where_it_is_told_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    analyses(monkeypatch)
    found = dataclasses.replace(EXACT, note="eager answered in place of batches of 8 (slower)")
    assert run(folder, monkeypatch, {agreement.EXACT: EXACT, ("compiled", "float32"): found}, "--compiled") == 0
    said = capsys.readouterr().out
    assert "eager answered in place of batches of 8 (slower)" in said
    assert "missing: compiled in bfloat16 cannot be had" in said


def test_the_command_ends_with_1_where_there_was_nothing_to_compare(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyses(monkeypatch)
    assert run(folder, monkeypatch, {agreement.EXACT: EXACT}) == 1


def test_made_pieces_differ_by_seed_and_are_the_same_again() -> None:
    first, again, other = (songs.made_piece(seed, 2.0) for seed in (3, 3, 4))
    assert (first.shape, first.dtype) == ((2 * songs.RATE,), np.float32)
    assert np.abs(first).max() == pytest.approx(0.5)
    np.testing.assert_array_equal(first, again)
    assert np.corrcoef(first, other)[0, 1] < 0.9
