from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acoustic.heard import Heard, entry_of
from acoustic.records import AudioInfo, AudioWarning, CacheEntry, Votes

VOTES = Votes(*(np.full((2, n), n, np.float32) for n in (3, 2, 4)))
INFO = AudioInfo("WAV", "PCM_16", "libsndfile", 44_100, 2, 20.0, 1_000)


def mels(start_s: list[float], end_s: list[float]) -> CacheEntry:
    meta = {
        "duration_s": 20.0,
        "warnings": [{"code": "CLIPPED", "message": "loud"}],
        "info": dataclasses.asdict(INFO),
        "timings_ms": {"load_audio": 3.0},
    }
    return CacheEntry({"mels": np.zeros((2, 4, 5)), "start_s": np.array(start_s), "end_s": np.array(end_s)}, meta)


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_kept_is_what_was_heard(cached: bool) -> None:
    entry = entry_of(VOTES, mels([0.0, 8.0], [10.0, 18.0]))
    assert "mels" not in entry.arrays
    assert "timings_ms" not in entry.meta  # of the run in which it was heard
    heard = Heard.of(entry, cached=cached)
    assert (heard.start_s, heard.end_s, heard.duration_s) == ((0.0, 8.0), (10.0, 18.0), 20.0)
    assert (heard.warnings, heard.info, heard.cached) == ((AudioWarning("CLIPPED", "loud"),), INFO, cached)
    for name in ("logits", "tag_logits", "embeddings"):
        assert np.array_equal(getattr(heard.votes, name), getattr(VOTES, name))
    assert heard.described is None
    assert heard.analyzed_s == 18.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 12)), min_size=1, max_size=8))
def test_a_second_is_counted_once_however_many_segments_cover_it(places: list[tuple[int, int]]) -> None:
    places.sort()
    spans = [(float(start), float(start + length)) for start, length in places]
    heard = Heard.of(entry_of(VOTES, mels(*map(list, zip(*spans, strict=True)))), cached=False)
    covered = {second for start, length in places for second in range(start, start + length)}
    assert heard.analyzed_s == len(covered)
