"""float32 network -> int8 graph, by NNCF's post-training quantisation on real mels.

The layers are quantised, the patches stay float32. Weights are quantised per channel, activations per tensor, over the
ranges that the given mels show; NNCF's setting for transformers leaves alone what does not bear it. What it costs is
measured on other mels than those.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import BackendError
from ..records import Votes
from .backends import openvino
from .backends.eager import EagerBackend
from .quantized import Cost, Quantized
from .vit import MelViT

MIN_CALIBRATION = 8
"""fewest segments that show the ranges of activations at all"""
BATCH = 8


def quantize(
    network: MelViT,
    calibration: np.ndarray,
    tested: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    about: str = "",
    n_threads: int = 1,
) -> Quantized:
    """The int8 graph of `network`, its ranges from `calibration` (N, n_mels, 224) normalised mels, its cost from
    `tested` (M, n_mels, 224), of which `targets` (M,) are the right classes if they are known.

    Raises BackendError without NNCF, or for fewer than MIN_CALIBRATION segments.
    """
    if len(calibration) < MIN_CALIBRATION or len(tested) == 0:
        raise BackendError(
            f"{len(calibration)} segments to calibrate with and {len(tested)} to test",
            f"Give more songs: at least {MIN_CALIBRATION} segments to calibrate with, and one to test.",
        )
    openvino.runtime()  # its telemetry is off from here on, and so is NNCF's
    nncf = _nncf()
    patches, rest = openvino.convert(network)
    try:
        quantized = nncf.quantize(
            rest,
            nncf.Dataset(_tokens(network, calibration)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.PERFORMANCE,
        )
    except Exception as error:  # NNCF fails in its own ways
        raise BackendError(f"NNCF cannot quantise the network: {type(error).__name__}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="acoustic-int8-") as folder:
        parts = [openvino.graph_bytes(graph, Path(folder)) for graph in (patches, quantized)]
    graphs = openvino.read_graph(*parts[0]), openvino.read_graph(*parts[1])
    compute = openvino.int8_compute()
    backend = openvino.OpenVinoBackend(graphs, network.architecture, "int8", n_threads, compute)
    return Quantized(parts[0], parts[1], cost_of(EagerBackend(network, "cpu"), backend, tested, targets, about))


def _tokens(network: MelViT, mels: np.ndarray) -> list[np.ndarray]:
    """What the layers read of each segment, (1, n_patches, width)."""
    with torch.inference_mode():
        return [network.tokens(torch.from_numpy(one[None].astype(np.float32))).numpy() for one in mels]


def cost_of(full: Any, int8: Any, tested: np.ndarray, targets: np.ndarray | None, about: str) -> Cost:
    """What `int8` costs beside `full` (two backends) on mels (M, n_mels, 224)."""
    expected, found = (_logits(backend, tested) for backend in (full, int8))
    a, b = expected.argmax(axis=1), found.argmax(axis=1)
    agreement = float((a == b).mean())
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(lengths, 1e-12)
    accuracy, accuracy_int8 = (1.0, agreement) if targets is None else ((a == targets).mean(), (b == targets).mean())
    return Cost(
        n=len(tested),
        labelled=targets is not None,
        accuracy=round(float(accuracy), 4),
        accuracy_int8=round(float(accuracy_int8), 4),
        agreement=round(agreement, 4),
        min_cosine=round(float(cosines.min()), 5),
        mean_cosine=round(float(cosines.mean()), 5),
        about=about,
    )


def _logits(backend: Any, mels: np.ndarray) -> np.ndarray:
    parts: list[Votes] = [backend(mels[i : i + BATCH]) for i in range(0, len(mels), BATCH)]
    return np.concatenate([part.logits for part in parts]).astype(np.float64)


def _nncf() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
    except ImportError as error:
        raise BackendError(
            f"NNCF cannot be imported: {error}", "Run it through ./start.sh models quantize, which installs it."
        ) from None
    nncf.set_log_level(30)  # warnings; progress bars would be drawn over ours
    return nncf
