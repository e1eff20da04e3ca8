"""One process, or several under `torchrun` that take each batch apart: torch's DistributedDataParallel.

    torchrun --nproc-per-node 2 -m acoustic train CONFIG.toml --data FOLDER

Gloo on CPUs, NCCL on GPUs. The parts of a batch are the same however many processes there are, every loss is a sum over
the whole batch divided by its whole size, and batch norm shares its statistics: so several processes walk the same loss
curve as one, up to the order of additions (where `accumulate` is 1: batch norm sees its parts one by one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import SettingsError

LONGEST_WAIT = timedelta(hours=24)
"""the first process may be asking the teachers for hours while the others wait"""


@dataclass(frozen=True, slots=True)
class Processes:
    """Where this process stands among `n`, and its device; number 0 writes files and speaks."""

    rank: int = 0
    n: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This process's samples of a batch."""
        if batch_size % self.n:
            raise SettingsError(
                f"batch_size = {batch_size} cannot be shared evenly by {self.n} processes",
                f"Choose a multiple of {self.n}.",
            )
        each = batch_size // self.n
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, given to each."""
        if self.n > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def of_first(self, number: int) -> int:
        """The number that the first process has, given to each."""
        return int(self.total(torch.tensor(number if self.first else 0, device=self.device)))

    def one_first(self, work: Callable[[], object]) -> None:
        """`work`, whose results are kept in files, done by the first process while the others wait to find them."""
        if self.n > 1:
            if self.first:
                work()
            dist.barrier()

    def wait(self) -> None:
        if self.n > 1:
            dist.barrier()


@contextmanager
def joined(device: str = "cpu") -> Iterator[Processes]:
    """Join the others where `torchrun` started this process; else be the only one. On CUDA each process of a machine
    takes a card of its own."""
    if not dist.is_torchelastic_launched():
        yield Processes(device=device)
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{dist.get_node_local_rank()}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the parts of all processes: torch's own SyncBatchNorm does that on GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        shared = x.float()
        count = shared.numel() / shared.shape[1] * dist.get_world_size()
        mean = all_reduce(shared.sum((0, 2, 3))) / count
        variance = all_reduce((shared - mean[:, None, None]).square().sum((0, 2, 3))) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            momentum = self.momentum or 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
            self.num_batches_tracked.add_(1)
        scaled = (shared - mean[:, None, None]) * torch.rsqrt(variance + self.eps)[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Make every batch norm of `module` a SharedBatchNorm2d, with the very parameters that an optimiser may hold."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SharedBatchNorm2d
