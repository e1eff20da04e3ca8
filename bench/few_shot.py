"""What a handful of songs teaches: every figure of docs/personal.md, in one run.

    python -m bench.few_shot DATA_FOLDER [--model models/mel-vit-small]

DATA_FOLDER holds eval/gtzan40.csv and labelled.csv. The model needs its background, see `acoustic.training.background`.
Every song is heard once through the engine; then each protocol teaches with some songs and tests on others, always
beside the untaught model on the same songs. "Ten" is the choice among GTZAN's ten genres, "all" among all labels.

- rotations: n of the four songs a genre of gtzan40 teach, the others are tested; all choices of n
- snippets: all of gtzan40 teaches; tested on the GTZAN snippets of labelled.csv that training held out
- not taught: the same lesson, on songs of the six genres that it does not have (seen in training, not background)
- own genres: one of GTZAN's ten is taken from the model and taught anew, as a person's own, from n snippets
- noise: songs of gtzan40 with genres drawn by lot
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ModelError
from acoustic.library import background, fitting, teaching
from acoustic.library.background import Background
from acoustic.library.personal import Base, PersonalModel, features
from acoustic.library.teaching import Song, teach
from acoustic.records import Analysis, Votes
from acoustic.settings import Settings, prepare_process
from acoustic.training.background import choose
from acoustic.training.config import TrainConfig
from acoustic.training.manifest import held_out, read_rows
from acoustic.verdict.calibration import softmax
from acoustic.verdict.decision import calibrated
from acoustic.verdict.metrics import wilson_interval

TINY = 1e-9
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/mel-vit-small"))
    parser.add_argument("--config", type=Path, default=Path("configs/embedded.toml"), help="for the training split")
    arguments = parser.parse_args()
    bench = hear(arguments.data, arguments.model, TrainConfig.read(arguments.config))
    print(f"model {bench.base.model}, weights {bench.base.weights_digest[:12]}, background {len(bench.rest)} songs\n")
    few_songs(bench)
    methods(bench)
    rehearsal(bench)
    own_genres(bench)
    noise(bench)
    speed(bench)


def hear(data: Path, model: Path, config: TrainConfig) -> Bench:
    settings = Settings.load()
    prepare_process(settings)
    rows = read_rows(config, data)
    kept = {row.file for row in rows if held_out(row, config.seed, config.held_out)}
    group_of = {row.file: row.group for row in rows}
    with OptimizedAudioClassifier(model, settings=settings, use_fp16=False) as classifier:
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


@dataclass(frozen=True)
class Score:
    """Right answers of `n`, and the mean negative log-likelihood among the ten."""

    n: int
    ten: float
    nll_ten: float
    all: float


def score(bench: Bench, answer: Answer, songs: Sequence[Song]) -> Score:
    p, t = answer(songs), bench.targets(songs)
    among = p[:, bench.ten] / p[:, bench.ten].sum(axis=1, keepdims=True)
    of_target = among[np.arange(len(t)), np.searchsorted(bench.ten, t)]
    return Score(
        len(t),
        float((bench.ten[among.argmax(axis=1)] == t).mean()),
        float(-np.log(np.maximum(of_target, TINY)).mean()),
        float((p.argmax(axis=1) == t).mean()),
    )


def rotations(bench: Bench, n: int) -> Iterator[tuple[list[Song], list[Song]]]:
    """(taught, tested) for every choice of n of a genre's songs, the same places for all genres."""
    place: dict[str, int] = {}
    places = []
    for song in bench.gtzan:
        places.append(place.setdefault(song.genre, 0))
        place[song.genre] += 1
    for chosen in itertools.combinations(range(max(place.values())), n):
        yield (
            [s for s, k in zip(bench.gtzan, places, strict=True) if k in chosen],
            [s for s, k in zip(bench.gtzan, places, strict=True) if k not in chosen],
        )


def lesson(bench: Bench, songs: Sequence[Song]) -> teaching.Lesson:
    return teach(songs, bench.base, bench.rest)


# --- tables ---


def few_songs(bench: Bench) -> None:
    print("songs a genre   tested                 ten: before   after (spread)      all: before   after (spread)")
    for n in (1, 2, 3):
        pairs = []
        for taught, tested in rotations(bench, n):
            after = score(bench, bench.taught(lesson(bench, taught).personal), tested)
            pairs.append((score(bench, bench.untaught, tested), after))
        before, after = (np.asarray([(s.ten, s.all) for s in side]) for side in zip(*pairs, strict=True))
        (b10, b16), (a10, a16), (s10, s16) = before.mean(0), after.mean(0), after.std(0, ddof=1)
        what = f"{len(pairs)} rotations of {pairs[0][0].n}"
        print(
            f"{n:13d}   {what:22s} {b10:.3f}         {a10:.3f} ({s10:.3f})       "
            f"{b16:.3f}         {a16:.3f} ({s16:.3f})"
        )
    whole = lesson(bench, bench.gtzan)
    b, a = (score(bench, x, bench.snippets) for x in (bench.untaught, bench.taught(whole.personal)))
    low, high = wilson_interval(round(a.ten * a.n), a.n)
    print(
        f"            4   {a.n:3d} held-out snippets   {b.ten:.3f}         {a.ten:.3f} ({low:.3f}-{high:.3f}) "
        f"{b.all:.3f}         {a.all:.3f}"
    )
    before, after = not_taught(bench, bench.taught(whole.personal))
    print(f"\nnot taught: {len(bench.others)} songs of six genres: {before:.3f} -> {after:.3f} right among all labels")
    print(f"background: {whole.n_same} of {whole.n_background} songs keep their top genre (left out in turn)")
    print(f"strength {whole.strength}, temperature {whole.personal.temperature if whole.personal else 1.0:.2f}\n")


def not_taught(bench: Bench, answer: Answer) -> tuple[float, float]:
    t = bench.targets(bench.others)
    before, after = ((p.argmax(axis=1) == t).mean() for p in (bench.untaught(bench.others), answer(bench.others)))
    return float(before), float(after)


def methods(bench: Bench) -> None:
    """Other ways, beside ours, on the same rotations."""
    print(f"{'method':44s} 1 a genre: ten, NLL   3 a genre: ten, NLL   snippets: ten, NLL   not taught")
    ways: dict[str, Method] = {"untaught": lambda songs: bench.untaught}
    for c in (0.01, 0.1):
        ways[f"logistic regression alone, C = {c}"] = _blend(bench, _logistic(c), 0.0)
    for c in (0.003, 0.01, 0.03, 0.1):
        ways[f"log p + log q, logistic regression, C = {c}"] = _blend(bench, _logistic(c), 1.0)
    ways["log p + log q, prototypes, cosine x 10"] = _blend(bench, _prototypes, 1.0)
    for shrinkage in (0.3, 0.9):
        ways[f"log p + 0.2 log q, LDA, shrinkage {shrinkage}"] = _blend(bench, _lda(shrinkage), 1.0, 0.2)
    for strength in (0.1, 0.3, 1.0):
        ways[f"log p + 5 ridge on what p misses, {strength}"] = _residual(bench, strength)
    for strength in (0.05, 0.15, 0.5):
        ways[f"offset regression, no background, {strength}"] = _offset(bench, strength, None)
    for strength in (0.05, 0.15, 0.5, 1.5):
        ways[f"offset regression, background, {strength}"] = _offset(bench, strength, bench.rest)
    ways["ours"] = lambda songs: bench.taught(lesson(bench, songs).personal)
    for name, method in ways.items():
        cells = []
        for n in (1, 3):
            if n == 1 and "LDA" in name:  # it needs more songs than genres
                cells.append("-")
                continue
            scores = [score(bench, method(taught), tested) for taught, tested in rotations(bench, n)]
            cells.append(f"{np.mean([s.ten for s in scores]):.3f}  {np.mean([s.nll_ten for s in scores]):.2f}")
        answer = method(bench.gtzan)
        s = score(bench, answer, bench.snippets)
        _, kept = not_taught(bench, answer)
        print(f"{name:44s} {cells[0]:22s}{cells[1]:22s}{s.ten:.3f}  {s.nll_ten:.2f}          {kept:.3f}", flush=True)
    print()


def rehearsal(bench: Bench) -> None:
    print("REHEARSAL   3 a genre: ten    all     not taught   background unchanged")
    usual = fitting.REHEARSAL
    try:
        for weight in (1.0, 3.0, 10.0, 30.0):
            fitting.REHEARSAL = weight
            scores = [
                score(bench, bench.taught(lesson(bench, taught).personal), tested)
                for taught, tested in rotations(bench, 3)
            ]
            whole = lesson(bench, bench.gtzan)
            _, kept = not_taught(bench, bench.taught(whole.personal))
            ten, all_labels = np.mean([s.ten for s in scores]), np.mean([s.all for s in scores])
            unchanged = whole.n_same / whole.n_background
            print(f"{weight:9.0f}   {ten:.3f}             {all_labels:.3f}   {kept:.3f}        {unchanged:.3f}")
    finally:
        fitting.REHEARSAL = usual
    print()


def own_genres(bench: Bench) -> None:
    """One genre less in the model, taught from n snippets of at most two a block of neighbouring tracks."""
    print("own genre from   found            of other songs taken for it   background unchanged")
    for n, beside in ((1, False), (2, False), (3, False), (5, False), (10, False), (5, True)):
        found, tested, wrong, others, same = 0, 0, 0, 0, []
        for column in bench.ten:
            genre = bench.base.labels[column]
            base, rest = _without(bench, int(column))
            taught = _pick([s for s in bench.own if s.genre == genre], n, seed=int(column))
            groups = {s.group for s in taught}
            of_it = [s for s in [*bench.own, *bench.snippets] if s.genre == genre and s.group not in groups]
            not_it = [s for s in [*bench.snippets, *bench.others] if s.genre != genre]
            songs = [dataclasses.replace(_cut(s, int(column)), genre="My own") for s in taught]
            if beside:
                songs += [_cut(s, int(column)) for s in bench.gtzan if s.genre != genre]
            learned = teach(songs, base, rest)
            assert learned.personal is not None
            answer = bench.taught(learned.personal)
            own = len(base.labels)
            found += int((answer([_cut(s, int(column)) for s in of_it]).argmax(axis=1) == own).sum())
            wrong += int((answer([_cut(s, int(column)) for s in not_it]).argmax(axis=1) == own).sum())
            tested, others = tested + len(of_it), others + len(not_it)
            same.append(learned.n_same / learned.n_background)
        what = f"{n} songs" + (" + 36" if beside else "")
        print(
            f"{what:15s}  {found / tested:.3f} of {tested:5d}   {wrong / others:.3f} of {others:5d}"
            f"              {np.mean(same):.3f}"
        )
    print()


def noise(bench: Bench, draws: int = 20) -> None:
    """Genres by lot: how often nothing is learned, and what it does to the songs that training held out."""
    rng = np.random.default_rng(0)
    for n in (10, 40):
        nothing, changes = 0, []
        for _ in range(draws):
            songs = [bench.gtzan[i] for i in rng.permutation(len(bench.gtzan))[:n]]
            genres = rng.choice([s.genre for s in bench.gtzan], n)
            learned = lesson(bench, [dataclasses.replace(s, genre=str(g)) for s, g in zip(songs, genres, strict=True)])
            nothing += learned.personal is None
            after = score(bench, bench.taught(learned.personal), bench.snippets)
            changes.append(after.all - score(bench, bench.untaught, bench.snippets).all)
        print(
            f"noise: {n} songs, {draws} draws: nothing learned in {nothing}; accuracy on {len(bench.snippets)} "
            f"snippets changes by {np.mean(changes):+.3f} on average, {min(changes):+.3f} at worst"
        )
    print()


def speed(bench: Bench) -> None:
    """Time of one call of `teach`, everything in it; a thousand songs are real ones, repeated with a little noise."""
    rng = np.random.default_rng(0)
    heard = [*bench.gtzan, *bench.own, *bench.snippets, *bench.others]
    many = []
    for i in range(1000):
        song = heard[i % len(heard)]
        shaken = song.votes.embeddings + 0.05 * rng.normal(size=song.votes.embeddings.shape).astype(np.float32)
        votes = dataclasses.replace(song.votes, embeddings=shaken, logits=song.votes.logits + np.float32(1e-3 * i))
        many.append(Song(votes, song.genre, f"{song.group}/{i // len(heard)}"))
    for songs in (bench.gtzan, many):
        taken = []
        for _ in range(5):
            start, busy = time.perf_counter(), time.process_time()
            teach(songs, bench.base, bench.rest)
            taken.append((time.process_time() - busy, time.perf_counter() - start))
        cpu, wall = (float(np.median(column)) for column in zip(*taken, strict=True))
        print(
            f"teach {len(songs):4d} songs: {cpu:.2f} s of one core, {wall:.2f} s on the clock (median of {len(taken)})"
        )


# --- other ways ---


def _rows(songs: Sequence[Song]) -> np.ndarray:
    """(n, D) mean embeddings."""
    return np.stack([s.votes.embeddings.mean(axis=0) for s in songs]).astype(np.float64)


def _logistic(c: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    return lambda x, y: LogisticRegression(C=c, max_iter=300, class_weight="balanced").fit(x, y)


def _lda(shrinkage: float) -> Callable[[np.ndarray, np.ndarray], Any]:
    return lambda x, y: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)


class _prototypes:  # noqa: N801
    """Cosine with each class's mean, times ten, through a softmax."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.classes_ = np.unique(y)
        self.means = self._unit(np.stack([self._unit(x)[y == c].mean(axis=0) for c in self.classes_]))

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return softmax(10.0 * self._unit(x) @ self.means.T)

    @staticmethod
    def _unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def _blend(bench: Bench, fit: Callable[[np.ndarray, np.ndarray], Any], a: float, b: float = 1.0) -> Method:
    """softmax(a log p + b log q) within the taught genres, p untaught and q what `fit` learned; what p gives to the
    genres that were not taught, they keep."""

    def method(songs: Sequence[Song]) -> Answer:
        model = fit(_rows(songs), bench.targets(songs))

        def answer(tested: Sequence[Song]) -> np.ndarray:
            p = bench.untaught(tested)
            q = np.log(np.maximum(model.predict_proba(_rows(tested)), TINY))
            mine = p[:, model.classes_]
            share = mine.sum(axis=1, keepdims=True)
            p[:, model.classes_] = share * softmax(a * np.log(np.maximum(mine / share, TINY)) + b * q)
            return p

        return answer

    return method


def _residual(bench: Bench, strength: float) -> Method:
    """Kernel ridge regression (linear kernel) of one-hot genre less p, added to log p five times."""

    def method(songs: Sequence[Song]) -> Answer:
        x = _rows(songs)
        scale = 1.0 / np.sqrt(np.square(x).sum(axis=1).mean())
        missed = np.eye(len(bench.base.labels))[bench.targets(songs)] - bench.untaught(songs)
        kernel = (x * scale) @ (x * scale).T
        dual = np.linalg.solve(kernel + strength * np.eye(len(x)), missed)

        def answer(tested: Sequence[Song]) -> np.ndarray:
            correction = (_rows(tested) * scale) @ (x * scale).T @ dual
            return softmax(np.log(np.maximum(bench.untaught(tested), TINY)) + 5.0 * correction)

        return answer

    return method


def _offset(bench: Bench, strength: float, rest: Background | None) -> Method:
    """Ours at one strength and temperature 1."""

    def method(songs: Sequence[Song]) -> Answer:
        targets = bench.targets(songs)
        material = fitting.gather([s.votes for s in songs], targets, [s.group for s in songs], bench.base, 0, rest)
        weights = material.to_raw @ fitting.learn(material, np.ones(len(material.x), bool), strength)

        def answer(tested: Sequence[Song]) -> np.ndarray:
            out = []
            for song in tested:
                prior = np.log(np.maximum(calibrated(song.votes.logits, bench.base.calibration)[0], TINY))
                scores = prior + features(song.votes) @ weights[:-1] + weights[-1]
                out.append(calibrated(scores, teaching.plain(bench.base.calibration, 1.0, None))[1])
            return np.stack(out)

        return answer

    return method


# --- own genres ---


def _cut(song: Song, column: int) -> Song:
    """As a model without this genre would have heard it."""
    return dataclasses.replace(
        song, votes=dataclasses.replace(song.votes, logits=np.delete(song.votes.logits, column, 1))
    )


def _without(bench: Bench, column: int) -> tuple[Base, Background]:
    """Base and background without a genre, and without the background's songs that the model takes for it."""
    c = bench.base.calibration
    base = dataclasses.replace(
        bench.base,
        labels=tuple(label for i, label in enumerate(bench.base.labels) if i != column),
        calibration=dataclasses.replace(
            c,
            class_scale=tuple(np.delete(c.class_scale, column)) if c.class_scale else (),
            class_bias=tuple(np.delete(c.class_bias, column)) if c.class_bias else (),
        ),
    )
    kept = bench.rest.logits.argmax(axis=1) != column
    return base, Background(bench.rest.embeddings[kept], np.delete(bench.rest.logits[kept], column, 1))


def _pick(songs: Sequence[Song], n: int, seed: int) -> list[Song]:
    """n songs in an order drawn by lot, two of a group at a time."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Song]] = {}
    for song in songs:
        groups.setdefault(song.group, []).append(song)
    order = [list(groups)[i] for i in rng.permutation(len(groups))]
    chosen = [groups[g][i] for g in order for i in rng.permutation(len(groups[g]))[:2]]
    return chosen[:n]


if __name__ == "__main__":
    main()
