"""How many segments, how combined: held-out tracks, each against what the teachers say of the whole track.

    python -m bench.segments configs/embedded.toml --data FOLDER --work runs/embedded --model models/mel-vit-small

Hard labels are few and noisy on long tracks, so the reference is the mean soft label over every window of the track
(the teacher space is fitted on the training groups only). Printed for each number of segments and each way of
voting: the cross-entropy to that reference in nats, how often both have the same top genre with its 95 % Wilson
interval, and the mean paired difference of the cross-entropy to the best row with the half-width of its 95 % interval.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from acoustic.network import backends
from acoustic.network.registry import Registry
from acoustic.records import Votes
from acoustic.training.calibrate import VOTINGS, votes_of
from acoustic.training.config import TrainConfig
from acoustic.training.train import Prepared, prepare
from acoustic.verdict.calibration import segment_probabilities
from acoustic.verdict.metrics import wilson_interval
from acoustic.verdict.voting import combine

COUNTS = (1, 2, 3, 4, 5, 6)
MIN_TRACK_S = 40.0


def reference(prepared: Prepared, track: int) -> np.ndarray:
    """(C,) mean soft label over crops at every half segment of the track."""
    dataset = prepared.dataset
    end_s = dataset.store.length(track) / dataset.store.sample_rate - dataset.segment_s
    starts = np.arange(0.0, max(end_s, 0.0) + 1e-6, dataset.segment_s / 2)
    features = np.stack([dataset.features(track, float(start)) for start in starts])
    assert dataset.space is not None
    return dataset.space.probabilities(features).mean(axis=0)


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
    backend = backends.create(network, "cpu", use_fp16=False)
    store = prepared.dataset.store
    tracks = [t for t in prepared.held if prepared.rows[t].kind == "music"]
    tracks = [t for t in tracks if store.length(t) / store.sample_rate >= MIN_TRACK_S]
    truth = np.stack([reference(prepared, t) for t in tracks])
    rows: dict[tuple[int, str], tuple[np.ndarray, int]] = {}
    for count in COUNTS:
        spec = dataclasses.replace(card.segments, n_segments=count)
        votes: list[Votes] = [votes_of(store, t, config, spec, backend) for t in tracks]
        for voting in VOTINGS:
            p = np.stack(
                [combine(segment_probabilities(v.logits, card.calibration.temperature), voting) for v in votes]
            )
            cross = -(truth * np.log(np.maximum(p, 1e-6))).sum(axis=1)
            rows[count, voting] = cross, int((p.argmax(1) == truth.argmax(1)).sum())
    best = min(rows, key=lambda key: rows[key][0].mean())
    print(f"{len(tracks)} held-out tracks of at least {MIN_TRACK_S:.0f} s; best: {best[0]} segments, {best[1]}")
    print("segments  voting     cross-entropy  difference to best     same top genre")
    for (count, voting), (cross, same) in rows.items():
        difference = cross - rows[best][0]
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        low, high = wilson_interval(same, len(tracks))
        print(
            f"{count:8d}  {voting:9s}  {cross.mean():13.3f}  {difference.mean():+.3f} +- {half:.3f}  "
            f"      {same / len(tracks):.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
