"""The network as OpenVINO graphs, on a CPU: float32, bfloat16 where the processor computes in it, or int8.

There are two graphs, one after the other: mels to patches, always in float32, and the rest. Converting takes seconds,
so the graphs are kept in a folder of derived data, named by the weights' digest and verified by their own; the network
itself is then not needed. The int8 graphs are made ahead by `quantize` and come with their model.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BackendError
from ...records import N_FRAMES, Votes
from ..architecture import Architecture
from .contract import checked, finite, processor_name

GRAPH_VERSION = 1
"""raised when the network's code gives other numbers for the same weights, so that older graphs are not found"""
Graphs = tuple[Any, Any]
"""mels -> patches, patches -> answers"""
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def runtime() -> Any:
    """The module openvino, without its telemetry. BackendError where it is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its stub serves: nothing phones home
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"the package openvino cannot be imported: {error}", "Run ./start.sh again.") from None
    return openvino


def version() -> str:
    """Of the runtime; empty where there is none."""
    try:
        return str(runtime().__version__).split("-")[0]
    except BackendError:
        return ""


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 itself; False where there is no OpenVINO to tell."""
    try:
        return "BF16" in runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (BackendError, RuntimeError):
        return False


def int8_compute() -> str:
    """In what an int8 graph computes whatever is not quantised: in half precision only where that is in hardware."""
    return "bfloat16" if has_bfloat16() else "float32"


def kept_name(folder: Path, digest: str, architecture: Architecture) -> Path:
    """Where the graph of weights `digest` in this `architecture` is kept, without suffix."""
    shape = hashlib.sha256(f"{GRAPH_VERSION} {architecture!r}".encode()).hexdigest()[:8]
    return folder / f"{digest[:16]}-{shape}-openvino-{version()}"


class OpenVinoBackend:
    """Two `graphs` (openvino.Model, any batch size) on the CPU. A Backend that may be asked from several threads.

    `precision` is what answers are said to be made in; `compute` is that of whatever is not quantised: an int8 graph
    may run its other operations in bfloat16.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self, graphs: Graphs, architecture: Architecture, precision: str, n_threads: int, compute: str = ""
    ) -> None:
        openvino = runtime()
        self.precision = precision
        self._compute = compute or ("float32" if precision == "int8" else precision)
        self._shape = architecture
        how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": n_threads}
        hints = (HINTS["float32"], HINTS[self._compute])
        try:
            self._patches, self._rest = (
                openvino.Core()
                .compile_model(graph, "CPU", {**how, "INFERENCE_PRECISION_HINT": hint})
                .create_infer_request()
                for graph, hint in zip(graphs, hints, strict=True)
            )
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile the network: {_line(error)}") from error
        self._n_threads = n_threads
        self._version = str(openvino.__version__)
        self._turn = threading.Lock()  # one request holds one batch: a measurement may ask beside the inference lane

    def __call__(self, mels: np.ndarray) -> Votes:
        mels = checked(mels, self._shape.n_mels)
        if not np.isfinite(mels).all():  # its rectifier makes zeros of NaN, and an answer of nothing
            raise BackendError("the network's input holds NaN or infinity")
        if len(mels) == 0:
            one = self(np.zeros((1, *mels.shape[1:]), np.float32))
            return Votes(one.logits[:0], one.tag_logits[:0], one.embeddings[:0])
        try:
            with self._turn:
                tokens = next(iter(self._patches.infer({0: mels}, share_inputs=True).values()))
                said = self._rest.infer({0: tokens}, share_inputs=True).values()
                answers = [np.array(answer, dtype=np.float32) for answer in said]  # the next call writes over them
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed with {len(mels)} segments: {_line(error)}") from error
        if not self._shape.n_tags:
            answers.insert(1, np.zeros((len(mels), 0), np.float32))
        votes = Votes(*answers)
        return finite(votes, f"{self.precision} through OpenVINO", self.precision != "float32")

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self.device,
            "device_name": processor_name(),
            "precision": self.precision,
            "compute": self._compute,
            "chosen": "as it was asked for",
            "state": "ready",
            "n_threads": self._n_threads,
            "openvino": self._version,
        }

    def wait(self, timeout_s: float | None = None) -> bool:
        """Nothing is made ready in the background."""
        return True

    def close(self) -> None:
        """Nothing runs in the background."""


def convert(network: Any) -> Graphs:
    """The graphs (openvino.Model) of a MelViT: mels (any, n_mels, 224) -> tokens (any, n_patches, width), and tokens ->
    logits, tag logits (if it has tags), embeddings. BackendError if they cannot be traced."""
    import torch

    shape, has_tags = network.architecture, network.architecture.n_tags > 0

    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, mels: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.network.tokens(mels)
            return tokens

    class Rest(torch.nn.Module):
        """Answers as a plain tuple, without the heads that the network lacks: a graph has no empty tensors."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits, tags, embedding = self.network.answer(self.network.pooled_tokens(tokens))
            return (logits, tags, embedding) if has_tags else (logits, embedding)

    return (
        _traced(Patches(), (shape.n_mels, N_FRAMES)),
        _traced(Rest(), (shape.n_patches, shape.width)),
    )


def _traced(module: Any, shape: tuple[int, int]) -> Any:
    import torch

    openvino = runtime()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every shape that becomes a constant, which is meant
            example = torch.zeros(2, *shape)
            return openvino.convert_model(module.eval(), example_input=example, input=[-1, *shape])
    except Exception as error:  # the converter fails in its own ways
        raise BackendError(f"OpenVINO cannot convert the network: {type(error).__name__}: {_line(error)}") from error


def graphs_of(load: Callable[[], Any], kept: Path | None) -> Graphs:
    """The float32 graphs: those that are kept in `kept` (a path without suffix), else converted from `load()`, and kept
    there. Kept ones that are damaged are made again."""
    openvino = runtime()
    names = [kept.with_name(f"{kept.name}-{part}") for part in ("patches", "rest")] if kept is not None else []
    if names and all(_is_sound(name) for name in names):
        with suppress(RuntimeError):  # the folder may be emptied at any moment
            core = openvino.Core()
            patches, rest = (core.read_model(_part(name, ".xml")) for name in names)  # weights are mapped, not copied
            return patches, rest
    graphs = convert(load())
    with suppress(OSError, RuntimeError):  # a full or read-only disk: they are converted again the next time
        for name, graph in zip(names, graphs, strict=False):
            _keep(openvino, graph, name)
    return graphs


def read_graph(xml: bytes, weights: bytes) -> Any:
    """A graph from its two parts in memory. BackendError if they are none."""
    openvino = runtime()
    try:
        return openvino.Core().read_model(model=xml, weights=weights)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read the graph: {_line(error)}") from error


def graph_bytes(graph: Any, folder: Path) -> tuple[bytes, bytes]:
    """The two parts of a graph, through files in `folder`, which are removed again."""
    xml, weights = folder / "graph.xml", folder / "graph.bin"
    try:
        runtime().save_model(graph, xml, compress_to_fp16=False)
        return xml.read_bytes(), weights.read_bytes()
    finally:
        xml.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)


PARTS = (".xml", ".bin", ".sha256")


def _part(kept: Path, suffix: str) -> Path:
    return kept.with_name(kept.name + suffix)


def _keep(openvino: Any, graph: Any, kept: Path) -> None:
    """Written aside and renamed, the digest last: without it nothing is believed."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        openvino.save_model(graph, _part(aside, ".xml"), compress_to_fp16=False)
        _part(aside, ".sha256").write_text(_digest(aside), encoding="ascii")
        for suffix in PARTS:
            os.replace(_part(aside, suffix), _part(kept, suffix))
    finally:
        for suffix in PARTS:
            _part(aside, suffix).unlink(missing_ok=True)


def _is_sound(kept: Path) -> bool:
    try:
        return _part(kept, ".sha256").read_text(encoding="ascii") == _digest(kept)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(kept: Path) -> str:
    """Of a graph's two files, read in pieces."""
    digests = []
    for suffix in PARTS[:2]:
        with open(_part(kept, suffix), "rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return " ".join(digests)


def _line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
