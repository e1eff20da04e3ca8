"""Which backend answers: measured where it runs, because machines differ.

`MeasuredBackend` answers at once by the first of its rivals, eager float32, and meanwhile measures the others in the
background; the fastest whose answers are the same takes over between two calls. What was measured is kept in a folder
of derived data, so that the next start takes the winner without measuring.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BackendError
from ...records import Votes
from .measuring import MIN_COSINE, MIN_INT8_COSINE, best_ms, cosine, probe

MEASURE_S = 1.0
"""about how long all races may take, unless MIN_ROUNDS take longer; 0 measures nothing and leaves the first in place"""
MIN_ROUNDS, MAX_ROUNDS = 3, 20
"""calls of each in a race with one batch size"""
WORTH = 0.95
"""share of the time of what is in use below which a rival takes over: closer ones are the same within noise"""
HOPELESS = 4.0
"""with one segment this many times as slow as the first, and a rival is left alone: emulated bfloat16 is"""
MAX_LOSS = 0.01
"""most accuracy that int8 may cost, as its file records"""


@dataclass(frozen=True, slots=True)
class Rival:
    """A way to run the network. `make` may take seconds and raises BackendError where it is not to be had.

    `loss` is the recorded loss of accuracy where there is one; `note` what a person should know of it.
    """

    backend: str
    precision: str
    make: Callable[[], Any]
    loss: float = 0.0
    note: str = ""
    measured: bool = True
    """False: only on request, because making it ready costs far more than it could gain now"""


@dataclass(slots=True)
class Finding:
    """What was found of a rival: `state` is waiting, in use, slower, inaccurate, failed or not measured; `ms` is the
    time of a call by batch size."""

    backend: str
    precision: str
    state: str = "waiting"
    ms: dict[str, float] = field(default_factory=dict)
    cosine: float | None = None
    note: str = ""


class MeasuredBackend:
    """A Backend that becomes the best of `rivals`; the first of them is what the others are compared with.

    `key` names everything that the outcome depends on: machine, versions, weights, threads. `kept` is the file in which
    it is remembered. `n_segments` is the batch size by which the rivals are compared, a song's usual one.
    """

    def __init__(
        self, rivals: Sequence[Rival], n_mels: int, *, n_segments: int = 4, key: str = "", kept: Path | None = None
    ) -> None:
        self._rivals = tuple(rivals)
        self._findings = [Finding(r.backend, r.precision, note=r.note) for r in rivals]
        self._n_mels, self._sizes = n_mels, tuple(sorted({1, n_segments}))
        self._key, self._kept = key, kept
        self._chosen = "the first to be ready; the others are being measured"
        self._measured_s: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        remembered = self._remembered()
        self._current: Any = self._rivals[0].make() if remembered is None else remembered
        if remembered is None:
            self._findings[0].state = "in use"
            self._begin()

    # --- the backend's face ---

    @property
    def name(self) -> str:
        return str(self._current.name)

    @property
    def device(self) -> str:
        return str(self._current.device)

    @property
    def precision(self) -> str:
        return str(self._current.precision)

    def __call__(self, mels: np.ndarray) -> Votes:
        """As Backend says. One that fails though its rival at the start does not is not asked again."""
        current = self._current
        try:
            votes: Votes = current(mels)
            return votes
        except BackendError as error:
            if self._is_first(current):
                raise
            votes = self._rivals[0].make()(mels)  # raises where the fault lies in the mels
            self._fall_back(error)
            return votes

    def describe(self) -> dict[str, Any]:
        """What is in use, and under "candidates" every rival with what was found of it."""
        return {
            **self._current.describe(),
            "chosen": self._chosen,
            "state": "measuring" if self._thread is not None and self._thread.is_alive() else "ready",
            "measured_s": self._measured_s,
            "candidates": [asdict(finding) for finding in self._findings],
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is measured; whether it is."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def close(self) -> None:
        """End the measurement after the rival at hand, which is waited for: a process that ends while a library works
        in another thread may be aborted."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._current.close()

    # --- measuring ---

    def _begin(self) -> None:
        if len(self._rivals) < 2 or MEASURE_S <= 0:
            self._chosen = "nothing else was measured"
            return
        self._thread = threading.Thread(target=self._measure, name="backend-choice")
        self._thread.start()

    def _measure(self) -> None:
        begun, first = time.perf_counter(), self._current
        mels = probe(self._n_mels, self._sizes[-1])
        best, best_at = first, 0
        try:
            expected = first(mels)
            self._findings[0].cosine = 1.0
            self._race(first, 0, first, 0, mels)
            for at, rival in enumerate(self._rivals[1:], start=1):
                if self._stop.is_set():
                    return
                made = self._judge(at, rival, mels, expected)
                if made is not None and self._race(made, at, best, best_at, mels):
                    best, best_at = made, at
        except Exception as error:  # the border of a thread: the first one stays, and a person can see why
            said = error.message if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
            self._chosen = f"the first to be ready; measuring the others failed: {said}"
            return
        finally:
            self._measured_s = round(time.perf_counter() - begun, 1)
        self._settle(best, best_at)

    def _judge(self, at: int, rival: Rival, mels: np.ndarray, expected: Votes) -> Any | None:
        """The backend of a rival if it may be used; its Finding says what is wrong otherwise."""
        finding = self._findings[at]
        if not rival.measured:
            finding.state = "not measured"
            return None
        try:
            made = rival.make()
            made(mels[:1])  # the first call prepares itself
            once_ms = best_ms(made, mels[:1], 1)
            if once_ms > HOPELESS * self._findings[0].ms["1"]:
                finding.state, finding.ms = "slower", {"1": round(once_ms, 2)}
                return None
            finding.cosine = round(cosine(expected.logits, made(mels).logits), 6)
        except BackendError as error:
            finding.state, finding.note = "failed", error.message
            return None
        accurate = finding.cosine >= (MIN_INT8_COSINE if rival.precision == "int8" else MIN_COSINE)
        finding.state = "slower" if accurate and rival.loss <= MAX_LOSS else "inaccurate"
        return made if finding.state == "slower" else None

    def _race(self, made: Any, at: int, best: Any, best_at: int, mels: np.ndarray) -> bool:
        """Time a rival and the best so far by turns, so that a busy machine disturbs both alike; whether it wins."""
        ratio = 1.0
        for size in self._sizes:
            mine, others, n_rounds, begun = float("inf"), float("inf"), 0, time.perf_counter()
            while n_rounds < MIN_ROUNDS or (
                n_rounds < MAX_ROUNDS and time.perf_counter() - begun < MEASURE_S / len(self._rivals)
            ):
                mine, others = min(mine, best_ms(made, mels[:size], 1)), min(others, best_ms(best, mels[:size], 1))
                n_rounds += 1
            self._findings[at].ms[str(size)] = round(mine, 2)
            ratio = mine / others
        return ratio < WORTH

    def _settle(self, best: Any, best_at: int) -> None:
        first_ms, its_ms, size = self._ms(0), self._ms(best_at), self._sizes[-1]
        if best_at:
            self._chosen = (
                f"measured: {its_ms:.1f} ms for {size} segments, where {self._label(0)} takes {first_ms:.1f} ms; "
                f"cosine of the answers {self._findings[best_at].cosine:.5f}"
            )
        else:
            its = f"{first_ms:.1f} ms for {size} segments"
            self._chosen = f"measured: nothing accurate is clearly faster than its {its}"
        self._findings[0].state = "slower"
        self._findings[best_at].state = "in use"
        self._current = best
        self._remember(best_at)

    def _ms(self, at: int) -> float:
        return self._findings[at].ms[str(self._sizes[-1])]

    def _label(self, at: int) -> str:
        return f"{self._findings[at].backend} {self._findings[at].precision}"

    def _is_first(self, backend: Any) -> bool:
        return (backend.name, backend.precision) == (self._rivals[0].backend, self._rivals[0].precision)

    def _fall_back(self, error: BackendError) -> None:
        for finding in self._findings:
            if finding.state == "in use":
                finding.state, finding.note = "failed", error.message
        self._findings[0].state = "in use"
        self._chosen = f"the faster one failed: {error.message}"
        self._current = self._rivals[0].make()

    # --- the choice is kept ---

    def _remembered(self) -> Any | None:
        """The winner of an earlier start of the same key, made ready; None where there is none or it fails now."""
        if self._kept is None:
            return None
        try:
            said = json.loads(self._kept.read_text(encoding="utf-8"))
            findings = [Finding(**one) for one in said["findings"]]
            names = [(one.backend, one.precision) for one in findings]
            at = next(i for i, one in enumerate(findings) if one.state == "in use")
            if said["key"] != self._key or names != [(r.backend, r.precision) for r in self._rivals]:
                return None
            made = self._rivals[at].make()
            made(probe(self._n_mels, 1))
        except (OSError, ValueError, KeyError, TypeError, StopIteration, BackendError):
            return None  # it is measured again
        self._findings = findings
        self._chosen, self._measured_s = str(said["chosen"]), said["measured_s"]
        return made

    def _remember(self, best_at: int) -> None:
        if self._kept is None:
            return
        said = {
            "key": self._key,
            "chosen": self._chosen,
            "measured_s": self._measured_s,
            "findings": [asdict(finding) for finding in self._findings],
        }
        aside = self._kept.with_name(f".{self._kept.name}.{os.getpid()}")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(said, indent=1), encoding="utf-8")
            os.replace(aside, self._kept)
        except OSError:  # a full or read-only disk: it is measured again the next time
            aside.unlink(missing_ok=True)
