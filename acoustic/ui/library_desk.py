"""What the Library tab does: each handler changes the session's Shelf and says what the page shows then."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..errors import AcousticError
from ..kept import LibraryStats, TrackFilter, shown_path
from . import cards, library_map, library_scan, library_table, uploads, wording
from .library_scan import ScanDesk
from .shelf import PAGE_SIZE, Shelf, folder_named

if TYPE_CHECKING:
    from ..workstation import Workstation

ANY = "Any"
N_SIMILAR = 12
SHOWN_EVERY = 5  # ticks between two looks at a library that grows under a scan

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Parts:
    """The components that handlers write to."""

    folder: gr.Textbox
    stop: gr.Button
    scan_status: gr.HTML
    tiles: gr.HTML
    text: gr.Textbox
    genre: gr.Dropdown
    flag: gr.Dropdown
    low: gr.Number
    high: gr.Number
    inside: gr.Dropdown
    model: gr.Dropdown
    summary: gr.HTML
    told: gr.HTML
    table: gr.HTML
    similar: gr.HTML
    map: gr.HTML
    genres: gr.HTML
    histogram: gr.HTML
    player: gr.HTML
    marks: gr.HTML

    @property
    def filters(self) -> dict[str, Any]:
        names = ("text", "genre", "flag", "low", "high", "inside", "model")
        return {name: getattr(self, name) for name in names}

    @property
    def rows(self) -> list[Any]:
        """What is shown at once."""
        return [self.summary, self.told, self.table, self.similar]

    @property
    def numbers(self) -> list[Any]:
        """What counts and marks: told after the rows."""
        return [self.tiles, self.genres, self.histogram, self.marks]

    @property
    def all(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


class LibraryDesk:
    """The handlers over one workstation. What is a person's own is in the Shelf that they are given."""

    def __init__(self, workstation: Workstation, upload_folder: Path, scans: ScanDesk, parts: Parts) -> None:
        self.workstation, self.folder, self.scans, self.parts = workstation, upload_folder, scans, parts
        self._whole: tuple[Any, LibraryStats] = (None, LibraryStats(0, 0, 0, 0, 0, 0, 0.0))

    @property
    def library(self) -> Any:
        return self.workstation.library

    @property
    def labels(self) -> tuple[str, ...]:
        """The genres in the order that gives them their colours."""
        return tuple(self.workstation.status().get("labels", ()))

    # --- everything ---

    def arrive(self, mine: Shelf) -> Updates:
        """All that the page shows but for the map, with the choices of its filters; little where nothing has
        changed."""
        try:
            return {**self._scan_status(mine), **self._news(mine)} or gr.skip()
        except AcousticError as error:
            return {self.parts.tiles: cards.problem(error.to_dict())}

    def tick(self, mine: Shelf) -> Updates:
        """What a scan has changed: its progress each second, the songs now and then, and all when it is done."""
        news = self._scan_status(mine)
        progress = self.scans.progress
        try:
            if not self.scans.running or (progress is not None and int(progress.elapsed_s) % SHOWN_EVERY == 0):
                news |= self._news(mine)
        except AcousticError:
            pass  # a busy library is asked again at the next tick
        return news or gr.skip()

    def _news(self, mine: Shelf) -> Updates:
        version = self.library.catalogue.version()
        if version == mine.seen:
            return {}
        news = {**self._choices(mine), **self._rows(mine), **self._numbers(mine)}
        mine.seen = version  # now that all of it could be told
        return news

    # --- scanning ---

    def scan(self, mine: Shelf, folder: str) -> Updates:
        try:
            self.scans.start(folder or "")
        except AcousticError as error:  # it stands until a scan has something new to say
            return {self.parts.scan_status: _told(error)}
        return self._scan_status(mine)

    def stop(self, mine: Shelf) -> Updates:
        self.scans.stop()
        return self._scan_status(mine)

    def _scan_status(self, mine: Shelf) -> Updates:
        """News of the scan, whoever started it; nothing where the page shows it already."""
        status = library_scan.status(self.scans)
        stoppable = self.scans.running and not self.scans.stopping
        told = f"{stoppable} {status}"
        if told == mine.scan_told or not self.scans.folder:
            return {}
        mine.scan_told = told
        return {self.parts.scan_status: status, self.parts.stop: gr.update(interactive=stoppable)}

    # --- filters ---

    def filter_by(self, name: str) -> Callable[[Shelf, Any], Updates]:
        """The handler of the filter called `name` in Parts. Each changes its own condition alone: what another control
        shows may not have reached the browser yet."""

        def filtered(mine: Shelf, value: Any) -> Updates:
            try:
                field, wanted = self._condition(name, value)
                changed = mine.narrow(dataclasses.replace(mine.what, **{field: wanted}))
                return self._rows(mine) if changed else gr.skip()
            except AcousticError as error:
                return {self.parts.told: _told(error)}

        return filtered

    def _condition(self, name: str, value: Any) -> tuple[str, Any]:
        """(field of TrackFilter, its value) for what a control says."""
        if name == "inside":
            return "folder", folder_named(_chosen(value), self._folders())
        if name in ("low", "high"):
            return ("min_confidence", _share(value, 0.0)) if name == "low" else ("max_confidence", _share(value, 1.0))
        if name == "flag":
            return "flag", value or "all"
        return name, _chosen(value) if name != "text" else value or ""

    def _choices(self, mine: Shelf) -> Updates:
        """The filters' choices as the library has them; what is chosen or being typed is left alone."""
        p, stats = self.parts, self._stats()
        genres = sorted({name for name, _ in stats.genres} | ({mine.what.genre} - {""}))
        named = [(wording.visible(library_table.shown_genre(genre)), genre) for genre in genres]
        return {
            p.genre: gr.update(choices=[ANY, *named]),
            p.inside: gr.update(choices=[ANY, *(name for name, _ in self._folders())]),
            p.model: gr.update(choices=[ANY, *(name for name, _ in stats.models)]),
        }

    def _controls(self, before: TrackFilter, now: TrackFilter) -> Updates:
        """The filters' own controls, where a click has changed what they say."""
        p = self.parts
        inside = next((name for name, path in self._folders() if path == now.folder), shown_path(now.folder))
        shown = {
            "text": (p.text, now.text),
            "genre": (p.genre, now.genre or ANY),
            "flag": (p.flag, now.flag),
            "min_confidence": (p.low, round(100 * now.min_confidence)),
            "max_confidence": (p.high, round(100 * now.max_confidence)),
            "folder": (p.inside, inside or ANY),
            "model": (p.model, now.model or ANY),
        }
        return {part: v for name, (part, v) in shown.items() if getattr(before, name) != getattr(now, name)}

    def _folders(self) -> list[tuple[str, bytes]]:
        return [(wording.visible(shown_path(path)), path) for path in self.library.catalogue.folders()]

    # --- what a click does ---

    def act(self, mine: Shelf, event: gr.EventData) -> Updates:
        """A click on anything that says what it does (`data-do`, `data-value`)."""
        do, value, before = str(event.do), str(event.value), mine.what
        try:
            if do == "similar" and value.isdecimal():
                self._find_similar(mine, [int(value)])
            elif do == "page" and value.isdecimal():
                mine.turn_to(int(value), self.library.catalogue.page(mine.what, limit=0).n_total)
            elif mine.act(do, value, [int(i) for i in event.ids] if do == "lasso" else ()):
                return {**self._controls(before, mine.what), **self._rows(mine)}
            return self._rows(mine)
        except AcousticError as error:
            return {self.parts.told: _told(error)}

    def play(self, mine: Shelf) -> Updates:
        """The chosen song, after a click. Its file may have to come from a slow disk: no other click waits for it."""
        try:
            return self._player(mine) or gr.skip()
        except AcousticError as error:
            return {self.parts.told: _told(error)}

    def alike(self, mine: Shelf) -> Updates:
        """What sounds like the selection, or else like the chosen song."""
        wanted = mine.selected or ((mine.chosen,) if mine.chosen is not None else ())
        if not wanted:
            return {
                self.parts.told: _said("Select songs first: tick them, or draw a lasso round them on the map.", False)
            }
        try:
            self._find_similar(mine, wanted)
            return self._rows(mine)
        except AcousticError as error:
            return {self.parts.told: _told(error)}

    def _find_similar(self, mine: Shelf, track_ids: Sequence[int]) -> None:
        tracks = self.library.catalogue.tracks(track_ids[:1])
        mine.similar = tuple(self.library.neighbours.nearest(track_ids, N_SIMILAR))
        one = len(track_ids) == 1 and tracks
        mine.similar_to = tracks[0].name if one else wording.counted(len(track_ids), "selected song")

    # --- what is shown ---

    def _rows(self, mine: Shelf) -> Updates:
        """Table and what sounds alike."""
        catalogue, labels = self.library.catalogue, self.labels
        page = catalogue.page(mine.what, mine.sort, mine.descending, mine.offset, PAGE_SIZE)
        if not page.tracks and page.n_total:  # the list has become shorter than the place where one stood
            mine.turn_to(page.n_total, page.n_total)
            page = catalogue.page(mine.what, mine.sort, mine.descending, mine.offset, PAGE_SIZE)
        several = [t.id for t in page.tracks if t.n_files > 1] if mine.what.flag == "duplicates" else []
        near = {track.id: track for track in catalogue.tracks([i for i, _ in mine.similar])}
        similar = [(near[i], cosine) for i, cosine in mine.similar if i in near]
        return {
            self.parts.summary: library_table.summary(page, mine),
            self.parts.told: "",
            self.parts.table: library_table.table(page, mine, labels, catalogue.files(several)),
            self.parts.similar: library_table.similar(similar, mine.similar_to, labels),
        }

    def _player(self, mine: Shelf) -> Updates:
        """The chosen song. Only files of the library are lent to the browser, each as a copy of its own. Nothing where
        another was chosen meanwhile: that one is told by its own click."""
        chosen, plays, playing = mine.chosen, mine.plays, mine.playing
        track = self.library.catalogue.track(chosen) if chosen is not None else None
        if track is None:
            return {self.parts.player: ""}
        url = problem = ""
        copy: Path | None = None
        try:
            copy = mine.lent[1] if mine.lent and mine.lent[0] == (chosen, plays) and mine.lent[1].exists() else None
            copy = copy or uploads.lent(track.path, self.folder)
            url = cards.file_url(str(copy))
        except OSError as error:
            problem = f"The file cannot be played: {(error.strerror or 'it is not there').lower()}."
        if (mine.chosen, mine.plays) != (chosen, plays):
            return {}
        mine.lent = ((chosen, plays), copy) if copy is not None else None
        return {self.parts.player: library_table.player(track, url, problem, self.labels, plays if playing else 0)}

    def numbers(self, mine: Shelf) -> Updates:
        """The library in numbers, how genres and confidences are distributed among the songs shown, and their marks on
        the map. What is counted already is not counted again."""
        try:
            return self._numbers(mine)
        except AcousticError as error:
            return {self.parts.tiles: cards.problem(error.to_dict())}

    def _numbers(self, mine: Shelf) -> Updates:
        catalogue, p, labels, what = self.library.catalogue, self.parts, self.labels, mine.what
        news: Updates = {}
        version = catalogue.version()
        if mine.counted != (version, what):
            whole = self._stats()
            narrowed = what not in (TrackFilter(), TrackFilter(flag="errors"))
            stats = catalogue.stats(what) if narrowed else whole
            mine.listed = tuple(catalogue.ids(what)) if narrowed else None
            mine.counted = (version, what)
            news = {
                p.tiles: library_table.tiles(whole, what),
                p.genres: library_table.genre_bars(stats, what, labels),
                p.histogram: library_table.histogram(stats, what),
            }
        return {**news, p.marks: _marks(library_map.marks(mine.listed, mine.selected, mine.chosen))}

    def _stats(self) -> LibraryStats:
        """Of the whole library, counted once for all pages."""
        version = self.library.catalogue.version()
        if self._whole[0] != version:
            self._whole = (version, self.library.catalogue.stats())
        return self._whole[1]

    def redraw(self, mine: Shelf, method: str) -> Updates:
        """The map, where it is of another library than the one shown now."""
        if mine.drawn == (mine.seen, method):
            return gr.skip()
        return self.draw(mine, method)

    def draw(self, mine: Shelf, method: str) -> Updates:
        """The map. Where the wanted one cannot be made, the other, with a line that says why."""
        note, of = "", (mine.seen, method)
        try:
            neighbours, genres = self.library.neighbours, self.library.catalogue.genres()
            try:
                found = neighbours.points(method)
            except AcousticError as error:
                note, found = f"{wording.sentence(error.message)} {error.hint}", neighbours.points("pca")
        except AcousticError as error:
            return {self.parts.told: _told(error)}
        mine.drawn = of  # one that could not be made is tried again
        return {self.parts.map: library_map.points(found.ids, found.places, genres, self.labels, note)}

    # --- taking songs along ---

    def playlist(self, mine: Shelf) -> Updates:
        return self._made(mine, "playlist.m3u8", lambda ids: self.library.playlists.m3u8(ids))

    def csv(self, mine: Shelf) -> Updates:
        if mine.what.flag == "duplicates" and not mine.selected:
            return self._made(mine, "duplicates.csv", lambda ids: self.library.playlists.duplicates(ids))
        return self._made(mine, "songs.csv", lambda ids: self.library.playlists.csv(ids))

    def _made(self, mine: Shelf, name: str, make: Callable[[Sequence[int]], str]) -> Updates:
        """A link to a file about the selection, else about all that the table lists; the page's script follows it."""
        try:
            ids = mine.selected or self.library.catalogue.ids(mine.what, mine.sort, mine.descending)
            if not ids:
                return {self.parts.told: _said("There are no songs to list.", False)}
            path = mine.write(self.folder, name, make(ids))
        except AcousticError as error:
            return {self.parts.told: _told(error)}
        except OSError as error:
            return {self.parts.told: _said(f"The file cannot be written: {error.strerror}.", False)}
        href = cards.text(cards.file_url(str(path)))
        link = f'<a class="as-link" download="{name}" data-made="{uuid.uuid4().hex}" href="{href}">{name}</a>'
        of = "the selection" if mine.selected else "this list"
        return {
            self.parts.told: f'<p class="as-note" role="status">{cards.TICK} {link} holds '
            f"{wording.counted(len(ids), 'song')} of {of}.</p>"
        }


def _said(words: str, good: bool = True) -> str:
    """A line that tells how an action ended."""
    return f'<p class="as-note" role="status">{cards.TICK if good else cards.CROSS} {cards.plain(words)}</p>'


def _told(error: AcousticError) -> str:
    return _said(f"{wording.sentence(error.message)} {error.hint}", good=False)


def _marks(marks: str) -> str:
    """The marks as an attribute, which the map's script reads."""
    return f'<span class="as-marks" data-marks="{cards.text(marks)}"></span>'


def _chosen(value: Any) -> str:
    return "" if value in (None, ANY) else str(value)


def _share(percent: float | None, default: float) -> float:
    return default if percent is None else min(1.0, max(0.0, float(percent) / 100))
