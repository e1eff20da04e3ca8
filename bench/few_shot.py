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
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acoustic.library import fitting, teaching
from acoustic.library.background import Background
from acoustic.library.personal import Base
from acoustic.library.teaching import Song, teach
from acoustic.training.config import TrainConfig
from acoustic.verdict.metrics import wilson_interval

from .heard import Answer, Bench, Method, hear
from .rivals import Prototypes, blend, lda, logistic, offset, residual

TINY = 1e-9


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
        ways[f"logistic regression alone, C = {c}"] = blend(bench, logistic(c), 0.0)
    for c in (0.003, 0.01, 0.03, 0.1):
        ways[f"log p + log q, logistic regression, C = {c}"] = blend(bench, logistic(c), 1.0)
    ways["log p + log q, prototypes, cosine x 10"] = blend(bench, Prototypes, 1.0)
    for shrinkage in (0.3, 0.9):
        ways[f"log p + 0.2 log q, LDA, shrinkage {shrinkage}"] = blend(bench, lda(shrinkage), 1.0, 0.2)
    for strength in (0.1, 0.3, 1.0):
        ways[f"log p + 5 ridge on what p misses, {strength}"] = residual(bench, strength)
    for strength in (0.05, 0.15, 0.5):
        ways[f"offset regression, no background, {strength}"] = offset(bench, strength, None)
    for strength in (0.05, 0.15, 0.5, 1.5):
        ways[f"offset regression, background, {strength}"] = offset(bench, strength, bench.rest)
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
