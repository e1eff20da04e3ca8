"""Times that can be compared on a busy machine: contenders take turns, and a ratio is that of one round's pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    contenders: Mapping[str, Callable[[Input], object]], inputs: Sequence[Input], rounds: int
) -> dict[str, list[float]]:
    """ms of every contender on every input, `rounds` times; the same index is the same input in the same round.

    Who begins changes with each input, so that no one always runs in the shadow of the same neighbour.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds * len(inputs)):
        one = inputs[turn % len(inputs)]
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            work = contenders[name]
            times[name].append(elapsed_ms(lambda work=work, one=one: work(one)))
    return times


def ratio(reference: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as long the reference takes, over pairs of the same round."""
    return Spread.of([theirs / mine for theirs, mine in zip(reference, ours, strict=True)])
