"""Records -> HTML fragments of the page. Everything that comes from a file or a model passes through `text`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..records import Analysis, AudioWarning, Descriptors, Failure, printable
from . import wording
from .colours import genre_colour
from .desk import Desk, Entry

TOP_K = 5
N_TAGS = 8

TICK = '<svg class="as-sign" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 8.5l3.2 3.2L13 5"/></svg>'
FLAG = '<svg class="as-sign" viewBox="0 0 16 16" aria-hidden="true"><path d="M4 14V2.5h8l-2 3 2 3H4"/></svg>'
CROSS = '<svg class="as-sign" viewBox="0 0 16 16" aria-hidden="true"><path d="M4 4l8 8M12 4l-8 8"/></svg>'
PLAY = '<svg class="as-play" viewBox="0 0 16 16" aria-hidden="true"><path d="M4.5 2.5v11l9-5.5z"/></svg>'


def text(value: object) -> str:
    """`value` as text for HTML content and for quoted attributes."""
    return html.escape(printable(str(value)), quote=True)


def isolated(value: object) -> str:
    """`value` as HTML that keeps its writing direction to itself, with what hides or reorders text made visible."""
    return f"<bdi>{text(wording.visible(printable(str(value))))}</bdi>"


def plain(value: object) -> str:
    """The same for quoted attributes, where no element can stand."""
    return text(wording.visible(printable(str(value))))


# --- head of the page ---


def header(status: Mapping[str, Any], icon_svg: str) -> str:
    facts = [("model", status.get("model")), ("device", status.get("device")), ("precision", status.get("precision"))]
    chips = "".join(
        f'<span class="as-chip as-chip-{name}"><span class="as-chip-key">{name}</span> {text(value)}</span>'
        for name, value in facts
        if value
    )
    return (
        f'<header class="as-header"><div class="as-brand">{icon_svg}<div><h1>AcousticSense</h1>'
        "<p>Drop a song, see its genre, and how sure that is.</p></div></div>"
        f'<div class="as-status">{chips}'
        '<button type="button" class="as-theme" id="as-theme" aria-label="Switch between light and dark">'
        '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="6.5"/>'
        '<path d="M10 3.5a6.5 6.5 0 0 1 0 13z"/></svg></button></div></header>'
    )


def problem(error: Mapping[str, str], name: str = "", key: str = "") -> str:
    """What failed, why and what to do: the file called `name`, or without a name the whole workstation."""
    code = error.get("code", "")
    eyebrow = f'<p class="as-eyebrow" data-key="{key}">{text(name)}</p>' if name else ""
    title = text(wording.ERRORS.get(code, "Something failed"))
    return (
        f'<div class="as-card as-problem" role="alert">{eyebrow}<h2>{CROSS} {title}</h2>'
        f"<p>{text(wording.sentence(error.get('message', '')))}</p>"
        f"<p>{text(wording.sentence(error.get('hint', '')))}</p></div>"
    )


# --- the table of files ---


def files(desk: Desk) -> str:
    """All dropped files that the filter shows: progress while they run, then answer or error."""
    if not desk.entries:
        return (
            '<div class="as-empty"><p><strong>Nothing here yet.</strong></p><p>Drop one song or a whole album. '
            "Every file gets its answer in a row of this table.</p></div>"
        )
    n_done = sum(entry.result is not None for entry in desk.entries)
    n_review = sum(entry.needs_review for entry in desk.entries)
    n_failed = sum(entry.failed for entry in desk.entries)
    summary = f"{n_done} of {len(desk.entries)} analysed · {n_review} to review · {n_failed} failed"
    rows = "".join(_row(i, entry, chosen=i == desk.chosen) for i, entry in desk.visible())
    body = rows or '<tr><td colspan="5" class="as-none">No file matches this filter.</td></tr>'
    return (
        f'<p class="as-summary" role="status">{summary}</p><div class="as-scroll" tabindex="0" role="region" '
        'aria-label="Files"><table class="as-files"><thead><tr><th scope="col">File</th><th scope="col">Genre</th>'
        '<th scope="col">Confidence</th><th scope="col">Review</th><th scope="col" class="as-right">Took</th></tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _row(index: int, entry: Entry, *, chosen: bool) -> str:
    name = text(entry.name)
    mark = ' aria-current="true"' if chosen else ""
    pick = (
        f'<button type="button" class="as-pick" data-index="{index}" title="{name}">{name}</button>'
        if entry.result is not None
        else f'<span class="as-pick" title="{name}">{name}</span>'
    )
    return (
        f'<tr data-index="{index}" class="as-{_kind(entry)}"{mark}><td class="as-name">{pick}</td>{_cells(entry)}</tr>'
    )


def _kind(entry: Entry) -> str:
    if entry.result is None:
        return "running"
    return "failed" if entry.failed else "review" if entry.needs_review else "sure"


def _cells(entry: Entry) -> str:
    if entry.result is None:
        words, share = wording.stage(entry.stage)
        value = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}"'
        bar = f'<span class="as-bar" role="progressbar" aria-label="Progress of {text(entry.name)}" {value}>'
        return (
            f'<td colspan="4"><div class="as-progress"><span class="as-stage">{text(words)}</span>'
            f'{bar}<span style="width:{100 * share:.0f}%"></span></span></div></td>'
        )
    if isinstance(entry.result, Failure):
        error = entry.result.error
        title = wording.ERRORS.get(error.get("code", ""), "This file failed")
        return (
            f'<td colspan="4" class="as-error"><strong>{CROSS} {text(wording.sentence(title))}</strong> '
            f"{text(wording.sentence(error.get('message', '')))} "
            f'<span class="as-hint">{text(wording.sentence(error.get("hint", "")))}</span></td>'
        )
    analysis = entry.result
    verdict = analysis.verdict
    flag = (
        f'<span class="as-flag as-flag-review">{FLAG} Needs review</span>'
        if verdict.needs_review
        else f'<span class="as-flag as-flag-sure">{TICK} Clear</span>'
    )
    dot = _dot(verdict.labels.index(verdict.top_genre), len(verdict.labels))
    took = wording.milliseconds(analysis.timings_ms.get("total", 0.0)) + (" · cached" if analysis.cached else "")
    return (
        f'<td class="as-genre">{dot}{text(verdict.top_genre)}</td><td>{_meter(verdict.top_confidence)}</td>'
        f'<td>{flag}</td><td class="as-right as-took">{took}</td>'
    )


def _dot(index: int, n_genres: int) -> str:
    return f'<span class="as-dot" style="background:{genre_colour(index, n_genres)}"></span>'


def _meter(share: float) -> str:
    return (
        f'<span class="as-meter"><span class="as-bar"><span style="width:{100 * share:.1f}%"></span></span>'
        f'<span class="as-number">{wording.percent(share)}</span></span>'
    )


# --- the chosen file ---


def verdict(entry: Entry | None, key: str = "") -> str:
    """The verdict card, or the error card, of the chosen file; `key` tells equal cards of different files apart."""
    if entry is None or entry.result is None:
        return ""
    if isinstance(entry.result, Failure):
        return problem(entry.result.error, entry.name, key)
    analysis = entry.result
    answer = analysis.verdict
    reasons = "".join(f"<li>{text(wording.review_reason(code, analysis))}</li>" for code in answer.review_reasons)
    flag = (
        f'<div class="as-callout as-callout-review"><strong>{FLAG} Needs review</strong><ul>{reasons}</ul></div>'
        if answer.needs_review
        else f'<div class="as-callout as-callout-sure"><strong>{TICK} No review needed</strong></div>'
    )
    n_segments = len(analysis.start_s)
    facts = (
        ("Uncertainty", wording.percent(answer.uncertainty)),
        ("Agreement", f"{round(answer.agreement * n_segments)} of {n_segments} segment{'s' * (n_segments != 1)}"),
        ("Heard", f"{analysis.analyzed_s:.0f} of {analysis.duration_s:.0f} s"),
    )
    return (
        f'<article class="as-card as-verdict" data-key="{key}">'
        f'<p class="as-eyebrow" title="{text(entry.name)}">{text(entry.name)}</p>'
        f'<div class="as-headline"><h2>{text(answer.top_genre)}</h2><p class="as-big">'
        f"{wording.percent(answer.top_confidence)}<span>confidence</span></p></div>"
        f'<p class="as-set">{text(wording.prediction_set(answer))}</p>{flag}{_ranking(analysis)}'
        f'<dl class="as-facts">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts)}</dl>'
        f"{_warnings(analysis.warnings)}{_rules(analysis)}{_explanation(analysis)}</article>"
    )


def _ranking(analysis: Analysis) -> str:
    labels = analysis.verdict.labels
    rows = "".join(
        _bar_row(genre, p, f";background:{genre_colour(labels.index(genre), len(labels))}")
        for genre, p in analysis.verdict.ranked()[:TOP_K]
    )
    return f'<h3>Most likely genres</h3><ol class="as-ranking">{rows}</ol>'


def _bar_row(name: str, share: float, style: str = "") -> str:
    """A name, a bar and its number: the bar repeats the number for the eye, so a reader loses nothing without it."""
    return (
        f'<li><span class="as-label">{text(name)}</span>'
        f'<span class="as-bar"><span style="width:{100 * share:.1f}%{style}"></span></span>'
        f'<span class="as-number">{wording.percent(share)}</span></li>'
    )


def _warnings(warnings: Sequence[AudioWarning]) -> str:
    items = "".join(
        f"<li><strong>{text(wording.WARNINGS.get(w.code, w.code.capitalize()))}.</strong> "
        f"{text(wording.sentence(w.message))}</li>"
        for w in warnings
    )
    return f'<div class="as-callout as-callout-warning"><h3>About this file</h3><ul>{items}</ul></div>' if items else ""


def _rules(analysis: Analysis) -> str:
    items = "".join(
        f"<li>{text(rule.rule)}: {text(rule.genre)} × {rule.factor:g}</li>" for rule in analysis.verdict.rules_applied
    )
    return f'<h3>Rules applied</h3><ul class="as-plain">{items}</ul>' if items else ""


def _explanation(analysis: Analysis) -> str:
    """Where each number on the card comes from."""
    genres = len(analysis.verdict.labels)
    cached = " From the cache." if analysis.cached else ""
    calibrated, model = "recordings that the model was not trained on", text(analysis.model)
    if analysis.personal is not None:
        calibrated = "songs that you gave their genres"
        model += f", with what you taught it: version {text(analysis.personal)}"
    return (
        '<details class="as-why"><summary>Where do these numbers come from?</summary><dl>'
        f"<dt>Confidence</dt><dd>The probability of the best of {genres} genres, from all segments together, "
        f"calibrated on {calibrated}.</dd>"
        "<dt>Plausible genres</dt><dd>A conformal prediction set: wide enough to hold the true genre as often as "
        "the model card says.</dd>"
        f"<dt>Uncertainty</dt><dd>Entropy of the {genres} probabilities: 0 % is sure, 100 % is no idea.</dd>"
        "<dt>Agreement</dt><dd>Segments whose own best genre is the answer.</dd>"
        f"<dt>Heard</dt><dd>The parts of the track that the network saw.{cached}</dd>"
        f"<dt>Model</dt><dd>{model}</dd></dl></details>"
    )


def player(entry: Entry | None, url: str) -> str:
    """An audio element and one button a segment, which plays the track from there."""
    analysis = entry.analysis if entry else None
    if entry is None or analysis is None:
        return ""
    answer = analysis.verdict
    buttons = []
    for number, (start, end, votes) in enumerate(
        zip(analysis.start_s, analysis.end_s, answer.segment_probabilities, strict=True), start=1
    ):
        best = int(votes.argmax())
        share = wording.percent(float(votes[best]))
        genre = text(answer.labels[best])
        said = f"Play from segment {number}, {wording.clock(start)}: {genre}, {share}"
        buttons.append(
            f'<li><button type="button" class="as-segment" data-start="{start:.3f}" data-end="{end:.3f}" '
            f'aria-pressed="false" aria-label="{said}">{PLAY}{_dot(best, len(answer.labels))}'
            f'<span class="as-vote"><strong>{genre}</strong> {share}</span>'
            f'<span class="as-time">{wording.clock(start)}–{wording.clock(end)}</span></button></li>'
        )
    return (
        f'<div class="as-player" data-duration="{analysis.duration_s:.3f}">'
        f'<audio controls preload="metadata" src="{text(url)}" aria-label="{text(entry.name)}"></audio>'
        '<p class="as-unplayable" role="status" hidden>This browser cannot play this kind of file. The analysis is not '
        f'affected.</p><ul class="as-segments" aria-label="Segments that the model heard">{"".join(buttons)}</ul></div>'
    )


def file_url(path: str) -> str:
    """Where Gradio serves a file of its upload folder, relative to the page."""
    return "gradio_api/file=" + quote(path)


def tags(entry: Entry | None) -> str:
    analysis = entry.analysis if entry else None
    if analysis is None:
        return ""
    items = "".join(_bar_row(tag, p) for tag, p in analysis.tags[:N_TAGS])
    body = f'<ol class="as-ranking">{items}</ol>' if items else "<p>This model gives no tags.</p>"
    return f'<section class="as-card"><h3>Tags</h3><p class="as-note">What else the network hears.</p>{body}</section>'


def _measured(measured: Descriptors | None, field: str) -> str:
    if measured is None:
        return '<span class="as-wait">measuring …</span>'
    if getattr(measured, field) is None:
        return '<span class="as-wait">none found</span>'
    return wording.descriptor_value(field, measured)


def descriptors(entry: Entry | None) -> str:
    """Tempo, beat, bass and vocals; placeholders until they are measured."""
    analysis = entry.analysis if entry else None
    if entry is None or analysis is None:
        return ""
    if entry.undescribed:
        why = text(wording.sentence(entry.undescribed.get("message", "")))
        body = f'<p class="as-note">{CROSS} Could not be measured. {why}</p>'
    else:
        measured = analysis.descriptors
        cells = "".join(
            f"<div><dt>{name}</dt><dd>" + _measured(measured, field) + f"</dd><p>{meaning}</p></div>"
            for field, name, meaning in wording.DESCRIPTORS
        )
        body = f'<dl class="as-descriptors">{cells}</dl>'
    return f'<section class="as-card"><h3>Descriptors</h3>{body}</section>'
