"""AcousticSense: drop a song, see its genre, how sure that is, and where the milliseconds went.

The map, in the order in which data flows:

    errors         every way to say no: one tree, each leaf with a code and a hint
    records        the frozen records that cross borders
    kept           those of what the library keeps
    settings       every setting in one table; the only reader of the environment
    writing        files that are there as a whole or not at all
    signal/        file -> segments -> mels; enhancement and descriptors beside it
    network/       mels -> votes, tags and embeddings; cards, registry, backends
    verdict/       votes -> the calibrated answer with its doubts
    cache          derived arrays, content-keyed; may be deleted at any moment
    profiler       which stage took how many milliseconds
    lane           the one thread in which the network runs, batching across files
    workers        functions in processes of their own, which may die
    decoding       file -> mels, here or in such a process
    contents       which content a file has
    derived        what is kept of a content, and under which key
    heard          what is known of a file before the verdict
    traffic        what waits and works
    engine         the one place where stages are chained
    training/      manifest -> targets -> student -> card
    library/       what is kept: tracks, decisions, personal genres, tags written
    workstation/   the use cases, shared by page and command line
    ui/            the page
    doctor         what this machine and installation can do
    terminal/      records -> what a terminal shows
    cli/           the command line

Public names are resolved at first use, so importing `acoustic.errors` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "OptimizedAudioClassifier": "engine",
    "Workstation": "workstation",
    "Settings": "settings",
    "Analysis": "records",
    "Failure": "records",
    "Verdict": "records",
    "AcousticError": "errors",
}

__all__ = [
    "AcousticError",
    "Analysis",
    "Failure",
    "OptimizedAudioClassifier",
    "Settings",
    "Verdict",
    "Workstation",
    "__version__",
]

if TYPE_CHECKING:
    from .engine import OptimizedAudioClassifier
    from .errors import AcousticError
    from .records import Analysis, Failure, Verdict
    from .settings import Settings
    from .workstation import Workstation


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
