"""Do all backends say the same? Every way to run the network that this machine has, against eager float32.

    python -m bench.agreement SONGS [--model NAME] [--n 200]

SONGS is a folder. Wanted: the same genre for at least 99 % of the songs, probabilities within 0.02.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import BackendError
from acoustic.records import Analysis
from acoustic.settings import Settings, prepare_process
from acoustic.signal.audio import find_audio

WAYS = (
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("eager", "bfloat16"),
    ("eager", "int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--n", type=int, default=200)
    arguments = parser.parse_args()
    settings = Settings.load(model=arguments.model or None)
    prepare_process(settings)
    files = sorted(find_audio(arguments.songs))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[: arguments.n]]
    exact = heard(settings, "eager", "float32", files)
    print(f"{len(exact)} songs against eager float32")
    print(f"{'':20s} same genre   probabilities differ by: median, 99 %, at most   same review flag")
    for backend, precision in WAYS:
        try:
            found = heard(settings, backend, precision, files)
        except BackendError as error:
            print(f"{backend + ' ' + precision:20s} {error.message}")
            continue
        print(f"{backend + ' ' + precision:20s} {line(exact, found)}")


def heard(settings: Settings, backend: str, precision: str, files: list[Path]) -> dict[int, Analysis]:
    """The analyses of the files that can be heard, by place."""
    changed = dataclasses.replace(settings, backend=backend, precision=precision)
    with OptimizedAudioClassifier(settings=changed, cache=False, n_threads=settings.n_threads()) as classifier:
        return {i: one for i, one in classifier.analyze_many(files) if isinstance(one, Analysis)}


def line(exact: dict[int, Analysis], found: dict[int, Analysis]) -> str:
    pairs = [(exact[i].verdict, found[i].verdict) for i in exact]
    same = np.mean([a.top_genre == b.top_genre for a, b in pairs])
    flags = np.mean([a.needs_review == b.needs_review for a, b in pairs])
    apart = [np.abs(np.subtract(a.probabilities, b.probabilities)).max() for a, b in pairs]
    middle, most = np.percentile(apart, (50, 99))
    return f"{same:10.4f}   {middle:.4f}, {most:.4f}, {max(apart):.4f}   {flags:30.4f}"


if __name__ == "__main__":
    main()
