"""The tab on which songs are dropped and answered.

The order of events is the order of what a person waits for: drop -> rows with progress -> the first verdict, at once ->
then the pictures -> then the descriptors. What is slow never holds back what is fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import AcousticError
from . import cards, figures, uploads
from .desk import Desk, run

if TYPE_CHECKING:
    from ..workstation import Workstation

DEMO_NAME = "Demo clip (synthetic)"
SHOW = [("All files", "all"), ("Needs review", "review"), ("Errors", "errors")]

# A click anywhere in a row chooses it; the button in it makes it reachable by keyboard. Gradio drops an event while
# the one before it is under way, so a choice is asked for again until the table shows it, for 3 s: what it showed
# already may still be followed by the answer to the choice before.
PICK_JS = """
let wanted = null, timer = 0;
function ask(n, calm) {
  const row = element.querySelector(`tr[data-index='${wanted}']`);
  if (!row || calm > 12 || n > 40) return;
  const shown = row.hasAttribute('aria-current');
  if (!shown) trigger('select', { index: Number(wanted) });
  timer = setTimeout(ask, 250, n + 1, shown ? calm + 1 : 0);
}
element.addEventListener('click', (event) => {
  const row = event.target.closest('tr[data-index]');
  if (!row || !row.querySelector('button.as-pick')) return;
  clearTimeout(timer);
  wanted = row.dataset.index;
  trigger('select', { index: Number(wanted) });
  timer = setTimeout(ask, 250, 0, 0);
});
"""


@dataclass(frozen=True)
class Parts:
    """The components that handlers write to."""

    drop: gr.File
    files: gr.HTML
    csv: gr.DownloadButton
    json: gr.DownloadButton
    verdict: gr.HTML
    track: gr.Plot
    player: gr.HTML
    tags: gr.HTML
    descriptors: gr.HTML
    timings: gr.Plot


Updates = dict[Any, Any]


def build(workstation: Workstation, desk: gr.State, upload_folder: Path) -> None:
    """Lay the tab out inside the current Blocks and wire it."""
    with gr.Row(elem_classes="as-top"):
        with gr.Column(elem_classes="as-left", scale=1, min_width=300):
            drop = gr.File(
                label="Songs",
                show_label=False,
                file_count="multiple",
                height=190,
                elem_id="drop",
                elem_classes="as-drop",
            )
            demo = gr.Button("Try the demo clip (synthetic)", variant="secondary", elem_id="demo")
            gr.HTML(
                '<p class="as-note">WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, M4A, WMA, WebM. The files are analysed where '
                "AcousticSense runs and go nowhere else.</p>"
            )
        with gr.Column(elem_classes="as-right-column", scale=3, min_width=320):
            with gr.Row(elem_classes="as-tools"):
                show = gr.Radio(SHOW, value="all", label="Show", show_label=False, container=False, elem_id="show")
                with gr.Row(elem_classes="as-buttons"):
                    csv = gr.DownloadButton("CSV", size="sm", interactive=False, elem_id="csv", min_width=70)
                    json = gr.DownloadButton("JSON", size="sm", interactive=False, elem_id="json", min_width=70)
                    clear = gr.Button("Clear", size="sm", elem_id="clear", min_width=70)
            files = gr.HTML(cards.files(Desk()), elem_id="files", js_on_load=PICK_JS, apply_default_css=False)
    # Always rendered, and shown by the style sheet once there is a verdict: an update that reaches a component between
    # its column's becoming visible and its own mounting would be lost.
    with gr.Column(elem_classes="as-detail", elem_id="detail"):
        with gr.Row(elem_classes="as-main"):
            with gr.Column(scale=2, min_width=300):
                verdict = gr.HTML(elem_id="verdict", apply_default_css=False)
            with gr.Column(scale=3, min_width=300, elem_classes="as-card as-track", elem_id="track"):
                gr.HTML("<h3>Along the track</h3>", apply_default_css=False)
                track = gr.Plot(show_label=False, container=False, elem_id="track-plot")
                player = gr.HTML(elem_id="player", apply_default_css=False)
        with gr.Row(elem_classes="as-more", equal_height=True):
            tags = gr.HTML(elem_id="tags", apply_default_css=False, min_height=10)
            descriptors = gr.HTML(elem_id="descriptors", apply_default_css=False)
            with gr.Column(elem_classes="as-card as-timings", elem_id="timings", min_width=300):
                gr.HTML("<h3>Where the milliseconds went</h3>", apply_default_css=False)
                timings = gr.Plot(show_label=False, container=False, elem_id="timings-plot")
    parts = Parts(drop, files, csv, json, verdict, track, player, tags, descriptors, timings)
    _wire(workstation, desk, upload_folder, parts, show=show, demo=demo, clear=clear)


def _wire(
    workstation: Workstation,
    desk: gr.State,
    upload_folder: Path,
    parts: Parts,
    *,
    show: gr.Radio,
    demo: gr.Button,
    clear: gr.Button,
) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    latest: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_limit": 4, **quiet}
    first = [parts.files, parts.csv, parts.json, parts.verdict, parts.player, parts.tags, parts.descriptors]

    def dropped(payload: Sequence[Mapping[str, Any]] | None, mine: Desk) -> Iterator[Updates]:
        # the drop zone is emptied at once, so that the next drop can follow while this one is analysed
        yield from _answer(mine, uploads.received(payload), workstation, upload_folder, parts, {parts.drop: None})

    def demonstrate(mine: Desk) -> Iterator[Updates]:
        clip = uploads.borrowed(workstation.demo_clip(), upload_folder)
        yield from _answer(mine, [(DEMO_NAME, str(clip))], workstation, upload_folder, parts, {})

    def choose(mine: Desk, event: gr.EventData) -> Updates:
        index = int(event.index)
        if 0 <= index < len(mine.entries) and mine.entries[index].result is not None:
            mine.chosen = index
        return {parts.files: cards.files(mine), **_chosen(mine, parts)}

    def sketch(mine: Desk) -> Updates:
        return _sketch(mine, parts)

    def paint(mine: Desk) -> Updates:
        return _paint(mine, workstation, parts)

    def measure(mine: Desk) -> Updates:
        return _measure(mine, workstation, upload_folder, parts)

    def filtered(mine: Desk, wanted: Any) -> str:
        mine.show = wanted
        return cards.files(mine)

    def cleared(mine: Desk) -> Updates:
        mine.clear()
        off = gr.update(value=None, interactive=False)
        updates = {show: "all", parts.drop: None, parts.files: cards.files(mine), parts.csv: off, parts.json: off}
        return {**updates, **_chosen(mine, parts)}

    # payloads of the drop zone are taken raw: only they hold the names that the person gave the files
    parts.drop.upload(
        dropped,
        [parts.drop, desk],
        [parts.drop, *first],
        preprocess=False,
        concurrency_limit=8,
        trigger_mode="multiple",  # else what is dropped while others are analysed is lost without a word
        **quiet,
    )
    demo.click(demonstrate, [desk], first, concurrency_limit=8, **quiet)
    parts.files.select(choose, [desk], first, concurrency_limit=None, **quiet)
    # Plots are returned, never yielded. Of a generator Gradio sends the differences, and its browser side works them,
    # in place, into the value that came before. A plot that the next value leaves as it is thereby vanishes from the
    # earlier message, and is lost if that has not been shown yet: because the component's code was still on its way, or
    # the messages overtook the answer to the request. Text cannot be changed in place, so a verdict may be yielded.
    drawn = parts.verdict.change(sketch, [desk], [parts.track, parts.timings], **latest)
    painted = drawn.then(paint, [desk], [parts.track], **latest)
    painted.then(measure, [desk], [parts.descriptors, parts.csv, parts.json], **latest)
    show.input(filtered, [desk, show], [parts.files], concurrency_limit=None, **quiet)
    clear.click(cleared, [desk], [show, parts.drop, *first], concurrency_limit=None, **quiet)


def _answer(
    desk: Desk,
    new: Sequence[tuple[str, str]],
    workstation: Workstation,
    upload_folder: Path,
    parts: Parts,
    at_once: Updates,
) -> Iterator[Updates]:
    """Put the files on the desk and show them move; the first that has an answer is chosen."""
    edition = desk.edition
    indices = desk.add(new)
    by_us: int | None = None
    yield {**at_once, parts.files: cards.files(desk)}
    for finished in run(desk, indices, workstation):
        if desk.edition != edition:
            continue  # the person has cleared the table meanwhile; let the rest run out unseen
        best = next((i for i in finished if not desk.entries[i].failed), finished[0] if finished else None)
        # the first answer is shown; an error only until there is an answer, and never over the person's own choice
        if best is not None and (by_us is None or _gives_way(desk, by_us, best)):
            desk.chosen = by_us = best
            yield {parts.files: cards.files(desk), **_chosen(desk, parts)}
        else:
            yield {parts.files: cards.files(desk)}
    if desk.edition == edition:
        yield _downloads(desk, upload_folder, parts)


def _gives_way(desk: Desk, by_us: int, best: int) -> bool:
    return desk.chosen == by_us and desk.entries[by_us].failed and not desk.entries[best].failed


def _chosen(desk: Desk, parts: Parts) -> Updates:
    """All that is known at once about the chosen file."""
    entry = desk.current
    return {
        parts.verdict: cards.verdict(entry, key=f"{desk.edition}-{desk.chosen}"),
        parts.player: cards.player(entry, cards.file_url(entry.path)) if entry else "",
        parts.tags: cards.tags(entry),
        parts.descriptors: cards.descriptors(entry),
    }


def _sketch(desk: Desk, parts: Parts) -> Updates:
    """All pictures of the chosen file that need no more work, with a place kept for its spectrogram."""
    entry = desk.current
    analysis = entry.analysis if entry else None
    if analysis is None:
        return gr.skip()
    return {parts.track: figures.track_figure(analysis), parts.timings: figures.timings_figure(analysis)}


def _paint(desk: Desk, workstation: Workstation, parts: Parts) -> Updates:
    """The spectrogram of the chosen file; given up when another is chosen meanwhile."""
    entry = desk.current
    analysis = entry.analysis if entry else None
    if entry is None or analysis is None:
        return gr.skip()
    try:
        figure = figures.track_figure(analysis, workstation.overview(entry.path))
    except AcousticError as error:
        figure = figures.track_figure(analysis, note=f"No spectrogram: {error.message}")
    return {parts.track: figure} if desk.current is entry else gr.skip()


def _measure(desk: Desk, workstation: Workstation, upload_folder: Path, parts: Parts) -> Updates:
    """The descriptors of the chosen file, measured once; shown unless another is chosen meanwhile."""
    entry = desk.current
    analysis = entry.analysis if entry else None
    if entry is None or analysis is None:
        return gr.skip()
    news: Updates = {}
    if analysis.descriptors is None and entry.undescribed is None:
        try:
            entry.describe(workstation.describe(entry.path))
        except AcousticError as error:
            entry.undescribed = error.to_dict()
        news = _downloads(desk, upload_folder, parts)
    if desk.current is entry:
        news[parts.descriptors] = cards.descriptors(entry)
    return news or gr.skip()


def _downloads(desk: Desk, upload_folder: Path, parts: Parts) -> Updates:
    paths = desk.write_exports(upload_folder)
    if paths is None:
        return {}
    return {
        parts.csv: gr.update(value=str(paths[0]), interactive=True),
        parts.json: gr.update(value=str(paths[1]), interactive=True),
    }
