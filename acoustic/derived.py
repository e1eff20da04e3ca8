"""What was derived from a file's content and is kept: its mels, the votes on it, its descriptors.

Each lies under a key that names all that changes it: the content's digest, the card's mel and segments, switches and
bounds, the decoders' versions; for votes the weights and the precision that was asked for, too. Without a cache, or
for a file that has no digest yet, nothing is found and nothing kept.
"""

from __future__ import annotations

from collections.abc import Callable

from .cache import Cache, make_key
from .network.card import ModelCard
from .profiler import span
from .records import CacheEntry, SegmentSpec
from .settings import Settings
from .signal import audio

CACHE_VERSION = 1
"""raised when a stage's numbers change, so that older entries are not found any more"""


class Derived:
    """What `cache` holds for a model's card and these settings. Safe to use from several threads."""

    def __init__(
        self,
        cache: Cache | None,
        card: ModelCard,
        segments: SegmentSpec,
        settings: Settings,
        precision: str,
        int8_digest: str = "",
    ) -> None:
        s = settings
        self._cache = cache
        self._how = (
            *(card.mel, segments, s.denoise, s.compress, s.whole_file_s),
            *(s.min_sample_rate_hz, s.max_sample_rate_hz, s.max_channels, s.min_duration_s, s.max_duration_s),
            *sorted(audio.decoders().items()),
        )
        # what was asked for: the backends that "auto" chooses among give the same answers
        self._network = (card.weights_digest, precision, *filter(None, [int8_digest]))

    def votes(self, digest: str | None) -> CacheEntry | None:
        """The votes on a content; None where they are not known."""
        with span("cache"):
            key = self._key("votes", digest)
            return None if self._cache is None or key is None else self._cache.get(key)

    def keep(self, digest: str | None, *, votes: CacheEntry, mels: CacheEntry | None = None) -> None:
        """Keep the votes on a content, and the mels that they were cast on where they are not kept yet."""
        with span("cache"):
            for kind, entry in (("mels", mels), ("votes", votes)):
                key = self._key(kind, digest)
                if self._cache is not None and key is not None and entry is not None:
                    self._cache.put(key, entry)

    def get_or_compute(self, kind: str, digest: str | None, compute: Callable[[], CacheEntry]) -> CacheEntry:
        """What was derived of this `kind` ("mels", "descriptors"), kept or computed now."""
        key = self._key(kind, digest)
        return compute() if self._cache is None or key is None else self._cache.get_or_compute(key, compute)[0]

    def _key(self, kind: str, digest: str | None) -> str | None:
        if digest is None:
            return None
        return make_key(CACHE_VERSION, kind, digest, *self._how, *(self._network if kind == "votes" else ()))
