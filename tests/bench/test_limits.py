"""Operations by formula beside torch's own counter, matrix rates, and shares of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from acoustic.network.architecture import Architecture
from acoustic.network.vit import MelViT
from bench.flops import flops
from bench.limits import rate_of, shares
from bench.matrices import chain_flops, openvino_chains, torch_products
from bench.timing import Spread

SMALL = Architecture(width=32, depth=2, n_heads=2, n_mels=96, n_classes=7)
SHAPES = {
    "patches": SMALL,
    "convolutions and mean": replace(SMALL, stem="conv", pooling="mean"),
    "all heads": replace(SMALL, n_tags=9, n_embedding=11, head_hidden=13, mlp_ratio=3.0),
    "B/16": Architecture.named("ViT-B/16"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_formula_is_what_torch_counts(shape: Architecture) -> None:
    with torch.device("meta"):
        network = MelViT(shape).eval()
        mels = torch.empty(3, shape.n_mels, 224)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(mels)
    assert counter.get_total_flops() == 3 * flops(shape)


def test_vit_b16_costs_what_the_literature_says() -> None:
    """17.6 G multiply-adds for three colours (Dosovitskiy et al.); one channel saves 2 x 196 x 512 x 768 of them."""
    assert flops(Architecture.named("ViT-B/16")) == pytest.approx(35.2e9 - 2 * 196 * 512 * 768, rel=0.01)


def test_a_rate_is_operations_by_time() -> None:
    rate = rate_of("x", "float32", 2e12, [1_000.0, 2_000.0, 4_000.0])
    assert rate.rounds == (2.0, 1.0, 0.5)
    assert (rate.tflops.median, rate.ms.median) == (1.0, 2_000.0)


def test_a_share_is_of_the_best_product_of_the_same_round() -> None:
    """The second round is twice as slow for all, and another product is the best in it."""
    products = [
        rate_of("a", "bfloat16", 1e12, [1_000.0, 4_000.0]),
        rate_of("b", "float32", 1e12, [4_000.0, 2_000.0]),
        rate_of("c", "int8", 1e12, [500.0, 1_000.0]),
    ]
    (share,) = shares(products, {8: rate_of("network", "openvino int8", 1e12, [1_000.0, 2_000.0])})
    assert share.n_segments == 8
    assert share.share == Spread(0.5, 0.5, 0.5)
    assert share.of_float == Spread(1.0, 1.0, 1.0)


def test_chains_multiply_what_their_formula_says() -> None:
    """A chain's float32 answer has the scale of its input, its int8 one is near it: the products are really done."""
    assert chain_flops(10, (4, 6, 2)) == 2 * 10 * (4 * 6 + 6 * 2)
    pytest.importorskip("openvino")
    widths, rows = (64, 96, 64), 33
    chains = {one.precision: one for one in openvino_chains(rows, 1, widths)}
    assert set(chains) == {"float32", "bfloat16", "int8"}
    for one in chains.values():
        (answer,) = one.work().values()  # type: ignore[attr-defined]
        assert answer.shape == (rows, 64)
        assert one.n_flops == chain_flops(rows, widths)
        assert 0.5 < float(np.std(answer)) < 2.0, one.precision


def test_torch_products_are_products() -> None:
    assert [one.precision for one in torch_products(64, bfloat16=False)] == ["float32"]
    for one in torch_products(64):
        product = one.work()
        assert isinstance(product, torch.Tensor)
        assert product.shape == (64, 64)
        assert str(product.dtype) == f"torch.{one.precision}"
        assert float(product.float().std()) == pytest.approx(8.0, rel=0.1)
