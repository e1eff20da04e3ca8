"""The songs of `bench.few_shot`, heard once, and what answers about them look like."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ModelError
from acoustic.library import background
from acoustic.library.background import Background
from acoustic.library.personal import Base, PersonalModel
from acoustic.library.teaching import Song
from acoustic.records import Analysis, Votes
from acoustic.settings import Settings, prepare_process
from acoustic.training.background import choose
from acoustic.training.config import TrainConfig
from acoustic.training.manifest import read_rows, split
from acoustic.verdict.decision import calibrated

Answer = Callable[[Sequence[Song]], np.ndarray]
"""songs -> (n, C') probabilities"""
Method = Callable[[Sequence[Song]], Answer]


@dataclass(frozen=True)
class Bench:
    """Everything heard once. `ten` are the columns of GTZAN's genres."""

    base: Base
    rest: Background
    gtzan: list[Song]
    snippets: list[Song]
    """labelled.csv: held-out GTZAN"""
    others: list[Song]
    """labelled.csv: of genres that GTZAN does not have, not in the background"""
    own: list[Song]
    """labelled.csv: GTZAN that was trained on"""
    ten: np.ndarray

    def untaught(self, songs: Sequence[Song]) -> np.ndarray:
        return np.stack([calibrated(s.votes.logits, self.base.calibration)[1] for s in songs])

    def taught(self, personal: PersonalModel | None) -> Answer:
        if personal is None:
            return self.untaught
        return lambda songs: np.stack(
            [calibrated(personal.read(s.votes).logits, personal.calibration)[1] for s in songs]
        )

    def targets(self, songs: Sequence[Song]) -> np.ndarray:
        return np.asarray([self.base.labels.index(s.genre) for s in songs])


def hear(data: Path, model: Path, config: TrainConfig) -> Bench:
    settings = Settings.load(backend="eager", precision="float32")
    prepare_process(settings)
    rows = read_rows(config, data)
    kept = {row.file for row, held in zip(rows, split(rows, config), strict=True) if held}
    group_of = {row.file: row.group for row in rows}
    with OptimizedAudioClassifier(model, settings=settings) as classifier:
        card = classifier.card
        base = Base(
            card.name,
            card.weights_digest,
            card.labels,
            card.calibration,
            card.architecture.n_embedding or card.architecture.width,
        )
        rest = background.read(background.file_of(model.resolve()), base)
        if rest is None:
            raise ModelError(f"{model}: has no background", "Make one: `python -m acoustic.training.background`.")

        def listen(manifest: Path) -> list[tuple[dict[str, str], Song]]:
            with open(manifest, newline="", encoding="utf-8") as stream:
                cells = list(csv.DictReader(stream))
            heard: dict[int, Votes] = {}
            for index, answer in classifier.analyze_many([data / row["file"] for row in cells]):
                if isinstance(answer, Analysis) and answer.votes is not None:
                    heard[index] = answer.votes
            return [
                (row, Song(heard[i], row["genre"], group_of.get(row["file"], row["file"])))
                for i, row in enumerate(cells)
                if i in heard
            ]

        gtzan = [song for _, song in listen(data / "eval" / "gtzan40.csv")]
        labelled = listen(data / "labelled.csv")
    in_background = {row.file for row in choose([r for r in rows if r.file not in kept], base.labels)}
    ten = np.unique([base.labels.index(s.genre) for s in gtzan])
    names = {base.labels[i] for i in ten}
    return Bench(
        base=base,
        rest=rest,
        gtzan=gtzan,
        snippets=[s for row, s in labelled if row["dataset"] == "GTZAN" and row["file"] in kept],
        others=[s for row, s in labelled if s.genre not in names and row["file"] not in in_background],
        own=[s for row, s in labelled if row["dataset"] == "GTZAN" and row["file"] not in kept],
        ten=ten,
    )


# --- scores ---
