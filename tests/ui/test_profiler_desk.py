"""What the Profiler tab's script is told: JSON without NaN, names as text, nothing for a stranger, one comparison."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from acoustic.errors import BackendError
from acoustic.profiler import Profiler, Trace, span, tracing
from acoustic.records import SegmentSpec
from acoustic.settings import Settings
from acoustic.ui import profiler_numbers as numbers
from acoustic.ui.profiler_desk import N_SONGS, ProfilerDesk
from acoustic.ui.profiler_what_if import WhatIfDesk
from acoustic.workstation.what_if import Choice, Difference, Side
from tests.conftest import small_model

NASTY = "/music/<img src=x onerror=alert(1)> \u202egpj.\udcff\n.mp3"
DESCRIBED = {
    "name": "openvino",
    "device": "cpu",
    "device_name": "A processor",
    "precision": "bfloat16",
    "chosen": "openvino bfloat16 is the fastest that is accurate",
    "state": "ready",
    "n_threads": 2,
    "candidates": [
        {
            "backend": "openvino",
            "precision": "bfloat16",
            "state": "in use",
            "ms": {"1": 9.0, "4": 30.5},
            "cosine": 0.9999,
        },
        {
            "backend": "eager",
            "precision": "float32",
            "state": "slower",
            "ms": {"1": 16.7, "4": math.nan},
            "note": "<b>",
        },
        {"backend": "tensorrt", "precision": "float16", "state": "not here", "ms": None, "cosine": None},
    ],
}


class Classifier:
    """As much of a classifier as the profiler looks at."""

    def __init__(self) -> None:
        self.profiler, self.settings = Profiler(), Settings()
        self.segment_spec = SegmentSpec()
        self.card = SimpleNamespace(mel=SimpleNamespace(segment_s=10.4))
        self.backend = SimpleNamespace(describe=lambda: DESCRIBED)

    def get_stats(self) -> dict:
        return {"total_requests": 4, "cache_hit_rate": 0.25, "cache": None, "batch_sizes": {1: 2, 8: 1}}

    def load(self) -> dict:
        return {"queue_segments": 3, "waiting_files": 2, "network_busy_s": 1.5}

    def heard(self, label: str, *stages: str) -> None:
        trace = Trace()
        with tracing(trace):
            for stage in stages:
                with span(stage):
                    time.sleep(0.001)
        self.profiler.add(trace, label)


@pytest.fixture
def station(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(classifier=Classifier(), demo_clip=lambda: tmp_path / "demo.ogg", scanning=False)


@pytest.fixture
def desk(station: SimpleNamespace) -> Iterator[ProfilerDesk]:
    made = ProfilerDesk(station)
    yield made
    made.performance.stop()


def asked(desk: ProfilerDesk, name: str, **ask: object) -> dict:
    """The answer as the browser gets it: through JSON, which knows no NaN."""
    [function] = [one for one in desk.functions() if one.__name__ == f"profiler_{name}"]
    return json.loads(json.dumps(function({"token": desk.token, **ask}), allow_nan=False).encode("utf-8"))


def test_a_page_begins_with_a_token_and_what_can_be_chosen(desk: ProfilerDesk) -> None:
    [open_] = [one for one in desk.functions() if one.__name__ == "profiler_open"]
    said = open_({})
    assert said["token"] == desk.token
    assert said["backends"][0] == said["precisions"][0] == "auto"
    assert {"eager", "openvino"} <= set(said["backends"])
    assert ["inference", "Network"] in said["stages"]


@pytest.mark.parametrize("name", ["state", "spans", "export", "compare", "stop"])
def test_without_the_token_nothing_is_said(desk: ProfilerDesk, name: str) -> None:
    assert asked(desk, name, token="")["error"]["code"] == "STALE"
    assert asked(desk, name, token="x")["ok"] is False
    assert not desk.what_if.running


def test_the_state_tells_only_what_is_new(desk: ProfilerDesk, station: SimpleNamespace) -> None:
    for i in range(3):
        station.classifier.heard(f"/music/{i}.mp3", "load_audio", "inference")
    station.classifier.heard("/music/0.mp3", "cache")
    said = asked(desk, "state")
    assert said["ok"] is True
    assert [(run["number"], run["name"], run["cached"]) for run in said["runs"]] == [
        (1, "0.mp3", False),
        (2, "1.mp3", False),
        (3, "2.mp3", False),
        (4, "0.mp3", True),
    ]
    assert said["load"] == {"queue_segments": 3, "waiting_files": 2, "network_busy_s": 1.5}
    assert said["batch_sizes"] == [[1, 2], [8, 1]]
    assert (said["n_requests"], said["answers_known"], said["cache"]) == (4, 0.25, None)
    assert {one["stage"]: one["n"] for one in said["percentiles"]} == {
        "load_audio": 3, "inference": 3, "cache": 1, "total": 4
    }  # fmt: skip
    assert said["busy"] is True
    assert said["what_if"]["running"] is False
    assert [run["number"] for run in asked(desk, "state", after_run=3)["runs"]] == [4]
    spans = asked(desk, "spans", run=1)["spans"]
    assert [(one["name"], one["label"], one["depth"]) for one in spans] == [
        ("load_audio", "Read audio", 0),
        ("inference", "Network", 0),
    ]
    assert asked(desk, "spans", run=99)["spans"] is None
    assert asked(desk, "spans", run="<b>")["error"]["code"] == "SETTINGS"


def test_a_page_is_told_of_so_many_songs_at_once(desk: ProfilerDesk, station: SimpleNamespace) -> None:
    for i in range(N_SONGS + 5):
        station.classifier.heard(f"{i}.mp3", "cache")
    said = asked(desk, "state")
    assert [run["number"] for run in said["runs"]] == list(range(6, N_SONGS + 6))
    assert said["n_runs"] == N_SONGS + 5


def test_hostile_names_are_text_on_one_line(desk: ProfilerDesk, station: SimpleNamespace) -> None:
    station.classifier.heard(NASTY, "load_audio")
    [run] = asked(desk, "state")["runs"]
    assert run["name"] == "<img src=x onerror=alert(1)> \ufffdgpj.\ufffd\ufffd.mp3"
    assert run["path"] == f"/music/{run['name']}"
    assert json.loads(asked(desk, "export", kind="trace")["text"])["traceEvents"]
    csv = asked(desk, "export", kind="csv")
    assert (csv["name"], csv["type"]) == ("acousticsense-runs.csv", "text/csv")
    assert "<img" in csv["text"]


def test_a_backend_tells_what_it_can() -> None:
    said = numbers.backend(DESCRIBED)
    assert said["device_name"] == "A processor"
    first, eager, missing = said["candidates"]
    assert first["ms"] == {"1": 9.0, "4": 30.5}
    assert eager["ms"] == {"1": 16.7}  # NaN is no number
    assert (eager["note"], eager["cosine"]) == ("<b>", None)
    assert (missing["ms"], missing["state"]) == ({}, "not here")
    least = numbers.backend({"name": "eager", "device": "cpu", "precision": "float32"})
    assert (least["candidates"], least["chosen"], least["device_name"]) == ([], "", "")
    assert (least["compiled"], least["graphs"], least["tensorrt_error"], least["measured_at"]) == (None, None, "", "")


def test_what_was_compiled_is_told_size_by_size() -> None:
    measured = {"first_ms": 21000.0, "eager_ms": 30.5, "compiled_ms": math.nan, "cosine": 0.99999}
    sizes = {"1": {"state": "slower", "n_calls": 4, **measured}, "3": {"state": "compiling", "n_calls": 0}}
    described = {**DESCRIBED, "state": "compiling", "compiled": {"sizes": sizes, "error": "<b>\udcff"}}
    said = json.loads(json.dumps(numbers.backend(described), allow_nan=False))
    assert said["state"] == "compiling"
    assert said["compiled"]["error"] == "<b>\ufffd"
    unknown = dict.fromkeys(("first_ms", "eager_ms", "compiled_ms", "cosine"))
    assert said["compiled"]["sizes"] == [
        {"size": 1, "state": "slower", "n_calls": 4, **measured, "compiled_ms": None},
        {"size": 3, "state": "compiling", "n_calls": 0, **unknown},
    ]
    recorded = numbers.backend({**DESCRIBED, "graphs": {"sizes": [1, 4], "error": None}, "measured_at": "2026-03-07"})
    assert (recorded["graphs"], recorded["measured_at"]) == ({"sizes": [1, 4], "error": ""}, "2026-03-07")
    assert numbers.backend({**DESCRIBED, "tensorrt": {"error": "lost"}})["tensorrt_error"] == "lost"


# --- what if ---


def side(**more: object) -> Side:
    fields = {
        "choice": Choice(),
        "backend": DESCRIBED,
        "ready": True,
        "n_segments": 3,
        "medians_ms": {"load_audio": 20.0, "total": 60.0},
        "top_genre": "Jazz",
        "top_confidence": 0.5,
        "needs_review": True,
        "review_reasons": ("LOW_CONFIDENCE",),
    }
    return Side(**{**fields, **more})


class Comparison:
    """`compare` as the desk calls it; waits until it is let go or told to stop."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.go, self.asked = error, threading.Event(), []

    def __call__(self, workstation, path, choices, *, on_step, cancel) -> Difference:
        self.asked.append((path, choices))
        on_step("round 1 of 5")
        while not self.go.wait(0.01):
            if cancel.is_set():
                from acoustic.errors import StoppedError

                raise StoppedError("the comparison was stopped")
        if self.error:
            raise self.error
        second = side(choice=choices[1], top_confidence=0.4, notes=("eager answered",))
        return Difference(path, 5, (side(), second), ("Jazz", 0.5, 0.4), 1.5)


def what_if(desk: ProfilerDesk, station: SimpleNamespace, comparison: Comparison) -> ProfilerDesk:
    desk.what_if = WhatIfDesk(station, desk.performance, comparison)
    return desk


def test_a_comparison_is_seen_from_its_start_to_its_end(desk: ProfilerDesk, station: SimpleNamespace) -> None:
    comparison = Comparison()
    what_if(desk, station, comparison)
    station.classifier.heard("/music/a.mp3", "inference")
    said = asked(desk, "compare", song=1, first={}, second={"n_segments": 5, "precision": "int8", "denoise": True})
    assert said["what_if"]["running"] is True
    again = asked(desk, "compare", song="demo", first={}, second={})
    assert "compared already" in again["error"]["message"]
    comparison.go.set()
    desk.what_if.wait(30)
    told = asked(desk, "state")["what_if"]
    assert (told["running"], told["error"], told["edition"]) == (False, None, 1)
    assert told["result"]["name"] == "a.mp3"
    assert told["result"]["moved"] == {"genre": "Jazz", "before": 0.5, "after": 0.4}
    assert told["result"]["sides"][1]["denoise"] is True
    assert [one["notes"] for one in told["result"]["sides"]] == [[], ["eager answered"]]
    assert comparison.asked == [("/music/a.mp3", (Choice(), Choice(5, "auto", "int8", True)))]


def test_a_comparison_can_be_stopped(desk: ProfilerDesk, station: SimpleNamespace) -> None:
    what_if(desk, station, Comparison())
    assert asked(desk, "compare", song="demo", first={}, second={})["ok"]
    asked(desk, "stop")
    desk.what_if.wait(30)
    told = asked(desk, "state")["what_if"]
    assert (told["running"], told["error"]["code"], told["result"]) == (False, "STOPPED", None)


@pytest.mark.parametrize("error", [BackendError("tensorrt is not here", "Use another."), ZeroDivisionError("oh")])
def test_what_is_not_here_is_text(desk: ProfilerDesk, station: SimpleNamespace, error: Exception) -> None:
    comparison = Comparison(error)
    comparison.go.set()
    what_if(desk, station, comparison)
    asked(desk, "compare", song="demo", first={"backend": "tensorrt"}, second={})
    desk.what_if.wait(30)
    told = asked(desk, "state")["what_if"]
    assert str(error) in told["error"]["message"]
    assert told["result"] is None


@pytest.mark.parametrize(
    "ask",
    [
        {"song": "/etc/passwd"},
        {"song": 7},
        {"song": True},
        {"second": {"n_segments": 65}},
        {"second": {"n_segments": 1.5}},
        {"second": {"n_segments": "many"}},
        {"second": {"backend": "abacus"}},
        {"second": ["int8"]},
    ],
)
def test_a_page_names_no_file_and_no_nonsense(desk: ProfilerDesk, station: SimpleNamespace, ask: dict) -> None:
    comparison = Comparison()
    what_if(desk, station, comparison)
    said = asked(desk, "compare", **{"song": "demo", "first": {}, "second": {}, **ask})
    assert said["error"]["code"] == "SETTINGS"
    assert comparison.asked == []


def test_over_a_real_workstation(tmp_path: Path) -> None:
    from acoustic.workstation import Workstation
    from tests.test_engine import song

    small_model(tmp_path / "models")
    settings = Settings(
        model=str(tmp_path / "models" / "small"), cache_dir=str(tmp_path / "cache"), data_dir=str(tmp_path / "data")
    )
    with Workstation(settings) as workstation:
        desk = ProfilerDesk(workstation)
        path = song(tmp_path / "a.wav", 60.0)
        list(workstation.analyze([path]))
        said = asked(desk, "state")
        assert [run["name"] for run in said["runs"]] == ["a.wav"]
        assert said["backend"]["device"] == "cpu"
        assert dataclasses.asdict(workstation.settings)["backend"] == "auto"
        assert asked(desk, "compare", song=1, first={}, second={"n_segments": 1, "backend": "eager"})["ok"]
        desk.what_if.wait(240)
        told = asked(desk, "state")["what_if"]
        assert told["error"] is None
        assert [one["n_segments"] for one in told["result"]["sides"]] == [3, 1]
        desk.performance.stop()
