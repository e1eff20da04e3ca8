"""The choice among backends: by measurement, in the background, kept, and never for a less accurate answer."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from acoustic.errors import BackendError
from acoustic.network import backends
from acoustic.network.backends import choice
from acoustic.network.backends.choice import MeasuredBackend, Rival
from acoustic.network.source import NetworkSource
from acoustic.network.vit import MelViT
from acoustic.records import Votes
from tests.network_answers import made_mels, nearly

PATIENCE_S = 60


class Fake:
    """A backend that takes `ms` a call and turns its answers by `skew`."""

    device = "cpu"

    def __init__(self, name: str, precision: str, ms: float, skew: float = 0.0, error: str = "") -> None:
        self.name, self.precision, self.ms, self.skew, self.error = name, precision, ms, skew, error
        self.kind: type[Exception] = BackendError
        self.calls = 0

    def __call__(self, mels: np.ndarray) -> Votes:
        self.calls += 1
        if self.error:
            raise self.kind(self.error)
        time.sleep(self.ms / 1e3)
        angle = np.arange(len(mels), dtype=np.float32) + self.skew
        logits = np.stack([np.cos(angle), np.sin(angle), np.full(len(mels), 0.1)], axis=1).astype(np.float32)
        return Votes(logits, logits[:, :0], logits)

    def describe(self) -> dict:
        return {"name": self.name, "device": "cpu", "precision": self.precision}

    def wait(self, timeout_s: float | None = None) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MEASURE_S", 0.3)


def rival(fake: Fake, **more: object) -> Rival:
    return Rival(fake.name, fake.precision, lambda: fake, **more)  # type: ignore[arg-type]


def measured(*rivals: Rival, **how: object) -> MeasuredBackend:
    return MeasuredBackend(rivals, lambda: Fake("eager", "float32", 0.0), 16, **how)  # type: ignore[arg-type]


def settled(*rivals: Rival, **how: object) -> MeasuredBackend:
    made = measured(*rivals, **how)
    assert made.wait(PATIENCE_S)
    return made


def states(backend: MeasuredBackend) -> dict[tuple[str, str], str]:
    return {(one["backend"], one["precision"]): one["state"] for one in backend.describe()["candidates"]}


FIRST, QUICK = ("eager", "float32", 20.0), ("openvino", "float32", 2.0)


def test_the_fastest_accurate_one_takes_over() -> None:
    middling, wrong = Fake("eager", "bfloat16", 8.0), Fake("openvino", "bfloat16", 1.0, skew=0.5)
    nearly_right = Fake("eager", "int8", 1.0, skew=0.04)  # cosine 0.9992: it turns review flags
    made = settled(rival(Fake(*FIRST)), rival(middling), rival(Fake(*QUICK)), rival(wrong), rival(nearly_right))
    assert (made.name, made.precision) == ("openvino", "float32")
    assert states(made) == {
        ("eager", "float32"): "slower",
        ("eager", "bfloat16"): "slower",
        ("openvino", "float32"): "in use",
        ("openvino", "bfloat16"): "inaccurate",
        ("eager", "int8"): "inaccurate",
    }
    told = json.loads(json.dumps(made.describe(), allow_nan=False))
    assert told["chosen"].startswith("measured: ")
    assert "eager float32" in told["chosen"]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["measured_at"])).total_seconds()) < 600
    assert told["state"] == "ready"
    assert all(set(one["ms"]) == {"1", "4"} for one in told["candidates"] if one["state"] in ("in use", "slower"))


def test_the_first_answers_meanwhile_and_the_other_takes_over_between_two_calls() -> None:
    gate, quick = threading.Event(), Fake(*QUICK)

    def late() -> Fake:
        gate.wait(PATIENCE_S)
        return quick

    made = measured(rival(Fake(*FIRST)), Rival("openvino", "float32", late))
    assert made.describe()["state"] == "measuring"
    assert len(made(np.zeros((2, 16, 224), np.float32))) == 2
    assert (made.name, quick.calls) == ("eager", 0)
    gate.set()
    assert made.wait(PATIENCE_S)
    assert made.name == "openvino"


def test_what_is_not_clearly_faster_stays_out() -> None:
    made = settled(rival(Fake(*FIRST)), rival(Fake("openvino", "float32", 20.0)))
    assert made.name == "eager"
    assert "nothing accurate is clearly faster" in made.describe()["chosen"]


@pytest.mark.parametrize(
    ("loss", "state"), [(0.0, "in use"), (0.009, "in use"), (0.02, "inaccurate"), (None, "inaccurate")]
)
def test_int8_may_be_a_little_off_but_not_cost_accuracy(loss: float | None, state: str) -> None:
    """Where nobody measured what it costs, its answers must be as near as any other's."""
    near = Fake("openvino", "int8", 1.0, skew=0.1)  # cosine 0.995
    made = settled(rival(Fake(*FIRST)), rival(near, loss=loss))
    assert states(made)["openvino", "int8"] == state
    as_float = settled(rival(Fake(*FIRST)), rival(Fake("openvino", "float32", 1.0, skew=0.1)))
    assert states(as_float)["openvino", "float32"] == "inaccurate"


def test_what_fails_or_is_hopeless_or_costs_too_much_is_left_alone() -> None:
    broken, slow = Fake("openvino", "float32", 1.0, error="no such instruction"), Fake("eager", "bfloat16", 200.0)
    compiled = Fake("compiled", "float32", 0.1)

    def missing() -> Fake:
        raise BackendError("torch2trt is not installed")

    made = settled(
        rival(Fake(*FIRST)),
        rival(broken),
        rival(slow),
        rival(compiled, measured=False),
        Rival("tensorrt", "x", missing),
    )
    found = {one["backend"] + " " + one["precision"]: one for one in made.describe()["candidates"]}
    assert found["openvino float32"]["state"] == "failed"
    assert found["openvino float32"]["note"] == "no such instruction"
    assert found["eager bfloat16"]["state"] == "slower"
    assert slow.calls == 4
    assert (found["compiled float32"]["state"], compiled.calls) == ("not measured", 0)
    assert found["tensorrt x"]["note"] == "torch2trt is not installed"
    assert made.name == "eager"


def test_the_choice_is_kept_for_the_same_machine(tmp_path: Path) -> None:
    folder, slow, quick = tmp_path / "deep", Fake(*FIRST), Fake(*QUICK)
    first = settled(rival(slow), rival(quick), key="here", folder=folder)
    slow.calls = 0
    again = measured(rival(slow), rival(quick), key="here", folder=folder)
    assert (again.name, slow.calls) == ("openvino", 0)
    assert all(again.describe()[key] == first.describe()[key] for key in ("chosen", "measured_at"))
    assert states(again) == states(first)
    settled(rival(slow), rival(quick), key="elsewhere", folder=folder)
    assert slow.calls > 0
    slow.calls = 0
    assert measured(rival(slow), rival(quick), key="here", folder=folder).name == "openvino"
    assert slow.calls == 0  # one key does not disturb another's choice


@pytest.mark.parametrize("text", ["{", "[]", '{"key": "here"}'])
def test_a_kept_choice_that_cannot_be_read_is_made_anew(tmp_path: Path, text: str) -> None:
    slow, quick = Fake(*FIRST), Fake(*QUICK)
    settled(rival(slow), rival(quick), key="here", folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(text)
    slow.calls = 0
    settled(rival(slow), rival(quick), key="here", folder=tmp_path)
    assert slow.calls > 0
    assert json.loads(kept.read_text())["key"] == "here"


@pytest.mark.parametrize("kind", [BackendError, RuntimeError])
def test_a_kept_winner_that_fails_now_is_measured_again(tmp_path: Path, kind: type[Exception]) -> None:
    slow, quick = Fake(*FIRST), Fake(*QUICK)
    settled(rival(slow), rival(quick), key="here", folder=tmp_path)
    quick.error, quick.kind = "another driver", kind
    again = settled(rival(slow), rival(quick), key="here", folder=tmp_path)
    assert again.name == "eager"
    assert states(again)["openvino", "float32"] == "failed"


def test_a_kept_int8_that_turned_out_to_cost_too_much_is_not_taken(tmp_path: Path) -> None:
    slow, int8 = Fake(*FIRST), Fake("openvino", "int8", 1.0)
    assert settled(rival(slow), rival(int8, loss=0.0), key="here", folder=tmp_path).precision == "int8"
    assert settled(rival(slow), rival(int8, loss=0.05), key="here", folder=tmp_path).precision == "float32"


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_a_machine_that_slows_down_or_speeds_up_meanwhile_changes_nothing(factor: float) -> None:
    """Other work begins, or ends, between the races: what was measured before it says nothing of what comes after."""
    fakes = [Fake(*FIRST), Fake("openvino", "float32", 8.0), Fake("eager", "bfloat16", 14.0)]

    def then_busy(at: int) -> Fake:
        for fake, (_, _, ms) in zip(fakes, (FIRST, ("", "", 8.0), ("", "", 14.0)), strict=True):
            fake.ms = ms * factor**at
        return fakes[at]

    made = settled(*(Rival(f.name, f.precision, lambda at=at: then_busy(at)) for at, f in enumerate(fakes)))
    assert (made.name, made.precision) == ("openvino", "float32")


def test_who_asks_by_name_can_be_told_what_was_chosen(tmp_path: Path) -> None:
    """By the race of the two, not by times of different ones."""
    slow, quick, middling = Fake(*FIRST), Fake(*QUICK), Fake("eager", "bfloat16", 12.0)
    assert choice.kept_choice(tmp_path, "here") == {}
    settled(rival(slow), rival(quick), rival(middling), key="here", folder=tmp_path)
    before = choice.kept_choice(tmp_path, "here")
    assert (before["backend"], before["precision"], before["first"]) == ("openvino", "float32", "eager float32")
    its_ms, first_ms = before["race_ms"]
    assert 2 <= its_ms < 12 < 20 <= first_ms
    assert choice.kept_choice(tmp_path, "elsewhere") == {}
    (kept,) = tmp_path.iterdir()
    for torn in ("{", "[]", json.dumps({"findings": [], "race_ms": [1, 2]})):
        kept.write_text(torn)
        assert choice.kept_choice(tmp_path, "here") == {}


def test_a_choice_is_measured_again_after_a_while(tmp_path: Path) -> None:
    slow, quick = Fake(*FIRST), Fake(*QUICK)
    settled(rival(slow), rival(quick), key="here", folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    said = json.loads(kept.read_text())
    for days, again in ((choice.MAX_AGE_DAYS - 1, False), (choice.MAX_AGE_DAYS + 1, True), (-400, True)):
        measured_at = datetime.now(UTC) - timedelta(days=days)
        kept.write_text(json.dumps({**said, "measured_at": measured_at.isoformat()}))
        slow.calls = 0
        settled(rival(slow), rival(quick), key="here", folder=tmp_path)
        assert (slow.calls > 0) is again


def test_a_library_that_fails_in_its_own_way_keeps_nobody_out(tmp_path: Path) -> None:
    odd = Fake("eager", "int8", 1.0, error="Didn't find engine")
    odd.kind = RuntimeError
    made = settled(rival(Fake(*FIRST)), rival(odd), rival(Fake(*QUICK)), key="here", folder=tmp_path)
    assert made.name == "openvino"
    found = made.describe()["candidates"][1]
    assert (found["state"], found["note"]) == ("failed", "RuntimeError: Didn't find engine")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_state_may_be_read_at_any_moment() -> None:
    made = measured(rival(Fake(*FIRST)), rival(Fake(*QUICK)), rival(Fake("eager", "bfloat16", 3.0)))
    while not made.wait(0.0005):
        told = json.loads(json.dumps(made.describe(), allow_nan=False))
        in_use = [one for one in told["candidates"] if one["state"] == "in use"]
        assert [(one["backend"], one["precision"]) for one in in_use] == [(told["name"], told["precision"])]


def test_one_that_fails_later_is_replaced_by_the_first() -> None:
    quick = Fake(*QUICK)
    made = settled(rival(Fake(*FIRST)), rival(quick))
    quick.error = "the device is lost"
    assert len(made(np.zeros((1, 16, 224), np.float32))) == 1
    assert made.name == "eager"
    assert states(made)["openvino", "float32"] == "failed"
    assert "the device is lost" in made.describe()["chosen"]


def test_an_input_that_nobody_can_answer_changes_nothing() -> None:
    slow, quick = Fake(*FIRST), Fake(*QUICK)
    made = settled(rival(slow), rival(quick))
    slow.error = quick.error = "NaN"
    with pytest.raises(BackendError, match="NaN"):
        made(np.zeros((1, 16, 224), np.float32))
    assert made.name == "openvino"


def test_closing_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "CLOSE_S", 0.1)
    gate, never = threading.Event(), Fake("eager", "bfloat16", 1.0)

    def late() -> Fake:
        gate.wait(PATIENCE_S)
        return Fake(*QUICK)

    made = measured(rival(Fake(*FIRST)), Rival("openvino", "float32", late), rival(never))
    closing = threading.Thread(target=made.close)
    closing.start()
    while not made._stop.is_set():
        time.sleep(0.01)
    gate.set()
    closing.join(PATIENCE_S)
    assert made.wait(PATIENCE_S)
    assert never.calls == 0
    assert made.name == "eager"


def on_this_machine(network: MelViT, folder: Path) -> backends.Backend:
    source = NetworkSource(network.architecture, lambda: network, digest="b" * 64)
    return backends.create(source, "cpu", folder=folder)


@pytest.mark.parametrize("again", [False, True])
def test_what_this_machine_chooses_says_what_the_network_says(network: MelViT, tmp_path: Path, again: bool) -> None:
    made = on_this_machine(network, tmp_path)
    assert made.wait(PATIENCE_S * 5)
    if again:
        made = on_this_machine(network, tmp_path)
    told = json.loads(json.dumps(made.describe(), allow_nan=False))
    assert {one["backend"] for one in told["candidates"]} == {"eager", "openvino", "compiled"}
    assert [one["state"] for one in told["candidates"]].count("in use") == 1
    assert told["chosen"].startswith("measured: ")
    mels = made_mels(4)
    exact = backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)
    assert nearly(made(mels), exact(mels))
    made.close()
    source = NetworkSource(network.architecture, lambda: network, digest="b" * 64)
    before = backends.chosen_before(source, "cpu", folder=tmp_path)
    assert (before["backend"], before["precision"]) == (made.name, made.precision)
    assert backends.chosen_before(dataclasses.replace(source, digest="d" * 64), "cpu", folder=tmp_path) == {}


def test_full_precision_only(network: MelViT, tmp_path: Path) -> None:
    source = NetworkSource(network.architecture, lambda: network, digest="c" * 64)
    made = backends.create(source, "cpu", use_fp16=False, folder=tmp_path)
    assert made.wait(PATIENCE_S * 5)
    assert {one["precision"] for one in made.describe()["candidates"]} == {"float32"}
    made.close()
