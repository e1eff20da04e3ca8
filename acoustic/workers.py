"""Functions that run in processes of their own, because what they read may kill or stall the process that reads it.

    with Workers({"hear": "acoustic.decoding:hear_remotely"}, context, n=2, timeout_s=120, memory_mb=4096) as workers:
        entry = workers.ask("hear", path)          # from any thread

A function is named by import path and called as `function(path, context)`; it returns a CacheEntry or raises an
AcousticError, which is raised again in the caller. A worker takes one file at a time. One that dies, takes too long or
too much memory is replaced, and its file is tried once more in a fresh process, which has nothing else in it; a file
that loses two is a PoisonError.

A worker is started anew from the interpreter, never forked: a copy of a process with threads may hold locks for ever.
It speaks frames over its stdin and stdout: a JSON head and raw arrays, nothing that could run as code here. It ends
when its stdin does, so also if the process that started it is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any

import numpy as np

from .errors import AcousticError, BackendError, InternalError, PoisonError, StoppedError
from .records import CacheEntry, printable
from .settings import worker_environment

MB = 1 << 20
START_S = 120.0
"""longest that a worker may take to be ready: it may have to load torch from a slow disk"""
MAX_FRAME_BYTES = 1 << 30
OUT_OF_MEMORY = 71
"""exit status of a worker whose memory did not suffice"""
_LENGTHS = struct.Struct("<II")
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from acoustic.workers import serve; serve()"


class _LostError(Exception):
    """The worker is gone; the message says how."""


class Workers:
    """Up to `n` worker processes, each started when it is first needed. Safe to use from several threads.

    `functions` maps names to "module:function"; `context` is JSON and handed to each call; `prepare` names a function
    that a worker calls once with the context, before its limits hold.
    """

    def __init__(
        self,
        functions: Mapping[str, str],
        context: Mapping[str, Any],
        *,
        n: int,
        timeout_s: float,
        memory_mb: float,
        prepare: str = "",
    ) -> None:
        self._setup = {
            "functions": dict(functions),
            "context": dict(context),
            "prepare": prepare,
            "timeout_s": timeout_s,
            "memory_mb": memory_mb,
        }
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(n):
            self._places.put(None)
        self._lock = threading.Lock()
        self._alive: set[_Worker] = set()
        self._stopped = False
        self.n_lost = 0
        """how many workers died, or were ended because of their limits"""

    def start(self) -> None:
        """Start one worker and wait until it is ready. BackendError if it cannot be started."""
        place = self._places.get()
        try:
            place = place or self._start()
        finally:
            self._places.put(place)

    def ask(self, name: str, path: str) -> CacheEntry:
        """What the function `name` says of `path`; waits for a free worker. Raises what it raises, PoisonError for a
        file that lost two workers, StoppedError once `stop` was called."""
        place = self._places.get()
        try:
            for attempt in (1, 2):
                worker = place if place is not None and attempt == 1 else self._start()
                place = worker
                try:
                    return worker.ask(name, path, self._timeout_s)
                except _LostError as lost:
                    place = None
                    self._forget(worker)
                    reason = str(lost)
            raise PoisonError(f"{printable(os.path.basename(path))} was tried twice: its reader {reason}")
        finally:
            self._places.put(place)

    def stop(self) -> None:
        """End all workers at once; who waits for one gets a StoppedError. May be called twice."""
        with self._lock:
            self._stopped = True
            alive = list(self._alive)
        for worker in alive:
            worker.end()
            worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> _Worker:
        self._refuse_if_stopped()
        try:
            worker = _Worker(self._memory_mb)
        except OSError as error:  # no memory for a fork, too many processes or open files
            raise _not_started(error.strerror or str(error)) from None
        with self._lock:
            self._alive.add(worker)
            stopped = self._stopped
        try:
            if stopped:
                raise _LostError("was stopped")
            worker.set_up(self._setup)
        except _LostError as lost:
            self._forget(worker)
            raise _not_started(f"it {lost}") from None
        return worker

    def _forget(self, worker: _Worker) -> None:
        worker.end()
        worker.close()
        with self._lock:
            self._alive.discard(worker)
            self.n_lost += not self._stopped
        self._refuse_if_stopped()

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise StoppedError("the scan was stopped before this file was read")


def _not_started(why: str) -> BackendError:
    return BackendError(
        f"the process that decodes cannot be started: {why}",
        "Close other programs, or lower `decode_workers`; `acoustic doctor` looks further.",
    )


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self, memory_mb: float) -> None:
        self._memory_mb = memory_mb
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps([entry or os.getcwd() for entry in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            start_new_session=True,  # Ctrl-C in a terminal is for the scan, which ends its workers
        )

    def set_up(self, setup: Mapping[str, Any]) -> None:
        """Wait until it is ready. _LostError if it dies on the way; what the worker itself says is raised."""
        self._talk(setup, START_S)

    def ask(self, name: str, path: str, timeout_s: float) -> CacheEntry:
        return self._talk({"name": name, "path": path}, timeout_s)

    def end(self) -> None:
        """Kill it, and wait until it is gone. From any thread, as often as one likes."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of the pipes to a worker that has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _talk(self, request: Mapping[str, Any], timeout_s: float) -> CacheEntry:
        assert self._process.stdin is not None  # both are pipes, see above
        assert self._process.stdout is not None
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            _write_frame(self._process.stdin, request)
            answer = _understood(*_read_frame(self._process.stdout))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self.end()
            raise _LostError(f"took longer than {timeout_s:g} s" if too_late.is_set() else self._how(error)) from None
        finally:
            timer.cancel()
        if isinstance(answer, AcousticError):
            raise answer
        return answer

    def _how(self, error: Exception) -> str:
        """How the process ended."""
        status = self._process.returncode
        if status == OUT_OF_MEMORY:
            return f"needed more than {self._memory_mb:g} MB of memory"
        if not isinstance(error, (OSError, EOFError)):
            return f"answered nonsense ({error})"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"


# --- frames ---


def _write_frame(pipe: IO[bytes], head: Mapping[str, Any], body: bytes = b"") -> None:
    text = json.dumps(head, allow_nan=True).encode("ascii")  # names that are not UTF-8 go as escaped surrogates
    pipe.write(_LENGTHS.pack(len(text), len(body)) + text + body)
    pipe.flush()


def _read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """(head, body). EOFError where the other side is gone, ValueError for what is no frame."""
    n_head, n_body = _LENGTHS.unpack(_read_exactly(pipe, _LENGTHS.size))
    if n_head + n_body > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {n_head + n_body} bytes")
    head = json.loads(_read_exactly(pipe, n_head))
    if not isinstance(head, dict):
        raise ValueError("a head that is no object")
    return head, _read_exactly(pipe, n_body)


def _read_exactly(pipe: IO[bytes], n: int) -> bytes:
    data = pipe.read(n)
    if data is None or len(data) < n:
        raise EOFError
    return data


def _understood(head: Mapping[str, Any], body: bytes) -> CacheEntry | AcousticError:
    """What an answer says; ValueError, KeyError or TypeError for nonsense."""
    return _error(head["error"]) if "error" in head else CacheEntry(_arrays(head["arrays"], body), head["meta"])


def _arrays(listed: list[list[Any]], body: bytes) -> dict[str, np.ndarray]:
    arrays, at = {}, 0
    for name, dtype, shape in listed:
        array = np.frombuffer(body, np.dtype(dtype), count=int(np.prod(shape)), offset=at).reshape(shape)
        arrays[name] = array
        at += array.nbytes
    return arrays


def _error(told: Mapping[str, str]) -> AcousticError:
    """The error that a worker told of, as its own class."""
    classes: list[type[AcousticError]] = [AcousticError]
    for found in classes:
        classes += found.__subclasses__()
    kind = next((c for c in classes if c.code == told["code"]), InternalError)
    return kind(told["message"], told["hint"])


# --- in the worker ---


def serve() -> None:
    """Answer what comes over stdin until it ends. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not stand between the frames
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    setup = requests.get()
    context, functions = setup["context"], setup["functions"]
    found: dict[str, Callable[[str, Mapping[str, Any]], CacheEntry]] = {}

    def make_ready() -> CacheEntry:
        found.update({name: _found(where) for name, where in functions.items()})
        if setup["prepare"]:
            _found(setup["prepare"])(context)
        _limit_memory(setup["memory_mb"])
        return CacheEntry({})

    _answer(answers, make_ready)
    while True:
        request = requests.get()
        function = found[request["name"]]
        if hasattr(signal, "alarm"):  # ends the process even where a decoder never comes back to Python
            signal.alarm(int(setup["timeout_s"]) + 5)
        _answer(answers, partial(function, request["path"], context))
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _listen(pipe: io.BufferedReader, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    with contextlib.suppress(Exception):
        while True:
            requests.put(_read_frame(pipe)[0])
    os._exit(0)  # nobody is there any more, whatever is being read


def _found(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _answer(pipe: IO[bytes], function: Callable[[], CacheEntry]) -> None:
    try:
        entry = function()
        listed = [(name, np.ascontiguousarray(array)) for name, array in entry.arrays.items()]
        head = {"arrays": [[name, a.dtype.str, list(a.shape)] for name, a in listed], "meta": dict(entry.meta)}
        body = b"".join(a.tobytes() for _, a in listed)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except AcousticError as error:
        head, body = {"error": error.to_dict()}, b""
    except Exception as error:  # our own fault: the caller is told, and the next file gets its chance
        head, body = {"error": InternalError(f"{type(error).__name__}: {error}").to_dict()}, b""
    _write_frame(pipe, head, body)


def _limit_memory(memory_mb: float) -> None:
    """From now on at most `memory_mb` beyond what the process has, where the system can limit it; no core dumps."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm", encoding="ascii") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        limit = used + int(memory_mb * MB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
