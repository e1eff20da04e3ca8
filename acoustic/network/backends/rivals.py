"""What a device offers: the ways to run a network there, the reference first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError, ModelError
from ...settings import available_cores
from ..quantized import read, read_cost
from ..source import NetworkSource
from . import openvino
from .choice import Rival
from .measuring import MIN_COSINE, best_ms, cosine, probe

if TYPE_CHECKING:  # imported when one is made: a kept graph needs no torch
    from .compiled import CompiledBackend
    from .eager import EagerBackend
    from .graphs import GraphBackend
    from .tensorrt import TensorRtBackend

HALF_WORTH = 0.9
"""share of float32's time below which torch.compile is given half precision"""
BUILDING = "building an engine takes minutes: ask for it by name"
COMPILING = "compiling takes most of a minute: ask for it by name"


def rivals_for(source: NetworkSource, device: str, n_threads: int | None, folder: Path | None) -> list[Rival]:
    """All that may be asked for on `device`, in the order in which they are measured; the first is what the others are
    compared with. `n_threads` None: torch's as they are, and all cores for OpenVINO."""
    eager = partial(_eager, source, device, n_threads)
    if device == "cpu":
        return _on_cpu(source, eager, n_threads or available_cores(), folder)
    plain = [Rival("eager", "float32", partial(eager, "float32"))]
    if device != "cuda":
        return plain
    half = partial(eager, "float16")
    return [
        *plain,
        Rival("eager", "float16", half),
        Rival("graphs", "float16", lambda: _graphs(half())),
        Rival("graphs", "float32", lambda: _graphs(eager("float32")), measured=False),
        Rival("tensorrt", "float16", lambda: _tensorrt(half()), note=BUILDING, measured=False),
        Rival("compiled", "float16", lambda: _compiled(half()), note=COMPILING, measured=False),
    ]


def _on_cpu(
    source: NetworkSource, eager: Callable[[str], EagerBackend], n_threads: int, folder: Path | None
) -> list[Rival]:
    kept = openvino.kept_name(folder, source.digest, source.architecture) if folder and source.digest else None
    shape = source.architecture
    halves = ["bfloat16"] if openvino.has_bfloat16() else []

    def graph(precision: str) -> openvino.OpenVinoBackend:
        return openvino.OpenVinoBackend(openvino.graphs_of(source.network, kept), shape, precision, n_threads)

    return [
        Rival("eager", "float32", partial(eager, "float32")),
        Rival("openvino", "float32", partial(graph, "float32")),
        *(Rival("openvino", half, partial(graph, half)) for half in halves),
        *_int8(source, n_threads),
        Rival("eager", "bfloat16", partial(eager, "bfloat16")),
        Rival("eager", "int8", partial(eager, "int8"), note="torch's dynamic quantisation"),
        Rival("compiled", "float32", lambda: _compiled(eager("float32")), note=COMPILING, measured=False),
        Rival("compiled", "bfloat16", lambda: _compiled(eager("bfloat16")), note=COMPILING, measured=False),
    ]


def _int8(source: NetworkSource, n_threads: int) -> list[Rival]:
    """The calibrated int8 graph, where the model brings one; what is wrong with it is told when it is asked for."""
    file = source.int8
    if file is None or not file.exists():
        return []

    def make() -> openvino.OpenVinoBackend:
        try:
            quantized = read(file, source.digest)
        except ModelError as error:
            raise BackendError(error.message, error.hint) from error
        patches, rest = (openvino.read_graph(*graph) for graph in (quantized.patches, quantized.rest))
        compute = openvino.int8_compute()
        return openvino.OpenVinoBackend((patches, rest), source.architecture, "int8", n_threads, compute)

    try:
        cost = read_cost(file, source.digest)
    except ModelError:
        return [Rival("openvino", "int8", make)]
    return [Rival("openvino", "int8", make, cost.loss, cost.told())]


def _eager(source: NetworkSource, device: str, n_threads: int | None, precision: str) -> EagerBackend:
    from .eager import EagerBackend

    return EagerBackend(source.network(), device, precision, n_threads)


def _compiled(eager: EagerBackend) -> CompiledBackend:
    from .compiled import CompiledBackend

    return CompiledBackend(eager)


def _graphs(eager: EagerBackend) -> GraphBackend:
    from .graphs import GraphBackend

    return GraphBackend(eager)


def _tensorrt(eager: EagerBackend) -> TensorRtBackend:
    from .tensorrt import TensorRtBackend

    return TensorRtBackend(eager)


def compiled_precision(source: NetworkSource, n_threads: int | None) -> str:
    """bfloat16 where eager torch clearly gains by it on this CPU and says the same, else float32: measured, because
    emulated bfloat16 is several times slower."""
    full, half = (_eager(source, "cpu", n_threads, precision) for precision in ("float32", "bfloat16"))
    mels = probe(source.architecture.n_mels, 1)
    try:
        same = cosine(full(mels).logits, half(mels).logits) >= MIN_COSINE
        faster = same and best_ms(half, mels) < HALF_WORTH * best_ms(full, mels)
    except BackendError:
        faster = False
    return "bfloat16" if faster else "float32"
