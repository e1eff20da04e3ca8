"""Matrix products alone: how fast this machine multiplies in each precision, which no network can exceed.

`rivals` gives works that multiply and nothing else, through the libraries that networks run on here: torch (oneDNN),
and OpenVINO on chains of products in the network's own shapes, where what comes out of one product goes into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from acoustic.network.backends.openvino import has_bfloat16

SQUARE = 2_048
CHAIN = (768, 3_072) * 6 + (768,)
"""widths along a chain: those of ViT-B/16's MLP, forth and back"""
LEVELS = 256
SPAN = 4.0
"""int8 covers this many standard deviations of what goes through a chain"""


@dataclass(frozen=True, slots=True)
class Matrices:
    """`work` costs `n_flops` operations, a multiplication and its addition counted as two."""

    name: str
    precision: str
    n_flops: int
    work: Callable[[], object]


def rivals(rows: int, n_threads: int) -> list[Matrices]:
    """All of them that this machine has; `rows` is that of a chain's products (segments times tokens)."""
    bfloat16 = has_bfloat16()
    return [*torch_products(bfloat16=bfloat16), *openvino_chains(rows, n_threads, bfloat16=bfloat16)]


def torch_products(side: int = SQUARE, *, bfloat16: bool = True) -> Iterator[Matrices]:
    """A square product in float32 and, unless the processor would emulate it (400 times as long), in bfloat16; in as
    many threads as torch is set to."""
    rng = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16) if bfloat16 else (torch.float32,):
        a, b = (torch.randn(side, side, generator=rng).to(dtype) for _ in range(2))
        precision = str(dtype).removeprefix("torch.")
        yield Matrices(f"torch, {side} x {side}", precision, 2 * side**3, lambda a=a, b=b: torch.mm(a, b))


def openvino_chains(
    rows: int, n_threads: int, widths: Sequence[int] = CHAIN, *, bfloat16: bool = True
) -> Iterator[Matrices]:
    """A chain in float32, bfloat16 (which OpenVINO computes in float32 where the processor has none) and int8; none
    where OpenVINO is not installed."""
    from acoustic.errors import BackendError
    from acoustic.network.backends.openvino import runtime

    try:
        openvino = runtime()
    except BackendError:
        return
    mels = np.random.default_rng(0).normal(size=(rows, widths[0])).astype(np.float32)
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16"), ("int8", "bf16")):
        if precision == "bfloat16" and not bfloat16:
            continue
        how = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": n_threads,
        }
        graph = _chain(openvino, rows, widths, precision == "int8")
        request = openvino.Core().compile_model(graph, "CPU", how).create_infer_request()
        yield Matrices(
            f"OpenVINO, {len(widths) - 1} products of {rows} rows",
            precision,
            chain_flops(rows, widths),
            lambda request=request: request.infer({0: mels}, share_inputs=True, share_outputs=True),
        )


def chain_flops(rows: int, widths: Sequence[int]) -> int:
    return sum(2 * rows * k * n for k, n in pairwise(widths))


def _chain(openvino: Any, rows: int, widths: Sequence[int], int8: bool) -> Any:
    """rows x widths[0] -> rows x widths[-1]; weights of variance 1 / k, so that the scale stays."""
    from openvino import opset13 as ops

    rng = np.random.default_rng(1)
    entry = ops.parameter([rows, widths[0]], np.float32)
    node = entry
    for k, n in pairwise(widths):
        if int8:
            node, weights = _quantized(ops, node), _int8_weights(ops, rng, n, k)
        else:
            weights = ops.constant(rng.normal(0, k**-0.5, (n, k)).astype(np.float32))
        node = ops.matmul(node, weights, False, True)
    return openvino.Model([ops.result(node)], [entry])


def _quantized(ops: Any, node: Any) -> Any:
    low, high = np.float32(-SPAN), np.float32(SPAN * (LEVELS / 2 - 1) / (LEVELS / 2))
    return ops.fake_quantize(node, low, high, low, high, LEVELS)


def _int8_weights(ops: Any, rng: np.random.Generator, n: int, k: int) -> Any:
    """Stored as int8, each row with its scale, as quantised networks store them."""
    stored = ops.constant(rng.integers(-127, 128, (n, k)).astype(np.int8))
    scale = ops.constant(np.full((n, 1), k**-0.5 / 73.0, np.float32))  # 73: the standard deviation of what is stored
    return ops.multiply(ops.convert(stored, np.float32), scale)
