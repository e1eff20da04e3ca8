"""The card: what is written is read again, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acoustic.errors import ModelError
from acoustic.network.card import MAX_CARD_BYTES, ModelCard, shard_name
from acoustic.records import Calibration

SHA = "0" * 64
OTHER_RANGES = {"temperature", "label_smoothing", "coverage", "music_bias"}
SHARES = [
    field.name
    for field in dataclasses.fields(Calibration)
    if "float" in str(field.type) and "tuple" not in str(field.type) and field.name not in OTHER_RANGES
]
"""numbers of a calibration that must lie from 0 to 1"""


@pytest.fixture
def edit(tmp_path: Path, card: ModelCard) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Write the card, change its JSON, return its folder."""

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        file = card.write(tmp_path)
        data = json.loads(file.read_text(encoding="utf-8"))
        change(data)
        file.write_text(json.dumps(data), encoding="utf-8")
        return tmp_path

    return write


def test_round_trip(tmp_path: Path, card: ModelCard) -> None:
    card.write(tmp_path)
    assert ModelCard.read(tmp_path) == card
    assert [file.name for file in tmp_path.iterdir()] == ["card.json"]


def test_the_file_is_plain_json_by_field_name(tmp_path: Path, card: ModelCard) -> None:
    data = json.loads(card.write(tmp_path).read_text(encoding="utf-8"))
    assert list(data) == [field.name for field in dataclasses.fields(ModelCard)]
    assert data["labels"] == ["Blues", "R&B", "Ñandú"]
    assert data["mel"]["n_mels"] == 32
    assert data["calibration"]["conformal_quantile"] == 0.8


def test_tuples_of_pairs_survive(tmp_path: Path, card: ModelCard) -> None:
    weights = (("Music", 1.5), ("Speech", -2.0))
    calibration = dataclasses.replace(
        card.calibration, music_weights=weights, conformal_quantile=None, segment_conformal_quantile=0.9
    )
    dataclasses.replace(card, calibration=calibration).write(tmp_path)
    assert ModelCard.read(tmp_path).calibration == calibration


RECORDS = ["", "architecture", "mel", "segments", "calibration"]


@pytest.mark.parametrize("record", RECORDS)
def test_unknown_key(edit: Any, record: str) -> None:
    folder = edit(lambda data: (data[record] if record else data).update(surprise=1))
    key = f"{record}.surprise" if record else "surprise"
    with pytest.raises(ModelError, match=rf"card\.json: unknown key '{key}'"):
        ModelCard.read(folder)


@pytest.mark.parametrize("record", RECORDS)
def test_missing_key(edit: Any, record: str) -> None:
    removed: list[str] = []
    folder = edit(lambda data: removed.append((data[record] if record else data).popitem()[0]))
    key = f"{record}.{removed[0]}" if record else removed[0]
    with pytest.raises(ModelError, match=rf"card\.json: key '{key}' is missing"):
        ModelCard.read(folder)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("labels", ["Blues", "R&B"], "labels names 2 classes, but the architecture has 3"),
        ("labels", ["a", "a", "b"], "one name twice"),
        ("labels", ["a", " ", "b"], "empty"),
        ("labels", ["a", "\ud800", "b"], "unprintable"),
        ("labels", "Blues", "labels is 'Blues', but must be a list"),
        ("labels", [1, 2, 3], r"labels\[0\] is 1"),
        ("tag_labels", [], "tag_labels names 0 classes, but the architecture has 2"),
        ("mel.n_mels", 48, "mel.n_mels is 48, but architecture.n_mels is 32"),
        ("mel.n_mels", 32.0, "mel.n_mels is 32.0, but must be an integer"),
        ("mel.n_mels", True, "mel.n_mels is True"),
        ("mel.mel_scale", "bark", "'slaney' or 'htk'"),
        ("mel.fmax_hz", 10, "fmin_hz 20.0 must be below fmax_hz 10.0"),
        ("mel.hop_length", 10**30, "hop_length"),
        ("mel.std_db", 10**400, "must be a finite number"),
        ("mel.std_db", 0, "must be positive"),
        ("architecture.width", 10**9, "width 1000000000"),
        ("architecture.depth", 10**9, "depth 1000000000"),
        ("architecture.n_heads", 5, "n_heads 5"),
        ("architecture.n_heads", 0, "n_heads 0"),
        ("architecture.n_mels", 33, "n_mels 33 is not a multiple of 16"),
        ("architecture.stem", None, "architecture.stem is None"),
        ("calibration.temperature", 0, "temperature 0.0 must be positive"),
        ("calibration.temperature", "1", "calibration.temperature is '1', but must be a finite number"),
        ("calibration.class_scale", [1.0], "class_scale has 1 numbers and class_bias 0, but both must"),
        ("calibration.temperature", 10**400, "calibration.temperature is 1.*, but must be a finite number"),
        ("calibration.coverage", 1, "coverage 1.0 is out of range"),
        *(
            (f"calibration.{share}", value, rf"calibration: {share} {value} is out of range \(0 to 1\)")
            for share in SHARES
            for value in (-0.1, 1.5)
        ),
        *((f"calibration.{share}", "0.5", rf"calibration.{share} is '0.5', but must be") for share in SHARES),
        ("calibration.review_below_confidence", None, "review_below_confidence is None, but must be a finite number"),
        ("calibration.music_bias", 10**400, "calibration.music_bias is 1.*, but must be a finite number"),
        ("calibration.music_weights", [["Music"]], r"music_weights\[0\] is \['Music'\], but must be a list of 2"),
        ("segments.n_segments", 0, "n_segments 0"),
        ("training", [], r"training is \[\], but must be an object"),
        ("name", "../small", "name '../small' is not a plain name"),
        ("created", "yesterday", "ISO 8601"),
        ("weights", {}, "names no file"),
        ("weights", {"../model.safetensors": SHA}, "'../model.safetensors'"),
        ("weights", {"model.safetensors": "abc"}, "is not a SHA-256"),
        ("weights", {"model-00001-of-00002.safetensors": SHA}, "missing"),
        ("weights", {"model-00001-of-00002.safetensors": SHA, "model.safetensors": SHA}, "incomplete"),
    ],
)
def test_a_wrong_value_is_named(edit: Any, path: str, value: Any, named: str) -> None:
    def change(data: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            data = data[parent]
        data[key] = value

    folder = edit(change)
    with pytest.raises(ModelError, match=named) as caught:
        ModelCard.read(folder)
    assert str(folder / "card.json") in caught.value.message


@pytest.mark.parametrize("key", [*SHARES, "temperature", "coverage", "label_smoothing", "music_bias"])
def test_a_number_that_is_none_is_refused_by_name(tmp_path: Path, card: ModelCard, edit: Any, key: str) -> None:
    folder = edit(lambda data: data["calibration"].update({key: math.nan}))
    with pytest.raises(ModelError, match=f"card.json: .*key '{key}': NaN is not a JSON number"):
        ModelCard.read(folder)
    wrong = dataclasses.replace(card, calibration=dataclasses.replace(card.calibration, **{key: math.nan}))
    (tmp_path / "new").mkdir()
    with pytest.raises(ModelError, match=f"calibration: .*{key}"):
        wrong.write(tmp_path / "new")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_scale", (1.0, math.inf, 1.0)),
        ("class_bias", (0.0, 0.0, -math.inf)),
        ("music_weights", (("Music", math.nan),)),
    ],
)
def test_a_list_with_a_number_that_is_none_is_not_written(
    tmp_path: Path, card: ModelCard, key: str, value: tuple[Any, ...]
) -> None:
    vector = dataclasses.replace(card.calibration, class_scale=(1.0, 1.0, 1.0), class_bias=(0.0, 0.0, 0.0))
    wrong = dataclasses.replace(card, calibration=dataclasses.replace(vector, **{key: value}))
    with pytest.raises(ModelError, match=f"calibration: {key} holds a number that is not finite"):
        wrong.write(tmp_path)


@pytest.mark.parametrize("value", [0, 0.25, 1])
@pytest.mark.parametrize("key", SHARES)
def test_from_nought_to_one_a_share_is_sound(edit: Any, key: str, value: float) -> None:
    folder = edit(lambda data: data["calibration"].update({key: value}))
    assert getattr(ModelCard.read(folder).calibration, key) == value


def test_a_card_from_before_segments_had_a_quantile_is_read(edit: Any, card: ModelCard) -> None:
    folder = edit(lambda data: data["calibration"].pop("segment_conformal_quantile"))
    assert ModelCard.read(folder) == card
    assert card.calibration.segment_conformal_quantile is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not strict JSON"),
        (b"[]", "the card is \\[\\], but must be an object"),
        (b"[" * 100_000, "not strict JSON"),
        (b'{"name": "a", "name": "b"}', "'name' is given twice"),
        (b'{"name": NaN}', "key 'name': NaN is not a JSON number"),
        (b'{"metrics": {"loss": [1, [2, -Infinity]]}}', "key 'loss': -Infinity is not a JSON number"),
        (b"\xff\xfe", "not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b" " * (MAX_CARD_BYTES + 1), "more than a card may have"),
    ],
)
def test_what_is_no_card(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(ModelError, match=named):
        ModelCard.read(tmp_path)


def test_no_card_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"card\.json: there is no such file"):
        ModelCard.read(tmp_path)


def test_an_unsound_card_is_not_written(tmp_path: Path, card: ModelCard) -> None:
    for wrong in (
        dataclasses.replace(card, labels=("Blues",)),
        dataclasses.replace(card, metrics={"accuracy": float("nan")}),
        dataclasses.replace(card, training={"data": {1, 2}}),
        dataclasses.replace(card, description="\ud800"),
    ):
        with pytest.raises(ModelError, match=r"card\.json"):
            wrong.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_digest_follows_the_weights(card: ModelCard) -> None:
    other = dataclasses.replace(card, weights={"model.safetensors": "1" * 64})
    renamed = dataclasses.replace(card, description="another")
    assert card.weights_digest != other.weights_digest
    assert card.weights_digest == renamed.weights_digest


def test_shard_names() -> None:
    assert shard_name(0, 1) == "model.safetensors"
    assert shard_name(1, 12) == "model-00002-of-00012.safetensors"
