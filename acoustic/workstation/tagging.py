"""Genres of the library into the tags of its files, and back: the use cases around the journal of tags.

The audio of each file is decoded whole, before and after, in processes of their own: a damaged file may kill its
decoder. That takes nearly all of the time, so there is one for each core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..kept import TrackFilter
from ..library.store import Library
from ..library.tagging import Change, Policy, Written, candidates
from ..settings import available_cores
from ..workers import Workers

OnProgress = Callable[[int, int], object]

DIGEST = {"digest": "acoustic.signal.sound_digest:digest_remotely"}
TIMEOUT_S, MEMORY_MB = 1_800.0, 2_048.0  # for hours of audio, of which a second or so stands in memory


@contextmanager
def remote_digest(n: int) -> Iterator[Callable[[bytes], str]]:
    """`sound_digest`, in up to `n` processes at a time, which are started when they are needed."""
    with Workers(DIGEST, {}, n=n, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB) as workers:
        yield lambda path: str(workers.ask("digest", os.fsdecode(path)).meta["digest"])


def plan_tags(
    library: Library,
    policy: Policy,
    what: TrackFilter | None = None,
    *,
    folder: bytes = b"",
    on_progress: OnProgress | None = None,
) -> list[Change]:
    """The dry run for the tracks that `what` leaves (None: all) and their files below `folder` (empty: anywhere)."""
    ids = None if what is None else library.catalogue.ids(what)
    return library.tagging.plan(candidates(library.database, ids, folder), policy, on_progress)


def write_tags(
    library: Library,
    changes: Sequence[Change],
    policy: Policy,
    *,
    hard_links: bool = False,
    on_progress: OnProgress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Written:
    """Write a plan, see TagJournal.apply."""
    n = available_cores()
    with remote_digest(n) as digest:
        return library.tagging.apply(
            changes,
            policy,
            digest,
            hard_links=hard_links,
            n_workers=n,
            on_progress=on_progress,
            stopped=stopped,
        )


def undo_tags(
    library: Library,
    batch_id: int | None = None,
    *,
    keep_times: bool = True,
    hard_links: bool = False,
    on_progress: OnProgress | None = None,
) -> Written:
    """Take a batch back, see TagJournal.undo."""
    with remote_digest(1) as digest:
        return library.tagging.undo(
            batch_id, audio_digest=digest, keep_times=keep_times, hard_links=hard_links, on_progress=on_progress
        )
