"""The library as the rest of the program sees it: one file, and what is done with it, each part made at first need."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .database import Database

if TYPE_CHECKING:
    from .catalogue import Catalogue
    from .decisions import Decisions
    from .neighbours import Neighbours
    from .playlists import Playlists
    from .review import ReviewQueue
    from .tagging import TagJournal
    from .tracks import Tracks


class Library:
    """What is kept in the file `path`, which is made where there is none. To be closed; safe to use from any thread.

    LibraryError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path)

    @property
    def path(self) -> Path:
        return self.database.path

    @cached_property
    def tracks(self) -> Tracks:
        from .tracks import Tracks

        return Tracks(self.database)

    @cached_property
    def decisions(self) -> Decisions:
        from .decisions import Decisions

        return Decisions(self.database)

    @cached_property
    def catalogue(self) -> Catalogue:
        from .catalogue import Catalogue

        return Catalogue(self.database)

    @cached_property
    def neighbours(self) -> Neighbours:
        from .neighbours import Neighbours

        return Neighbours(self.catalogue)

    @cached_property
    def playlists(self) -> Playlists:
        from .playlists import Playlists

        return Playlists(self.catalogue)

    @cached_property
    def reviews(self) -> ReviewQueue:
        from .review import ReviewQueue

        return ReviewQueue(self.database)

    @cached_property
    def tagging(self) -> TagJournal:
        from .tagging import TagJournal

        return TagJournal(self.database)

    def close(self) -> None:
        """Wait for what is being written, and let go of the file."""
        self.database.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
