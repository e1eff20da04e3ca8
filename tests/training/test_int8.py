"""An int8 graph from songs at hand: made by the command, told, used, and refused where there is nothing to hear."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ManifestError
from acoustic.network import quantized
from acoustic.network.registry import Registry
from acoustic.settings import Settings
from acoustic.training.int8 import make_from_songs
from tests.conftest import GENRES, small_model

pytest.importorskip("nncf")


@pytest.fixture
def songs(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for i in range(16):
        t = np.arange(22_050 * 12) / 22_050
        tone = np.sin(2 * np.pi * (110 * (i + 1)) * t) * (0.3 + 0.2 * np.sin(2 * np.pi * (i + 1) * t / 4))
        path = tmp_path / "songs" / f"{i:02d}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, (tone + 0.02 * rng.normal(size=len(t))).astype(np.float32), 22_050)
        files.append(path)
    return files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    small_model(tmp_path / "models")
    return tmp_path / "models" / "small"


def nobody(name: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def mine(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


def test_songs_make_a_graph_that_answers_as_the_network(
    songs: list[Path], model: Path, tmp_path: Path, mine: Settings
) -> None:
    (songs[0].parent / "broken.wav").write_bytes(b"RIFF")
    genres = [GENRES[i % 4] for i in range(16)] + ["Blues"]
    file, cost = make_from_songs(model, [*songs, songs[0].parent / "broken.wav"], genres, mine, nobody)
    assert file == tmp_path / "data" / "models" / "small.int8.safetensors"  # a person's own folder, not beside
    assert cost.labelled
    assert cost.n >= 8
    card = Registry((model.parent,)).card("small")
    assert quantized.read(file, card.weights_digest).cost == cost
    shared = {"model": str(model), "data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
    answers = []
    for how in ({"backend": "eager"}, {"backend": "openvino", "precision": "int8"}):
        with OptimizedAudioClassifier(settings=Settings(**shared, **how), cache=False) as classifier:
            answers.append(classifier.analyze(songs[3]).verdict.probabilities)
            assert classifier.backend.precision == ("int8" if "precision" in how else "float32")
    assert np.abs(np.subtract(*answers)).max() < 0.05


def test_without_genres_the_cost_is_agreement(songs: list[Path], model: Path, mine: Settings) -> None:
    _, cost = make_from_songs(model, songs, [], mine, nobody)
    assert not cost.labelled
    assert cost.accuracy == 1.0
    assert cost.accuracy_int8 == cost.agreement


def test_nothing_to_hear(model: Path, tmp_path: Path, mine: Settings) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ManifestError, match="could be heard"):
        make_from_songs(model, [tmp_path / "a.wav", tmp_path / "b.wav"], [], mine, nobody)


def test_the_command(songs: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from acoustic.cli.models import app

    data = tmp_path / "data" / "models"
    data.mkdir(parents=True)
    shutil.copytree(model, data / "small")
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", str(tmp_path / "data"))
    done = CliRunner().invoke(app, ["quantize", str(songs[0].parent), "--name", "small"])
    assert done.exit_code == 0, done.output
    assert "same genre as float32 in" in done.output
    assert (data / "small.int8.safetensors").exists()
    shown = CliRunner().invoke(app, ["show", "small"])
    assert "songs to calibrate with" in shown.output
