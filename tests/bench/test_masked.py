"""Filling in what is hidden: that the hidden is not seen, that only it counts, and that a run can go on from there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from acoustic.network.architecture import PATCH
from acoustic.network.vit import MelViT, PatchStem
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.student import new_student
from bench.masked import Masked, patches, pretrain, standardised
from tests.training.test_train import CONFIG, SHAPE, data, silent  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:  # noqa: F811
    return prepare(CONFIG, data, tmp_path_factory.mktemp("masked"), silent)


def test_patches_lie_in_the_order_of_the_tokens() -> None:
    """A stem that takes each patch's mean says so of the same patch."""
    mels = torch.randn(2, 32, 224)
    network = MelViT(dataclasses.replace(SHAPE, stem="patch")).eval()
    assert isinstance(network.stem, PatchStem)
    with torch.no_grad():
        network.stem.projection.weight.fill_(1 / PATCH**2)
        network.stem.projection.bias.zero_()  # type: ignore[union-attr]
        network.position.zero_()
        tokens = network.tokens(mels)
    assert torch.allclose(tokens[:, :, 0], patches(mels).mean(dim=2), atol=1e-5)


def test_what_is_covered_is_not_seen_and_alone_counts() -> None:
    torch.manual_seed(0)
    masked = Masked(MelViT(SHAPE)).eval()
    mels = torch.randn(1, 32, 224)
    covered = torch.zeros(1, SHAPE.n_patches, dtype=torch.bool)
    covered[0, 0] = True  # the upper left one
    said: list[torch.Tensor] = []
    masked.says.register_forward_hook(lambda module, inputs, output: said.append(output.detach()))
    hidden, shown = mels.clone(), mels.clone()
    hidden[0, :PATCH, :PATCH] += torch.randn(PATCH, PATCH)
    shown[0, -PATCH:, -PATCH:] += 5 * torch.randn(PATCH, PATCH)
    errors = [masked(m, covered).item() for m in (mels, hidden, shown)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])
    by_hand = (said[0] - standardised(patches(mels))).square().mean(dim=2)[0, 0]
    assert errors[0] == pytest.approx(by_hand.item(), rel=1e-5)
    assert errors[1] != errors[0]


def test_a_run_starts_from_what_was_filled_in(prepared: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "before"
    errors = pretrain(CONFIG, prepared, 160, folder, silent)
    assert errors[-1] < errors[0]
    fresh = new_student(prepared, CONFIG)
    started = new_student(prepared, dataclasses.replace(CONFIG, start_from=str(folder)))
    assert not torch.equal(started.network.position, fresh.network.position)
    assert started.network.tags is not None
    assert started.network.tags.bias.abs().max() == 0, "the heads begin anew"
