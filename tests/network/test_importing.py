"""Outside checkpoints: the imported model answers what the source answers, and a doubtful file is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from acoustic.errors import ModelError
from acoustic.network.importing import import_checkpoint
from acoustic.network.registry import Registry
from acoustic.records import Calibration, MelSpec

LABELS = ("Polka", "Waltz", "Tango", "Samba", "Fado")
N_MELS = 48
MEL = MelSpec(n_mels=N_MELS)


def mels(n: int = 3) -> Tensor:
    return torch.randn(n, N_MELS, 224, generator=torch.Generator().manual_seed(5))


def assert_same_answers(folder: Path, name: str, expected: Tensor) -> None:
    network, card = Registry([folder]).load(name)
    with torch.inference_mode():
        answers = network(mels())
        torch.testing.assert_close(answers.logits, expected, atol=1e-5, rtol=0)
        assert torch.equal(answers.embedding, network.pooled(mels()))
    assert expected.std() > 0.05  # a network whose answers are all alike would agree with anything
    assert (card.labels, card.tag_labels, card.mel, card.calibration) == (LABELS, (), MEL, Calibration())
    assert card.calibration.conformal_quantile is None


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter away from its initial zeros and ones, so that a forgotten or swapped tensor shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


# --- transformers ----------------------------------------------------------------------------------------------------


def hf_vit(n_channels: int = 1, **changes: Any) -> ViTForImageClassification:
    settings: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,  # not width / 64: must come from the config
        "intermediate_size": 100,  # not a whole multiple of the width
        "image_size": (N_MELS, 224),
        "num_channels": n_channels,
        "num_labels": len(LABELS),
        **changes,
    }
    model = ViTForImageClassification(ViTConfig(**settings))
    shaken(model)
    return model


def hf_answers(model: ViTForImageClassification, n_channels: int = 1) -> Tensor:
    with torch.inference_mode():
        return model(mels().unsqueeze(1).expand(-1, n_channels, -1, -1)).logits


def save_hf(model: ViTForImageClassification, folder: Path, *, new_names: bool = False) -> Path:
    model.save_pretrained(folder)
    if new_names:  # the module's own names, which transformers 5 has in memory
        tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
        safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("new_names", [False, True])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_transformers(tmp_path: Path, n_channels: int, new_names: bool) -> None:
    model = hf_vit(n_channels)
    source = save_hf(model, tmp_path / "source", new_names=new_names)
    keys = safetensors.torch.load_file(source / "model.safetensors").keys()
    assert ("vit.layers.0.attention.q_proj.weight" in keys) == new_names
    assert ("vit.encoder.layer.0.attention.attention.query.weight" in keys) != new_names
    card = import_checkpoint(source, "dances", LABELS, MEL, tmp_path / "models")
    assert_same_answers(tmp_path / "models", "dances", hf_answers(model, n_channels))
    assert card.architecture.n_heads == 3
    assert card.architecture.layer_norm_eps == 1e-12
    assert card.training["imported_from"] == "source/model.safetensors"
    assert card.training["imported_sha256"] == hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert card.training["n_channels"] == n_channels


@pytest.mark.parametrize("changes", [{"layer_norm_eps": 0.1}, {"qkv_bias": False}])
def test_what_the_config_says_counts(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = hf_vit(**changes)
    import_checkpoint(save_hf(model, tmp_path / "source"), "dances", LABELS, MEL, tmp_path)
    assert_same_answers(tmp_path, "dances", hf_answers(model))


def test_half_precision_checkpoint(tmp_path: Path) -> None:
    model = hf_vit().half()
    import_checkpoint(save_hf(model, tmp_path / "source"), "dances", LABELS, MEL, tmp_path)
    assert_same_answers(tmp_path, "dances", hf_answers(model.float()))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"model_type": "bert"}, "type 'bert', but only 'vit'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 7}, "width 48 cannot be split among 7 heads"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
        ({"image_size": 224}, r"reads images of \[224, 224\]"),
    ],
)
def test_config_that_does_not_fit(tmp_path: Path, change: dict[str, Any], cause: str) -> None:
    source = save_hf(hf_vit(), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    refused(source, tmp_path, cause)


def test_a_folder_without_config(tmp_path: Path) -> None:
    source = save_hf(hf_vit(), tmp_path / "source")
    (source / "config.json").unlink()
    refused(source, tmp_path, r"config\.json: there is no such file")


def test_the_width_in_frames_is_ours(tmp_path: Path) -> None:
    source = save_hf(hf_vit(image_size=(48, 240)), tmp_path / "source")
    refused(source, tmp_path, "45 patches, which is not rows x 14")


def test_other_patches(tmp_path: Path) -> None:
    source = save_hf(hf_vit(patch_size=8), tmp_path / "source")
    refused(source, tmp_path, r"patches of \(8, 8\)")


# --- torchvision -----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """One encoder layer under torchvision's names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, width), nn.Dropout(0.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.self_attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TorchvisionLike(nn.Module):
    """What torchvision's vit_b_16 computes, small, with its names: the reference that the import must equal."""

    def __init__(self, width: int = 128, depth: int = 2, n_channels: int = 3) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(n_channels, width, 16, 16)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 1 + N_MELS // 16 * 14, width))
        self.encoder.layers = nn.Sequential()
        for i in range(depth):
            self.encoder.layers.add_module(f"encoder_layer_{i}", Block(width, 3 * width))
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, len(LABELS)))

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        return self.heads(self.encoder.ln(self.encoder.layers(tokens + self.encoder.pos_embedding))[:, 0])


@pytest.fixture
def reference() -> TorchvisionLike:
    torch.manual_seed(2)
    model = TorchvisionLike()
    shaken(model)
    return model


def reference_answers(model: TorchvisionLike) -> Tensor:
    n_channels = model.conv_proj.in_channels
    with torch.inference_mode():
        return model(mels().unsqueeze(1).expand(-1, n_channels, -1, -1))


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "loss": 0.1},
    "data parallel": lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}},
    "older names": lambda state: {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for key, tensor in state.items()
    },
    "replaced head": lambda state: {key.replace("heads.head.", "heads."): tensor for key, tensor in state.items()},
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_torchvision(tmp_path: Path, reference: TorchvisionLike, wrapper: str) -> None:
    torch.save(WRAPPERS[wrapper](reference.state_dict()), tmp_path / "best.pth")
    card = import_checkpoint(tmp_path / "best.pth", "dances", LABELS, MEL, tmp_path / "models")
    assert_same_answers(tmp_path / "models", "dances", reference_answers(reference))
    assert (card.architecture.n_heads, card.architecture.mlp_ratio) == (2, 3.0)
    assert card.training["imported_from"] == "best.pth"


def test_torchvision_with_one_channel(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = TorchvisionLike(n_channels=1)
    shaken(model)
    torch.save(model.state_dict(), tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", "dances", LABELS, MEL, tmp_path, "torchvision")
    assert_same_answers(tmp_path, "dances", reference_answers(model))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda s: s.pop("encoder.ln.weight"), "norm.weight"),
        (lambda s: s.pop("class_token"), "cls_token"),
        (lambda s: s.pop("conv_proj.weight"), "no tensor for 'stem.projection.weight'"),
        (lambda s: s.pop("encoder.layers.encoder_layer_1.mlp.3.bias"), "layers.1.mlp.fc2.bias"),
        (lambda s: [s.pop(key) for key in list(s) if "encoder_layer_0." in key], "not numbered from 0"),
        (lambda s: s.update(surprise=torch.zeros(1)), "1 of .* tensors are not of this layout: surprise"),
        (lambda s: s.update({"heads.0.weight": s["heads.head.weight"]}), "under two names"),
        (lambda s: s.update({"conv_proj.weight": torch.zeros(128, 2, 16, 16)}), "reads 2 channels"),
        (lambda s: s.update({"conv_proj.weight": torch.zeros(100, 3, 16, 16)}), "width 100 cannot be split"),
        (lambda s: s.update({"conv_proj.weight": torch.zeros(())}), r"shape \(\), not 4 axes"),
        (lambda s: s.update({"encoder.ln.weight": torch.zeros(3)}), r"'norm\.weight' has shape \(3,\)"),
        (lambda s: s.update({"encoder.ln.weight": torch.full((128,), float("nan"))}), "NaN or infinity"),
        (
            lambda s: s.update({"encoder.layers.encoder_layer_0.self_attention.in_proj_bias": torch.zeros(5)}),
            "not query, key and value",
        ),
        (lambda s: s.update(epoch=3), "'epoch' is not a tensor"),
        (lambda s: s.clear(), "not a state dict"),
    ],
)
def test_state_dict_that_does_not_fit(
    tmp_path: Path, reference: TorchvisionLike, change: Callable[[dict[str, Any]], object], cause: str
) -> None:
    state = dict(reference.state_dict())
    change(state)
    torch.save(state, tmp_path / "best.pth")
    refused(tmp_path / "best.pth", tmp_path, cause)


class Bomb:
    """Runs code when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, reference: TorchvisionLike, plain_pickle: bool
) -> None:
    target, file = tmp_path / "exploded", tmp_path / "best.pth"
    content = {"state_dict": reference.state_dict(), "extra": Bomb(target)}
    file.write_bytes(pickle.dumps(content)) if plain_pickle else torch.save(content, file)
    refused(file, tmp_path, "cannot be read as a state dict of tensors and nothing else")
    assert not target.exists()
    torch.load(file, weights_only=False) if not plain_pickle else pickle.loads(file.read_bytes())
    assert target.exists()  # it would have gone off


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "best.pth")
    refused(tmp_path / "best.pth", tmp_path, "cannot be read as a state dict")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html>", "a web page"),
        (b"not a checkpoint", "cannot be read as a state dict"),
        (b"PK\x03\x04 cut off", "cannot be read as a state dict"),
        (b"\x80\x04.", "cannot be read as a state dict"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "best.pth").write_bytes(content)
    refused(tmp_path / "best.pth", tmp_path, cause)


# --- what the person names -------------------------------------------------------------------------------------------


def refused(source: Path, folder: Path, cause: str, **changes: Any) -> None:
    """The import fails with a ModelError that names the cause and the file, and leaves nothing behind."""
    named: dict[str, Any] = {"name": "dances", "labels": LABELS, "mel": MEL, **changes}
    destination = folder / "models"
    with pytest.raises(ModelError, match=cause) as caught:
        import_checkpoint(source, named["name"], named["labels"], named["mel"], destination)
    assert caught.value.hint
    assert not destination.exists() or list(destination.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"labels": LABELS[:4]}, "5 outputs, but 4 labels"),
        ({"labels": (*LABELS[:4], "Polka")}, "one name twice"),
        ({"mel": MelSpec(n_mels=96)}, "mels of 48 bands, but the mel spec has 96"),
        ({"name": "../dances"}, "cannot be a model's name"),
        ({"name": ""}, "cannot be a model's name"),
    ],
)
def test_what_was_named_does_not_fit(
    tmp_path: Path, reference: TorchvisionLike, changes: dict[str, Any], cause: str
) -> None:
    torch.save(reference.state_dict(), tmp_path / "best.pth")
    refused(tmp_path / "best.pth", tmp_path, cause, **changes)


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.pth", tmp_path, "no such file")


def test_a_model_is_not_overwritten(tmp_path: Path, reference: TorchvisionLike) -> None:
    torch.save(reference.state_dict(), tmp_path / "best.pth")
    import_checkpoint(tmp_path / "best.pth", "dances", LABELS, MEL, tmp_path)
    before = (tmp_path / "dances" / "card.json").read_bytes()
    with pytest.raises(ModelError, match="there is a model of that name already"):
        import_checkpoint(tmp_path / "best.pth", "dances", LABELS, MEL, tmp_path)
    assert (tmp_path / "dances" / "card.json").read_bytes() == before


def test_an_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no layout is called 'timm'"):
        import_checkpoint(tmp_path / "best.pth", "dances", LABELS, MEL, tmp_path, "timm")
