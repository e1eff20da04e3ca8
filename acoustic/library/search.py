"""What a person types into the search field -> conditions on the rows of `files`. Whatever is typed, nothing raises.

Words in alphabets that stand in words go to the FTS5 index as prefixes; text that the index cannot take apart (Chinese,
Japanese, Thai, symbols) is looked for as it stands.
"""

from __future__ import annotations

import unicodedata
from typing import Any

MAX_CHARS = 200
MAX_WORDS = 12
_INDEXED = ("LATIN ", "GREEK ", "CYRILLIC ", "ARMENIAN ", "HEBREW ", "ARABIC ", "GEORGIAN ", "DIGIT ")
_COLUMNS = ("shown", "title", "artist", "album", "genres")


def conditions(text: str) -> tuple[list[str], list[Any]]:
    """(SQL conditions, values): every word must be found, each anywhere; ([], []) where nothing was typed."""
    found: list[str] = []
    values: list[Any] = []
    terms: list[str] = []
    for word in words(text):
        if is_indexed(word):
            terms.append(f'"{word}"*')  # in quotation marks nothing is an operator; the word holds none itself
        else:
            forms = sorted({unicodedata.normalize(form, word) for form in ("NFC", "NFD")})  # a Mac's names are NFD
            tests = [f"{column} LIKE ? ESCAPE '\\'" for column in _COLUMNS for _ in forms]
            found.append(f"({' OR '.join(tests)})")
            values += [f"%{_escaped(form)}%" for _ in _COLUMNS for form in forms]
    if terms:
        found.insert(0, "id IN (SELECT rowid FROM search WHERE search MATCH ?)")
        values.insert(0, " AND ".join(terms))
    return found, values


def words(text: str) -> list[str]:
    """At most MAX_WORDS words, without quotation marks and what cannot be printed.

    >>> words('AC/DC  "back  in')
    ['AC/DC', 'back', 'in']
    """
    clean = "".join(" " if c == '"' or unicodedata.category(c) in ("Cc", "Cs", "Cf") else c for c in text[:MAX_CHARS])
    return clean.split()[:MAX_WORDS]


def is_indexed(word: str) -> bool:
    """Whether the index takes the word apart as a person does: at least one letter or digit, none of other scripts."""
    letters = [c for c in word if unicodedata.category(c)[0] in "LN"]
    return bool(letters) and all(unicodedata.name(c, "").startswith(_INDEXED) for c in letters)


def _escaped(word: str) -> str:
    return "".join("\\" + c if c in "%_\\" else c for c in word)
