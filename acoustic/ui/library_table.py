"""Tracks -> the HTML of the library's page: numbers, table, distributions, the song that plays, what sounds alike.

What a click does stands in the element: `data-do` names it, `data-value` says to what (see assets/library.js).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..kept import NOT_MUSIC, Column, LibraryStats, Track, TrackFilter, TrackPage, shown_path
from . import wording
from .cards import CROSS, FLAG, PLAY, isolated, plain, text
from .colours import named_colour
from .shelf import PAGE_SIZE, Shelf

COLUMNS: tuple[tuple[Column, str, str], ...] = (
    ("title", "Song", "as-c-song"),
    ("artist", "Artist", "as-c-artist"),
    ("genre", "Genre", "as-c-genre"),
    ("confidence", "Confidence", "as-c-confidence"),
    ("duration", "Length", "as-c-length"),
    ("added", "Added", "as-c-added"),
)
SECOND: dict[Column, Column] = {"title": "path", "artist": "album"}
"""what stands in the second line of a cell, and can be sorted by as well"""
REASONS = {
    "LOW_CONFIDENCE": "no genre stands out",
    "SMALL_MARGIN": "two genres are close",
    "SEGMENTS_DISAGREE": "the segments disagree",
    "NOT_MUSIC": "this may not be music",
    "SILENT": "the recording is silent",
    "TRUNCATED": "the file is cut short",
}
PERSON = (
    '<svg class="as-sign" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="5" r="2.6"/>'
    '<path d="M2.8 14c.6-3 2.6-4.4 5.2-4.4s4.6 1.4 5.2 4.4"/></svg>'
)


# --- the numbers over everything ---


def tiles(stats: LibraryStats, what: TrackFilter) -> str:
    """What the library holds; a tile shows only those songs. Without any song: what to do."""
    if not stats.n_files and not stats.n_errors:
        return (
            '<div class="as-card as-library-empty"><p><strong>Your library is empty.</strong></p>'
            "<p>Scan a folder with music: every song in it is analysed once and kept here, with its genre, how sure "
            "that is, and its place among songs that sound alike.</p>"
            "<p>Files are read where AcousticSense runs; they are neither moved nor changed.</p></div>"
        )
    shown = (
        ("all", f"{stats.n_tracks:,}", "songs", f"{stats.hours:,.1f} hours of music"),
        ("review", f"{stats.n_review:,}", "to review", "Songs whose genre is in doubt"),
        ("decided", f"{stats.n_decided:,}", "decided by you", "Songs whose genre you said"),
        ("duplicates", f"{stats.n_duplicates:,}", "with duplicates", "The same recording in more than one file"),
        ("errors", f"{stats.n_errors:,}", "failed", "Files that could not be analysed"),
    )
    items = "".join(
        f'<li><button type="button" class="as-tile" data-do="flag" data-value="{flag}" title="{meaning}" '
        f'aria-pressed="{str(what.flag == flag).lower()}"><strong>{number}</strong> <span>{words}</span></button></li>'
        for flag, number, words, meaning in shown
    )
    return f'<ul class="as-tiles" aria-label="The library in numbers">{items}</ul>'


def genre_bars(stats: LibraryStats, what: TrackFilter, labels: Sequence[str]) -> str:
    """How many songs of each genre; a click shows only those. Also the legend of the map."""
    most = max((n for _, n in stats.genres), default=1)
    rows = "".join(
        f'<li><button type="button" class="as-genre-bar" data-do="genre" data-value="{text(genre)}" '
        f'aria-pressed="{str(what.genre == genre).lower()}">'
        f'<span class="as-label">{dot(genre, labels)}{isolated(shown_genre(genre))}</span><span class="as-bar">'
        f'<span style="width:{100 * n / most:.1f}%;background:{named_colour(genre, labels)}"></span></span>'
        f'<span class="as-number">{n:,}</span></button></li>'
        for genre, n in stats.genres
    )
    body = f'<ul class="as-genre-bars">{rows}</ul>' if rows else '<p class="as-note">No songs here.</p>'
    return f'<section class="as-card as-distribution"><h3>Genres</h3>{body}</section>'


def histogram(stats: LibraryStats, what: TrackFilter) -> str:
    """How many songs in each tenth of the confidence; a click shows only those."""
    n_bins = len(stats.confidence) or 1
    most = max(stats.confidence, default=0) or 1
    bars = []
    for i, n in enumerate(stats.confidence):
        low, high = i * 100 // n_bins, (i + 1) * 100 // n_bins
        inside = what.min_confidence <= low / 100 and high / 100 <= what.max_confidence
        narrowed = inside and (what.min_confidence > 0 or what.max_confidence < 1)
        said = f"{wording.counted(n, 'song')} with a confidence of {low} to {high} %"
        bars.append(
            f'<li><button type="button" class="as-bin" data-do="bin" data-value="{i}" aria-label="{said}" '
            f'title="{said}" aria-pressed="{str(narrowed).lower()}"><span class="as-bin-n">{n or ""}</span>'
            f'<span class="as-bin-bar" style="--share:{n / most:.4f}"></span></button></li>'
        )
    scale = "".join(f"<span>{share} %</span>" for share in (0, 25, 50, 75, 100))
    return (
        f'<section class="as-card as-distribution"><h3>Confidence</h3><ul class="as-bins">{"".join(bars)}</ul>'
        f'<div class="as-scale" aria-hidden="true">{scale}</div></section>'
    )


# --- the table ---


def table(page: TrackPage, shelf: Shelf, labels: Sequence[str], places: Mapping[int, Sequence[bytes]]) -> str:
    """The rows of a page; `places` are all files of the songs that have several, shown while duplicates are."""
    failed = shelf.what.flag == "errors"
    heads = "".join(_head(column, words, kind, shelf) for column, words, kind in COLUMNS)
    rows = "".join(
        _failed_row(track) if track.error is not None else _row(track, shelf, labels, places) for track in page.tracks
    )
    if not rows:
        nothing = "No file failed." if failed and shelf.what == TrackFilter(flag="errors") else "No song matches."
        rows = f'<tr><td colspan="8" class="as-none">{nothing}</td></tr>'
    return (
        '<div class="as-scroll as-library-scroll" tabindex="0" role="region" aria-label="Songs">'
        f'<table class="as-library-table{" as-only-errors" if failed else ""}"><thead><tr>'
        f'<th scope="col" class="as-c-tick"><span class="as-unseen">Select</span></th>'
        f'<th scope="col" class="as-c-play"><span class="as-unseen">Play</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_pager(page, shelf)}"
    )


def summary(page: TrackPage, shelf: Shelf) -> str:
    """How many songs are shown, and how many selected: what playlist and CSV hold."""
    noun = "file" if shelf.what.flag == "errors" else "song"
    narrowed = shelf.what != TrackFilter()
    shown = f"<strong>{wording.counted(page.n_total, noun)}</strong>{' match' if narrowed else ''}"
    if shelf.what.ids:
        shown = f"<strong>{wording.counted(page.n_total, noun)}</strong> of the selection"
    selected = f' · <strong class="as-n-selected">{len(shelf.selected):,} selected</strong>' if shelf.selected else ""
    clear = '<button type="button" class="as-link" data-do="reset">Show all</button>' if narrowed else ""
    drop = '<button type="button" class="as-link" data-do="drop">Clear selection</button>' if shelf.selected else ""
    only = (
        '<button type="button" class="as-link" data-do="only">Show only these</button>'
        if shelf.selected and set(shelf.what.ids) != set(shelf.selected)
        else ""
    )
    return f'<p class="as-summary" role="status">{shown}{selected}</p><p class="as-links">{only}{drop}{clear}</p>'


def _head(column: Column, words: str, kind: str, shelf: Shelf) -> str:
    button = _sorter(column, words, shelf)
    if column in SECOND:
        button += _sorter(SECOND[column], SECOND[column], shelf, small=True)
    way = ("descending" if shelf.descending else "ascending") if shelf.sort == column else "none"
    return f'<th scope="col" class="{kind}" aria-sort="{way}">{button}</th>'


def _sorter(column: Column, words: str, shelf: Shelf, small: bool = False) -> str:
    arrow = (" ↓" if shelf.descending else " ↑") if shelf.sort == column else ""
    return (
        f'<button type="button" class="as-sort{" as-sort-small" if small else ""}" data-do="sort" '
        f'data-value="{column}" title="Sort by {words.lower()}">{words}'
        f'<span aria-hidden="true">{arrow}</span></button>'
    )


def _row(track: Track, shelf: Shelf, labels: Sequence[str], places: Mapping[int, Sequence[bytes]]) -> str:
    name = plain(track.name)
    chosen = ' aria-current="true"' if track.id == shelf.chosen else ""
    ticked = " checked" if track.id in shelf.selected else ""
    gone = ' <span class="as-flag as-flag-gone">not there now</span>' if track.missing else ""
    also = places.get(track.id, ())
    paths = also if len(also) > 1 else (track.path,)
    listed = "".join(f'<span class="as-path" title="{plain(shown_path(p))}">{_short(p)}</span>' for p in paths)
    confidence = meter(track.confidence) if _is_its_own(track) else ""
    copies = f' <span class="as-copies">{track.n_files} files</span>' if track.n_files > 1 else ""
    return (
        f'<tr data-id="{track.id}"{chosen}><td class="as-c-tick"><input type="checkbox" data-do="tick" '
        f'data-value="{track.id}" aria-label="Select {name}"{ticked}></td>'
        f'<td class="as-c-play"><button type="button" class="as-play-row" data-do="play" data-value="{track.id}" '
        f'aria-label="Play {name}">{PLAY}</button></td>'
        f'<td class="as-c-song"><button type="button" class="as-pick" data-do="choose" data-value="{track.id}" '
        f'title="{name}">{isolated(track.name)}</button>{copies}{gone}{listed}</td>'
        f'<td class="as-c-artist" title="{plain(track.tags.artist)}">{isolated(track.tags.artist)}'
        f'<span class="as-path" title="{plain(track.tags.album)}">{isolated(track.tags.album)}</span></td>'
        f'<td class="as-c-genre">{genre(track, labels)}</td><td class="as-c-confidence">{confidence}</td>'
        f'<td class="as-c-length">{wording.clock(track.duration_s)}</td>'
        f'<td class="as-c-added">{text(track.added_at[:10])}</td></tr>'
    )


def _short(path: bytes) -> str:
    """The folder's last parts and the name: what tells files apart stands at the end."""
    parts = shown_path(path).split(os.sep)
    return isolated((f"…{os.sep}" if len(parts) > 4 else "") + os.sep.join(parts[-3:] if len(parts) > 4 else parts))


def _failed_row(track: Track) -> str:
    error = track.error or {}
    title = wording.ERRORS.get(error.get("code", ""), "This file failed")
    folder, name = os.path.split(track.shown)
    return (
        f'<tr class="as-failed"><td class="as-c-song" colspan="3"><strong>{isolated(name)}</strong>'
        f'<span class="as-path" title="{plain(track.shown)}">{isolated(folder)}</span></td>'
        f'<td class="as-error" colspan="5"><strong>{CROSS} {text(wording.sentence(title))}</strong> '
        f"{plain(wording.sentence(error.get('message', '')))} "
        f'<span class="as-hint">{plain(wording.sentence(error.get("hint", "")))}</span></td></tr>'
    )


def genre(track: Track, labels: Sequence[str]) -> str:
    """What counts, with a sign for who said it or that it is in doubt."""
    if not track.genre:
        return ""
    sign = ""
    if track.decided is not None:
        said = f"You decided; the model said {plain(track.top_genre)}"
        sign = f'<span class="as-by-you" title="{said}" role="img" aria-label="{said}">{PERSON}</span>'
    elif track.needs_review:
        why = wording.listed([REASONS.get(r, r.replace("_", " ").lower()) for r in track.review_reasons], "and")
        said = f"To review: {plain(why or 'the answer is in doubt')}"
        sign = f'<span class="as-doubt" title="{said}" role="img" aria-label="{said}">{FLAG}</span>'
    return f'<span class="as-genre-name">{dot(track.genre, labels)}{isolated(shown_genre(track.genre))}</span>{sign}'


def shown_genre(genre: str) -> str:
    return "not music" if genre == NOT_MUSIC else genre


def dot(genre: str, labels: Sequence[str]) -> str:
    return f'<span class="as-dot" style="background:{named_colour(genre, labels)}"></span>'


def _is_its_own(track: Track) -> bool:
    """Whether the model's confidence is in the genre that is shown."""
    return track.decided is None or track.decided == track.top_genre


def meter(share: float) -> str:
    return (
        f'<span class="as-meter"><span class="as-bar"><span style="width:{100 * share:.1f}%"></span></span>'
        f'<span class="as-number">{wording.percent(share)}</span></span>'
    )


def _pager(page: TrackPage, shelf: Shelf) -> str:
    if page.n_total <= PAGE_SIZE:
        return ""
    n_pages = -(-page.n_total // PAGE_SIZE)
    number = shelf.offset // PAGE_SIZE + 1
    last = (n_pages - 1) * PAGE_SIZE

    def button(words: str, offset: int, off: bool, name: str) -> str:
        return (
            f'<button type="button" data-do="page" data-value="{offset}" aria-label="{name}"'
            f"{' disabled' if off else ''}>{words}</button>"
        )

    first, end = number == 1, number == n_pages
    return (
        '<nav class="as-pager" aria-label="Pages">'
        + button("«", 0, first, "First page")
        + button("‹", shelf.offset - PAGE_SIZE, first, "Previous page")
        + f"<span>Page <strong>{number:,}</strong> of {n_pages:,}</span>"
        + button("›", shelf.offset + PAGE_SIZE, end, "Next page")
        + button("»", last, end, "Last page")
        + "</nav>"
    )


# --- the song that plays, and what sounds alike ---


def player(track: Track | None, url: str, problem: str, labels: Sequence[str], plays: int) -> str:
    """The bar at the foot of the page; `plays` above 0 starts the song when it rises."""
    if track is None:
        return ""
    facts = " · ".join(
        part for part in (isolated(track.tags.artist) if track.tags.artist else "", genre(track, labels)) if part
    )
    sound = (
        f'<audio controls preload="metadata" src="{text(url)}" data-plays="{plays}" aria-label="{plain(track.name)}">'
        '</audio><p class="as-unplayable" role="status" hidden>This browser cannot play this kind of file.</p>'
        if url
        else f'<p class="as-unplayable" role="status">{plain(problem)}</p>'
    )
    return (
        f'<div class="as-now-playing" data-id="{track.id}"><div class="as-now-words">'
        f'<strong title="{plain(track.shown)}">{isolated(track.name)}</strong>'
        f"<span>{facts}{f' · {wording.percent(track.confidence)}' if _is_its_own(track) else ''}</span></div>"
        f'<div class="as-now-sound">{sound}</div><button type="button" class="as-now-more" data-do="similar" '
        f'data-value="{track.id}">More like this</button><button type="button" class="as-now-close" data-do="close" '
        'data-value="" aria-label="Close the player">×</button></div>'
    )


def similar(tracks: Sequence[tuple[Track, float]], of: str, labels: Sequence[str]) -> str:
    """Songs by how alike they sound, nearest first."""
    if not of:
        return ""
    rows = "".join(
        f'<li><button type="button" class="as-play-row" data-do="play" data-value="{track.id}" '
        f'aria-label="Play {plain(track.name)}">{PLAY}</button><span class="as-similar-words">'
        f"<strong>{isolated(track.name)}</strong><span>{isolated(track.tags.artist)}</span></span>"
        f'<span class="as-similar-genre">{genre(track, labels)}</span>'
        f'<span class="as-number" title="Cosine of the two embeddings">{max(0.0, cosine):.3f}</span></li>'
        for track, cosine in tracks
    )
    body = f'<ol class="as-similar">{rows}</ol>' if rows else '<p class="as-note">Nothing else was heard yet.</p>'
    take = (
        '<button type="button" class="as-link" data-do="take">Select these</button>'
        '<button type="button" class="as-link" data-do="forget">Close</button>'
    )
    return (
        f'<section class="as-card as-similar-card"><div class="as-card-head"><h3>More like {isolated(of)}</h3>'
        f'<p class="as-links">{take}</p></div>{body}</section>'
    )
