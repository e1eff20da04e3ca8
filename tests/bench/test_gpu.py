"""What is said of a card, with stand-ins for the card: this machine may have none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from acoustic.network.architecture import Architecture
from acoustic.network.backends import Backend
from acoustic.network.backends.compiled import CompiledBackend
from acoustic.network.backends.eager import EagerBackend
from acoustic.network.vit import MelViT
from bench import gpu
from bench.flops import flops
from bench.made_model import SIDE
from bench.timing import Spread

TINY = Architecture(width=32, depth=1, n_heads=2, n_mels=SIDE, n_classes=4)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MelViT:
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 512 * gpu.MB)
    torch.manual_seed(0)
    return MelViT(TINY).eval()


def compiled_row(network: MelViT, compile: Callable[..., Any], n: int = 2) -> gpu.Row:
    def make(n: int) -> Backend:
        return CompiledBackend(EagerBackend(network, "cpu"), batch_sizes=(n,), compile=compile)

    return gpu.row_of("compiled", "float32", n, make, 0.0, TINY, 1.0)


def test_a_compiled_size_that_is_slower_keeps_its_own_numbers(network: MelViT) -> None:
    """A call of the graph rests for 50 ms: eager's times, which are a few, must not stand in its row."""

    def compile(network: MelViT, **_: object) -> Callable[..., Any]:
        def graph(mels: torch.Tensor) -> Any:
            time.sleep(0.05)
            return network(mels)

        return graph

    row = compiled_row(network, compile)
    assert row.ms is not None
    assert row.ms.median >= 25.0
    assert row.memory_mb == 512.0
    assert row.share == gpu.share_of(row.ms.median, TINY, 1.0)
    assert row.problem.startswith("slower than eager's ")
    text = gpu.table(gpu.Report("a card", "2", {}, (row,)))
    assert f"| compiled | float32 | 2 | {row.ms.shown(3)} | 512 | {row.share:.2f} | slower than eager's" in text


def test_a_compiled_size_that_is_faster_is_timed_and_has_no_problem(
    network: MelViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acoustic.network.backends.compiled.best_ms", lambda *_: 1.0)
    row = compiled_row(network, lambda network, **_: network)
    assert (row.ms is not None, row.problem) == (True, "")


def test_a_compiled_graph_that_fails_after_its_warm_up_is_no_row_of_eager(
    network: MelViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call in the warm-up (its clock is a stand-in), then a few that succeed, then none."""
    monkeypatch.setattr("acoustic.network.backends.compiled.best_ms", lambda *_: 1.0)
    calls: list[int] = []

    def compile(network: MelViT, **_: object) -> Callable[..., Any]:
        def graph(mels: torch.Tensor) -> Any:
            calls.append(len(mels))
            if len(calls) > 3:
                raise RuntimeError("the card fell out")
            return network(mels)

        return graph

    row = compiled_row(network, compile)
    assert len(calls) == 4
    assert row.ms is None
    assert row.problem.startswith("torch.compile with 2 segments: failed: ")
    assert "the card fell out" in row.problem


def test_a_network_that_cannot_be_compiled_says_why(network: MelViT) -> None:
    def compile(network: MelViT, **_: object) -> Any:
        raise RuntimeError("no compiler\nand a long trace")

    row = compiled_row(network, compile)
    assert (row.ms, row.problem) == (None, "torch.compile with 2 segments: failed: RuntimeError: no compiler")


def test_graphs_that_eager_answered_for_are_a_problem() -> None:
    assert gpu.failure_of({"graphs": {"error": "no memory"}}, 8) == "no memory"
    assert gpu.failure_of({"graphs": {"error": None}}, 8) == ""
    assert gpu.failure_of({}, 8) == ""


def test_a_gpus_share_is_of_its_matrix_rate() -> None:
    shape = Architecture.named("ViT-B/16")
    ms = flops(shape) / 100e12 * 1e3  # a segment at 100 TFLOP/s
    assert gpu.share_of(ms, shape, 200.0) == pytest.approx(0.5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a card is told")
def test_without_a_card_it_says_so_and_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    gpu.main()
    said = capsys.readouterr().out.strip()
    assert said.startswith("There is no CUDA device")
    assert said.count("\n") == 0


def test_gpu_rows_tell_numbers_or_the_problem() -> None:
    good = gpu.Row("graphs", "float16", 8, Spread(0.25, 0.24, 0.26), 512.0, 0.5)
    bad = gpu.Row("eager", "float32", 256, None, None, None, "cuda has no memory left for 256 segments")
    text = gpu.table(gpu.Report("a card", "2", {"float16": 100.0}, (good, bad)))
    assert "| graphs | float16 | 8 | 0.250 (0.240-0.260) | 512 | 0.50 |" in text
    assert "| eager | float32 | 256 | | | | cuda has no memory left for 256 segments |" in text
