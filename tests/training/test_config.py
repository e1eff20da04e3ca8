from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from acoustic.errors import SettingsError
from acoustic.training.config import TrainConfig
from acoustic.training.config_problems import MOST

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
    assert sum(source.share for source in config.sources) == pytest.approx(1.0)


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


def test_configuration_round_trip_and_refusals(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    good = (
        'name = "x"\ndescription = "d"\nlabels = ["A", "B"]\n[mel]\nn_mels = 32\n[architecture]\nwidth = 64\n'
        'n_heads = 4\n[[sources]]\nname = "s"\nmanifest = "m.csv"\n[[teachers]]\nname = "t"\nfile = "t.py"\n'
    )
    file.write_text(good)
    run = TrainConfig.read(file)
    assert (run.architecture.n_mels, run.architecture.n_classes, run.architecture.width) == (32, 2, 64)
    assert dataclasses.replace(run, seed=1) != run
    for bad, complaint in (
        (good.replace("n_mels", "n_mel"), "unknown key 'n_mel'"),
        (good.replace('["A", "B"]', '["A", "A"]'), "one name twice"),
        ("name = ", "not TOML"),
        ('description = "d"\n', "missing key 'name'"),
        (good.replace("[mel]", "[[mel]]"), "mel: a table is needed"),
        (good.replace("width = 64", 'width = "64"'), "width: '64' is not int"),
        ("sources = [1]\n" + good.split("[[sources]]")[0], "a table is needed"),
        ("batch_size = 0\n" + good, "batch_size = 0"),
        *((f"{name} = {10**13}\n{good}", rf"{name} = .* must be .* at most") for name in MOST),
        (f"samples = 1{'0' * 400}\n{good}", "samples = .* at most"),
        ("accumulate = 33\n" + good, "accumulate = 33 parts of a batch of 32"),
        ('base = "a\\u0000b"\n' + good, "base: no file"),
        (f'base = "{"x" * 300}"\n{good}', "base: no file"),
        (f"samples = 1{'0' * 5_000}\n{good}", "not TOML"),
        ("genre_tags" + ".a" * 2_000 + " = 1\n" + good, "nested too deeply"),
        (good.replace('file = "t.py"', 'file = "t.py"\nwindow_s = 1e12'), "window_s and hop_s must be from"),
        (good + "weight = 1e308\n", "weights"),
        (good.replace('manifest = "m.csv"', 'manifest = "m.csv"\nshare = 1e308'), "share = 1e\\+308"),
        (good + "[augment]\nclipping_percent = [-5, 1000]\n", r"augment\.clipping_percent"),
        (good + "[augment]\ncodec_kbps = [0, 64]\n", r"augment\.codec_kbps"),
        (good + f"[blends]\nn = 1{'0' * 300}\nshare = 1.0\n", r"blends\.n"),
        ('base = "none.toml"\n' + good, r"run\.toml: base: no file 'none\.toml'"),
        ("a = " + "[" * 5_000, "nested too deeply"),
        (good.replace('"m.csv"', '"m\\u0000.csv"'), "no name has"),
        (good.replace('manifest = "m.csv"', ""), "either a manifest or a folder"),
        (good.replace('manifest = "m.csv"', 'manifest = "m.csv"\nfolder = "f"'), "either a manifest or a folder"),
        (good + "[augment]\ntime_masks = 1_000_000\n", r"augment\.time_masks"),
        (good + "[augment]\nspeed_range = [1e-6, 1e6]\n", r"augment\.speed_range = .* must lie from 0\.25 to 4"),
        (good + "[augment]\ngain_db = [-1e9, 6]\n", r"augment\.gain_db = .* must lie from"),
        (good.replace('"x"', '"../x"'), "plain name"),
        (good.replace("[mel]", "held_out = 1.5\n[mel]"), "held_out"),
        (good.replace('file = "t.py"', 'file = "t.py"\nhop_s = true'), "hop_s: True is not float"),
        (good.replace("n_heads = 4", "n_heads = 5"), "cannot be split among n_heads 5"),
        (good.replace("n_mels = 32", "n_mels = 33"), "n_mels 33 is not a multiple"),
        (good.replace('["A", "B"]', '["A"]'), "two at least"),
        (good.replace('manifest = "m.csv"', 'manifest = "m.csv"\nlabel_weight = 1.5'), "label_weight = 1.5"),
        (good.replace('manifest = "m.csv"', 'manifest = "m.csv"\nshare = 0'), "share is above 0"),
        (good.replace('file = "t.py"', 'file = "t.py"\nhop_s = 0'), "hop_s must be from"),
        (
            good.split("[[teachers]]")[0].replace("labels", 'tags = ["Singing"]\nlabels'),
            "no teacher to learn them from",
        ),
        (good + "weight = 0\n", "weights"),
        (good + "weight = -1\n", "weights"),
        (good + "[augment]\nroom_p = 0.1\n", "no folder of impulse responses"),
        (good + "[augment]\npitch_p = 1.1\n", r"augment\.pitch_p = 1\.1 must be from 0 to 1"),
        (good + "[augment]\ngain_db = [6, -6]\n", r"augment\.gain_db = .* must rise"),
        (good + "[augment]\nspeed_range = [0, 1]\n", r"augment\.speed_range = .* must lie from 0\.25 to 4"),
        (good + "[augment]\nmixup_p = 0.6\ncutmix_p = 0.6\n", "not both"),
        (good.replace('manifest = "m.csv"', 'manifest = "m.csv"\ngroup_pattern = "(a)(b)"'), "one pair of brackets"),
    ):
        file.write_text(bad)
        with pytest.raises(SettingsError, match=complaint) as refused:
            TrainConfig.read(file)
        assert "--help" not in refused.value.hint
    file.write_bytes(b"\xef\xbb\xbf" + good.encode())
    assert TrainConfig.read(file) == run
    with pytest.raises(SettingsError, match="No such file"):
        TrainConfig.read(tmp_path / "none.toml")


def test_who_has_no_teachers_takes_none_of_what_the_base_says_of_theirs(tmp_path: Path) -> None:
    written(tmp_path, (CONFIGS / "embedded.toml").read_text(encoding="utf-8"), "embedded.toml")
    run = TrainConfig.read(written(tmp_path, 'base = "embedded.toml"\nlabels = ["Blues", "Forró"]\nteachers = []\n'))
    assert (run.teachers, run.tags, run.genre_tags) == ((), (), {})
