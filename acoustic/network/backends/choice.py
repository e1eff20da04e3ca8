"""Which backend answers: measured where it runs, because machines differ.

`MeasuredBackend` answers at once by the first of its rivals, and meanwhile measures the others in the background; the
fastest whose answers are those of eager float32 takes over between two calls. What was measured is kept in a folder of
derived data, so that the next start takes the winner without measuring, for a month.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AcousticError, BackendError
from ...records import Votes
from .measuring import MIN_COSINE, MIN_INT8_COSINE, best_ms, probe, similarity

MEASURE_S = 1.0
"""about how long all races may take, unless MIN_ROUNDS take longer; 0 measures nothing and leaves the first in place"""
MIN_ROUNDS, MAX_ROUNDS = 3, 20
"""calls of each in a race with one batch size"""
WORTH = 0.95
"""share of the first one's time below which another takes over: closer ones are the same within noise"""
HOPELESS = 4.0
"""with one segment this many times as slow as the first, and a rival is left alone: emulated bfloat16 is"""
MAX_LOSS = 0.01
"""most accuracy that int8 may cost, as its file records"""
MAX_AGE_DAYS = 30.0
"""after this long a kept choice is measured again: what a machine does beside changes, and how warm it runs"""
CLOSE_S = 20.0
"""how long `close` lets a measurement go on to its end, so that a short command, too, leaves it to the next"""


@dataclass(frozen=True, slots=True)
class Rival:
    """A way to run the network. `make` may take seconds and raises BackendError where it is not to be had.

    `loss` is the recorded loss of accuracy, None where none was recorded; `note` what a person should know of it.
    """

    backend: str
    precision: str
    make: Callable[[], Any]
    loss: float | None = None
    note: str = ""
    measured: bool = True
    """False: only on request, because making it ready costs far more than it could gain now"""

    @property
    def min_cosine(self) -> float:
        """How near its answers must be: int8 whose loss of accuracy was measured may be further off."""
        return MIN_INT8_COSINE if self.precision == "int8" and self.loss is not None else MIN_COSINE


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a rival: `state` is waiting, in use, slower, inaccurate, failed or not measured; `ms` is the
    time of a call by batch size, `cosine` the least of its answers with those of eager float32."""

    backend: str
    precision: str
    state: str = "waiting"
    ms: dict[str, float] = field(default_factory=dict)
    cosine: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _State:
    """What is in use and what is known: exchanged as a whole, so that nobody sees half of a change."""

    current: Any
    findings: tuple[Finding, ...]
    chosen: str
    measured_s: float | None = None
    measured_at: str = ""
    """when, in UTC, ISO 8601; empty before"""
    race_ms: tuple[float, float] | None = None
    """of the winner and of the first, a song's segments each, in the race that decided"""

    def finding(self, at: int, **changes: Any) -> _State:
        findings = list(self.findings)
        findings[at] = replace(findings[at], **changes)
        return replace(self, findings=tuple(findings))


class MeasuredBackend:
    """A Backend that becomes the best of `rivals`. `reference` is what their answers are compared with.

    `key` names everything that the outcome depends on: machine, versions, weights, threads; in `folder` it is
    remembered. `n_segments` is the batch size by which the rivals are compared, a song's usual one. `settled` is called
    with the winner. `one_at_a_time` where a device takes no second call beside a recording.
    """

    def __init__(
        self,
        rivals: Sequence[Rival],
        reference: Callable[[], Any],
        n_mels: int,
        *,
        n_segments: int = 4,
        key: str = "",
        folder: Path | None = None,
        settled: Callable[[Any], None] = lambda winner: None,
        one_at_a_time: bool = False,
    ) -> None:
        self._rivals, self._reference = tuple(rivals), reference
        self._n_mels, self._sizes = n_mels, tuple(sorted({1, n_segments}))
        self._key, self._settled = key, settled
        self._kept = _file_of(folder, key) if folder and key else None
        self._turn: AbstractContextManager[Any] = threading.Lock() if one_at_a_time else nullcontext()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        remembered = self._remembered()
        if remembered is not None:
            self._state = remembered
            self._settled(remembered.current)
            return
        findings = [Finding(r.backend, r.precision, note=r.note) for r in rivals]
        findings[0] = replace(findings[0], state="in use")
        self._state = _State(self._rivals[0].make(), tuple(findings), "nothing else was measured")
        if len(self._rivals) > 1 and MEASURE_S > 0:
            self._state = replace(self._state, chosen="the first to be ready; the others are being measured")
            self._thread = threading.Thread(target=self._measure, name="backend-choice")
            self._thread.start()

    # --- the backend's face ---

    @property
    def name(self) -> str:
        return str(self._state.current.name)

    @property
    def device(self) -> str:
        return str(self._state.current.device)

    @property
    def precision(self) -> str:
        return str(self._state.current.precision)

    def __call__(self, mels: np.ndarray) -> Votes:
        """As Backend says. One that fails where the first does not is not asked again."""
        current = self._state.current
        try:
            with self._turn:
                votes: Votes = current(mels)
            return votes
        except BackendError as error:
            if self._is_first(current) or not np.isfinite(mels).all():
                raise
            first = self._rivals[0].make()
            votes = first(mels)  # raises where the fault lies in the mels
            self._fall_back(first, error)
            return votes

    def describe(self) -> dict[str, Any]:
        """What is in use, and under "candidates" every rival with what was found of it."""
        state = self._state
        return {
            **state.current.describe(),
            "chosen": state.chosen,
            "state": "measuring" if self._thread is not None and self._thread.is_alive() else "ready",
            "measured_s": state.measured_s,
            "measured_at": state.measured_at,
            "candidates": [asdict(finding) for finding in state.findings],
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is measured; whether it is."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def close(self) -> None:
        """Let the measurement end, or after CLOSE_S the rival at hand, which is waited for: a process that ends while a
        library works in another thread may be aborted."""
        self.wait(CLOSE_S)
        self._stop.set()
        self.wait()
        self._state.current.close()

    # --- measuring ---

    def _measure(self) -> None:
        begun, state, mels = time.perf_counter(), self._state, probe(self._n_mels, self._sizes[-1])
        best, best_at = state.current, 0
        try:
            with self._turn:
                expected = self._reference()(mels)
            self._race(best, 0, best, 0, mels)
            for at, rival in enumerate(self._rivals[1:], start=1):
                if self._stop.is_set():
                    self._state = replace(self._state, chosen="the first to be ready; the others were not all measured")
                    return
                made = self._judge(at, rival, mels, expected)
                if made is None:
                    continue
                its_ms, that_ms = self._race(made, at, best, best_at, mels)
                if its_ms < that_ms:
                    best, best_at = made, at
            self._settle(best, best_at, mels, begun)
        except Exception as error:  # the border of a thread: the first one stays, and a person can see why
            self._state = replace(
                self._state, chosen=f"the first to be ready; measuring the others failed: {_said(error)}"
            )

    def _judge(self, at: int, rival: Rival, mels: np.ndarray, expected: Votes) -> Any | None:
        """The backend of a rival if it may be used; its Finding says what is wrong otherwise. Libraries fail in their
        own ways, and one that does must not keep the others out."""
        if not rival.measured:
            self._note(at, state="not measured")
            return None
        try:
            with self._turn:
                made = rival.make()
                made(mels[:1])  # the first call prepares itself
                once_ms = best_ms(made, mels[:1])
                if self._is_hopeless(once_ms, mels[:1]):
                    self._note(at, state="slower", ms={"1": round(once_ms, 2)})
                    return None
                cosine = round(similarity(expected, made(mels)), 6)
            trouble = (made.describe().get("graphs") or {}).get("error")  # it then answers by what it stands on
            if trouble:
                raise BackendError(str(trouble))
        except Exception as error:
            self._note(at, state="failed", note=_said(error))
            return None
        accurate = cosine >= rival.min_cosine and (rival.loss or 0.0) <= MAX_LOSS
        self._note(at, state="slower" if accurate else "inaccurate", cosine=cosine)
        return made if accurate else None

    def _is_hopeless(self, once_ms: float, mel: np.ndarray) -> bool:
        """Whether it takes many times as long as the first, which is asked again before: the machine may have become
        busy."""
        limit = once_ms / HOPELESS
        return limit > self._state.findings[0].ms["1"] and limit > best_ms(self._state.current, mel)

    def _race(self, made: Any, at: int, best: Any, best_at: int, mels: np.ndarray) -> tuple[float, float]:
        """Time a rival and the best so far by turns, so that a busy machine disturbs both alike: the least ms of each
        for a song's usual segments, in this race. What was measured in another, on a machine less busy or more, is only
        shown: each keeps its least times."""
        for size in self._sizes:
            times, n_rounds, begun = {at: float("inf"), best_at: float("inf")}, 0, time.perf_counter()
            while n_rounds < MIN_ROUNDS or (
                n_rounds < MAX_ROUNDS and time.perf_counter() - begun < MEASURE_S / len(self._rivals)
            ):
                for who, backend in ((at, made), (best_at, best)):
                    with self._turn:
                        times[who] = min(times[who], best_ms(backend, mels[:size], 1))
                n_rounds += 1
            for who, ms in times.items():
                known = self._state.findings[who].ms
                self._note(who, ms={**known, str(size): round(min(ms, known.get(str(size), ms)), 2)})
        return times[at], times[best_at]

    def _settle(self, best: Any, best_at: int, mels: np.ndarray, begun: float) -> None:
        """The fastest takes over, if it is clearly faster than the first in a race of these two; and that is
        remembered."""
        its_ms, first_ms = self._race(best, best_at, self._state.current, 0, mels)
        size = self._sizes[-1]
        first = f"{self._rivals[0].backend} {self._rivals[0].precision}"
        if best_at and its_ms < WORTH * first_ms:
            cosine = self._state.findings[best_at].cosine
            chosen = (
                f"measured: {its_ms:.1f} ms for {size} segments, where {first} takes {first_ms:.1f} ms; "
                f"cosine of the answers at least {cosine:.5f}"
            )
        else:
            best, best_at = self._state.current, 0
            chosen = f"measured: nothing accurate is clearly faster than its {first_ms:.1f} ms for {size} segments"
        state = self._state.finding(0, state="slower").finding(best_at, state="in use")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        took_s = round(time.perf_counter() - begun, 1)
        race_ms = (round(its_ms, 2), round(first_ms, 2))
        self._state = replace(state, current=best, chosen=chosen, measured_s=took_s, measured_at=now, race_ms=race_ms)
        self._remember()
        self._settled(best)

    def _note(self, at: int, **changes: Any) -> None:
        self._state = self._state.finding(at, **changes)

    def _is_first(self, backend: Any) -> bool:
        return (backend.name, backend.precision) == (self._rivals[0].backend, self._rivals[0].precision)

    def _fall_back(self, first: Any, error: BackendError) -> None:
        state = self._state
        at = next((i for i, finding in enumerate(state.findings) if finding.state == "in use"), 0)
        state = state.finding(at, state="failed", note=error.message).finding(0, state="in use")
        self._state = replace(state, current=first, chosen=f"the faster one failed: {error.message}")
        if self._kept is not None:
            with suppress(OSError):
                self._kept.unlink(missing_ok=True)

    # --- the choice is kept ---

    def _remembered(self) -> _State | None:
        """The winner of an earlier start of the same key, made ready; None where there is none or it fails now: it is
        measured again."""
        if self._kept is None:
            return None
        try:
            said = json.loads(self._kept.read_text(encoding="utf-8"))
            findings = tuple(Finding(**one) for one in said["findings"])
            names = [(one.backend, one.precision) for one in findings]
            at = next(i for i, one in enumerate(findings) if one.state == "in use")
            rival = self._rivals[at]
            if said["key"] != self._key or names != [(r.backend, r.precision) for r in self._rivals]:
                return None
            if not rival.measured or (rival.loss or 0.0) > MAX_LOSS:
                return None
            if at and (findings[at].cosine or 0.0) < rival.min_cosine:  # by a rule that was less strict
                return None
            age = datetime.now(UTC) - datetime.fromisoformat(said["measured_at"])
            if abs(age) > timedelta(days=MAX_AGE_DAYS):
                return None
            made = rival.make()
            made(probe(self._n_mels, 1))
            chosen, measured_at, race_ms = str(said["chosen"]), str(said["measured_at"]), tuple(said["race_ms"])
            return _State(made, findings, chosen, said["measured_s"], measured_at, race_ms)
        except Exception:
            return None

    def _remember(self) -> None:
        if self._kept is None:
            return
        state = self._state
        said = {
            "key": self._key,
            "chosen": state.chosen,
            "measured_s": state.measured_s,
            "measured_at": state.measured_at,
            "race_ms": state.race_ms,
            "findings": [asdict(finding) for finding in state.findings],
        }
        aside = self._kept.with_name(f".{self._kept.name}.{os.getpid()}")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(said, indent=1), encoding="utf-8")
            os.replace(aside, self._kept)
        except OSError:  # a full or read-only disk: it is measured again the next time
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def kept_choice(folder: Path, key: str) -> dict[str, Any]:
    """The choice of this `key` that is kept in `folder`, for who asked for another backend by name: "backend" and
    "precision" of the winner, "first" (both of the first in one), "race_ms" of the two, "measured_at"; empty where none
    can be read."""
    try:
        said = json.loads(_file_of(folder, key).read_text(encoding="utf-8"))
        findings = [Finding(**one) for one in said["findings"]]
        winner = next(one for one in findings if one.state == "in use")
        its_ms, first_ms = map(float, said["race_ms"])
        return {
            "backend": winner.backend,
            "precision": winner.precision,
            "first": f"{findings[0].backend} {findings[0].precision}",
            "race_ms": [its_ms, first_ms],
            "measured_at": str(said["measured_at"]),
        }
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return {}


def _file_of(folder: Path, key: str) -> Path:
    return folder / f"choice-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _said(error: Exception) -> str:
    if isinstance(error, AcousticError):
        return error.message
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
