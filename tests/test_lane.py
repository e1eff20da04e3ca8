from __future__ import annotations

import threading

import numpy as np
import pytest

from acoustic.errors import StoppedError
from acoustic.lane import InferenceLane
from acoustic.records import Votes


class Recorder:
    """A backend whose votes name the segments that they belong to, and that can be held back."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, mels: np.ndarray) -> Votes:
        self.gate.wait(10)
        self.sizes.append(len(mels))
        if (mels < 0).any():
            raise ValueError("a segment that breaks the network")
        marks = mels[:, 0, 0]
        return Votes(marks[:, None], marks[:, None] * 10, marks[:, None] * 100)


def mels(*marks: float) -> np.ndarray:
    return np.stack([np.full((2, 3), mark, np.float32) for mark in marks])


def test_each_file_gets_its_own_votes_in_order() -> None:
    lane = InferenceLane(Recorder(), batch_size=4)
    futures = [lane.submit(mels(*range(10 * i + 1, 10 * i + 1 + n))) for i, n in enumerate((1, 3, 6, 2, 9))]
    for i, (future, n) in enumerate(zip(futures, (1, 3, 6, 2, 9), strict=True)):
        votes = future.result(10).votes
        assert votes.logits[:, 0].tolist() == list(range(10 * i + 1, 10 * i + 1 + n))
        assert votes.embeddings[:, 0].tolist() == [100 * v for v in range(10 * i + 1, 10 * i + 1 + n)]
    lane.close()


def test_waiting_files_share_a_batch_and_none_is_too_large() -> None:
    backend = Recorder()
    lane = InferenceLane(backend, batch_size=4)
    backend.gate.clear()
    futures = [lane.submit(mels(1))] + [lane.submit(mels(i, i)) for i in range(2, 8)]
    backend.gate.set()
    for future in futures:
        future.result(10)
    lane.close()
    assert sum(backend.sizes) == 13
    assert max(backend.sizes) <= 4
    assert len(backend.sizes) < len(futures)
    assert lane.batch_sizes == {size: backend.sizes.count(size) for size in set(backend.sizes)}


def test_a_failing_batch_fails_its_files_and_the_lane_lives_on() -> None:
    lane = InferenceLane(Recorder(), batch_size=4)
    with pytest.raises(ValueError, match="breaks the network"):
        lane.submit(mels(-1)).result(10)
    assert lane.submit(mels(5)).result(10).votes.logits[0, 0] == 5
    lane.close()


def test_a_file_that_breaks_the_network_does_not_fail_its_neighbours() -> None:
    backend = Recorder()
    lane = InferenceLane(backend, batch_size=4)
    backend.gate.clear()
    first = lane.submit(mels(9))  # the others come together while it runs
    good, bad, other = lane.submit(mels(1)), lane.submit(mels(2, -1)), lane.submit(mels(3))
    backend.gate.set()
    assert [future.result(10).votes.logits[0, 0] for future in (first, good, other)] == [9, 1, 3]
    with pytest.raises(ValueError, match="breaks the network"):
        bad.result(10)
    assert lane.n_waiting == 0
    lane.close()


def test_a_backend_that_miscounts_fails_its_files_and_the_lane_lives_on() -> None:
    lane = InferenceLane(lambda mels: Votes(*[mels[1:, 0, :1]] * 3), batch_size=4)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="votes for"):
            lane.submit(mels(1, 2)).result(10)
    lane.close()


def test_close_finishes_what_was_submitted_and_refuses_more() -> None:
    backend = Recorder()
    lane = InferenceLane(backend, batch_size=2)
    backend.gate.clear()
    futures = [lane.submit(mels(i)) for i in range(1, 6)]
    closer = threading.Thread(target=lane.close)
    closer.start()
    backend.gate.set()
    closer.join(10)
    assert [future.result(0).votes.logits[0, 0] for future in futures] == [1, 2, 3, 4, 5]
    lane.close()
    with pytest.raises(StoppedError):
        lane.submit(mels(1))


def test_times_are_measured_and_not_negative() -> None:
    lane = InferenceLane(Recorder(), batch_size=2)
    answer = lane.submit(mels(1, 2, 3)).result(10)
    lane.close()
    assert answer.wait_ms >= 0
    assert answer.inference_ms > 0
