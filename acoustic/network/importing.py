"""Checkpoints from outside -> models of ours: converted key by key, every key accounted for, saved as safetensors.

Two layouts are read. `transformers`: a folder with config.json and model.safetensors of a ViTForImageClassification,
with the key names of transformers 4 or 5. `torchvision`: a PyTorch state dict of `vit_b_16` and its sisters, fine-tuned
on mels; it is unpickled with `weights_only=True`, so that tensors are all that it can hold.

Networks that read three channels become one-channel networks: the sum of the three filters answers exactly as the
original does when the same mel is fed to all three.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..records import N_FRAMES, Calibration, MelSpec, SegmentSpec
from . import weights
from .card import NAME, ModelCard
from .registry import save_model
from .vit import PATCH, Architecture

LAYOUTS = ("auto", "transformers", "torchvision")

TORCHVISION_EPS = 1e-6
TRANSFORMERS_EPS = 1e-12  # ViTConfig's default, where config.json does not say
HEAD_WIDTH = 64  # of every published ViT with 16 x 16 patches; torchvision's state dicts do not say
SOURCE_WEIGHTS = "model.safetensors"
SOURCE_CONFIG = "config.json"

_HINT = "Check that the file is the checkpoint that you mean, and that it is complete."

# Keys of a layout (regular expression) -> names of MelViT; "" marks tensors that have no part in the genre logits.
# "qkv" is query, key and value in one matrix.
_TRANSFORMERS_KEYS = {
    r"vit\.embeddings\.cls_token": "cls_token",
    r"vit\.embeddings\.position_embeddings": "position",
    r"vit\.embeddings\.patch_embeddings\.projection\.(weight|bias)": r"stem.projection.\1",
    r"vit\.embeddings\.mask_token": "",
    r"vit\.pooler\..*": "",
    r"vit\.(?:encoder\.layer|layers)\.(\d+)\.(layernorm_before|layernorm_after)\.(weight|bias)": r"layers.\1.\2.\3",
    r"vit\.encoder\.layer\.(\d+)\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.(weight|bias)": (
        r"layers.\1.attention.\2_proj.\3"
    ),
    r"vit\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)": r"layers.\1.attention.o_proj.\2",
    r"vit\.encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)": r"layers.\1.mlp.fc1.\2",
    r"vit\.encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
    r"vit\.layers\.(\d+)\.attention\.([qkvo]_proj)\.(weight|bias)": r"layers.\1.attention.\2.\3",
    r"vit\.layers\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)": r"layers.\1.mlp.\2.\3",
    r"vit\.layernorm\.(weight|bias)": r"norm.\1",
    r"classifier\.(weight|bias)": r"genre.\1",
}
_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
_TORCHVISION_KEYS = {
    r"class_token": "cls_token",
    r"encoder\.pos_embedding": "position",
    r"conv_proj\.(weight|bias)": r"stem.projection.\1",
    _LAYER + r"ln_1\.(weight|bias)": r"layers.\1.layernorm_before.\2",
    _LAYER + r"ln_2\.(weight|bias)": r"layers.\1.layernorm_after.\2",
    _LAYER + r"self_attention\.in_proj_(weight|bias)": r"layers.\1.attention.qkv.\2",
    _LAYER + r"self_attention\.out_proj\.(weight|bias)": r"layers.\1.attention.o_proj.\2",
    _LAYER + r"mlp\.(?:0|linear_1)\.(weight|bias)": r"layers.\1.mlp.fc1.\2",  # linear_N: torchvision before 0.13
    _LAYER + r"mlp\.(?:3|linear_2)\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
    r"encoder\.ln\.(weight|bias)": r"norm.\1",
    r"heads(?:\.head|\.0)?\.(weight|bias)": r"genre.\1",
}


def import_checkpoint(
    source: Path,
    name: str,
    labels: Sequence[str],
    mel: MelSpec,
    destination: Path,
    layout: str = "auto",
    *,
    licence: str = "not stated",
    description: str = "",
) -> ModelCard:
    """Convert the checkpoint `source` into the new model `destination`/`name`, float32; returns its card.

    `labels` are the classes in the order of the checkpoint's outputs; `mel` is how its input was made, with as many
    bands as its position table has rows of pixels. Raises ModelError, naming file and cause.
    """
    source, folder = Path(source), Path(destination) / name
    if not NAME.fullmatch(name):
        raise ModelError(f"{name!r} cannot be a model's name", "Use letters, digits, '.', '_', '+' and '-'.")
    if folder.exists():
        raise ModelError(f"{folder}: there is a model of that name already", "Choose another name, or remove it first.")
    if layout not in LAYOUTS:
        raise ModelError(f"no layout is called {layout!r}", f"Layouts: {', '.join(LAYOUTS)}.")
    if layout == "auto":
        layout = "transformers" if source.is_dir() else "torchvision"
    file = source / SOURCE_WEIGHTS if layout == "transformers" else source
    if layout == "transformers":
        config = _read_config(source / SOURCE_CONFIG)
        given = weights.read(file)
        tensors = _rename(given, _TRANSFORMERS_KEYS, file)
    else:
        config = {}
        given = _read_torch(file)
        tensors = _rename(given, _TORCHVISION_KEYS, file)
    tensors = _one_channel(_split_qkv({key: _as_float32(tensor) for key, tensor in tensors.items()}, file), file)
    if config.get("qkv_bias") is False:  # the same as biases of zero, which our layers have
        tensors |= _zero_qkv_biases(tensors)
    architecture = _deduce(tensors, config, file)
    _check_fit(architecture, labels, mel, config, file)
    card = ModelCard(
        name=name,
        labels=tuple(labels),
        tag_labels=(),
        architecture=architecture,
        mel=mel,
        segments=SegmentSpec(),
        calibration=Calibration(),
        training={
            "imported_from": file.name if source == file else f"{source.resolve().name}/{file.name}",
            "imported_sha256": hashlib.sha256(weights.read_bytes(file)).hexdigest(),
            "layout": layout,
            "n_channels": _n_channels(given),
        },
        metrics={},
        licence=licence,
        description=description or f"Imported from a checkpoint in {layout}'s layout; not calibrated.",
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        weights={},
    )
    return save_model(folder, weights.build(architecture, tensors, file), card, torch.float32)


# --- reading ---


def _read_config(file: Path) -> dict[str, Any]:
    """transformers' config.json, checked for what MelViT cannot do."""
    try:
        config = json.loads(weights.read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: is not JSON: {error}", _HINT) from error
    if not isinstance(config, dict) or config.get("model_type") != "vit":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise ModelError(f"{file}: describes a model of type {kind!r}, but only 'vit' can be imported")
    if config.get("hidden_act", "gelu") != "gelu":
        raise ModelError(f"{file}: hidden_act is {config['hidden_act']!r}, but only 'gelu' can be imported")
    heads, eps = config.get("num_attention_heads"), config.setdefault("layer_norm_eps", TRANSFORMERS_EPS)
    if type(heads) is not int or heads < 1:
        raise ModelError(f"{file}: num_attention_heads is {heads!r}, but must be a positive integer")
    if type(eps) not in (int, float) or not 0 < eps < 1:
        raise ModelError(f"{file}: layer_norm_eps is {eps!r}, but must lie between 0 and 1")
    return config


def _read_torch(file: Path) -> dict[str, Tensor]:
    """The state dict in a PyTorch file: bare, or under "state_dict" or "model"; wrappers' prefixes are taken off."""
    data = weights.read_bytes(file)
    foreign = weights.foreign_kind(data)
    if foreign and "pickle" not in foreign[0]:
        raise ModelError(f"{file}: is {foreign[0]}, not a PyTorch checkpoint", foreign[1])
    if file.suffix == ".safetensors":
        return weights.read(file)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # a hostile or damaged file makes torch raise nearly any type; none may pass untranslated
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{file}: cannot be read as a state dict of tensors and nothing else ({type(error).__name__}: {reason})",
            "Save it again with torch.save(model.state_dict(), ...). Files that hold other objects are refused, "
            "because opening them could run code.",
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file}: holds {type(content).__name__}, not a state dict", _HINT)
    wrong = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if wrong:
        raise ModelError(f"{file}: {wrong[0]!r} is not a tensor, so this is no state dict", _HINT)
    tensors = dict(content)
    for prefix in ("module.", "_orig_mod.", "model."):  # DataParallel, torch.compile, a wrapping module
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


# --- converting ---


def _rename(tensors: Mapping[str, Tensor], table: Mapping[str, str], file: Path) -> dict[str, Tensor]:
    """The tensors under MelViT's names; ModelError for keys that the table does not know, or that meet in one name."""
    patterns = [(re.compile(pattern), name) for pattern, name in table.items()]
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        name = next((match.expand(new) for pattern, new in patterns if (match := pattern.fullmatch(key))), None)
        if name is None:
            unknown.append(key)
        elif name in renamed:
            raise ModelError(f"{file}: {key!r} is there under two names", _HINT)
        elif name:
            renamed[name] = tensor
    if unknown:
        shown = ", ".join(sorted(unknown)[:4]) + (" ..." if len(unknown) > 4 else "")
        raise ModelError(
            f"{file}: {len(unknown)} of {len(tensors)} tensors are not of this layout: {shown}",
            "Only plain ViT classifiers with a linear head can be imported; is the layout the right one?",
        )
    return renamed


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _split_qkv(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """nn.MultiheadAttention's stacked rows (query, key, value) -> three tensors."""
    result: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if ".qkv." not in key:
            result[key] = tensor
            continue
        if tensor.ndim < 1 or len(tensor) % 3:
            raise ModelError(f"{file}: {key!r} of shape {tuple(tensor.shape)} is not query, key and value", _HINT)
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            result[key.replace(".qkv.", f".{letter}_proj.")] = part
    return result


def _n_channels(tensors: Mapping[str, Tensor]) -> int:
    return next(tensor.shape[1] for tensor in tensors.values() if tensor.ndim == 4)


def _one_channel(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The first convolution summed over its one or three input channels (in float64: the sum is rounded once)."""
    filters = _tensor(tensors, "stem.projection.weight", 4, file)
    if filters.shape[1] not in (1, 3):
        raise ModelError(f"{file}: reads {filters.shape[1]} channels, but only one or three can be imported")
    if filters.shape[2:] != (PATCH, PATCH):
        raise ModelError(
            f"{file}: has patches of {tuple(filters.shape[2:])}, but only ({PATCH}, {PATCH}) can be imported"
        )
    summed = filters.to(torch.float64).sum(dim=1, keepdim=True).to(torch.float32)
    return {**tensors, "stem.projection.weight": summed}


def _zero_qkv_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    suffix = "_proj.weight"
    names = [key for key in tensors if key.endswith(suffix) and not key.endswith(f"o{suffix}")]
    return {key.removesuffix("weight") + "bias": torch.zeros(len(tensors[key])) for key in names}


def _deduce(tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> Architecture:
    """The architecture from the tensors' shapes; heads and epsilon from the config, else torchvision's."""
    width = len(_tensor(tensors, "stem.projection.weight", 4, file))
    layers = {int(key.split(".")[1]) for key in tensors if key.startswith("layers.")}
    if layers != set(range(len(layers))) or not layers:
        raise ModelError(f"{file}: its layers are not numbered from 0 without a gap: {sorted(layers)[:20]}", _HINT)
    n_patches = _tensor(tensors, "position", 3, file).shape[1] - 1
    columns = N_FRAMES // PATCH
    if n_patches < columns or n_patches % columns:
        raise ModelError(
            f"{file}: its position table has {n_patches} patches, which is not rows x {columns}",
            f"Only networks whose input is {N_FRAMES} frames wide can be imported.",
        )
    n_heads = config.get("num_attention_heads", width // HEAD_WIDTH)
    if n_heads < 1 or width % n_heads or (not config and width % HEAD_WIDTH):
        raise ModelError(f"{file}: its width {width} cannot be split among {n_heads} heads", _HINT)
    hidden = len(_tensor(tensors, "layers.0.mlp.fc1.weight", 2, file))
    return Architecture(
        width=width,
        depth=len(layers),
        n_heads=n_heads,
        mlp_ratio=_ratio(width, hidden),
        n_mels=n_patches // columns * PATCH,
        n_classes=len(_tensor(tensors, "genre.weight", 2, file)),
        layer_norm_eps=float(config.get("layer_norm_eps", TORCHVISION_EPS)),
    )


def _ratio(width: int, hidden: int) -> float:
    """The ratio that gives `hidden` again when it is multiplied by `width` and cut to an integer."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _tensor(tensors: Mapping[str, Tensor], name: str, n_dims: int, file: Path) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelError(f"{file}: has no tensor for {name!r}", _HINT)
    if tensor.ndim != n_dims or 0 in tensor.shape:
        raise ModelError(f"{file}: the tensor for {name!r} has shape {tuple(tensor.shape)}, not {n_dims} axes", _HINT)
    return tensor


def _check_fit(
    architecture: Architecture, labels: Sequence[str], mel: MelSpec, config: Mapping[str, Any], file: Path
) -> None:
    """What the person named against what the checkpoint has."""
    if len(labels) != architecture.n_classes:
        raise ModelError(
            f"{file}: its classifier has {architecture.n_classes} outputs, but {len(labels)} labels were named",
            "Name one label an output, in the checkpoint's order.",
        )
    size = config.get("image_size", [architecture.n_mels, N_FRAMES])
    size = [size, size] if isinstance(size, int) else list(size)
    if size != [architecture.n_mels, N_FRAMES]:
        raise ModelError(
            f"{file}: reads images of {size} (height, width), but the width must be {N_FRAMES} frames",
            f"Only networks whose input is {N_FRAMES} frames wide can be imported.",
        )
    if mel.n_mels != architecture.n_mels:
        raise ModelError(
            f"{file}: reads mels of {architecture.n_mels} bands, but the mel spec has {mel.n_mels}",
            f"Name the mel spec with which the checkpoint was trained: n_mels = {architecture.n_mels}.",
        )
