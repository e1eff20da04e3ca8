from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acoustic.errors import AudioError, ModelError
from acoustic.records import Analysis, MelSpec
from acoustic.settings import Settings
from acoustic.workstation import OVERVIEW_COLUMNS, Workstation
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
    import dataclasses

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
