"""What is refused before the long work, what a run is known again by, and training without a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from acoustic.engine import OptimizedAudioClassifier
from acoustic.errors import ManifestError, ModelError, SettingsError
from acoustic.records import Analysis, SegmentSpec
from acoustic.settings import Settings
from acoustic.training.finish import finish
from acoustic.training.head import refit_head
from acoustic.training.manifest import read_rows, split
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.train import fingerprint, fit
from tests.training.test_train import CONFIG, data, silent  # noqa: F401 (a fixture)


def never(name: str, done: int, n: int) -> None:
    raise AssertionError("the long work has begun")


def rewritten(folder: Path, old: str, new: str) -> str:
    """songs.csv with other words; returns what it was."""
    before = (folder / "songs.csv").read_text()
    (folder / "songs.csv").write_text(before.replace(old, new))
    return before


@pytest.mark.parametrize(
    ("csv", "complaint"),
    [
        ("file,genre,artist\n0.wav,Low,a\n1.wav,High,b\n", "0 labelled groups can be held out"),
        ("file,genre,artist\n0.wav,Low,a\n1.wav,High,b\n2.wav,Low,c\n", "1 labelled groups can be held out"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_the_long_work(
    data: Path,  # noqa: F811
    tmp_path: Path,
    csv: str,
    complaint: str,
) -> None:
    before = (data / "songs.csv").read_text()
    try:
        (data / "songs.csv").write_text(csv)
        with pytest.raises(ManifestError, match=complaint):
            prepare(CONFIG, data, tmp_path, never)
    finally:
        (data / "songs.csv").write_text(before)


def test_labels_that_nobody_trusts_are_refused_before_the_long_work(data: Path, tmp_path: Path) -> None:  # noqa: F811
    sources = (dataclasses.replace(CONFIG.sources[0], label_weight=0.0), *CONFIG.sources[1:])
    with pytest.raises(ManifestError, match=r"genre 'Low' is left to train on"):
        prepare(dataclasses.replace(CONFIG, sources=sources), data, tmp_path, never)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rooms": "none", "augment": dataclasses.replace(CONFIG.augment, room_p=0.5)}, "none"),
        ({"start_from": "no-such-model"}, "no-such-model"),
        ({"start_from": "mel-vit-small"}, "start_from: mel-vit-small has width = 192, not 32"),
    ],
)
def test_what_cannot_begin_is_refused_before_the_long_work(
    data: Path,  # noqa: F811
    tmp_path: Path,
    change: dict[str, Any],
    complaint: str,
) -> None:
    with pytest.raises((SettingsError, ModelError), match=complaint):
        prepare(dataclasses.replace(CONFIG, **change), data, tmp_path, never)


def test_a_file_that_cannot_be_decoded_is_named_with_its_row(data: Path, tmp_path: Path) -> None:  # noqa: F811
    before = (data / "3.wav").read_bytes()
    try:
        (data / "3.wav").write_text("no music")
        with pytest.raises(ManifestError, match=r"songs\.csv, line 5: "):
            prepare(CONFIG, data, tmp_path, silent)
    finally:
        (data / "3.wav").write_bytes(before)


def test_a_tag_that_no_teacher_knows_is_refused(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Before the long work; and where the teachers have answered before, too."""
    for asked in (never, silent):
        if asked is silent:
            prepare(CONFIG, data, tmp_path, silent)
        with pytest.raises(SettingsError, match="no teacher knows 'Kazoo'"):
            prepare(dataclasses.replace(CONFIG, tags=("Music", "Kazoo")), data, tmp_path, asked)
        with pytest.raises(SettingsError, match="genre_tags: Low: no teacher knows 'Kazoo'"):
            prepare(dataclasses.replace(CONFIG, genre_tags={"Low": ("Kazoo",)}), data, tmp_path, asked)


def test_a_teacher_that_cannot_be_made_is_refused_before_the_first_is_asked(data: Path, tmp_path: Path) -> None:  # noqa: F811
    teachers = (*CONFIG.teachers, dataclasses.replace(CONFIG.teachers[0], name="none", file="none.py"))
    with pytest.raises(SettingsError, match=r"no teacher at .*none\.py"):
        prepare(dataclasses.replace(CONFIG, teachers=teachers), data, tmp_path, never)


def test_nothing_to_draw_from_is_refused(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """The one source with a share is held out as a whole."""
    shares = [dataclasses.replace(source, share=float(source.kind == "noise")) for source in CONFIG.sources]
    config = dataclasses.replace(
        CONFIG, sources=(shares[0], shares[1], dataclasses.replace(shares[2], group_pattern=r"(n)oise"))
    )
    rows = read_rows(config, data)
    seed = next(s for s in range(100) if split(rows, dataclasses.replace(config, seed=s))[-1])
    with pytest.raises(ManifestError, match="`share` is above 0 is left to train on"):
        prepare(dataclasses.replace(config, seed=seed), data, tmp_path, never)


def test_a_corrected_label_is_another_run(data: Path, tmp_path: Path) -> None:  # noqa: F811
    first = prepare(CONFIG, data, tmp_path, silent)
    assert prepare(CONFIG, data, tmp_path, silent).stamp == first.stamp
    before = rewritten(data, "\n0.wav,Low,", "\n0.wav,High,")
    try:
        assert prepare(CONFIG, data, tmp_path, silent).stamp != first.stamp
    finally:
        (data / "songs.csv").write_text(before)
    work_only = dataclasses.replace(CONFIG, workers=3, checkpoint_steps=9, description="other words")
    assert fingerprint(work_only, first.stamp) == fingerprint(CONFIG, first.stamp)
    after = dataclasses.replace(CONFIG, review_accuracy=0.9, coverage=0.8, head_labelled=3.0, segments=SegmentSpec(2))
    assert fingerprint(after, first.stamp) == fingerprint(CONFIG, first.stamp)
    assert fingerprint(dataclasses.replace(CONFIG, ema=0.5), first.stamp) != fingerprint(CONFIG, first.stamp)
    from_a_model = dataclasses.replace(CONFIG, start_from="mel-vit-small")
    assert fingerprint(from_a_model, first.stamp) != fingerprint(CONFIG, first.stamp)


def test_a_run_of_other_data_keeps_the_checkpoint_that_was_there(data: Path, tmp_path: Path) -> None:  # noqa: F811
    prepared = prepare(CONFIG, data, tmp_path, silent)
    short = dataclasses.replace(CONFIG, samples=8)
    said: list[str] = []
    fit(short, prepared, tmp_path, silent, said.append)
    kept = (tmp_path / "checkpoint.safetensors").read_bytes()
    other: Prepared = dataclasses.replace(prepared, stamp="other")
    fit(short, other, tmp_path, silent, said.append)
    assert (tmp_path / "before-checkpoint.safetensors").read_bytes() == kept
    assert "begins anew" in said[1]
    fit(short, other, tmp_path, silent, said.append)
    assert said[-1] == "goes on from step 1"
    fit(short, dataclasses.replace(prepared, stamp="a third"), tmp_path, silent, said.append)
    assert "kept as before-2-checkpoint.safetensors" in said[-2]
    assert (tmp_path / "before-checkpoint.safetensors").read_bytes() == kept


def test_without_a_teacher_the_files_own_genres_are_learned(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Low songs hum, high ones whistle; a folder of files and a column of genres is all that is needed."""
    config = dataclasses.replace(
        CONFIG,
        sources=(dataclasses.replace(CONFIG.sources[0], label_weight=1.0),),
        teachers=(),
        tags=(),
        samples=320,
        head_labelled=1.0,
    )
    prepared = prepare(config, data, tmp_path, silent)
    student = fit(config, prepared, tmp_path, silent, str)
    assert refit_head(config, prepared, student, silent)
    card, _ = finish(config, prepared, student, tmp_path / "models" / "tiny")
    assert card.training["teachers"] == {}
    settings = Settings(model=str(tmp_path / "models" / "tiny"), cache_dir=str(tmp_path / "cache"))
    with OptimizedAudioClassifier(settings=settings) as classifier:
        answers = [classifier.analyze(data / f"{i}.wav") for i in range(16)]
    assert all(isinstance(a, Analysis) and a.embedding.shape == (32,) for a in answers)
    assert sum(a.verdict.top_genre == ("Low", "High")[i % 2] for i, a in enumerate(answers)) >= 13
