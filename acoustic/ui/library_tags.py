"""Genres into the files' own tags, from the page: a dry run that shows all changes, the write, the way back."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import AcousticError
from ..kept import TrackFilter, shown_path
from . import wording
from .cards import CROSS, TICK, isolated, plain
from .shelf import Shelf

if TYPE_CHECKING:
    from ..workstation import Workstation

ONLY_EMPTY, RENEW, OVERWRITE = "empty", "renew", "overwrite"
WAYS = [
    ("Only files without a genre", ONLY_EMPTY),
    ("Also what was written from here", RENEW),
    ("Any genre is written over", OVERWRITE),
]
N_SHOWN = 200  # lines of a dry run that the page shows


@dataclass
class Planned:
    """The dry run that the person sees: what "Write" then does, and nothing else. One a session."""

    changes: list[Any] = field(default_factory=list)
    policy: Any = None

    @property
    def n_writes(self) -> int:
        return sum(change.writes for change in self.changes)


class TagDesk:
    """The handlers. Each returns HTML and what becomes of the buttons "Write" and "Undo"."""

    def __init__(self, workstation: Workstation) -> None:
        self._workstation = workstation

    def plan(
        self,
        mine: Shelf,
        planned: Planned,
        way: str,
        percent: float | None,
        n_genres: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it in)
    ) -> tuple[str, Any, Any]:
        """The dry run for the selection, or else for all that the table lists."""
        from ..workstation.tagging import plan_tags

        planned.changes, planned.policy = [], None
        try:
            policy = _policy(way, percent, n_genres)
            what = dataclasses.replace(TrackFilter(), ids=mine.selected) if mine.selected else mine.what
            planned.changes = plan_tags(
                self._workstation.library, policy, what, on_progress=lambda done, n: progress((done, n), "Reading tags")
            )
            planned.policy = policy
            return plan_table(planned.changes), *self._buttons(planned)
        except AcousticError as error:
            return _told(error), *self._buttons(planned)

    def forget(self, planned: Planned, way: str, percent: float | None, n_genres: float | None) -> Any:
        """Other options than those of the dry run: it no longer says what a write should do."""
        with contextlib.suppress(AcousticError):
            if planned.policy is None or planned.policy == _policy(way, percent, n_genres):
                return gr.skip()
        planned.changes, planned.policy = [], None
        return "", *self._buttons(planned)

    def write(self, planned: Planned, progress: gr.Progress = gr.Progress()) -> tuple[str, Any, Any]:  # noqa: B008
        """What the dry run showed. A file that has changed since is left alone."""
        from ..workstation.tagging import write_tags

        try:
            if planned.policy is None:
                return "", *self._buttons(planned)
            written = write_tags(
                self._workstation.library,
                [change for change in planned.changes if change.writes],
                planned.policy,
                on_progress=lambda done, n: progress((done, n), "Writing tags"),
            )
            planned.changes, planned.policy = [], None
            return outcome(written, "written"), *self._buttons(planned)
        except AcousticError as error:
            return _told(error), *self._buttons(planned)

    def undo(self, planned: Planned, progress: gr.Progress = gr.Progress()) -> tuple[str, Any, Any]:  # noqa: B008
        """The latest batch, back to the last byte."""
        from ..workstation.tagging import undo_tags

        planned.changes, planned.policy = [], None
        try:
            undone = undo_tags(
                self._workstation.library, on_progress=lambda done, n: progress((done, n), "Putting back")
            )
            return outcome(undone, "put back as they were"), *self._buttons(planned)
        except AcousticError as error:
            return _told(error), *self._buttons(planned)

    def _buttons(self, planned: Planned) -> tuple[Any, Any]:
        n = planned.n_writes
        words = f"Write {wording.counted(n, 'file')}" if n else "Write"
        return gr.update(value=words, interactive=n > 0), gr.update(interactive=self._can_undo())

    def _can_undo(self) -> bool:
        try:
            return any(batch.n_written for batch in self._workstation.library.tagging.batches())
        except AcousticError:
            return True  # the button will then say why not


def _policy(way: str, percent: float | None, n_genres: float | None) -> Any:
    """What the options say. Raises SettingsError."""
    from ..workstation.tagging import Policy

    return Policy(
        only_empty=way == ONLY_EMPTY,
        overwrite=way == OVERWRITE,
        min_confidence=(70.0 if percent is None else float(percent)) / 100,
        max_genres=int(n_genres or 1),
    )


def build(workstation: Workstation, shelf: gr.State) -> None:
    """The panel, closed at first, inside the current Blocks."""
    with gr.Accordion(
        "Write genres into the files' tags", open=False, elem_id="library-tags", elem_classes="as-tagging"
    ):
        gr.HTML(
            '<p class="as-note">First a dry run: it shows what would be written into the selected songs, or else into '
            "all that the table lists. Your decisions go before the model's answers. The sound of a file is never "
            "touched, and every write can be undone.</p>",
            apply_default_css=False,
        )
        with gr.Row(elem_classes="as-tagging-row"):
            way = gr.Dropdown(WAYS, value=ONLY_EMPTY, label="Which files", elem_id="tags-way", scale=3, min_width=180)
            percent = gr.Number(70, label="Model at least %", elem_id="tags-percent", scale=1, min_width=100)
            n_genres = gr.Number(1, label="Most genres", precision=0, elem_id="tags-most", scale=1, min_width=90)
        with gr.Row(elem_classes="as-buttons as-tagging-buttons"):
            look = gr.Button("Dry run", size="sm", elem_id="tags-plan")
            go = gr.Button("Write", size="sm", interactive=False, elem_id="tags-write")
            back = gr.Button("Undo the last write", size="sm", elem_id="tags-undo")
        told = gr.HTML(elem_id="tags-told", apply_default_css=False, min_height=24)
    desk, planned = TagDesk(workstation), gr.State(Planned())
    # one at a time: each waits for the disk, and the journal lets only one write
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "tags", "api_visibility": "private"}
    outputs = [told, go, back]
    for option in (way, percent, n_genres):
        option.input(
            desk.forget,
            [planned, way, percent, n_genres],
            outputs,
            trigger_mode="always_last",
            show_progress="hidden",
            **one,
        )
    look.click(desk.plan, [shelf, planned, way, percent, n_genres], outputs, **one)
    go.click(desk.write, [planned], outputs, **one)
    back.click(desk.undo, [planned], outputs, **one)


def plan_table(changes: Sequence[Any]) -> str:
    """Every change, those that write first; as many as N_SHOWN, and how many there are of each kind."""
    writes = [change for change in changes if change.writes]
    left = Counter(change.reason for change in changes if not change.writes)
    reasons = "".join(f" · {n:,} {plain(reason)}" for reason, n in left.most_common())
    summary = (
        f'<p class="as-summary" role="status"><strong>{wording.counted(len(writes), "file")}</strong> would be written'
        f"{reasons}</p>"
    )
    shown = [*writes, *(change for change in changes if not change.writes)][:N_SHOWN]
    more = f'<p class="as-note">And {len(changes) - len(shown):,} more.</p>' if len(changes) > len(shown) else ""
    if not shown:
        return summary
    return (
        f'{summary}<div class="as-scroll" tabindex="0" role="region" aria-label="Dry run"><table class="as-plan">'
        '<thead><tr><th scope="col">File</th><th scope="col">Genre now</th><th scope="col">Genre then</th></tr></thead>'
        f"<tbody>{''.join(_plan_row(change) for change in shown)}</tbody></table></div>{more}"
    )


def _plan_row(change: Any) -> str:
    path = shown_path(change.path)
    then = f"<strong>{_genres(change.after)}</strong> {_whose(change)}" if change.writes else _reason(change)
    return (
        f'<tr><td class="as-plan-file" title="{plain(path)}">{isolated(path.rsplit("/", 1)[-1])}</td>'
        f"<td>{_genres(change.before) or 'none'}</td>"
        f'<td class="{"" if change.writes else "as-plan-left"}">{then}</td></tr>'
    )


def _whose(change: Any) -> str:
    if change.source == "person":
        return '<span class="as-note">you decided</span>'
    return f'<span class="as-note">{wording.percent(change.confidence or 0.0)}</span>'


def _reason(change: Any) -> str:
    return f"left alone: {plain(change.reason)}{f' ({plain(change.detail)})' if change.detail else ''}"


def _genres(genres: Sequence[str]) -> str:
    return ", ".join(isolated(genre) for genre in genres)


def outcome(written: Any, what: str) -> str:
    """How a write or an undo ended; each file that failed, and why."""
    failed = written.failures
    n = len(written.outcomes) - len(failed)
    rows = "".join(
        f"<li>{isolated(shown_path(one.path))}: {plain(wording.sentence(one.error.message))}</li>"
        for one in failed[:N_SHOWN]
    )
    sign = CROSS if failed else TICK
    return (
        f'<p class="as-summary" role="status">{sign} <strong>{wording.counted(n, "file")}</strong> {what}'
        f"{f' · {len(failed):,} left as they were' if failed else ''}</p>"
        f"{f'<ul class=as-note>{rows}</ul>' if rows else ''}"
    )


def _told(error: AcousticError) -> str:
    words = f"{wording.sentence(error.message)} {error.hint}"
    return f'<p class="as-note" role="alert">{CROSS} {plain(words)}</p>'
