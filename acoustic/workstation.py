"""The use cases, shared by the page and the command line: analyse, look at a whole track, describe, keep models,
check up.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from .engine import OptimizedAudioClassifier, PathLike, model_folders
from .errors import AudioError, ModelError, StorageError
from .network.card import ModelCard
from .network.importing import import_checkpoint
from .network.registry import Registry
from .records import Analysis, Descriptors, Failure, MelSpec, Overview
from .settings import PROJECT_ROOT, Settings
from .signal import audio
from .signal.mel import band_centres_hz, log_mel

OVERVIEW_COLUMNS = 1_000
OVERVIEW_BLOCK_S = 60.0
"""a long track is read in blocks of this length, so that an hour of tape does not stand in memory"""


class Workstation:
    """One person's workstation: a classifier, made at first need, and what is done with it."""

    def __init__(self, settings: Settings | None = None, *, cache: bool = True) -> None:
        self.settings = settings or Settings.load()
        self._cache = cache
        self._classifier: OptimizedAudioClassifier | None = None
        self._making = threading.Lock()

    @property
    def classifier(self) -> OptimizedAudioClassifier:
        """The classifier; ModelError or BackendError if it cannot be set up."""
        with self._making:
            if self._classifier is None:
                self._classifier = OptimizedAudioClassifier(
                    settings=self.settings,
                    cache=self._cache,
                    compile=self.settings.compile,
                    n_threads=self.settings.n_threads(),
                )
        return self._classifier

    def close(self) -> None:
        if self._classifier is not None:
            self._classifier.close()

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
        spec = self.classifier.card.mel
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

    # --- models ---

    def models(self) -> Registry:
        """The models at hand: those that ship and the person's own."""
        return Registry(model_folders(self.settings))

    def import_model(
        self, source: Path, name: str, labels: Sequence[str], mel: MelSpec, layout: str = "auto"
    ) -> ModelCard:
        """Take an outside checkpoint into the person's data folder. Raises ModelError, also for a name that is
        taken.
        """
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
            "labels": list(self.classifier.card.labels),
            "process": os.getpid(),
        }


def _columns(samples: np.ndarray, spec: MelSpec, per_column: int) -> np.ndarray:
    """dB mel (n_mels, columns) of a stretch, each column the loudest of `per_column` frames: peaks survive the
    shrinking.
    """
    if len(samples) < spec.n_fft:
        samples = np.pad(samples, (0, spec.n_fft - len(samples)))
    unlimited = dataclasses.replace(spec, top_db=200.0)
    mel = log_mel(torch.from_numpy(samples[None]), unlimited)[0].numpy()
    n = max(1, mel.shape[1] // per_column)
    mel = mel[:, : n * per_column] if mel.shape[1] >= per_column else np.repeat(mel[:, :1], per_column, axis=1)
    return mel.reshape(spec.n_mels, n, per_column).max(axis=2)
