"""The network as torch runs it, operation by operation, in the precision that is asked for.

int8 is torch's dynamic quantisation: weights of linear layers in int8, activations quantised call by call, on a CPU.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import BackendError
from ...records import Votes
from ..vit import Answers, MelViT
from .contract import checked, finite, joined, processor_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}
"""of the weights that are not quantised"""


class EagerBackend:
    """`network` on `device` in `precision`. A Backend. BackendError where torch cannot compute in it there.

    `n_threads` becomes torch's thread count for the whole process; None leaves it as it is.
    """

    name = "eager"

    def __init__(self, network: MelViT, device: str, precision: str = "float32", n_threads: int | None = None) -> None:
        if n_threads is not None and n_threads != torch.get_num_threads():
            torch.set_num_threads(n_threads)
        if precision == "int8" and device != "cpu":
            raise BackendError("int8 through torch's dynamic quantisation runs on a CPU only", "Use --device cpu.")
        self.device = device
        self.place = torch.device(device)
        """where its tensors are"""
        self.precision = precision
        self.dtype = torch.float32 if precision == "bfloat16" else DTYPES[precision]
        """of its input"""
        self.n_mels = network.architecture.n_mels
        if precision == "int8":
            self.network: MelViT = _dynamic_int8(network.eval())
        else:
            # A copy in half precision leaves the float32 network to its owner; in float32 it is used as it is.
            network = network if precision == "float32" else copy.deepcopy(network)
            self.network = network.to(device).eval()
            for name, part in self.network.named_children():
                if precision != "bfloat16" or name != "stem":  # eight bits are too few for the patches
                    part.to(DTYPES[precision])

    def __call__(self, mels: np.ndarray) -> Votes:
        """As Backend says. Where a GPU has no memory left for the batch, its halves are taken one after the other."""
        try:
            return run(self.network, self.as_input(mels), self.precision)
        except BackendError as error:
            if not isinstance(error.__cause__, torch.OutOfMemoryError) or len(mels) < 2:
                raise
        torch.cuda.empty_cache()  # without a CUDA context it does nothing
        half = len(mels) // 2
        return joined([self(mels[:half]), self(mels[half:])])

    def as_input(self, mels: np.ndarray) -> Tensor:
        """(B, n_mels, 224) float32 on the host -> the same on the device, in the type that the stem reads."""
        host = torch.tensor(checked(mels, self.n_mels))
        if self.place.type == "cuda":  # pinned memory is copied beside what the device computes
            return host.pin_memory().to(self.place, non_blocking=True).to(self.dtype)
        return host.to(self.place, self.dtype)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self.device,
            "device_name": device_name(self.place.type),
            "precision": self.precision,
            "chosen": "as it was asked for",
            "state": "ready",
            "n_threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Nothing is made ready in the background."""
        return True

    def close(self) -> None:
        """Nothing runs in the background."""


def run(network: Callable[[Tensor], Answers], mels: Tensor, precision: str = "float32") -> Votes:
    """One call of the network, its answers on the host. BackendError if they are not finite or the device fails."""
    if len(mels) == 0:  # attention takes no empty batch
        one = run(network, mels.new_zeros(1, *mels.shape[1:]), precision)
        return Votes(one.logits[:0], one.tag_logits[:0], one.embeddings[:0])
    try:
        with torch.inference_mode():
            logits, tags, embeddings = (answer.float().cpu().numpy() for answer in network(mels))
    except torch.OutOfMemoryError as error:
        raise BackendError(
            f"{mels.device} has no memory left for {len(mels)} segments", "Lower `batch_size`, or use `--device cpu`."
        ) from error
    except RuntimeError as error:
        raise BackendError(f"the network failed on {mels.device} with {len(mels)} segments: {error}") from error
    return finite(Votes(logits, tags, embeddings), f"{precision} on {mels.device}", precision != "float32")


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return processor_name()


def _dynamic_int8(network: MelViT) -> MelViT:
    """A copy whose linear layers hold int8 weights (torch's eager quantisation, in the release that is pinned)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it will move to torchao in a later release
            quantized: MelViT = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    except (RuntimeError, AttributeError) as error:  # no engine for it on this processor, or another torch
        raise BackendError(f"torch {torch.__version__} has no dynamic int8 here: {error}") from error
    return quantized
