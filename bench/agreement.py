"""Do all backends say the same? Every way to run the network that this machine has, against eager float32.

    python -m bench.agreement SONGS [--model NAME] [--n 200] [--compiled]

SONGS is a folder. Asked for: an answer to every song that eager float32 answers, the same genre for at least 99 % of
them, probabilities within 0.02. Ends with 1 where a way misses that, or where there was nothing to compare; a way that
this machine or the model lacks is said to be missing, and no more. --compiled adds torch.compile, which takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import BackendError
from acoustic.records import Analysis, Failure
from acoustic.settings import Settings, prepare_process
from acoustic.signal.audio import find_audio

from .ours import SETTLE_S

EXACT = ("eager", "float32")
WAYS = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("eager", "bfloat16"),
    ("eager", "int8"),
)
COMPILED = (("compiled", "float32"), ("compiled", "bfloat16"))
MIN_SAME, MAX_APART = 0.99, 0.02
"""Least share of songs with the same genre, and the most by which a probability may differ."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one way answered, song by song; `note` says what else a reader must know of it."""

    answers: tuple[Analysis | Failure, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One way beside the exact one, over the `n_songs` that both answered. `same` and `same_flag` are shares of them,
    NaN without any; `apart` is each one's largest difference of a probability; `failed` tells of the songs that only
    the exact way answered."""

    n_songs: int
    same: float
    apart: tuple[float, ...]
    same_flag: float
    failed: tuple[str, ...]

    @property
    def most_apart(self) -> float:
        return float(np.max(self.apart)) if self.apart else float("nan")

    @property
    def reached(self) -> bool:
        """Whether nothing failed and both bounds are kept; NaN is no agreement."""
        return not self.failed and self.same >= MIN_SAME and self.most_apart <= MAX_APART


def heard(settings: Settings, backend: str, precision: str, files: Sequence[Path]) -> Heard:
    """The answer to every file, by this way alone. Raises BackendError where it is not to be had."""
    changed = dataclasses.replace(settings, backend=backend, precision=precision)
    with OptimizedAudioClassifier(settings=changed, cache=False, n_threads=settings.n_threads()) as classifier:
        if not classifier.wait_for_backend(SETTLE_S):
            raise BackendError(f"{backend} {precision} was still being made ready after {SETTLE_S:.0f} s")
        answers = dict(classifier.analyze_many(files))
        told = classifier.backend.describe()
    return Heard(tuple(answers[i] for i in range(len(files))), left_to_eager(told.get("compiled", {})))


def left_to_eager(compiled: Mapping[str, Any]) -> str:
    """Which batch sizes a compiled network leaves to the eager one, and why, from its description; empty where none."""
    others = [f"{size} ({one['state']})" for size, one in compiled.get("sizes", {}).items() if one["state"] != "ready"]
    if not others:
        return ""
    because = f": {compiled['error']}" if compiled["error"] else ""
    return f"eager answered in place of batches of {', '.join(others)}{because}"


def compare(exact: Heard, found: Heard) -> Agreement:
    """`found` beside `exact`, whose songs they are; those that the exact way did not answer do not count."""
    pairs, failed = [], []
    for expected, answer in zip(exact.answers, found.answers, strict=True):
        if isinstance(expected, Failure):
            continue
        if isinstance(answer, Failure):
            failed.append(f"{answer.path}: {answer.error['message']}")
        else:
            pairs.append((expected.verdict, answer.verdict))
    n = len(pairs) or float("nan")
    return Agreement(
        n_songs=len(pairs),
        same=sum(a.top_genre == b.top_genre for a, b in pairs) / n,
        apart=tuple(float(np.abs(np.subtract(a.probabilities, b.probabilities)).max()) for a, b in pairs),
        same_flag=sum(a.needs_review == b.needs_review for a, b in pairs) / n,
        failed=tuple(failed),
    )


def line(one: Agreement) -> str:
    """Its row below the head that `main` prints."""
    middle, most = np.percentile(one.apart, (50, 99)) if one.apart else (float("nan"), float("nan"))
    numbers = f"{one.same:10.4f}   {middle:.4f}, {most:.4f}, {one.most_apart:.4f}   {one.same_flag:30.4f}"
    return f"{numbers}   {'agrees' if one.reached else 'DIFFERS'}"


def outcome(found: Sequence[Agreement]) -> int:
    """Exit status: 0 if all agree and there was at least one."""
    return 0 if found and all(one.reached for one in found) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--compiled", action="store_true", help="torch.compile, too")
    arguments = parser.parse_args()
    settings = Settings.load(model=arguments.model or None)
    prepare_process(settings)
    files = sorted(find_audio(arguments.songs))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[: arguments.n]]
    exact = heard(settings, *EXACT, files)
    n_answered = sum(isinstance(answer, Analysis) for answer in exact.answers)
    print(f"{n_answered} of {len(files)} songs answered by eager float32, which the others are compared with")
    print(f"{'':20s} same genre   probabilities differ by: median, 99 %, at most   same review flag")
    found = []
    for backend, precision in WAYS + (COMPILED if arguments.compiled else ()):
        name = f"{backend + ' ' + precision:20s}"
        try:
            way = heard(settings, backend, precision, files)
        except BackendError as error:
            print(f"{name} missing: {error.message}")
            continue
        found.append(compare(exact, way))
        print(f"{name} {line(found[-1])}")
        for text in (*found[-1].failed, *([way.note] if way.note else [])):
            print(f"{'':20s} {text}")
    print(f"asked for: no song without an answer, {MIN_SAME:.0%} the same genre, probabilities within {MAX_APART}")
    return outcome(found)


if __name__ == "__main__":
    sys.exit(main())
