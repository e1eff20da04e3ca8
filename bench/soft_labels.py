"""How good soft genre labels are where nobody looked: labelled files, each judged by a fit that saw none of its group.

    python -m bench.soft_labels configs/embedded.toml --data FOLDER --work runs/mel-vit-first [--apart gtzan]

Five folds by group, REPEATS times, over the tracks of all sources whose `label_weight` is 0.5 or more; those of other
sources are in every fit. Printed for each way to fit: accuracy, with how far it is from the first row's and the
half-width of the 95 % interval of that difference, counted by groups; how often the genre is among the two likeliest;
the negative log-likelihood in nats. `--apart` prints the groups whose name holds that, and the others, by themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold

from acoustic.training.config import TrainConfig
from acoustic.training.labels import RIDGE, Layout, fit_teacher_space, index_of
from acoustic.training.prepare import prepare
from acoustic.verdict.metrics import grouped_margin

FOLDS, REPEATS = 5, 3
RIDGES = (RIDGE / 3, RIDGE, RIDGE * 3)


class SameForEach(Layout):
    """Each number that a teacher answers with has the same say, so that who says more is heard more."""

    @property
    def ridges(self) -> np.ndarray:
        return np.ones(sum(self.widths))


def cross_fitted(
    tested: tuple[np.ndarray, ...], always: tuple[np.ndarray, ...], groups: np.ndarray, layout: Layout, ridge: float
) -> np.ndarray:
    """Probabilities (REPEATS, n, C) of the tracks `tested`, each by fits on the other groups and on `always`: both are
    features (n, F), genres (n,) and weights (n,)."""
    features, genres, _ = tested
    out = np.zeros((REPEATS, len(genres), len(layout.named)))
    for repeat in range(REPEATS):
        folds = GroupKFold(FOLDS, shuffle=True, random_state=repeat)
        for train, test in folds.split(features, genres, groups):
            fitted = [np.concatenate([mine[train], theirs]) for mine, theirs in zip(tested, always, strict=True)]
            space = fit_teacher_space(fitted[0], fitted[1].astype(int), fitted[2], layout, ridge)
            out[repeat, test] = space.probabilities(features[test])
    return out


def measures(p: np.ndarray, genres: np.ndarray) -> dict[str, np.ndarray]:
    """Of each track, the mean over repeats (R, n, C): whether it is right, or among two, and its likelihood's -log."""
    likely = np.argsort(-p, axis=2)
    return {
        "accuracy": (likely[..., 0] == genres).mean(axis=0),
        "top-2": (likely[..., :2] == genres[:, None]).any(axis=2).mean(axis=0),
        "NLL": -np.log(np.maximum(p[:, np.arange(len(genres)), genres], 1e-9)).mean(axis=0),
    }


def compare(rows: dict[str, np.ndarray], genres: np.ndarray, groups: np.ndarray, part: np.ndarray) -> None:
    """Print a line for each of `rows` (R, n, C), about the tracks of `part`, against the first."""
    found = {name: measures(p[:, part], genres[part]) for name, p in rows.items()}
    first = next(iter(found.values()))
    for name, of in found.items():
        told = []
        for what in ("accuracy", "top-2", "NLL"):
            change = of[what] - first[what]
            told.append(f"{of[what].mean():.3f} ({change.mean():+.3f} +- {grouped_margin(change, groups[part]):.3f})")
        print(f"{name:34s} {'   '.join(told)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--apart", default="")
    arguments = parser.parse_args()
    config = TrainConfig.read(arguments.config)
    config = dataclasses.replace(config, blends=dataclasses.replace(config.blends, n=0, share=0.0))
    prepared = prepare(config, arguments.data, arguments.work, lambda name, done, n: None)
    dataset, trust = prepared.dataset, {source.name: source.label_weight for source in config.sources}
    labelled = [t for t, row in enumerate(prepared.rows) if row.genre and trust[row.source] > 0]

    def material(tracks: list[int]) -> tuple[np.ndarray, ...]:
        features = np.stack([dataset.features(t, dataset.middle(t)) for t in tracks])
        genres = np.asarray([index_of(prepared.rows[t], config.labels) for t in tracks])
        return features, genres, np.asarray([trust[prepared.rows[t].source] for t in tracks])

    mine = [t for t in labelled if trust[prepared.rows[t].source] >= 0.5]
    tested, always = material(mine), material([t for t in labelled if trust[prepared.rows[t].source] < 0.5])
    groups = np.asarray([prepared.rows[t].group for t in mine])
    named, plain = dataset.layout, dataclasses.replace(dataset.layout, named=((),) * len(config.labels))
    ways: dict[str, tuple[Layout, float]] = {
        "no names, all numbers alike": (SameForEach(plain.widths, plain.named), RIDGE),
        "no names, teachers alike": (plain, RIDGE),
        "names, all numbers alike": (SameForEach(named.widths, named.named), RIDGE),
        **{f"names, teachers alike, ridge {ridge:.2f}": (named, ridge) for ridge in RIDGES},
    }
    rows = {name: cross_fitted(tested, always, groups, layout, ridge) for name, (layout, ridge) in ways.items()}
    apart = np.asarray([arguments.apart in group for group in groups]) & bool(arguments.apart)
    parts = {"all": np.ones(len(mine), bool), arguments.apart: apart, "the others": ~apart}
    for title, part in parts.items():
        if part.any() and (title == "all" or apart.any()):
            print(f"\n{title}: {part.sum()} tracks of {len(set(groups[part]))} groups\n{'':34s} accuracy, top-2, NLL")
            compare(rows, tested[1], groups, part)


if __name__ == "__main__":
    main()
