"""The background of a model: what teaching must not forget (see `library.background`).

    python -m acoustic.training.background configs/embedded.toml --data FOLDER --model models/mel-vit-small

hears N_PER_GENRE songs of every genre of the configuration's training part, as a person's own would be heard, and
writes `models/mel-vit-small.background.safetensors`, as `acoustic train` does at its end. To be done again whenever the
weights change. Nothing that was
held out is in it, so that what is measured there stays honest.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..engine import OptimizedAudioClassifier
from ..errors import ManifestError
from ..library import background
from ..library.background import Background
from ..records import Analysis
from ..settings import Settings, prepare_process
from .config import TrainConfig
from .manifest import Row, read_rows, split

N_PER_GENRE = 16


def choose(rows: Sequence[Row], labels: Sequence[str], n_per_genre: int = N_PER_GENRE) -> list[Row]:
    """At most so many rows of music of each of `labels`, over as many groups and sources as there are; the same ones
    for the same rows in any order."""
    chosen: list[Row] = []
    for genre in labels:
        rank: dict[str, int] = {}
        by_turn = []
        for row in sorted((r for r in rows if r.kind == "music" and r.genre == genre), key=_lot):
            rank[row.source] = rank.get(row.source, -1) + 1
            rank[row.group] = rank.get(row.group, -1) + 1
            by_turn.append((rank[row.group], rank[row.source], row.source, row))
        chosen += [turn[-1] for turn in sorted(by_turn, key=lambda turn: turn[:-1])[:n_per_genre]]
    return chosen


def hear(classifier: OptimizedAudioClassifier, files: Sequence[Path]) -> Background:
    """Mean embedding and mean genre logits of each file; one that cannot be analysed is left out."""
    votes = {i: a.votes for i, a in classifier.analyze_many(files) if isinstance(a, Analysis) and a.votes is not None}
    if not votes:
        raise ManifestError("none of the background's files could be analysed")
    heard = [votes[i] for i in sorted(votes)]
    return Background(
        np.stack([v.embeddings.mean(axis=0) for v in heard]), np.stack([v.logits.mean(axis=0) for v in heard])
    )


def _lot(row: Row) -> bytes:
    return hashlib.blake2b(os.fsencode(row.file), digest_size=8).digest()


def make(config: TrainConfig, data: Path, model: Path, settings: Settings) -> tuple[Path, int]:
    """Write the background of the model in the folder `model`; returns its file and the number of songs in it.
    ManifestError if none of them could be analysed."""
    found = read_rows(config, data)
    rows = [row for row, kept in zip(found, split(found, config), strict=True) if not kept]
    exact = dataclasses.replace(settings, backend="eager", precision="float32")
    with OptimizedAudioClassifier(model, settings=exact, n_threads=settings.n_threads()) as classifier:
        chosen = choose(rows, classifier.card.labels)
        made = hear(classifier, [data / row.file for row in chosen])
        about = "; ".join(
            f"{source.name}: {source.cite} ({source.licence})" for source in config.sources if source.cite
        )
        file = background.file_of(model.resolve())
        background.write(file, made, classifier.card.weights_digest, about)
    return file, len(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    arguments = parser.parse_args()
    settings = Settings.load()
    prepare_process(settings)
    file, n = make(TrainConfig.read(arguments.config), arguments.data, arguments.model, settings)
    print(f"{n} songs, {file.stat().st_size / 1e3:.0f} kB: {file.name}")  # noqa: T201


if __name__ == "__main__":
    main()
