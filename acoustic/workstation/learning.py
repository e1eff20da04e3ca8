"""Learn from what a person decided: an offer that says what it is worth and what it would change; then take it, leave
it, or go back at any time.

What is in use and how the library's songs are read go together: both change in `accept` and `roll_back`, and where a
process died between the two, `catch_up` ends the work.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConflictError, ManifestError, ModelError
from ..kept import Track
from ..library.database import Connection, now
from ..library.fitting import track_answers
from ..library.personal import Base, PersonalModel
from ..library.teaching import Lesson, Song
from ..records import Votes
from ..verdict.rules import apply_rules
from .reviewing import judge

if TYPE_CHECKING:
    from ..library.tracks import StoredVotes
    from .station import Workstation

AT_ONCE = 500
"""songs whose answers are worked out together"""
NOBODY = frozenset({"", "unknown", "unknown artist", "various", "various artists", "va", "unknown album"})
"""what stands in tags where nobody is named"""
OF_GENRE = frozenset({"LOW_CONFIDENCE", "SMALL_MARGIN", "SEGMENTS_DISAGREE"})
"""reasons for a review that depend on how genres are read"""

OnProgress = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many)"""


def _nobody(what: str, done: int, n: int) -> None:
    """Where no one follows the progress."""


@dataclass(frozen=True, slots=True)
class Change:
    """A song whose answer would be another: `before` as it is read now, `after` with `confidence`."""

    track_id: int
    before: str
    after: str
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """What was learned of `n_songs` decisions in `n_groups` groups, up to the decision `last_decision_id`.

    `lesson.comparison` is the model alone against what was learned, on songs that were left out of the fit (None where
    none could be). Of the `n_read` songs that the model has heard, `changes` would be answered otherwise than now, the
    surest first; of the `n_waiting` in the queue `n_leaving` would leave it. `warnings` are what a person should know.
    """

    lesson: Lesson
    n_songs: int
    n_groups: int
    last_decision_id: int
    n_read: int
    changes: tuple[Change, ...]
    n_waiting: int
    n_leaving: int
    warnings: tuple[ModelError, ...] = ()

    @property
    def personal(self) -> PersonalModel | None:
        """None where the decisions teach nothing that the model does not know better."""
        return self.lesson.personal

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Shares of right answers before and after, None where nothing could be tested."""
        found = self.lesson.comparison
        return (found.before / found.n, found.after / found.n) if found else None


def learn(workstation: Workstation, on_progress: OnProgress = _nobody) -> Offer:
    """Teach a personal model from all genres that count in the library; nothing is kept or changed.

    Raises ManifestError where there is nothing to learn from, ModelError, LibraryError.
    """
    catch_up(workstation, on_progress)
    library, base = workstation.library, workstation.base()
    labelled = dict(library.decisions.labelled())
    on_progress("Collecting what you decided", 0, 1)
    history = library.decisions.history(limit=1)
    heard = {one.track_id: one for one in _heard(workstation, base, labelled)}
    if not heard:
        raise ManifestError(
            f"no song that {base.model!r} has heard was given a genre",
            "Decide some songs first; forty are a good start.",
        )
    tracks = library.catalogue.tracks(sorted(heard))
    group_of = groups(tracks)
    songs = [Song(heard[t.id].votes, labelled[t.id], group_of[t.id]) for t in tracks]
    on_progress(f"Learning from {len(songs)} songs", 0, 1)
    taught = workstation.teach_heard(songs)
    waiting = set(library.reviews.waiting())
    changes, n_read, n_leaving = _preview(workstation, base, taught.lesson.personal, waiting, on_progress)
    return Offer(
        lesson=taught.lesson,
        n_songs=len(songs),
        n_groups=len(set(group_of.values())),
        last_decision_id=history[0].id if history else 0,
        n_read=n_read,
        changes=changes,
        n_waiting=len(waiting),
        n_leaving=n_leaving,
        warnings=taught.warnings,
    )


def accept(workstation: Workstation, offer: Offer, on_progress: OnProgress = _nobody) -> str:
    """Keep what was learned, put it to use, read all songs anew; returns the version's name. Raises ModelError."""
    personal = offer.personal
    if personal is None:
        raise ModelError("there is nothing to accept", "Decide some more songs, then learn again.")
    if personal.name in {version.name for version in workstation.personal_versions()}:  # taken since it was offered
        personal = dataclasses.replace(personal, name=workstation.free_version())
    workstation.keep_personal(personal)
    workstation.use_personal(personal.name)
    _write_down(workstation, offer, personal.name, "accepted")
    catch_up(workstation, on_progress)
    return personal.name


def discard(workstation: Workstation, offer: Offer) -> None:
    """Leave everything as it is; that it was offered is kept."""
    _write_down(workstation, offer, offer.personal.name if offer.personal else "", "discarded")


def roll_back(workstation: Workstation, on_progress: OnProgress = _nobody, shown: str = "") -> str | None:
    """Back to what was in use before, with all songs read anew; returns its name, None for the model alone. Raises
    ModelError where there is nothing before, ConflictError where another version is in use than the one that was
    `shown` to who asks. The version stays and can be used again."""
    left = workstation.active_personal()
    if shown and left != shown:
        raise ConflictError(
            f"version {shown} is not in use any more: {f'version {left}' if left else 'the model alone'} is",
            "Look again, then roll back if you still want to.",
        )
    name = workstation.undo_personal()

    def work(db: Connection) -> None:
        db.execute("UPDATE lessons SET state = 'rolled back' WHERE version = ? AND state = 'accepted'", (left or "",))

    workstation.library.database.write(work)
    catch_up(workstation, on_progress)
    return name


def catch_up(workstation: Workstation, on_progress: OnProgress = _nobody) -> int:
    """Read anew all songs that are not read as what is in use reads them; returns how many were."""
    library, personal = workstation.library, workstation.personal()
    name = personal.name if personal is not None else ""
    n_read = 0
    for model_id in library.tracks.models(workstation.base().weights_digest):
        if library.tracks.is_behind(model_id, name):
            n_read += library.tracks.reread(
                judge(workstation, personal),
                name,
                model_id,
                lambda done, n: on_progress("Reading all songs anew", done, n),
            )
    library.reviews.refresh()
    return n_read


def groups(tracks: Iterable[Track]) -> dict[int, str]:
    """{track: group}: songs by the same artist, or of the same album in one folder, are one group, so that none is
    tested on another that is nearly the same. A song without such tags is alone."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    names = {track.id: f"song {track.id}" for track in tracks}
    for track in tracks:
        artist, album = (" ".join(tag.casefold().split()) for tag in (track.tags.artist, track.tags.album))
        if artist not in NOBODY:
            leader[find(names[track.id])] = find(f"artist {artist}")
        if album not in NOBODY:
            leader[find(names[track.id])] = find(f"album {album} in {os.path.dirname(track.path)!r}")
    return {track_id: find(name) for track_id, name in names.items()}


# --- what the model has heard ---


def _heard(workstation: Workstation, base: Base, track_ids: Iterable[int]) -> Iterator[StoredVotes]:
    """The kept votes of those of the songs that the model has heard, each once."""
    left = set(track_ids)
    for model_id in workstation.library.tracks.models(base.weights_digest):
        for one in workstation.library.tracks.votes(sorted(left), model_id):
            if one.track_id in left:
                left.discard(one.track_id)
                yield one


@dataclass(frozen=True, slots=True)
class _Read:
    """How a song is read at present."""

    top_genre: str
    reasons: frozenset[str]


def _preview(
    workstation: Workstation,
    base: Base,
    personal: PersonalModel | None,
    waiting: set[int],
    on_progress: OnProgress,
) -> tuple[tuple[Change, ...], int, int]:
    """What `personal` would change: (changes, songs read, songs of `waiting` that would leave the queue)."""
    now_read = _readings(workstation)
    if personal is None:
        return (), len(now_read), 0
    changes: list[Change] = []
    n_read = n_leaving = 0
    for part in _parts(_heard(workstation, base, now_read)):
        answers = _answers(part, personal)
        for one, best, confidence in zip(part, answers.argmax(axis=1), answers.max(axis=1), strict=True):
            n_read += 1
            before, after = now_read[one.track_id], personal.labels[best]
            if before.top_genre != after:
                changes.append(Change(one.track_id, before.top_genre, after, float(confidence)))
            unsure = confidence < personal.calibration.review_below_confidence
            n_leaving += one.track_id in waiting and not unsure and not (before.reasons - OF_GENRE)
        on_progress("Comparing the answers", n_read, len(now_read))
    return tuple(sorted(changes, key=lambda c: (-c.confidence, c.track_id))), n_read, n_leaving


def _readings(workstation: Workstation) -> dict[int, _Read]:
    statement = """
        SELECT a.track_id, v.top_genre, v.review_reasons FROM verdicts v JOIN analyses a ON a.id = v.analysis_id
        WHERE a.id = (SELECT max(id) FROM analyses WHERE track_id = a.track_id)"""
    rows = workstation.library.database.read(lambda db: db.execute(statement).fetchall())
    return {row[0]: _Read(row[1], frozenset(json.loads(row[2]))) for row in rows}


def _parts(stored: Iterator[StoredVotes]) -> Iterator[list[StoredVotes]]:
    part: list[StoredVotes] = []
    for one in stored:
        part.append(one)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _answers(stored: Sequence[StoredVotes], personal: PersonalModel) -> np.ndarray:
    """(n, C') probabilities of n songs, all at once; after rules, where these were on when the song was heard."""
    votes = [one.votes for one in stored]
    logits = np.concatenate([v.logits for v in votes])
    together = Votes(logits, np.zeros((len(logits), 0), np.float32), np.concatenate([v.embeddings for v in votes]))
    song = np.repeat(np.arange(len(votes)), [len(v) for v in votes])
    answers = track_answers(personal.read(together).logits, song, personal.calibration)
    for i, one in enumerate(stored):
        if one.descriptors is not None:
            answers[i], _ = apply_rules(personal.labels, answers[i], one.descriptors)
    return answers


def _write_down(workstation: Workstation, offer: Offer, version: str, state: str) -> None:
    before, after = offer.accuracy or (None, None)

    def work(db: Connection) -> None:
        db.execute(
            "INSERT INTO lessons (version, made_at, last_decision_id, n_songs, accuracy_before, accuracy_after, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (version, now(), offer.last_decision_id or None, offer.n_songs, before, after, state),
        )

    workstation.library.database.write(work)
