"""Which stage holds the songs up, and what would help: said only from what was measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..profiler import Run

HALF = 0.5
"""a stage is the bottleneck from this share of the time on"""
N_RUNS = 50
"""the last runs that are looked at"""
BEHIND_S = 0.05
"""a song that begins so soon after another one waited for it: nobody is that quick"""
MIN_SAVING_MS = 1.0
"""less than that a song is not worth a sentence"""
TRIED = ("slower", "inaccurate")
"""what became of a candidate that was measured and did not win"""

NAMES = {
    "load_audio": "decoding",
    "mel_spectrogram": "the spectrogram",
    "preprocess": "preparing the segments",
    "postprocess": "weighing the votes",
    "descriptors": "measuring tempo and beat",
    "cache": "the cache",
}
"""stage -> what a sentence calls it; `inference` and `wait` are told together, as the network's time"""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """`stage` takes `share` (0.5 to 1) of the time of the last `n_runs` songs whose answer was not known; `sentence`
    says so, and what helps."""

    stage: str
    share: float
    n_runs: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a sentence may lean on: how many workers decode on how many cores, and `Backend.describe()`."""

    n_workers: int
    n_cores: int
    denoise: bool
    backend: Mapping[str, Any]
    chosen_before: Mapping[str, Any] = field(default_factory=dict)
    """as `network.backends.chosen_before` gives it"""


def find(runs: Sequence[Run], here: Circumstances) -> Bottleneck | None:
    """The stage that takes half of the time or more over the last runs; None where none does.

    Runs whose answer was known are passed over: what they spend on looking it up is no sign of what holds a song up.
    """
    last = [run for run in runs if not run.cached][-N_RUNS:]
    total = sum(run.timings_ms["total"] for run in last)
    if total <= 0:
        return None
    sums: dict[str, float] = {}
    for run in last:
        for stage, ms in run.timings_ms.items():
            if stage != "total":
                sums[stage] = sums.get(stage, 0.0) + ms
    network = sums.pop("inference", 0.0)
    waiting = sums.pop("wait", 0.0)
    sums["inference"] = network + waiting
    stage = max(sums, key=lambda name: sums[name])
    share = min(1.0, sums[stage] / total)
    if share < HALF:
        return None
    if stage == "inference":
        sentence = _of_network(network / total, waiting / total, here)
    elif stage == "load_audio":
        sentence = _of_decoding(share, here, _queued(last))
    else:
        more = ": denoising is part of it" if stage == "mel_spectrogram" and here.denoise else ""
        sentence = f"{_named(stage)} is {_percent(share)} of the time{more}"
    return Bottleneck(stage, share, len(last), f"{sentence[:1].upper()}{sentence[1:]}.")


def _queued(runs: Sequence[Run]) -> float:
    """The share of `runs` (0 to 1) that began while another was under way, or right behind it."""
    times = sorted((run.started_at, run.started_at + run.timings_ms["total"] / 1e3) for run in runs)
    n_queued, last_end = 0, -math.inf
    for start, end in times:
        n_queued += start < last_end + BEHIND_S
        last_end = max(last_end, end)
    return n_queued / len(runs)


def _of_decoding(share: float, here: Circumstances, queued: float) -> str:
    """More workers decode more songs at a time, and none of them sooner: they help only where songs waited."""
    says = f"decoding is {_percent(share)} of the time"
    if queued < HALF:
        return f"{says}; songs came one at a time, for which more workers would do nothing"
    if here.n_workers < here.n_cores:
        return f"{says}: add a worker (decode_workers is {here.n_workers}, and there are {here.n_cores} cores)"
    return f"{says}, and there are as many workers (decode_workers is {here.n_workers}) as cores, or more"


def _of_network(inference: float, waiting: float, here: Circumstances) -> str:
    says = f"inference is {_percent(inference)} of the time"
    if waiting >= inference:
        says = f"waiting for the network is {_percent(waiting)} of the time, because several songs ask at once"
    elif waiting >= 0.1:
        says += f", waiting for it another {_percent(waiting)}"
    return f"{says}: {_chosen_before(here) or _other_backend(here.backend)}"


def _chosen_before(here: Circumstances) -> str:
    """What the workstation would use if nobody had asked for a backend by name; empty where it would be the same."""
    before, used = here.chosen_before, f"{here.backend.get('name')} {here.backend.get('precision')}"
    if not before or used == f"{before['backend']} {before['precision']}":
        return ""
    its_ms, first_ms = before["race_ms"]
    best, when = _what(before["backend"], before["precision"]), _when(before)
    if used == before["first"] and first_ms - its_ms >= MIN_SAVING_MS:
        saves = f"{best} would save about {first_ms - its_ms:.0f} ms a song, measured {when}"
        return f"{saves}: set backend and precision to auto"
    return f"left to itself the workstation takes {best}, by what it measured {when}"


def _other_backend(backend: Mapping[str, Any]) -> str:
    """What came of the other backends, and which might still be tried. Their times are of different races, on a machine
    more busy or less: only how a race ended says which is faster."""
    if backend.get("state") == "measuring":
        return "the other backends are still being measured"
    others, used = backend.get("candidates") or (), _what(backend.get("name"), backend.get("precision"))
    says = "no other backend was measured on this machine"
    if backend.get("measured_at") and any(one.get("state") in TRIED for one in others):
        says = f"nothing accurate that was measured {_when(backend)} is clearly faster than {used}"
    for one in others:
        if one.get("state") == "failed" and one.get("ms"):  # it had won
            says = f"{_what(one.get('backend'), one.get('precision'))} was faster, but failed; {used} answers now"
    untried = [f"{one.get('backend')} {one.get('precision')}" for one in others if one.get("state") == "not measured"]
    if untried:
        says += f"; What if? compares what was not measured ({', '.join(untried)})"
    return says


def _when(backend: Mapping[str, Any]) -> str:
    """When the candidates were measured, which may be many starts ago: the choice is kept."""
    try:
        return f"on {datetime.fromisoformat(str(backend.get('measured_at'))).date().isoformat()}"
    except ValueError:
        return "when this backend was chosen"


def _what(backend: Any, precision: Any) -> str:
    article = "an" if str(precision)[:1] in "aeiou8" else "a"
    return f"{article} {precision} backend ({backend})"


def _named(stage: str) -> str:
    return NAMES.get(stage, stage.replace("_", " "))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
