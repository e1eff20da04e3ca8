"""The benchmarks in small, as a check: ends with 1 when a ratio falls below half its target, when peak memory misses
its own, when memory grows over ten files, or when a backend does not say what eager float32 says.

    python -m bench.gate [--rounds 3]

Half, because machines are shared and rounds are few: what fails here has broken, what passes has not been measured
well. Memory and answers do not depend on the neighbours, so their bounds are whole. Where ViT-B/16 has to be run in
float32, as the original runs it, the bounds of its rows are lower. The full versions are
`bench.original`, `bench.limits`, `bench.scaling` and `bench.agreement`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acoustic.errors import BackendError
from acoustic.network.backends.openvino import has_bfloat16
from acoustic.network.registry import EMBEDDED_MODEL
from acoustic.settings import Settings, prepare_process

from . import agreement, limits, original, scaling
from .agreement import Agreement
from .made_model import write_vit_b16
from .report import ONE, THREE, Report, tables
from .scaling import Scale
from .songs import write_pieces

LEAST = 0.5
"""of a target that depends on how fast the machine is at this moment"""
LEAST_IN_FLOAT32 = 0.3
"""the same of a row whose network is the original's, where no processor unit makes another precision faster: there the
network is nearly all of either's time"""
LEAST_MEMORY_IN_FLOAT32 = 0.5
"""of memory's target there, so that it is at most what the original takes: the weights alone are a third of that, and
OpenVINO packs what it maps"""
N_LIMITED = 12
N_FILES, N_WORKERS = (1, 10), (1, 2)
MOST_GROWN_MB = 32.0
"""Over ten files: what two of them decoded whole would take, and far above the allocator's own ups and downs."""
N_PIECES, PIECE_S = 100, 11.0
"""so many that one near tie may fall the other way"""


@dataclass(frozen=True, slots=True)
class Check:
    """`reached` is what was measured as a share of its target; below `least` it fails."""

    what: str
    reached: float
    least: float = LEAST

    @property
    def passed(self) -> bool:
        return self.reached >= self.least  # a NaN fails

    def line(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'}  {self.reached:7.2f} of its target: {self.what}"


def checks_of(report: Report) -> list[Check]:
    """Every row of the contest that has a target: half of it for times, all of it for memory, less in float32."""
    checks = []
    for row in report.times:
        if row.reached is not None:
            least = LEAST_IN_FLOAT32 if _is_like_the_original(report, row.who) else LEAST
            checks.append(Check(f"{row.case}: {row.who}", row.reached, least))
    for peak in report.memory:
        if peak.reached is not None:
            least = LEAST_MEMORY_IN_FLOAT32 if _is_like_the_original(report, peak.who) else 1.0
            checks.append(Check(f"peak memory: {peak.who}", peak.reached, least))
    return checks


def _is_like_the_original(report: Report, who: str) -> bool:
    """Whether `who` runs the original's network in the original's precision, because nothing else is faster there."""
    backend = report.backends.get(who, {})
    has_better = report.machine.amx or has_bfloat16()
    return who in (ONE, THREE) and not has_better and backend.get("precision") == "float32"


def growth_checks(scales: Iterable[Scale]) -> list[Check]:
    """Every run that is long enough for its memory's growth to be told."""
    return [
        Check(
            f"{one.what}, {one.n_files} files, {one.n_workers} decode workers: memory grew by {one.grown_mb:+.0f} MB",
            _of_bound(one.grown_mb, MOST_GROWN_MB),
            1.0,
        )
        for one in scales
        if one.n_files >= scaling.MIN_FILES
    ]


def agreement_checks(way: str, found: Agreement | BackendError) -> list[Check]:
    """The three demands on one way to run the network, or that it could not be made."""
    if isinstance(found, BackendError):
        return [Check(f"agreement of {way}: {found.message}", 0.0, 1.0)]
    failed = f", first {found.failed[0]}" if found.failed else ""
    return [
        Check(f"agreement of {way}: {len(found.failed)} songs without an answer{failed}", float(not found.failed), 1.0),
        Check(f"agreement of {way}: same genre {found.same:.3f}", found.same / agreement.MIN_SAME, 1.0),
        Check(
            f"agreement of {way}: probabilities differ by {found.most_apart:.4f}",
            _of_bound(found.most_apart, agreement.MAX_APART),
            1.0,
        ),
    ]


def _of_bound(measured: float, most: float) -> float:
    """1 at the bound, more below it (100 at most), less above it; NaN for NaN."""
    return most / max(measured, most / 100)


def agree(folder: Path) -> list[Check]:
    """The embedded model on made pieces, through those CPU backends that are ready in seconds."""
    settings = Settings.load(model=EMBEDDED_MODEL, device="cpu", data_dir=str(folder), cache_dir=str(folder / "cache"))
    prepare_process(settings)
    pieces = write_pieces(folder / "pieces", N_PIECES, PIECE_S)
    exact = agreement.heard(settings, *agreement.EXACT, pieces)
    checks = []
    for precision in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        found: Agreement | BackendError
        try:
            found = agreement.compare(exact, agreement.heard(settings, "openvino", precision, pieces))
        except BackendError as error:
            found = error
        checks += agreement_checks(f"OpenVINO {precision}", found)
    return checks


def outcome(checks: Iterable[Check]) -> int:
    """Exit status: 0 if all passed and there was at least one."""
    passed = [check.passed for check in checks]
    return 0 if passed and all(passed) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        folder = Path(name)
        made = write_vit_b16(folder, Settings.load().n_threads())
        plan = original.Plan(rounds=rounds)
        songs = original.write_all(folder, plan)
        report = original.measure(folder, songs, plan, made)
        share = limits.measure(folder, rounds, made)
        scales = list(scaling.shipped(folder, songs, N_FILES, N_WORKERS))
        scale = scaling.limited(folder, made, N_LIMITED)
        agreed = agree(folder)
    print(tables(report), limits.table(share), _table([*scales, scale]), sep="\n\n", end="\n\n")
    checks = checks_of(report) + growth_checks([*scales, scale]) + agreed
    checks.append(Check(f"share of the matrix rate, {limits.BATCH_SIZES[-1]} segments", share.reached))
    checks.append(Check("lane busy where inference is the limit", scale.lane_busy / scaling.MIN_BUSY))
    for check in checks:
        print(check.line())
    return outcome(checks)


def _table(scales: Sequence[Scale]) -> str:
    return "\n".join([scaling.HEAD, *map(scaling.line, scales)])


if __name__ == "__main__":
    sys.exit(main())
