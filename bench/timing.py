"""Times that can be compared on a busy machine: contenders take turns, and a ratio is that of one round's pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

Input = TypeVar("Input")


@dataclass(frozen=True, slots=True)
class Spread:
    """What half of the rounds lie between, around their median."""

    median: float
    low: float
    """the lower quartile"""
    high: float
    """the upper quartile"""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
        return cls(float(median), float(low), float(high))

    def shown(self, digits: int = 1) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


def elapsed_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def in_turns(
    contenders: Mapping[str, Callable[[Input], object]],
    inputs: Sequence[Input],
    rounds: int,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """ms of every contender on every input, `rounds` times; the same index is the same input in the same round.

    The order changes with each input, as `orders` has it: what a contender leaves behind (spinning threads, a full
    processor cache) strikes all others alike. `before` is called ahead of its contender, outside the clock.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn, order in zip(range(rounds * len(inputs)), orders(len(names)), strict=False):
        one = inputs[turn % len(inputs)]
        for name in (names[i] for i in order):
            if before is not None and name in before:
                before[name]()
            times[name].append(elapsed_ms(partial(contenders[name], one)))
    return times


def orders(n: int, seed: int = 0) -> Iterator[list[int]]:
    """Orders of `n` contenders, without end; the same for the same seed.

    They come in Latin squares balanced for neighbours (E. J. Williams, 1949): within one, each contender stands once at
    each place and once right behind each other one; twice where n is odd, which takes a square and its mirror image.
    Rows and contenders are shuffled for each square, so that they do not keep step with the inputs.
    """
    rng = np.random.default_rng(seed)
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(n)]  # each step between neighbours occurs once
    rows = [[(place + shift) % n for place in zigzag] for shift in range(n)]
    if n % 2:
        rows += [row[::-1] for row in rows]
    while True:
        names = rng.permutation(n)
        for row in rng.permutation(len(rows)):
            yield [int(names[i]) for i in rows[row]]


def ratio(reference: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as long the reference takes, over pairs of the same round."""
    return Spread.of([theirs / mine for theirs, mine in zip(reference, ours, strict=True)])
