"""More files, more decode workers: files a second, memory, and how busy the network is kept.

    python -m bench.scaling [--files 1 10 100 1000] [--workers 1 2] [--json FILE]

The embedded model on songs of three minutes (MP3, FLAC, WAV in turn); a few are made here and linked under as many
names as are asked for, with the cache off, so that each name is decoded and asked about anew. Then ViT-B/16 (random
weights) on WAV, where the network is what limits: there its lane should rest for hardly a moment.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from acoustic.engine import OptimizedAudioClassifier
from acoustic.network.registry import EMBEDDED_MODEL
from acoustic.records import Failure
from acoustic.settings import Settings

from .machine import MB, this_machine
from .made_model import Made, write_vit_b16
from .ours import chosen, ready_classifier
from .songs import write_songs

N_SONGS = 9
FORMATS = ("mp3", "flac", "wav")
LIMIT_FORMATS = ("wav",)
N_LIMITED = 48
MIN_BUSY = 0.85
"""Target for the share of the time that the lane is busy, where inference is the limit."""
SETTLED = 0.1
"""Share of the files after which memory should not grow any more."""
MIN_FILES = 10
"""of a run whose growth can be told"""
MIN_SAMPLES = 6
"""since it settled, so that each half has a line"""


@dataclass(frozen=True, slots=True)
class Scale:
    """One run over `n_files`. `lane_busy` is the share of the time that the network was computing; memory in MB, at
    the end and its growth since a tenth of the files was done (0 for a run of less than MIN_FILES)."""

    what: str
    backend: str
    n_workers: int
    n_files: int
    seconds: float
    lane_busy: float
    rss_mb: float
    grown_mb: float

    @property
    def files_a_second(self) -> float:
        return self.n_files / self.seconds


class Memory:
    """The resident memory of this process, sampled while it works."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.samples: list[tuple[int, float]] = []

    def note(self, n_done: int) -> None:
        self.samples.append((n_done, self._process.memory_info().rss / MB))

    def grown_mb(self) -> float:
        """From when SETTLED of the files were done to the end, as lines through the samples in between have it: a
        single one holds whatever songs were being decoded at that moment.

        The least of what the whole and either half of it say: what leaks grows in both halves, where a buffer that the
        allocator takes once for good, at whatever file, is a step in one.
        """
        last = self.samples[-1][0]
        settled = np.asarray([sample for sample in self.samples if sample[0] >= SETTLED * last], np.float64)
        if last < MIN_FILES or len(settled) < MIN_SAMPLES:
            return 0.0
        n_files, half = settled[-1, 0] - settled[0, 0], len(settled) // 2
        return min(_slope(part) * n_files for part in (settled, settled[:half], settled[half:]))


def _slope(samples: np.ndarray) -> float:
    """MB a file, of a line through `samples`, rows of (files done, MB)."""
    return float(np.polyfit(samples[:, 0], samples[:, 1], 1)[0])


def run(classifier: OptimizedAudioClassifier, paths: Sequence[Path], what: str) -> Scale:
    """All `paths` once. Raises RuntimeError where one has no answer."""
    memory, busy_before = Memory(), _busy_s(classifier)
    start = time.perf_counter()
    for n_done, (_, answer) in enumerate(classifier.analyze_many(paths), start=1):
        if isinstance(answer, Failure):
            raise RuntimeError(f"{answer.path}: {answer.error['message']}")
        memory.note(n_done)
    seconds = time.perf_counter() - start
    return Scale(
        what,
        chosen(classifier),
        classifier.settings.decode_workers,
        len(paths),
        seconds,
        (_busy_s(classifier) - busy_before) / seconds,
        memory.samples[-1][1],
        memory.grown_mb(),
    )


def _busy_s(classifier: OptimizedAudioClassifier) -> float:
    return float(classifier.load()["network_busy_s"])


def linked(songs: Sequence[Path], n: int, folder: Path) -> list[Path]:
    """`n` names for `songs` in turn; hard links, so that a thousand songs of three minutes need no disk."""
    folder.mkdir()
    paths = []
    for i in range(n):
        song = songs[i % len(songs)]
        path = folder / f"{i}{song.suffix}"
        os.link(song, path)
        paths.append(path)
    return paths


def shipped(folder: Path, songs: Sequence[Path], n_files: Sequence[int], n_workers: Sequence[int]) -> Iterator[Scale]:
    """The embedded model over `songs` in turn, each number of files with each number of decode workers."""
    for workers in n_workers:
        with ready_classifier(EMBEDDED_MODEL, folder, decode_workers=workers) as classifier:
            run(classifier, songs, "")  # buffers and threads of the first files
            for n in n_files:
                yield run(classifier, linked(songs, n, folder / f"{workers}-{n}"), "as it ships")


def limited(folder: Path, made: Made, n_files: int = N_LIMITED, n_workers: int = 2) -> Scale:
    """ViT-B/16 with its card's segments on songs that are quickly decoded: the network is the limit."""
    songs = write_songs(folder / "limited", min(N_SONGS, n_files), LIMIT_FORMATS)
    with ready_classifier(made.folder, folder, decode_workers=n_workers) as classifier:
        run(classifier, songs[:n_workers], "")  # buffers and threads of the first files
        return run(classifier, linked(songs, n_files, folder / "limited-links"), "ViT-B/16, inference the limit")


HEAD = (
    "| | backend | decode workers | files | files a second | lane busy | RSS MB at the end | grown MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def line(one: Scale) -> str:
    """Its row of the table below HEAD."""
    return (
        f"| {one.what} | {one.backend} | {one.n_workers} | {one.n_files:,} | {one.files_a_second:.1f} "
        f"| {one.lane_busy:.2f} | {one.rss_mb:,.0f} | {one.grown_mb:+.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1, 10, 100, 1_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        made = write_vit_b16(Path(name), Settings.load().n_threads())
        print(machine.sentence(), HEAD, sep="\n\n")
        scales = []
        songs = write_songs(Path(name) / "songs", N_SONGS, FORMATS)
        for one in shipped(Path(name), songs, args.files, args.workers):
            print(line(one), flush=True)  # a thousand files take minutes
            scales.append(one)
        scales.append(limited(Path(name), made))
        print(line(scales[-1]))
    busy = scales[-1].lane_busy
    print(
        f"\nlane busy where inference is the limit: {busy:.2f}, target {MIN_BUSY}: "
        f"{'reached' if busy >= MIN_BUSY else 'missed'}"
    )
    if args.json:
        content = {"machine": dataclasses.asdict(machine), "scales": [dataclasses.asdict(one) for one in scales]}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
