"""The machine, this process and its workers now (psutil, pynvml)."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

import psutil

from .gpus import MB, Gpu, Gpus


@dataclass(frozen=True, slots=True)
class Resources:
    """One reading. CPU shares are since the reading before; a process may pass 100 (of one core).

    `workers_…` are of the processes that this one started, which decode during a scan. `read_mb` and `written_mb` are
    what this process and its workers moved from and to disks since they began, None where the system does not say.
    `gpu_note` says in plain words why `gpus` is empty; it is "" where it is not.
    """

    cpu_percent_by_core: tuple[float, ...]
    process_cpu_percent: float
    process_rss_mb: float
    process_threads: int
    memory_available_mb: float
    memory_total_mb: float
    gpus: tuple[Gpu, ...]
    gpu_note: str
    n_workers: int = 0
    workers_cpu_percent: float = 0.0
    workers_rss_mb: float = 0.0
    read_mb: float | None = None
    written_mb: float | None = None


class ResourceReader:
    """Takes readings; safe from several threads, but shares of CPU are since whoever read before."""

    def __init__(self) -> None:
        self._gpus = Gpus()
        self._lock = threading.Lock()
        self._process = psutil.Process()
        self._workers: dict[int, psutil.Process] = {}
        self._process.cpu_percent()  # the first call only starts the clock
        psutil.cpu_percent(percpu=True)

    def read(self) -> Resources:
        """A few milliseconds."""
        with self._lock:
            return self._read()

    def _read(self) -> Resources:
        memory, process = psutil.virtual_memory(), self._process
        gpus, note = self._gpus.read()
        moved = [_moved(process)]
        cpu, rss, n = 0.0, 0.0, 0
        for worker in self._living_workers():
            with contextlib.suppress(psutil.Error):  # it ended between two questions
                cpu += worker.cpu_percent()
                rss += worker.memory_info().rss / MB
                n += 1
                moved.append(_moved(worker))
        known = [one for one in moved if one is not None]
        return Resources(
            cpu_percent_by_core=tuple(psutil.cpu_percent(percpu=True)),
            process_cpu_percent=process.cpu_percent(),
            process_rss_mb=process.memory_info().rss / MB,
            process_threads=process.num_threads(),
            memory_available_mb=memory.available / MB,
            memory_total_mb=memory.total / MB,
            gpus=gpus,
            gpu_note=note,
            n_workers=n,
            workers_cpu_percent=cpu,
            workers_rss_mb=rss,
            read_mb=sum(read for read, _ in known) if known else None,
            written_mb=sum(written for _, written in known) if known else None,
        )

    def _living_workers(self) -> list[psutil.Process]:
        """The same objects again for the same processes: each knows the CPU time at its reading before."""
        try:
            found = {child.pid: child for child in self._process.children(recursive=True)}
        except psutil.Error:
            found = {}
        kept = {pid: self._workers.get(pid, child) for pid, child in found.items()}
        self._workers = {pid: one if one == found[pid] else found[pid] for pid, one in kept.items()}  # pids come again
        return list(self._workers.values())


def _moved(process: psutil.Process) -> tuple[float, float] | None:
    """(MB read, MB written) by a process, None where the system does not say (macOS, another account's)."""
    try:
        counted = process.io_counters()
    except (psutil.Error, AttributeError, NotImplementedError):
        return None
    return counted.read_bytes / MB, counted.write_bytes / MB
