"""CUDA graphs and TensorRT through stand-ins: there is no GPU where the tests run, and the code says so, too."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from acoustic.errors import BackendError
from acoustic.network.backends.eager import EagerBackend
from acoustic.network.backends.graphs import GraphBackend
from acoustic.network.backends.tensorrt import MAX_BATCH, TensorRtBackend
from acoustic.network.vit import MelViT
from tests.network_answers import made_mels as mels


def direct(network: MelViT, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.tensor(batch)).logits.numpy()


def as_on_cuda(network: MelViT) -> EagerBackend:
    """Says that it is on CUDA, and computes on the CPU."""
    backend = EagerBackend(network, "cpu")
    backend.device = "cuda"
    return backend


class FakeCuda:
    """Of torch.cuda what graphs need: a recording notes what ran in it, and a replay runs it again."""

    def __init__(self, broken: str = "") -> None:
        self.recording: Any = None
        self.broken, self.n_replays = broken, 0

    class Stream:
        def wait_stream(self, _: Any) -> None: ...

    def current_stream(self) -> Any:
        return self.Stream()

    @contextmanager
    def stream(self, _: Any) -> Any:
        yield

    def CUDAGraph(self) -> Any:  # noqa: N802
        if self.broken:
            raise RuntimeError(self.broken)
        return SimpleNamespace(replay=lambda: None)

    @contextmanager
    def graph(self, graph: Any, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"  # other threads use the device meanwhile
        self.recording = graph
        yield


def recorded(network: MelViT, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> GraphBackend:
    """A replay computes into the recorded tensors, as the device would."""
    from acoustic.network.backends import graphs

    real = graphs._Recorded

    class Recorded(real):  # type: ignore[misc, valid-type]
        def __init__(self, net: Any, example: torch.Tensor, cuda: Any) -> None:
            super().__init__(net, example, cuda)

            def replay() -> None:
                cuda.n_replays += 1
                with torch.inference_mode():
                    for kept, new in zip(self.answers, net(self.mels), strict=True):
                        kept.copy_(new)

            self.graph.replay = replay

    monkeypatch.setattr(graphs, "_Recorded", Recorded)
    return GraphBackend(as_on_cuda(network), (1, 4), cuda)


@pytest.mark.parametrize("n", [0, 1, 2, 4, 11])
def test_graphs_pad_and_cut(network: MelViT, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    cuda = FakeCuda()
    backend = recorded(network, cuda, monkeypatch)
    expected = direct(network, mels(n)) if n else np.zeros((0, 3))
    np.testing.assert_allclose(backend(mels(n)).logits, expected, atol=1e-5)
    np.testing.assert_allclose(backend(mels(n)).logits, expected, atol=1e-5)
    assert cuda.n_replays == 2 * {0: 0, 11: 3}.get(n, 1)
    assert set(backend.describe()["graphs"]["sizes"]) <= {1, 4}
    assert backend.describe()["name"] == "graphs"


def test_where_recording_fails_the_eager_path_answers(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = recorded(network, FakeCuda("capture is not allowed"), monkeypatch)
    np.testing.assert_allclose(backend(mels(2)).logits, direct(network, mels(2)), atol=1e-5)
    assert "capture is not allowed" in backend.describe()["graphs"]["error"]


def test_without_a_gpu_both_say_so(network: MelViT) -> None:
    for kind in (GraphBackend, TensorRtBackend):
        with pytest.raises(BackendError, match="an NVIDIA GPU") as caught:
            kind(EagerBackend(network, "cpu"))
        assert "--" in caught.value.hint


class FakeTrt:
    """Of torch2trt what is called."""

    __version__ = "0.5.0"

    def __init__(self, error: str = "") -> None:
        self.error, self.asked, self.sizes = error, {}, []

    def torch2trt(self, module: torch.nn.Module, inputs: list[torch.Tensor], **how: Any) -> Any:
        if self.error:
            raise TypeError(self.error)
        self.asked = {**how, "shape": tuple(inputs[0].shape)}

        def engine(batch: torch.Tensor) -> Any:
            self.sizes.append(len(batch))
            return module(batch)

        return engine


def test_tensorrt_answers_as_the_network(network: MelViT) -> None:
    trt = FakeTrt()
    backend = TensorRtBackend(as_on_cuda(network), trt)
    assert trt.asked == {"fp16_mode": False, "max_batch_size": MAX_BATCH, "shape": (1, 32, 224)}
    for n in (1, 3, MAX_BATCH + 2):
        np.testing.assert_allclose(backend(mels(n)).logits, direct(network, mels(n)), atol=1e-5)
    assert trt.sizes == [1, 3, MAX_BATCH, 2]
    assert (backend.name, backend.describe()["torch2trt"]) == ("tensorrt", "0.5.0")


def test_where_the_engine_fails_the_eager_backend_answers(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend itself, which halves a batch that does not fit."""
    backend = TensorRtBackend(as_on_cuda(network), FakeTrt())
    expected, sizes, forward = direct(network, mels(7)), [], network.forward

    def small_only(batch: torch.Tensor, keep: torch.Tensor | None = None) -> Any:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError("full")
        return forward(batch, keep)

    monkeypatch.setattr(network, "forward", small_only)
    assert backend.describe()["tensorrt"]["error"] is None
    np.testing.assert_allclose(backend(mels(7)).logits, expected, atol=1e-5)
    assert sizes == [7, 7, 3, 4]  # the engine, and then the eager backend
    assert "no memory left for 7" in backend.describe()["tensorrt"]["error"]
    np.testing.assert_allclose(backend(mels(3)).logits, direct(network, mels(3)), atol=1e-5)


def test_an_engine_that_fails_in_its_own_way_is_left(network: MelViT) -> None:
    backend = TensorRtBackend(as_on_cuda(network), FakeTrt())

    def broken(batch: torch.Tensor) -> Any:
        raise ValueError("binding 0")

    backend._engine = broken
    np.testing.assert_allclose(backend(mels(3)).logits, direct(network, mels(3)), atol=1e-5)
    assert backend.describe()["tensorrt"]["error"] == "ValueError: binding 0"


def test_mels_that_are_at_fault_leave_the_engine_in_use(network: MelViT) -> None:
    backend = TensorRtBackend(as_on_cuda(network), FakeTrt())
    with pytest.raises(BackendError, match="NaN or infinity"):
        backend(np.full((2, 32, 224), np.nan, np.float32))
    assert backend.describe()["tensorrt"]["error"] is None


def test_a_network_that_tensorrt_does_not_take(network: MelViT) -> None:
    with pytest.raises(BackendError, match="cannot take the network: TypeError: no such layer"):
        TensorRtBackend(as_on_cuda(network), FakeTrt("no such layer"))


def test_torch2trt_that_is_not_there(network: MelViT) -> None:
    with pytest.raises(BackendError, match="torch2trt is not installed") as caught:
        TensorRtBackend(as_on_cuda(network))
    assert "its source" in caught.value.hint
