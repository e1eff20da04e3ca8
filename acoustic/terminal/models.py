"""Model cards, and what this machine can do."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ..errors import AcousticError
from .console import output, safe
from .curves import selective

if TYPE_CHECKING:
    from ..doctor import Check
    from ..network.card import ModelCard
    from ..network.quantized import Cost


def print_models(cards: Iterable[ModelCard], broken: Mapping[str, AcousticError]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "genres", "input", "description", "licence"):
        table.add_column(name, overflow="fold")
    for card in cards:
        shape = f"{card.mel.n_mels} x 224, {card.mel.segment_s:.1f} s"
        table.add_row(card.name, str(len(card.labels)), shape, card.description, card.licence)
    for name, error in broken.items():
        table.add_row(Text(safe(name), style="red"), "", "", Text(safe(error.message), style="red"), "")
    output().print(table)


def print_card(card: ModelCard) -> None:
    console = output()
    console.print(Text.assemble((card.name, "bold cyan"), f"  {card.description}"))
    console.print(Text(f"labels     {', '.join(card.labels)}"))
    console.print(Text(f"tags       {len(card.tag_labels)}"))
    console.print(Text(f"licence    {card.licence}   created {card.created}"))
    metrics = dict(card.metrics)
    try:
        measured = _measured(metrics.pop("held_out", {}))
    except (KeyError, TypeError, ValueError, AttributeError):  # another's card may tell something else by that name
        metrics, measured = dict(card.metrics), []
    for table in measured:
        console.print(table)
        console.print()
    for title, content in (
        ("calibration", dataclasses.asdict(card.calibration)),
        ("metrics", metrics),
        ("training", {key: part for key, part in card.training.items() if key != "heard"}),
    ):
        if content:
            console.print(Text(title, style="bold"))
            console.print(Text(json.dumps(content, indent=2, ensure_ascii=False)))


def print_int8(cost: Cost) -> None:
    """What a model's int8 graph costs, and on what that was measured."""
    lines = [f"same genre as float32 in {cost.agreement:.3f} of {cost.n} segments"]
    if cost.labelled:
        lines.insert(0, f"accuracy {cost.accuracy:.3f} in float32, {cost.accuracy_int8:.3f} in int8")
    lines.append(f"cosine of the logits at least {cost.min_cosine:.4f}, {cost.mean_cosine:.5f} on average")
    output().print(Text("int8", style="bold"))
    output().print(Text(safe("; ".join(lines))))
    output().print(Text(safe(cost.about)))


def _measured(held: Mapping[str, Any]) -> list[Table | Text]:
    """What `training.held_out` measured, as tables; nothing where it measured nothing."""
    if not held:
        return []
    music = held["not_music"]
    kinds = ", ".join(f"{kind} {of['flagged']:.0%} of {of['n']}" for kind, of in music["by_kind"].items())
    sure = held["accuracy_above_review_confidence"]
    low, high = held["accuracy_above_review_confidence_interval_95"]
    flags = [f"music {music['music_flagged']:.1%} of {music['n_music']}"] if music["n_music"] else []
    return [
        _before_and_after(held),
        _reliability(held["reliability_before"], held["reliability_after"]),
        selective(held["selective"]),
        Text(
            f"review: {held['below_review_confidence']:.0%} are below the confidence; the others are right in "
            + ("no case" if sure is None else f"{sure:.2f} ({low:.2f} to {high:.2f})")
        ),
        Text(f"flagged NOT_MUSIC: {'; '.join((*flags, *([kinds] if kinds else [])))}"),
    ]


def _before_and_after(held: Mapping[str, Any]) -> Table:
    table = Table(title=f"held-out: {held['how']}, {held['n_groups']} groups", box=None, header_style="bold")
    names = ("n", "accuracy (95 %)", "NLL", "Brier", "ECE, 15 bins", "ECE, 6 bins", "sets cover (95 %)", "genres")
    for name in ("", *names):
        table.add_column(name, justify="right" if name else "left")
    rows = {"tracks": held, "segments": held["segments"]}
    rows |= {f"tracks of {source}": of for source, of in held["by_source"].items()}
    for name, of in rows.items():
        low, high = of["accuracy_interval_95"]
        ece = (
            f"{of[f'{key}_before']:.3f} > {of[f'{key}_after']:.3f} (<{of[f'{key}_calibrated_95']:.3f})"
            for key in ("ece", "ece_6")
        )
        sets = ["", ""]
        if "set_coverage" in of:
            from_, to = of["set_coverage_interval_95"]
            sets = [f"{of['set_coverage']:.2f} ({from_:.2f} to {to:.2f})", f"{of['set_size']:.1f}"]
        table.add_row(
            Text(safe(name)),
            str(of["n"]),
            f"{of['accuracy']:.2f} ({low:.2f} to {high:.2f})",
            *(f"{of[f'{key}_before']:.3f} > {of[f'{key}_after']:.3f}" for key in ("nll", "brier")),
            *ece,
            *sets,
        )
    table.caption = "before > after calibration; (<x): calibrated perfectly, it stays below x 95 times in 100"
    if "set_coverage" in held["segments"]:  # a card that was written before segments had sets lacks it
        table.caption += "\nsets of segments: each track counts once"
    return table


def _reliability(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> Table:
    """A row a bin: how far the bar goes is how often the answer is right, the mark is what it says."""
    table = Table(title="reliability: # is right, | says", box=None, header_style="bold")
    for name in ("n", "says", "is right", "before calibration", "n", "says", "is right", "after calibration"):
        table.add_column(name, justify="left" if name.endswith("calibration") else "right", no_wrap=True)
    for pair in itertools.zip_longest(before, after):
        cells = [
            (f"{row[0]:.0f}", f"{row[1]:.2f}", f"{row[2]:.2f}", _bar_with_mark(row[2], row[1])) if row else ("",) * 4
            for row in pair
        ]
        table.add_row(*cells[0], *cells[1])
    return table


def _bar_with_mark(share: float, mark: float, width: int = 30) -> Text:
    bar = "#" * round(share * width) + " " * (width - round(share * width))
    at = min(width - 1, round(mark * width))
    return Text.assemble((bar[:at], "cyan"), ("|", "bold"), (bar[at + 1 :], "cyan"))


def print_checks(checks: Iterable[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=4)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FIX", style="bold red")
        detail = check.detail if check.ok else f"{check.detail}. {check.fix}"
        table.add_row(mark, check.name, Text(safe(detail)))
    output().print(table)
