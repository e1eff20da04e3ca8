"""The Library tab: scan a folder, find songs, hear them, see them on a map, take them along as a playlist.

This file lays it out and wires it; library_desk does what is asked; library_table, library_map and library_scan show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import AcousticError
from . import library_map, library_scan, library_tags, theme
from .library_desk import ANY, LibraryDesk, Parts
from .library_scan import Scan, ScanDesk
from .shelf import Shelf

if TYPE_CHECKING:
    from ..workstation import Workstation

TICK_S = 1.0
FLAGS = [
    ("All songs", "all"),
    ("To review", "review"),
    ("Decided by you", "decided"),
    ("Not decided", "undecided"),
    ("Duplicates", "duplicates"),
    ("Not there now", "missing"),
    ("Failed files", "errors"),
]
MAP_HTML = """
<div class="as-map"><canvas role="img" aria-label="Map of the library: songs that sound alike lie near each other. The \
table holds the same songs."></canvas>
<div class="as-map-tip" hidden><strong class="as-map-tip-name" dir="auto"></strong><span class="as-map-tip-artist" \
dir="auto"></span><span class="as-map-tip-last"><span class="as-dot"></span><span class="as-map-tip-genre" dir="auto">\
</span></span></div>
<div class="as-map-tools"><button type="button" data-map="lasso" aria-pressed="true">Lasso</button>
<button type="button" data-map="in" aria-label="Zoom in">+</button><button type="button" data-map="out" \
aria-label="Zoom out">−</button><button type="button" data-map="whole">Whole</button></div>
<p class="as-map-note" role="status" hidden></p></div>
"""
MARKS_JS = "watch('value', () => document.dispatchEvent(new Event('as-marks')));"


def build(
    workstation: Workstation, upload_folder: Path, arrival: Callable[..., Any], scan: Scan | None = None
) -> Parts:
    """Lay the tab out inside the current Blocks and wire it.

    `arrival` is the listener (a tab's `select`, a page's `load`) at which it is brought up to date; `scan` takes the
    place of the workstation's own.
    """
    shelf = gr.State(Shelf())  # copied for each session
    clicks: dict[str, Any] = {"js_on_load": theme.script("library.js"), "apply_default_css": False}
    with gr.Column(elem_classes="as-library", elem_id="library"):
        scanning = _scan_card()
        tiles = gr.HTML(elem_id="library-tiles", **clicks)
        with gr.Row(elem_classes="as-library-body"):
            with gr.Column(elem_classes="as-library-left", scale=9, min_width=320):
                with gr.Column(elem_classes="as-card as-library-songs"):
                    filters = _filters()
                    with gr.Row(elem_classes="as-library-tools"):
                        summary = gr.HTML(elem_id="library-summary", **clicks)
                        with gr.Row(elem_classes="as-buttons"):
                            alike = gr.Button("More like these", size="sm", elem_id="library-alike")
                            playlist = gr.Button("Playlist", size="sm", elem_id="library-playlist")
                            csv = gr.Button("CSV", size="sm", elem_id="library-csv")
                    told = gr.HTML(elem_id="library-told", **clicks)
                    table = gr.HTML(elem_id="library-table", **clicks)
                similar = gr.HTML(elem_id="library-similar", **clicks)
                library_tags.build(workstation, shelf)
            with gr.Column(elem_classes="as-library-right", scale=5, min_width=320):
                method, songs_map = _map_card(workstation)
                genres = gr.HTML(elem_id="library-genres", **clicks)
                histogram = gr.HTML(elem_id="library-confidence", **clicks)
        player = gr.HTML(elem_id="library-player", **clicks)
        marks = gr.HTML(elem_id="library-marks", js_on_load=MARKS_JS, apply_default_css=False)
    parts = Parts(
        folder=scanning["folder"],
        stop=scanning["stop"],
        scan_status=scanning["status"],
        tiles=tiles,
        **filters,
        summary=summary,
        told=told,
        table=table,
        similar=similar,
        map=songs_map,
        genres=genres,
        histogram=histogram,
        player=player,
        marks=marks,
    )
    desk = LibraryDesk(workstation, upload_folder, ScanDesk(scan or library_scan.of(workstation)), parts)
    _wire(desk, shelf, method, arrival, {"scan": scanning["go"], "alike": alike, "playlist": playlist, "csv": csv})
    return parts


def _scan_card() -> dict[str, Any]:
    with gr.Column(elem_classes="as-card as-scan"):
        with gr.Row(elem_classes="as-scan-row"):
            folder = gr.Textbox(
                label="Folder to scan",
                show_label=False,
                container=False,
                placeholder="A folder with music, for example ~/Music",
                max_lines=1,
                elem_id="library-folder",
                scale=5,
                min_width=160,
            )
            go = gr.Button("Scan", variant="primary", elem_id="library-scan", min_width=80, scale=0)
            stop = gr.Button("Stop", elem_id="library-stop", min_width=80, scale=0, interactive=False)
        status = gr.HTML(elem_id="library-scan-status", apply_default_css=False)
    return {"folder": folder, "go": go, "stop": stop, "status": status}


def _filters() -> dict[str, Any]:
    """The filters, under their names in Parts. Numbers have no bounds here: Gradio answers one out of bounds with a
    traceback, the desk takes the nearest that makes sense."""
    with gr.Row(elem_classes="as-filters"):
        return {
            "text": gr.Textbox(
                label="Search", placeholder="Title, artist, album, path", max_lines=1, elem_id="library-text"
            ),
            "genre": gr.Dropdown([ANY], value=ANY, label="Genre", elem_id="library-genre"),
            "flag": gr.Dropdown(FLAGS, value="all", label="Show", elem_id="library-flag"),
            "low": gr.Number(0, label="Confidence ≥ %", elem_id="library-low"),
            "high": gr.Number(100, label="Confidence ≤ %", elem_id="library-high"),
            "inside": gr.Dropdown([ANY], value=ANY, label="Folder", allow_custom_value=True, elem_id="library-inside"),
            "model": gr.Dropdown([ANY], value=ANY, label="Model", elem_id="library-model"),
        }


def _map_card(workstation: Workstation) -> tuple[gr.Radio, gr.HTML]:
    with gr.Column(elem_classes="as-card as-map-card"):
        with gr.Row(elem_classes="as-card-head"):
            gr.HTML("<h3>Map of what sounds alike</h3>", apply_default_css=False)
            method = gr.Radio(
                [("PCA", "pca"), ("UMAP", "umap")],
                value="pca",
                label="Projection of the map",
                show_label=False,
                container=False,
                elem_id="library-method",
            )
        songs_map = gr.HTML(
            "",
            html_template=MAP_HTML,
            js_on_load=theme.script("map.js"),
            server_functions=[_hovered(workstation)],
            elem_id="library-map",
            apply_default_css=False,
        )
    return method, songs_map


def _hovered(workstation: Workstation) -> Callable[[int], dict[str, str]]:
    def hovered(track_id: int) -> dict[str, str]:
        """What the map shows of the song under the pointer; called by the map's script."""
        labels = tuple(workstation.status().get("labels", ()))
        try:
            return library_map.hovered(workstation.library.catalogue.track(int(track_id)), labels)
        except (AcousticError, TypeError, ValueError):
            return library_map.hovered(None, ())

    return hovered


def _wire(
    desk: LibraryDesk,
    shelf: gr.State,
    method: gr.Radio,
    arrival: Callable[..., Any],
    buttons: dict[str, gr.Button],
) -> None:
    parts = desk.parts
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    quick: dict[str, Any] = {"concurrency_limit": None, **quiet}
    latest: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_limit": 4, **quiet}
    # What shows songs goes one after the other, so that what a later one shows comes later; of clicks each counts,
    # however soon it follows another. What may take long (a projection, a file from a slow disk) stands in no line.
    in_line: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "shelf", **quiet}
    each: dict[str, Any] = {"trigger_mode": "multiple", **in_line}
    last: dict[str, Any] = {"trigger_mode": "always_last", **in_line}
    map_parts = [parts.map, parts.told]

    arrived = arrival(desk.arrive, [shelf], parts.all, **last)
    arrived.then(desk.redraw, [shelf, method], map_parts, **latest)
    arrived.then(desk.play, [shelf], [parts.player, parts.told], **latest)
    ticked = gr.Timer(TICK_S).tick(desk.tick, [shelf], parts.all, **last)
    ticked.then(desk.redraw, [shelf, method], map_parts, **latest)
    scan_parts = [parts.scan_status, parts.stop]
    buttons["scan"].click(desk.scan, [shelf, parts.folder], scan_parts, **quick)
    parts.folder.submit(desk.scan, [shelf, parts.folder], scan_parts, **quick)
    parts.stop.click(desk.stop, [shelf], scan_parts, **quick)
    for name, control in parts.filters.items():
        # a text box tells `input` of keys but not of what is pasted into it at first
        listen = control.change if name == "text" else control.input
        changed = listen(desk.filter_by(name), [shelf, control], parts.rows, **last)
        changed.then(desk.numbers, [shelf], parts.numbers, **last)
    clickable = (
        parts.tiles,
        parts.summary,
        parts.table,
        parts.similar,
        parts.map,
        parts.genres,
        parts.histogram,
        parts.player,
    )
    for clicked in clickable:
        done = clicked.select(desk.act, [shelf], [*parts.filters.values(), *parts.rows], **each)
        done.then(desk.play, [shelf], [parts.player, parts.told], **latest)
        done.then(desk.numbers, [shelf], parts.numbers, **last)
    buttons["alike"].click(desk.alike, [shelf], parts.rows, **each)
    buttons["playlist"].click(desk.playlist, [shelf], [parts.told], **quick)
    buttons["csv"].click(desk.csv, [shelf], [parts.told], **quick)
    # UMAP takes minutes for a large library
    drawn: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_limit": 1, "api_visibility": "private"}
    method.input(desk.draw, [shelf, method], map_parts, **drawn)
