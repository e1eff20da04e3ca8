"""What one person looks at in the library: filter, order, page, selection, the chosen song; and what a click changes.

One Shelf a browser session, held in gr.State. It holds no songs, only what to ask the catalogue.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ..kept import Column, Flag, TrackFilter

PAGE_SIZE = 50
N_BINS = 10
DESCENDING_FIRST = ("confidence", "added", "duration")  # where the large ones are the interesting ones


@dataclass
class Shelf:
    """`selected` is in the order in which songs were picked. `plays` rises with each song that is to be played, so that
    playing one again is news for the browser; `playing` is False for a song that was only looked at. `similar` are
    (track id, cosine) of what sounds like `similar_to`."""

    what: TrackFilter = field(default_factory=TrackFilter)
    sort: Column = "added"
    descending: bool = True
    offset: int = 0
    selected: tuple[int, ...] = ()
    chosen: int | None = None
    plays: int = 0
    playing: bool = False
    similar: tuple[tuple[int, float], ...] = ()
    similar_to: str = ""
    # what the page shows at present, so that nothing is counted or sent twice
    seen: Any = None
    """the version of the library"""
    counted: Any = None
    """what the distributions are of: version and filter"""
    drawn: Any = None
    """what the map is of: version and projection"""
    lent: tuple[Any, Path] | None = None
    """(what was chosen, the copy that the browser has): it plays on though the file's tags are written meanwhile"""
    scan_told: str = ""
    listed: tuple[int, ...] | None = None
    """ids of the songs that the filter leaves, for the map; None for all"""
    token: str = ""

    def narrow(self, what: TrackFilter) -> bool:
        """Another filter, from its first page on; False where it is the same."""
        if what == self.what:
            return False
        self.what, self.offset = what, 0
        return True

    def act(self, do: str, value: str, ids: Sequence[int] = ()) -> bool:
        """What a click asks for, but for "similar" and "page", which need the library. True where the filter has
        changed. What makes no sense is left undone: clicks come from outside."""
        what = self.what
        number = int(value) if value.isdecimal() else None
        if do == "sort" and value in get_args(Column):
            self.order_by(value)  # type: ignore[arg-type]
        elif do in ("tick", "untick") and number is not None:
            others = tuple(i for i in self.selected if i != number)
            self.selected = (*others, number) if do == "tick" else others
        elif do in ("choose", "play") and number is not None:
            self.chosen, self.playing = number, do == "play"
            self.plays += self.playing
        elif do == "close":
            self.chosen, self.playing = None, False
        elif do == "lasso" and ids:  # one round nothing is a slip of the hand
            self.selected = tuple(dict.fromkeys((*self.selected, *ids) if value == "add" else ids))
        elif do == "take":
            self.selected = tuple(dict.fromkeys((*self.selected, *(track_id for track_id, _ in self.similar))))
        elif do == "forget":
            self.similar, self.similar_to = (), ""
        elif do == "only":
            return self.narrow(dataclasses.replace(what, ids=self.selected))
        elif do == "drop":
            self.selected = ()
            return self.narrow(dataclasses.replace(what, ids=()))
        elif do == "reset":
            return self.narrow(TrackFilter())
        elif do == "flag" and value in get_args(Flag):
            return self.narrow(dataclasses.replace(what, flag="all" if what.flag == value else value))  # type: ignore[arg-type]
        elif do == "genre":
            return self.narrow(dataclasses.replace(what, genre="" if what.genre == value else value))
        elif do == "bin" and number is not None and number < N_BINS:
            low, high = number / N_BINS, (number + 1) / N_BINS
            if (what.min_confidence, what.max_confidence) == (low, high):
                low, high = 0.0, 1.0
            return self.narrow(dataclasses.replace(what, min_confidence=low, max_confidence=high))
        return False

    def order_by(self, column: Column) -> None:
        """By this column, or the other way round if it is that already."""
        self.descending = not self.descending if column == self.sort else column in DESCENDING_FIRST
        self.sort, self.offset = column, 0

    def turn_to(self, offset: int, n_total: int) -> None:
        """To the page that holds the row number `offset`, or the last."""
        last = max(0, (n_total - 1) // PAGE_SIZE * PAGE_SIZE)
        self.offset = min(max(0, offset) // PAGE_SIZE * PAGE_SIZE, last)

    def write(self, folder: Path, name: str, text: str) -> Path:
        """`text` as a file of this session alone under `folder`. Raises OSError."""
        self.token = self.token or uuid.uuid4().hex
        place = folder / f"library-{self.token}"
        place.mkdir(parents=True, exist_ok=True)
        target = place / name
        target.write_text(text, encoding="utf-8", newline="")
        return target


def folder_named(text: str, known: Sequence[tuple[str, bytes]]) -> bytes:
    """The folder that a person chose among the `known` (shown, path), or typed; empty where that can be none."""
    typed = text.strip()
    if typed in dict(known):
        return dict(known)[typed]
    try:
        return os.fsencode(os.path.expanduser(typed))
    except UnicodeEncodeError:
        return b""
