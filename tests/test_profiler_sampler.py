"""Readings in the background: only while somebody looks, never more than the ring holds."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time

import pytest

from acoustic.profiler import Resources, Sampler

READING = Resources((10.0, 20.0), 30.0, 100.0, 5, 1000.0, 2000.0, (), "no GPU", read_mb=1.0, written_mb=2.0)
PATIENCE_S = 30.0


class Machine:
    """Readings that rise by 3 MB read each time; a worker that ended takes 100 MB of the count along at reading 4."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> Resources:
        self.n += 1
        return dataclasses.replace(READING, read_mb=3.0 * self.n - (100.0 if self.n >= 4 else 0.0), written_mb=None)


def wait_until(true) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def n_threads() -> int:
    return sum(thread.name == "resources" for thread in threading.enumerate())


def test_nothing_runs_until_somebody_looks_and_ends_when_nobody_does() -> None:
    machine = Machine()
    sampler = Sampler(machine, lambda: {"segments": 4.0}, every_s=0.01)
    assert (machine.n, n_threads(), sampler.running) == (0, 0, False)
    sampler.watch(0.2)
    sampler.watch(0.1)  # another page; the longer look counts
    assert n_threads() == 1
    wait_until(lambda: len(sampler.samples()) >= 3)
    wait_until(lambda: not sampler.running)
    wait_until(lambda: n_threads() == 0)
    n = machine.n
    time.sleep(0.05)
    assert machine.n == n
    sampler.watch(0.05)
    wait_until(lambda: machine.n > n)
    wait_until(lambda: n_threads() == 0)


def test_a_block_is_watched_to_its_end() -> None:
    sampler = Sampler(Machine(), every_s=0.01)
    with sampler.watching():
        wait_until(lambda: len(sampler.samples()) >= 5)
    assert n_threads() == 0


def test_a_short_block_has_a_reading_of_its_end() -> None:
    sampler = Sampler(Machine(), every_s=60.0)
    with sampler.watching():
        pass
    assert len(sampler.samples()) == 1
    assert not sampler.running


def test_stop_does_not_wait_for_the_look_to_end() -> None:
    sampler = Sampler(Machine(), every_s=60.0)
    sampler.watch(3600.0)
    wait_until(lambda: bool(sampler.samples()))
    sampler.stop()
    wait_until(lambda: n_threads() == 0)


def test_samples_are_numbered_bounded_and_carry_rates_and_load() -> None:
    sampler = Sampler(Machine(), lambda: {"segments": 4.0}, every_s=0.01, n_samples=6)
    with sampler.watching():
        wait_until(lambda: bool(sampler.samples(after=8)))
    kept = sampler.samples()
    assert len(kept) == 6
    assert [b.number - a.number for a, b in itertools.pairwise(kept)] == [1] * 5
    assert all(sample.load == {"segments": 4.0} for sample in kept)
    for before, after in itertools.pairwise(kept):
        assert after.read_mb_per_s == pytest.approx(3.0 / (after.at - before.at))
        assert after.written_mb_per_s is None
    assert sampler.samples(after=kept[3].number) == kept[4:]


def test_a_lost_worker_is_no_negative_rate() -> None:
    sampler = Sampler(Machine(), every_s=0.01)
    with sampler.watching():
        wait_until(lambda: len(sampler.samples()) >= 4)
    rates = [sample.read_mb_per_s for sample in sampler.samples()[:4]]
    assert rates[0] is None
    assert 0.0 in rates
    assert min(rate for rate in rates if rate is not None) == 0.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_a_reading_that_fails_the_next_look_tries_again() -> None:
    broken = True

    def read() -> Resources:
        if broken:
            raise OSError("no /proc")
        return READING

    sampler = Sampler(read, every_s=0.01)
    sampler.watch(5.0)
    wait_until(lambda: not sampler.running)
    broken = False
    sampler.watch(0.05)
    wait_until(lambda: bool(sampler.samples()))
    wait_until(lambda: n_threads() == 0)
