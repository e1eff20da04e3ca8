"""A folder of made songs into a library: files a second, the rescan of what did not change, and memory.

    python -m bench.scan [--files 2000] [--workers 2]

The songs (20 to 30 s, mono, 44.1 kHz; WAV, FLAC, MP3, Ogg; one in a hundred is text, cut or empty) are made here. The
rescan is timed within this process (median of several) and as a person starts it, interpreter and all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from acoustic.kept import ScanProgress
from acoustic.settings import Settings, prepare_process
from acoustic.workstation import Workstation
from acoustic.workstation.scanning import scan

RATE = 44_100
FORMATS = ("wav", "flac", "wav", "mp3", "wav", "flac", "wav", "ogg")
MB = 2**20


def make_library(folder: Path, n: int) -> None:
    """`n` files in folders of fifty, of forty songs that are cut and mixed anew for each file."""
    rng = np.random.default_rng(0)
    songs = [made_song(rng) for _ in range(40)]
    for i in range(n):
        path = folder / f"album {i // 50}" / f"song {i}.{FORMATS[i % len(FORMATS)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 100 == 99:
            make_bad(path, i // 100 % 3)
            continue
        start, length = int(rng.uniform(0, RATE)), int(rng.uniform(20, 29) * RATE)
        samples = songs[i % 40][start : start + length] + 0.3 * songs[int(rng.integers(40))][:length]
        with soundfile.SoundFile(path, "w", RATE, 1) as out:
            for at in range(0, length, RATE):  # in blocks: long Vorbis writes crash libsndfile
                out.write(samples[at : at + RATE])


def made_song(rng: np.random.Generator) -> np.ndarray:
    """Two tones and a beat, 30 s, peak below 0.7; float32."""
    t = np.arange(30 * RATE, dtype=np.float32) / RATE
    beat = np.exp(-((t * rng.uniform(1.5, 2.5)) % 1.0) * 12)
    tones = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(60, 1500, 2))
    return (0.2 * tones * (0.4 + 0.6 * beat) + beat * rng.normal(0, 0.05, len(t))).astype(np.float32)


def make_bad(path: Path, kind: int) -> None:
    header = b"RIFF\xff\xff\xff\x7fWAVEfmt " if path.suffix == ".wav" else b"fLaC\x00\x00"
    path.write_bytes((b"this is no music, only its name says so", header, b"")[kind])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=Settings().decode_workers)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="acoustic-bench-") as name:
        folder = Path(name)
        began = time.perf_counter()
        make_library(folder / "music", args.files)
        print(f"{args.files} files made in {time.perf_counter() - began:.0f} s")
        settings = Settings(data_dir=str(folder / "data"), cache_dir=str(folder / "cache"), decode_workers=args.workers)
        prepare_process(settings)
        with Workstation(settings) as station:
            first = first_scan(station, folder / "music")
            rescans = [scan(station, folder / "music").elapsed_s for _ in range(5)]
        started = as_a_person(folder)
    rescan = statistics.median(rescans)
    print(f"rescan          {rescan * 1e3:8.1f} ms      first : rescan {first / rescan:8.0f}")
    print(f"rescan, started {started * 1e3:8.1f} ms      first : rescan {first / started:8.0f}")


def first_scan(station: Workstation, music: Path) -> float:
    """Seconds; prints rate and memory."""
    here = psutil.Process()
    sizes: list[tuple[int, int]] = []

    def on_progress(progress: ScanProgress) -> None:
        sizes.append((progress.n_finished, here.memory_info().rss))

    done = scan(station, music, on_progress=on_progress)
    rate = done.n_finished / done.elapsed_s
    counts = f"{done.n_ok} ok, {done.n_errors} failed"
    print(f"first scan      {done.elapsed_s:8.1f} s       {rate:.1f} files/s, start included; {counts}")
    busy = [(n, size) for n, size in sizes if n >= done.n_found / 10]
    grown = (max(size for _, size in busy) - busy[0][1]) / MB
    print(f"memory          {max(size for _, size in sizes) / MB:8.0f} MB      grown by {grown:.0f} MB after a tenth")
    return done.elapsed_s


def as_a_person(folder: Path) -> float:
    """Seconds of `acoustic scan` in a process of its own; the best of three, as the system's caches are warm then."""
    env = {**os.environ, "ACOUSTIC_DATA_DIR": str(folder / "data"), "ACOUSTIC_CACHE_DIR": str(folder / "cache")}
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "acoustic", "scan", str(folder / "music")], env=env, capture_output=True, check=False
        )
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
