"""How many segments, how combined: held-out tracks, each against what the teachers say of the whole track.

    python -m bench.segments configs/embedded.toml --data FOLDER --work runs/mel-vit-first --model models/mel-vit-small

Hard labels are few and noisy on long tracks, so the reference is the mean soft label over every window of the track
(the teacher space is fitted on the training groups only). Printed for each number of segments and each way of
voting: the cross-entropy to that reference in nats, how often both have the same top genre with its 95 % Wilson
interval, and the mean paired difference of the cross-entropy to the best row with the half-width of its 95 % interval.

Then the same for short tracks: the middle 15, 20 and 30 s, by how much their segments may overlap; and the middle 2.5
and 5 s, which fill no segment, by how they are made to fill one.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from acoustic.network.backends.eager import EagerBackend
from acoustic.network.registry import Registry
from acoustic.records import Votes
from acoustic.signal import segments
from acoustic.signal.mel import log_mel, normalize
from acoustic.training.calibrate import VOTINGS, votes_of
from acoustic.training.config import TrainConfig
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.targets import WaveformStore
from acoustic.verdict.decision import calibrated
from acoustic.verdict.metrics import wilson_interval
from acoustic.verdict.voting import Voting

COUNTS = (1, 2, 3, 4, 5, 6)
MIN_TRACK_S = 40.0
CUTS_S = (15.0, 20.0, 30.0)
OVERLAPS = (0.25, 0.5, 0.75)
SNIPPETS_S = (2.5, 5.0)
FADE_S = 0.05
Rows = dict[tuple[str, ...], np.ndarray]


class Middle(WaveformStore):
    """The same tracks, of each only the middle `length_s` seconds."""

    def __init__(self, store: WaveformStore, length_s: float) -> None:
        self.store, self.length_s, self.sample_rate = store, length_s, store.sample_rate

    def length(self, track: int) -> int:
        return min(round(self.length_s * self.sample_rate), self.store.length(track))

    def read(self, track: int, start: int = 0, n: int | None = None) -> np.ndarray:
        length = self.length(track)
        return self.store.read(track, (self.store.length(track) - length) // 2, length)[start:][:n]


# --- how a short track may fill a segment ---


def repeated(samples: np.ndarray, n: int, sample_rate: int) -> np.ndarray:
    """As `signal.segments` does: the track over and over."""
    return np.resize(samples, n)


def crossfaded(samples: np.ndarray, n: int, sample_rate: int) -> np.ndarray:
    """Repeated; the last 50 ms fade out, at equal power, while those of the next round fade in."""
    n_fade = min(round(FADE_S * sample_rate), len(samples) // 2)
    rising = np.sin(np.linspace(0, np.pi / 2, n_fade, dtype=np.float32))
    period = samples[: len(samples) - n_fade].copy()
    period[:n_fade] = samples[:n_fade] * rising + samples[len(samples) - n_fade :] * rising[::-1]
    return np.concatenate([samples[: len(samples) - n_fade], np.resize(period, n)])[:n]


def at_zero_crossings(samples: np.ndarray, n: int, sample_rate: int) -> np.ndarray:
    """Repeated from its first to its last upward zero crossing, so that no join jumps."""
    upward = np.flatnonzero((samples[:-1] <= 0) & (samples[1:] > 0)) + 1
    return np.resize(samples[upward[0] : upward[-1]] if len(upward) > 1 else samples, n)


def mirrored(samples: np.ndarray, n: int, sample_rate: int) -> np.ndarray:
    """There and back: every other round is played backwards."""
    return np.resize(np.concatenate([samples, samples[::-1]]), n)


FILLS = (repeated, crossfaded, at_zero_crossings, mirrored)


# --- measuring ---


def reference(prepared: Prepared, track: int) -> np.ndarray:
    """(C,) mean soft label over crops at every half segment of the track."""
    dataset = prepared.dataset
    end_s = dataset.store.length(track) / dataset.store.sample_rate - dataset.segment_s
    starts = np.arange(0.0, max(end_s, 0.0) + 1e-6, dataset.segment_s / 2)
    features = np.stack([dataset.features(track, float(start)) for start in starts])
    assert dataset.space is not None
    return dataset.space.probabilities(features).mean(axis=0)


def compare(rows: Rows, truth: np.ndarray, best: tuple[str, ...] | None = None) -> None:
    """Print a line for each of `rows`: its key, and its answers (n, C) against `truth` (n, C) and against the row
    `best` (None: that of the least cross-entropy)."""
    cross = {key: -(truth * np.log(np.maximum(p, 1e-6))).sum(axis=1) for key, p in rows.items()}
    best = best or min(cross, key=lambda key: cross[key].mean())
    for key, p in rows.items():
        difference = cross[key] - cross[best]
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        same = int((p.argmax(axis=1) == truth.argmax(axis=1)).sum())
        low, high = wilson_interval(same, len(truth))
        print(
            f"{'  '.join(f'{part:>9s}' for part in key)}  {cross[key].mean():13.3f}"
            f"  {difference.mean():+.3f} +- {half:.3f}        {same / len(truth):.2f} ({low:.2f} to {high:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.read(arguments.config)
    prepared = prepare(config, arguments.data, arguments.work, lambda name, done, n: None)
    network, card = Registry([]).load(arguments.model)
    backend = EagerBackend(network, "cpu")
    store = prepared.dataset.store
    music = [t for t in prepared.held if prepared.rows[t].kind == "music"]
    length_s = {t: store.length(t) / store.sample_rate for t in music}
    truth = {t: reference(prepared, t) for t in music}

    def votes(of: WaveformStore, tracks: list[int], n_segments: int) -> list[Votes]:
        spec = dataclasses.replace(card.segments, n_segments=n_segments)
        return [votes_of(of, t, config, spec, backend) for t in tracks]

    def answers(of: list[Votes], voting: Voting) -> np.ndarray:
        calibration = dataclasses.replace(card.calibration, voting=voting)
        return np.stack([calibrated(v.logits, calibration)[1] for v in of])

    tracks = [t for t in music if length_s[t] >= MIN_TRACK_S]
    print(f"{len(tracks)} held-out tracks of at least {MIN_TRACK_S:.0f} s")
    print(" segments     voting  cross-entropy  difference to best   same top genre")
    by_count = {n: votes(store, tracks, n) for n in COUNTS}
    rows: Rows = {(str(n), voting): answers(of, voting) for n, of in by_count.items() for voting in VOTINGS}
    compare(rows, np.stack([truth[t] for t in tracks]))

    n_most, voting = card.segments.n_segments, card.calibration.voting
    print(f"\nthe middle of tracks, at most {n_most} segments, by the share of a segment that two of them may share")
    print(" length s     shared   segments  cross-entropy  difference to first  same top genre")
    for cut_s in CUTS_S:
        tracks = [t for t in music if length_s[t] >= cut_s]
        rows = {}
        for shared in OVERLAPS:
            with mock.patch.object(segments, "MAX_OVERLAP", shared):
                of = votes(Middle(store, cut_s), tracks, n_most)
            n_mean = np.mean([len(v.logits) for v in of])
            rows[f"{cut_s:.0f}", f"{shared:.2f}", f"{n_mean:.1f}"] = answers(of, voting)
        print(f"{len(tracks)} tracks")
        compare(rows, np.stack([truth[t] for t in tracks]), best=next(iter(rows)))

    tracks = [t for t in music if length_s[t] * store.sample_rate >= card.mel.n_samples]
    print(f"\nthe middle of {len(tracks)} tracks, by what fills a segment with it")
    print(" length s                filled  cross-entropy  difference to first  same top genre")
    for cut_s in SNIPPETS_S:
        cut = Middle(store, cut_s)
        rows = {}
        for fill in FILLS:
            one = [fill(cut.read(t), card.mel.n_samples, store.sample_rate) for t in tracks]
            of = [backend(normalize(log_mel(x[None], card.mel), card.mel)) for x in one]
            rows[f"{cut_s:.1f}", f"{fill.__name__:>20s}"] = answers(of, voting)
        compare(rows, np.stack([truth[t] for t in tracks]), best=next(iter(rows)))


if __name__ == "__main__":
    main()
