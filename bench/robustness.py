"""How much of the accuracy is left when the same songs come with noise, from a room, by telephone, cut short ...

    python -m bench.robustness --data FOLDER [--docs docs/robustness.md] [--json FILE]

Two sets of songs, each against itself: an evaluation manifest (default: FOLDER/eval/gtzan40.csv), and the music that
the training in `--held-out` kept apart, of which some have a (noisy) genre; for all of it the share of songs whose top
genre is that of the clean song, which needs no label. Noise and speech are those that the training kept apart, too.
Everything goes through the engine over files that are written here. A column is one configuration of the engine; the
same song meets the same noise, room and other song in every row and column, so differences are paired.

Accuracies have Wilson's 95 % interval, differences that of `paired_difference`. `--docs` puts the tables between the
marks in a document, `--json` keeps every number.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acoustic.cache import Cache
from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ManifestError
from acoustic.records import Analysis, Failure
from acoustic.settings import Settings, prepare_process
from acoustic.signal import audio
from acoustic.training.config import TrainConfig
from acoustic.training.evaluate import read_manifest
from acoustic.training.manifest import Row, read_rows, split
from acoustic.verdict.metrics import grouped_interval, grouped_margin

from .conditions import CLEAN, CONDITIONS, SNIPPET_S, Company, Condition, small_room

PLAIN, ONE, MANY = "as it ships", "1 segment", "6 segments"
COLUMNS: dict[str, dict[str, Any]] = {
    ONE: {"n_segments": 1},
    "3 segments": {"n_segments": 3},
    MANY: {"n_segments": 6},
    PLAIN: {},
    "denoise": {"denoise": True},
    "compress": {"compress": True},
    "rules": {"rules": True},
}
SWITCHES = ("denoise", "compress", "rules")
NOISE_ROW, NOISE_LOSS = "noise, 10 dB SNR", 0.08
"""the target: at most this much below clean"""
SONGS_AT_A_TIME = 4
"""of which all versions stand on the disk"""
SHORT = Settings(min_duration_s=0.01)
MARKS = "<!-- measured -->", "<!-- /measured -->"


@dataclass(frozen=True, slots=True)
class Song:
    """`genre` is empty where nobody says; songs of one `group` are alike (one artist, one generator)."""

    file: Path
    genre: str
    group: str


@dataclass(frozen=True)
class Cast:
    """Where a song's company is drawn from."""

    noise: Sequence[Path]
    speech: Sequence[Path]

    def company(self, songs: Sequence[Song], i: int, sample_rate: int) -> Company:
        """What songs[i] meets; depends on i alone. The other song is of another genre, or of another group where no
        genre is known."""
        rng = np.random.default_rng([0, i])
        others = [s for s in songs if s.group != songs[i].group and (s.genre != songs[i].genre or not s.genre)]
        if not others:
            raise ManifestError("all songs are of one group or genre: there is no other song to mix with")
        drawn = [files[int(rng.integers(len(files)))] for files in (self.noise, self.speech)]
        drawn += [others[int(rng.integers(len(others)))].file]
        noise, speech, song = (audio.load(path, sample_rate, SHORT).samples for path in drawn)
        return Company(noise, speech, small_room(sample_rate, rng), song)


# --- statistics ---


def paired_difference(before: np.ndarray, after: np.ndarray, groups: Sequence[str]) -> tuple[float, float, float]:
    """(difference, low, high) of two shares of the same songs, after - before, with its 95 % interval.

    Bonett and Price's interval (2012): one song won and one lost are added, so that no interval has length 0. Songs of
    one group count together; with a group a song it is theirs, but for n + 1 in the place of n + 2.
    """
    gained = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    added = np.append(gained, [1.0, -1.0])
    half = grouped_margin(added, [*groups, "\0won", "\0lost"])
    centre = float(added.mean())
    return float(gained.mean()), max(-1.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Measure:
    """One question asked of every cell: `right[condition, column]` holds n booleans."""

    name: str
    groups: tuple[str, ...]
    right: dict[tuple[str, str], np.ndarray]

    @property
    def n(self) -> int:
        return len(self.groups)

    def share(self, condition: str, column: str) -> float:
        return float(self.right[condition, column].mean())

    def interval(self, condition: str, column: str) -> tuple[float, float]:
        return grouped_interval(self.right[condition, column], self.groups)

    def difference(self, before: tuple[str, str], after: tuple[str, str]) -> tuple[float, float, float]:
        return paired_difference(self.right[before], self.right[after], self.groups)


@dataclass(frozen=True)
class Answered:
    """A set of songs with the probabilities (n, C) of every (condition, column). Where its genres are not `certain`,
    or not all known, the answers are also compared with those to the clean songs."""

    name: str
    certain: bool
    songs: tuple[Song, ...]
    labels: tuple[str, ...]
    answers: dict[tuple[str, str], np.ndarray]

    def accuracies(self) -> list[Measure]:
        """On the songs with a genre: among all labels, and where the genres are certain among those that occur."""
        known = [i for i, song in enumerate(self.songs) if song.genre]
        occurring = sorted({self.labels.index(self.songs[i].genre) for i in known})
        found: list[Measure] = []
        if known:
            found.append(self._accuracy(f"accuracy among {len(self.labels)} genres", known, range(len(self.labels))))
        if self.certain and len(occurring) < len(self.labels):
            found.append(self._accuracy(f"accuracy among the set's own {len(occurring)}", known, occurring))
        return found

    def measures(self) -> list[Measure]:
        """The accuracies, and unless the genres are certain the share with the clean song's top genre."""
        return [*self.accuracies(), *([] if self.certain else [self.agreement()])]

    def agreement(self) -> Measure:
        """On all songs: whether the top genre is that of the clean song by the engine as it ships."""
        reference = self.answers[CLEAN, PLAIN].argmax(axis=1)
        same = {key: p.argmax(axis=1) == reference for key, p in self.answers.items()}
        return Measure("same top genre as clean", tuple(song.group for song in self.songs), same)

    def _accuracy(self, name: str, known: Sequence[int], among: Sequence[int]) -> Measure:
        truth = np.asarray([self.labels.index(self.songs[i].genre) for i in known])
        kept = np.asarray(among)
        right = {key: kept[p[known][:, kept].argmax(axis=1)] == truth for key, p in self.answers.items()}
        return Measure(name, tuple(self.songs[i].group for i in known), right)


# --- measuring ---


def ask(
    name: str,
    songs: Sequence[Song],
    cast: Cast,
    classifiers: dict[str, OptimizedAudioClassifier],
    conditions: Sequence[Condition] = CONDITIONS,
    *,
    certain: bool = True,
) -> Answered:
    """Every classifier's answer to every song in every condition; ManifestError names a file that cannot be read."""
    card = next(iter(classifiers.values())).card
    answers = {(c.name, column): np.zeros((len(songs), len(card.labels))) for c in conditions for column in classifiers}
    began = time.monotonic()
    for first in range(0, len(songs), SONGS_AT_A_TIME):
        part = range(first, min(first + SONGS_AT_A_TIME, len(songs)))
        with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as folder:
            places: list[tuple[str, int]] = []
            files: list[Path] = []
            for i in part:
                song = audio.load(songs[i].file, card.mel.sample_rate)
                company = cast.company(songs, i, card.mel.sample_rate)
                for number, condition in enumerate(conditions):
                    files.append(condition.write(Path(folder) / f"{i}-{number}", song, company))
                    places.append((condition.name, i))
            for column, classifier in classifiers.items():
                for index, answer in classifier.analyze_many(files):
                    condition_name, i = places[index]
                    answers[condition_name, column][i] = _probabilities(answer, songs[i], condition_name)
        told = f"{name}: {part[-1] + 1} of {len(songs)} songs, {time.monotonic() - began:.0f} s"
        print(told, file=sys.stderr, flush=True)
    return Answered(name, certain, tuple(songs), tuple(card.labels), answers)


def _probabilities(answer: Analysis | Failure, song: Song, condition: str) -> np.ndarray:
    if isinstance(answer, Failure):
        raise ManifestError(f"{song.file}, {condition}: {answer.error['message']}", answer.error["hint"])
    return answer.verdict.probabilities


def held_songs(rows: Sequence[Row], data: Path, at_most: int) -> list[Song]:
    """Held-out music of at least SNIPPET_S in an order that never changes, at most so many; first what has a genre."""
    music = [row for row in rows if row.kind == "music"]
    order = [music[int(k)] for k in np.random.default_rng(0).permutation(len(music))]
    found: list[Song] = []
    for row in sorted(order, key=lambda row: not row.genre):
        if len(found) == at_most:
            break
        with audio.open_audio(data / row.file, None, SHORT) as reader:
            if reader.duration_s >= SNIPPET_S:
                found.append(Song(data / row.file, row.genre, row.group))
    return found


def open_columns(
    columns: Sequence[str], model: str, cache: Cache, stack: ExitStack
) -> dict[str, OptimizedAudioClassifier]:
    """A classifier for each column, closed with `stack`, with the defaults of Settings whatever the environment says.
    They share a cache, so that two columns with the same votes ask for them once."""
    mine = Settings.load()
    base = Settings(model=model, device=mine.device, data_dir=mine.data_dir)
    opened = {}
    for column in columns:
        settings = dataclasses.replace(base, **COLUMNS[column])
        classifier = OptimizedAudioClassifier(settings=settings, cache=cache, n_threads=mine.n_threads())
        opened[column] = stack.enter_context(classifier)
    return opened


# --- showing ---


def tables(answered: Answered) -> str:
    """Markdown: a table for each measure."""
    parts = [f"### {answered.name}"]
    for measure in answered.measures():
        n_groups = len(set(measure.groups))
        alike = f" of {n_groups} groups" if n_groups < measure.n else ""
        parts += [f"**{measure.name}**, {measure.n} songs{alike}, in %; differences in points:", _table(measure)]
    return "\n\n".join(parts)


def _table(measure: Measure) -> str:
    """The shipped engine with its interval and against clean; numbers of segments; each switch against none."""
    rows = list(dict.fromkeys(condition for condition, _ in measure.right))
    columns = list(dict.fromkeys(column for _, column in measure.right))
    counts = [column for column in columns if column.endswith(("segment", "segments"))]
    switches = [column for column in SWITCHES if column in columns]
    lines = [["", PLAIN, "against clean", *counts, f"{MANY} against {ONE}", *switches]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        low, high = measure.interval(row, PLAIN)
        against = "" if row == CLEAN else _points(measure.difference((CLEAN, PLAIN), (row, PLAIN)))
        line = [row, f"{100 * measure.share(row, PLAIN):.1f} ({100 * low:.0f} to {100 * high:.0f})", against]
        line += [f"{100 * measure.share(row, column):.1f}" for column in counts]
        line += [_points(measure.difference((row, ONE), (row, MANY)))]
        lines.append(line + [_points(measure.difference((row, PLAIN), (row, column))) for column in switches])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _points(difference: tuple[float, float, float]) -> str:
    return "{:+.1f} ({:+.0f} to {:+.0f})".format(*(100 * x for x in difference))


def judged(name: str, measure: Measure) -> list[str]:
    """What was aimed at, and whether it was reached: at 10 dB of noise, and six segments against one on every row."""
    lost = measure.difference((CLEAN, PLAIN), (NOISE_ROW, PLAIN))
    verdict = "reached" if lost[0] >= -NOISE_LOSS - 1e-9 else "missed"
    rows = list(dict.fromkeys(condition for condition, _ in measure.right))
    worse = [row for row in rows if measure.share(row, MANY) < measure.share(row, ONE)]
    return [
        f"- {name}, {measure.name}: {_points(lost)} points at {NOISE_ROW} "
        f"(target: at most {100 * NOISE_LOSS:.0f} below clean): {verdict}.",
        f"- {name}, {measure.name}: {MANY} at least as good as {ONE} on every row: "
        + (f"missed at {'; '.join(worse)}." if worse else "reached."),
    ]


def report(head: str, found: Sequence[Answered]) -> str:
    """All of it as Markdown: what was measured, the targets, the tables."""
    goals = [line for a in found for measure in a.accuracies() for line in judged(a.name, measure)]
    return "\n\n".join([head, "\n".join(goals), *map(tables, found)])


def as_dict(answered: Answered) -> dict[str, Any]:
    """Every number, for `--json`."""
    return {
        "name": answered.name,
        "files": [song.file.name for song in answered.songs],
        "measures": [
            {
                "name": measure.name,
                "n": measure.n,
                "n_groups": len(set(measure.groups)),
                "cells": [
                    {
                        "condition": condition,
                        "column": column,
                        "share": measure.share(condition, column),
                        "interval_95": measure.interval(condition, column),
                        "against_clean": measure.difference((CLEAN, column), (condition, column)),
                        "against_shipped": measure.difference((condition, PLAIN), (condition, column)),
                    }
                    for condition, column in measure.right
                ],
            }
            for measure in answered.measures()
        ],
        "top": {
            f"{condition} | {column}": [answered.labels[k] for k in p.argmax(axis=1)]
            for (condition, column), p in answered.answers.items()
        },
    }


def between_marks(document: str, text: str) -> str:
    """`document` with `text` in place of what stands between its marks; ValueError where it has none."""
    head, mark, rest = document.partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    if not mark or not end:
        raise ValueError(f"the document has no {MARKS[0]} ... {MARKS[1]}")
    return f"{head}{mark}\n\n{text}\n\n{end}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, action="append", help="default: FOLDER/eval/gtzan40.csv")
    parser.add_argument("--held-out", type=Path, default=Path("configs/embedded.toml"), help="the training's config")
    parser.add_argument("--tracks", type=int, default=100, help="at most so many of the held-out set; 0: none")
    parser.add_argument("--model", default="", help="name or folder; default: the embedded one")
    parser.add_argument("--docs", type=Path, help="a document with the marks, which gets the tables")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_process(Settings.load())

    config = TrainConfig.read(arguments.held_out)
    found = read_rows(config, arguments.data)
    rows = [row for row, held in zip(found, split(found, config), strict=True) if held]
    noise, speech = ([arguments.data / r.file for r in rows if r.kind == kind] for kind in ("noise", "speech"))
    if not noise or not speech:
        raise SystemExit(f"{arguments.held_out} keeps no noise or no speech apart")
    cast = Cast(noise, speech)

    found: list[Answered] = []
    with ExitStack() as stack:
        classifiers = open_columns(list(COLUMNS), arguments.model, Cache(None, max_entries=1_000), stack)
        card = classifiers[PLAIN].card
        head = (
            f"Model {card.name} of {card.created} (weights {card.weights_digest[:12]}), {card.segments.n_segments} "
            f"segments by default; {len(noise)} recordings of noise and {len(speech)} of speech, of those that the "
            f"training in {arguments.held_out.as_posix()} keeps apart."
        )

        def keep(answered: Answered) -> None:
            """After each set, so that a run that is stopped leaves those that were finished."""
            found.append(answered)
            if arguments.docs:
                document = arguments.docs.read_text(encoding="utf-8")
                arguments.docs.write_text(between_marks(document, report(head, found)), encoding="utf-8")
            if arguments.json:
                numbers = {"model": card.name, "weights": card.weights_digest, "sets": [as_dict(a) for a in found]}
                arguments.json.write_text(json.dumps(numbers, indent=1), encoding="utf-8")

        for manifest in arguments.manifest or [arguments.data / "eval" / "gtzan40.csv"]:
            songs = [Song(row.file, row.genre, str(row.file)) for row in read_manifest(manifest, card.labels)]
            keep(ask(manifest.stem, songs, cast, classifiers))
        if songs := held_songs(rows, arguments.data, arguments.tracks):
            keep(ask("held-out music", songs, cast, classifiers, certain=False))
    print(report(head, found))


if __name__ == "__main__":
    main()
