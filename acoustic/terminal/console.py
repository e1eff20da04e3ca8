"""How lines reach a person: answers on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..errors import AcousticError
from ..records import printable

PIPED_WIDTH = 180


def out(line: str) -> None:
    """One line on stdout, as it is; what is not UTF-8 was replaced before."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on stderr."""
    errors().print(Text(text))


def print_error(error: AcousticError) -> None:
    """An error in two lines on stderr: what and what to do."""
    console = errors()
    console.print(Text.assemble((f"{error.code}: ", "bold red"), safe(error.message)))
    if error.hint:
        console.print(Text(safe(error.hint), style="dim"))


def safe(text: str) -> str:
    """Text of a file shown as text: control characters, which could move the cursor or hide a name, become U+FFFD."""
    return "".join(char if char.isprintable() else "\ufffd" for char in printable(text))


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table of texts, made safe here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(text)) for text in row))
    output().print(table)


@contextmanager
def progress(n: int) -> Iterator[Callable[[], None]]:
    """A progress bar over `n` files on stderr; the yielded function counts one."""
    with _bar() as bar:
        task = bar.add_task("analysing", total=n)
        yield lambda: bar.advance(task)


@contextmanager
def follow() -> Iterator[Callable[[str, int, int | None], None]]:
    """One progress bar on stderr; the yielded function takes (words, how many are done, of how many)."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=errors(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda words, done, total: bar.update(task, description=words, completed=done, total=total)


@contextmanager
def stages(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars by name on stderr; the yielded function takes (name, done, total). `quiet` shows none."""
    with _bar() as bar:
        bar.disable = quiet
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield report


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors(), transient=True)


def errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def output() -> Console:
    """A terminal's own width; a pipe or file gets room enough that names are not broken."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
