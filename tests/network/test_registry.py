"""The registry: what is saved is loaded again, and whatever else lies in the folder is refused by name and cause."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from acoustic.errors import ModelError
from acoustic.network import weights
from acoustic.network.card import ModelCard
from acoustic.network.registry import Registry, save_model
from acoustic.network.vit import MelViT

WEIGHTS = "model.safetensors"


def sign(folder: Path) -> None:
    """Make the card state the checksums of the files as they are."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["weights"] = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.safetensors")}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors and sign the result, so that only the change itself can be the reason of a refusal."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    sign(folder)


def answers(network: MelViT) -> Tensor:
    mels = torch.randn(2, 32, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.cat(network(mels), dim=1)


# --- saving and loading --------------------------------------------------------------------------------------------


def test_float32_round_trip_is_exact(registry: Registry, network: MelViT, card: ModelCard) -> None:
    loaded, loaded_card = registry.load("small")
    assert torch.equal(answers(loaded), answers(network))
    assert loaded_card == dataclasses.replace(card, weights=loaded_card.weights)
    assert not loaded.training


def test_float16_on_disk_is_float32_in_memory(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    save_model(tmp_path / "small", network, card)
    stored = safetensors.torch.load_file(tmp_path / "small" / WEIGHTS)
    loaded, _ = Registry([tmp_path]).load("small")
    matrix = "layers.0.mlp.fc1.weight"
    assert stored[matrix].dtype == torch.float16
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.state_dict()[matrix], network.state_dict()[matrix].half().float())
    torch.testing.assert_close(answers(loaded), answers(network), atol=5e-3, rtol=0)


def test_a_small_variance_survives_float16(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    network.stem.layers[1].running_var.fill_(1e-9)  # float16 ends at 6e-8
    save_model(tmp_path / "small", network, card)
    loaded, _ = Registry([tmp_path]).load("small")
    assert torch.equal(loaded.stem.layers[1].running_var, network.stem.layers[1].running_var)


def test_batch_counters_are_neither_stored_nor_needed(registry: Registry, models: Path) -> None:
    assert not any("num_batches" in key for key in safetensors.torch.load_file(models / "small" / WEIGHTS))
    change_tensors(
        models / "small", lambda tensors: tensors.update({"stem.layers.1.num_batches_tracked": torch.tensor(7)})
    )
    loaded, _ = registry.load("small")
    assert int(loaded.stem.layers[1].num_batches_tracked) == 0


def test_shards(tmp_path: Path, network: MelViT, card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_FILE_BYTES", 2**20 + 100_000)
    saved = save_model(tmp_path / "small", network, card, torch.float32)
    assert len(saved.weights) > 1
    assert max((tmp_path / "small" / name).stat().st_size for name in saved.weights) <= 2**20 + 100_000
    loaded, _ = Registry([tmp_path]).load("small")
    assert torch.equal(answers(loaded), answers(network))
    (tmp_path / "small" / min(saved.weights)).unlink()
    with pytest.raises(ModelError, match=r"model-00001-of-0000.*no such file"):
        Registry([tmp_path]).load("small")


def test_one_tensor_in_two_shards(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    folder = tmp_path / "small"
    save_model(folder, network, card)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(data)
    sign(folder)
    with pytest.raises(ModelError, match=r"model-00002-of-00002.*is in another shard"):
        Registry([tmp_path]).load("small")


def test_saving_again_replaces_the_model(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    save_model(tmp_path / "small", network, card)
    before = answers(Registry([tmp_path]).load("small")[0])
    with torch.no_grad():
        network.genre.bias += 1
    save_model(tmp_path / "small", network, card)
    after = answers(Registry([tmp_path]).load("small")[0])
    torch.testing.assert_close(after[:, :3] - before[:, :3], torch.ones(2, 3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(
    tmp_path: Path, network: MelViT, card: ModelCard
) -> None:
    for left in ("new", "old"):
        (tmp_path / f".small.{os.getpid()}.{left}").mkdir()
        (tmp_path / f".small.{os.getpid()}.{left}" / "card.json").touch()
    for _ in range(2):
        save_model(tmp_path / "small", network, card)
    assert Registry([tmp_path]).names() == ("small",)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    save_model(tmp_path / "small", network, card)
    with torch.no_grad():
        network.genre.weight.fill_(1e6)  # does not fit into float16
    with pytest.raises(ModelError, match=r"genre\.weight.*float16"):
        save_model(tmp_path / "small", network, card)
    assert Registry([tmp_path]).load("small")[1].name == "small"
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "holiday.mp3").write_bytes(b"music")
    with pytest.raises(ModelError, match=r"holiday\.mp3"):
        save_model(tmp_path / "small", network, card)
    assert (tmp_path / "small" / "holiday.mp3").read_bytes() == b"music"


def test_the_card_must_be_the_networks(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    other = dataclasses.replace(card, architecture=dataclasses.replace(card.architecture, depth=3))
    with pytest.raises(ModelError, match="architecture is not the network's"):
        save_model(tmp_path / "small", network, other)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (lambda data: b"\n<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (lambda data: b"PK\x03\x04" + data, "a PyTorch pickle"),
        (lambda data: data[:4], "cut off"),
        (lambda data: data[:100], "cut off"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: data + b"\0", "foreign bytes"),
        (lambda data: data[:8] + b"?" + data[9:], "header is damaged"),
        (lambda data: b"\xff" * 8 + data[8:], "cut off or damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "SHA-256"),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_damaged_weights(
    registry: Registry, models: Path, damage: Callable[[bytes], bytes], cause: str, signed: bool
) -> None:
    """Named for what they are even if the card states their checksum."""
    file = models / "small" / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    if signed:
        sign(models / "small")
        if cause == "SHA-256":  # a flipped bit that is signed is only another number
            return
    with pytest.raises(ModelError, match=cause) as caught:
        registry.load("small")
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda t: t.pop("norm.weight"), "1 tensors are missing: norm.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "not the architecture's: extra"),
        (lambda t: t.update({"norm.weight": torch.ones(63)}), r"'norm\.weight' has shape \(63,\).*\(64,\)"),
        (lambda t: t.update({"norm.weight": torch.ones(64, dtype=torch.int8)}), "is torch.int8"),
        (lambda t: t["norm.weight"].fill_(float("nan")), "NaN or infinity"),
        (lambda t: t.update({"genre.weight": torch.ones(4, 64), "genre.bias": torch.ones(4)}), r"\(4,.*\(3,"),
    ],
)
def test_foreign_tensors(
    registry: Registry, models: Path, change: Callable[[dict[str, Tensor]], object], cause: str
) -> None:
    change_tensors(models / "small", change)
    with pytest.raises(ModelError, match=cause) as caught:
        registry.load("small")
    assert str(models / "small" / WEIGHTS) in caught.value.message


def test_more_labels_than_outputs(registry: Registry, models: Path) -> None:
    file = models / "small" / "card.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    card["labels"].append("Polka")
    file.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match="labels names 4 classes, but the architecture has 3"):
        registry.load("small")
    assert registry.cards() == ()
    assert list(registry.broken()) == ["small"]


# --- finding ---------------------------------------------------------------------------------------------------------


def test_search_order(tmp_path: Path, network: MelViT, card: ModelCard) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    save_model(ours / "small", network, dataclasses.replace(card, description="ours"))
    save_model(theirs / "small", network, dataclasses.replace(card, description="theirs"))
    save_model(theirs / "another", network, dataclasses.replace(card, name="another"))
    registry = Registry([tmp_path / "absent", ours, theirs])
    assert registry.names() == ("small", "another")
    assert [card.name for card in registry.cards()] == ["small", "another"]
    assert registry.card("small").description == "ours"
    assert registry.card().description == "ours"
    assert registry.card(theirs / "small").description == "theirs"
    assert registry.card(str(theirs / "small")).description == "theirs"


@pytest.mark.parametrize("name", ["..", ".", "absent", "small\0", ".hidden", "SMALL "])
def test_a_name_is_not_a_path(registry: Registry, models: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no model is called"):
        registry.load(name)


def test_a_path_is_not_joined_to_the_folders(
    registry: Registry, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="is not a model's folder"):
        Registry([models / "sub"]).load("../small")
    assert registry.card("./models/small").name == "small"


def test_folder_and_card_agree_on_the_name(registry: Registry, models: Path) -> None:
    (models / "small").rename(models / "large")
    with pytest.raises(ModelError, match="calls itself 'small', but its folder is 'large'"):
        registry.load("large")


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model in"):
        Registry([tmp_path]).load()
