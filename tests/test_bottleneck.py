"""What holds the songs up is said from half of the time on, and nothing that was not measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from acoustic.profiler import Run
from acoustic.workstation.bottleneck import Circumstances, find


def runs(n: int = 4, apart_s: float = 0.0, **stages: float) -> list[Run]:
    """Songs of which each begins `apart_s` after the one before."""
    timings = {**stages, "total": sum(stages.values())}
    return [Run("song", 0.0, timings, (), i + 1, 1e9 + i * apart_s) for i in range(n)]


def candidate(backend: str, precision: str, state: str, ms: dict[str, float], **more: Any) -> dict[str, Any]:
    return {"backend": backend, "precision": precision, "state": state, "ms": ms, **more}


EAGER = candidate("eager", "float32", "in use", {"1": 20.0, "4": 60.0})
LOST = candidate("compiled", "bfloat16", "slower", {"1": 8.0, "4": 40.0}, cosine=0.9999)
HERE = Circumstances(
    2, 4, False, {"name": "eager", "device": "cpu", "precision": "float32", "measured_at": "2026-03-07"}
)
NETWORK = {"load_audio": 30.0, "inference": 70.0}


def told(stages: dict[str, float], *candidates: dict[str, Any], **described: Any) -> str:
    backend = {**HERE.backend, "candidates": list(candidates), **described}
    found = find(runs(**stages), dataclasses.replace(HERE, backend=backend))
    return found.sentence if found else ""


def test_below_half_nothing_is_said() -> None:
    even = {"load_audio": 49.0, "mel_spectrogram": 26.0, "inference": 25.0}
    assert find(runs(**even), HERE) is None
    assert find([], HERE) is None
    assert find(runs(total_of_nothing=0.0), HERE) is None


def test_decoding() -> None:
    found = find(runs(load_audio=62.0, inference=38.0), HERE)
    assert found is not None
    assert (found.stage, found.share, found.n_runs) == ("load_audio", pytest.approx(0.62), 4)
    assert found.sentence == (
        "Decoding is 62 % of the time: add a worker (decode_workers is 2, and there are 4 cores)."
    )
    enough = find(runs(load_audio=62.0, inference=38.0), dataclasses.replace(HERE, n_workers=4))
    assert enough is not None
    assert "add a worker" not in enough.sentence


@pytest.mark.parametrize(
    ("apart_s", "more"), [(0.05, True), (0.1, True), (0.13, True), (0.3, False), (60.0, False)],
    ids=["at once", "in a row", "with the decoder's own pause", "one by one", "now and then"],
)  # fmt: skip
def test_workers_are_advised_only_where_songs_waited(apart_s: float, more: bool) -> None:
    songs = runs(apart_s=apart_s, load_audio=62.0, inference=38.0)
    found, with_all_cores = find(songs, HERE), find(songs, dataclasses.replace(HERE, n_workers=4))
    assert found is not None
    assert with_all_cores is not None
    assert ("add a worker" in found.sentence) == more
    alone = "Decoding is 62 % of the time; songs came one at a time, for which more workers would do nothing."
    assert (found.sentence == alone) != more
    assert ("as many workers" in with_all_cores.sentence) == more


def test_a_lone_song_says_nothing_of_workers_that_would_help() -> None:
    found = find(runs(1, load_audio=62.0, inference=38.0), HERE)
    assert found is not None
    assert "add a worker" not in found.sentence


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("2026-03-07", "measured on 2026-03-07"),
        ("2026-03-07T22:15:00+00:00", "measured on 2026-03-07"),
        ("the other day", "measured when this backend was chosen"),
    ],
)
def test_a_measurement_says_of_when_it_is(kept: str, said: str) -> None:
    assert said in told(NETWORK, EAGER, LOST, measured_at=kept)


def test_only_the_last_runs_count() -> None:
    found = find([*runs(100, load_audio=90.0, inference=10.0), *runs(50, load_audio=10.0, inference=90.0)], HERE)
    assert found is not None
    assert (found.stage, found.n_runs) == ("inference", 50)


def test_known_answers_say_nothing_of_what_holds_a_song_up() -> None:
    copies = runs(4, load_audio=99.0, cache=1.0)
    assert find(copies, HERE) is None
    found = find([*runs(60, load_audio=20.0, inference=80.0), *copies], HERE)
    assert found is not None
    assert (found.stage, found.n_runs) == ("inference", 50)
    mixed = find([*copies, *runs(2, load_audio=90.0, inference=10.0)], HERE)
    assert mixed is not None
    assert (mixed.share, mixed.n_runs) == (pytest.approx(0.9), 2)


def test_who_lost_a_race_is_not_advised() -> None:
    """Least times of different races are no comparison: the loser's may be the lower one."""
    assert told(NETWORK, EAGER, LOST).endswith(
        "nothing accurate that was measured on 2026-03-07 is clearly faster than a float32 backend (eager)."
    )
    inaccurate = candidate("openvino", "int8", "inaccurate", {}, cosine=0.98123)
    assert told(NETWORK, EAGER, inaccurate) == told(NETWORK, EAGER, LOST)
    assert told(NETWORK, LOST, name="openvino", precision="int8").endswith("faster than an int8 backend (openvino).")


def test_who_asked_by_name_is_told_what_the_choice_would_save() -> None:
    before = {"backend": "openvino", "precision": "int8", "first": "eager float32", "race_ms": [20.0, 60.4]}
    kept = {**before, "measured_at": "2026-03-07T10:00:00+00:00"}

    def sentence(name: str, precision: str, **changes: Any) -> str:
        backend = {"name": name, "precision": precision}
        here = dataclasses.replace(HERE, backend=backend, chosen_before={**kept, **changes})
        found = find(runs(**NETWORK), here)
        assert found is not None
        return found.sentence

    assert sentence("eager", "float32") == (
        "Inference is 70 % of the time: an int8 backend (openvino) would save about 40 ms a song, measured on "
        "2026-03-07: set backend and precision to auto."
    )
    left_alone = "left to itself the workstation takes an int8 backend (openvino), by what it measured on 2026-03-07."
    assert sentence("compiled", "bfloat16").endswith(left_alone)  # never raced with it
    assert sentence("eager", "float32", race_ms=[60.0, 60.4]).endswith(left_alone)
    assert "auto" not in sentence("openvino", "int8")


def test_a_winner_that_failed_is_told() -> None:
    failed = candidate("openvino", "int8", "failed", {"4": 20.0})
    assert told(NETWORK, EAGER, LOST, failed).endswith(
        "an int8 backend (openvino) was faster, but failed; a float32 backend (eager) answers now."
    )
    never_ran = candidate("openvino", "int8", "failed", {})
    assert told(NETWORK, EAGER, LOST, never_ran) == told(NETWORK, EAGER, LOST)


def test_what_was_not_measured_can_be_compared() -> None:
    untried = [candidate("compiled", precision, "not measured", {}) for precision in ("float32", "bfloat16")]
    assert told(NETWORK, EAGER, LOST, *untried).endswith(
        "a float32 backend (eager); What if? compares what was not measured (compiled float32, compiled bfloat16)."
    )


def test_nothing_is_claimed_that_was_not_measured() -> None:
    nothing = "Inference is 70 % of the time: no other backend was measured on this machine."
    assert told(NETWORK) == nothing
    missing = candidate("openvino", "int8", "failed", {}, note="openvino is not installed")
    assert told(NETWORK, EAGER, missing) == nothing
    assert told(NETWORK, EAGER, LOST, measured_at="") == nothing  # the measurement did not come to its end
    at_work = told(NETWORK, EAGER, LOST, state="measuring")
    assert at_work.endswith("the other backends are still being measured.")


def test_waiting_for_the_network_is_the_networks_time() -> None:
    both = told({"load_audio": 40.0, "wait": 15.0, "inference": 45.0})
    assert both.startswith("Inference is 45 % of the time, waiting for it another 15 %: ")
    queue = told({"load_audio": 20.0, "wait": 60.0, "inference": 20.0})
    assert queue.startswith("Waiting for the network is 60 % of the time, because several songs ask at once: ")


def test_other_stages_are_named_plainly() -> None:
    spectrogram = runs(mel_spectrogram=80.0, inference=20.0)
    for denoise, more in ((False, ""), (True, ": denoising is part of it")):
        found = find(spectrogram, dataclasses.replace(HERE, denoise=denoise))
        assert found is not None
        assert found.sentence == f"The spectrogram is 80 % of the time{more}."
    assert told({"some_stage": 80.0, "inference": 20.0}) == "Some stage is 80 % of the time."
