"""The use cases, shared by the page and the command line: analyse, look at a whole track, describe, teach, keep models,
check up.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import AudioError, ManifestError, ModelError, StorageError
from ..library import background
from ..library.comparison import Comparison, compare
from ..library.genres import settle
from ..library.personal import Base, PersonalModel
from ..library.store import Library
from ..library.versions import Version, Versions
from ..network.card import ModelCard
from ..network.registry import EMBEDDED_MODEL, Registry, model_folders
from ..records import Analysis, Descriptors, Failure, MelSpec, Overview
from ..settings import PROJECT_ROOT, Settings
from ..verdict.decision import calibrated

if TYPE_CHECKING:  # what loads torch, decoders or scipy is imported where it is used: a rescan needs none of them
    from ..engine import OptimizedAudioClassifier, PathLike
    from ..library.teaching import Lesson, Song

OVERVIEW_COLUMNS = 1_000
OVERVIEW_BLOCK_S = 60.0
"""a long track is read in blocks of this length, so that an hour of tape does not stand in memory"""


@dataclass(frozen=True, slots=True)
class Example:
    """A song of which a person said the genre. Songs of one `group` (an artist, say) are tested together; empty is the
    file itself."""

    path: PathLike
    genre: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of teaching: the lesson, the files that could not be heard, and what a person should know of it."""

    lesson: Lesson
    failures: tuple[Failure, ...]
    warnings: tuple[ModelError, ...]


class Workstation:
    """One person's workstation: a classifier, made at first need, and what is done with it.

    `personal` False leaves what the person taught aside. `personal_problem` says why the version in use cannot be used;
    the model then answers alone. `scanning` is whether a scan runs (see `scanning.scan`).
    """

    def __init__(self, settings: Settings | None = None, *, cache: bool = True, personal: bool = True) -> None:
        self.settings = settings or Settings.load()
        self.personal_problem: ModelError | None = None
        self._taken_up: str | None = None
        self.scanning = False
        self._versions = Versions(self.settings.data_folder() / "personal")
        self._personal = personal
        self._cache = cache
        self._classifier: OptimizedAudioClassifier | None = None
        self._library: Library | None = None
        self._making = threading.Lock()
        self._opening = threading.Lock()

    @property
    def classifier(self) -> OptimizedAudioClassifier:
        """The classifier, which answers with what is in use now, whichever program chose it. ModelError or BackendError
        if it cannot be set up."""
        with self._making:
            if self._classifier is not None and self._personal and self._chosen() != self._taken_up:
                self._put_to_use(self._classifier)
            if self._classifier is None:
                from ..engine import OptimizedAudioClassifier

                self._classifier = OptimizedAudioClassifier(
                    settings=self.settings,
                    cache=self._cache,
                    n_threads=self.settings.n_threads(),
                )
                if self._personal:
                    self._put_to_use(self._classifier)
        return self._classifier

    @property
    def library(self) -> Library:
        """What is kept of the person's songs; LibraryError if its file cannot be opened."""
        with self._opening:
            if self._library is None:
                self._library = Library(self.settings.library_file())
        return self._library

    def has_library(self) -> bool:
        """Whether anything was ever kept: `library` makes what is not there."""
        return self._library is not None or os.path.exists(self.settings.library_file())

    def is_behind(self) -> bool:
        """Whether songs of the library are read otherwise than what is in use reads them, see `learning.catch_up`.
        Raises ModelError if that cannot be used."""
        if not (self._personal and self.has_library()):
            return False
        personal, tracks = self.personal(), self.library.tracks
        name = personal.name if personal is not None else ""
        return any(tracks.is_behind(model_id, name) for model_id in tracks.models(self.base().weights_digest))

    def close(self) -> None:
        if self._classifier is not None:
            self._classifier.close()
        if self._library is not None:
            self._library.close()

    def __enter__(self) -> Workstation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- songs ---

    def analyze(
        self,
        paths: Sequence[PathLike],
        *,
        descriptors: bool = False,
        on_stage: Callable[[int, str], None] | None = None,
    ) -> Iterator[tuple[int, Analysis | Failure]]:
        """See OptimizedAudioClassifier.analyze_many."""
        return self.classifier.analyze_many(paths, descriptors=descriptors, on_stage=on_stage)

    def describe(self, path: PathLike) -> Descriptors:
        """Tempo, beat strength, low frequencies and vocal presence of one file. Raises AudioError."""
        return self.classifier.describe(path)

    def overview(self, path: PathLike) -> Overview:
        """The mel spectrogram of the whole track, at most about OVERVIEW_COLUMNS wide. Raises AudioError.

        The whole file is decoded for it, so it is for showing, not for the verdict.
        """
        from ..signal import audio
        from ..signal.mel import band_centres_hz

        spec = self.card().mel
        with audio.open_audio(path, spec.sample_rate, self.settings) as reader:
            duration_s = reader.duration_s
            n_frames = max(1, int(duration_s * spec.sample_rate) // spec.hop_length)
            per_column = -(-n_frames // OVERVIEW_COLUMNS)
            column_s = per_column * spec.hop_length / spec.sample_rate
            block_s = column_s * max(1, round(OVERVIEW_BLOCK_S / column_s))
            blocks: list[np.ndarray] = []
            start_s = 0.0
            while start_s < duration_s - column_s / 2 or not blocks:
                length_s = min(block_s, duration_s - start_s)
                try:
                    samples = reader.read(start_s, length_s).samples
                except AudioError:  # a damaged stretch is dark; the rest of the picture is worth seeing
                    if not start_s:
                        raise
                    samples = np.zeros(round(length_s * spec.sample_rate), np.float32)
                if len(samples) == 0:
                    break
                blocks.append(_columns(samples, spec, per_column))
                start_s += block_s
        mel_db = np.concatenate(blocks, axis=1)
        mel_db = np.maximum(mel_db, mel_db.max() - spec.top_db)  # once for the whole track: no seams between blocks
        times = (np.arange(mel_db.shape[1]) + 0.5) * column_s
        return Overview(mel_db, times, band_centres_hz(spec), duration_s)

    def demo_clip(self) -> Path:
        """The synthetic clip that ships with the project."""
        clip = PROJECT_ROOT / "assets" / "demo.ogg"
        if not clip.is_file():
            raise StorageError("the demo clip is missing", "Make it again with `python assets/make_demo.py`.")
        return clip

    # --- the person's own genres ---

    def teach(
        self, examples: Sequence[Example], name: str = "", on_song: Callable[[int, int], None] = lambda done, n: None
    ) -> Taught:
        """Learn from songs whose genre a person said: one of the model's, or one of the person's own.

        Nothing is kept: see `keep_personal`. Files that cannot be analysed are left out. Raises ManifestError if
        nothing can be learned from the rest, ModelError for a version's name that is taken or cannot be one.
        """
        if name:
            self._versions.check_name(name)  # and the genres' names: before minutes are spent on the songs
        settle([example.genre for example in examples], self.base().labels)
        songs, failures = self._songs(examples, on_song)
        if not songs and failures:
            raise ManifestError(f"none of the {len(failures)} songs could be analysed", failures[0].error["message"])
        taught = self.teach_heard(songs, name)
        return dataclasses.replace(taught, failures=tuple(failures))

    def teach_heard(self, songs: Sequence[Song], name: str = "") -> Taught:
        """As `teach`, of songs that the network has heard before."""
        from ..library.teaching import teach

        name = name or self.free_version()
        self._versions.check_name(name)
        base = self.base()
        warnings: list[ModelError] = []
        rest = None
        try:
            rest = background.read(background.file_of(self._model_folder()), base)
        except ModelError as error:
            warnings.append(error)
        if rest is None:
            lost = "genres that are not taught may be forgotten, because the model brings no background of other music"
            warnings.append(ModelError(lost, "Teach some songs of every genre that matters to you."))
        return Taught(teach(songs, base, rest, name=name), (), tuple(warnings))

    def free_version(self) -> str:
        """A name that no version has yet."""
        return self._versions.free_name()

    def keep_personal(self, personal: PersonalModel) -> None:
        """Keep what was taught as a version; what is in use stays in use."""
        self._versions.save(personal)

    def use_personal(self, name: str | None) -> None:
        """From now on the version of this name, or (None) the model alone. Raises ModelError for one that cannot be
        used, and then changes nothing."""
        if name is not None:
            self._versions.load(name, self.base())
        self._versions.use(name)
        if self._classifier is not None:
            self._put_to_use(self._classifier)

    def undo_personal(self) -> str | None:
        """Back to what was in use before, which is returned; None is the model alone. Raises ModelError, and then
        changes nothing."""
        name = self._versions.undo(self.base())
        if self._classifier is not None:
            self._put_to_use(self._classifier)
        return name

    def personal_versions(self) -> list[Version]:
        """All versions; each says whether it is in use, and why it cannot be used where it cannot."""
        return self._versions.listed(self.base())

    def personal(self) -> PersonalModel | None:
        """The version in use, None for the model alone. Raises ModelError if it cannot be used."""
        name = self._versions.active() if self._personal else None
        return self._versions.load(name, self.base()) if name else None

    def active_personal(self) -> str | None:
        """The name of the version in use. Raises ModelError if that cannot be read."""
        return self._versions.active()

    def export_personal(self, name: str, target: Path) -> None:
        """Write a version to a zip file or a folder. Raises ModelError."""
        self._versions.export(name, target)

    def import_personal(self, source: Path, name: str = "") -> str:
        """Take what was exported, without putting it to use; returns its name. Raises ModelError."""
        return self._versions.take(source, name)

    def compare_personal(
        self,
        examples: Sequence[Example],
        name: str | None = None,
        on_song: Callable[[int, int], None] = lambda done, n: None,
    ) -> tuple[Comparison, list[Failure]]:
        """The model alone against a version (None: the one in use) on the same songs. Raises ModelError for a version
        that cannot be used, ManifestError for a genre that it does not know or if no song could be analysed."""
        name = name or self._versions.active()
        if name is None:
            raise ModelError("no version is in use", "Name one, or teach one with `acoustic personal fit`.")
        base = self.base()
        personal = self._versions.load(name, base)
        genres = settle([example.genre for example in examples], personal.labels)
        unknown = sorted(set(genres) - set(personal.labels))
        if unknown:
            raise ManifestError(
                f"version {name!r} does not know the genre {unknown[0]!r}", f"Known: {', '.join(personal.labels)}."
            )
        known = [Example(e.path, genre, e.group) for e, genre in zip(examples, genres, strict=True)]
        songs, failures = self._songs(known, on_song)
        if not songs:
            raise ManifestError("none of the songs could be analysed", failures[0].error["message"] if failures else "")
        before = np.stack([calibrated(s.votes.logits, base.calibration)[1] for s in songs])
        after = np.stack([calibrated(personal.read(s.votes).logits, personal.calibration)[1] for s in songs])
        targets = np.asarray([personal.labels.index(s.genre) for s in songs])
        return compare(personal.labels, targets, [s.group for s in songs], before, after), failures

    def _songs(
        self, examples: Sequence[Example], on_song: Callable[[int, int], None]
    ) -> tuple[list[Song], list[Failure]]:
        """What the network heard in each, in order, and what failed."""
        from ..library.teaching import Song

        heard: dict[int, Song] = {}
        failed: dict[int, Failure] = {}
        for index, answer in self.classifier.analyze_many([example.path for example in examples]):
            example = examples[index]
            if isinstance(answer, Failure):
                failed[index] = answer
            else:
                assert answer.votes is not None  # the engine's analyses always carry them
                heard[index] = Song(answer.votes, example.genre, example.group or os.fspath(example.path))
            on_song(len(heard) + len(failed), len(examples))
        return [heard[i] for i in sorted(heard)], [failed[i] for i in sorted(failed)]

    def _chosen(self) -> str | None:
        """What is in use by its name, whichever program chose it; the error's text where that cannot be read."""
        try:
            return self._versions.active()
        except ModelError as error:
            return error.message

    def _put_to_use(self, classifier: OptimizedAudioClassifier) -> None:
        """The version in use, or the model alone where there is none or it cannot be used."""
        personal = problem = None
        self._taken_up = self._chosen()
        try:
            personal = self.personal()
        except ModelError as error:
            problem = error
        classifier.personal, self.personal_problem = personal, problem

    def _model_folder(self) -> Path:
        return self.models().find(self.settings.model or EMBEDDED_MODEL)

    def base(self) -> Base:
        """What the person's genres stand on: read from the card, so that no network need be loaded."""
        card = self.card()
        shape = card.architecture
        return Base(card.name, card.weights_digest, card.labels, card.calibration, shape.n_embedding or shape.width)

    # --- models ---

    def card(self) -> ModelCard:
        """The card of the model that answers. Raises ModelError."""
        return self.models().card(self._model_folder())

    def models(self) -> Registry:
        """The models at hand: those that ship and the person's own."""
        return Registry(model_folders(self.settings))

    def import_model(
        self, source: Path, name: str, labels: Sequence[str], mel: MelSpec, layout: str = "auto"
    ) -> ModelCard:
        """Take an outside checkpoint into the person's data folder. Raises ModelError, also for a name that is
        taken.
        """
        from ..network.importing import import_checkpoint

        if name in self.models().names():
            raise ModelError(f"a model called {name!r} is there already", "Choose another name.")
        return import_checkpoint(source, name, tuple(labels), mel, model_folders(self.settings)[1], layout)

    def status(self) -> dict[str, Any]:
        """What answers at present: model, device, precision, backend, version."""
        stats = self.classifier.get_stats()
        return {
            "version": __version__,
            "model": stats["model"],
            "device": stats["device"],
            "precision": stats["precision"],
            "backend": stats["backend"],
            "labels": list(self.classifier.labels),
            "personal": self.classifier.personal.name if self.classifier.personal else None,
            "process": os.getpid(),
        }


def _columns(samples: np.ndarray, spec: MelSpec, per_column: int) -> np.ndarray:
    """dB mel (n_mels, columns) of a stretch, each column the loudest of `per_column` frames: peaks survive the
    shrinking.
    """
    from ..signal.mel import log_mel

    if len(samples) < spec.n_fft:
        samples = np.pad(samples, (0, spec.n_fft - len(samples)))
    unlimited = dataclasses.replace(spec, top_db=200.0)
    mel = log_mel(samples[None], unlimited)[0]
    n = max(1, mel.shape[1] // per_column)
    mel = mel[:, : n * per_column] if mel.shape[1] >= per_column else np.repeat(mel[:, :1], per_column, axis=1)
    return mel.reshape(spec.n_mels, n, per_column).max(axis=2)
