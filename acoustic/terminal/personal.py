"""What a person taught, and what it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .console import output, safe

if TYPE_CHECKING:
    from ..library.comparison import Comparison
    from ..library.teaching import Lesson
    from ..library.versions import Version


def print_lesson(lesson: Lesson) -> None:
    """What was taught and what it changes, on songs that were left out of the fit in turn."""
    console = output()
    songs = ", ".join(f"{genre} {n}" for genre, n in lesson.songs.items())
    console.print(Text(f"taught     {sum(lesson.songs.values())} songs: {songs}"))
    if lesson.comparison is not None:
        console.print(Text("Each song answered by what was learned from the others:", style="dim"))
        print_comparison(lesson.comparison)
    if lesson.n_untested:
        console.print(Text(f"untested   {lesson.n_untested} songs are the only ones of their genre"))
    if lesson.n_background:
        unchanged = lesson.n_same / lesson.n_background
        console.print(f"unchanged  {unchanged:.1%} of {lesson.n_background} other songs keep their genre")


def print_comparison(comparison: Comparison) -> None:
    """Right answers before and after on the same songs, in all and by genre."""
    said = comparison.to_dict()
    console = output()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (f"{comparison.n} songs", "the model alone", "with what you taught"):
        table.add_column(name)
    for what, key in (("accuracy", "accuracy"), ("among the genres here", "accuracy_among")):
        table.add_row(what, _share(said[f"{key}_before"]), _share(said[f"{key}_after"]))
    if comparison.nll_before is not None and comparison.nll_after is not None:
        table.add_row("NLL, built-in genres", f"{comparison.nll_before:.3f}", f"{comparison.nll_after:.3f}")
    for genre in comparison.by_genre:
        table.add_row(Text(f"  {safe(genre.genre)}"), f"{genre.before} of {genre.n}", f"{genre.after} of {genre.n}")
    console.print(table)
    console.print(f"{comparison.n_fixed} put right, {comparison.n_broken} put wrong")


def _share(share: Mapping[str, Any]) -> str:
    low, high = share["interval_95"]
    return f"{share['value']:.3f} ({low:.3f} to {high:.3f})"


def print_versions(versions: Iterable[Version]) -> None:
    """A table of what was taught; the version in use is marked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "version", "taught", "songs", "own genres", "left out: before", "after", "model"):
        table.add_column(name, overflow="fold")
    for version in versions:
        known = version.error is None or bool(version.created)
        model = Text(safe(version.model))
        if version.error is not None:
            model.append(f" {safe(version.error.message)}".lstrip(), style="red")
        elif version.recalibrated:
            model.append(", as it was calibrated then; `acoustic personal fit` learns with its new calibration")
        table.add_row(
            "*" if version.active else "",
            version.name,
            Text(safe(version.created)),
            str(version.n_songs) if known else "",
            Text(safe(", ".join(version.own))),
            f"{version.before:.3f}" if version.before is not None else "",
            f"{version.after:.3f}" if version.after is not None else "",
            model,
        )
    output().print(table)
