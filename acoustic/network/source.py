"""A network that may be loaded, and what runs it need to know of it before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .architecture import Architecture
from .quantized import digest_of

if TYPE_CHECKING:  # who takes a kept graph does not wait for torch's network
    from .vit import MelViT


@dataclass(frozen=True)
class NetworkSource:
    """`load` is called at first need, which a kept graph makes unnecessary; it raises ModelError for weights that
    cannot be trusted. `digest` names the weights; `int8` is the file of the model's calibrated int8 graph, if it has
    one.
    """

    architecture: Architecture
    load: Callable[[], MelViT]
    digest: str = ""
    int8: Path | None = None
    _loaded: list[MelViT] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def network(self) -> MelViT:
        """The network, loaded once."""
        with self._lock:
            if not self._loaded:
                self._loaded.append(self.load())
            return self._loaded[0]

    def int8_digest(self) -> str:
        """Names the int8 graph; empty where there is none."""
        return digest_of(self.int8) if self.int8 is not None and self.int8.exists() else ""

    def forget(self) -> None:
        """Let the network go where something else answers; it is loaded again if it is needed."""
        with self._lock:
            self._loaded.clear()

    @classmethod
    def of(cls, network: MelViT) -> NetworkSource:
        """A network that is loaded already, as after training."""
        return cls(network.architecture, lambda: network)
