"""What fails the gate: memory that grows, backends that do not agree, and one that cannot be made."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from acoustic.errors import BackendError
from bench import gate
from bench.agreement import Agreement
from bench.scaling import Scale

AGREED = Agreement(100, 0.99, (0.001, 0.02), 1.0, ())


def scale(n_files: int, grown_mb: float) -> Scale:
    return Scale("as it ships", "openvino bfloat16", 2, n_files, 1.0, 0.5, 600.0, grown_mb)


@pytest.mark.parametrize(
    ("grown_mb", "passed"), [(-20.0, True), (0.0, True), (31.9, True), (32.1, False), (math.nan, False)]
)
def test_memory_may_not_grow_over_its_bound(grown_mb: float, passed: bool) -> None:
    (check,) = gate.growth_checks([scale(1, 0.0), scale(10, grown_mb)])
    assert check.passed is passed
    assert gate.outcome([check]) == (0 if passed else 1)
    assert "as it ships, 10 files, 2 decode workers: memory grew by" in check.line()


def test_agreement_passes_at_its_bounds() -> None:
    checks = gate.agreement_checks("a way", AGREED)
    assert [check.passed for check in checks] == [True, True, True]
    assert all("a way" in check.what for check in checks)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Agreement(100, 0.98, (0.001,), 1.0, ()), "same genre 0.980"),
        (Agreement(100, 1.0, (0.001, 0.0201), 1.0, ()), "probabilities differ by 0.0201"),
        (Agreement(99, 1.0, (0.001,), 1.0, ("lost.wav: not finite",)), "1 songs without an answer, first lost.wav"),
        (Agreement(0, math.nan, (), math.nan, ()), "same genre nan"),
        (BackendError("cannot be converted"), "cannot be converted"),
    ],
)
def test_a_way_that_does_not_agree_fails_the_gate(found: Agreement | BackendError, says: str) -> None:
    checks = gate.agreement_checks("a way", found)
    assert gate.outcome(checks) == 1
    assert any(says in check.line() for check in checks if not check.passed)


def test_the_backends_of_this_machine_agree_on_a_few_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(gate, "N_PIECES", 3)
    checks = gate.agree(tmp_path)
    assert {check.what.split(":")[0] for check in checks} >= {"agreement of OpenVINO float32"}
    assert gate.outcome(checks) == 0
