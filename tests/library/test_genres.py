from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.errors import ManifestError
from acoustic.library.genres import MAX_GENRE_CHARS, key, settle, tidy

BUILT_IN = ("Hip-Hop", "R&B", "Latin")


def test_a_built_in_genre_is_recognised_however_it_is_written() -> None:
    written = ["hip hop", "HIPHOP", " Hip\u2010Hop ", "r & b", "Látin", unicodedata.normalize("NFD", "látin")]
    assert settle(written, BUILT_IN) == ["Hip-Hop", "Hip-Hop", "Hip-Hop", "R&B", "Latin", "Latin"]


def test_own_names_that_mean_the_same_take_the_commonest_spelling() -> None:
    assert settle(["forro", "Forró", "Forró", "FORRO"], BUILT_IN) == ["Forró"] * 4
    assert settle(["b  b", "a"], BUILT_IN) == ["b b", "a"]
    assert settle(["forro", "Forró"], BUILT_IN) == settle(["Forró", "forro"], BUILT_IN)


@pytest.mark.parametrize("name", ["", "   ", "x" * (MAX_GENRE_CHARS + 1), "a\x1b[31m", "a\u202eb", "\ud800"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="genre's name") as refused:
        tidy(name)
    assert refused.value.hint
    assert refused.value.message.isprintable()


def test_the_longest_name_and_any_script_are_taken() -> None:
    assert tidy("x" * MAX_GENRE_CHARS) == "x" * MAX_GENRE_CHARS
    for name in ("-", "...", "演歌", "طرب", "🎺 brass"):
        assert settle([name], BUILT_IN) == [name]


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=8), max_size=8))
def test_settling_is_by_meaning_alone_and_settled_names_stay(names: list[str]) -> None:
    try:
        settled = settle(names, BUILT_IN)
    except ManifestError:
        return
    assert settle(settled, BUILT_IN) == settled
    by_key: dict[str, set[str]] = {}
    for name, kept in zip(names, settled, strict=True):
        by_key.setdefault(key(tidy(name)), set()).add(kept)
    assert all(len(kept) == 1 for kept in by_key.values())
    assert dict(zip(reversed(names), settle(names[::-1], BUILT_IN), strict=True)) == dict(
        zip(names, settled, strict=True)
    )
