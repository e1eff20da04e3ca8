"""What the script of the Profiler tab can ask for: the numbers of now, a run's spans, exports, a comparison.

Each answer is JSON: {"ok": true, ...}, or {"ok": false, "error": {"code", "message", "hint"}}. Every request but the
first carries the token that the page got when it was opened, which no other site can read. Names of files are text: the
script makes no markup of them.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..settings import Settings
from ..workstation.performance import Performance
from . import profiler_numbers as numbers
from .answering import Answer, Ask, served
from .profiler_what_if import WhatIfDesk

if TYPE_CHECKING:
    from ..workstation import Workstation

N_SONGS = 60
"""most songs that a page is told of at once"""
N_SAMPLES = 180


class ProfilerDesk:
    """The requests of all pages over one workstation. Safe from any thread."""

    def __init__(self, workstation: Workstation) -> None:
        self.performance = Performance(workstation)
        self.what_if = WhatIfDesk(workstation, self.performance)
        self.token = secrets.token_urlsafe(16)

    def functions(self) -> list[Callable[[Ask], Answer]]:
        """What the script calls, under the names that it uses."""
        named = ("state", "spans", "export", "compare", "stop")
        return [
            served("profiler_open", self.open, None),
            *(served(f"profiler_{name}", getattr(self, name), self.token) for name in named),
        ]

    def open(self, ask: Ask) -> Answer:
        """What a page needs to begin: its token, and what can be chosen in a comparison."""
        units = {spec.name: str(spec.metadata["unit"]) for spec in dataclasses.fields(Settings)}
        return {
            "token": self.token,
            "stages": numbers.stage_names(),
            "backends": units["backend"].split("|"),
            "precisions": units["precision"].split("|"),
        }

    def state(self, ask: Ask) -> Answer:
        """The numbers of now, with the songs and readings after those that the page has."""
        reading = self.performance.read(after_run=_number(ask, "after_run"), after_sample=_number(ask, "after_sample"))
        told = numbers.reading(reading)
        told["runs"], told["samples"] = told["runs"][-N_SONGS:], told["samples"][-N_SAMPLES:]
        return {**told, "what_if": self.what_if.told()}

    def spans(self, ask: Ask) -> Answer:
        """The waterfall of one run; `spans` is None where it is no longer kept."""
        run = self.performance.run(_number(ask, "run"))
        return {"spans": None if run is None else [numbers.span(one) for one in run.spans]}

    def export(self, ask: Ask) -> Answer:
        """All that is kept, as a file: `kind` is "trace" or "csv"."""
        if ask.get("kind") == "csv":
            return {"name": "acousticsense-runs.csv", "type": "text/csv", "text": self.performance.csv()}
        return {
            "name": "acousticsense-trace.json",
            "type": "application/json",
            "text": self.performance.chrome_trace(),
        }

    def compare(self, ask: Ask) -> Answer:
        """Begin to compare two ways on a song: "demo", or the number of a run."""
        self.what_if.start(ask.get("song", "demo"), (_way(ask, "first"), _way(ask, "second")))
        return {"what_if": self.what_if.told()}

    def stop(self, ask: Ask) -> Answer:
        self.what_if.stop()
        return {"what_if": self.what_if.told()}


def _number(ask: Ask, name: str) -> int:
    value = ask.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"{name} is {value!r}, not a number")
    return int(value)


def _way(ask: Ask, name: str) -> Mapping[str, Any]:
    way = ask.get(name, {})
    if not isinstance(way, Mapping):
        raise SettingsError(f"{name} is no way to analyse")
    return way
