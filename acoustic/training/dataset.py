"""Crops, their targets, and batches that depend on nothing but the seed and the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingsError
from ..signal.mel import log_mel, normalize
from . import augment_mel
from .augment import Augmenter
from .config import TrainConfig
from .labels import Layout, TeacherSpace, features_of, index_of, mix
from .manifest import Row
from .targets import TeacherAnswers, WaveformStore
from .teachers import Answer, Listener

PLAN, WAVEFORM, MEL = 1, 2, 3
"""the three sets of draws of a step: none moves another, whatever is switched on"""

LEAST_STD = 0.1
"""of a target's standard deviation, as a share of the median of all that its teacher says"""

CropTargets = tuple[Any, ...]
"""the fields of Targets for one crop"""


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn for a whole batch before any of it is rendered, each (B,): tracks; whom a crop is put together with
    and how much of itself it keeps then; whether that is a mix, a cut, or (both False) not done."""

    track: np.ndarray
    partner: np.ndarray
    share: np.ndarray
    mixed: np.ndarray
    cut: np.ndarray


class CropDataset:
    """Crops of tracks, drawn and augmented, with the teachers' targets.

    Targets: the embeddings of all teachers side by side; the wanted tags of the teacher that gives them; the logits of
    the other teachers as auxiliary targets. They are those of the clean windows that the crop overlaps or, where the
    configuration says `consistent`, what the teachers say of the augmented waveform itself (Beyer et al., "Knowledge
    distillation: A good teacher is patient and consistent", 2022). Without teachers a crop's only target is its file's
    own genre. `data` is the folder that the configuration's paths are relative to. Raises SettingsError for a tag that
    no teacher gives.
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: Sequence[Row],
        store: WaveformStore,
        answers: Sequence[TeacherAnswers],
        space: TeacherSpace | None = None,
        data: Path = Path(),
    ) -> None:
        self.config = config
        self.rows = rows
        self.store = store
        self.answers = answers
        self.space = space
        self.data = data
        self.sources = {source.name: source for source in config.drawn}
        self._tag_answer = next((i for i, a in enumerate(answers) if a.spec.gives_tags), 0)
        self.tag_columns = columns(config.tags, answers[self._tag_answer].tags if answers else ())
        self._soft_cache: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
        self.segment_s = config.mel.segment_s
        self.n_crop = config.mel.n_samples
        self._others = [a for i, a in enumerate(answers) if i != self._tag_answer]
        self.embedding_weight = _weights([(a.spec.weight, a.embedding.shape[1]) for a in answers])
        self.auxiliary_weight = _weights([(a.spec.weight, a.logits.shape[1]) for a in self._others])

    @cached_property
    def augmenter(self) -> Augmenter:
        """The waveform augmentations that are switched on."""
        rooms = self.data / self.config.rooms if self.config.rooms else None
        return Augmenter(self.config.augment, self.store.sample_rate, rooms)

    @cached_property
    def listeners(self) -> list[Listener]:
        """The teachers themselves, for consistent targets: loaded when they are asked for the first time."""
        return [Listener(answer.spec, self.data, self.n_crop, self.store.sample_rate) for answer in self.answers]

    # --- targets ---

    @property
    def layout(self) -> Layout:
        """Of `features`. SettingsError where the configuration names a tag for a genre that no teacher knows."""
        teachers = [(answer.tags, answer.embedding.shape[1]) for answer in self.answers]
        return Layout.of(self.config.labels, self.config.genre_tags, teachers)

    def features(self, track: int, start_s: float) -> np.ndarray:
        """What the teachers said of a crop's clean windows, as one vector (F,)."""
        return features_of(self._said(track, start_s))

    def standard_targets(self, track: int, start_s: float) -> CropTargets:
        """The fields of Targets for a crop, from the teachers' answers on the clean windows."""
        second = int(start_s)  # one label for each second: a run that resumes must find the same one
        if (track, second) not in self._soft_cache:
            self._soft_cache[track, second] = self._genre(track, self._said(track, float(second)))
        return (*self._standard(self._said(track, start_s)), *self._soft_cache[track, second])

    def consistent_targets(self, track: int, samples: np.ndarray) -> CropTargets:
        """The fields of Targets for a crop of `track`, from what the teachers say of its waveform (n_samples,) now."""
        said = [listener(samples) for listener in self.listeners]
        return (*self._standard(said), *self._genre(track, said))

    def _said(self, track: int, start_s: float) -> list[Answer]:
        return [answer.of_crop(track, start_s, self.segment_s) for answer in self.answers]

    def _raw(self, said: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embedding (D,), tag logits (T,), auxiliary logits (A,) of what all teachers said, not standardised."""
        if not said:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        auxiliary = [logits for i, (logits, _) in enumerate(said) if i != self._tag_answer]
        return (
            np.concatenate([embedding for _, embedding in said]),
            said[self._tag_answer][0][self.tag_columns],
            np.concatenate(auxiliary) if auxiliary else np.zeros(0),
        )

    def _standard(self, said: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        embedding, tags, auxiliary = (scale.apply(x) for scale, x in zip(self.scales, self._raw(said), strict=True))
        return embedding, tags, auxiliary

    def _genre(self, track: int, said: Sequence[Answer]) -> tuple[np.ndarray, float]:
        """Soft label (C,), with the file's own label mixed in, and its weight: 0, and no opinion, for what is not
        music, and without teachers for what has no label."""
        row, labels = self.rows[track], self.config.labels
        genre, trust = index_of(row, labels), self.sources[row.source].label_weight
        even = np.full(len(labels), 1 / len(labels))
        if row.kind != "music" or (not self.answers and genre is None):
            return even, 0.0
        if not self.answers:
            return mix(even, genre, 1.0), trust
        if self.space is None:
            raise RuntimeError("soft labels are asked for before the teacher space was fitted")
        soft = self.space.probabilities(features_of(said)[None])[0]
        return mix(soft, genre, trust), 1.0

    def fit_scales(self, tracks: Sequence[int]) -> None:
        """Means and deviations of the targets over the middle crops of `tracks`."""
        raw = [self._raw(self._said(track, self.middle(track))) for track in tracks]
        embedding, tags, auxiliary = (np.stack(column) for column in zip(*raw, strict=True))
        widths = [a.embedding.shape[1] for a in self.answers]
        others = [a.logits.shape[1] for a in self._others]
        self.scales = (_scale(embedding, widths), _scale(tags, [tags.shape[1]]), _scale(auxiliary, others))

    def middle(self, track: int) -> float:
        """Start in seconds of the crop in the middle of a track."""
        return max(0.0, (self.store.length(track) / self.store.sample_rate - self.segment_s) / 2)

    # --- batches ---

    def prepare_draws(self, tracks: Sequence[int]) -> None:
        """Fix who is drawn how often: sources by their share, within them files by the root of their length or, where
        genres are balanced, each genre by the root of its number of files. Noise that is mixed in comes from `tracks`
        too."""
        weight = np.zeros(len(self.rows))
        for source in self.config.drawn:
            mine = [t for t in tracks if self.rows[t].source == source.name]
            if not mine:
                continue
            if source.balance:
                genres = [self.rows[t].genre for t in mine]
                count = Counter(genres)
                w = np.asarray([1 / np.sqrt(count[g]) for g in genres])
            else:
                w = np.sqrt([max(1.0, self.store.length(t) / self.n_crop) for t in mine])
            weight[mine] = source.share * w / w.sum()
        self._draw = weight / weight.sum()
        self._noise = [t for t in tracks if self.rows[t].kind == "noise"]

    def batch(self, step: int, part: slice | None = None) -> tuple[Tensor, Targets]:
        """The augmented, normalised mels (B, n_mels, 224) of a step, and their targets; of a `part` of the batch only,
        the very same ones, where several processes share it.

        A sample is drawn by (seed, step, its place in the batch) and rendered by itself; a partner outside of the part
        is rendered for the sample that needs it.
        """
        plan = self._plan(step)
        rendered: dict[int, tuple[Tensor, CropTargets]] = {}

        def crop(i: int) -> tuple[Tensor, CropTargets]:
            if i not in rendered:
                rendered[i] = self._render(int(plan.track[i]), self._generator(step, WAVEFORM, i))
            return rendered[i]

        mels, targets = [], []
        for i in range(self.config.batch_size)[part or slice(None)]:
            rng = self._generator(step, MEL, i)
            mel, wanted = crop(i)
            if plan.mixed[i] or plan.cut[i]:
                mel, wanted = self._together((mel, wanted), crop(int(plan.partner[i])), plan, i, rng)
            mels.append(self._finished(mel, rng))
            targets.append(wanted)
        columns = (torch.from_numpy(np.stack(c).astype(np.float32)) for c in zip(*targets, strict=True))
        return torch.stack(mels), Targets(*columns)

    def _generator(self, step: int, kind: int, i: int = 0) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, self.config.draws, step, i, kind))

    def _plan(self, step: int) -> Plan:
        n, augment = self.config.batch_size, self.config.augment
        rng = self._generator(step, PLAN)
        track = rng.choice(len(self.rows), n, p=self._draw)
        partner, share, chance = rng.permutation(n), rng.uniform(0.5, 1.0, n), rng.random(n)
        mixed = chance < augment.mixup_p
        return Plan(track, partner, share, mixed, ~mixed & (chance < augment.mixup_p + augment.cutmix_p))

    def _render(self, track: int, rng: np.random.Generator) -> tuple[Tensor, CropTargets]:
        """One crop by itself: its mel (n_mels, 224) in dB below its loudest bin, from the augmented waveform, and its
        targets."""
        pace = self.augmenter.pace(rng)
        n = pace.n_source(self.n_crop)
        start = int(rng.integers(0, max(0, self.store.length(track) - n) + 1))
        noise = self._some_noise if self._noise and self.rows[track].kind == "music" else None
        samples = self.augmenter(self.store.read(track, start, n), self.n_crop, pace, rng, noise)
        mel = torch.from_numpy(log_mel(samples[None], self.config.mel)[0])
        if self.config.consistent:
            targets = self.consistent_targets(track, samples)
        else:
            targets = self.standard_targets(track, start / self.store.sample_rate)
        return augment_mel.level(mel), targets

    def _some_noise(self, rng: np.random.Generator) -> np.ndarray:
        """A noise recording of the training part, begun anywhere."""
        noise = self.store.read(int(rng.choice(self._noise)))
        return np.roll(noise, int(rng.integers(0, len(noise))))

    def _together(
        self,
        first: tuple[Tensor, CropTargets],
        second: tuple[Tensor, CropTargets],
        plan: Plan,
        i: int,
        rng: np.random.Generator,
    ) -> tuple[Tensor, CropTargets]:
        """Two crops in one, mixed or cut, and their targets by the same share."""
        share = float(plan.share[i])
        if plan.mixed[i]:
            mel = augment_mel.mix_power(first[0], second[0], share)
        else:
            mel, share = augment_mel.cut_in(first[0], second[0], share, rng)
        targets = tuple(share * a + (1 - share) * b for a, b in zip(first[1], second[1], strict=True))
        return torch.maximum(mel, mel.max() - self.config.mel.top_db), targets

    def _finished(self, mel: Tensor, rng: np.random.Generator) -> Tensor:
        """What the network is given of a mel in dB: turned, coloured, normalised, masked."""
        spec, augment = self.config.mel, self.config.augment
        mel = augment_mel.roll(mel, augment, rng)
        mel = augment_mel.color(mel, spec, augment, rng)
        return augment_mel.mask(torch.from_numpy(normalize(mel.numpy(), spec)), augment, rng)

    def clean(self, track: int, start_s: float) -> Tensor:
        """The normalised mel (n_mels, 224) of a crop without augmentation."""
        start = round(start_s * self.store.sample_rate)
        samples = self.store.read(track, start, self.n_crop)
        return torch.from_numpy(normalize(log_mel(samples[None], self.config.mel), self.config.mel)[0])


def columns(tags: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Which of the logits of a teacher that knows the tags `known` the wanted ones are, (T,). SettingsError for one
    that it does not know."""
    for tag in tags:
        if tag not in known:
            raise SettingsError(f"tags: no teacher knows {tag!r}", "One of them must say so: `gives_tags`.")
    return np.asarray([known.index(tag) for tag in tags], dtype=np.int64)


def _scale(x: np.ndarray, widths: Sequence[int]) -> Scale:
    """Of crops (n, D), side by side what teachers of these `widths` said. A number that is silent in nearly all of them
    counts as if it moved a little: the first crop in which it speaks would else be thousands of deviations away, and
    nothing but that would be learned."""
    parts = np.split(x.std(0), np.cumsum(widths)[:-1])
    floored = [np.maximum(std, LEAST_STD * np.median(std)) for std in parts if std.size]
    return Scale(x.mean(0), np.concatenate([*floored, np.zeros(0)]) + 1e-6)


def _weights(parts: Sequence[tuple[float, int]]) -> Tensor:
    """Each teacher's weight on each of its dimensions, (sum of widths,) with mean 1: equal weights count every
    dimension alike."""
    weights = np.concatenate([np.full(width, weight) for weight, width in parts] or [np.zeros(0)])
    total = weights.sum()
    return torch.from_numpy((weights * (len(weights) / total) if total > 0 else weights).astype(np.float32))
