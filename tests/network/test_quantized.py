"""int8: made by NNCF on mels, kept with what it costs, and refused where it is not what it should be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from acoustic.errors import BackendError, ModelError
from acoustic.network import backends, quantized
from acoustic.network.backends.choice import Rival
from acoustic.network.backends.measuring import MIN_COSINE, MIN_INT8_COSINE
from acoustic.network.quantized import Cost, Quantized
from acoustic.network.source import NetworkSource
from acoustic.network.vit import MelViT
from tests.network_answers import made_mels

COST = Cost(140, True, 0.7, 0.69, 0.95, 0.991, 0.9991, "made up")
DIGEST = "d" * 64
GRAPHS = Quantized((b"<a/>", b"\x00\x01\xff"), (b"<b/>", b"\x02"), COST)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return quantized.file_of(tmp_path / "small")


def test_what_is_written_is_read(file: Path) -> None:
    quantized.write(file, GRAPHS, DIGEST)
    found = quantized.read(file, DIGEST)
    assert found == GRAPHS
    assert found.cost.loss == pytest.approx(0.01)
    assert "0.700 to 0.690 of 140 segments" in found.cost.told()
    assert file.name == "small.int8.safetensors"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_gain_is_no_loss() -> None:
    assert dataclasses.replace(COST, accuracy_int8=0.8).loss == 0.0


def test_a_handful_of_segments_tells_no_loss() -> None:
    """Three songs on which both agree say nothing of one point in a hundred: such a graph must be as near as others."""
    assert dataclasses.replace(COST, n=4, accuracy=1.0, accuracy_int8=1.0).loss is None
    assert Rival("openvino", "int8", object, dataclasses.replace(COST, n=4).loss).min_cosine == MIN_COSINE
    assert Rival("openvino", "int8", object, COST.loss).min_cosine == MIN_INT8_COSINE


def test_what_cannot_be_believed_is_refused(file: Path) -> None:
    quantized.write(file, GRAPHS, DIGEST)
    with pytest.raises(ModelError, match="made of other weights"):
        quantized.read(file, "e" * 64)
    whole = file.read_bytes()
    for broken in (b"", whole[:40], b"version https://git-lfs"):
        file.write_bytes(broken)
        with pytest.raises(ModelError, match="not a sound int8 graph"):
            quantized.read(file, DIGEST)
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(ModelError, match="SHA-256"):
        quantized.read(file, DIGEST)
    assert quantized.read_cost(file, DIGEST) == COST  # the header is whole
    for cost in ('{"n": "many"}', "[" * 100_000, "7"):
        header = {"weights_digest": DIGEST, "sha256": "0", "cost": cost}
        file.write_bytes(safetensors.numpy.save({"x": np.zeros(1, np.uint8)}, header))
        with pytest.raises(ModelError, match="not a sound int8 graph"):
            quantized.read_cost(file, DIGEST)
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        quantized.read(file, DIGEST)


def test_a_graph_of_other_weights_is_told_when_it_is_asked_for(network: MelViT, file: Path) -> None:
    quantized.write(file, GRAPHS, DIGEST)
    source = NetworkSource(network.architecture, lambda: network, "e" * 64, file)
    with pytest.raises(BackendError, match="made of other weights"):
        backends.create(source, "cpu", backend="openvino", precision="int8")


def test_a_network_is_quantized_and_used(network: MelViT, file: Path) -> None:
    pytest.importorskip("nncf")
    from acoustic.network.quantize import quantize

    mels = made_mels(24)
    with pytest.raises(BackendError, match="3 segments to calibrate with"):
        quantize(network, mels[:3], mels)
    made = quantize(network, mels[:16], mels[16:], np.zeros(8, dtype=np.int64), about="probes")
    assert (made.cost.n, made.cost.labelled, made.cost.about) == (8, True, "probes")
    assert made.cost.mean_cosine > 0.95
    assert b"FakeQuantize" in made.rest[0]
    quantized.write(file, made, DIGEST)
    source = NetworkSource(network.architecture, lambda: network, DIGEST, file)
    int8 = backends.create(source, "cpu", backend="openvino", precision="int8", n_threads=1)
    exact = backends.create(source, "cpu", backend="eager", precision="float32")
    assert int8.precision == "int8"
    assert 0 < np.abs(int8(mels).logits - exact(mels).logits).mean() < 4  # of 16: random weights do not bear it well
