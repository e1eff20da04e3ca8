"""Turns: who follows whom, that pairs stay pairs, and what the clock leaves out."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice, pairwise, permutations
from statistics import median

import pytest

from bench.timing import in_turns, orders


@pytest.mark.parametrize("n", [2, 5, 7, 8])
def test_each_contender_follows_each_other_one_equally_often(n: int) -> None:
    n_turns = n if n % 2 == 0 else 2 * n
    square = list(islice(orders(n), n_turns))
    assert all(sorted(order) == list(range(n)) for order in square)
    followed = Counter(pair for order in square for pair in pairwise(order))
    assert followed == dict.fromkeys(permutations(range(n), 2), n_turns // n)
    for place in zip(*square, strict=True):
        assert Counter(place) == dict.fromkeys(range(n), n_turns // n), "each stands at each place as often"


def test_over_many_turns_neighbours_are_balanced_across_the_turns_too() -> None:
    calls: list[str] = []
    works = {name: lambda _, name=name: calls.append(name) for name in "abcdefg"}
    in_turns(works, [0, 1, 2], rounds=200)
    followed = Counter(pair for pair in pairwise(calls) if pair[0] != pair[1])
    assert len(followed) == 7 * 6
    assert max(followed.values()) < 1.3 * min(followed.values())


def test_orders_keep_no_step_with_the_inputs() -> None:
    """Six contenders and three inputs: without shuffled rows each input would know two of the orders only."""
    seen = [tuple(order) for order in islice(orders(6), 600)]
    for i in range(3):
        assert len(set(seen[i::3])) > 50


def test_turns_are_the_same_again_and_stay_paired() -> None:
    calls: list[tuple[str, int]] = []
    works = {name: lambda one, name=name: calls.append((name, one)) for name in "abc"}
    times = in_turns(works, [0, 1], rounds=3)
    assert {name: len(ms) for name, ms in times.items()} == {"a": 6, "b": 6, "c": 6}
    turns = [calls[i : i + 3] for i in range(0, 18, 3)]
    assert [{one for _, one in turn} for turn in turns] == [{0}, {1}] * 3
    assert all({name for name, _ in turn} == set("abc") for turn in turns)
    first, calls[:] = list(calls), []
    in_turns(works, [0, 1], rounds=3)
    assert calls == first


def test_what_comes_before_a_contender_is_not_timed() -> None:
    calls: list[str] = []

    def before() -> None:
        calls.append("before")
        time.sleep(0.05)

    works = {name: lambda _, name=name: calls.append(name) for name in "ab"}
    times = in_turns(works, [0], rounds=4, before={"b": before})
    assert [calls[i - 1] for i, name in enumerate(calls) if name == "b"] == ["before"] * 4
    assert calls.count("before") == 4
    assert median(times["b"]) < 25
