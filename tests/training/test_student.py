"""Fine-tuning: what is taken over from a model, what learns, and how fast."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acoustic.errors import SettingsError
from acoustic.network.card import ModelCard
from acoustic.network.registry import save_model
from acoustic.network.vit import Architecture, MelViT
from acoustic.records import Calibration, MelSpec, SegmentSpec
from acoustic.training.config import Source, TeacherSpec, TrainConfig
from acoustic.training.dataset import Scale
from acoustic.training.starting import check_start
from acoustic.training.student import (
    average_with_start,
    new_student,
    parameter_groups,
    set_training,
    update_average,
)

SHAPE = Architecture(width=32, depth=3, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=3)
MEL = MelSpec(sample_rate=8_000, n_fft=512, hop_length=256, n_mels=32, fmax_hz=4_000.0)
TAG_SCALE = Scale(np.asarray([1.0, -2.0]), np.asarray([0.5, 4.0]))


def config(**changes: object) -> TrainConfig:
    made = TrainConfig(
        name="made-up",
        description="",
        labels=("Low", "High", "Between"),
        sources=(Source("songs", manifest="songs.csv"),),
        teachers=(TeacherSpec("spectrum", "teacher.py"),),
        architecture=SHAPE,
        mel=MEL,
        tags=("Music", "Speech"),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def prepared(n_embedding: int = 6) -> SimpleNamespace:
    scales = (Scale(np.zeros(n_embedding), np.ones(n_embedding)), TAG_SCALE, Scale(np.zeros(0), np.ones(0)))
    return SimpleNamespace(dataset=SimpleNamespace(scales=scales))


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, MelViT]:
    """A model folder with labels and tags that only partly are the configuration's, and what it holds."""
    torch.manual_seed(5)
    network = MelViT(dataclasses.replace(SHAPE, n_classes=2, n_tags=3, n_embedding=6))
    return saved(tmp_path, network, ("High", "Forró"), ("Speech", "Guitar", "Bell")), network


def saved(folder: Path, network: MelViT, labels: tuple[str, ...], tags: tuple[str, ...]) -> Path:
    """The folder of a model that one teacher taught."""
    card = ModelCard(
        name="older",
        labels=labels,
        tag_labels=tags,
        architecture=network.architecture,
        mel=MEL,
        segments=SegmentSpec(),
        calibration=Calibration(),
        training={"teachers": {"spectrum": {}}},
        metrics={},
        licence="Apache-2.0",
        description="",
        created="2026-01-01",
        weights={},
    )
    save_model(folder / "older", network, card)
    return folder / "older"


def test_what_means_the_same_is_taken_over(model: tuple[Path, MelViT]) -> None:
    folder, network = model
    student = new_student(prepared(), config(start_from=str(folder))).network
    fresh = new_student(prepared(), config()).network
    mels = torch.randn(2, 32, 224, generator=torch.Generator().manual_seed(0))
    student.eval()
    network.eval()
    half = {"atol": 2e-2, "rtol": 2e-2}  # weights are kept in half precision
    assert torch.allclose(student.pooled(mels), network.pooled(mels), **half)
    assert torch.allclose(student(mels).embedding, network(mels).embedding, **half)
    assert torch.allclose(student(mels).logits[:, 1], network(mels).logits[:, 0], **half)  # "High"
    assert torch.equal(student.genre.weight[[0, 2]], fresh.genre.weight[[0, 2]])
    standard = (network(mels).tag_logits[:, 0] + 2.0) / 4.0  # "Speech", by its mean and deviation
    assert torch.allclose(student(mels).tag_logits[:, 1], standard, **half)
    assert torch.equal(student.tags.weight[0], fresh.tags.weight[0])


def test_other_teachers_begin_a_new_embedding(model: tuple[Path, MelViT]) -> None:
    started = new_student(prepared(), config(start_from=str(model[0]), teachers=(TeacherSpec("other", "o.py"),)))
    fresh = new_student(prepared(), config(teachers=(TeacherSpec("other", "o.py"),)))
    assert torch.equal(started.network.embedding.weight, fresh.network.embedding.weight)


@pytest.mark.parametrize(("theirs", "mine"), [(0, 16), (16, 0), (16, 16)])
def test_a_genre_head_of_another_shape_begins_anew(tmp_path: Path, theirs: int, mine: int) -> None:
    network = MelViT(dataclasses.replace(SHAPE, n_tags=2, n_embedding=6, head_hidden=theirs))
    folder = saved(tmp_path, network, config().labels, config().tags)
    shape = dataclasses.replace(SHAPE, head_hidden=mine)
    started = new_student(prepared(), config(start_from=str(folder), architecture=shape)).network
    fresh = new_student(prepared(), config(architecture=shape)).network
    expected = network if theirs == mine else fresh
    for a, b in zip(started.genre.parameters(), expected.genre.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)
    assert torch.allclose(started.layers[0].mlp.fc1.weight, network.layers[0].mlp.fc1.weight, atol=2e-3)


def test_a_model_of_another_shape_is_refused(model: tuple[Path, MelViT]) -> None:
    wider = config(start_from=str(model[0]), architecture=dataclasses.replace(SHAPE, depth=2))
    with pytest.raises(SettingsError, match="depth = 3, not 2"):
        new_student(prepared(), wider)
    other_mels = config(start_from=str(model[0]), mel=dataclasses.replace(MEL, hop_length=128))
    with pytest.raises(SettingsError, match="other mels"):
        new_student(prepared(), other_mels)


def test_a_student_may_be_a_multiple_as_wide_as_the_model(model: tuple[Path, MelViT]) -> None:
    folder, network = model
    wide = dataclasses.replace(SHAPE, width=64, n_heads=4)
    student = new_student(prepared(), config(start_from=str(folder), architecture=wide)).network.eval()
    mels = torch.randn(2, 32, 224, generator=torch.Generator().manual_seed(0))
    half = {"atol": 2e-2, "rtol": 2e-2}
    assert torch.allclose(student.pooled(mels), network.eval().pooled(mels).repeat(1, 2), **half)
    assert torch.allclose(student(mels).embedding, network(mels).embedding, **half)
    odd = dataclasses.replace(SHAPE, width=64)  # its heads are wider, not more
    with pytest.raises(SettingsError, match="width = 32, not 64"):
        new_student(prepared(), config(start_from=str(folder), architecture=odd))


def test_a_run_may_keep_a_share_of_what_it_started_from(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = MelViT(dataclasses.replace(SHAPE, n_tags=2, n_embedding=6))
    names = config().labels, config().tags
    kept = config(start_from=str(saved(tmp_path, network, *names)), start_share=0.25)
    start, student = new_student(prepared(), kept).network.state_dict(), new_student(prepared(), kept)
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter.add_(1.0)
    average_with_start(student, prepared(), kept)  # type: ignore[arg-type]
    for name, parameter in student.network.named_parameters():
        assert torch.allclose(parameter, start[name] + 0.75, atol=1e-6), name
    before = {k: v.clone() for k, v in student.state_dict().items()}
    average_with_start(student, prepared(), config())  # type: ignore[arg-type]
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_a_mean_with_a_model_of_other_labels_or_another_width_is_refused(
    model: tuple[Path, MelViT], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    same = saved(
        tmp_path / "same", MelViT(dataclasses.replace(SHAPE, n_tags=2, n_embedding=6)), config().labels, config().tags
    )
    wide = dataclasses.replace(SHAPE, width=64, n_heads=4)
    for refused in (
        config(start_from=str(model[0]), start_share=0.5),
        config(start_from=str(same), start_share=0.5, architecture=wide),
        config(start_from=str(same), start_share=0.5, teachers=(TeacherSpec("other", "o.py"),)),
        config(start_from=str(same), start_share=0.5, architecture=dataclasses.replace(SHAPE, head_hidden=8)),
    ):
        with pytest.raises(SettingsError, match="start_share: older has other labels"):
            check_start(refused)
    kept = config(start_from=str(same), start_share=0.5)
    check_start(kept)
    with pytest.raises(SettingsError, match="start_share: older has an embedding of 6, the teachers one of 8"):
        new_student(prepared(n_embedding=8), kept)


@pytest.mark.parametrize(("n", "learning"), [(0, set()), (1, {2}), (3, {0, 1, 2})])
def test_only_the_last_layers_and_the_heads_learn(n: int, learning: set[int]) -> None:
    student = new_student(prepared(), config(trainable_blocks=n))
    layers = student.network.layers
    assert {i for i in range(3) if all(p.requires_grad for p in layers[i].parameters())} == learning
    assert not any(p.requires_grad for i in range(3) if i not in learning for p in layers[i].parameters())
    assert not any(p.requires_grad for p in student.network.stem.parameters())
    assert student.network.genre.weight.requires_grad
    optimizer = torch.optim.AdamW(parameter_groups(student, config(trainable_blocks=n)), lr=0.1)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    set_training(student)
    student(torch.randn(4, 32, 224))[0].logits.square().mean().backward()
    optimizer.step()
    moved = {k for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert "network.genre.weight" in moved
    assert not any(name.startswith(("network.stem", "network.position")) for name in moved)
    assert {int(name.split(".")[2]) for name in moved if name.startswith("network.layers.")} == learning


def test_deeper_layers_learn_slower() -> None:
    student = new_student(prepared(), config(layer_decay=0.5))
    groups = parameter_groups(student, config(layer_decay=0.5))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(student.parameters()))
    network = student.network
    assert scale[id(network.genre.weight)] == 1.0
    assert scale[id(network.norm.weight)] == 1.0
    assert [scale[id(next(layer.parameters()))] for layer in network.layers] == [0.125, 0.25, 0.5]
    assert scale[id(network.position)] == scale[id(next(network.stem.parameters()))] == 0.0625


def test_biases_norms_and_positions_do_not_decay() -> None:
    student = new_student(prepared(), config(weight_decay=0.3))
    decay = {
        id(p): group["weight_decay"]
        for group in parameter_groups(student, config(weight_decay=0.3))
        for p in group["params"]
    }
    for name, parameter in student.named_parameters():
        matrix = parameter.ndim > 1 and "position" not in name
        assert decay[id(parameter)] == (0.3 if matrix else 0.0), name


def test_recomputed_layers_give_the_same_gradients() -> None:
    kept, recomputed = (new_student(prepared(), config(checkpoint_layers=c)) for c in (False, True))
    mels = torch.randn(3, 32, 224, generator=torch.Generator().manual_seed(1))
    for student in (kept, recomputed):
        student.train()
        student(mels)[0].logits.square().sum().backward()
    for (name, a), b in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_the_average_follows_slowly() -> None:
    module = torch.nn.Linear(2, 2)
    average = {k: torch.zeros_like(v) for k, v in module.state_dict().items()}
    update_average(average, module, 0.9)
    assert torch.allclose(average["weight"], 0.1 * module.weight)
