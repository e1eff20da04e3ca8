"""The most memory that one way of analysing songs takes, in a process of its own, with everything that it imports.

    python -m bench.memory original|optimised|ours MODEL_FOLDER SONG ... [--data DATA_FOLDER] [--segments N]

Prints one JSON object: {"peak_mb": ..., "loaded_mb": ...}; the latter before the first song.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .machine import peak_rss_mb

WAYS = ("original", "optimised", "ours")


@dataclass(frozen=True, slots=True)
class Peak:
    """Resident memory in MB (2^20 bytes): the most until the first song, and the most of all."""

    loaded_mb: float
    peak_mb: float


def peak_of(
    way: str, model: Path, songs: Sequence[Path], data: Path, n_segments: int = 0, *, cache: bool = False
) -> Peak:
    """Measured in a fresh process. Raises CalledProcessError where it fails; its own words are on stderr."""
    words = [way, model, *songs, "--data", data, "--segments", n_segments, *(["--cache"] if cache else [])]
    command = [sys.executable, "-m", "bench.memory", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent.parent)
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("model", type=Path)
    parser.add_argument("songs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="where cache and data of ours go")
    parser.add_argument("--segments", type=int, default=0)
    parser.add_argument("--cache", action="store_true", help="ours with the cache as it comes, emptied first")
    args = parser.parse_args()
    with ExitStack() as stack:
        one = _original(args.way, args.model, stack) if args.way != "ours" else _ours(args, stack)
        loaded = peak_rss_mb()
        for song in args.songs:
            one(song)
        print(json.dumps({"loaded_mb": loaded, "peak_mb": peak_rss_mb()}))


def _original(way: str, model: Path, stack: ExitStack) -> Callable[[Path], object]:
    from acoustic.network.registry import Registry

    from .recipe import OptimisedOriginal, Original

    network, _ = Registry([model.parent]).load(model)
    return Original(network).one if way == "original" else stack.enter_context(OptimisedOriginal(network)).one


def _ours(args: argparse.Namespace, stack: ExitStack) -> Callable[[Path], object]:
    from .ours import ready_classifier

    classifier = stack.enter_context(
        ready_classifier(args.model, args.data, n_segments=args.segments, cache=args.cache)
    )
    if classifier.cache is not None:
        classifier.cache.clear()  # an earlier start may have heard the same songs
    return classifier.analyze


if __name__ == "__main__":
    main()
