"""Models on disk <-> (network, card).

A model is a folder with `card.json` and the weights that the card names. It is found by its name in the registry's
folders, the first that has it, or given as an explicit path; its weights are verified whenever they are loaded.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..settings import PROJECT_ROOT, Settings
from . import quantized
from .card import CARD_FILE, NAME, WEIGHT_FILE, ModelCard
from .source import NetworkSource

if TYPE_CHECKING:  # who only reads cards does not wait for torch
    import torch

    from .vit import MelViT

EMBEDDED_MODEL = "mel-vit-small"


def model_folders(settings: Settings) -> tuple[Path, Path]:
    """Where models are looked for: those that ship, then the person's own."""
    return PROJECT_ROOT / "models", settings.data_folder() / "models"


class Registry:
    """The models in `folders`, in the order of search: usually the project's own, then the person's."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(Path(folder) for folder in folders)

    def names(self) -> tuple[str, ...]:
        """Names of all models, in the order of search; a name that is found twice is its first folder's."""
        names: dict[str, None] = {}
        for folder in self.folders:
            try:
                entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            except OSError as error:
                raise ModelError(f"{folder}: cannot be read: {error.strerror or error}") from error
            names |= {name: None for name in entries if NAME.fullmatch(name) and (folder / name / CARD_FILE).exists()}
        return tuple(names)

    def cards(self) -> tuple[ModelCard, ...]:
        """The cards of all models whose card is sound; `broken` says what is wrong with the others."""
        found = (self._card_or_error(name) for name in self.names())
        return tuple(card for card in found if isinstance(card, ModelCard))

    def broken(self) -> dict[str, ModelError]:
        """Why a model's card cannot be used, by name."""
        found = {name: self._card_or_error(name) for name in self.names()}
        return {name: error for name, error in found.items() if isinstance(error, ModelError)}

    def _card_or_error(self, name: str) -> ModelCard | ModelError:
        try:
            return self.card(name)
        except ModelError as error:
            return error

    def find(self, name_or_folder: str | Path = "") -> Path:
        """The folder of a model: "" is the first model, a plain name is looked up, anything with a separator is a path.

        ModelError if there is none. A name never leads out of the registry's folders.
        """
        text = os.fspath(name_or_folder)
        if isinstance(name_or_folder, Path) or any(sep in text for sep in (os.sep, os.altsep) if sep):
            folder = Path(text).expanduser()
            if not (folder / CARD_FILE).is_file():
                raise ModelError(f"{folder}: is not a model's folder: it holds no {CARD_FILE}")
            return folder
        names = self.names()
        if not text and names:
            text = names[0]
        if text not in names:
            wanted = f"no model is called {text!r}" if text else "there is no model"
            known = f"The models are: {', '.join(names)}." if names else ""
            raise ModelError(f"{wanted} in {', '.join(map(str, self.folders)) or 'no folder at all'}", known)
        return next(f / text for f in self.folders if (f / text / CARD_FILE).exists())

    def card(self, name_or_folder: str | Path = "") -> ModelCard:
        """The card of a model, checked by itself but not against the weights."""
        folder = self.find(name_or_folder)
        card = ModelCard.read(folder)
        if folder.parent in self.folders and card.name != folder.name:
            raise ModelError(
                f"{folder / CARD_FILE}: the model calls itself {card.name!r}, but its folder is {folder.name!r}",
                "Give the folder the name that the card states.",
            )
        return card

    def load(self, name_or_folder: str | Path = "") -> tuple[MelViT, ModelCard]:
        """(network in eval mode, float32, on the CPU; card), verified: checksums, names, shapes and finite values.

        Raises ModelError naming file and cause.
        """
        source, card = self.source(name_or_folder)
        return source.network(), card

    def source(self, name_or_folder: str | Path = "") -> tuple[NetworkSource, ModelCard]:
        """As `load`, but the weights are read and verified when the network is asked for the first time."""
        folder = self.find(name_or_folder)
        card = self.card(folder)

        def load() -> MelViT:
            from . import weights

            tensors = weights.read_all(folder, card.weights)
            return weights.build(card.architecture, tensors, _weights_name(folder, card))

        places = [quantized.file_of(place / card.name) for place in reversed(self.folders)]
        beside = quantized.file_of(folder.resolve())
        int8 = next((file for file in places if file.exists()), beside)  # what a person made comes first
        return NetworkSource(card.architecture, load, card.weights_digest, int8), card


def _weights_name(folder: Path, card: ModelCard) -> Path:
    """What messages call the weights: the file, or the folder where there are shards."""
    return folder / next(iter(card.weights)) if len(card.weights) == 1 else folder


def save_model(folder: Path, network: MelViT, card: ModelCard, dtype: torch.dtype | None = None) -> ModelCard:
    """Write network and card as a model's folder; returns the card with its `weights` filled in. None is float16.

    Written aside and renamed; a model that is there already is replaced, any other folder is refused with ModelError.
    """
    import torch

    from . import weights

    folder = Path(folder)
    if network.architecture != card.architecture:
        raise ModelError(f"{folder}: the card's architecture is not the network's")
    check_replaceable(folder)
    mark = secrets.token_hex(4)  # a process's number comes again, and a killed one may have left its folder
    aside, replaced = (folder.with_name(f".{folder.name}.{mark}.{which}") for which in ("new", "old"))
    try:
        aside.mkdir(parents=True)
        card = dataclasses.replace(card, weights=weights.write(aside, network, dtype or torch.float16))
        card.write(aside)
        if folder.exists():
            folder.rename(replaced)
        aside.rename(folder)
    except OSError as error:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise ModelError(f"{folder}: cannot be written: {error}", "Check the folder and the free space.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
    return card


def check_replaceable(folder: Path) -> None:
    """ModelError where `folder` holds what is no part of a model: it would be lost if one were written there."""
    if not folder.exists():
        return
    foreign = (
        [e.name for e in folder.iterdir() if e.name != CARD_FILE and not WEIGHT_FILE.fullmatch(e.name)]
        if folder.is_dir()
        else [folder.name]
    )
    if foreign:
        raise ModelError(
            f"{folder}: is not replaced, because it holds {foreign[0]!r}, which is no part of a model",
            "Choose another folder, or move that file away.",
        )
