"""The network through torch.compile, made ready in the background while the eager path answers.

A compiled graph is for one batch size, so there are a few fixed ones: a batch is padded up to the next, a larger one is
cut. A size is used once it is compiled, its answers equal the eager ones, and it is not slower than they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BackendError
from ...records import Votes
from ..vit import Answers
from .contract import checked, joined
from .eager import EagerBackend, run
from .measuring import MIN_COSINE, best_ms, cosine, probe

BATCH_SIZES = (1, 3, 8)  # one segment; a short track's; the engine's usual batch
CLOSE_S = 1.0  # the wait of `close` for a warm-up that is about to end

Compile = Callable[..., Callable[[Tensor], Answers]]


class CompiledBackend:
    """A Backend around an EagerBackend. `compile` is torch.compile; tests hand in others."""

    name = "compiled"

    def __init__(
        self, eager: EagerBackend, batch_sizes: Sequence[int] = BATCH_SIZES, compile: Compile = torch.compile
    ) -> None:
        self._eager = eager
        self._sizes = tuple(sorted(batch_sizes))
        self._compile = compile
        self._graph: Callable[[Tensor], Answers] | None = None
        self._states = dict.fromkeys(self._sizes, "waiting")
        self._numbers: dict[int, dict[str, float]] = {}
        self._n_calls = dict.fromkeys(self._sizes, 0)
        self._error = ""
        self._stop = threading.Event()
        self._warm_up = threading.Thread(target=self._warm_up_all, name="torch-compile", daemon=True)
        self._warm_up.start()

    @property
    def device(self) -> str:
        return self._eager.device

    @property
    def precision(self) -> str:
        return self._eager.precision

    def __call__(self, mels: np.ndarray) -> Votes:
        mels = checked(mels, self._eager.n_mels)
        step = self._sizes[-1]
        if len(mels) <= step:
            return self._answer(mels)
        return joined([self._answer(mels[start : start + step]) for start in range(0, len(mels), step)])

    def _answer(self, mels: np.ndarray) -> Votes:
        """At most the largest size: by the compiled graph if its size is ready, else by the eager backend, which halves
        a batch that does not fit."""
        n = len(mels)
        if n == 0:
            return self._eager(mels)
        size = next(size for size in self._sizes if size >= n)
        self._n_calls[size] += 1
        if self._graph is None or self._states[size] != "ready":
            return self._eager(mels)
        try:
            votes = self._run_padded(self._eager.as_input(mels), size)
            return Votes(votes.logits[:n], votes.tag_logits[:n], votes.embeddings[:n])
        except (BackendError, RuntimeError) as error:  # padding takes memory, too
            problem = _said(error)
        votes = self._eager(mels)  # outside, where the error holds no tensors; raises where the fault lies in the mels
        self._states[size], self._error = "failed", problem
        return votes

    def _run_padded(self, mels: Tensor, size: int) -> Votes:
        assert self._graph is not None
        padding = mels.new_zeros(size - len(mels), *mels.shape[1:])
        return run(self._graph, torch.cat([mels, padding]), self.precision)

    def _warm_up_all(self) -> None:
        size = 0
        try:
            # freezing packs the weights for the processor once, instead of at every call
            options = {"options": {"freezing": True}} if self.device == "cpu" else {}
            self._graph = self._compile(self._eager.network, dynamic=False, **options)
            for size in self._sizes:
                if self._stop.is_set():
                    return
                self._states[size] = "compiling"
                self._states[size] = self._warm_up_one(size)
        except Exception as error:  # torch.compile fails in its own ways (no C++ compiler, ...); the eager path goes on
            self._error = _said(error)
            self._states.update({s: "failed" for s in self._sizes if s >= size})

    def _warm_up_one(self, size: int) -> str:
        """Compile for `size`, then compare with the eager path: "ready", "slower" or "differs"."""
        mels = probe(self._eager.n_mels)
        mels = np.resize(mels, (size, *mels.shape[1:]))
        tensor = self._eager.as_input(mels)
        start = time.perf_counter()
        found = self._run_padded(tensor, size)
        compile_ms = 1e3 * (time.perf_counter() - start)
        expected = self._eager(mels)
        similarity = cosine(expected.logits, found.logits)
        eager_ms = best_ms(self._eager, mels)
        compiled_ms = best_ms(lambda _: self._run_padded(tensor, size), mels)
        self._numbers[size] = {
            "first_ms": round(compile_ms, 1),
            "eager_ms": round(eager_ms, 2),
            "compiled_ms": round(compiled_ms, 2),
            "cosine": round(similarity, 6),
        }
        if similarity < MIN_COSINE:
            return "differs"
        return "ready" if compiled_ms <= eager_ms else "slower"

    def describe(self) -> dict[str, Any]:
        """The eager description, `state` "compiling" while the warm-up runs, and under "compiled" what became of each
        batch size: `state` (waiting, compiling, ready, slower, differs, failed), the measured times, and how many calls
        were of that size, whoever answered."""
        sizes = {
            str(size): {"state": self._states[size], "n_calls": self._n_calls[size], **self._numbers.get(size, {})}
            for size in self._sizes
        }
        return {
            **self._eager.describe(),
            "name": self.name,
            "state": "ready" if self.wait(0) else "compiling",
            "compiled": {"sizes": sizes, "error": self._error or None},
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the warm-up is over; whether it is."""
        self._warm_up.join(timeout_s)
        return not self._warm_up.is_alive()

    def close(self) -> None:
        """Let the warm-up end with the size at hand. It cannot be interrupted and may take a minute, so it is not
        waited for: its thread is a daemon, and the process may end.
        """
        self._stop.set()
        self._warm_up.join(CLOSE_S)


def _said(error: Exception) -> str:
    if isinstance(error, BackendError):
        return error.message
    cause = str(error).strip().splitlines()
    return f"{type(error).__name__}: {cause[0] if cause else ''}"
