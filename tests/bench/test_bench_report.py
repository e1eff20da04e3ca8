"""Ratios, targets and tables of the contest, on times that are made up; the gate's verdict on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import gate
from bench import report as words
from bench.machine import Machine, has_amx, peak_rss_mb, this_machine
from bench.memory import Peak
from bench.report import Report, memory_rows, rows_of, tables
from bench.timing import Spread, ratio

AMX = Machine("a processor", 2, True, 0.5, "3.11", {"torch": "2"})
PLAIN, UNKNOWN = replace(AMX, amx=False), replace(AMX, amx=None)
TIMES = {words.ORIGINAL: [800.0, 1_000.0, 900.0, 1_100.0], words.ONE: [100.0, 100.0, 90.0, 110.0]}


def test_a_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([1_234.5]).shown() == "1,234.5 (1,234.5-1,234.5)"


def test_a_ratio_is_that_of_each_rounds_pair() -> None:
    """A round in which the machine is ten times slower for both sides changes nothing."""
    assert ratio([100, 1_000, 100], [10, 100, 10]) == Spread(10.0, 10.0, 10.0)


def test_amx_is_read_from_the_flags() -> None:
    assert has_amx("model name\t: X\nflags\t\t: fpu amx_bf16 amx_tile\n") is True
    assert has_amx("flags\t\t: fpu avx512_bf16 amx_bf16x\n") is False
    assert has_amx("Features\t: fp asimd\n") is None
    assert has_amx("") is None


def test_a_machine_without_cpuinfo_is_described_all_the_same(tmp_path: Path) -> None:
    found = this_machine(tmp_path / "none")
    assert found.amx is None
    assert found.n_cores >= 1
    assert "AMX unknown" in found.sentence()
    assert f"torch {found.packages['torch']}" in found.sentence()


def test_the_peak_of_memory_is_linuxs_own(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9999999 kB\nVmHWM:\t  524288 kB\n")
    assert peak_rss_mb(status) == 512.0


def test_the_peak_of_memory_grows_with_what_is_held() -> None:
    before = peak_rss_mb()
    held = np.ones(int(before) * 2**20 // 8 + 2**23)  # as much again, and 64 MB more
    assert peak_rss_mb() > before + 32
    assert held[-1] == 1


def test_rows_hold_ratios_by_input_and_the_machines_target() -> None:
    original, ours = rows_of(words.ONE_FILE, TIMES, ["mp3", "wav"], AMX, {})
    assert original.ratio == Spread(1.0, 1.0, 1.0)
    assert original.target is None
    assert original.reached is None
    assert ours.by_input == {"mp3": 9.0, "wav": 10.0}
    assert (ours.target, ours.reached) == (8.0, ours.ratio.median / 8)
    for machine in (PLAIN, UNKNOWN):
        assert rows_of(words.ONE_FILE, TIMES, ["mp3", "wav"], machine, {})[1].target == 5.0


def test_a_time_of_many_answers_is_divided() -> None:
    times = {words.ORIGINAL: [1_000.0], words.ONE_CACHED: [20.0]}
    _, cached = rows_of(words.ONE_FILE, times, ["mp3"], AMX, {words.ONE_CACHED: 20})
    assert (cached.ms.median, cached.ratio.median) == (1.0, 1_000.0)


def test_memory_is_a_share_of_the_originals() -> None:
    peaks = {words.ORIGINAL: Peak(700.0, 1_000.0), words.OPTIMISED: Peak(700.0, 900.0), words.ONE: Peak(300.0, 400.0)}
    original, optimised, ours = memory_rows(peaks)
    assert (original.most, optimised.most, ours.most) == (None, None, 0.5)
    assert (ours.share, ours.reached) == (0.4, 1.25)


@pytest.fixture
def report() -> Report:
    times = {**TIMES, words.SHIPPED: [50.0, 50.0, 50.0, 500.0], words.SHIPPED_KEPT: [40.0, 40.0, 40.0, 400.0]}
    rows = rows_of(words.ONE_FILE, times, ["mp3", "wav"], AMX, {})
    peaks = {words.ORIGINAL: Peak(700.0, 1_000.0), words.SHIPPED: Peak(300.0, 510.0)}
    backends = {words.ONE: {"name": "eager", "precision": "bfloat16"}}
    return Report(
        AMX, 2, "no int8: a reason", backends, {words.ONE: {"inference": 61.5, "total": 99.0}}, rows, memory_rows(peaks)
    )


def test_tables_say_what_was_reached_and_what_was_missed(report: Report) -> None:
    text = tables(report)
    assert "with AMX" in text
    assert "ViT-B/16, no int8: a reason" in text
    assert "| one file: ours, one segment | 100 (98-102) | 10.0 (9.5-10.0)x | 8x: reached | 9.0 / 10.0 |" in text
    shipped, unkept = (
        next(row for row in text.splitlines() if row.startswith(f"| one file: {who} |"))
        for who in (words.SHIPPED, words.SHIPPED_KEPT)
    )
    assert "| 12x: reached |" in shipped
    assert "12x" not in unkept, "what a person gets is judged, and the cache is on"
    assert "ours keeps nothing but in the row that says cached" in text
    assert "the cache on, and empty before each answer" in text
    assert "| ours, as it ships | 510 | 300 | 0.51 | at most 0.5: missed |" in text
    assert "| ours, one segment | eager bfloat16 | 61.5 | 99.0 |" in text


def test_the_json_holds_the_tables_numbers(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert said["machine"]["amx"] is True
    ours = next(row for row in said["times"] if row["who"] == words.ONE)
    assert ours["ratio"]["median"] == report.times[1].ratio.median
    assert said["memory"][1]["peak"]["peak_mb"] == 510.0


def test_the_gate_fails_below_half_a_target_of_time_and_below_all_of_memorys(report: Report) -> None:
    *times, peak = gate.checks_of(report)
    assert all(check.passed for check in times)
    assert not peak.passed  # 0.51 of the original's peak, where it may be 0.5
    within = memory_rows({words.ORIGINAL: Peak(700.0, 1_000.0), words.SHIPPED: Peak(300.0, 500.0)})
    checks = gate.checks_of(replace(report, memory=within))
    assert [check.what for check in checks] == [
        "one file: ours, one segment",
        "one file: ours, as it ships",
        "peak memory: ours, as it ships",
    ]
    assert all(check.passed for check in checks)
    assert gate.outcome(checks) == 0
    for low in (0.49, float("nan")):
        failed = gate.Check("something", low)
        assert gate.outcome([*checks, failed]) == 1
        assert failed.line().startswith("FAILED")


def test_the_gate_asks_less_only_where_the_originals_network_runs_as_the_original_runs_it(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {words.ORIGINAL: Peak(700.0, 1_000.0), words.ONE: Peak(300.0, 740.0), words.SHIPPED: Peak(300.0, 510.0)}

    def leasts(machine: Machine, precision: str) -> dict[str, float]:
        backends = {who: {"precision": precision} for who in (words.ONE, words.SHIPPED)}
        changed = replace(report, machine=machine, backends=backends, memory=memory_rows(peaks))
        return {check.what: check.least for check in gate.checks_of(changed)}

    whole = {
        "one file: ours, one segment": gate.LEAST,
        "one file: ours, as it ships": gate.LEAST,
        "peak memory: ours, one segment": 1.0,
        "peak memory: ours, as it ships": 1.0,
    }
    without = replace(AMX, amx=False)
    monkeypatch.setattr(gate, "has_bfloat16", lambda: True)
    assert leasts(without, "float32") == whole
    monkeypatch.setattr(gate, "has_bfloat16", lambda: False)
    assert leasts(AMX, "float32") == leasts(without, "int8") == whole
    assert leasts(without, "float32") == whole | {
        "one file: ours, one segment": gate.LEAST_IN_FLOAT32,
        "peak memory: ours, one segment": gate.LEAST_MEMORY_IN_FLOAT32,
    }


def test_a_gate_that_checked_nothing_fails() -> None:
    assert gate.outcome([]) == 1
