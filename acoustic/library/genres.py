"""What a person may call a genre, and when two names mean the same one."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import ManifestError

MAX_GENRE_CHARS = 60
_JOINERS = "-‐‑‒–—_'’.·"


def tidy(name: str) -> str:
    """The name in Unicode's NFC with single spaces. Raises ManifestError for one that is empty, longer than
    MAX_GENRE_CHARS, or holds what cannot be printed.

    >>> tidy("  Wedding   first dance ")
    'Wedding first dance'
    """
    clean = " ".join(unicodedata.normalize("NFC", name).split())
    if not 1 <= len(clean) <= MAX_GENRE_CHARS or not clean.isprintable():
        shown = "".join(char if char.isprintable() else "\ufffd" for char in clean[: MAX_GENRE_CHARS + 1])
        raise ManifestError(
            f"{shown!r} cannot be a genre's name", f"Use 1 to {MAX_GENRE_CHARS} characters that can be printed."
        )
    return clean


def key(name: str) -> str:
    """The same for names that differ only by case, accents, spacing or hyphens.

    >>> key("Forró") == key("FORRO"), key("hip hop") == key("Hip-Hop"), key("R & B") == key("R&B")
    (True, True, True)
    """
    apart = unicodedata.normalize("NFKD", name).casefold()
    kept = "".join(c for c in apart if not unicodedata.combining(c) and not c.isspace() and c not in _JOINERS)
    return kept or name  # a name of nothing but joiners is itself


def settle(names: Sequence[str], built_in: Sequence[str]) -> list[str]:
    """Each of `names` as it is kept: a built-in genre's own spelling where it means one, else the commonest of the
    spellings that mean the same, of equally common ones the first in the alphabet. Raises ManifestError, see `tidy`.
    """
    clean = [tidy(name) for name in names]
    spelling = {key(label): label for label in built_in}
    for meant, spellings in _by_key(clean).items():
        spelling.setdefault(meant, min(spellings, key=lambda s: (-spellings[s], s)))
    return [spelling[key(name)] for name in clean]


def _by_key(names: Iterable[str]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for name in names:
        found.setdefault(key(name), Counter())[name] += 1
    return found
