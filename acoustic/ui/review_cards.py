"""Records of the review -> what its script is sent (plain JSON) and HTML fragments, escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..kept import NOT_MUSIC, Decision, ReviewItem, ReviewProgress, Track
from ..records import printable
from . import wording
from .cards import isolated, text
from .colours import named_colour

N_CHANGES = 100
REASONS = {
    "LOW_CONFIDENCE": "No genre stands out",
    "SMALL_MARGIN": "Two genres are close",
    "SEGMENTS_DISAGREE": "The segments disagree",
    "NOT_MUSIC": "May be no music",
    "SILENT": "Silent",
    "TRUNCATED": "Cut short",
}
"""Code of a reason -> what the filter calls it."""
SIDE_PX, PAD_PX = 190, 26


def item(one: ReviewItem) -> dict[str, Any]:
    """All that the page needs to show a song at once."""
    track = one.track
    return {
        "id": track.id,
        "name": shown(track.name),
        "artist": shown(track.tags.artist),
        "album": shown(track.tags.album),
        "year": shown(track.tags.year),
        "path": shown(track.shown),
        "why": one.why,
        "listen_s": one.listen_s,
        "duration_s": track.duration_s,
        "ranked": [[genre, p] for genre, p in one.ranked],
        "segments": [list(segment) for segment in one.segments],
        "expected": one.in_force,
        "decided": track.decided,
    }


def shown(words: str) -> str:
    """A name from outside, as the page makes text of it."""
    return wording.visible(printable(words))


def genres(names: Sequence[str], built_in: Sequence[str]) -> list[dict[str, Any]]:
    """Each genre with its colour, and whether it is the person's own."""
    return [{"name": name, "colour": named_colour(name, built_in), "own": name not in built_in} for name in names]


def reasons(counts: Mapping[str, int]) -> list[list[Any]]:
    """[code, words, how many] of the filter."""
    return [[code, REASONS.get(code, code.replace("_", " ").capitalize()), n] for code, n in counts.items()]


def said(genre: str | None) -> str:
    """What a decision says."""
    return "skipped" if genre is None else "not music" if genre == NOT_MUSIC else genre


def history(decisions: Sequence[Decision], tracks: Mapping[int, Track], limit: int) -> list[dict[str, Any]]:
    """The last decisions, latest first, without the lines that only take one back; what was taken back says so."""
    undone = {decision.undoes for decision in decisions}
    return [
        {
            "id": one.id,
            "track": one.track_id,
            "name": shown(tracks[one.track_id].name) if one.track_id in tracks else f"song {one.track_id}",
            "said": said(one.genre),
            "who": one.who,
            "at": one.made_at,
            "undone": one.id in undone,
        }
        for one in decisions
        if one.kind != "undo"
    ][:limit]


def progress(one: ReviewProgress) -> dict[str, Any]:
    return {
        "n_left": one.n_left,
        "n_skipped": one.n_skipped,
        "n_decided": one.n_decided,
        "agreement": wording.percent(one.n_agreed / one.n_genre) if one.n_genre else "–",
        "n_agreed": one.n_agreed,
        "n_genre": one.n_genre,
        "minutes": f"{one.minutes:.1f}" if one.minutes < 10 else f"{one.minutes:.0f}",
        "reliability": reliability(one.reliability),
    }


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """The reliability diagram as SVG: a dot a bin, on the diagonal where the model is right as often as it is sure."""
    n = sum(count for _, _, count in bins)
    if not n:
        return '<p class="as-note">Decide some songs to see how often the model is right when it is so sure.</p>'

    def at(share: float) -> float:
        return PAD_PX + share * (SIDE_PX - PAD_PX - 14)

    def up(share: float) -> float:
        return SIDE_PX - at(share)

    most = max(count for _, _, count in bins)
    dots = "".join(
        f'<circle cx="{at(sure):.1f}" cy="{up(right):.1f}" r="{3 + 5 * math.sqrt(count / most):.1f}"><title>'
        f"{count} songs: {wording.percent(sure)} sure, {wording.percent(right)} right</title></circle>"
        for sure, right, count in bins
    )
    line = " ".join(f"{at(sure):.1f},{up(right):.1f}" for sure, right, _ in bins)
    ticks = "".join(
        f'<text x="{at(v):.1f}" y="{SIDE_PX - 8}" text-anchor="middle">{100 * v:.0f}</text>'
        f'<text x="{PAD_PX - 5}" y="{up(v) + 4:.1f}" text-anchor="end">{100 * v:.0f}</text>'
        for v in (0.0, 0.5, 1.0)
    )
    words = "; ".join(f"{wording.percent(sure)} sure, {wording.percent(right)} right" for sure, right, _ in bins)
    return (
        f'<svg class="rv-reliability" viewBox="0 0 {SIDE_PX} {SIDE_PX}" role="img" aria-label="How often the model was '
        f'right: {words}"><rect x="{at(0):.1f}" y="{up(1):.1f}" width="{at(1) - at(0):.1f}" '
        f'height="{at(1) - at(0):.1f}"/><path d="M{at(0):.1f} {up(0):.1f}L{at(1):.1f} {up(1):.1f}"/>'
        f'<polyline points="{line}"/>{dots}{ticks}</svg>'
        f'<p class="as-note">Across: how sure the model was (%). Up: how often you agreed (%). n = {n}. '
        "These are songs that it was unsure of, so its other answers may be better.</p>"
    )


# --- what was learned ---


def lesson_idle(in_use: str | None, n_labelled: int) -> str:
    """Before anything was offered."""
    state = f"In use: version {text(in_use)}." if in_use else "In use: the model alone."
    more = f"You gave {wording.counted(n_labelled, 'song')} a genre." if n_labelled else "Decide some songs first."
    off = "" if n_labelled else " disabled"
    back = (
        f'<button type="button" class="rv-button" data-do="roll-back" data-version="{text(in_use)}">Roll back</button>'
        if in_use
        else ""
    )
    return (
        f'<p class="as-note">{more} {state}</p><div class="rv-row"><button type="button" class="rv-button rv-primary" '
        f'data-do="learn"{off}>Learn from my decisions</button>{back}</div>'
    )


def offer(one: Any, tracks: Mapping[int, Track], key: str) -> str:
    """A `workstation.learning.Offer`: what it is worth, what it would change, and what to do with it."""
    groups = wording.counted(one.n_groups, "artist or album group")
    parts = [f'<p class="as-note">Learned from {wording.counted(one.n_songs, "song")} in {groups}.</p>']
    found = one.lesson.comparison
    if found is None:
        parts.append('<p class="as-note">Too few songs to test it: decide some of another artist of each genre.</p>')
    else:
        parts.append(
            f'<dl class="rv-accuracy"><div><dt>Model alone</dt><dd>{wording.percent(found.before / found.n)}</dd></div>'
            f'<div><dt>With your decisions</dt><dd class="rv-after">{wording.percent(found.after / found.n)}</dd></div>'
            f'</dl><p class="as-note">Right answers on songs that were left out of the lesson, n = {found.n:,}.</p>'
        )
    parts += [f'<p class="rv-warning">{text(wording.sentence(w.message))}</p>' for w in one.warnings]
    if one.personal is None:
        parts.append("<p>These decisions teach nothing that the model does not know better. Decide some more.</p>")
    else:
        parts.append(
            f"<p><strong>{len(one.changes):,}</strong> of {one.n_read:,} songs would get another answer; "
            f"<strong>{one.n_leaving:,}</strong> of the {one.n_waiting:,} that wait would leave the queue.</p>"
        )
    rows = "".join(
        f'<li><span class="rv-cut">{isolated(tracks[c.track_id].name)}</span><span>{text(c.before)} → '
        f"<strong>{text(c.after)}</strong> {wording.percent(c.confidence)}</span></li>"
        for c in one.changes[:N_CHANGES]
        if c.track_id in tracks
    )
    if rows:
        first = f"The first {N_CHANGES} of them" if len(one.changes) > N_CHANGES else "Which songs"
        parts.append(f'<details class="rv-changes" open><summary>{first}</summary><ul>{rows}</ul></details>')
    take = (
        f'<button type="button" class="rv-button rv-primary" data-do="accept" data-offer="{text(key)}">Accept</button>'
        if one.personal is not None
        else ""
    )
    leave = f'<button type="button" class="rv-button" data-do="discard" data-offer="{text(key)}">Discard</button>'
    return f'{"".join(parts)}<div class="rv-row">{take}{leave}</div>'
