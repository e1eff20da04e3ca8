"""The report of a run, for the eye: learning curves, confusion matrix, reliability diagram and a table of classes, as
one HTML page that needs no network, each also as a PNG, and the numbers as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.subplots import make_subplots

from ..verdict import metrics
from ..writing import write_whole
from .config import TrainConfig
from .logbook import Epoch, read_history

FOLDER = "report"
INK, BAR, SECOND = "#1f2933", "#0d9488", "#c2410c"
PNG_SCALE = 2
N_BINS = 15


@dataclass(frozen=True, slots=True)
class HeldOutAnswers:
    """The calibrated answers on labelled held-out tracks, each given by a calibration that was fitted without its
    group: probabilities (n, C), targets (n,) class indices."""

    labels: tuple[str, ...]
    probabilities: np.ndarray
    targets: np.ndarray


def write_report(config: TrainConfig, answers: HeldOutAnswers, work: Path) -> tuple[Path, str]:
    """Write `work`/report/: index.html, a PNG of each figure, report.json. Returns the page's path and, where the PNGs
    could not be made (kaleido draws them with a Chrome or Chromium of the system), why; else an empty text."""
    folder = work / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    epochs = read_history(work)
    classes = class_table(answers)
    figures = {
        "curves": curves_figure(epochs),
        "confusion": confusion_figure(answers),
        "reliability": reliability_figure(answers),
        "classes": classes_figure(classes),
    }
    page = folder / "index.html"
    write_whole(page, _page(config, answers, figures, classes).encode())
    numbers = {
        "epochs": [{name: getattr(epoch, name) for name in Epoch.__slots__} for epoch in epochs],
        "labels": list(answers.labels),
        "confusion": _confusion(answers).tolist(),
        "classes": classes,
    }
    write_whole(folder / "report.json", json.dumps(numbers, ensure_ascii=False, indent=1).encode())
    return page, _write_images(figures, folder)


def class_table(answers: HeldOutAnswers) -> list[dict[str, Any]]:
    """For each class: held-out tracks of it, precision, recall and F1; None where nothing was there to count."""
    counts = _confusion(answers)
    table = []
    for i, label in enumerate(answers.labels):
        hits, of_class, answered = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        table.append(
            {
                "genre": label,
                "n": of_class,
                "n_answered": answered,
                "precision": hits / answered if answered else None,
                "recall": hits / of_class if of_class else None,
                "f1": 2 * hits / (of_class + answered) if of_class + answered else None,
            }
        )
    return table


def curves_figure(epochs: Sequence[Epoch]) -> go.Figure:
    """Training and held-out errors over the steps, one panel a term, and the held-out accuracy."""
    names = [name for name in (epochs[0].held_out if epochs else {}) if any(e.held_out[name] for e in epochs)]
    figure = make_subplots(rows=1, cols=max(1, len(names)), subplot_titles=names or None)
    steps = [epoch.step for epoch in epochs]
    for column, name in enumerate(names, 1):
        for side, colour in (("train", SECOND), ("held_out", BAR)):
            values = [getattr(epoch, side).get(name) for epoch in epochs]
            if any(value is not None for value in values):
                shown = side.replace("_", "-")
                figure.add_trace(
                    go.Scatter(
                        x=steps,
                        y=values,
                        name=shown,
                        legendgroup=shown,
                        showlegend=column == 1,
                        mode="lines+markers",
                        line={"color": colour},
                    ),
                    row=1,
                    col=column,
                )
        figure.update_xaxes(title_text="steps", row=1, col=column)
    figure.update_layout(title="Learning curves", height=380, width=300 * max(2, len(names)))
    return _styled(figure)


def confusion_figure(answers: HeldOutAnswers) -> go.Figure:
    """Rows: the track's genre; columns: the answer; counts of held-out tracks."""
    counts = _confusion(answers)
    shown = [[str(n) if n else "" for n in row] for row in counts.tolist()]
    labels = list(answers.labels)
    figure = go.Figure(
        go.Heatmap(
            z=counts,
            x=labels,
            y=labels,
            text=shown,
            texttemplate="%{text}",
            colorscale=[[0, "#ffffff"], [1, BAR]],
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="%{y} answered as %{x}: %{z}<extra></extra>",
        )
    )
    side = 140 + 36 * max(4, len(labels))
    figure.update_layout(
        title="Held-out tracks: genre (rows) and answer (columns)",
        height=side,
        width=side + 40,
        yaxis_autorange="reversed",
    )
    return _styled(figure)


def reliability_figure(answers: HeldOutAnswers) -> go.Figure:
    """Accuracy against confidence in bins of equal mass, with 95 % Wilson intervals; on the diagonal it means what it
    says."""
    bins = metrics.reliability(answers.probabilities, answers.targets, N_BINS)
    x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
    intervals = [metrics.wilson_interval(round(b.n * b.accuracy), b.n) for b in bins]
    figure = go.Figure(
        [
            go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": "#9aa5b1", "dash": "dot"}, showlegend=False),
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                marker={"color": BAR, "size": 9},
                error_y={
                    "type": "data",
                    "array": [high - value for value, (_, high) in zip(y, intervals, strict=True)],
                    "arrayminus": [value - low for value, (low, _) in zip(y, intervals, strict=True)],
                    "color": BAR,
                    "thickness": 1,
                },
                showlegend=False,
                hovertemplate="says %{x:.2f}, is right %{y:.2f}<extra></extra>",
            ),
        ]
    )
    figure.update_xaxes(title_text="confidence", range=[0, 1])
    figure.update_yaxes(title_text="accuracy", range=[0, 1])
    figure.update_layout(title="Reliability of the calibrated answers on held-out tracks", height=460, width=520)
    return _styled(figure)


def classes_figure(classes: Sequence[dict[str, Any]]) -> go.Figure:
    """Precision and recall of each class, with the number of its held-out tracks."""
    names = [f"{row['genre']} ({row['n']})" for row in classes]
    figure = go.Figure(
        [
            go.Bar(x=names, y=[row[key] for row in classes], name=key, marker_color=colour)
            for key, colour in (("precision", SECOND), ("recall", BAR))
        ]
    )
    figure.update_yaxes(range=[0, 1])
    figure.update_layout(title="Classes (held-out tracks)", height=380, width=max(520, 60 * len(names)))
    return _styled(figure)


def _confusion(answers: HeldOutAnswers) -> np.ndarray:
    predicted = answers.probabilities.argmax(axis=1)
    return np.asarray(metrics.confusion_matrix(answers.targets, predicted, len(answers.labels)))


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "color": INK, "size": 12},
        margin={"l": 80, "r": 24, "t": 64, "b": 80},
    )
    return figure


def _page(
    config: TrainConfig, answers: HeldOutAnswers, figures: dict[str, go.Figure], classes: Sequence[dict[str, Any]]
) -> str:
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=name)
        for number, (name, figure) in enumerate(figures.items())
    ]
    head = "".join(f"<th>{name}</th>" for name in ("genre", "held-out tracks", "answers", "precision", "recall", "F1"))
    rows = "".join(
        "<tr>"
        + f"<td>{html.escape(row['genre'])}</td><td>{row['n']}</td><td>{row['n_answered']}</td>"
        + "".join(f"<td>{_share(row[key])}</td>" for key in ("precision", "recall", "f1"))
        + "</tr>"
        for row in classes
    )
    title = f"Training report: {html.escape(config.name)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:15px system-ui,sans-serif;color:#1f2933;max-width:1240px;margin:24px auto;padding:0 16px}"
        "table{border-collapse:collapse}td,th{padding:4px 12px;text-align:right;border-bottom:1px solid #e4e7eb}"
        "td:first-child,th:first-child{text-align:left}div{overflow-x:auto}</style></head><body>"
        f"<h1>{title}</h1><p>{html.escape(config.description)}</p>"
        f"<p>{config.samples:,} samples; {len(answers.targets)} labelled held-out tracks.</p>"
        + "".join(f"<div>{part}</div>" for part in parts)
        + f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></body></html>"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _write_images(figures: dict[str, go.Figure], folder: Path) -> str:
    try:
        paths = [folder / f"{name}.png" for name in figures]
        plotly.io.write_images(list(figures.values()), paths, scale=PNG_SCALE)
    except Exception as error:  # kaleido missing, no browser found, a browser that does not start: each its own class
        return f"no PNGs: {type(error).__name__}: {error}".splitlines()[0]
    return ""
