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
HERE = Circumstances(2, 4, 3, False, {"name": "eager", "device": "cpu", "precision": "float32"})


def told(stages: dict[str, float], *candidates: dict[str, Any], **changes: Any) -> str:
    backend = {**HERE.backend, **({"candidates": list(candidates)} if candidates else {})}
    found = find(runs(**stages), dataclasses.replace(HERE, backend=backend, **changes))
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
    assert "add a worker" not in told({"load_audio": 62.0, "inference": 38.0}, n_workers=4)


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


def test_a_measurement_says_of_when_it_is() -> None:
    network = {"load_audio": 30.0, "inference": 70.0}
    int8 = candidate("openvino", "int8", "waiting", {"4": 20.0})
    assert "measured when this backend was chosen" in told(network, EAGER, int8)
    for kept, said in (
        ("2026-03-07", "measured on 2026-03-07"),
        ("2026-03-07T22:15:00+00:00", "measured on 2026-03-07"),
        ("the other day", "measured when this backend was chosen"),
        (None, "measured when this backend was chosen"),
    ):
        backend = {**HERE.backend, "candidates": [EAGER, int8], "measured_at": kept}
        found = find(runs(**network), dataclasses.replace(HERE, backend=backend))
        assert found is not None
        assert said in found.sentence
        assert "at start" not in found.sentence


def test_only_the_last_runs_count() -> None:
    found = find([*runs(100, load_audio=90.0, inference=10.0), *runs(50, load_audio=10.0, inference=90.0)], HERE)
    assert found is not None
    assert (found.stage, found.n_runs) == ("inference", 50)


def test_what_a_faster_backend_would_save() -> None:
    network = {"load_audio": 30.0, "inference": 70.0}
    int8 = candidate("openvino", "int8", "waiting", {"1": 8.0, "4": 20.0})
    # the batch that is nearest to three segments: (60 - 20) / 4 * 3 = 30 ms
    assert told(network, EAGER, int8).endswith(
        "an int8 backend (openvino) would save about 30 ms a song, measured when this backend was chosen, "
        "and is being made ready."
    )
    refused = candidate("openvino", "int8", "inaccurate", {"1": 8.0}, cosine=0.98123)
    assert told(network, EAGER, refused).endswith(
        "would save about 36 ms a song, measured when this backend was chosen, "
        "but it is not accurate enough (cosine of its answers 0.9812)."
    )
    free = candidate("compiled", "bfloat16", "slower", {"4": 40.0})
    assert told(network, EAGER, free).endswith("set backend to compiled and precision to bfloat16.")
    assert "a bfloat16 backend" in told(network, EAGER, free)


def test_the_best_of_several_is_named() -> None:
    network = {"inference": 100.0}
    a = candidate("compiled", "bfloat16", "waiting", {"4": 40.0})
    b = candidate("openvino", "int8", "waiting", {"4": 20.0})
    assert "int8" in told(network, EAGER, a, b)
    assert "int8" in told(network, EAGER, b, a)


def test_nothing_is_claimed_that_was_not_measured() -> None:
    network = {"load_audio": 30.0, "inference": 70.0}
    assert told(network) == "Inference is 70 % of the time: no other backend was measured on this machine."
    unmeasured = candidate("openvino", "int8", "not here", {}, note="openvino is not installed")
    assert told(network, EAGER, unmeasured).endswith("no other backend was measured on this machine.")
    elsewhere = candidate("openvino", "int8", "compiling", {"64": 90.0})
    assert told(network, EAGER, elsewhere).endswith("a float32 backend (eager) is the fastest.")
    slower = candidate("compiled", "float32", "slower", {"1": 25.0, "4": 59.5})
    assert told(network, EAGER, slower).endswith("a float32 backend (eager) is the fastest.")


def test_the_one_in_use_is_found_by_name_where_no_state_says_so() -> None:
    used = {**EAGER, "state": "measuring"}
    int8 = candidate("openvino", "int8", "waiting", {"4": 20.0})
    assert "30 ms a song" in told({"inference": 70.0}, int8, used)


def test_waiting_for_the_network_is_the_networks_time() -> None:
    both = told({"load_audio": 40.0, "wait": 15.0, "inference": 45.0})
    assert both.startswith("Inference is 45 % of the time, waiting for it another 15 %: ")
    queue = told({"load_audio": 20.0, "wait": 60.0, "inference": 20.0})
    assert queue.startswith("Waiting for the network is 60 % of the time, because several songs ask at once: ")


def test_other_stages_are_named_plainly() -> None:
    assert told({"mel_spectrogram": 80.0, "inference": 20.0}) == "The spectrogram is 80 % of the time."
    assert told({"mel_spectrogram": 80.0, "inference": 20.0}, denoise=True) == (
        "The spectrogram is 80 % of the time: denoising is part of it."
    )
    assert told({"some_stage": 80.0, "inference": 20.0}) == "Some stage is 80 % of the time."
