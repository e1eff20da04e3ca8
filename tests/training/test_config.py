from __future__ import annotations

from pathlib import Path

import pytest

from acoustic.errors import SettingsError
from acoustic.training.config import TrainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = """
name = "tiny"
description = "made up"
labels = ["Low", "High"]
samples = 100
[architecture]
width = 32
depth = 1
n_heads = 2
[augment]
noise_p = 0.5
mixup_p = 0.1
[[sources]]
name = "songs"
manifest = "songs.csv"
[[teachers]]
name = "t"
file = "t.py"
"""


def written(folder: Path, text: str, name: str = "run.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.name)
def test_every_configuration_that_ships_is_read(path: Path) -> None:
    config = TrainConfig.read(path)
    assert config.architecture.n_mels == config.mel.n_mels
    assert config.architecture.n_classes == len(config.labels)


def test_a_configuration_lies_over_its_base(tmp_path: Path) -> None:
    written(tmp_path, TINY, "below.toml")
    above = 'base = "below.toml"\nsamples = 7\n[augment]\nmixup_p = 0.9\n'
    below, config = TrainConfig.read(tmp_path / "below.toml"), TrainConfig.read(written(tmp_path, above))
    assert (config.samples, config.name, config.sources) == (7, "tiny", below.sources)
    assert (config.augment.mixup_p, config.augment.noise_p) == (0.9, 0.5)


def test_what_a_base_says_of_other_labels_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text(TINY + '[genre_tags]\nLow = ["Bass"]\nHigh = ["Treble"]\n')
    (tmp_path / "above.toml").write_text(
        'base = "below.toml"\nlabels = ["High", "New"]\n[genre_tags]\nNew = ["Song"]\n'
    )
    assert TrainConfig.read(tmp_path / "above.toml").genre_tags == {"High": ("Treble",), "New": ("Song",)}
    (tmp_path / "above.toml").write_text('base = "below.toml"\n[genre_tags]\nNew = ["Song"]\n')
    with pytest.raises(SettingsError, match="genre_tags: 'New' is not one of the labels"):
        TrainConfig.read(tmp_path / "above.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "none.toml"', "none.toml"),
        ("base = 3", "base: 3 is not the name"),
        ('base = "run.toml"', "has a base itself"),
        (TINY.replace("width = 32", 'width = 4\nstem = "conv"'), "width 4 is too narrow for the stem"),
        (TINY + "nonsense = 1", "unknown key 'nonsense'"),
        (TINY.replace('name = "songs"\n', 'name = "songs"\ngroup_pattern = "("\n'), "group_pattern"),
        (TINY.replace('name = "songs"\n', 'name = "songs"\ngroup_pattern = "(a)(b)"\n'), "one pair of brackets"),
        (TINY.replace("samples = 100", "samples = 0"), "samples = 0 must be above 0"),
        (TINY.replace("samples = 100", "accumulate = 0"), "accumulate = 0 must be above 0"),
        (TINY.replace("samples = 100", "label_smoothing = 1.5"), "label_smoothing = 1.5 must be from 0"),
        (TINY.replace("samples = 100", 'precision = "int8"'), "precision"),
        (TINY.replace("samples = 100", "layer_decay = 0.0"), "layer_decay = 0.0 must be above 0"),
        (TINY.replace("samples = 100", "workers = -1"), "workers = -1 must not be below 0"),
        (TINY.replace("samples = 100", "trainable_blocks = 5"), "trainable_blocks = 5"),
        (TINY.replace("samples = 100", "start_share = 0.5"), "start_share is above 0, but no model"),
        (
            TINY.replace("samples = 100", 'start_from = "m"\nstart_share = 1.0'),
            "start_share = 1.0 must be from 0 to below",
        ),
        (TINY.replace("samples = 100", 'tags = ["Music", "Music"]'), "tags holds an empty or unprintable name, or one"),
        (TINY.replace("noise_p = 0.5", "time_mask_frames = 300"), "time_mask_frames = 300 must be from 0 to 224"),
        *(
            (TINY.replace("samples = 100", said), message)
            for said, message in (
                ("coverage = 0.0", "coverage = 0.0 must be above 0"),
                ("seed = -1", "seed = -1 must not be below 0"),
                ("seed = 1000000001", "seed = 1000000001 must be 1000000000 at most"),
                ("draws = 1000000001", "draws = 1000000001 must be 1000000000 at most"),
                ("whole_from = 1.5", "whole_from = 1.5 must be from 0 to 1"),
                (f"learning_rate = {10**400}", "learning_rate: the number is too large"),
                ("clip_norm = 0.0", "clip_norm = 0.0 must be above 0"),
                ("genre_weight = -0.5", "genre_weight = -0.5 must not be below 0"),
                ("learning_rate = nan", "learning_rate: nan is no finite number"),
                ("[mel]\nsample_rate = 4000\nfmax_hz = 2000.0", "mel.sample_rate = 4000 Hz must be 8000 or more"),
                ("[mel]\nn_fft = 1025", "n_fft 1025 is no even number"),
                ('[genre_tags]\nPolka = ["Polka"]', "genre_tags: 'Polka' is not one of the labels"),
                ("[genre_tags]\nLow = [1]", r"genre_tags.Low\[0\]: 1 is not str"),
                ('[genre_tags]\nLow = "low"', "genre_tags.Low: 'low' is not"),
                ("[mel]\nmean_db = inf", "mean_db: inf is no finite number"),
            )
        ),
        (TINY.replace("noise_p = 0.5", "tilt_db = -8.0"), "augment.tilt_db = -8.0 must not be below 0"),
        (TINY + '[[teachers]]\nname = "a/b"\nfile = "t.py"\n', "teacher 'a/b': not a plain name"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
        TrainConfig.read(written(tmp_path, text))
