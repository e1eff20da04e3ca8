"""Answers about songs, and how good they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..records import Analysis, Failure
from .console import note, output, safe
from .curves import selective

REASONS = {
    "LOW_CONFIDENCE": "low confidence",
    "SMALL_MARGIN": "two genres close together",
    "SEGMENTS_DISAGREE": "segments disagree",
    "NOT_MUSIC": "may not be music",
    "SILENT": "silent",
    "TRUNCATED": "file is cut short",
}


def print_results(results: Sequence[Analysis | Failure], top_k: int) -> None:
    """A table of answers, one row a file."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, style in (
        ("file", ""),
        ("genre", "bold cyan"),
        ("confidence", ""),
        ("next", "dim"),
        ("review", "yellow"),
        ("ms", "dim"),
    ):
        table.add_column(
            name,
            style=style,
            justify="right" if name in ("confidence", "ms") else "left",
            overflow="fold",
            no_wrap=name in ("genre", "confidence", "ms"),
        )
    for result in results:
        if isinstance(result, Failure):
            text = f"{result.error['code']}: {result.error['message'].rstrip('.')}. {result.error['hint']}"
            table.add_row(
                Text(safe(result.path)), Text("error", style="red"), "", Text(safe(text), style="red"), "", ""
            )
            continue
        verdict = result.verdict
        following = ", ".join(f"{genre} {p:.0%}" for genre, p in verdict.ranked()[1 : min(top_k, 3)])
        reasons = ", ".join(REASONS.get(code, code) for code in verdict.review_reasons)
        total = f"{result.timings_ms['total']:.0f}" + (" (cached)" if result.cached else "")
        table.add_row(
            Text(safe(result.path)),
            Text(verdict.top_genre),
            f"{verdict.top_confidence:.0%}",
            Text(following),
            reasons,
            total,
        )
    output().print(table)
    if len(results) == 1 and isinstance(results[0], Analysis):
        output().print(Text(_stages(results[0].timings_ms), style="dim"), soft_wrap=True)
    for result in results:
        for warning in result.warnings if isinstance(result, Analysis) else ():
            note(f"{safe(result.path)}: {warning.code}: {safe(warning.message)}")


def _stages(timings_ms: Mapping[str, float]) -> str:
    """Each stage in ms and as a share of the total."""
    total = timings_ms["total"]
    stages = (f"{name} {ms:.1f} ms ({ms / total:.0%})" for name, ms in timings_ms.items() if name != "total")
    return " · ".join((*stages, f"total {total:.1f} ms"))


def print_evaluation(result: Mapping[str, Any]) -> None:
    low, high = result["accuracy_interval_95"]
    console = output()
    console.print(f"model      {result['model']}")
    console.print(f"accuracy   {result['accuracy']:.3f}  (95 % interval {low:.3f} to {high:.3f}, n = {result['n']})")
    console.print(f"top-2      {result['top_2']:.3f}   macro-F1 {result['macro_f1']:.3f}")
    console.print(
        f"ECE        {result['ece']:.3f} in 15 bins, {result['ece_6']:.3f} in 6 (calibrated perfectly, 95 times in 100 "
        f"below {result['ece_calibrated_95']:.3f} and {result['ece_6_calibrated_95']:.3f})"
    )
    console.print(f"NLL        {result['nll']:.3f}   Brier {result['brier']:.3f}")
    console.print(f"sets       cover {result['set_coverage']:.3f} with {result['set_size']:.1f} genres on average")
    unflagged = result["accuracy_unflagged"]
    console.print(
        f"review     {result['flagged']:.1%} flagged; the others are right in "
        + (f"{unflagged:.3f}" if unflagged is not None else "no case")
        + f"; not music {result['not_music']:.1%}"
    )
    console.print(selective(result["selective"]))
    table = Table(title="confusion: rows are the truth", box=None, header_style="bold")
    table.add_column("")
    for label in result["labels"]:
        table.add_column(Text(label[:5]), justify="right", no_wrap=True)
    for label, row in zip(result["labels"], result["confusion"], strict=True):
        if sum(row):
            table.add_row(Text(label), *(str(n) if n else "." for n in row))
    console.print(table)
    for failure in result["failures"]:
        note(f"{safe(failure['file'])}: {failure['error']['code']}: {safe(failure['error']['message'])}")


def print_failures(failures: Iterable[Failure]) -> None:
    """One line on stderr for each file that could not be analysed."""
    for failure in failures:
        note(f"{safe(failure.path)}: {failure.error['code']}: {safe(failure.error['message'])}")
