"""Crops, their targets, and batches that depend on nothing but the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..signal.mel import log_mel, normalize
from . import augment
from .config import TrainConfig
from .labels import TeacherSpace, crop_features, index_of, mix
from .manifest import Row
from .targets import TeacherAnswers, WaveformStore


@dataclass(frozen=True, slots=True)
class Targets:
    """What a batch should be answered with: embeddings (B, D), tag logits (B, T), auxiliary logits (B, A), all
    standardised; soft genres (B, C) with their weight (B,), 0 for what is not music."""

    embedding: Tensor
    tags: Tensor
    auxiliary: Tensor
    genre: Tensor
    genre_weight: Tensor


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of each target dimension over the training crops."""

    mean: np.ndarray
    std: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.std


class CropDataset:
    """Every window of the first teacher is one crop position; a crop may start up to half a hop away from it.

    Targets: the embeddings of all teachers side by side; the wanted tags of the teacher that gives them; the logits of
    the other teachers as auxiliary targets.
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: Sequence[Row],
        store: WaveformStore,
        answers: Sequence[TeacherAnswers],
        space: TeacherSpace | None = None,
    ) -> None:
        self.config = config
        self.rows = rows
        self.store = store
        self.answers = answers
        self.space = space
        self.sources = {source.name: source for source in config.sources}
        tag_teacher = next((a for a in answers if a.spec.gives_tags), answers[0])
        self._tag_answer = answers.index(tag_teacher)
        self.tag_columns = np.asarray([tag_teacher.tags.index(tag) for tag in config.tags], dtype=np.int64)
        self.segment_s = config.mel.segment_s
        self.n_crop = config.mel.n_samples

    # --- targets ---

    def features(self, track: int, start_s: float) -> np.ndarray:
        return crop_features(self.answers, track, start_s, self.segment_s)

    def raw_targets(self, track: int, start_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embedding (D,), tag logits (T,), auxiliary logits (A,) of a crop, not standardised."""
        embeddings, auxiliary, tags = [], [], np.zeros(0)
        for i, answer in enumerate(self.answers):
            logits, embedding = answer.of_crop(track, start_s, self.segment_s)
            embeddings.append(embedding)
            if i == self._tag_answer:
                tags = logits[self.tag_columns]
            else:
                auxiliary.append(logits)
        return np.concatenate(embeddings), tags, np.concatenate(auxiliary) if auxiliary else np.zeros(0)

    def soft_genre(self, track: int, start_s: float) -> np.ndarray:
        """(C,) soft label of a crop, with the file's own label mixed in."""
        if self.space is None:
            raise RuntimeError("soft labels are asked for before the teacher space was fitted")
        row = self.rows[track]
        soft = self.space.probabilities(self.features(track, start_s)[None])[0]
        return mix(soft, index_of(row, self.config.labels), self.sources[row.source].label_weight)

    def fit_scales(self, tracks: Sequence[int]) -> None:
        """Means and deviations of the targets over the middle crops of `tracks`."""
        raw = [self.raw_targets(track, self.middle(track)) for track in tracks]
        self.scales = tuple(_scale(np.stack(column)) for column in zip(*raw, strict=True))

    def middle(self, track: int) -> float:
        return max(0.0, (self.store.length(track) / self.store.sample_rate - self.segment_s) / 2)

    # --- batches ---

    def prepare_draws(self, tracks: Sequence[int]) -> None:
        """Fix who is drawn how often: sources by their share, within them files by length or genres evenly."""
        weight = np.zeros(len(self.rows))
        for source in self.config.sources:
            mine = [t for t in tracks if self.rows[t].source == source.name]
            if not mine:
                continue
            if source.balance:
                genres = [self.rows[t].genre for t in mine]
                w = np.asarray([1 / np.sqrt(genres.count(g)) for g in genres])
            else:
                w = np.sqrt([max(1.0, self.store.length(t) / self.n_crop) for t in mine])
            weight[mine] = source.share * w / w.sum()
        self._draw = weight / weight.sum()
        self._noise = [t for t in tracks if self.rows[t].kind == "noise"]
        self._soft_cache: dict[tuple[int, int], np.ndarray] = {}

    def batch(self, step: int) -> tuple[Tensor, Targets]:
        """The augmented, normalised mels (B, n_mels, 224) of a step, and their targets."""
        config, spec = self.config, self.config.mel
        rng = np.random.default_rng((config.seed, step))
        tracks = rng.choice(len(self.rows), config.batch_size, p=self._draw)
        waveforms, starts = zip(*(self._crop(int(t), rng) for t in tracks), strict=True)
        mels = log_mel(torch.from_numpy(np.stack(waveforms)), spec)
        targets = [self.standard_targets(int(t), s) for t, s in zip(tracks, starts, strict=True)]
        stacked = [torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*targets, strict=True)]
        mels, stacked = self._mixup(mels, stacked, rng)
        mels = torch.stack([augment.color(mel, spec, config.augment, rng) for mel in mels])
        mels = normalize(mels, spec)
        mels = torch.stack([augment.mask(mel, config.augment, rng) for mel in mels])
        return mels, Targets(*stacked)

    def _crop(self, track: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """An augmented crop (n_samples,) and its start in seconds."""
        a = self.config.augment
        factor = float(rng.uniform(*a.speed_range)) if rng.random() < a.speed_p else 1.0
        n = int(np.ceil(self.n_crop * factor)) + 64
        room = max(0, self.store.length(track) - n)
        start = int(rng.integers(0, room + 1))
        samples = self.store.read(track, start, n)
        samples = augment.speed(samples, factor, self.n_crop) if factor != 1.0 else samples[: self.n_crop]
        if len(samples) < self.n_crop:
            samples = np.pad(samples, (0, self.n_crop - len(samples)))
        if self._noise and self.rows[track].kind == "music" and rng.random() < a.noise_p:
            noise = self.store.read(int(rng.choice(self._noise)))
            noise = np.roll(noise, int(rng.integers(0, len(noise))))
            samples = augment.add_noise(samples, noise, float(rng.uniform(*a.noise_snr_db)))
        return samples.astype(np.float32), start / self.store.sample_rate

    def standard_targets(self, track: int, start_s: float) -> tuple[Any, ...]:
        embedding, tags, auxiliary = (
            scale.apply(x) for scale, x in zip(self.scales, self.raw_targets(track, start_s), strict=True)
        )
        if self.rows[track].kind != "music":
            return (
                embedding,
                tags,
                auxiliary,
                np.full(len(self.config.labels), 1 / len(self.config.labels)),
                np.float32(0),
            )
        second = int(start_s)  # one label for each second: a run that resumes must find the same one
        if (track, second) not in self._soft_cache:
            self._soft_cache[track, second] = self.soft_genre(track, float(second))
        return embedding, tags, auxiliary, self._soft_cache[track, second], np.float32(1)

    def _mixup(self, mels: Tensor, targets: list[Tensor], rng: np.random.Generator) -> tuple[Tensor, list[Tensor]]:
        """Some samples become a mix of two (Zhang et al., 2018): power and targets by the same share."""
        partner = torch.from_numpy(rng.permutation(len(mels)))
        share = rng.uniform(0.5, 1.0, len(mels))
        share[rng.random(len(mels)) >= self.config.augment.mixup_p] = 1.0
        s = torch.from_numpy(share.astype(np.float32))
        loud = mels.amax(dim=(1, 2), keepdim=True)
        level = mels - loud  # equal loudness first, or the louder one would always win
        mixed = torch.stack(
            [
                m if f == 1 else augment.mix_power(m, level[p], float(f))
                for m, p, f in zip(level, partner, share, strict=True)
            ]
        )
        mixed = torch.maximum(mixed, mixed.amax(dim=(1, 2), keepdim=True) - self.config.mel.top_db)
        return mixed, [
            s.view(-1, *[1] * (t.ndim - 1)) * t + (1 - s).view(-1, *[1] * (t.ndim - 1)) * t[partner] for t in targets
        ]

    def clean(self, track: int, start_s: float) -> Tensor:
        """The normalised mel (n_mels, 224) of a crop without augmentation."""
        start = round(start_s * self.store.sample_rate)
        samples = self.store.read(track, start, self.n_crop)
        return normalize(log_mel(samples[None], self.config.mel), self.config.mel)[0]


def _scale(x: np.ndarray) -> Scale:
    return Scale(x.mean(0), x.std(0) + 1e-6)
