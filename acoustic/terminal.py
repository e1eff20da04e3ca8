"""How the command line looks: rich tables on stdout, progress and errors on stderr. No decisions are taken here."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .errors import AcousticError
from .records import Analysis, Failure, printable

if TYPE_CHECKING:
    from .doctor import Check
    from .network.card import ModelCard

PIPED_WIDTH = 180

REASONS = {
    "LOW_CONFIDENCE": "low confidence",
    "SMALL_MARGIN": "two genres close together",
    "SEGMENTS_DISAGREE": "segments disagree",
    "NOT_MUSIC": "may not be music",
    "SILENT": "silent",
    "TRUNCATED": "file is cut short",
}


def out(line: str) -> None:
    """One line on stdout, as it is; what is not UTF-8 was replaced before."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on stderr."""
    _errors().print(Text(text))


def print_error(error: AcousticError) -> None:
    """An error in two lines on stderr: what and what to do."""
    console = _errors()
    console.print(Text.assemble((f"{error.code}: ", "bold red"), safe(error.message)))
    if error.hint:
        console.print(Text(safe(error.hint), style="dim"))


def safe(text: str) -> str:
    """Text of a file shown as text: control characters, which could move the cursor or hide a name, become U+FFFD."""
    return "".join(char if char.isprintable() else "\ufffd" for char in printable(text))


@contextmanager
def progress(n: int) -> Iterator[Callable[[], None]]:
    """A progress bar over `n` files on stderr; the yielded function counts one."""
    with _bar() as bar:
        task = bar.add_task("analysing", total=n)
        yield lambda: bar.advance(task)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars by name on stderr; the yielded function takes (name, done, total)."""
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield report


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
            Text(safe(result.path)), verdict.top_genre, f"{verdict.top_confidence:.0%}", following, reasons, total
        )
    _output().print(table)
    if len(results) == 1 and isinstance(results[0], Analysis):
        _output().print(Text(_stages(results[0].timings_ms), style="dim"), soft_wrap=True)
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
    console = _output()
    console.print(f"model      {result['model']}")
    console.print(f"accuracy   {result['accuracy']:.3f}  (95 % interval {low:.3f} to {high:.3f}, n = {result['n']})")
    console.print(f"top-2      {result['top_2']:.3f}   macro-F1 {result['macro_f1']:.3f}")
    console.print(f"ECE        {result['ece']:.3f}   NLL {result['nll']:.3f}")
    console.print(f"sets       cover {result['set_coverage']:.3f} with {result['set_size']:.1f} genres on average")
    unflagged = result["accuracy_unflagged"]
    console.print(
        f"review     {result['flagged']:.1%} flagged; the others are right in "
        + (f"{unflagged:.3f}" if unflagged is not None else "no case")
        + f"; not music {result['not_music']:.1%}"
    )
    table = Table(title="confusion: rows are the truth", box=None, header_style="bold")
    table.add_column("")
    for label in result["labels"]:
        table.add_column(label[:5], justify="right", no_wrap=True)
    for label, row in zip(result["labels"], result["confusion"], strict=True):
        if sum(row):
            table.add_row(label, *(str(n) if n else "." for n in row))
    console.print(table)
    for failure in result["failures"]:
        note(f"{safe(failure['file'])}: {failure['error']['code']}: {safe(failure['error']['message'])}")


def print_models(cards: Iterable[ModelCard], broken: Mapping[str, AcousticError]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "genres", "input", "description", "licence"):
        table.add_column(name, overflow="fold")
    for card in cards:
        shape = f"{card.mel.n_mels} x 224, {card.mel.segment_s:.1f} s"
        table.add_row(card.name, str(len(card.labels)), shape, card.description, card.licence)
    for name, error in broken.items():
        table.add_row(Text(safe(name), style="red"), "", "", Text(safe(error.message), style="red"), "")
    _output().print(table)


def print_card(card: ModelCard) -> None:
    console = _output()
    console.print(Text.assemble((card.name, "bold cyan"), f"  {card.description}"))
    console.print(Text(f"labels     {', '.join(card.labels)}"))
    console.print(Text(f"tags       {len(card.tag_labels)}"))
    console.print(Text(f"licence    {card.licence}   created {card.created}"))
    for title, content in (
        ("calibration", dataclasses.asdict(card.calibration)),
        ("metrics", card.metrics),
        ("training", card.training),
    ):
        console.print(Text(title, style="bold"))
        console.print(Text(json.dumps(content, indent=2, ensure_ascii=False)))


def print_checks(checks: Iterable[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=4)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FIX", style="bold red")
        detail = check.detail if check.ok else f"{check.detail}. {check.fix}"
        table.add_row(mark, check.name, Text(safe(detail)))
    _output().print(table)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=_errors(), transient=True)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _output() -> Console:
    """A terminal's own width; a pipe or file gets room enough that names are not broken."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
