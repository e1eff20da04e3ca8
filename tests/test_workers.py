from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from acoustic.errors import BackendError, CorruptAudioError, InternalError, PoisonError, StoppedError
from acoustic.workers import Workers

ROOT = Path(__file__).resolve().parent.parent


def workers(n: int = 1, timeout_s: float = 60.0, memory_mb: float = 512.0, **more: Any) -> Workers:
    functions = {"echo": "tests.untrusted:echo"}
    return Workers(functions, {"told": 7}, n=n, timeout_s=timeout_s, memory_mb=memory_mb, **more)


@pytest.fixture(scope="module")
def one() -> Iterator[Workers]:
    with workers(timeout_s=1.5) as made:
        made.start()
        yield made


def test_answers_come_back_as_they_were_given(one: Workers) -> None:
    name = os.fsdecode(b"/music/\xff line\nfeed \xf0\x9f\x8e\xb5.mp3")
    entry = one.ask("echo", name)
    assert entry.meta["path"] == name
    assert entry.meta["told"] == 7
    assert entry.meta["pid"] != os.getpid()
    assert np.array_equal(entry.arrays["letters"], np.arange(len(os.path.basename(name)), dtype=np.float32))
    assert entry.arrays["two"].dtype == np.int64
    assert entry.arrays["two"].shape == (2, 3)


def test_errors_come_back_as_their_own_class(one: Workers) -> None:
    with pytest.raises(CorruptAudioError, match=r"bad\.mp3 is damaged") as caught:
        one.ask("echo", "bad.mp3")
    assert caught.value.hint == "a hint"
    with pytest.raises(InternalError, match="RuntimeError: a fault"):
        one.ask("echo", "fault.mp3")


def test_a_file_that_kills_is_tried_twice_and_the_next_is_read(one: Workers) -> None:
    before = one.n_lost
    with pytest.raises(PoisonError, match="SIGKILL") as caught:
        one.ask("echo", "kill.mp3")
    assert caught.value.code == "POISON"
    assert caught.value.hint
    assert one.n_lost == before + 2
    assert one.ask("echo", "well.mp3").meta["told"] == 7


def test_a_file_that_hangs_is_given_up(one: Workers) -> None:
    with pytest.raises(PoisonError, match=r"longer than 1\.5 s"):
        one.ask("echo", "hang.mp3")
    assert one.ask("echo", "well.mp3").meta["told"] == 7


def test_what_killed_once_gets_its_second_chance(one: Workers, tmp_path: Path) -> None:
    before = one.n_lost
    assert one.ask("echo", str(tmp_path / "once.mp3")).meta["told"] == 7
    assert one.n_lost == before + 1


@pytest.mark.skipif(sys.platform != "linux", reason="only here is memory limited")
def test_a_file_that_eats_memory_is_stopped(one: Workers) -> None:
    with pytest.raises(PoisonError, match="more than 512 MB"):
        one.ask("echo", "eat.mp3")


def test_stop_ends_who_works_and_who_waits() -> None:
    made = workers()
    made.start()
    raised: list[type[BaseException]] = []

    def ask() -> None:
        try:
            made.ask("echo", "hang.mp3")
        except StoppedError as error:
            raised.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    made.stop()
    made.stop()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - began < 2
    assert raised == [StoppedError] * 3


def test_workers_that_cannot_start_say_so() -> None:
    with workers(prepare="tests.untrusted:fail") as made, pytest.raises(BackendError, match="status 3"):
        made.start()


def test_a_machine_that_starts_no_process_says_so_and_the_place_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with workers() as made:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", full)
            for ask in (made.start, lambda: made.ask("echo", "a.mp3")):
                with pytest.raises(BackendError, match="cannot be started: Cannot allocate memory") as caught:
                    ask()
                assert "decode_workers" in caught.value.hint
        assert made.ask("echo", "a.mp3").meta["told"] == 7


def test_files_are_read_at_the_same_time() -> None:
    with workers(n=2) as made:
        pids: list[int] = []
        gate = threading.Barrier(2)

        def ask() -> None:
            made._places.put(made._places.get())  # both places are free: each thread takes its own
            gate.wait()
            for _ in range(20):
                pids.append(made.ask("echo", "x.mp3").meta["pid"])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(pids) == 40
    assert len(set(pids)) == 2


def test_workers_do_not_outlive_a_killed_parent_and_ignore_ctrl_c() -> None:
    code = """
import sys, threading
from acoustic.workers import Workers
made = Workers({"echo": "tests.untrusted:echo"}, {}, n=2, timeout_s=60, memory_mb=512)
print(made.ask("echo", "a.mp3").meta["pid"], flush=True)
threading.Thread(target=made.ask, args=("echo", "hang.mp3"), daemon=True).start()
import time; time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)  # it hangs now
    worker.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert worker.is_running()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
