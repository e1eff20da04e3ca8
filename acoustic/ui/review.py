"""The Review tab: the songs that deserve a person, one key each.

The page holds the next songs and shows a decision at once; what it sends is answered when it is on disk. Its script
(assets/review.js) does that, and asks a ReviewDesk for everything. Only the picture comes as an ordinary event.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import AcousticError
from ..workstation import reviewing
from . import figures, theme
from .colours import named_colour
from .review_desk import ReviewDesk

if TYPE_CHECKING:
    from ..workstation import Workstation

KEYS = (
    ("1 2 3", "choose one of the three likeliest genres"),
    ("a letter", "search a genre; Enter chooses the first one found"),
    ("/", "search a genre that begins with s, u or n"),
    ("n", "not music"),
    ("s", "skip: the song comes again after all others"),
    ("u", "undo the last step"),
    ("space", "play or pause, from the most ambiguous place on"),
    ("+", "the next choice is for the whole album"),
    ("Esc", "close what is open"),
    ("?", "this list"),
)
MAIN_HTML = """
<section class="rv" aria-label="Review">
  <p class="rv-notice" role="alert" hidden></p>
  <p class="rv-saved" role="status"></p>
  <article class="as-card rv-song" hidden>
    <header class="rv-head"><div class="rv-names"><h2><bdi class="rv-name"></bdi></h2><p class="rv-by"></p>
      <p class="rv-path"><bdi></bdi></p></div></header>
    <p class="rv-why"></p>
    <div class="rv-top" role="group" aria-label="The likeliest genres"></div>
    <div class="rv-actions" role="group" aria-label="Other answers">
      <button type="button" class="rv-button" data-do="search"><kbd>/</kbd> Other genre</button>
      <button type="button" class="rv-button" data-do="not-music"><kbd>n</kbd> Not music</button>
      <button type="button" class="rv-button" data-do="skip"><kbd>s</kbd> Skip</button>
      <button type="button" class="rv-button" data-do="undo"><kbd>u</kbd> Undo</button>
      <button type="button" class="rv-button" data-do="album" aria-pressed="false"><kbd>+</kbd> Same album</button>
      <button type="button" class="rv-button" data-do="help" aria-label="Keys"><kbd>?</kbd></button>
    </div>
    <div class="rv-album" hidden></div>
    <div class="rv-chips" role="group" aria-label="All genres"></div>
    <div class="rv-player"><audio controls preload="metadata" aria-label="Song"></audio>
      <p class="rv-unplayable" role="status" hidden></p><ul class="rv-segments" aria-label="Segments"></ul></div>
  </article>
  <div class="as-card rv-empty" role="status"><p><strong>One moment …</strong></p></div>
  <div class="rv-over rv-search" role="dialog" aria-label="Choose a genre" hidden><div class="rv-box">
    <input type="text" role="combobox" aria-expanded="true" aria-controls="rv-found" aria-label="Genre"
      autocomplete="off" spellcheck="false" placeholder="Type a genre" maxlength="60">
    <ul id="rv-found" role="listbox" aria-label="Genres"></ul></div></div>
  <div class="rv-over rv-help" role="dialog" aria-label="Keys" hidden><div class="rv-box"><h3>Keys</h3><dl>{keys}</dl>
    <button type="button" class="rv-button" data-do="close">Close</button></div></div>
</section>
"""
SIDE_HTML = """
<aside class="rv-side" aria-label="Queue and progress">
  <section class="as-card"><h3>Progress</h3><dl class="rv-numbers">
    <div><dt>Left</dt><dd data-number="n_left">–</dd></div><div><dt>Decided</dt><dd data-number="n_decided">–</dd></div>
    <div><dt>You agree</dt><dd data-number="agreement">–</dd></div>
    <div><dt>Minutes</dt><dd data-number="minutes">–</dd></div></dl>
    <label class="rv-field">Flagged because <select class="rv-reason"></select></label>
    <label class="rv-field">Deciding as <input class="rv-who" type="text" maxlength="60" autocomplete="off"></label>
  </section>
  <section class="as-card"><h3>Next</h3><ol class="rv-queue"></ol></section>
  <section class="as-card"><h3>Learn from my decisions</h3><div class="rv-lesson"></div>
    <p class="rv-told" role="status"></p></section>
  <section class="as-card"><h3>Last decisions</h3><ul class="rv-history"></ul></section>
  <section class="as-card"><h3>Is the model as right as it is sure?</h3><div class="rv-chart"></div></section>
</aside>
"""


def build(workstation: Workstation, upload_folder: Path) -> ReviewDesk:
    """Lay the tab out inside the current Blocks and wire it."""
    desk = ReviewDesk(workstation, upload_folder)
    keys = "".join(f"<div><dt><kbd>{key}</kbd></dt><dd>{meaning}</dd></div>" for key, meaning in KEYS)
    with gr.Row(elem_classes="rv-page", elem_id="review"):
        with gr.Column(elem_classes="rv-left", scale=7, min_width=320):
            main = gr.HTML(
                MAIN_HTML.replace("{keys}", keys),
                elem_id="review-main",
                apply_default_css=False,
                js_on_load=theme.script("review.js"),
                server_functions=desk.functions(),
            )
            with gr.Column(elem_classes="as-card rv-picture", elem_id="review-picture"):
                picture = gr.Plot(show_label=False, container=False, elem_id="review-plot")
        with gr.Column(elem_classes="rv-right", scale=3, min_width=300):
            gr.HTML(SIDE_HTML, elem_id="review-side", apply_default_css=False)

    def paint(event: gr.EventData) -> Any:
        return picture_of(workstation, desk, int(event.track))

    # A picture is returned, never yielded, and of several that were asked for only the last is drawn.
    main.picture(
        paint,
        None,
        [picture],
        trigger_mode="always_last",
        concurrency_limit=2,
        show_progress="hidden",
        api_visibility="private",
    )
    return desk


def picture_of(workstation: Workstation, desk: ReviewDesk, track_id: int) -> Any:
    """Spectrogram and segments of a song, which say whose they are; None where the song's votes cannot be shown."""
    try:
        analysis = reviewing.kept_analysis(workstation, track_id)
    except AcousticError:
        return None
    try:
        figure = figures.track_figure(analysis, desk.overview(track_id))
    except AcousticError as error:
        figure = figures.track_figure(analysis, note=f"No spectrogram: {error.message}")
    verdict, built_in = analysis.verdict, workstation.base().labels
    heard = (verdict.labels[best] for best in verdict.segment_probabilities.argmax(axis=1))
    colours = [named_colour(genre, built_in) for genre in heard]  # as the buttons have them
    figure.update_traces(marker={"color": colours}, selector={"type": "bar"})
    figure.update_layout(meta={"duration_s": analysis.duration_s, "track": track_id})
    return figure
