"""What a model has learned from, in a few bytes: so that a run that starts from it does not hold that out.

A group is known by its mark, the first letters of the least of its files' digests; the card keeps the marks of all
groups that were trained on, those of the model that the run started from among them. It names no file, and says of one
at hand whether it was heard, by whatever name it goes now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import AudioError, ManifestError, SettingsError
from ..network.card import ModelCard
from ..signal.files import digest
from .config import TrainConfig
from .manifest import Row
from .starting import models

LENGTH = 8
"""of a mark, in hexadecimal digits"""


def contents(rows: Sequence[Row], data: Path) -> list[str]:
    """Each file's digest: names and times of change do not count, so that a copied data folder is known again.
    ManifestError names the row of a file that cannot be read."""
    found = []
    for row in rows:
        try:
            found.append(digest(data / row.file))
        except AudioError as error:
            raise ManifestError(f"{row.where}: {error.message}", error.hint) from error
    return found


def marks(rows: Sequence[Row], digests: Sequence[str], tracks: Iterable[int]) -> frozenset[str]:
    """Of the groups that `tracks`, numbers of rows, lie in."""
    least: dict[str, str] = {}
    for t in tracks:
        group = rows[t].group
        least[group] = min(digests[t], least.get(group, digests[t]))
    return frozenset(one[:LENGTH] for one in least.values())


def marks_of(card: ModelCard) -> frozenset[str]:
    """Of what a model learned from; none where its card does not say."""
    kept = card.training.get("heard", "") if isinstance(card.training, Mapping) else ""
    return frozenset(kept.split()) if isinstance(kept, str) else frozenset()


def heard_before(
    config: TrainConfig, rows: Sequence[Row], digests: Sequence[str], held: Sequence[int]
) -> frozenset[str]:
    """The marks of what the model that the run starts from learned from. SettingsError where some of that would be held
    out now: the figures, and the calibration that is fitted on them, would be of songs that it knows."""
    if not config.start_from:
        return frozenset()
    card = models().card(config.start_from)
    known = marks_of(card)
    leaking = [t for t in held if digests[t][:LENGTH] in known]
    if leaking:
        recipe = card.training.get("recipe", {})
        split = ", ".join(f"{key} = {recipe[key]}" for key in ("seed", "held_out") if key in recipe)
        raise SettingsError(
            f"start_from: {card.name} was trained on {len(leaking)} groups that would be held out, that of"
            f" {rows[leaking[0]].file!r} among them",
            f"Split as it was split{f': {split}' if split else ''}; or take other files.",
        )
    return known
