"""Records -> plotly figures. Pure: no page, no files, no clock.

Both backgrounds are transparent and the lettering is coloured by the page's style sheet, so that one figure serves the
light and the dark page.
"""

from __future__ import annotations

import html
import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..records import Analysis, Overview
from . import wording
from .colours import INK, SPECTROGRAM_SCALE, genre_colour

TICKS_HZ = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
SPECTROGRAM_PX = 260
LANE_PX = 34  # one row of segments; a single lane is higher, so that names can stand upright in narrow segments
SINGLE_LANE_PX = 66
GAP_PX, TOP_PX, BOTTOM_PX, LEFT_PX, RIGHT_PX = 10, 8, 44, 68, 50
RANGE_DB = 80.0  # what is shown below the loudest bin
AXIS_COLOUR = "#7b8794"
BAR_COLOUR = "#0d9488"
TICK_GAP_PX = 15  # ticks nearer than this would write over each other
WATERFALL_ROW_PX = 34


def lanes(start_s: tuple[float, ...], end_s: tuple[float, ...]) -> list[int]:
    """Row of each segment, so that segments that overlap in time never cover each other (first fit by start time)."""
    free_at: list[float] = []
    rows = [0] * len(start_s)
    for i in sorted(range(len(start_s)), key=lambda i: start_s[i]):
        row = next((r for r, end in enumerate(free_at) if end <= start_s[i] + 1e-6), len(free_at))
        free_at[row:] = [end_s[i], *free_at[row + 1 :]]
        rows[i] = row
    return rows


def band_position(hz: float, mel_hz: np.ndarray) -> float:
    """Where `hz` lies between the bands, as a fractional band index (linear between neighbouring centres)."""
    return float(np.interp(hz, mel_hz, np.arange(len(mel_hz))))


def hz_label(hz: float) -> str:
    return f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz:g} Hz"


def track_figure(
    analysis: Analysis, overview: Overview | None = None, *, note: str = "Drawing the spectrogram …"
) -> go.Figure:
    """Mel spectrogram of the whole track above its segments, on one time axis.

    Without an `overview` the upper panel holds `note` instead; the geometry is the same, so nothing jumps when the
    spectrogram arrives.
    """
    rows = lanes(analysis.start_s, analysis.end_s)
    n_lanes = max(rows, default=0) + 1
    strip_px = SINGLE_LANE_PX if n_lanes == 1 else LANE_PX * n_lanes
    inner_px = SPECTROGRAM_PX + GAP_PX + strip_px
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=GAP_PX / inner_px,
        row_heights=[SPECTROGRAM_PX / (inner_px - GAP_PX), strip_px / (inner_px - GAP_PX)],
    )
    if overview is None:
        _add_note(figure, note)
    else:
        _add_spectrogram(figure, overview, colour_bar_share=SPECTROGRAM_PX / inner_px)
    _add_segments(figure, analysis, rows)
    figure.update_xaxes(range=[0, analysis.duration_s], fixedrange=True, zeroline=False, showgrid=False)
    figure.update_xaxes(
        title={"text": "Time (s)", "standoff": 6}, ticks="outside", ticklen=4, tickcolor=AXIS_COLOUR, row=2, col=1
    )
    # fractions of a lane's height keep the rectangles apart; lane 0 is the upper one
    figure.update_yaxes(range=[n_lanes - 0.5, -0.5], tickvals=[(n_lanes - 1) / 2], ticktext=["Segments"], row=2, col=1)
    figure.update_yaxes(fixedrange=True, zeroline=False, showgrid=False, ticklabelstandoff=2)
    _style(figure, height=inner_px + TOP_PX + BOTTOM_PX, right_px=RIGHT_PX)
    figure.update_layout(bargap=0.0, dragmode=False, hovermode="closest", meta={"duration_s": analysis.duration_s})
    return figure


def _add_note(figure: go.Figure, note: str) -> None:
    figure.add_annotation(
        text=html.escape(note), xref="x domain", yref="y domain", x=0.5, y=0.5, showarrow=False, row=1, col=1
    )
    figure.update_yaxes(range=[0, 1], showticklabels=False, row=1, col=1)


def _add_spectrogram(figure: go.Figure, overview: Overview, *, colour_bar_share: float) -> None:
    """The rows are the mel bands, evenly spaced; ticks stand where round frequencies lie between them."""
    mel_db, mel_hz = overview.mel_db, overview.mel_hz
    loudest = float(np.max(mel_db, initial=-200.0))
    # whole decibels in one byte each: four times less to send than float32, and no eye sees the difference
    below = np.clip(np.round(mel_db - loudest), -RANGE_DB, 0).astype(np.int8)
    figure.add_trace(
        go.Heatmap(
            z=below,
            x=overview.times_s.astype(np.float32),
            y=_band_names(mel_hz),
            zmin=-RANGE_DB,
            zmax=0,
            colorscale=SPECTROGRAM_SCALE,
            hovertemplate="%{x:.1f} s, %{y}: %{z} dB<extra></extra>",
            colorbar={
                "thickness": 8,
                "outlinewidth": 0,
                "len": colour_bar_share,
                "lenmode": "fraction",
                "y": 1.0,
                "yanchor": "top",
                "x": 1.0,
                "xpad": 8,
                "ypad": 0,
                "tickvals": [0, -20, -40, -60, -80],
                "ticktext": ["0 dB", "−20", "−40", "−60", "−80"],
            },
        ),
        row=1,
        col=1,
    )
    shown = _frequency_ticks(mel_hz)
    figure.update_yaxes(
        type="category",
        range=[-0.5, len(mel_hz) - 0.5],
        tickvals=[band_position(hz, mel_hz) for hz in shown],
        ticktext=[hz_label(hz) for hz in shown],
        ticks="outside",
        ticklen=4,
        tickcolor=AXIS_COLOUR,
        row=1,
        col=1,
    )


def _frequency_ticks(mel_hz: np.ndarray) -> list[float]:
    """Round frequencies within the bands, from the top down, those left out that would touch the one above."""
    px_a_band = SPECTROGRAM_PX / len(mel_hz)
    shown: list[float] = []
    for hz in reversed(TICKS_HZ):
        if not mel_hz[0] <= hz <= mel_hz[-1]:
            continue
        if not shown or (band_position(shown[-1], mel_hz) - band_position(hz, mel_hz)) * px_a_band >= TICK_GAP_PX:
            shown.append(hz)
    return shown


def _band_names(mel_hz: np.ndarray) -> list[str]:
    """One distinct name a band, for the hover: a category axis merges equal names."""
    for decimals in range(6):
        names = [f"{hz:.{decimals}f} Hz" for hz in mel_hz]
        if len(set(names)) == len(names):
            return names
    return [f"band {i}" for i in range(len(mel_hz))]


def _add_segments(figure: go.Figure, analysis: Analysis, rows: list[int]) -> None:
    verdict = analysis.verdict
    best = verdict.segment_probabilities.argmax(axis=1)
    names = [html.escape(verdict.labels[b]) for b in best]
    shares = [wording.percent(float(p[b])) for p, b in zip(verdict.segment_probabilities, best, strict=True)]
    figure.add_trace(
        go.Bar(
            orientation="h",
            base=list(analysis.start_s),
            x=[end - start for start, end in zip(analysis.start_s, analysis.end_s, strict=True)],
            y=rows,
            width=0.86,
            text=names,
            textposition="inside",
            insidetextanchor="middle",
            textfont={"size": 12, "color": INK},
            customdata=[
                [number, name, share, wording.clock(start), wording.clock(end)]
                for number, (name, share, start, end) in enumerate(
                    zip(names, shares, analysis.start_s, analysis.end_s, strict=True), start=1
                )
            ],
            hovertemplate="Segment %{customdata[0]}, %{customdata[3]} to %{customdata[4]}<br>"
            "<b>%{customdata[1]}</b> %{customdata[2]}<extra></extra>",
            marker={
                "color": [genre_colour(int(b), len(verdict.labels)) for b in best],
                "line": {"color": INK, "width": 1},
                "cornerradius": 3,
            },
            showlegend=False,
        ),
        row=2,
        col=1,
    )


def timings_figure(analysis: Analysis) -> go.Figure:
    """Where the milliseconds went: one bar a stage, each beginning where the one before ended.

    What "total" holds beyond the named stages (waiting for a turn, the cache) is shown as a stage of its own.
    """
    stages = [(wording.short_stage(name), float(ms)) for name, ms in analysis.timings_ms.items() if name != "total"]
    named = math.fsum(ms for _, ms in stages)
    total = float(analysis.timings_ms.get("total", named))
    if total - named > 0.01 * total:
        stages.append(("The rest", total - named))
    total = max(total, named, 1e-6)
    names = [name for name, _ in stages]
    lengths = [ms for _, ms in stages]
    texts = [f"{wording.milliseconds(ms)} · {wording.percent(ms / total)}" for ms in lengths]
    figure = go.Figure(
        go.Bar(
            orientation="h",
            base=[math.fsum(lengths[:i]) for i in range(len(lengths))],
            x=lengths,
            y=names,
            customdata=texts,
            hovertemplate="%{y}: %{customdata}<extra></extra>",
            marker={"color": BAR_COLOUR, "cornerradius": 3},
            width=0.62,
        )
    )
    for name, text in zip(names, texts, strict=True):  # a column of its own, which no bar can run into
        figure.add_annotation(x=1, xref="paper", y=name, text=text, showarrow=False, xanchor="left", xshift=8)
    figure.update_xaxes(
        range=[0, total],
        title={"text": "Milliseconds", "standoff": 6},
        nticks=5,
        fixedrange=True,
        zeroline=False,
        gridcolor="rgba(123,135,148,0.25)",
    )
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False, ticklabelstandoff=6)
    _style(figure, height=WATERFALL_ROW_PX * max(1, len(stages)) + TOP_PX + BOTTOM_PX, right_px=104)
    figure.update_layout(margin={"l": 92}, dragmode=False)
    return figure


def _style(figure: go.Figure, *, height: int, right_px: int) -> None:
    figure.update_layout(
        height=height,
        margin={"l": LEFT_PX, "r": right_px, "t": TOP_PX, "b": BOTTOM_PX},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        font={"family": "system-ui, sans-serif", "size": 12, "color": AXIS_COLOUR},
        hoverlabel={"bgcolor": INK, "bordercolor": INK, "font": {"color": "#ffffff", "size": 12}},
        template="none",
    )
