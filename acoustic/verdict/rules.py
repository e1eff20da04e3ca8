"""Music-knowledge rules: what tempo, bass and voice say for or against a genre. Off by default.

A rule names its genre, so that it works with any model's labels; one for a genre that the model lacks is skipped. The
factors are the first AcousticSense's. After rules the probabilities are no longer those that were calibrated: the
coverage of a prediction set is then a guide, not a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..records import AppliedRule, Descriptors


@dataclass(frozen=True, slots=True)
class Above:
    """A condition: the descriptor was measured and exceeds `threshold`."""

    descriptor: str
    threshold: float

    def holds(self, descriptors: Descriptors) -> bool:
        value = getattr(descriptors, self.descriptor)
        return value is not None and value > self.threshold


@dataclass(frozen=True, slots=True)
class Rule:
    """Where all conditions hold, each genre's probability is multiplied by its factor.

    `reason` is shown to the person; {names of descriptors} in it are replaced by their values.
    """

    reason: str
    when: tuple[Above, ...]
    factors: tuple[tuple[str, float], ...]

    def holds(self, descriptors: Descriptors) -> bool:
        return all(condition.holds(descriptors) for condition in self.when)

    def told(self, descriptors: Descriptors) -> str:
        """The reason in plain words, with what was measured."""
        return self.reason.format(**{c.descriptor: getattr(descriptors, c.descriptor) for c in self.when})


RULES: tuple[Rule, ...] = (
    Rule(
        "fast ({tempo_bpm:.0f} BPM) with a strong beat ({beat_strength:.2f}): seldom classical music",
        when=(Above("tempo_bpm", 140.0), Above("beat_strength", 0.7)),
        factors=(("Classical", 0.3),),
    ),
    Rule(
        "{low_freq_ratio:.0%} of the energy lies in the bass: usual for hip-hop and rap",
        when=(Above("low_freq_ratio", 0.6),),
        factors=(("Hip-Hop", 1.5), ("Rap", 1.3)),
    ),
    Rule(
        "clear vocals ({vocal_presence:.2f}): unusual for a mostly instrumental genre",
        when=(Above("vocal_presence", 0.5),),
        factors=(("Classical", 0.7), ("Jazz", 0.7), ("Electronic", 0.7)),
    ),
)


def apply_rules(
    labels: Sequence[str], probabilities: np.ndarray, descriptors: Descriptors
) -> tuple[np.ndarray, tuple[AppliedRule, ...]]:
    """(C,) probabilities -> the same after every rule that holds, renormalised; and what was applied, in table order.

    Several rules may touch one genre; their factors multiply. A descriptor that was not measured fulfils no rule.
    """
    place = {label: i for i, label in enumerate(labels)}
    p = np.array(probabilities, dtype=np.float64)
    applied = [
        AppliedRule(rule.told(descriptors), genre, factor)
        for rule in RULES
        if rule.holds(descriptors)
        for genre, factor in rule.factors
        if genre in place
    ]
    for rule in applied:
        p[place[rule.genre]] *= rule.factor
    return p / p.sum(), tuple(applied)
