"""The benchmarks in small, as a check: ends with 1 when a ratio falls below half its target.

    python -m bench.gate [--rounds 3]

Half, because machines are shared and rounds are few: what fails here has broken, what passes has not been measured
well. The full versions are `bench.original`, `bench.limits` and `bench.scaling`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acoustic.settings import Settings

from . import limits, original, scaling
from .made_model import write_vit_b16
from .report import Report, tables

LEAST = 0.5
"""of a target"""
N_LIMITED = 12


@dataclass(frozen=True, slots=True)
class Check:
    """`reached` is what was measured as a share of its target."""

    what: str
    reached: float

    @property
    def passed(self) -> bool:
        return self.reached >= LEAST  # a NaN fails

    def line(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'}  {self.reached:7.2f} of its target: {self.what}"


def checks_of(report: Report) -> list[Check]:
    """Every row of the contest that has a target."""
    checks = [Check(f"{row.case}: {row.who}", row.reached) for row in report.times if row.reached is not None]
    checks += [Check(f"peak memory: {row.who}", row.reached) for row in report.memory if row.reached is not None]
    return checks


def outcome(checks: Iterable[Check]) -> int:
    """Exit status: 0 if all passed and there was at least one."""
    passed = [check.passed for check in checks]
    return 0 if passed and all(passed) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        folder = Path(name)
        made = write_vit_b16(folder, Settings.load().n_threads())
        report = original.measure(folder, original.Plan(rounds=rounds), made)
        share = limits.measure(folder, rounds, made)
        scale = scaling.limited(folder, made, N_LIMITED)
    print(tables(report), limits.table(share), f"{scaling.HEAD}\n{scaling.line(scale)}", sep="\n\n", end="\n\n")
    checks = checks_of(report)
    checks.append(Check(f"share of the matrix rate, {limits.BATCH_SIZES[-1]} segments", share.reached))
    checks.append(Check("lane busy where inference is the limit", scale.lane_busy / scaling.MIN_BUSY))
    for check in checks:
        print(check.line())
    return outcome(checks)


if __name__ == "__main__":
    sys.exit(main())
