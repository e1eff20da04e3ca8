"""How the command line looks: rich tables on stdout, progress and errors on stderr. No decisions are taken here."""

from __future__ import annotations

import dataclasses
import itertools
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
from .kept import Decision
from .records import Analysis, Failure, printable

if TYPE_CHECKING:
    from .doctor import Check
    from .library.comparison import Comparison
    from .library.teaching import Lesson
    from .library.versions import Version
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
def follow() -> Iterator[Callable[[str, int, int | None], None]]:
    """One progress bar on stderr; the yielded function takes (words, how many are done, of how many)."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=_errors(), transient=True) as bar:
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
    console.print(_selective(result["selective"]))
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


def print_lesson(lesson: Lesson) -> None:
    """What was taught and what it changes, on songs that were left out of the fit in turn."""
    console = _output()
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
    console = _output()
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
    _output().print(table)


def print_library(status: Mapping[str, Any]) -> None:
    """What a library holds, a line each."""
    console = _output()
    said = {
        "library": f"{status['path']} ({status['n_bytes'] / 2**20:.1f} MB)",
        "songs": f"{status['n_songs']}, of which {status['n_analysed']} analysed",
        "files": f"{status['n_files']}, of which {status['n_missing']} missing, {status['n_errors']} with an error",
        "decided": f"{status['n_decided']}; {status['n_skipped']} skipped; {status['n_waiting']} wait for you",
        "history": f"{status['n_history']} lines",
        "last scan": status["last_scan"] or "none yet",
        "form": f"{status['schema']}, SQLite {status['sqlite']}",
    }
    for name, text in said.items():
        console.print(Text(f"{name:10} {safe(text)}"), soft_wrap=True)


def print_history(decisions: Iterable[Decision], names: Mapping[int, str]) -> None:
    """A table of what was decided, a row a line of the history; `names` of songs by their ids."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "when", "who", "said", "the model said", "song"):
        table.add_column(name, overflow="fold")
    for line in decisions:
        words = {"skip": "(skipped)", "undo": f"takes back {line.undoes}"}.get(line.kind, line.genre or "")
        model = f"{line.said_genre} {line.said_confidence:.0%}" if line.said_genre else ""
        song = names.get(line.track_id, f"song {line.track_id}")
        texts = (str(line.id), line.made_at[:19].replace("T", " "), line.who, words, model, song)
        table.add_row(*(Text(safe(text)) for text in texts))
    _output().print(table)


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table of texts, made safe here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(text)) for text in row))
    _output().print(table)


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
        ("training", card.training),
    ):
        if content:
            console.print(Text(title, style="bold"))
            console.print(Text(json.dumps(content, indent=2, ensure_ascii=False)))


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
        _selective(held["selective"]),
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


def _selective(curve: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="when the least certain are set aside", box=None, header_style="bold")
    for name in ("kept", "n", "confidence from", "accuracy (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in curve:
        low, high = row["accuracy_interval_95"]
        table.add_row(
            f"{row['coverage']:.0%}",
            str(row["n"]),
            f"{row['from_confidence']:.2f}",
            f"{row['accuracy']:.2f} ({low:.2f} to {high:.2f})",
        )
    return table


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
