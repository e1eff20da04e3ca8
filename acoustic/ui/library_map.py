"""The map as the browser draws it: places, colours and ids of all songs in few bytes (see assets/map.js)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import wording
from .colours import named_colour

STEPS = 65_535  # places are sent as 16-bit numbers: finer than any screen


def points(
    ids: np.ndarray, places: np.ndarray, genres: Mapping[int, str], labels: Sequence[str], note: str = ""
) -> str:
    """JSON of the songs that have a genre: `ids` (n,) and `places` (n, 2) in [-1, 1]; `note` is shown over the map."""
    known = np.array([int(i) in genres for i in ids], bool)
    ids, places = ids[known], places[known]
    names = sorted({genres[int(i)] for i in ids}, key=lambda name: (name not in labels, name))
    number = {name: i for i, name in enumerate(names)}
    steps = np.round((places.reshape(-1, 2) + 1) / 2 * STEPS).astype("<u2")
    return json.dumps(
        {
            "n": len(ids),
            "ids": _packed(ids.astype("<u4")),
            "places": _packed(steps),
            "genre": _packed(np.array([number[genres[int(i)]] for i in ids], "<u2")),
            "genres": [{"name": wording.visible(name), "colour": named_colour(name, labels)} for name in names],
            "note": note,
        }
    )


def marks(shown: Iterable[int] | None, selected: Sequence[int], chosen: int | None) -> str:
    """JSON of what stands out: the songs that the filter leaves (None: all), the selected, the chosen one."""
    return json.dumps(
        {
            "shown": None if shown is None else _packed(np.fromiter(shown, "<u4")),
            "selected": _packed(np.array(selected, "<u4")),
            "chosen": chosen,
        }
    )


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def hovered(track: Any, labels: Sequence[str]) -> dict[str, str]:
    """What the map shows of the song under the pointer; text, never HTML."""
    if track is None:
        return {"name": "", "artist": "", "genre": "", "colour": ""}
    confidence = "" if track.decided is not None else f", {wording.percent(track.confidence)}"
    return {
        "name": wording.visible(track.name),
        "artist": wording.visible(track.tags.artist),
        "genre": wording.visible(track.genre) + (" (you decided)" if track.decided is not None else confidence),
        "colour": named_colour(track.genre, labels),
    }
