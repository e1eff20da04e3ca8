"""Our side of a benchmark: the classifier as a person's process has it, once its backend is chosen and warm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acoustic.cache import Cache
from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import BackendError
from acoustic.settings import Settings, prepare_process

SETTLE_S = 600.0
"""longest wait for the backends to be measured"""


def ready_classifier(
    model: str | Path, data_folder: Path, *, n_segments: int = 0, cache: bool | Cache = False, **changes: Any
) -> OptimizedAudioClassifier:
    """A classifier that writes nothing outside `data_folder`. Without `cache` every answer is a first one.

    `n_segments` 0 takes the card's; `changes` are further settings.
    """
    settings = Settings.load(
        model=str(model),
        data_dir=str(data_folder),
        cache_dir=str(data_folder / "cache"),
        n_segments=n_segments,
        **changes,
    )
    prepare_process(settings)
    classifier = OptimizedAudioClassifier(settings=settings, cache=cache, n_threads=settings.n_threads())
    try:
        classifier.warm_up(described=False)
        if not classifier.wait_for_backend(SETTLE_S):
            raise BackendError(f"the backends were still being measured after {SETTLE_S:.0f} s")
    except BaseException:
        classifier.close()
        raise
    return classifier


def chosen(classifier: OptimizedAudioClassifier) -> str:
    """Backend and precision in one phrase, for a table."""
    return f"{classifier.backend.name} {classifier.backend.precision}"
