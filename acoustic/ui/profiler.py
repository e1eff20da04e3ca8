"""The Profiler tab: where the time goes, while it goes.

The frame stands here; its script (assets/profiler.js, which draws with assets/profiler_charts.js) asks a ProfilerDesk
for the numbers each second while work runs and the tab is seen, and for nothing otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from . import theme
from .profiler_desk import ProfilerDesk

if TYPE_CHECKING:
    from ..workstation import Workstation

TILES = (
    ("throughput", "Throughput"),
    ("median", "Median song"),
    ("queue", "Waiting"),
    ("known", "Known answers"),
    ("cpu", "CPU now"),
    ("memory", "Memory now"),
)
LINES = (("cpu", "CPU, %"), ("memory", "Memory, MB"), ("queue", "Queue"), ("disk", "Disk, MB/s"), ("gpu", "GPU, %"))
HTML = """
<section class="pf" aria-label="Profiler">
  <header class="as-card pf-head"><div><p class="pf-sentence" role="status">One moment …</p>
    <p class="as-note pf-state"><span class="pf-dot" aria-hidden="true"></span><span class="pf-told"></span></p></div>
    <div class="pf-buttons" role="group" aria-label="Download">
      <button type="button" class="pf-button" data-export="trace">Chrome trace</button>
      <button type="button" class="pf-button" data-export="csv">CSV</button></div></header>
  <p class="pf-notice" role="alert" hidden></p>
  <dl class="pf-tiles">{tiles}</dl>
  <div class="pf-grid">
    <article class="as-card pf-wide"><div class="pf-line"><h3>Stages of the last songs, in ms</h3>
      <ul class="pf-legend" aria-label="Stages"></ul></div><div class="pf-chart" data-chart="stacked"></div></article>
    <article class="as-card pf-wide"><div class="pf-line"><h3>One song, stage after stage, in ms</h3>
      <label class="pf-field"><span>Song</span> <select class="pf-run"></select></label></div>
      <div class="pf-chart" data-chart="waterfall"></div></article>
    <article class="as-card"><h3>Stages in ms</h3><div class="pf-scroll" tabindex="0" role="region"
      aria-label="Percentiles by stage"><table class="pf-table pf-percentiles"><thead><tr><th scope="col">Stage</th>
      <th scope="col">p50</th><th scope="col">p90</th><th scope="col">p99</th><th scope="col">songs</th></tr></thead>
      <tbody></tbody></table></div></article>
    <article class="as-card"><h3>Segments in a network call</h3><div class="pf-chart" data-chart="batches"></div>
    </article>
    {lines}
    <article class="as-card pf-wide"><h3>How the network is run</h3><p class="pf-backend"></p>
      <p class="as-note pf-chosen"></p><div class="pf-scroll" tabindex="0" role="region" hidden
      aria-label="What was measured"><table class="pf-table pf-candidates"><thead></thead><tbody></tbody>
      </table></div><div class="pf-compile" hidden><h4>Compiled graphs</h4><div class="pf-scroll" tabindex="0"
      role="region" aria-label="What was compiled"><table class="pf-table pf-compiled"><thead><tr>
      <th scope="col">Batch</th><th scope="col">State</th><th scope="col">ms, the first call</th>
      <th scope="col">ms, eager</th><th scope="col">ms, compiled</th><th scope="col">Cosine</th>
      <th scope="col">Calls</th></tr></thead><tbody></tbody></table></div></div>
      <p class="as-note pf-made" hidden></p></article>
    <article class="as-card pf-wide pf-what-if"><h3>What if?</h3>
      <p class="as-note">The same song, analysed in two ways that take turns. Nothing of it is kept.</p>
      <form class="pf-form"><label class="pf-field pf-song"><span>Song</span> <select name="song"></select></label>
        {ways}
        <div class="pf-buttons"><button type="submit" class="pf-button pf-go">Compare</button>
        <button type="button" class="pf-button" data-do="stop" hidden>Stop</button></div></form>
      <p class="pf-progress" role="status"></p><div class="pf-result"></div></article>
  </div>
</section>
"""
WAY = """<fieldset class="pf-way" data-way="{key}"><legend>{name}</legend>
  <label class="pf-field"><span>Segments</span> <input name="n_segments" type="number" min="0" max="64" step="1"
    value="{n}" title="0 is the model's own number"></label>
  <label class="pf-field"><span>Backend</span> <select name="backend"></select></label>
  <label class="pf-field"><span>Precision</span> <select name="precision"></select></label>
  <label class="pf-check"><input name="denoise" type="checkbox"> <span>Denoise</span></label></fieldset>"""


def build(workstation: Workstation) -> ProfilerDesk:
    """Lay the tab out inside the current Blocks and wire it."""
    desk = ProfilerDesk(workstation)
    tiles = "".join(
        f'<div class="pf-tile"><dt>{name}</dt><dd data-tile="{key}">–</dd>'
        f'<dd class="pf-more" data-more="{key}"></dd></div>'
        for key, name in TILES
    )
    lines = "".join(
        f'<article class="as-card{" pf-wide" if key == "gpu" else ""}"><h3>{name}</h3>'
        f'<p class="as-note pf-now" data-now="{key}"></p>'
        f'<div class="pf-chart" data-chart="{key}"></div></article>'
        for key, name in LINES
    )
    ways = WAY.format(key="first", name="First way", n=0) + WAY.format(key="second", name="Second way", n=1)
    gr.HTML(
        HTML.replace("{tiles}", tiles).replace("{lines}", lines).replace("{ways}", ways),
        elem_id="profiler",
        apply_default_css=False,
        js_on_load=theme.script("profiler_charts.js") + theme.script("profiler.js"),
        server_functions=desk.functions(),
    )
    return desk
