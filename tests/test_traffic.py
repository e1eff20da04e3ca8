from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from acoustic.traffic import Traffic


def test_only_the_one_file_that_nobody_waits_behind_is_alone() -> None:
    traffic = Traffic()
    with traffic.decoding() as first, traffic.decoding() as second:
        assert (first, second) == (True, False)
    traffic.queue(+1)
    with traffic.decoding() as behind:
        assert not behind
    traffic.queue(-1)
    with traffic.decoding() as again:
        assert again


def test_what_fails_is_at_work_no_more_and_was_asked_for() -> None:
    traffic = Traffic()

    def torn() -> None:
        with traffic.at_work(), traffic.decoding():
            assert traffic.n_at_work == 1
            raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        torn()
    with traffic.at_work(request=False), traffic.decoding() as alone:
        assert alone
    assert (traffic.n_at_work, traffic.n_requests, traffic.n_known) == (0, 1, 0)


def test_the_share_of_known_answers() -> None:
    traffic = Traffic()
    assert traffic.share_known() == 0.0
    for known in (True, False, False, True):
        with traffic.at_work():
            traffic.answered(known)
    assert traffic.share_known() == 0.5


def test_no_count_is_lost_among_threads() -> None:
    traffic = Traffic()

    def work(_: int) -> None:
        traffic.queue(+1)
        with traffic.at_work(), traffic.decoding():
            traffic.queue(-1)
        traffic.answered(True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(2_000)))
    assert (traffic.n_requests, traffic.n_known, traffic.n_queued, traffic.n_at_work) == (2_000, 2_000, 0, 0)
