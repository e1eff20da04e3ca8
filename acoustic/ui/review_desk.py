"""What the script of the Review tab can ask for: songs, decisions, undo, the album, a file to play, a lesson.

Each answer is JSON: {"ok": true, ...}, or {"ok": false, "error": {"code", "message", "hint"}}. A decision is on disk
when its answer is sent. Every request of the page carries the token that it got when it was opened, which no other site
can read; and every decision a step of its own, so that one that is sent twice is kept once.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConflictError, LibraryError, SettingsError, StorageError
from ..kept import NOT_MUSIC, Decision, DecisionKind
from ..records import Overview
from ..workstation import learning, reviewing
from . import review_cards, uploads
from .answering import Answer, Ask, served
from .cards import file_url

if TYPE_CHECKING:
    from ..workstation import Workstation

N_HELD = 16
"""songs that a page holds, so that the next is there at once"""
N_HISTORY = 12
N_OVERVIEWS, N_OFFERS = 6, 4


class ReviewDesk:
    """The requests of all pages over one workstation. Safe from any thread."""

    def __init__(self, workstation: Workstation, upload_folder: Path) -> None:
        self._workstation = workstation
        self._upload_folder = upload_folder
        self.token = secrets.token_urlsafe(16)
        self._overviews: OrderedDict[int, Overview] = OrderedDict()
        self._offers: OrderedDict[str, learning.Offer] = OrderedDict()
        self._state = threading.Lock()
        self._learning = threading.Lock()
        self._told = ""

    def functions(self) -> list[Callable[[Ask], Answer]]:
        """What the script calls, under the names that it uses."""
        return [
            served("review_open", self.open, None),
            *(
                served(f"review_{name}", getattr(self, name), self.token)
                for name in ("state", "item", "decide", "album", "decide_album", "undo", "listen", "prepare")
            ),
            *(
                served(f"review_{name}", getattr(self, name), self.token)
                for name in ("learn", "told", "accept", "discard", "roll_back")
            ),
        ]

    # --- songs ---

    def open(self, ask: Ask) -> Answer:
        """All that a page needs to begin."""
        return {"token": self.token, "who": _who(ask) or login_name(), "not_music": NOT_MUSIC, **self.state(ask)}

    def state(self, ask: Ask) -> Answer:
        """The next songs after those that the page holds, how far the person is, what was decided last. `taken` are
        those of the held songs that somebody has decided."""
        library = self._workstation.library
        held = [int(i) for i in ask.get("hold", ())]
        n = max(0, min(N_HELD, int(ask.get("n", N_HELD))))
        read = reviewing.segment_reader(self._workstation)
        decisions = library.decisions.history(limit=5 * N_HISTORY)
        tracks = {track.id: track for track in library.catalogue.tracks([one.track_id for one in decisions])}
        in_force = {i: library.decisions.in_force(i) for i in held}
        names = reviewing.genres(self._workstation)
        return {
            "items": [
                review_cards.item(one)
                for one in library.reviews.next(n, reason=str(ask.get("reason", "")), after=held, read=read)
            ],
            "taken": [i for i, decision in in_force.items() if decision is not None and decision.kind != "skip"],
            "progress": review_cards.progress(library.reviews.progress(_who(ask))),
            "history": review_cards.history(decisions, tracks, N_HISTORY),
            "reasons": review_cards.reasons(library.reviews.reasons()),
            "genres": review_cards.genres(names, self._workstation.base().labels),
            "lesson": review_cards.lesson_idle(self._workstation.active_personal(), len(library.decisions.labelled())),
        }

    def listen(self, ask: Ask) -> Answer:
        """Where the browser finds the song's audio."""
        file = reviewing.heard_file(self._workstation, int(ask["id"]))
        try:
            copy = uploads.lent(os.fsencode(file), self._upload_folder)
        except OSError as error:
            raise StorageError(f"the file cannot be read: {error.strerror or error}") from error
        return {"url": file_url(str(copy))}

    def prepare(self, ask: Ask) -> Answer:
        """What will be wanted next: a song's file and its picture."""
        self.overview(int(ask["id"]))
        return self.listen(ask)

    def overview(self, track_id: int) -> Overview:
        """The picture of the whole song; the last ones are kept. Raises AcousticError."""
        with self._state:
            if track_id in self._overviews:
                self._overviews.move_to_end(track_id)
                return self._overviews[track_id]
        made = self._workstation.overview(reviewing.heard_file(self._workstation, track_id))
        with self._state:
            self._overviews[track_id] = made
            while len(self._overviews) > N_OVERVIEWS:
                self._overviews.popitem(last=False)
        return made

    # --- decisions ---

    def decide(self, ask: Ask) -> Answer:
        """Keep a decision (or a skip); with ConflictError the song as it is now."""
        decisions = self._workstation.library.decisions
        track_id, step = int(ask["id"]), str(ask["step"])
        kind: DecisionKind = "skip" if ask.get("kind") == "skip" else "genre"
        genre = None if kind == "skip" else self._genre(ask)
        expected = None if ask.get("expected") is None else int(ask["expected"])
        try:
            kept = decisions.decide(
                track_id, genre, kind=kind, who=_who(ask), expected=expected, took_s=_seconds(ask), batch=step
            )
        except ConflictError:
            again = next((one for one in decisions.history(track_id) if one.batch == step), None)
            if again is None:
                raise
            kept = again  # it had arrived, only its answer had not
        return {"decision": kept.id, "said": review_cards.said(kept.genre), "batch": step}

    def album(self, ask: Ask) -> Answer:
        """The other songs of the same album, those that are decided already marked."""
        tracks = self._workstation.library.reviews.album(int(ask["id"]))
        return {
            "songs": [
                {"id": track.id, "name": review_cards.shown(track.name), "decided": track.decided is not None}
                for track in tracks
            ]
        }

    def decide_album(self, ask: Ask) -> Answer:
        """One word for several songs, in one step."""
        ids = [int(ask["id"]), *(int(i) for i in ask["ids"])]
        kept = self._workstation.library.decisions.decide_many(
            ids, self._genre(ask), who=_who(ask), took_s=_seconds(ask)
        )
        return {"decided": [one.track_id for one in kept], "batch": kept[0].batch if kept else ""}

    def undo(self, ask: Ask) -> Answer:
        """Take back the step with this `batch` or the decision with this id, or (neither) the last step of `who`."""
        decisions, who = self._workstation.library.decisions, _who(ask)
        if ask.get("batch"):
            wanted = [one for one in decisions.history(int(ask["id"])) if one.batch == str(ask["batch"])]
            if not wanted:
                raise LibraryError("the decision was not found", "Load the page again.")
            taken_back = self._undo_step(wanted[-1], who)
        else:
            taken_back = decisions.undo(who, None if ask.get("decision") is None else int(ask["decision"]))
        return {"items": self._items([one.track_id for one in taken_back])}

    def _undo_step(self, first: Decision, who: str) -> list[Decision]:
        """The whole step of which `first` is one; nothing if it was taken back before."""
        decisions = self._workstation.library.decisions
        lines = decisions.history(limit=2_000)
        undone = {one.undoes for one in lines}
        step = [one for one in lines if one.batch == first.batch and one.kind != "undo" and one.id not in undone]
        latest = next((one for one in lines if one.who == who and one.kind != "undo" and one.id not in undone), None)
        if step and latest is not None and latest.batch == first.batch:
            return decisions.undo(who)  # all of it at once
        return [line for one in step for line in decisions.undo(who, one.id)]

    def item(self, ask: Ask) -> Answer:
        """The song as it is now, for a page whose decision was refused."""
        return {"items": self._items([int(ask["id"])])}

    def _items(self, track_ids: list[int]) -> list[dict[str, Any]]:
        read = reviewing.segment_reader(self._workstation)
        found = (self._workstation.library.reviews.item(i, read) for i in dict.fromkeys(track_ids))
        return [review_cards.item(one) for one in found if one is not None]

    def _genre(self, ask: Ask) -> str:
        genre = str(ask["genre"])
        return NOT_MUSIC if genre == NOT_MUSIC else reviewing.called(self._workstation, genre)

    # --- learning ---

    def learn(self, ask: Ask) -> Answer:
        """An offer, as HTML; it takes seconds, and `told` says how far it is."""
        with self._alone():
            offer = learning.learn(self._workstation, self._tell)
        key = secrets.token_urlsafe(8)
        with self._state:
            self._offers[key] = offer
            while len(self._offers) > N_OFFERS:
                self._offers.popitem(last=False)
        shown = [change.track_id for change in offer.changes[: review_cards.N_CHANGES]]
        tracks = {track.id: track for track in self._workstation.library.catalogue.tracks(shown)}
        return {"html": review_cards.offer(offer, tracks, key)}

    def told(self, ask: Ask) -> Answer:
        """What is being done at present."""
        return {"told": self._told}

    def accept(self, ask: Ask) -> Answer:
        with self._alone():
            name = learning.accept(self._workstation, self._offer(ask), self._tell)
        return {"told": f"Version {name} is in use, and all songs were read anew."}

    def discard(self, ask: Ask) -> Answer:
        learning.discard(self._workstation, self._offer(ask))
        return {"told": "Discarded; nothing was changed."}

    def roll_back(self, ask: Ask) -> Answer:
        """Back from the version that the page shows as the one in use."""
        with self._alone():
            name = learning.roll_back(self._workstation, self._tell, shown=str(ask.get("version", "")))
        return {"told": f"{f'Version {name}' if name else 'The model alone'} is in use again."}

    def _offer(self, ask: Ask) -> learning.Offer:
        with self._state:
            found = self._offers.pop(str(ask["offer"]), None)
        if found is None:
            raise SettingsError("this offer is not there any more", "Learn again; it takes a few seconds.")
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One lesson at a time, whoever asked for it."""
        if not self._learning.acquire(blocking=False):
            raise LibraryError("a lesson is being learned already", "Wait until it is done.")
        try:
            yield
        finally:
            self._told = ""
            self._learning.release()

    def _tell(self, what: str, done: int, n: int) -> None:
        self._told = f"{what}: {done:,} of {n:,}" if n > 1 else f"{what} …"


def login_name() -> str:
    """What the system calls the person; "me" where it does not say."""
    try:
        return getpass.getuser() or "me"
    except (KeyError, OSError, ImportError):
        return "me"


def _who(ask: Ask) -> str:
    return str(ask.get("who") or "").strip()


def _seconds(ask: Ask) -> float | None:
    took = ask.get("took_s")
    return float(took) if isinstance(took, (int, float)) else None
