"""The model that a run starts from: found, named by its weights, refused before the long work where it does not fit."""

from __future__ import annotations

from ..errors import SettingsError
from ..network.registry import Registry, model_folders
from ..settings import Settings
from .config import TrainConfig
from .widen import factor_of

SHAPE = ("width", "depth", "n_heads", "mlp_ratio", "stem", "pooling", "n_mels", "layer_norm_eps")


def models() -> Registry:
    """Those that ship and the person's own."""
    return Registry(model_folders(Settings.load()))


def start_digest(config: TrainConfig) -> str:
    """Names the weights that a run starts from; empty for a run from nothing."""
    return models().card(config.start_from).weights_digest if config.start_from else ""


def check_start(config: TrainConfig) -> None:
    """Raises ModelError where there is no model `start_from`, SettingsError where it does not fit the configuration."""
    if not config.start_from:
        return
    card = models().card(config.start_from)
    mine, theirs = config.architecture, card.architecture
    wider = factor_of(theirs, mine) is not None
    for name in SHAPE:
        if getattr(mine, name) != getattr(theirs, name) and not wider:
            raise SettingsError(
                f"start_from: {card.name} has {name} = {getattr(theirs, name)}, not {getattr(mine, name)}",
                "Write the model's own architecture into the configuration, or a multiple of its width and heads.",
            )
    teachers = tuple(card.training.get("teachers", {}))
    same = (card.labels, card.tag_labels, teachers, theirs.head_hidden) == (
        config.labels,
        config.tags,
        tuple(teacher.name for teacher in config.teachers),
        mine.head_hidden,
    )
    if config.start_share and (not same or card.architecture.width != mine.width):
        raise SettingsError(
            f"start_share: {card.name} has other labels, tags, teachers, another width or head",
            "A mean of weights needs two models of the same: leave it at 0.",
        )
    if card.mel != config.mel:
        raise SettingsError(
            f"start_from: {card.name} hears other mels than the configuration makes",
            f"Its own are {card.mel}.",
        )
