from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acoustic.errors import AudioError, ManifestError, ModelError
from acoustic.library import background
from acoustic.library.personal import PersonalModel
from acoustic.network.card import ModelCard
from acoustic.records import Analysis, MelSpec
from acoustic.settings import Settings
from acoustic.training.background import hear
from acoustic.verdict.decision import decide
from acoustic.workstation import OVERVIEW_COLUMNS, Example, Workstation
from tests.conftest import small_model
from tests.test_engine import song


@pytest.fixture
def station(fresh: Settings) -> Iterator[Workstation]:
    with Workstation(fresh) as made:
        yield made


def test_analysis_goes_through_the_engine(station: Workstation, tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", 12)
    [(index, answer)] = list(station.analyze([path]))
    assert index == 0
    assert isinstance(answer, Analysis)
    assert station.describe(path).low_freq_ratio is not None


@pytest.mark.parametrize("seconds", [1.5, 11.0, 130.0])
def test_the_overview_spans_the_track(station: Workstation, tmp_path: Path, seconds: float) -> None:
    """A tone that begins in the middle is seen in the second half, in the band of its frequency, at the right time."""
    rate, hz = 22_050, 2_000.0
    t = np.arange(int(seconds * rate)) / rate
    samples = np.where(t >= seconds / 2, 0.3 * np.sin(2 * np.pi * hz * t), 0).astype(np.float32)
    samples += np.random.default_rng(0).normal(0, 1e-4, len(t)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", samples, rate)
    seen = station.overview(tmp_path / "tone.wav")
    assert seen.mel_db.shape == (len(seen.mel_hz), len(seen.times_s))
    assert seen.mel_db.shape[1] <= OVERVIEW_COLUMNS * 1.1
    assert seen.duration_s == pytest.approx(seconds, abs=0.01)
    steps = np.diff(seen.times_s)
    assert steps == pytest.approx(np.full(len(steps), steps[0]) if len(steps) else steps)
    assert seen.times_s[-1] == pytest.approx(seconds, abs=2 * (steps[0] if len(steps) else seconds))
    band = int(np.abs(seen.mel_hz - hz).argmin())
    loud = seen.mel_db[band] > seen.mel_db[band].max() - 10
    first_s = seen.times_s[loud.argmax()]
    assert first_s == pytest.approx(seconds / 2, abs=max(0.2, 2 * steps[0]))
    assert loud[int(len(loud) * 0.6) : int(len(loud) * 0.9)].all()
    if seconds > 10:
        assert abs(int(seen.mel_db[:, int(len(loud) * 0.75)].argmax()) - band) <= 1


def test_the_overview_of_a_bad_file_is_a_typed_error(station: Workstation, tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("hello\n")
    with pytest.raises(AudioError):
        station.overview(tmp_path / "text.mp3")


def test_the_demo_clip_gets_an_answer(station: Workstation) -> None:
    [(_, answer)] = list(station.analyze([station.demo_clip()]))
    assert isinstance(answer, Analysis)
    assert answer.duration_s > 10


def test_status_names_what_answers(station: Workstation) -> None:
    status = station.status()
    assert (status["model"], status["device"]) == ("small", "cpu")
    assert status["precision"]


def test_an_imported_model_is_found_by_its_name_and_answers(
    station: Workstation, fresh: Settings, tmp_path: Path
) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=224,
        num_channels=1, num_labels=3,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "outside")
    card = station.import_model(
        tmp_path / "outside", "mine", ("A", "B", "C"), MelSpec(n_mels=224, normalization="minmax")
    )
    assert card.name == "mine"
    with Workstation(dataclasses.replace(fresh, model="mine")) as other:
        [(_, answer)] = list(other.analyze([song(tmp_path / "a.wav", 12)]))
    assert isinstance(answer, Analysis)
    assert answer.verdict.labels == ("A", "B", "C")
    assert answer.tags == ()
    assert "NOT_MUSIC" not in answer.verdict.review_reasons
    with pytest.raises(ModelError):
        station.import_model(tmp_path / "outside", "../mine", ("A", "B", "C"), MelSpec(n_mels=224))


# --- the person's own genres ---


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Songs of one sort that a person calls Forró, and of another called Jazz."""
    names = ("Forró", "forro", "Forró", "Forró")
    made = [Example(song(tmp_path / f"forro-{i}.wav", 11.0 + i, i), name) for i, name in enumerate(names)]
    return made + [Example(song(tmp_path / f"jazz-{i}.wav", 11.0 + i, 50 + i), "Jazz") for i in range(4)]


def taught(station: Workstation, examples: list[Example], name: str = "mine") -> PersonalModel:
    personal = station.teach(examples, name).lesson.personal
    assert personal is not None
    station.keep_personal(personal)
    return personal


def test_without_corrections_the_answer_is_the_models_own_bit_for_bit(
    fresh: Settings, station: Workstation, examples: list[Example]
) -> None:
    path = examples[0].path
    [(_, answer)] = list(station.analyze([path]))
    assert isinstance(answer, Analysis)
    assert answer.votes is not None
    card = station.classifier.card
    plain = decide(answer.votes, card.labels, card.tag_labels, card.calibration, warnings=answer.warnings)
    assert answer.verdict.probabilities.tobytes() == plain.probabilities.tobytes()
    assert answer.verdict.segment_probabilities.tobytes() == plain.segment_probabilities.tobytes()
    assert "personal" not in answer.to_dict()
    taught(station, examples)
    station.use_personal("mine")
    with Workstation(fresh, personal=False) as aside:
        [(_, again)] = list(aside.analyze([path]))
    assert isinstance(again, Analysis)
    assert again.verdict.probabilities.tobytes() == plain.probabilities.tobytes()
    station.undo_personal()
    [(_, back)] = list(station.analyze([path]))
    assert isinstance(back, Analysis)
    assert back.verdict.probabilities.tobytes() == plain.probabilities.tobytes()


def test_what_was_taught_answers_from_then_on_and_asks_the_network_nothing(
    fresh: Settings, station: Workstation, examples: list[Example]
) -> None:
    taught(station, examples)
    n_asked = sum(station.classifier.get_stats()["batch_sizes"].values())
    station.use_personal("mine")
    assert station.status()["personal"] == "mine"
    assert station.status()["labels"] == [*station.classifier.card.labels, "Forró"]
    paths = [e.path for e in examples]
    for _, answer in station.analyze(paths):
        assert isinstance(answer, Analysis)
        assert answer.cached
        assert answer.personal == "mine"
        said = answer.to_dict()
        assert said["personal"] == "mine"
        assert list(said["probabilities"])[-1] == "Forró"
        assert sum(said["probabilities"].values()) == pytest.approx(1)
        assert answer.verdict.segment_probabilities.shape[1] == 5
        assert answer.verdict.segment_probabilities.sum(axis=1) == pytest.approx(1)
    assert sum(station.classifier.get_stats()["batch_sizes"].values()) == n_asked
    with Workstation(fresh) as later:  # another process finds it in use
        [(_, answer)] = list(later.analyze(paths[:1]))
    assert isinstance(answer, Analysis)
    assert answer.personal == "mine"


def test_what_another_program_put_to_use_answers_from_the_next_song_on(
    fresh: Settings, station: Workstation, examples: list[Example]
) -> None:
    personal = taught(station, examples)
    path = examples[0].path

    def answered_with() -> str | None:
        [(_, answer)] = station.analyze([path])
        assert isinstance(answer, Analysis)
        return answer.personal

    assert answered_with() is None
    with Workstation(fresh) as other:
        assert not other.has_library()
        other.use_personal(personal.name)
        assert answered_with() == personal.name
        other.undo_personal()
    assert answered_with() is None
    (Path(fresh.data_dir) / "personal" / "active.json").write_text("{")
    assert answered_with() is None
    assert station.personal_problem is not None


def test_files_that_fail_are_left_out(station: Workstation, examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("hello\n")
    told: list[tuple[int, int]] = []
    bad = Example(tmp_path / "text.mp3", "Jazz")
    done = station.teach([bad, *examples], on_song=lambda n, of: told.append((n, of)))
    assert [f.error["code"] for f in done.failures] == ["NOT_AUDIO"]
    assert sum(done.lesson.songs.values()) == len(examples)
    assert told[-1] == (len(examples) + 1, len(examples) + 1)
    with pytest.raises(ManifestError, match="none of the 1 songs"):
        station.teach([bad])


def test_a_model_without_background_says_what_that_means(station: Workstation, examples: list[Example]) -> None:
    done = station.teach(examples)
    assert [w.code for w in done.warnings] == ["MODEL"]
    with pytest.raises(ManifestError, match="background"):
        station.teach(examples[:4])


def test_with_a_background_one_own_genre_is_enough(
    fresh: Settings, examples: list[Example], model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "small"
    shutil.copytree(model_folder, folder)
    with Workstation(dataclasses.replace(fresh, model=str(folder))) as station:
        others = [song(tmp_path / f"other-{i}.wav", 11, 100 + i) for i in range(8)]
        made = hear(station.classifier, others)
        background.write(background.file_of(folder), made, station.classifier.card.weights_digest, "made up")
        done = station.teach(examples[:4])
        assert done.warnings == ()
        assert done.lesson.n_background == 8
        assert done.lesson.personal is not None
        background.write(background.file_of(folder), made, "f" * 64, "made by other weights")
        refused = station.teach(examples)
        assert "other weights" in refused.warnings[0].message
        assert refused.lesson.n_background == 0


def test_a_version_that_cannot_be_used_leaves_the_model_alone(
    fresh: Settings, station: Workstation, examples: list[Example], model_folder: Path, tmp_path: Path
) -> None:
    taught(station, examples)
    station.use_personal("mine")
    small_model(tmp_path / "retrained", "small", seed=1)
    other = dataclasses.replace(fresh, model=str(tmp_path / "retrained" / "small"))
    with Workstation(other) as retrained:
        [(_, answer)] = list(retrained.analyze([examples[0].path]))
        assert isinstance(answer, Analysis)
        assert answer.personal is None
        assert answer.verdict.labels == retrained.classifier.card.labels
        assert "other weights" in str(retrained.personal_problem)
        with pytest.raises(ModelError, match="other weights"):
            retrained.use_personal("mine")
        assert retrained.personal_versions()[0].error is not None
    assert station.active_personal() == "mine"  # a refusal changes nothing
    (Path(fresh.data_dir) / "personal" / "mine" / "personal.json").write_text("{")
    with Workstation(fresh) as damaged:
        [(_, answer)] = list(damaged.analyze([examples[0].path]))
        assert isinstance(answer, Analysis)
        assert answer.personal is None
        assert "damaged" in str(damaged.personal_problem)
        damaged.use_personal(None)
        assert damaged.personal_problem is None


def test_before_and_after_on_the_same_songs(station: Workstation, examples: list[Example], tmp_path: Path) -> None:
    personal = taught(station, examples)
    comparison, failures = station.compare_personal(examples, "mine")
    assert failures == []
    assert comparison.n == 8

    def n_right() -> int:
        answers = dict(station.analyze([e.path for e in examples]))
        wanted = ["Forró"] * 4 + ["Jazz"] * 4
        return sum(answers[i].verdict.top_genre == genre for i, genre in enumerate(wanted))  # type: ignore[union-attr]

    assert comparison.before == n_right()
    station.use_personal("mine")
    assert comparison.after == n_right()
    assert comparison.after > comparison.before
    assert personal.own == ("Forró",)
    with pytest.raises(ManifestError, match="Polka"):
        station.compare_personal([Example(examples[0].path, "Polka")])
    station.use_personal(None)
    with pytest.raises(ModelError, match="no version is in use"):
        station.compare_personal(examples)


def test_what_was_taught_outlives_a_new_calibration_of_the_model(
    fresh: Settings, station: Workstation, examples: list[Example], model_folder: Path, tmp_path: Path
) -> None:
    taught(station, examples)
    station.use_personal("mine")
    before, _ = station.compare_personal(examples, "mine")
    answers = dict(station.analyze([e.path for e in examples]))
    folder = Path(shutil.copytree(model_folder, tmp_path / "calibrated" / "small"))
    card = ModelCard.read(folder)
    bias = tuple(-9.0 if label == "Jazz" else 0.0 for label in card.labels)
    calibration = dataclasses.replace(card.calibration, class_scale=(1.0,) * len(bias), class_bias=bias)
    dataclasses.replace(card, calibration=calibration).write(folder)
    with Workstation(dataclasses.replace(fresh, model=str(folder))) as calibrated:
        for i, answer in calibrated.analyze([e.path for e in examples]):
            was = answers[i]
            assert isinstance(answer, Analysis)
            assert isinstance(was, Analysis)
            assert answer.personal == "mine"
            assert answer.verdict.probabilities == pytest.approx(was.verdict.probabilities, abs=5e-3)
        after, _ = calibrated.compare_personal(examples, "mine")
        [version] = calibrated.personal_versions()
    assert version.recalibrated
    assert not station.personal_versions()[0].recalibrated
    assert after.after == before.after
    assert (before.before > 0, after.before) == (True, 0), "the model alone answers as its card has it by now: no Jazz"


def test_bad_names_are_refused_before_anything_is_heard(station: Workstation, examples: list[Example]) -> None:
    taught(station, examples)
    for name in ("mine", "none", "../up"):
        with pytest.raises(ModelError):
            station.teach([Example("not there.wav", "Jazz")], name)
    with pytest.raises(ManifestError, match="genre's name"):
        station.teach([Example("not there.wav", "\x1b")])
