"""In which precision a step computes, chosen by timing it, because machines differ; and by which attention.

With matrix units for bfloat16 it is several times as fast as float32; without them it is emulated and several times as
slow. Weights and optimiser stay in float32 (mixed precision, Micikevicius et al., 2018).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import SettingsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WORTH = 0.9
"""share of float32's time below which a smaller precision is taken"""


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The context in which forward passes and losses run."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision])


def attention(device: str) -> AbstractContextManager[object]:
    """The context in which a step forward and back attends: on a CPU as plain matrix products, because torch's fused
    attention takes a third of the step on its way back there (a step of the small student is 1.4 times as fast)."""
    return sdpa_kernel(SDPBackend.MATH) if torch.device(device).type == "cpu" else nullcontext()


def scaler_for(precision: str, device: str) -> torch.amp.GradScaler:
    """The loss scaler; it does nothing but for float16, whose gradients would vanish."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")


def choose(wanted: str, device: str, step: Callable[[str], object]) -> str:
    """The precision to train in: the one that is asked for, or for "measure" the fastest; `step` does one pass forward
    and back in the named precision. Raises SettingsError for what the device cannot do."""
    on_gpu = torch.device(device).type == "cuda"
    if wanted == "float16" and not on_gpu:
        raise SettingsError("precision = 'float16' needs a CUDA device", 'Use "bfloat16", "float32" or "measure".')
    if wanted != "measure":
        return wanted
    candidates = ["bfloat16"] if not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False) else ["float16"]
    times = {name: _seconds(step, name, on_gpu) for name in ("float32", *candidates)}
    best = min(times, key=lambda name: times[name])
    return best if times[best] < WORTH * times["float32"] else "float32"


def _seconds(step: Callable[[str], object], name: str, on_gpu: bool) -> float:
    """The faster of two steps, after one that warms up."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        step(name)
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])
