"""`acoustic tag`: genres from the library into the tags of its files, and back."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import terminal
from ..errors import SettingsError
from ..kept import shown_path
from ..records import file_fields
from .arguments import JsonOption, LibraryOption, read_as_chosen, workstation_of
from .library import opened

if TYPE_CHECKING:
    from ..library.tagging import Batch, Change, Outcome, Policy, Written

app = typer.Typer(
    help="Write genres into your files. Shows what it would do; `--write` does it; `tag undo` takes it back.",
    invoke_without_command=True,
)

HardLinksOption = Annotated[
    bool, typer.Option("--hard-links", help="Also files with several names, which then part from the others.")
]


@app.callback()
def tag(
    ctx: typer.Context,
    write: Annotated[bool, typer.Option("--write", help="Write; without it, only show.")] = False,
    only_empty: Annotated[bool, typer.Option("--only-empty", help="Only files without a genre: the default.")] = False,
    renew: Annotated[bool, typer.Option("--renew", help="Also files whose genre was written by this command.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="All files, whatever their genre is.")] = False,
    min_confidence: Annotated[float, typer.Option(min=0.0, max=1.0, help="How sure the model must be.")] = 0.7,
    max_genres: Annotated[int, typer.Option(min=1, max=8, help="Most genres of the model in one file.")] = 1,
    mapping: Annotated[
        Path | None, typer.Option(help='Your names: lines such as "Hip-Hop" = "Hip Hop/Rap".', metavar="FILE.toml")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Only files in this folder.", metavar="DIR")] = None,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="Leave the files' time of change.")] = False,
    hard_links: HardLinksOption = False,
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """What would be written into which file; your decisions go before the model's answers. Exit status 1 if a file
    could not be written."""
    if ctx.invoked_subcommand is not None:
        return _nothing_before(ctx)
    if only_empty + renew + overwrite > 1:
        raise SettingsError("--only-empty, --renew and --overwrite exclude one another", "Give one of them.")
    from ..library.tag_plan import Policy, read_mapping

    policy = Policy(
        only_empty=not (renew or overwrite),
        overwrite=overwrite,
        min_confidence=min_confidence,
        max_genres=max_genres,
        mapping=read_mapping(mapping) if mapping is not None else {},
        keep_times=keep_times,
    )
    below = b""
    if folder is not None:
        below = os.fsencode(os.path.realpath(folder.expanduser()))
        if not os.path.isdir(below):
            raise SettingsError(f"--folder {shown_path(bytes(folder))}: no such folder", "Name a folder of songs.")
    with workstation_of(library=library) as station:
        read_as_chosen(station)
    with opened(library) as kept, terminal.stages(quiet=as_json) as report:
        from ..library.tagging import candidates

        files = candidates(kept.database, folder=below)
        changes = kept.tagging.plan(files, policy, lambda done, n: report("reading tags", done, n))
        written = _write(kept, changes, policy, hard_links, report) if write else None
    failures = written.failures if written is not None else ()
    if as_json:
        _print_json(changes, written)
    else:
        _print_plan(changes, written)
    raise typer.Exit(1 if failures else 0)


@app.command("undo")
def undo_tags(
    batch: Annotated[int | None, typer.Argument(help="Number of a batch.", show_default="the latest")] = None,
    new_times: Annotated[
        bool, typer.Option("--new-times", help="Let the files' time of change be now, not what it was.")
    ] = False,
    hard_links: HardLinksOption = False,
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """Give the files of a batch their old content back, byte for byte. Exit status 1 if one could not be."""
    with opened(library) as kept, terminal.stages(quiet=as_json) as report:
        from ..workstation.tagging import undo_tags as take_back

        undone = take_back(
            kept,
            batch,
            keep_times=not new_times,
            hard_links=hard_links,
            on_progress=lambda done, n: report("putting back", done, n),
        )
    for one in undone.outcomes:
        if as_json:
            terminal.out(json.dumps({**_undone(one), "batch": undone.batch_id}, ensure_ascii=False))
        elif one.note:
            terminal.note(f"{terminal.safe(shown_path(one.path))}: {one.note}")
    _print_failures(undone.failures)
    if not as_json:
        n = len(undone.outcomes) - len(undone.failures)
        terminal.note(f"batch {undone.batch_id}: {_files(n)} undone; {len(undone.failures)} failed")
    raise typer.Exit(1 if undone.failures else 0)


@app.command("list")
def list_batches(
    batch: Annotated[int | None, typer.Argument(help="Show the files of this batch.", show_default=False)] = None,
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """What was written, the latest first, and what of it stands; or the files of one batch."""
    with opened(library) as kept:
        batches = kept.tagging.batches() if batch is None else []
        files = kept.tagging.files_of(batch) if batch is not None else []
    if as_json:
        for line in [_batch(one) for one in batches] + [_filed(one) for one in files]:
            terminal.out(json.dumps(line, ensure_ascii=False))
    elif batch is None:
        rows = (
            (str(b.id), b.made_at[:19].replace("T", " "), str(b.n_written), str(b.n_undone), str(b.n_failed))
            for b in batches
        )
        terminal.print_table(("batch", "when", "written", "undone", "failed"), rows)
    else:
        _print_files(files)


def _nothing_before(ctx: typer.Context) -> None:
    """An option before `undo` or `list` is none of theirs: passed over in silence, another library than the named one
    would be worked on."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name) if parameter.name else None
        if source is not None and source.name == "COMMANDLINE":
            name = ctx.invoked_subcommand
            raise SettingsError(
                f"{parameter.opts[0]} stands before `{name}`, where it is not heard",
                f"Options of `tag {name}` come after its name; `acoustic tag {name} --help` lists them.",
            )


def _write(kept: Any, changes: Sequence[Change], policy: Policy, hard_links: bool, report: Any) -> Written:
    from ..workstation.tagging import write_tags

    before = {batch.id for batch in kept.tagging.batches()}
    try:
        return write_tags(
            kept, changes, policy, hard_links=hard_links, on_progress=lambda done, n: report("writing", done, n)
        )
    except KeyboardInterrupt:
        for batch in kept.tagging.batches():
            if batch.id not in before:
                terminal.note(
                    f"stopped; {_files(batch.n_written)} written. `acoustic tag undo {batch.id}` takes it back."
                )
        raise


def _print_plan(changes: Sequence[Change], written: Written | None) -> None:
    failed = {one.path for one in written.failures} if written is not None else set()
    rows = (
        (shown_path(c.path), _genres(c.before), _genres(c.after), _why(c))
        for c in changes
        if c.writes and c.path not in failed
    )
    n_left = Counter(change.reason for change in changes if not change.writes)
    if any(change.writes for change in changes):
        terminal.print_table(
            ("file", "genre now" if written is None else "was", "would be" if written is None else "is", "by"), rows
        )
    for change in changes:
        if change.detail:
            terminal.note(f"{terminal.safe(shown_path(change.path))}: {terminal.safe(change.detail)}")
    _print_failures(written.failures if written is not None else ())
    left = "; ".join(f"{n} {reason}" for reason, n in n_left.most_common())
    tail = f"; left alone: {left}" if left else ""
    n_writes = sum(change.writes for change in changes)
    if written is None:
        terminal.note(f"{_files(n_writes)} would be written{tail}" + (". `--write` writes them." if n_writes else "."))
    else:
        n = len(written.outcomes) - len(written.failures)
        undo = f" `acoustic tag undo {written.batch_id}` takes it back." if n else ""
        terminal.note(f"{_files(n)} written{tail}; {len(written.failures)} failed.{undo}")


def _print_failures(failures: Sequence[Outcome]) -> None:
    for one in failures:
        if one.error is not None:
            terminal.print_error(one.error)


def _print_files(files: Sequence[Outcome]) -> None:
    rows = (
        (shown_path(f.path), _genres(f.before), _genres(f.after), f.error.message if f.error else f.note) for f in files
    )
    terminal.print_table(("file", "genre before", "after", "state"), rows)


def _print_json(changes: Sequence[Change], written: Written | None) -> None:
    """One object a file, in the order of the plan."""
    became = {one.path: one for one in written.outcomes} if written is not None else {}
    for change in changes:
        outcome = became.get(change.path)
        status = (
            "left" if not change.writes else "planned" if outcome is None else "error" if outcome.error else "written"
        )
        line = {
            **file_fields(os.fsdecode(change.path)),
            "status": status,
            "before": list(change.before),
            "after": list(change.after if outcome is None else outcome.after),
            "source": change.source or None,
            "confidence": change.confidence,
            "reason": change.reason or None,
            "detail": change.detail or None,
            "batch": written.batch_id if written is not None and outcome is not None else None,
            "error": outcome.error.to_dict() if outcome is not None and outcome.error is not None else None,
        }
        terminal.out(json.dumps(line, ensure_ascii=False))


def _undone(one: Outcome) -> dict[str, Any]:
    return {
        **file_fields(os.fsdecode(one.path)),
        "status": "error" if one.error is not None else "undone",
        "genres": list(one.after),
        "note": one.note or None,
        "error": one.error.to_dict() if one.error is not None else None,
    }


def _filed(one: Outcome) -> dict[str, Any]:
    return {
        **file_fields(os.fsdecode(one.path)),
        "status": "failed" if one.error is not None else one.note,
        "before": list(one.before),
        "after": list(one.after),
        "error": one.error.to_dict() if one.error is not None else None,
    }


def _batch(one: Batch) -> dict[str, Any]:
    return {
        "batch": one.id,
        "made_at": one.made_at,
        "written": one.n_written,
        "undone": one.n_undone,
        "failed": one.n_failed,
        "policy": dict(one.policy),
    }


def _genres(genres: Sequence[str]) -> str:
    return ", ".join(genres) or "(none)"


def _why(change: Change) -> str:
    return "you" if change.source == "person" else f"model, {change.confidence or 0:.0%}"


def _files(n: int) -> str:
    return f"{n} file" if n == 1 else f"{n} files"
