"""Backends: they answer what the network answers, whatever the batch, and say how they were chosen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from acoustic.errors import BackendError
from acoustic.network import backends
from acoustic.network.backends.compiled import CompiledBackend
from acoustic.network.backends.eager import EagerBackend
from acoustic.network.backends.measuring import cosine
from acoustic.network.source import NetworkSource
from acoustic.network.vit import Answers, MelViT
from acoustic.records import Votes
from tests.network_answers import error
from tests.network_answers import made_mels as mels


def stack(votes: Votes) -> np.ndarray:
    return np.concatenate([votes.logits, votes.tag_logits, votes.embeddings], axis=1)


def direct(network: MelViT, batch: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat(network(torch.tensor(batch)), dim=1).numpy()


# --- devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "cpu"), (False, False, "cpu")])
def test_auto_takes_cuda_or_the_cpu_and_apples_only_by_name(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str
) -> None:
    monkeypatch.setattr(backends, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert backends.choose_device("auto") == chosen
    assert backends.choose_device("cpu") == "cpu"
    for device, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert backends.choose_device(device) == device
        else:
            with pytest.raises(BackendError, match=f"'{device}' was asked for"):
                backends.choose_device(device)


@pytest.mark.parametrize(
    ("system", "build", "driver", "asked"),
    [
        ("linux", "2.13.0+cpu", True, False),
        ("linux", "2.13.0", False, False),
        ("linux", "2.13.0", True, True),
        ("win32", "2.13.0+cu130", True, True),
        ("linux", "2.13.0+rocm7.0", False, True),
        ("darwin", "2.13.0", False, False),
    ],
)
def test_torch_is_asked_for_a_gpu_only_where_there_may_be_one(
    monkeypatch: pytest.MonkeyPatch, system: str, build: str, driver: bool, asked: bool
) -> None:
    def load(name: str) -> object:
        if not driver:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    monkeypatch.setattr(backends.sys, "platform", system)
    monkeypatch.setattr(backends, "versions", lambda: {"torch": build})
    monkeypatch.setattr(backends.ctypes, "CDLL", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert backends.choose_device("auto") == ("cuda" if asked else "cpu")
    assert backends.choose_device("cuda") == "cuda", "whoever names it is told by torch itself"


def test_unknown_device() -> None:
    with pytest.raises(BackendError, match="no device is called 'tpu'"):
        backends.choose_device("tpu")


# --- eager -----------------------------------------------------------------------------------------------------------


def test_eager_is_the_network(network: MelViT) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)
    votes = backend(mels(3))
    np.testing.assert_allclose(stack(votes), direct(network, mels(3)), atol=1e-6)
    assert {a.dtype for a in (votes.logits, votes.tag_logits, votes.embeddings)} == {np.dtype(np.float32)}
    assert (backend.name, backend.device, backend.precision) == ("eager", "cpu", "float32")


def test_a_training_network_is_put_into_eval_mode(network: MelViT) -> None:
    expected = direct(network, mels(2))
    backend = backends.create(NetworkSource.of(network.train()), "cpu", backend="eager", use_fp16=False)
    np.testing.assert_allclose(stack(backend(mels(2))), expected, atol=1e-6)


def test_batches_change_nothing(network: MelViT) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)
    together = stack(backend(mels(5)))
    alone = np.concatenate([stack(backend(mels(5)[i : i + 1])) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_empty_batch(network: MelViT) -> None:
    votes = backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)(mels(0))
    assert (votes.logits.shape, votes.tag_logits.shape, votes.embeddings.shape) == ((0, 3), (0, 2), (0, 5))


def test_views_and_read_only_arrays(network: MelViT) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)
    batch = mels(2)
    expected = stack(backend(batch))
    batch.flags.writeable = False
    np.testing.assert_array_equal(stack(backend(batch)), expected)
    np.testing.assert_array_equal(stack(backend(np.asfortranarray(batch))), expected)
    np.testing.assert_array_equal(stack(backend(batch[::-1]))[::-1], expected)


@pytest.mark.parametrize("shape", [(32, 224), (1, 32, 225), (1, 48, 224), (1, 1, 32, 224)])
def test_another_shape_is_refused(network: MelViT, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match=r"the network reads \(any, 32, 224\)"):
        backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite(network: MelViT, value: float) -> None:
    batch = mels(2)
    batch[1, 3, 5] = value
    with pytest.raises(BackendError, match="NaN or infinity"):
        backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)(batch)


def test_a_device_that_fails(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EagerBackend(network, "cpu")
    for cause, named in ((torch.OutOfMemoryError("full"), "no memory left for 1"), (RuntimeError("lost"), "lost")):

        def fail(mels: Tensor, keep: Tensor | None = None, cause: Exception = cause) -> Answers:
            raise cause

        monkeypatch.setattr(network, "forward", fail)
        with pytest.raises(BackendError, match=named):
            backend(mels(2))


def test_threads_are_set_only_when_asked(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # whatever an earlier test has left
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False)
    assert calls == []
    backends.create(NetworkSource.of(network), "cpu", backend="eager", use_fp16=False, n_threads=2)
    assert calls == [2]
    with pytest.raises(BackendError, match="n_threads is 0"):
        backends.create(NetworkSource.of(network), "cpu", n_threads=0)


# --- other precisions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.3), ("int8", 0.6)])
def test_eager_in_other_precisions(network: MelViT, precision: str, tolerance: float) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="eager", precision=precision)
    votes = backend(mels(6))
    assert (backend.name, backend.precision) == ("eager", precision)
    assert stack(votes).dtype == np.float32
    exact = EagerBackend(network, "cpu")
    assert 0 < error(votes, exact(mels(6))) < tolerance
    assert error(votes, exact(mels(6)[::-1])) > 1
    assert next(network.parameters()).dtype == torch.float32  # the caller's network is left as it is
    assert json.loads(json.dumps(backend.describe(), allow_nan=False))["precision"] == precision


def test_half_precision_that_overflows(network: MelViT) -> None:
    with torch.no_grad():
        network.genre.weight.zero_()
        network.genre.bias.fill_(torch.finfo(torch.float32).max)  # which bfloat16 rounds to infinity
    with pytest.raises(BackendError, match="NaN or infinity"):
        EagerBackend(network, "cpu", "bfloat16")(mels(1))


def holds_at_most(n: int, network: MelViT, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device that `n` segments fill; the sizes of the batches that it is asked about from now on."""
    sizes: list[int] = []
    forward = network.forward

    def small_only(batch: Tensor, keep: Tensor | None = None) -> Answers:
        sizes.append(len(batch))
        if len(batch) > n:
            raise torch.OutOfMemoryError("full")
        return forward(batch, keep)

    monkeypatch.setattr(network, "forward", small_only)
    return sizes


def test_a_batch_that_does_not_fit_is_halved(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a GPU may be somebody else's at the moment."""
    backend = EagerBackend(network, "cpu")
    expected, sizes = direct(network, mels(7)), holds_at_most(2, network, monkeypatch)
    np.testing.assert_allclose(stack(backend(mels(7))), expected, atol=1e-5)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


@pytest.mark.parametrize(
    ("backend", "precision", "named"),
    [
        ("graphs", "auto", "graphs in auto cannot be had on cpu"),
        ("tensorrt", "auto", "tensorrt in auto cannot be had on cpu"),
        ("openvino", "float16", "openvino in float16 cannot be had"),
        ("openvino", "int8", "openvino in int8 cannot be had"),
        ("magic", "auto", "no backend is called 'magic'"),
        ("eager", "int4", "no precision is called 'int4'"),
    ],
)
def test_what_a_cpu_does_not_have(network: MelViT, backend: str, precision: str, named: str) -> None:
    with pytest.raises(BackendError, match=named) as caught:
        backends.create(NetworkSource.of(network), "cpu", backend=backend, precision=precision)
    assert caught.value.hint


def test_cosine_is_the_worst_rows() -> None:
    a = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert cosine(a, 5 * a) == pytest.approx(1.0)
    assert cosine(a, np.array([[1.0, 0.0], [1.0, 1.0]])) == pytest.approx(np.sqrt(0.5))


# --- compiled --------------------------------------------------------------------------------------------------------


Network = Callable[[Tensor], Answers]


class Compiler:
    """Stands for torch.compile: the graph is the network itself, notes batch sizes, and may be held or broken."""

    def __init__(self, spoil: Callable[[int, Answers], Answers] | None = None) -> None:
        self.release = threading.Event()
        self.release.set()
        self.spoil = spoil
        self.sizes: list[int] = []

    def __call__(self, network: Network, **_: Any) -> Network:
        self.release.wait(10)

        def graph(mels: Tensor) -> Answers:
            self.sizes.append(len(mels))
            answers = network(mels)
            return self.spoil(len(mels), answers) if self.spoil else answers

        return graph


@pytest.fixture
def never_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acoustic.network.backends.compiled.best_ms", lambda *_: 1.0)


def compiled(network: MelViT, compiler: Any, sizes: tuple[int, ...] = (1, 3, 8)) -> CompiledBackend:
    return CompiledBackend(EagerBackend(network, "cpu"), sizes, compiler)


def states(backend: CompiledBackend) -> dict[str, str]:
    return {size: facts["state"] for size, facts in backend.describe()["compiled"]["sizes"].items()}


@pytest.mark.usefixtures("never_slower")
@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (2, [3]), (3, [3]), (5, [8]), (8, [8]), (19, [8, 8, 3])])
def test_batches_are_padded_or_cut_to_fixed_sizes(network: MelViT, n: int, expected: list[int]) -> None:
    compiler = Compiler()
    backend = compiled(network, compiler)
    assert backend.wait(30)
    compiler.sizes.clear()
    votes = backend(mels(n))
    assert compiler.sizes == expected
    assert len(votes) == n
    np.testing.assert_allclose(stack(votes), direct(network, mels(n)), atol=1e-5)
    assert states(backend) == {"1": "ready", "3": "ready", "8": "ready"}


@pytest.mark.usefixtures("never_slower")
def test_the_eager_path_answers_until_it_is_ready(network: MelViT) -> None:
    compiler = Compiler()
    compiler.release.clear()
    backend = compiled(network, compiler)
    np.testing.assert_allclose(stack(backend(mels(2))), direct(network, mels(2)), atol=1e-5)
    assert compiler.sizes == []
    assert set(states(backend).values()) == {"waiting"}
    assert backend.describe()["state"] == "compiling"
    compiler.release.set()
    assert backend.wait(30)
    assert compiler.sizes != []
    assert backend.describe()["state"] == "ready"
    backend(mels(2))
    assert {size: one["n_calls"] for size, one in backend.describe()["compiled"]["sizes"].items()} == {
        "1": 0, "3": 2, "8": 0
    }  # fmt: skip


def test_a_compiler_that_fails_is_reported(network: MelViT) -> None:
    def fail(*_: Any, **__: Any) -> Network:
        raise OSError("no C++ compiler\nand much more")

    backend = compiled(network, fail)
    assert backend.wait(30)
    facts = backend.describe()
    assert facts["compiled"]["error"] == "OSError: no C++ compiler"
    assert set(states(backend).values()) == {"failed"}
    np.testing.assert_allclose(stack(backend(mels(9))), direct(network, mels(9)), atol=1e-5)


@pytest.mark.usefixtures("never_slower")
def test_a_size_that_fails_leaves_the_smaller_ones(network: MelViT) -> None:
    def spoil(n: int, answers: Answers) -> Answers:
        if n == 3:
            raise RuntimeError("graph broke")
        return answers

    backend = compiled(network, Compiler(spoil))
    assert backend.wait(30)
    assert states(backend) == {"1": "ready", "3": "failed", "8": "failed"}
    assert "graph broke" in backend.describe()["compiled"]["error"]
    np.testing.assert_allclose(stack(backend(mels(3))), direct(network, mels(3)), atol=1e-5)


@pytest.mark.usefixtures("never_slower")
def test_a_graph_that_breaks_later_is_left(network: MelViT) -> None:
    broken: list[bool] = []

    def spoil(n: int, answers: Answers) -> Answers:
        return answers._replace(logits=answers.logits * float("nan")) if broken else answers

    backend = compiled(network, Compiler(spoil))
    assert backend.wait(30)
    broken.append(True)
    np.testing.assert_allclose(stack(backend(mels(3))), direct(network, mels(3)), atol=1e-5)
    assert states(backend) == {"1": "ready", "3": "failed", "8": "ready"}


@pytest.mark.usefixtures("never_slower")
def test_mels_that_are_at_fault_leave_the_graph_in_use(network: MelViT) -> None:
    backend = compiled(network, Compiler())
    assert backend.wait(30)
    with pytest.raises(BackendError, match="NaN or infinity"):
        backend(np.full((2, 32, 224), np.nan, np.float32))
    assert states(backend)["3"] == "ready"


@pytest.mark.usefixtures("never_slower")
def test_a_batch_that_does_not_fit_is_halved_by_the_eager_backend(
    network: MelViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = compiled(network, Compiler())
    assert backend.wait(30)
    expected, sizes = direct(network, mels(5)), holds_at_most(3, network, monkeypatch)
    np.testing.assert_allclose(stack(backend(mels(5))), expected, atol=1e-5)
    assert sizes == [8, 5, 2, 3]  # the padded batch, and then the eager backend
    assert states(backend) == {"1": "ready", "3": "ready", "8": "failed"}
    np.testing.assert_allclose(stack(backend(mels(5))), expected, atol=1e-5)
    assert sizes[4:] == [5, 2, 3]


def test_an_error_names_the_precision_that_was_computed_in(network: MelViT) -> None:
    backend = CompiledBackend(EagerBackend(network, "cpu", "bfloat16"), (1,), Compiler())
    assert backend.wait(30)
    with pytest.raises(BackendError, match="bfloat16 on cpu holds NaN") as caught:
        backend(np.full((1, 32, 224), np.nan, np.float32))
    assert "full precision" in caught.value.hint


@pytest.mark.usefixtures("never_slower")
def test_a_graph_with_other_answers_is_not_used(network: MelViT) -> None:
    backend = compiled(network, Compiler(lambda n, answers: answers._replace(logits=answers.logits.flip(1))))
    assert backend.wait(30)
    assert set(states(backend).values()) == {"differs"}
    np.testing.assert_allclose(stack(backend(mels(1))), direct(network, mels(1)), atol=1e-5)


def test_a_slower_graph_is_not_used(network: MelViT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "acoustic.network.backends.compiled.best_ms", lambda f, _: 1.0 if isinstance(f, EagerBackend) else 2.0
    )
    backend = compiled(network, Compiler())
    assert backend.wait(30)
    facts = json.loads(json.dumps(backend.describe(), allow_nan=False))
    assert facts["name"] == "compiled"
    assert facts["compiled"]["sizes"]["8"]["state"] == "slower"
    assert facts["compiled"]["sizes"]["8"]["compiled_ms"] == 2.0


def test_close_ends_the_warm_up(network: MelViT) -> None:
    compiler = Compiler()
    compiler.release.clear()
    backend = compiled(network, compiler)
    closing = threading.Thread(target=backend.close)
    closing.start()
    compiler.release.set()
    closing.join(30)
    assert not closing.is_alive()
    assert backend.wait(0)
    assert len(backend(mels(2))) == 2


@pytest.mark.usefixtures("never_slower")
def test_torch_compile_itself(network: MelViT) -> None:
    """The network can be traced without a break; no C++ compiler is needed for that."""

    def to_eager(network: MelViT, **_: Any) -> Any:  # the options are the inductor's
        return torch.compile(network, backend="eager", fullgraph=True, dynamic=False)

    backend = compiled(network, to_eager, (2,))
    assert backend.wait(120)
    assert backend.describe()["compiled"]["error"] is None
    assert states(backend) == {"2": "ready"}
    np.testing.assert_allclose(stack(backend(mels(3))), direct(network, mels(3)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("never_slower")
def test_the_inductor_compiles_each_size_once(network: MelViT) -> None:
    """Real code generation, which needs a C++ compiler: nothing is compiled again once it is warm."""
    import shutil

    from torch._dynamo.utils import counters

    if not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("no C++ compiler")
    torch._dynamo.reset()
    backend = CompiledBackend(EagerBackend(network, "cpu"), (1, 3))
    assert backend.wait(600)
    assert backend.describe()["compiled"]["error"] is None
    assert states(backend) == {"1": "ready", "3": "ready"}
    before = counters["stats"]["unique_graphs"]
    for n in (1, 2, 3, 7):
        np.testing.assert_allclose(stack(backend(mels(n))), direct(network, mels(n)), atol=1e-4)
    assert counters["stats"]["unique_graphs"] == before
