"""Ours beside the pipeline that this product renews, and beside that pipeline's own faster form.

    python -m bench.original [--rounds 5] [--json FILE]

Songs of three minutes (MP3, FLAC, WAV) and ViT-B/16's weights (random, seeded) are made here. All contenders take
turns on the same song in the same round, in an order that changes; a ratio is the median over such pairs, between its
quartiles. Songs are read from the system's file cache by all sides, and every answer of ours is a first one unless it
says "cached".

- equal work: every side asks the same ViT-B/16 weights about 224 x 224 inputs; ours keeps nothing, unless it says so
- as it ships: the embedded model with its own segments and votes, as a person gets it without touching a setting: the
  cache is on and emptied before each answer, outside the clock. A lone song is digested and kept behind its answer;
  beside the time of the answer stands that until all of it is done. Nobody's clock runs meanwhile
- peak memory: each way in a process of its own, three songs one after the other; ours at its first start and later

The targets are ratios to the original; which of the two holds depends on whether the processor has AMX.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acoustic.cache import Cache
from acoustic.engine import OptimizedAudioClassifier
from acoustic.network.registry import EMBEDDED_MODEL, Registry
from acoustic.records import Analysis, Failure
from acoustic.settings import PROJECT_ROOT, Settings

from . import report as words
from .machine import this_machine
from .made_model import Made, write_vit_b16
from .memory import peak_of
from .ours import ready_classifier
from .recipe import OptimisedOriginal, Original
from .report import Report, memory_rows, rows_of, tables
from .songs import write_songs
from .timing import in_turns

N_AT_ONCE = 8
N_CACHED = 20
"""cached answers in a row: one alone is too short to be timed well"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `formats` are those of the single files, and in turn those of the files at once."""

    rounds: int = 5
    formats: tuple[str, ...] = ("mp3", "flac", "wav")
    memory: bool = True


def write_all(folder: Path, plan: Plan) -> list[Path]:
    """The songs that `measure` takes: N_AT_ONCE, their formats in turn."""
    return write_songs(folder / "songs", N_AT_ONCE, plan.formats)


def measure(folder: Path, songs: Sequence[Path], plan: Plan, made: Made) -> Report:
    """Everything, below `folder`, on `write_all`'s songs, with `made` as ViT-B/16; takes minutes.

    Raises AcousticError or RuntimeError where a song has no answer.
    """
    machine = this_machine()
    model = made.folder
    settings = Settings.load()
    caches = {
        who: Cache(folder / f"first-answers-{i}", settings.cache_mb, settings.cache_entries)
        for i, who in enumerate((words.SHIPPED, words.SHIPPED_KEPT))
    }
    singles = songs[: len(plan.formats)]
    memory = memory_rows(_peaks(model, folder, singles)) if plan.memory else ()
    with ExitStack() as stack:
        network, _ = Registry([model.parent]).load(model)
        original, optimised = Original(network), stack.enter_context(OptimisedOriginal(network))

        def ours(name: str | Path, n_segments: int, cache: bool | Cache = False) -> OptimizedAudioClassifier:
            return stack.enter_context(ready_classifier(name, folder, n_segments=n_segments, cache=cache))

        first = {
            words.ONE: ours(model, 1),
            words.THREE: ours(model, 3),
            **{who: ours(EMBEDDED_MODEL, 0, cache) for who, cache in caches.items()},
        }
        kept = {words.ONE_CACHED: ours(model, 1, True), words.SHIPPED_CACHED: ours(EMBEDDED_MODEL, 0, True)}
        one: dict[str, Callable[[Path], object]] = {words.ORIGINAL: original.one, words.OPTIMISED: optimised.one}
        one |= {who: _first(classifier, kept=who == words.SHIPPED_KEPT) for who, classifier in first.items()}
        one |= {who: _cached(classifier, singles) for who, classifier in kept.items()}
        many: dict[str, Callable[[Sequence[Path]], object]] = {
            words.ORIGINAL: original.many,
            words.OPTIMISED: optimised.many,
        }
        many |= {who: _all_of(classifier, kept=who == words.SHIPPED_KEPT) for who, classifier in first.items()}

        def settled() -> None:
            """Before each call of anybody: what is kept behind an answer takes nobody else's time."""
            for who, cache in caches.items():
                first[who].wait_for_cache()
                cache.clear()

        in_turns(one, singles[:1], 1, dict.fromkeys(one, settled))  # the first call of each side compiles or allocates
        times = in_turns(one, singles, plan.rounds, dict.fromkeys(one, settled))
        stages = {who: _stages(classifier, plan.rounds * len(singles)) for who, classifier in first.items()}
        in_turns(many, [songs], 1, dict.fromkeys(many, settled))
        together = in_turns(many, [songs], plan.rounds, dict.fromkeys(many, settled))
        backends = {who: classifier.backend.describe() for who, classifier in first.items()}
    n_cached, n_together = dict.fromkeys(kept, N_CACHED), dict.fromkeys(many, len(songs))
    rows = rows_of(words.ONE_FILE, times, plan.formats, machine, n_cached)
    rows += rows_of(words.EIGHT_FILES, together, ["mixed"], machine, n_together)
    return Report(machine, plan.rounds, made.int8, backends, stages, rows, memory)


def _first(classifier: OptimizedAudioClassifier, *, kept: bool) -> Callable[[Path], object]:
    """One file's first answer, and where it is to be `kept`, until it is."""

    def work(path: Path) -> object:
        answer = classifier.analyze(path)
        _check_first(answer)
        return answer if not kept else classifier.wait_for_cache()

    return work


def _all_of(classifier: OptimizedAudioClassifier, *, kept: bool) -> Callable[[Sequence[Path]], object]:
    """All files at once; one that fails must not pass for a fast one."""

    def work(paths: Sequence[Path]) -> object:
        answers = dict(classifier.analyze_many(paths))
        for answer in answers.values():
            if isinstance(answer, Failure):
                raise RuntimeError(f"{answer.path}: {answer.error['message']}")
            _check_first(answer)
        return answers if not kept else classifier.wait_for_cache()

    return work


def _check_first(answer: Analysis) -> None:
    if answer.cached:
        raise RuntimeError(f"{answer.path}: an answer that should have been a first one came from the cache")


def _cached(classifier: OptimizedAudioClassifier, paths: Sequence[Path]) -> Callable[[Path], object]:
    """N_CACHED answers in a row, from a cache that is filled here."""
    for path in paths:
        classifier.analyze(path)

    def work(path: Path) -> object:
        answers = [classifier.analyze(path) for _ in range(N_CACHED)]
        if not all(answer.cached for answer in answers):
            raise RuntimeError(f"{path}: an answer that should have come from the cache did not")
        return answers

    return work


def _stages(classifier: OptimizedAudioClassifier, n: int) -> dict[str, float]:
    """Medians of the stages of the last `n` runs, ms."""
    runs = classifier.profiler.runs()[-n:]
    return {stage: float(np.median([run.timings_ms[stage] for run in runs])) for stage in runs[-1].timings_ms}


def _peaks(model: Path, folder: Path, songs: Sequence[Path]) -> dict[str, words.Peak]:
    """Ours twice: at the first start every backend of the machine is made and measured, later ones take the winner."""
    embedded = Registry([PROJECT_ROOT / "models"]).find(EMBEDDED_MODEL)
    peaks = {
        words.ORIGINAL: peak_of("original", model, songs, folder),
        words.OPTIMISED: peak_of("optimised", model, songs, folder),
    }
    for who, name, n_segments, cache in ((words.ONE, model, 1, False), (words.SHIPPED, embedded, 0, True)):
        data = folder / "memory" / who
        for when in (words.FIRST_START, ""):
            peaks[who + when] = peak_of("ours", name, songs, data, n_segments, cache=cache)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=Plan().rounds)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same numbers, with what each backend measured")
    parser.add_argument("--no-memory", action="store_true", help="leave the processes for peak memory out")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        made = write_vit_b16(Path(name), Settings.load().n_threads())
        plan = Plan(rounds=args.rounds, memory=not args.no_memory)
        found = measure(Path(name), write_all(Path(name), plan), plan, made)
    print(tables(found))
    if args.json:
        found.write(args.json)


if __name__ == "__main__":
    main()
