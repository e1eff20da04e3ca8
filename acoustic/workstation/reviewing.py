"""What the person's review needs of model and library together: how kept votes are read, and what a genre is called."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LibraryError, StorageError
from ..kept import shown_path
from ..library.genres import settle
from ..records import Analysis, Verdict, Votes
from ..verdict.decision import calibrated, decide, decide_many

if TYPE_CHECKING:
    from ..library.personal import PersonalModel
    from ..library.review import SegmentReader
    from ..library.tracks import Judge, StoredVotes
    from .station import Workstation


def judge(workstation: Workstation, personal: PersonalModel | None) -> Judge:
    """Kept votes of the model that answers -> verdicts, as `personal` or (None) the model alone reads them.

    Songs that were heard with rules on are read with them: the descriptors that they go by are kept.
    """
    card = workstation.card()
    how = personal if personal is not None else card

    def verdicts(stored: Sequence[StoredVotes]) -> list[Verdict]:
        votes = [one.votes for one in stored]
        if personal is not None:
            votes = _read_together(personal, votes)
        found = decide_many(
            votes, how.labels, card.tag_labels, how.calibration, warnings=[one.warnings for one in stored]
        )
        for i, one in enumerate(stored):
            if one.descriptors is not None:
                found[i] = decide(
                    votes[i],
                    how.labels,
                    card.tag_labels,
                    how.calibration,
                    descriptors=one.descriptors,
                    use_rules=True,
                    warnings=one.warnings,
                )
        return found

    return verdicts


def _read_together(personal: PersonalModel, votes: Sequence[Votes]) -> list[Votes]:
    """`personal.read` of each, in one go."""
    parts = ([getattr(v, name) for v in votes] for name in ("logits", "tag_logits", "embeddings"))
    scores = personal.read(Votes(*(np.concatenate(part) for part in parts))).logits
    ends = np.cumsum([len(v) for v in votes])
    return [dataclasses.replace(v, logits=part) for v, part in zip(votes, np.split(scores, ends[:-1]), strict=True)]


def segment_reader(workstation: Workstation) -> SegmentReader:
    """What the segments of kept votes say, as what is in use reads them. None for votes of other weights."""
    base, personal = workstation.base(), workstation.personal()
    how = personal if personal is not None else base

    def read(weights_digest: str, votes: Votes) -> tuple[Sequence[str], np.ndarray] | None:
        if weights_digest != base.weights_digest:
            return None
        scores = personal.read(votes).logits if personal is not None else votes.logits
        return how.labels, calibrated(scores, how.calibration)[0]

    return read


def kept_analysis(workstation: Workstation, track_id: int) -> Analysis:
    """The kept analysis of a song, read as at present. LibraryError if there is none of the model that answers."""
    library, card = workstation.library, workstation.card()
    stored = next(library.tracks.votes([track_id]), None)
    track = library.catalogue.track(track_id)
    fits = stored is not None and stored.votes.logits.shape[1] == len(card.labels)
    if stored is None or track is None or track.model != card.name or not fits:
        raise LibraryError(f"the model {card.name!r} has not heard this song", "Scan its folder again.")
    personal = workstation.personal()
    return Analysis(
        path=track.shown,
        model=card.name,
        duration_s=track.duration_s,
        analyzed_s=sum(end - start for start, end in zip(stored.start_s, stored.end_s, strict=True)),
        cached=True,
        verdict=judge(workstation, personal)([stored])[0],
        start_s=stored.start_s,
        end_s=stored.end_s,
        tags=(),
        embedding=stored.votes.embeddings.mean(axis=0),
        timings_ms={},
        warnings=stored.warnings,
        votes=stored.votes,
        personal=personal.name if personal is not None else None,
    )


def genres(workstation: Workstation) -> tuple[str, ...]:
    """All that a song can be called at present: the model's genres, those that were taught, those that were said."""
    base, personal = workstation.base(), workstation.personal()
    known = personal.labels if personal is not None else base.labels
    said = {genre for _, genre in workstation.library.decisions.labelled()}
    return known + tuple(sorted(said - set(known), key=str.casefold))


def called(workstation: Workstation, name: str) -> str:
    """`name` in the spelling that is known, where it means a known genre; else a new genre's name, tidied.
    ManifestError for a name that no genre can have."""
    return settle([name], genres(workstation))[0]


def heard_file(workstation: Workstation, track_id: int) -> Path:
    """A file of the library in which this song is. LibraryError for a song that is not in it, StorageError if none of
    its files is there."""
    files = workstation.library.catalogue.files([track_id], gone=True).get(track_id)
    if not files:
        raise LibraryError(f"the library has no song {track_id}", "Load the page again.")
    for path in files:
        file = Path(os.fsdecode(path))
        if file.is_file():
            return file
    raise StorageError(f"{shown_path(files[0])} is not there any more", "Bring it back, or scan the folder again.")
