"""ViT-B/16 on an NVIDIA card: ms a segment, memory, and the share of what the card can multiply.

    python -m bench.gpu [--batches 1 8 64 256] [--seconds 2] [--json FILE]

The house's own backends, from mels in host memory to votes in host memory: eager float32, eager float16, compiled
float16, CUDA graphs float16. The card's matrix rate is measured beside them, by square products of the same precision.
Without a card it says so and ends with status 0.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acoustic.errors import BackendError
from acoustic.network.architecture import Architecture
from acoustic.network.backends import Backend
from acoustic.network.backends.measuring import N_RUNS, probe
from acoustic.network.registry import Registry
from acoustic.network.vit import MelViT

from .flops import flops
from .machine import MB
from .made_model import SIDE, write_vit_b16
from .timing import Spread, elapsed_ms

BATCHES = (1, 8, 64, 256)
SQUARE = 8_192
N_WARM, MIN_RUNS = 3, 5
COMPILE_S = 600.0
"""longest wait for torch.compile with one batch size"""


@dataclass(frozen=True, slots=True)
class Row:
    """`ms` is a segment's; `memory_mb` the most that torch held on the card; None and a `problem` where it failed. A
    `problem` beside numbers says why the house would not use what was measured."""

    how: str
    precision: str
    n_segments: int
    ms: Spread | None
    memory_mb: float | None
    share: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """`tflops` is the card's measured matrix rate by precision, in 10^12 operations a second."""

    card: str
    torch: str
    tflops: dict[str, float]
    rows: tuple[Row, ...]


def missing() -> str:
    """Why there is nothing to measure, in one sentence; empty where there is a card."""
    if torch.cuda.is_available():
        return ""
    return f"There is no CUDA device that torch {torch.__version__} can use, so nothing was measured on a GPU."


def measure(folder: Path, batches: tuple[int, ...], seconds: float) -> Report:
    model = write_vit_b16(folder, 1, int8=False).folder
    network, _ = Registry([model.parent]).load(model)
    rates = {precision: matrix_tflops(getattr(torch, precision), seconds) for precision in ("float32", "float16")}
    rows = []
    for how, precision, make in ways(network):
        for n in batches:
            rows.append(row_of(how, precision, n, make, seconds, network.architecture, rates[precision]))
            gc.collect()
            torch.cuda.empty_cache()
    return Report(torch.cuda.get_device_name(), torch.__version__, rates, tuple(rows))


def ways(network: MelViT) -> list[tuple[str, str, Callable[[int], Backend]]]:
    """(name, precision, the backend for batches of n) of every way that is compared."""
    from acoustic.network.backends.compiled import CompiledBackend
    from acoustic.network.backends.eager import EagerBackend
    from acoustic.network.backends.graphs import GraphBackend

    def compiled(n: int) -> Backend:
        return CompiledBackend(EagerBackend(network, "cuda", "float16"), batch_sizes=(n,))

    return [
        ("eager", "float32", lambda n: EagerBackend(copy.deepcopy(network), "cuda", "float32")),  # ours stays here
        ("eager", "float16", lambda n: EagerBackend(network, "cuda", "float16")),
        ("compiled", "float16", compiled),
        ("graphs", "float16", lambda n: GraphBackend(EagerBackend(network, "cuda", "float16"), batch_sizes=(n,))),
    ]


def row_of(
    how: str,
    precision: str,
    n: int,
    make: Callable[[int], Backend],
    seconds: float,
    shape: Architecture,
    tflops: float,
) -> Row:
    """A way with one batch size, for `seconds`; a failure is a row that says so, and the others go on."""
    torch.cuda.reset_peak_memory_stats()
    try:
        backend = make(n)
        try:
            if not backend.wait(COMPILE_S):
                raise BackendError(f"{how} was not ready for {n} segments after {COMPILE_S:.0f} s")
            mels = probe(SIDE, n)
            slower = slower_than_eager(backend.describe(), n)
            times = [slower.ms] if slower else repeated(lambda: backend(mels), seconds)
            if problem := failure_of(backend.describe(), n):
                raise BackendError(problem)
        finally:
            backend.close()
    except (BackendError, RuntimeError) as error:  # torch's out-of-memory error is a RuntimeError
        return Row(how, precision, n, None, None, None, (str(error) or type(error).__name__).splitlines()[0])
    ms = Spread.of([one / n for one in times])
    memory_mb = torch.cuda.max_memory_allocated() / MB
    problem = slower.told(n) if slower else ""
    return Row(how, precision, n, ms, memory_mb, share_of(ms.median, shape, tflops), problem)


@dataclass(frozen=True, slots=True)
class Slower:
    """What a backend measured of a compiled size that eager beats, in ms a call: eager answers in its place, so a clock
    around the backend would tell of eager."""

    ms: float
    eager_ms: float

    def told(self, n: int) -> str:
        return f"slower than eager's {self.eager_ms / n:.3f}, so eager answers; the best of {N_RUNS} calls each"


def slower_than_eager(told: Mapping[str, Any], n: int) -> Slower | None:
    """From a backend's description; None where `n` segments were not compiled, or are faster so."""
    one = told.get("compiled", {}).get("sizes", {}).get(str(n), {})
    return Slower(one["compiled_ms"], one["eager_ms"]) if one.get("state") == "slower" else None


def failure_of(told: Mapping[str, Any], n: int) -> str:
    """Why eager has answered in a backend's place, from the description after its calls; empty where it did not, or
    was the faster one."""
    if error := told.get("graphs", {}).get("error"):
        return str(error)
    compiled = told.get("compiled", {})
    state = compiled.get("sizes", {}).get(str(n), {}).get("state", "ready")
    if state in ("ready", "slower"):
        return ""
    return f"torch.compile with {n} segments: {state}" + (f": {compiled['error']}" if compiled.get("error") else "")


def share_of(ms: float, shape: Architecture, tflops: float) -> float:
    """Of a matrix rate of `tflops`, what a segment in `ms` milliseconds comes to."""
    return flops(shape) / (ms * 1e-3) / (tflops * 1e12)


def repeated(work: Callable[[], object], seconds: float) -> list[float]:
    """ms of each call, after a few to warm up. `work` ends with its answer on the host, so the card is done by then."""
    for _ in range(N_WARM):
        work()
    times: list[float] = []
    while len(times) < MIN_RUNS or sum(times) < seconds * 1e3:
        times.append(elapsed_ms(work))
    return times


def matrix_tflops(dtype: torch.dtype, seconds: float) -> float:
    """The card's best rate of a square product; float32 without TF32 unless the process allows it."""
    a, b = (torch.randn(SQUARE, SQUARE, device="cuda").to(dtype) for _ in range(2))

    def work() -> None:
        torch.mm(a, b)
        torch.cuda.synchronize()

    return 2 * SQUARE**3 / (min(repeated(work, seconds)) * 1e-3) / 1e12


def table(report: Report) -> str:
    rates = ", ".join(f"{precision} {rate:.1f}" for precision, rate in report.tflops.items())
    lines = [
        f"{report.card}, torch {report.torch}; measured matrix rate in TFLOP/s: {rates}",
        "",
        "| | precision | segments | ms a segment (quartiles) | MB on the card | share of the matrix rate | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        start = f"| {row.how} | {row.precision} | {row.n_segments} |"
        if row.ms is None:
            lines.append(f"{start} | | | {row.problem} |")
        else:
            lines.append(f"{start} {row.ms.shown(3)} | {row.memory_mb:,.0f} | {row.share:.2f} | {row.problem} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring for each row")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if (why := missing()) != "":
        print(why)
        return
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        report = measure(Path(name), tuple(args.batches), args.seconds)
    print(table(report))
    if args.json:
        args.json.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
