"""How near inference comes to what this machine can multiply at all.

    python -m bench.limits [--rounds 15] [--json FILE]

ViT-B/16 (random weights, 224 x 224) through the backend that is chosen here, at 1, 3 and 8 segments, takes turns with
matrix products that do nothing else, in float32, bfloat16 and int8. A share is the network's rate by that of the best
matrix products of any precision, and beside it by that of the best in floating point, which an int8 network may exceed;
its operations are counted by formula (`bench.flops`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acoustic.network.backends import Backend
from acoustic.settings import Settings

from .flops import flops
from .machine import Machine, this_machine
from .made_model import SIDE, Made, write_vit_b16
from .matrices import Matrices, rivals
from .ours import chosen, ready_classifier
from .timing import Spread, in_turns

BATCH_SIZES = (1, 3, 8)
MIN_SHARE = 0.65
"""The target at BATCH_SIZES[-1]."""
TERA, MS = 1e12, 1e-3


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one work, in 10^12 operations a second: `rounds` in their order, `tflops` over them."""

    name: str
    precision: str
    ms: Spread
    tflops: Spread
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A batch size's rate by the best of the matrix products, round by round: of all (`share`), and of those in
    floating point."""

    n_segments: int
    rate: Rate
    share: Spread
    of_float: Spread


@dataclass(frozen=True, slots=True)
class Limits:
    machine: Machine
    rounds: int
    gflop_a_segment: float
    matrices: tuple[Rate, ...]
    inference: tuple[Share, ...]

    @property
    def reached(self) -> float:
        """The share at the largest batch, as a share of its target."""
        return self.inference[-1].share.median / MIN_SHARE


def rate_of(name: str, precision: str, n_flops: float, ms: Sequence[float]) -> Rate:
    rates = tuple(n_flops / (one * MS) / TERA for one in ms)
    return Rate(name, precision, Spread.of(ms), Spread.of(rates), rates)


def shares(matrices: Sequence[Rate], inference: Mapping[int, Rate]) -> tuple[Share, ...]:
    """Of the inference rates by batch size; all were taken in the same rounds."""
    best = _best_of(matrices)
    best_float = _best_of([one for one in matrices if one.precision != "int8"])
    return tuple(
        Share(
            n, rate, *(Spread.of([a / b for a, b in zip(rate.rounds, top, strict=True)]) for top in (best, best_float))
        )
        for n, rate in inference.items()
    )


def _best_of(matrices: Sequence[Rate]) -> list[float]:
    """The highest rate of each round."""
    return [max(rates) for rates in zip(*(one.rounds for one in matrices), strict=True)]


def measure(folder: Path, rounds: int, made: Made) -> Limits:
    """Takes a minute or two."""
    from acoustic.network.backends.measuring import probe

    machine = this_machine()
    with ready_classifier(made.folder, folder) as classifier:
        shape, backend = classifier.card.architecture, classifier.backend
        segment_flops, n_tokens = flops(shape), shape.n_patches + 1
        matrices = {
            f"{one.name} {one.precision}": one
            for one in rivals(BATCH_SIZES[-1] * n_tokens, classifier.settings.n_threads())
        }
        works: dict[str, Callable[[None], object]] = {name: _alone(one) for name, one in matrices.items()}
        for n in BATCH_SIZES:
            works[f"inference {n}"] = _asking(backend, probe(SIDE, n))
        for work in works.values():
            work(None)
        times = in_turns(works, [None], rounds)
        how = chosen(classifier)
    products = tuple(rate_of(one.name, one.precision, one.n_flops, times[name]) for name, one in matrices.items())
    inference = {
        n: rate_of(f"ViT-B/16, {n} segments", how, n * segment_flops, times[f"inference {n}"]) for n in BATCH_SIZES
    }
    return Limits(machine, rounds, segment_flops / 1e9, products, shares(products, inference))


def _alone(one: Matrices) -> Callable[[None], object]:
    return lambda _: one.work()


def _asking(backend: Backend, mels: np.ndarray) -> Callable[[None], object]:
    return lambda _: backend(mels)


def table(limits: Limits) -> str:
    lines = [
        f"{limits.machine.sentence()}; {limits.rounds} rounds; median (quartiles)",
        f"one segment: {limits.gflop_a_segment:.1f} GFLOP",
        "",
        "| | precision | ms | TFLOP/s | best TFLOP/s | share of the best products | of the best float ones | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rate in limits.matrices:
        lines.append(_line(rate) + " | | |")
    for one in limits.inference:
        last = one is limits.inference[-1]
        target = f"{MIN_SHARE}: {'reached' if limits.reached >= 1 else 'missed'}" if last else ""
        lines.append(_line(one.rate) + f" {one.share.shown(2)} | {one.of_float.shown(2)} | {target} |")
    return "\n".join(lines)


def _line(rate: Rate) -> str:
    return f"| {rate.name} | {rate.precision} | {rate.ms.shown()} | {rate.tflops.shown(2)} | {max(rate.rounds):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        made = write_vit_b16(Path(name), Settings.load().n_threads())
        limits = measure(Path(name), args.rounds, made)
    print(table(limits))
    if args.json:
        args.json.write_text(json.dumps(dataclasses.asdict(limits), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
