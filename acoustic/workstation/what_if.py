"""What if? Two ways to analyse, on the same song, side by side: the time of each stage and the change of the verdict.

The two take turns (ABBA), so that whatever else the machine does strikes both; nothing is cached, and nothing of it is
kept: neither in the workstation's runs nor in its library.
"""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BackendError, SettingsError, StoppedError
from ..records import Analysis, printable
from ..settings import Settings

if TYPE_CHECKING:
    from ..engine import OptimizedAudioClassifier, PathLike
    from .station import Workstation

N_ROUNDS = 5
READY_S = 900.0
"""longest that is waited for a backend which is still being measured or compiled: torch.compile takes most of a minute
for each of its three sizes, and several on a machine that is busy"""
LOOK_S = 0.1
"""so often somebody who waits is asked whether to stop"""
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to analyse: the settings of these names. `n_segments` 0 is the model's own number."""

    n_segments: int = 0
    backend: str = "auto"
    precision: str = "auto"
    denoise: bool = False

    def check(self) -> None:
        """SettingsError for a value that there is not, or that is out of range."""
        Settings.load({}, **dataclasses.asdict(self))  # the one place that knows names and ranges

    def applied(self, settings: Settings) -> Settings:
        """`settings` with these. SettingsError as `check`."""
        self.check()
        return dataclasses.replace(settings, **dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Side:
    """What one way gave: medians over the rounds, and its verdict."""

    choice: Choice
    backend: Mapping[str, Any]
    """`Backend.describe()` when the rounds were over"""
    ready: bool
    """False where the backend was still being measured or compiled during the rounds"""
    n_segments: int
    medians_ms: Mapping[str, float]
    top_genre: str
    top_confidence: float
    needs_review: bool
    review_reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """what answered in the rounds where it was not the backend by its name, and why; a clause each"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sides of the same song. `moved` is the genre whose probability changed most, from the first side's to the
    second's; `faster` how many times as fast the second is (below 1: slower)."""

    file: str
    n_rounds: int
    sides: tuple[Side, Side]
    moved: tuple[str, float, float]
    faster: float


def compare(
    workstation: Workstation,
    path: PathLike,
    choices: tuple[Choice, Choice],
    *,
    n_rounds: int = N_ROUNDS,
    on_step: OnStep = lambda words: None,
    cancel: threading.Event | None = None,
) -> Difference:
    """Analyse the song at `path` in both ways, `n_rounds` times each.

    Raises AudioError for a song that cannot be analysed, BackendError for a backend that is not here, SettingsError for
    a choice that is none, StoppedError once `cancel` is set.
    """
    from ..engine import OptimizedAudioClassifier

    if n_rounds < 1:
        raise SettingsError(f"n_rounds is {n_rounds}, but there must be at least 1")
    cancel = cancel or threading.Event()
    settings = [choice.applied(workstation.settings) for choice in choices]
    with ExitStack() as stack:
        made: list[OptimizedAudioClassifier] = []
        ready: list[bool] = []
        before: list[Mapping[str, Any]] = []
        for name, one in zip(("first", "second"), settings, strict=True):
            on_step(f"making the {name} way ready")
            _stop_if(cancel)
            classifier = stack.enter_context(OptimizedAudioClassifier(settings=one, cache=False))
            classifier.personal = workstation.classifier.personal
            made.append(classifier)
            ready.append(_wait_until_ready(classifier, cancel))
            if one.rules and not ready[-1]:  # what rules need is made ready after the backend, however long that takes
                raise BackendError(
                    f"the {name} way was not ready after {READY_S:.0f} s", "Try again when the machine has less to do."
                )
            classifier.warm_up(described=one.rules)
            classifier.analyze(path)  # the file is in the system's memory, and every lazy part has run
            before.append(classifier.backend.describe())
        analyses: tuple[list[Analysis], list[Analysis]] = ([], [])
        for round_ in range(n_rounds):
            on_step(f"round {round_ + 1} of {n_rounds}")
            for i in (0, 1) if round_ % 2 == 0 else (1, 0):
                _stop_if(cancel)
                analyses[i].append(made[i].analyze(path))
        sides = [_side(choices[i], made[i].backend.describe(), before[i], ready[i], analyses[i]) for i in range(2)]
    first, second = (analyses[i][0].verdict.probabilities for i in range(2))
    at = int(np.argmax(np.abs(second - first)))
    return Difference(
        file=printable(str(path)),
        n_rounds=n_rounds,
        sides=(sides[0], sides[1]),
        moved=(made[0].labels[at], float(first[at]), float(second[at])),
        faster=sides[0].medians_ms["total"] / max(sides[1].medians_ms["total"], 1e-6),
    )


def _side(
    choice: Choice, backend: Mapping[str, Any], before: Mapping[str, Any], ready: bool, analyses: Sequence[Analysis]
) -> Side:
    stages = dict.fromkeys(stage for one in analyses for stage in one.timings_ms if stage != "total")
    verdict = analyses[0].verdict
    return Side(
        choice=choice,
        backend=backend,
        ready=ready,
        n_segments=len(verdict.segment_probabilities),
        medians_ms={
            stage: statistics.median(one.timings_ms.get(stage, 0.0) for one in analyses) for stage in (*stages, "total")
        },
        top_genre=verdict.top_genre,
        top_confidence=verdict.top_confidence,
        needs_review=verdict.needs_review,
        review_reasons=verdict.review_reasons,
        notes=_by_eager(backend, before),
    )


def _by_eager(backend: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, ...]:
    """Where eager answered under another backend's name between the descriptions `before` and `backend`, and why: a
    clause each. Nothing of a batch size that is still being compiled."""
    compiled, earlier = backend.get("compiled") or {}, (before.get("compiled") or {}).get("sizes", {})
    notes = []
    for size, now in compiled.get("sizes", {}).items():
        why = _why_not(now, compiled.get("error"))
        if why and now["n_calls"] > earlier.get(size, {}).get("n_calls", 0):
            notes.append(f"eager answered batches of up to {size}, because the graph compiled for them {why}")
    for name in ("graphs", "tensorrt"):
        if error := (backend.get(name) or {}).get("error"):
            notes.append(f"eager answered, because {name} failed ({error.splitlines()[0]})")
    return tuple(notes)


def _why_not(size: Mapping[str, Any], error: str | None) -> str:
    """Why the graph of a batch size is not used; empty where it is, or may yet be."""
    if size["state"] == "slower":
        return f"is slower ({size['compiled_ms']:.1f} ms, where eager takes {size['eager_ms']:.1f} ms)"
    if size["state"] == "differs":
        return f"gives other answers (cosine {size['cosine']:.5f})"
    if size["state"] == "failed":
        return f"failed ({(error or 'no reason is known').splitlines()[0]})"
    return ""


def _wait_until_ready(classifier: OptimizedAudioClassifier, cancel: threading.Event) -> bool:
    """Whether the backend has settled: what is compared should be what would be used. StoppedError soon after `cancel`
    is set."""
    until = time.monotonic() + READY_S
    while not classifier.wait_for_backend(LOOK_S):
        _stop_if(cancel)
        if time.monotonic() > until:
            return False
    return True


def _stop_if(cancel: threading.Event) -> None:
    if cancel.is_set():
        raise StoppedError("the comparison was stopped", "Start it again when you like.")
