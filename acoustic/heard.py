"""What a file gave before the verdict, and the entry of the cache that it is kept as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .records import AudioInfo, AudioWarning, CacheEntry, Votes


@dataclass(frozen=True, slots=True)
class Heard:
    """The votes on a file, with all that must be kept beside them; `start_s` rises. `cached`: they were known."""

    votes: Votes
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    duration_s: float
    warnings: tuple[AudioWarning, ...]
    info: AudioInfo
    cached: bool
    described: Mapping[str, Any] | None = None
    """the file's measurements, or {"problem": why there are none}, where they were taken when it was heard"""

    @classmethod
    def of(cls, entry: CacheEntry, *, cached: bool) -> Heard:
        """What `entry_of` made an entry of."""
        arrays, meta = entry.arrays, entry.meta
        return cls(
            votes=Votes(arrays["logits"], arrays["tag_logits"], arrays["embeddings"]),
            start_s=tuple(float(s) for s in arrays["start_s"]),
            end_s=tuple(float(s) for s in arrays["end_s"]),
            duration_s=float(meta["duration_s"]),
            warnings=tuple(AudioWarning(**warning) for warning in meta["warnings"]),
            info=AudioInfo(**meta["info"]),
            cached=cached,
            described=meta.get("descriptors"),
        )

    @property
    def analyzed_s(self) -> float:
        """Seconds of the track that at least one segment covers."""
        covered, reached = 0.0, 0.0
        for start, end in zip(self.start_s, self.end_s, strict=True):
            covered += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return covered


def entry_of(votes: Votes, mels: CacheEntry) -> CacheEntry:
    """The network's votes on `mels` (see `decoding.mels_of`), with what is known of their file; without the times that
    were measured where it was heard, which are this run's alone."""
    arrays = {
        "logits": votes.logits,
        "tag_logits": votes.tag_logits,
        "embeddings": votes.embeddings,
        "start_s": mels.arrays["start_s"],
        "end_s": mels.arrays["end_s"],
    }
    return CacheEntry(arrays, {name: told for name, told in mels.meta.items() if name != "timings_ms"})
