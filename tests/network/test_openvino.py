"""The OpenVINO graph says what the network says, is kept and verified, and nothing phones home."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from acoustic.errors import BackendError
from acoustic.network import backends
from acoustic.network.backends import openvino
from acoustic.network.source import NetworkSource
from acoustic.network.vit import Architecture, MelViT
from acoustic.records import Votes
from tests.network_answers import error
from tests.network_answers import made_mels as mels

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}


def direct(network: MelViT, batch: np.ndarray) -> Votes:
    with torch.inference_mode():
        return Votes(*(answer.numpy() for answer in network(torch.tensor(batch))))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"n_tags": 0}, {"stem": "patch", "pooling": "cls", "n_embedding": 0}],
    ids=["conv", "without tags", "patches and a class token"],
)
def test_every_batch_size_and_shape_of_network(architecture: Architecture, precision: str, changes: dict) -> None:
    torch.manual_seed(2)
    network = MelViT(dataclasses.replace(architecture, **changes)).eval()
    with torch.no_grad():
        network.genre.weight.mul_(100)
    how = {"backend": "openvino", "precision": precision, "n_threads": 1}
    if precision == "bfloat16" and not openvino.has_bfloat16():  # it would be emulated
        with pytest.raises(BackendError, match="cannot be had on cpu"):
            backends.create(NetworkSource.of(network), "cpu", **how)
        return
    backend = backends.create(NetworkSource.of(network), "cpu", **how)
    assert (backend.name, backend.precision, backend.device) == ("openvino", precision, "cpu")
    for n in (6, 3, 9):
        found = backend(mels(n))
        assert {a.dtype for a in (found.logits, found.tag_logits, found.embeddings)} == {np.dtype(np.float32)}
        assert error(found, direct(network, mels(n))) < TOLERANCE[precision]
        assert error(found, direct(network, mels(n)[::-1].copy())) > 2 * TOLERANCE[precision]
    np.testing.assert_allclose(backend(mels(6)[2:3]).logits, backend(mels(6)).logits[2:3], atol=0.02)
    assert backend(mels(6)[:0]).logits.shape == (0, architecture.n_classes)


def test_answers_are_not_overwritten_by_the_next_call(network: MelViT) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="openvino", precision="float32")
    first = backend(mels(2))
    kept = first.logits.copy()
    backend(mels(3)[1:])
    np.testing.assert_array_equal(first.logits, kept)


def test_two_threads_get_each_its_own_answers(network: MelViT) -> None:
    """A backend that was asked for by name answers songs while it is still being measured."""
    backend = backends.create(NetworkSource.of(network), "cpu", backend="openvino", precision="float32", n_threads=1)
    batches = [mels(3), mels(5)[::-1].copy()]
    expected = [backend(batch).logits for batch in batches]

    def ask(which: int) -> list[np.ndarray]:
        return [backend(batches[which]).logits for _ in range(60)]

    with ThreadPoolExecutor(2) as pool:
        for found, wanted in zip(pool.map(ask, (0, 1)), expected, strict=True):
            for one in found:
                np.testing.assert_allclose(one, wanted, atol=1e-5)


def test_wrong_shapes_and_nan(network: MelViT) -> None:
    backend = backends.create(NetworkSource.of(network), "cpu", backend="openvino", precision="float32")
    with pytest.raises(BackendError, match=r"the network reads \(any, 32, 224\)"):
        backend(np.zeros((1, 48, 224), np.float32))
    batch = mels(2)
    batch[1, 3, 5] = np.nan
    with pytest.raises(BackendError, match="NaN or infinity"):
        backend(batch)


def test_a_kept_graph_needs_no_network_and_a_damaged_one_is_made_again(network: MelViT, tmp_path: Path) -> None:
    loads: list[int] = []

    def load() -> MelViT:
        loads.append(1)
        return network

    def votes() -> np.ndarray:
        source = NetworkSource(network.architecture, load, digest="0123456789abcdef" * 4)
        made = backends.create(source, "cpu", backend="openvino", precision="float32", folder=tmp_path)
        return made(mels(2)).logits

    expected = votes()
    assert loads == [1]
    np.testing.assert_array_equal(votes(), expected)
    assert loads == [1]
    weights = next(tmp_path.glob("*rest.bin"))
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    np.testing.assert_array_equal(votes(), expected)
    assert loads == [1, 1]
    assert not list(tmp_path.glob(".*"))  # nothing is left over


def test_a_folder_that_cannot_be_written_costs_only_time(network: MelViT, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    source = NetworkSource(network.architecture, lambda: network, digest="a" * 64)
    made = backends.create(source, "cpu", backend="openvino", precision="float32", folder=tmp_path / "file" / "below")
    np.testing.assert_allclose(made(mels(1)).logits, direct(network, mels(1)).logits, atol=1e-4)


def test_a_missing_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match="openvino cannot be imported") as caught:
        openvino.runtime()
    assert "start.sh" in caught.value.hint
    assert openvino.version() == ""


PHONES_HOME = """
import socket, sys
tried = []
def refuse(self, address, *_):
    tried.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *a, **k: tried.append(a) or (_ for _ in ()).throw(OSError("no names"))
import torch
from acoustic.network.architecture import Architecture
from acoustic.network.backends import openvino
from acoustic.network.vit import MelViT
shape = Architecture(width=32, depth=1, n_heads=1, n_mels=16, n_classes=3)
network = MelViT(shape).eval()
if sys.argv[1] == "convert":
    openvino.convert(network)
else:
    import numpy as np
    from acoustic.network.quantize import quantize
    mels = np.random.default_rng(0).normal(size=(9, 16, 224)).astype(np.float32)
    quantize(network, mels[:8], mels[8:])
import threading
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(2)
assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is None
print("tried", tried)
"""


@pytest.mark.parametrize("what", ["convert", "quantize"])
def test_nothing_phones_home(what: str) -> None:
    if what == "quantize":
        pytest.importorskip("nncf")
    done = subprocess.run([sys.executable, "-c", PHONES_HOME, what], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("tried []")
