"""What the contest with the original pipeline found: rows, targets, tables, JSON. No measuring here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import Machine
from .memory import Peak
from .timing import Spread, ratio

ORIGINAL, OPTIMISED = "original", "its optimised form"
ONE, THREE, SHIPPED = "ours, one segment", "ours, three segments", "ours, as it ships"
SHIPPED_KEPT = "ours, as it ships, until it is kept"
ONE_CACHED, SHIPPED_CACHED = "ours, one segment, cached", "ours, as it ships, cached"
FIRST_START = ", at its first start"
ONE_FILE, EIGHT_FILES = "one file", "eight files at once, a file"


@dataclass(frozen=True, slots=True)
class Target:
    """The ratio to the original that is asked for, by what the processor has."""

    with_amx: float
    without: float

    def on(self, machine: Machine) -> float:
        """Where nothing is known of AMX, the one without."""
        return self.with_amx if machine.amx else self.without


TARGETS: dict[tuple[str, str], Target] = {
    (ONE_FILE, ONE): Target(8, 5),
    (ONE_FILE, THREE): Target(4, 2),
    (EIGHT_FILES, ONE): Target(10, 6),
    (ONE_FILE, SHIPPED): Target(12, 12),
    (ONE_FILE, ONE_CACHED): Target(100, 100),
    (ONE_FILE, SHIPPED_CACHED): Target(100, 100),
}
MOST_MEMORY = 0.5
"""Peak memory of ours as a share of the original's: at most this."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one case. `ratio` is to the original, pair by pair; `by_input` its median for each input."""

    case: str
    who: str
    ms: Spread
    ratio: Spread
    target: float | None
    by_input: dict[str, float]

    @property
    def reached(self) -> float | None:
        """The ratio as a share of its target; None without one."""
        return None if self.target is None else self.ratio.median / self.target


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """`share` is of the original's peak; `most` what it may be."""

    who: str
    peak: Peak
    share: float
    most: float | None

    @property
    def reached(self) -> float | None:
        return None if self.most is None else self.most / self.share


@dataclass(frozen=True, slots=True)
class Report:
    """`int8` says what int8 costs ViT-B/16, or why it has none; `backends` what each of our classifiers says of its
    backend, `stages_ms` the medians of its runs on one file."""

    machine: Machine
    rounds: int
    int8: str
    backends: dict[str, dict[str, Any]]
    stages_ms: dict[str, dict[str, float]]
    times: tuple[Row, ...]
    memory: tuple[MemoryRow, ...]

    def write(self, file: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8")


def rows_of(
    case: str,
    times: Mapping[str, Sequence[float]],
    inputs: Sequence[str],
    machine: Machine,
    n_of: Mapping[str, int],
) -> tuple[Row, ...]:
    """The rows of one case from `in_turns`' times, whose inputs are named `inputs`, in turn. `n_of` says how many
    answers one time of a contender holds; 1 where it is not named."""
    per_answer = {who: [ms / n_of.get(who, 1) for ms in values] for who, values in times.items()}
    reference = per_answer[ORIGINAL]
    rows = []
    for who, values in per_answer.items():
        target = TARGETS.get((case, who))
        by_input = {
            name: ratio(reference[i :: len(inputs)], values[i :: len(inputs)]).median for i, name in enumerate(inputs)
        }
        against = ratio(reference, values)
        rows.append(Row(case, who, Spread.of(values), against, target.on(machine) if target else None, by_input))
    return tuple(rows)


def memory_rows(peaks: Mapping[str, Peak]) -> tuple[MemoryRow, ...]:
    """Shares of the original's peak; only ours have a bound."""
    whole = peaks[ORIGINAL].peak_mb
    return tuple(
        MemoryRow(who, peak, peak.peak_mb / whole, MOST_MEMORY if who in (ONE, SHIPPED) else None)
        for who, peak in peaks.items()
    )


# --- as text ---


def tables(report: Report) -> str:
    """All tables in Markdown, so that they can be read on a terminal and put into a page."""
    parts = [f"{report.machine.sentence()}; {report.rounds} rounds; median (quartiles)", f"ViT-B/16, {report.int8}"]
    for title, whose in (
        (
            "Equal work: ViT-B/16, the same weights, 224 x 224; ours keeps nothing but in the row that says cached",
            (ORIGINAL, OPTIMISED, ONE, THREE, ONE_CACHED),
        ),
        (
            "As it ships: the embedded model, its own segments and votes; the cache on, and empty before each answer",
            (ORIGINAL, OPTIMISED, SHIPPED, SHIPPED_KEPT, SHIPPED_CACHED),
        ),
    ):
        parts.append(f"### {title}\n\n" + _times([row for row in report.times if row.who in whose]))
    if report.memory:
        parts.append("### Peak memory of a process of its own\n\n" + _memory(report.memory))
    if report.stages_ms:
        parts.append("### Where the time of one file goes, ms\n\n" + _stages(report))
    return "\n\n".join(parts)


def _times(rows: Sequence[Row]) -> str:
    inputs = list(next(row.by_input for row in rows if row.case == ONE_FILE))
    lines = [
        f"| | ms a file | original : this | target | {' / '.join(inputs)} |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        digits = 1 if row.ms.median < 100 else 0
        each = " / ".join(f"{value:,.1f}" for value in row.by_input.values()) if len(row.by_input) > 1 else ""
        lines.append(
            f"| {row.case}: {row.who} | {row.ms.shown(digits)} | {row.ratio.shown()}x | {_target(row)} | {each} |"
        )
    return "\n".join(lines)


def _target(row: Row) -> str:
    if row.target is None or row.reached is None:
        return ""
    return f"{row.target:g}x: {'reached' if row.reached >= 1 else 'missed'}"


def _memory(rows: Sequence[MemoryRow]) -> str:
    lines = ["| | peak MB | before the first song | share of the original | target |", "|---|---|---|---|---|"]
    for row in rows:
        reached = row.reached
        verdict = "" if reached is None else f"at most {row.most}: {'reached' if reached >= 1 else 'missed'}"
        lines.append(
            f"| {row.who} | {row.peak.peak_mb:,.0f} | {row.peak.loaded_mb:,.0f} | {row.share:.2f} | {verdict} |"
        )
    return "\n".join(lines)


def _stages(report: Report) -> str:
    names = list(dict.fromkeys(stage for stages in report.stages_ms.values() for stage in stages))
    lines = [f"| | backend | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for who, stages in report.stages_ms.items():
        backend = report.backends[who]
        cells = " | ".join(f"{stages[name]:.1f}" if name in stages else "" for name in names)
        lines.append(f"| {who} | {backend.get('name')} {backend.get('precision')} | {cells} |")
    return "\n".join(lines)
