"""What is kept of a content: found again by all that made it, and by nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acoustic.cache import Cache
from acoustic.derived import Derived
from acoustic.network.card import ModelCard
from acoustic.network.vit import Architecture
from acoustic.records import CacheEntry, Calibration, MelSpec, SegmentSpec
from acoustic.settings import Settings
from acoustic.signal import audio

CARD = ModelCard(
    name="made-up",
    labels=("Low", "High"),
    tag_labels=(),
    architecture=Architecture(),
    mel=MelSpec(),
    segments=SegmentSpec(),
    calibration=Calibration(),
    training={},
    metrics={},
    licence="Apache-2.0",
    description="",
    created="2026-01-01",
    weights={"model.safetensors": "1" * 64},
)
HERE: dict[str, Any] = {"card": CARD, "segments": SegmentSpec(), "settings": Settings(), "precision": "auto"}
VOTES, MELS = (CacheEntry({name: np.ones(2)}, {}) for name in ("logits", "mels"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, 10.0, 100)


def is_kept(derived: Derived, kind: str, digest: str | None = "digest") -> bool:
    """Whether nothing need be computed; where it need be, it is kept from then on."""
    computed = []

    def compute() -> CacheEntry:
        computed.append(kind)
        return MELS

    assert list(derived.get_or_compute(kind, digest, compute).arrays) == ["mels"]
    return not computed


def finds(cache: Cache, **changes: Any) -> tuple[bool, bool]:
    """Whether votes and mels that were kept HERE are found with these changes."""
    there = Derived(cache, **{**HERE, **changes})
    return there.votes("digest") is not None, is_kept(there, "mels")


def test_what_is_kept_is_found_again_by_its_content(cache: Cache) -> None:
    Derived(cache, **HERE).keep("digest", votes=VOTES, mels=MELS)
    again = Derived(cache, **HERE)
    found = again.votes("digest")
    assert found is not None
    assert list(found.arrays) == ["logits"]
    assert is_kept(again, "mels")
    assert again.votes("another") is None
    assert not is_kept(again, "descriptors")
    assert is_kept(again, "descriptors")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, True)),
        ({"card": dataclasses.replace(CARD, calibration=Calibration(temperature=2.0))}, (True, True)),
        ({"settings": Settings(rules=True, batch_size=3)}, (True, True)),
        ({"card": dataclasses.replace(CARD, weights={"model.safetensors": "2" * 64})}, (False, True)),
        ({"precision": "float32"}, (False, True)),
        ({"card": dataclasses.replace(CARD, mel=MelSpec(n_mels=64))}, (False, False)),
        ({"segments": SegmentSpec(n_segments=7)}, (False, False)),
        ({"settings": Settings(denoise=True)}, (False, False)),
        ({"settings": Settings(compress=True)}, (False, False)),
        ({"settings": Settings(max_duration_s=100.0)}, (False, False)),
        ({"settings": Settings(whole_file_s=30.0)}, (False, False)),
    ],
    ids=[
        *("nothing", "calibration", "what the key has no part in", "weights", "precision", "mel", "segments"),
        *("denoise", "compress", "max_duration_s", "whole_file_s"),
    ],
)
def test_the_key_names_all_that_changes_it(cache: Cache, changes: dict[str, Any], expected: tuple[bool, bool]) -> None:
    Derived(cache, **HERE).keep("digest", votes=VOTES, mels=MELS)
    assert finds(cache, **changes) == expected


def test_another_decoder_is_another_sound(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    Derived(cache, **HERE).keep("digest", votes=VOTES, mels=MELS)
    monkeypatch.setattr(audio, "decoders", lambda: {"libsndfile": "0.0"})
    assert finds(cache) == (False, False)


@pytest.mark.parametrize("digest", [None, "digest"])
def test_without_a_cache_or_a_digest_nothing_is_kept(cache: Cache, digest: str | None) -> None:
    derived = Derived(cache if digest is None else None, **HERE)
    derived.keep(digest, votes=VOTES, mels=MELS)
    assert derived.votes(digest) is None
    assert not is_kept(derived, "mels", digest)
    assert cache.stats()["n_entries"] == 0
