"""The colours that carry meaning in figures and cards. Plain numbers: no gradio, no plotly."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

INK = "#0b1720"

SPECTROGRAM_SCALE = [
    [0.00, "#070b14"],
    [0.20, "#1b1f4b"],
    [0.40, "#273f86"],
    [0.58, "#1f7a94"],
    [0.74, "#37b08f"],
    [0.88, "#a9dd8e"],
    [1.00, "#fbfbd0"],
]
"""Quiet to loud: lightness rises all the way, so it also reads without colour."""

LIGHTNESS, CHROMA = 0.82, 0.105  # of genre colours: INK on any of them has a contrast above 9 to 1


def genre_colour(index: int, n_genres: int) -> str:
    """Hex "#rrggbb" of a genre by its place in the model's list: even lightness, neighbours far apart in hue."""
    step = next(k for k in range(max(1, round(n_genres * 0.38)), n_genres + 1) if math.gcd(k, n_genres) == 1)
    return oklch(LIGHTNESS, CHROMA, 360.0 * (index * step % n_genres) / n_genres + 20.0)


def named_colour(genre: str, labels: Sequence[str]) -> str:
    """Colour of a genre by name: one of the model's `labels` as everywhere, a person's own a paler one of its own."""
    if genre in labels:
        return genre_colour(labels.index(genre), len(labels))
    return oklch(LIGHTNESS, CHROMA / 2, zlib.crc32(genre.encode()) % 360)


def oklch(lightness: float, chroma: float, hue_degrees: float) -> str:
    """Hex "#rrggbb" of an OKLCH colour, clipped to sRGB (matrices: Ottosson, "A perceptual color space", 2020)."""
    hue = math.radians(hue_degrees)
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, c)))):02x}" for c in linear)


def _gamma(c: float) -> float:
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055
