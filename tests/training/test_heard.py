"""What a model has learned from is never held out by a run that starts from it, by whatever name it goes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from acoustic.errors import SettingsError
from acoustic.network.card import CARD_FILE
from acoustic.network.registry import save_model
from acoustic.records import Calibration
from acoustic.training.config import TrainConfig
from acoustic.training.finish import describe
from acoustic.training.heard import contents, marks
from acoustic.training.manifest import Row
from acoustic.training.prepare import Prepared, prepare
from acoustic.training.student import new_student
from tests.training.test_prepare import never
from tests.training.test_train import CONFIG, data, silent  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:  # noqa: F811
    return prepare(CONFIG, data, tmp_path_factory.mktemp("heard"), silent)


def model(prepared: Prepared, folder: Path, config: TrainConfig = CONFIG) -> Path:
    student = new_student(prepared, config)
    save_model(folder, student.network, describe(config, prepared, student, Calibration(), {}))
    return folder


def test_a_group_is_known_by_the_least_of_its_files() -> None:
    rows = [Row(f"{i}.wav", "songs", "music", "", group) for i, group in enumerate("aabbc")]
    digests = ["5" * 64, "3" * 64, "7" * 64, "2" * 64, "9" * 64]
    assert marks(rows, digests, [0, 1, 2, 4]) == {"3" * 8, "7" * 8, "9" * 8}
    assert marks(rows, digests, []) == frozenset()


def test_the_same_split_goes_on_and_remembers_both(data: Path, tmp_path: Path, prepared: Prepared) -> None:  # noqa: F811
    start = model(prepared, tmp_path / "first")
    assert prepared.heard == marks(prepared.rows, contents(prepared.rows, data), prepared.train)
    again = dataclasses.replace(CONFIG, start_from=str(start))
    songs = (data / "songs.csv").read_text()
    second = prepare(again, data, tmp_path / "work", silent)
    assert second.heard == prepared.heard
    try:  # without the files of one group that was learned from: what was learned stays known
        gone = next(prepared.rows[t].group for t in prepared.train if prepared.rows[t].genre).removeprefix("songs:")
        (data / "songs.csv").write_text("".join(line for line in songs.splitlines(True) if f",{gone}\n" not in line))
        third = prepare(again, data, tmp_path / "less", silent)
    finally:
        (data / "songs.csv").write_text(songs)
    assert len(third.train) < len(second.train)
    assert third.heard == second.heard


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"held_out": 0.7},
        {"sources": (dataclasses.replace(CONFIG.sources[0], name="pieces"), *CONFIG.sources[1:])},
    ],
)
def test_another_split_is_refused_before_the_long_work(
    data: Path,  # noqa: F811
    tmp_path: Path,
    prepared: Prepared,
    other: dict[str, object],
) -> None:
    start = model(prepared, tmp_path / "first")
    changed = dataclasses.replace(CONFIG, start_from=str(start), **other)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"start_from: tiny was trained on \d+ groups that would be held") as caught:
        prepare(changed, data, tmp_path / "work", never)
    assert "seed = 0, held_out = 0.3" in (caught.value.hint or "")


def test_a_card_that_does_not_say_stops_nobody(data: Path, tmp_path: Path, prepared: Prepared) -> None:  # noqa: F811
    start = model(prepared, tmp_path / "first")
    card = json.loads((start / CARD_FILE).read_text())
    del card["training"]["heard"]
    (start / CARD_FILE).write_text(json.dumps(card))
    prepare(dataclasses.replace(CONFIG, start_from=str(start), seed=1), data, tmp_path / "work", silent)
