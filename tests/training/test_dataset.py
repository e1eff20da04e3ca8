"""Batches: the same whoever renders which part of them, in whatever order; targets that follow what was heard."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acoustic.network.vit import Architecture
from acoustic.records import MelSpec
from acoustic.signal.mel import log_mel, normalize
from acoustic.training.config import AugmentSpec, Source, TeacherSpec, TrainConfig
from acoustic.training.dataset import CropDataset, Targets
from acoustic.training.heard import contents
from acoustic.training.labels import TeacherSpace, features_of, fit_teacher_space
from acoustic.training.manifest import Row, read_rows
from acoustic.training.targets import TeacherAnswers, WaveformStore, ask_teacher, build_waveforms
from acoustic.training.teachers import load_teacher
from tests.test_engine import song
from tests.training.test_targets import TEACHER

PLAIN = AugmentSpec(
    speed_p=0, noise_p=0, mixup_p=0, floor_p=0, tilt_p=0, low_pass_p=0, high_pass_p=0, time_masks=0, frequency_masks=0
)
CONFIG = TrainConfig(
    name="tiny",
    description="made up",
    labels=("Low", "High"),
    sources=(
        Source("songs", manifest="songs.csv", share=0.8, label_weight=0.5),
        Source("noise", folder="noise", kind="noise", share=0.2),
    ),
    teachers=(  # windows of 2**14 and 2**16 samples: of other lengths a converted Fourier transform is slow
        TeacherSpec("spectrum", "teacher.py", window_s=2.048, hop_s=2.048, gives_tags=True, weight=3.0),
        TeacherSpec("slow", "teacher.py", window_s=8.192, hop_s=8.192),
    ),
    architecture=Architecture(width=32, depth=1, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=2),
    mel=MelSpec(sample_rate=8_000, n_fft=512, hop_length=256, n_mels=32, fmax_hz=4_000.0),
    tags=("high",),
    seed=3,
    batch_size=8,
    augment=PLAIN,
)

SHORT = (6, 7)
"""songs shorter than a crop: theirs always begins at 0"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["file,genre"]
    for i in range(8):
        song(folder / f"{i}.wav", 5 if i in SHORT else 12, i)
        rows.append(f"{i}.wav,{('Low', 'High')[i % 2]}")
    (folder / "songs.csv").write_text("\n".join(rows) + "\n")
    (folder / "noise").mkdir()
    for i in range(4):
        song(folder / "noise" / f"{i}.wav", 3, 100 + i)
    (folder / "teacher.py").write_text(TEACHER)
    return folder


Made = tuple[list[Row], WaveformStore, list[TeacherAnswers], TeacherSpace]


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("work")
    rows = read_rows(CONFIG, data)
    store = build_waveforms(rows, contents(rows, data), data, work, CONFIG.mel.sample_rate, silent)
    answers = [ask_teacher(spec, store, data, work, silent) for spec in CONFIG.teachers]
    plain = CropDataset(CONFIG, rows, store, answers)
    features = np.stack([plain.features(t, 0.0) for t in range(8)])
    return rows, store, answers, fit_teacher_space(features, np.arange(8) % 2, np.ones(8), plain.layout)


def silent(name: str, done: int, n: int) -> None:
    """No progress bar in tests."""


def dataset(
    made: Made, data: Path, tracks: Sequence[int] = range(12), augment: dict | None = None, **other: object
) -> CropDataset:
    rows, store, answers, space = made
    spec = dataclasses.replace(PLAIN, **(augment or {}))
    config = dataclasses.replace(CONFIG, augment=spec, **other)  # type: ignore[arg-type]
    d = CropDataset(config, rows, store, answers, space, data)
    d.fit_scales(range(8))
    d.prepare_draws(tracks)
    return d


def same(a: tuple[torch.Tensor, Targets], b: tuple[torch.Tensor, Targets]) -> bool:
    pairs = [(a[0], b[0])] + [(getattr(a[1], f.name), getattr(b[1], f.name)) for f in dataclasses.fields(Targets)]
    return all(torch.equal(x, y) for x, y in pairs)


EVERYTHING: dict[str, object] = {
    **dict.fromkeys(("speed_p", "pitch_p", "stretch_p", "noise_p", "band_p", "clipping_p", "codec_p", "gain_p"), 0.5),
    **dict.fromkeys(("mixup_p", "cutmix_p", "roll_p", "floor_p", "tilt_p", "low_pass_p", "high_pass_p"), 0.5),
    "band_high_hz": (2_000.0, 3_000.0),
    "time_masks": 2,
    "frequency_masks": 2,
}


@pytest.fixture(scope="module")
def everything(made: Made, data: Path) -> CropDataset:
    pytest.importorskip("audiomentations")
    return dataset(made, data, augment=EVERYTHING, batch_size=6)


# --- batches ---


@given(st.integers(0, 50), st.sampled_from([1, 2, 3, 6]))
@settings(max_examples=5, deadline=None)
def test_parts_put_together_are_the_batch(everything: CropDataset, step: int, n_parts: int) -> None:
    """To the bit, with every augmentation that there is, partners in other parts, and steps in any order."""
    whole = everything.batch(step)
    size = 6 // n_parts
    everything.batch(step + 1, slice(0, 1))
    parts = [everything.batch(step, slice(i * size, (i + 1) * size)) for i in reversed(range(n_parts))][::-1]
    together = Targets(*(torch.cat([getattr(p[1], f.name) for p in parts]) for f in dataclasses.fields(Targets)))
    assert same(whole, (torch.cat([p[0] for p in parts]), together))


def test_a_batch_depends_on_seed_and_step_alone(everything: CropDataset, made: Made, data: Path) -> None:
    first = everything.batch(5)
    everything.batch(2)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert same(everything.batch(5), first)
    assert same(dataset(made, data, augment=EVERYTHING, batch_size=6).batch(5), first)
    assert not torch.equal(everything.batch(6)[0], first[0])
    assert not torch.equal(dataset(made, data, augment=EVERYTHING, batch_size=6, seed=4).batch(5)[0], first[0])


def test_a_batch_is_finite_and_shaped(everything: CropDataset) -> None:
    mels, targets = everything.batch(0)
    assert mels.shape == (6, 32, 224)
    assert (targets.embedding.shape, targets.tags.shape, targets.auxiliary.shape) == ((6, 12), (6, 1), (6, 2))
    for x in (mels, *(getattr(targets, f.name) for f in dataclasses.fields(Targets))):
        assert x.dtype == torch.float32
        assert torch.isfinite(x).all()
    assert targets.genre.sum(1) == pytest.approx(torch.ones(6))


def test_without_augmentation_a_batch_is_clean_crops(made: Made, data: Path) -> None:
    d = dataset(made, data, SHORT)
    mels, targets = d.batch(0)
    tracks = d._plan(0).track
    assert set(tracks) == set(SHORT)
    for i, track in enumerate(tracks):
        assert mels[i].numpy() == pytest.approx(d.clean(int(track), 0.0).numpy(), abs=1e-4)
        embedding, tags, _, genre, weight = d.standard_targets(int(track), 0.0)
        assert targets.embedding[i].numpy() == pytest.approx(embedding, rel=1e-5, abs=1e-5)
        assert targets.tags[i].numpy() == pytest.approx(tags, rel=1e-5, abs=1e-5)
        assert targets.genre[i].numpy() == pytest.approx(genre, rel=1e-5)
        assert targets.genre_weight[i] == weight == 1


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_two_crops_in_one_share_their_targets(made: Made, data: Path, kind: str) -> None:
    d = dataset(made, data, SHORT, {f"{kind}_p": 1.0})
    # a step in which not every partner is another crop of the same track
    step = next(s for s in range(20) if (d._plan(s).track != d._plan(s).track[d._plan(s).partner]).any())
    mels, targets = d.batch(step)
    plan = d._plan(step)
    clean = {t: d.clean(t, 0.0) for t in SHORT}
    embedding = {t: d.standard_targets(t, 0.0)[0] for t in SHORT}
    n_others = 0
    for i in range(8):
        own, other = int(plan.track[i]), int(plan.track[plan.partner[i]])
        share = float(plan.share[i]) if kind == "mixup" else 1 - round((1 - plan.share[i]) * 224) / 224
        assert 0.5 <= share <= 1
        expected = share * embedding[own] + (1 - share) * embedding[other]
        assert targets.embedding[i].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)
        n_others += own != other
        if kind == "cutmix" and own != other:
            # each was normalised by its own mean: within its frames the cut crop differs by a constant
            flat = [(mels[i] - clean[t]).std(dim=0) < 1e-3 for t in (own, other)]
            assert int((flat[0] | flat[1]).sum()) == 224
            assert int(flat[1].sum()) == round((1 - plan.share[i]) * 224)
    assert n_others


def test_noise_is_mixed_in_from_the_training_part_only(made: Made, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d = dataset(made, data, range(10), {"noise_p": 1.0})
    held = {10, 11}
    assert {d.rows[t].kind for t in (8, 9, *held)} == {"noise"}
    asked: list[int] = []
    read = WaveformStore.read

    def spy(store: WaveformStore, track: int, start: int = 0, n: int | None = None) -> np.ndarray:
        asked.append(track)
        return read(store, track, start, n)

    monkeypatch.setattr(WaveformStore, "read", spy)
    for step in range(6):
        d.batch(step)
    assert {8, 9} <= set(asked)
    assert not held & set(asked)


# --- weights of teachers ---


def test_a_teachers_weight_is_that_of_its_dimensions(made: Made, data: Path) -> None:
    d = dataset(made, data)
    assert d.embedding_weight.dtype == torch.float32
    assert d.embedding_weight.tolist() == pytest.approx([1.5] * 6 + [0.5] * 6)
    assert d.auxiliary_weight.tolist() == pytest.approx([1.0] * 2)  # the tags' teacher has none


def test_equal_weights_are_no_weights(made: Made, data: Path) -> None:
    rows, store, answers, space = made
    for weight in (0.2, 5.0):
        alike = [dataclasses.replace(a, spec=dataclasses.replace(a.spec, weight=weight)) for a in answers]
        d = CropDataset(CONFIG, rows, store, alike, space)
        assert d.embedding_weight.tolist() == pytest.approx([1.0] * 12)
    mute = [answers[0], dataclasses.replace(answers[1], spec=dataclasses.replace(answers[1].spec, weight=0.0))]
    d = CropDataset(CONFIG, rows, store, mute, space)
    assert d.embedding_weight.tolist() == pytest.approx([2.0] * 6 + [0.0] * 6)
    assert d.auxiliary_weight.tolist() == [0.0] * 2
    alone = CropDataset(CONFIG, rows, store, answers[:1], space)
    assert alone.auxiliary_weight.shape == (0,)


def test_what_hardly_ever_speaks_is_not_shouted(made: Made) -> None:
    """A number that was silent in all crops that the scale was fitted on, and then says 5."""
    rows, store, answers, space = made
    embedding = answers[0].embedding.copy()
    windows = slice(int(answers[0].first[8]), None)  # of the noise, after the eight songs
    embedding[:, 0] = 0.0
    embedding[windows, 0] = 5.0
    d = CropDataset(CONFIG, rows, store, [dataclasses.replace(answers[0], embedding=embedding), answers[1]], space)
    d.fit_scales(range(8))
    typical = np.median(embedding[: windows.start].std(axis=0))
    assert d.standard_targets(9, 0.0)[0][0] < 5.0 / (0.05 * typical)


# --- consistent teaching ---


def raw(d: CropDataset, targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding, tags and auxiliary as the teachers gave them."""
    fields = (targets.embedding, targets.tags, targets.auxiliary)
    embedding, tags, auxiliary = (x.numpy() * s.std + s.mean for x, s in zip(fields, d.scales, strict=True))
    return embedding, tags, auxiliary


def asked_directly(data: Path, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three windows side by side and one that ends with the crop; the crop repeated, at its begin and at its end."""
    teacher = load_teacher(data / "teacher.py").teacher
    parts = [samples[i : i + 2**14] for i in (0, 2**14, 2**15, len(samples) - 2**14)]
    repeated = np.tile(samples, 2)
    long = [repeated[: 2**16], repeated[-(2**16) :]]
    (logits, embedding), (auxiliary, other) = (
        [x.numpy().mean(0) for x in teacher(torch.from_numpy(np.stack(windows)))] for windows in (parts, long)
    )
    return np.concatenate([embedding, other]), logits[1:], auxiliary


def test_consistent_targets_of_a_plain_crop_are_what_the_teachers_say_of_it(made: Made, data: Path) -> None:
    d = dataset(made, data, SHORT, consistent=True)
    assert "listeners" not in vars(d)  # nobody is loaded before the first batch
    _, targets = d.batch(0)
    for i, track in enumerate(d._plan(0).track):
        expected = asked_directly(data, d.store.read(int(track), 0, d.n_crop))
        for mine, theirs in zip(raw(d, targets), expected, strict=True):
            assert mine[i] == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_consistent_targets_follow_the_gain(made: Made, data: Path) -> None:
    """The made-up teacher's logits are amplitudes, half as large 6 dB below; its embedding is the same at any level."""
    pytest.importorskip("audiomentations")
    db = float(20 * np.log10(2))
    plain = dataset(made, data, SHORT, consistent=True)
    quiet = dataset(made, data, SHORT, {"gain_p": 1.0, "gain_db": (-db, -db)}, consistent=True)
    loud, soft = raw(plain, plain.batch(0)[1]), raw(quiet, quiet.batch(0)[1])
    assert soft[0] == pytest.approx(loud[0], rel=1e-2, abs=1e-3)
    for a, b in zip(loud[1:], soft[1:], strict=True):
        assert b == pytest.approx(a / 2, rel=1e-3, abs=1e-2)
    fixed = dataset(made, data, SHORT, {"gain_p": 1.0, "gain_db": (-db, -db)})
    assert torch.equal(fixed.batch(0)[1].embedding, dataset(made, data, SHORT).batch(0)[1].embedding)


def test_teachers_hear_the_very_waveform_that_the_student_hears(made: Made, data: Path) -> None:
    d = dataset(made, data, range(10), {"noise_p": 1.0, "noise_snr_db": (0.0, 5.0), "speed_p": 1.0}, consistent=True)
    heard: list[np.ndarray] = []
    ask = d.listeners[0]

    def spy(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heard.append(samples)
        return ask(samples)

    d.listeners[0] = spy  # type: ignore[call-overload]
    mels, targets = d.batch(4)
    assert len(heard) == 8
    for mel, samples, embedding in zip(mels, heard, raw(d, targets)[0], strict=True):
        assert mel.numpy() == pytest.approx(normalize(log_mel(samples[None], d.config.mel), d.config.mel)[0], abs=1e-4)
        assert embedding == pytest.approx(asked_directly(data, samples)[0], rel=1e-3, abs=1e-2)


def test_consistent_genres_are_those_of_what_was_heard(made: Made, data: Path) -> None:
    d = dataset(made, data, SHORT, consistent=True)
    samples = d.store.read(6, 0, d.n_crop)
    said = [listener(samples) for listener in d.listeners]
    assert d.space is not None
    soft = d.space.probabilities(features_of(said)[None])[0]
    assert d.consistent_targets(6, samples)[3] == pytest.approx(0.5 * soft + 0.5 * np.asarray([1.0, 0.0]))
    assert d.consistent_targets(8, samples)[4] == 0  # noise has no genre


def test_consistent_parts_are_the_batch_and_validation_stays_clean(made: Made, data: Path) -> None:
    on = {"noise_p": 1.0, "mixup_p": 0.5, "cutmix_p": 0.5}
    d = dataset(made, data, range(10), on, consistent=True)
    whole = d.batch(3)
    for part in (slice(0, 4), slice(4, 8)):
        mels, targets = d.batch(3, part)
        assert torch.equal(mels, whole[0][part])
        assert torch.equal(targets.embedding, whole[1].embedding[part])
        assert torch.equal(targets.genre, whole[1].genre[part])
    fixed = dataset(made, data, range(10), on)
    for mine, theirs in zip(d.standard_targets(3, 1.0), fixed.standard_targets(3, 1.0), strict=True):
        assert np.array_equal(mine, theirs)
