"""How long a person waits for one song of three minutes, by format: first answer, cached answer, and where it went.

    python -m bench.latency [--rounds 7]

The song is synthetic and made here. Beside ours, in the same interleaved rounds, stands decoding the whole file with
`librosa.load`, which is where most analysis scripts begin; ratios are medians of paired rounds, so that a busy machine
disturbs both sides alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np

from acoustic.engine import OptimizedAudioClassifier
from acoustic.settings import Settings, prepare_process

from .songs import FORMATS, write_song
from .timing import elapsed_ms

SETTLE_S = 3.0
"""for the system to write the songs to its disk, which takes the cores as well"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as folder:
        settings = Settings(cache_dir=folder)
        prepare_process(settings)
        with OptimizedAudioClassifier(settings=settings, n_threads=settings.n_threads()) as ours:
            ours.warm_up(described=False)
            ours.wait_for_backend()
            print(f"model {ours.card.name}, {ours.backend.name} {ours.backend.precision}, {rounds} rounds, medians")
            print("format  first ms  (load / mel / network)   cached ms  librosa.load ms  load : first  first : cached")
            for name in FORMATS:
                print(line(ours, Path(folder), name, rounds))


def line(ours: OptimizedAudioClassifier, folder: Path, name: str, rounds: int) -> str:
    first, cached, whole, stages = [], [], [], []
    paths = [write_song(folder / f"{i}.{name}", i) for i in range(rounds)]
    time.sleep(SETTLE_S)
    for path in paths:
        whole.append(elapsed_ms(lambda p=path: librosa.load(p, sr=22_050)))
        analysis = ours.analyze(path)
        assert not analysis.cached
        first.append(analysis.timings_ms["total"])
        stages.append([analysis.timings_ms[s] for s in ("load_audio", "mel_spectrogram", "inference")])
        ours.wait_for_cache()  # a new song is kept behind its answer
        cached.append(elapsed_ms(lambda p=path: ours.analyze(p)))
    for path in paths:
        path.unlink()
    load, mel, network = np.median(stages, axis=0)
    to_load = statistics.median(w / f for w, f in zip(whole, first, strict=True))
    to_cached = statistics.median(f / c for f, c in zip(first, cached, strict=True))
    return (
        f"{name:6s}  {statistics.median(first):8.0f}  ({load:.0f} / {mel:.0f} / {network:.0f})".ljust(42)
        + f"{statistics.median(cached):9.1f}  {statistics.median(whole):15.0f}  {to_load:12.1f}  {to_cached:14.0f}"
    )


if __name__ == "__main__":
    main()
