"""A whole run on made-up songs and a made-up teacher: it learns, resumes to the same weights, and ends in a model."""

from __future__ import annotations

import dataclasses
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import DivergedError
from acoustic.network.registry import Registry, save_model
from acoustic.network.vit import Architecture
from acoustic.records import Analysis, Calibration, MelSpec
from acoustic.settings import PROJECT_ROOT, Settings
from acoustic.training import checkpoint, train
from acoustic.training.checkpoint import Progress
from acoustic.training.config import AugmentSpec, Source, TeacherSpec, TrainConfig
from acoustic.training.finish import describe, finish
from acoustic.training.logbook import read_history
from acoustic.training.manifest import split
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.student import new_student
from acoustic.training.train import fit, loss_sums, patch_choice, schedule, validate
from tests.test_engine import song
from tests.training.test_targets import TEACHER

SHAPE = Architecture(width=32, depth=1, n_heads=2, stem="conv", pooling="mean", n_mels=32, n_classes=2)
CONFIG = TrainConfig(
    name="tiny",
    description="made up",
    labels=("Low", "High"),
    sources=(
        Source("songs", manifest="songs.csv", share=0.8, label_weight=0.5, group=("artist",), balance=True),
        Source("speech", folder="speech", kind="speech", share=0.1),
        Source("noise", folder="noise", kind="noise", share=0.1),
    ),
    teachers=(TeacherSpec("spectrum", "teacher.py", window_s=2.048, hop_s=2.048, gives_tags=True),),
    architecture=SHAPE,
    mel=MelSpec(sample_rate=8_000, n_fft=512, hop_length=256, n_mels=32, fmax_hz=4_000.0),
    tags=("Music", "Speech", "Musical instrument"),
    held_out=0.3,
    samples=96,
    batch_size=8,
    learning_rate=3e-3,
    ema=0.8,
    precision="float32",  # what is fastest is measured, and on a busy machine it is not the same twice
    checkpoint_steps=4,
    augment=AugmentSpec(),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["file,genre,artist"]
    for i in range(16):
        song(folder / f"{i}.wav", 9, i)
        rows.append(f"{i}.wav,{('Low', 'High')[i % 2]},artist {i // 2}")
    (folder / "songs.csv").write_text("\n".join(rows) + "\n")
    for kind in ("speech", "noise"):
        (folder / kind).mkdir()
        for i in range(8):
            song(folder / kind / f"{i}.wav", 3, 100 * len(kind) + i)
    names = '["Music", "Speech", "Musical instrument", "Other"]'
    text = TEACHER.replace('["low", "high"]', names).replace(
        "torch.stack([s[:, :half].mean(1), s[:, half:].mean(1)], 1)",
        "torch.stack([s[:, :half].mean(1), s[:, half:].mean(1), s[:, ::2].mean(1), s[:, 1::2].mean(1)], 1)",
    )
    (folder / "teacher.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(CONFIG, data, tmp_path_factory.mktemp("work"), silent)


def silent(name: str, done: int, n: int) -> None:
    """No progress bar in tests."""


def test_no_group_is_on_both_sides(prepared: Prepared) -> None:
    groups = [{prepared.rows[t].group for t in side} for side in (prepared.train, prepared.held)]
    assert groups[0]
    assert groups[1]
    assert not groups[0] & groups[1]
    assert [t for t, held in enumerate(split(prepared.rows, CONFIG)) if held] == prepared.held


def test_a_batch_depends_on_seed_and_step_alone(prepared: Prepared) -> None:
    a, b, c = (prepared.dataset.batch(step) for step in (3, 3, 4))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1].embedding, b[1].embedding)
    assert not torch.equal(a[0], c[0])
    assert a[0].shape == (8, 32, 224)
    assert a[1].genre.sum(1) == pytest.approx(torch.ones(8))


def test_targets_are_decoded_and_asked_once(data: Path, tmp_path: Path, prepared: Prepared) -> None:
    first = prepare(CONFIG, data, tmp_path, silent)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "targets").iterdir()}
    again = prepare(CONFIG, data, tmp_path, silent)
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "targets").iterdir()}
    assert np.array_equal(first.dataset.features(0, 0.0), again.dataset.features(0, 0.0))


def test_changed_data_and_teachers_are_asked_again(data: Path, tmp_path: Path) -> None:
    first = prepare(CONFIG, data, tmp_path, silent).dataset
    longer = dataclasses.replace(CONFIG.teachers[0], hop_s=1.0)
    second = prepare(dataclasses.replace(CONFIG, teachers=(longer,)), data, tmp_path, silent).dataset
    assert len(second.answers[0].logits) > len(first.answers[0].logits)
    kept = (data / "3.wav").read_bytes()
    os.utime(data / "3.wav", (1, 1))  # as a copied folder may have it: the same songs
    assert prepare(CONFIG, data, tmp_path, silent).dataset.store.stamp == first.store.stamp
    try:
        song(data / "3.wav", 9, 300)
        assert prepare(CONFIG, data, tmp_path, silent).dataset.store.stamp != first.store.stamp
    finally:
        (data / "3.wav").write_bytes(kept)
    third = prepare(CONFIG, data, tmp_path, silent).dataset
    assert third.store.stamp == first.store.stamp
    assert np.array_equal(third.answers[0].logits, first.answers[0].logits)


class KilledError(Exception):
    """In the place of a kill."""


def killer(name: str, done: int, n: int) -> None:
    """A report that ends the run before its eighth step."""
    if done == 7:
        raise KilledError


def test_a_killed_run_resumes_to_the_same_weights(prepared: Prepared, tmp_path: Path, data: Path) -> None:
    whole = fit(CONFIG, prepared, _made(tmp_path / "whole"), silent, str)
    with pytest.raises(KilledError):
        fit(CONFIG, prepared, _made(tmp_path / "cut"), killer, str)
    anew = prepare(CONFIG, data, tmp_path / "work", silent)  # as a new process would
    resumed = fit(CONFIG, anew, tmp_path / "cut", silent, str)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value.float(), resumed.state_dict()[name].float(), atol=1e-6), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_that_are_recomputed_train_as_those_that_are_kept(
    prepared: Prepared, tmp_path: Path, precision: str
) -> None:
    short = dataclasses.replace(CONFIG, samples=24, precision=precision)
    kept, recomputed = (
        fit(dataclasses.replace(short, checkpoint_layers=c), prepared, _made(tmp_path / str(c)), silent, str)
        for c in (False, True)
    )
    for name, value in kept.state_dict().items():
        assert torch.allclose(value.float(), recomputed.state_dict()[name].float(), atol=1e-5), name


def test_a_run_computes_to_its_end_as_it_began(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first step, too: what is fastest is measured once, and in a short run not at all."""
    wanted: list[str] = []

    def choose(how: str, *_: object) -> str:
        wanted.append(how)
        return "float32"

    monkeypatch.setattr(train, "choose", choose)
    measuring = dataclasses.replace(CONFIG, precision="measure", checkpoint_steps=1_000)
    fit(measuring, prepared, tmp_path / "short", silent, str)
    assert wanted == ["float32"]

    def kill(name: str, done: int, n: int) -> None:
        raise KilledError

    long = dataclasses.replace(measuring, samples=train.MEASURE_STEPS * CONFIG.batch_size)
    for _ in range(2):
        with pytest.raises(KilledError):
            fit(long, prepared, tmp_path / "long", kill, str)
    assert wanted == ["float32", "measure"]


def test_a_short_run_keeps_checkpoints_on_its_way(prepared: Prepared, tmp_path: Path) -> None:
    rarely, lines = dataclasses.replace(CONFIG, checkpoint_steps=1_000), []
    with pytest.raises(KilledError):
        fit(rarely, prepared, tmp_path, killer, str)
    fit(rarely, prepared, tmp_path, silent, lines.append)
    assert lines[0] == "goes on from step 7"


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(prepared: Prepared, tmp_path: Path) -> None:
    student = new_student(prepared, CONFIG)
    optimizer = torch.optim.AdamW(student.parameters())
    checkpoint.save(tmp_path, Progress(5, "float32"), student, student.state_dict(), optimizer, "one")
    assert checkpoint.load(tmp_path, student, {}, optimizer, "other") == Progress()
    assert checkpoint.load(tmp_path, student, {}, optimizer, "one") == Progress(5, "float32")
    (tmp_path / checkpoint.FILE).write_bytes(b"torn")
    assert checkpoint.load(tmp_path, student, {}, optimizer, "one") == Progress()


def test_the_student_learns_and_ends_in_a_model(prepared: Prepared, tmp_path: Path, data: Path) -> None:
    lines: list[str] = []
    student = fit(dataclasses.replace(CONFIG, samples=320), prepared, _made(tmp_path / "work"), silent, lines.append)
    epochs = read_history(tmp_path / "work")
    assert [epoch.line() for epoch in epochs] == lines
    assert epochs[-1].held_out["embedding"] < epochs[0].held_out["embedding"]
    # an epoch is three steps (the last one a single one), and speech among them costs more than music
    full = [epoch.train["embedding"] for epoch in epochs[:-1]]
    first, last = np.mean(full[: len(full) // 3]), np.mean(full[-len(full) // 3 :])
    assert last < first
    card, answers = finish(CONFIG, prepared, student, tmp_path / "models" / "tiny")
    assert len(answers.probabilities) == len(answers.targets) == card.metrics["held_out"]["n"]
    assert card.training["teachers"]["spectrum"]
    assert card.metrics["held_out"]["n"] > 0
    settings = Settings(model=str(tmp_path / "models" / "tiny"), cache_dir=str(tmp_path / "cache"))
    with OptimizedAudioClassifier(settings=settings) as classifier:
        answer = classifier.analyze(data / "0.wav")
    assert isinstance(answer, Analysis)
    assert set(answer.verdict.labels) == {"Low", "High"}


@pytest.mark.slow
def test_vit_b16_trains_and_loads(data: Path, tmp_path: Path) -> None:
    """The configuration that ships, on made-up songs: a step, shards that fit, the same answers after loading."""
    shipped = TrainConfig.read(PROJECT_ROOT / "configs" / "vit-b16.toml")
    config = dataclasses.replace(
        CONFIG,
        name=shipped.name,
        architecture=dataclasses.replace(shipped.architecture, n_classes=2),
        mel=shipped.mel,
        patch_dropout=shipped.patch_dropout,
        accumulate=shipped.accumulate,
        precision="float32",
        samples=4,
        batch_size=2,
        learning_rate=shipped.learning_rate,
    )
    prepared = prepare(config, data, tmp_path / "work", silent)
    student = fit(config, prepared, tmp_path / "work", silent, str)
    assert sum(p.numel() for p in student.network.parameters()) > 85e6
    mels = torch.stack([prepared.dataset.clean(t, 0.0) for t in prepared.held[:2]])
    with torch.inference_mode():
        before = student.network(mels).logits
    card = describe(config, prepared, student, Calibration(), {})
    save_model(tmp_path / "models" / config.name, student.network, card)
    shards = sorted((tmp_path / "models" / config.name).glob("*.safetensors"))
    assert len(shards) > 1
    assert max(shard.stat().st_size for shard in shards) < 45e6
    network, card = Registry((tmp_path / "models",)).load(config.name)
    assert card.mel == shipped.mel
    with torch.inference_mode():
        assert network(mels).logits.numpy() == pytest.approx(before.numpy(), abs=2e-3)  # kept as float16


def test_a_batch_in_pieces_is_the_same_batch(prepared: Prepared, tmp_path: Path) -> None:
    """Without batch norm, which sees the pieces one by one, the weights are the same."""
    plain = dataclasses.replace(CONFIG, samples=24, architecture=dataclasses.replace(SHAPE, stem="patch"))
    whole, pieces = (
        fit(dataclasses.replace(plain, accumulate=n), prepared, tmp_path / str(n), silent, str) for n in (1, 4)
    )
    for (name, a), b in zip(whole.named_parameters(), pieces.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


def test_a_run_that_gets_no_better_ends_early_with_its_best(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured after the second epoch is the best; every other is made out to be worse."""
    config = dataclasses.replace(CONFIG, samples=400, early_stop_epochs=2)
    n_asked = 0

    def made_worse(*asked: object) -> dict[str, float]:
        nonlocal n_asked
        n_asked += 1
        found = validate(*asked)  # type: ignore[arg-type]
        return found if n_asked == 2 else {name: value + 100.0 for name, value in found.items()}

    monkeypatch.setattr(train, "validate", made_worse)
    student = fit(config, prepared, tmp_path, silent, str)
    epochs = read_history(tmp_path)
    assert len(epochs) == 4
    assert epochs[-1].step < epochs[-1].n_steps
    again = validate(student, student.state_dict(), prepared, config, "cpu")
    assert again == pytest.approx(epochs[1].held_out, abs=1e-5)
    resumed = fit(config, prepared, tmp_path, silent, str)
    assert len(read_history(tmp_path)) == len(epochs) == n_asked
    assert torch.equal(resumed.network.genre.weight, student.network.genre.weight)


def test_a_run_whose_errors_become_infinite_ends_and_keeps_what_it_had(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_asked = 0

    def broken(*asked: object) -> dict[str, torch.Tensor]:
        nonlocal n_asked
        n_asked += 1
        sums = loss_sums(*asked)  # type: ignore[arg-type]
        return sums if n_asked < 7 else {name: value * float("inf") for name, value in sums.items()}

    monkeypatch.setattr(train, "loss_sums", broken)
    with pytest.raises(DivergedError, match="no numbers any more at step"):
        fit(dataclasses.replace(CONFIG, early_stop_epochs=0), prepared, tmp_path, silent, str)
    kept = load_file(tmp_path / checkpoint.FILE)
    assert all(torch.isfinite(value).all() for value in kept.values() if value.is_floating_point())


def test_smoothed_labels_add_the_even_share(prepared: Prepared) -> None:
    mels, targets = prepared.dataset.batch(0)
    with torch.no_grad():
        answers, auxiliary = new_student(prepared, CONFIG).eval()(mels)
    plain, smooth = (
        loss_sums(answers, auxiliary, targets, prepared.dataset, dataclasses.replace(CONFIG, label_smoothing=e))
        for e in (0.0, 0.2)
    )
    even = -(answers.logits.log_softmax(1).mean(1) * targets.genre_weight).sum()
    assert smooth["genre"] == pytest.approx(float(0.8 * plain["genre"] + 0.2 * even), rel=1e-5)
    assert smooth["embedding"] == plain["embedding"]


def test_patches_are_dropped_until_the_last_part(prepared: Prepared) -> None:
    config = dataclasses.replace(CONFIG, patch_dropout=0.5, whole_from=0.8)
    keep = patch_choice(config, 79, 100)
    assert keep is not None
    assert keep.shape == (8, config.architecture.n_patches // 2)
    assert all(len(set(row.tolist())) == len(row) for row in keep)
    assert patch_choice(config, 80, 100) is None
    assert torch.equal(keep, patch_choice(config, 79, 100))


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    rates = [schedule(step, 1000, 0.04) for step in range(1000)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in range(38, 42)
    assert rates[-1] < 1e-4
    assert all(a >= b for a, b in pairwise(rates[40:]))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
