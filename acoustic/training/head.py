"""The genre head, fitted anew once the network has learned to hear.

Beside embeddings and tags, through augmentation and dropped patches, and with ten times as much music that no one has
labelled, the genre head ends short of what its features can tell. On clean crops of the training part it is a convex
problem: logistic regression with the soft labels as targets, in which crops of a labelled source count
`head_labelled` times, and a ridge that pulls towards the head that training made (not towards zero).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .config import TrainConfig
from .prepare import Prepared, Report
from .regression import fit_change
from .student import Student

CROPS = 4
"""clean crops a track, fewer where it is short"""
CROP_EVERY_S = 5.0


def refit_head(config: TrainConfig, prepared: Prepared, student: Student, report: Report) -> bool:
    """Fit the genre head of `student`, whose trunk stays as it is; False, and nothing is changed, where the
    configuration does not ask for it or the head has a hidden layer."""
    head = student.network.genre
    if config.head_labelled <= 0 or not isinstance(head, nn.Linear):
        return False
    features, targets, weights = _material(config, prepared, student, report)
    with torch.no_grad():
        x, logits, wanted, counts = (t.double().numpy() for t in (features, head(features), targets, weights))
        change = torch.from_numpy(fit_change(x, logits, wanted, counts, config.head_ridge).astype(np.float32))
        head.weight.add_(change[:-1].T)
        head.bias.add_(change[-1])
    return True


@torch.inference_mode()
def _material(
    config: TrainConfig, prepared: Prepared, student: Student, report: Report
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled features (N, D), soft labels (N, C) and weights (N,) of clean crops of the training part's music, the
    same ones for the same seed."""
    dataset = prepared.dataset
    rng = np.random.default_rng(config.seed)
    tracks = [t for t in prepared.train if dataset.rows[t].kind == "music"]
    trusted = {s.name for s in config.sources if s.label_weight >= 0.5}
    student.eval()
    features, targets, weights = [], [], []
    for done, track in enumerate(tracks):
        report("head", done, len(tracks))
        length_s = dataset.store.length(track) / dataset.store.sample_rate
        n = min(CROPS, max(1, int(length_s / CROP_EVERY_S)))
        starts = rng.uniform(0, max(0.0, length_s - dataset.segment_s), n)
        said = [dataset.standard_targets(track, float(start)) for start in starts]
        if not any(trust for *_, trust in said):  # a file of which nobody says anything
            continue
        mels = torch.stack([dataset.clean(track, float(start)) for start in starts])
        features.append(student.network.pooled(mels))
        row = dataset.rows[track]
        counts = config.head_labelled if row.genre and row.source in trusted else 1.0
        targets += [genre for *_, genre, _ in said]
        weights += [counts * trust for *_, trust in said]
    return torch.cat(features), torch.from_numpy(np.stack(targets)).float(), torch.tensor(weights)
