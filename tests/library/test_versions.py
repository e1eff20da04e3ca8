"""Versions on disk: nothing lost, nothing damaged believed, nothing used where it does not belong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from acoustic.errors import ModelError
from acoustic.library.background import Background
from acoustic.library.personal import Base, PersonalModel
from acoustic.library.teaching import teach
from acoustic.library.version_file import META_FILE, STANDS_ON, TENSOR_FILE
from acoustic.library.versions import ACTIVE_FILE, Versions
from acoustic.records import Calibration
from tests.library.conftest import World


@pytest.fixture(scope="module")
def personal(world: World) -> PersonalModel:
    background: Background = world.background()
    taught = teach(world.songs({2: 6, 4: 4}), world.base, background, name="first").personal
    assert taught is not None
    return taught


@pytest.fixture
def versions(tmp_path: Path, personal: PersonalModel) -> Versions:
    kept = Versions(tmp_path / "personal")
    kept.save(personal)
    return kept


def test_a_version_read_back_answers_with_the_same_bits(
    world: World, versions: Versions, personal: PersonalModel
) -> None:
    songs = world.songs({0: 3, 4: 3}, first=900)
    again = versions.load("first", world.base)
    assert world.answers(songs, again).tobytes() == world.answers(songs, personal).tobytes()
    assert (again.labels, again.calibration, again.report) == (personal.labels, personal.calibration, personal.report)
    assert (again.name, again.created) == ("first", personal.created)


def test_use_and_undo_walk_the_history(world: World, versions: Versions, personal: PersonalModel) -> None:
    assert versions.active() is None
    versions.save(dataclasses.replace(personal, name="second"))
    for name in ("first", "second", "second", None):
        versions.use(name)
    back = [versions.undo(world.base) for _ in range(3)]
    assert back == ["second", "first", None]  # choosing the same twice is one step
    with pytest.raises(ModelError, match="nothing to undo"):
        versions.undo(world.base)
    assert versions.active() is None


def test_undo_goes_back_to_nothing_that_cannot_be_used(
    world: World, versions: Versions, personal: PersonalModel
) -> None:
    versions.save(dataclasses.replace(personal, name="second"))
    for name in ("first", "second"):
        versions.use(name)
    shutil.rmtree(versions.folder / "first")
    with pytest.raises(
        ModelError, match="was in use before cannot be used: there is no version called 'first'"
    ) as said:
        versions.undo(world.base)
    assert "personal use" in (said.value.hint or "")
    assert versions.active() == "second"


def test_what_is_in_use_is_listed_though_it_is_gone_or_not_to_be_told(world: World, versions: Versions) -> None:
    versions.use("first")
    shutil.rmtree(versions.folder / "first")
    [line] = versions.listed(world.base)
    assert (line.name, line.active) == ("first", True)
    assert line.error is not None
    (versions.folder / "active.json").write_text('{"history":')
    [line] = versions.listed(world.base)
    assert line.active
    assert line.error is not None
    assert "is damaged" in line.error.message


@pytest.mark.skipif(os.geteuid() == 0, reason="this account may read anything")
def test_a_folder_that_may_not_be_read_is_told(world: World, versions: Versions) -> None:
    versions.use("first")
    versions.folder.chmod(0)
    try:
        with pytest.raises(ModelError, match="cannot be read"):
            versions.active()
    finally:
        versions.folder.chmod(0o755)


def test_the_list_tells_what_each_version_is(world: World, versions: Versions, personal: PersonalModel) -> None:
    versions.save(dataclasses.replace(personal, name="10"))
    versions.save(dataclasses.replace(personal, name="9"))
    versions.use("9")
    listed = versions.listed(world.base)
    assert [(v.name, v.active) for v in listed] == [("9", True), ("10", False), ("first", False)]
    assert versions.free_name() == "11"
    [first] = [v for v in listed if v.name == "first"]
    assert (first.own, first.n_songs, first.model, first.error) == (("Forró",), 10, "made-up", None)
    assert first.before is not None
    assert first.after is not None
    assert first.before <= first.after
    assert json.loads(json.dumps(first.to_dict()))["own"] == ["Forró"]


def test_a_version_is_bound_to_the_weights_it_was_taught_on(world: World, versions: Versions) -> None:
    for change, said in (
        ({"model": "other"}, "model 'made-up', not on 'other'"),
        ({"weights_digest": "f" * 64}, "other weights of 'made-up'"),
        ({"labels": ("Blues", "Jazz", "Hip-Hop", "Soul")}, "other weights"),
        ({"n_embedding": 5}, "weights a genre"),
    ):
        base = dataclasses.replace(world.base, **change)
        with pytest.raises(ModelError, match=said) as refused:
            versions.load("first", base)
        assert refused.value.hint
        [line] = versions.listed(base)
        assert line.error is not None
        assert line.n_songs == 10  # what it is can still be told


RECALIBRATED = {
    "temperature": 2.0,
    "class_scale": (1.5, 0.5, 1.0, 1.0),
    "class_bias": (0.0, 1.0, -1.0, 0.0),
    "label_smoothing": 0.2,
    "voting": "log_mean",
    "segment_correlation": 0.3,
    "coverage": 0.5,
}


def recalibrated(base: Base, **changes: Any) -> Base:
    return dataclasses.replace(base, calibration=dataclasses.replace(base.calibration, **changes))


def test_all_that_a_version_stands_on_is_another_here() -> None:
    assert set(RECALIBRATED) == set(STANDS_ON)
    assert all(getattr(Calibration(), key) != value for key, value in RECALIBRATED.items())


@pytest.mark.parametrize("keys", [(key,) for key in STANDS_ON if not key.startswith("class")] + [STANDS_ON], ids=str)
def test_a_version_answers_as_it_was_tested_though_the_model_was_calibrated_anew(
    world: World, versions: Versions, personal: PersonalModel, keys: tuple[str, ...]
) -> None:
    songs = world.songs({0: 3, 4: 3}, first=900)
    base = recalibrated(world.base, **{key: RECALIBRATED[key] for key in keys})
    again = versions.load("first", base)
    assert world.answers(songs, again).tobytes() == world.answers(songs, personal).tobytes()
    assert again.calibration == personal.calibration
    if keys != ("coverage",):  # else it would say nothing that they are the same
        on_the_new = dataclasses.replace(personal, base=base)
        assert np.abs(world.answers(songs, on_the_new) - world.answers(songs, personal)).max() > 0.01
    [line] = versions.listed(base)
    assert (line.error, line.recalibrated) == (None, True)
    assert line.to_dict()["recalibrated"] is True
    assert not versions.listed(world.base)[0].recalibrated


def test_when_to_review_and_what_is_music_follow_the_card(world: World, versions: Versions) -> None:
    changes = {"review_below_confidence": 0.77, "music_threshold": 0.2, "music_weights": (("Speech", -1.0),)}
    base = recalibrated(world.base, **changes)
    again = versions.load("first", base)
    assert {key: getattr(again.calibration, key) for key in changes} == changes
    assert not versions.listed(base)[0].recalibrated


def test_a_version_from_before_it_said_what_it_stands_on_stands_on_the_card(
    world: World, versions: Versions, personal: PersonalModel
) -> None:
    file = versions.folder / "first" / META_FILE
    said = json.loads(file.read_text())
    del said["calibration"]
    file.write_text(json.dumps(said))
    songs = world.songs({0: 3, 4: 3}, first=900)
    again = versions.load("first", world.base)
    assert world.answers(songs, again).tobytes() == world.answers(songs, personal).tobytes()
    base = recalibrated(world.base, **RECALIBRATED)
    assert versions.load("first", base).base == base
    assert not versions.listed(base)[0].recalibrated


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": "inf"},
        {"temperature": "NaN"},
        {"class_scale": [1.0, 1.0, 1.0, 1.0]},
        {"class_scale": [1.0], "class_bias": [0.0]},
        {"class_scale": ["nan"] * 4, "class_bias": [0.0] * 4},
        {"class_scale": None},
        {"label_smoothing": 1.0},
        {"voting": "loudest"},
        {"voting": ["mean"]},
        {"segment_correlation": -0.1},
        {"coverage": 1},
        {"coverage": "most"},
        None,
    ],
    ids=str,
)
def test_a_damaged_calibration_is_refused(world: World, versions: Versions, change: dict[str, Any] | None) -> None:
    file = versions.folder / "first" / META_FILE
    said = json.loads(file.read_text())
    said["calibration"] = None if change is None else {**said["calibration"], **change}
    file.write_text(json.dumps(said))
    with pytest.raises(ModelError, match="first") as refused:
        versions.load("first", world.base)
    assert refused.value.hint
    assert versions.listed(world.base)[0].error is not None


@pytest.mark.parametrize(
    "name", ["", "none", "NONE", "../up", "a/b", "a b", ".hidden", "x" * 61, "é", "end.", "first", "FIRST"]
)
def test_names_that_cannot_be_or_are_taken(versions: Versions, personal: PersonalModel, name: str) -> None:
    with pytest.raises(ModelError):
        versions.save(dataclasses.replace(personal, name=name))
    assert versions.names() == ["first"]


@pytest.mark.parametrize("name", ["second", "..", "", ".", "first/../first"])
def test_a_version_that_is_not_there(world: World, versions: Versions, tmp_path: Path, name: str) -> None:
    for attempt in (
        lambda: versions.load(name, world.base),
        lambda: versions.use(name),
        lambda: versions.export(name, tmp_path / "out.zip"),
    ):
        with pytest.raises(ModelError, match="no version") as refused:
            attempt()
        assert "first" in refused.value.hint
    assert versions.active() is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"sha256": "0" * 64},
        {"labels": "Blues"},
        {"labels": ["Blues", "Blues", "Hip-Hop", "R&B"]},
        {"own": ["Forró", "More"]},
        {"own": ["x" * 61]},
        {"own": ["BLUES"]},
        {"own": ["\x1b[31m"]},
        {"temperature": 0},
        {"temperature": "NaN"},
        {"temperature": None},
        {"temperature": 1e-300},
        {"temperature": 10**400},
        {"conformal_quantile": 10**400},
        {"created": "\ud800"},
        {"model": "\ud800"},
        {"report": {"songs": {"Blues": float("inf")}, "left_out": None}},
        {"conformal_quantile": 7},
        {"report": []},
        {"report": {"songs": {"Blues": -1}, "left_out": None}},
        {"report": {"songs": {}, "left_out": None, "more": [float("nan")]}},
        {
            "report": {
                "songs": {},
                "left_out": {"accuracy_before": {"value": 0.5}, "accuracy_after": {"value": 1.5}},
            }
        },
        {"report": {"songs": {"Blues": "many"}, "left_out": None}},
        {"created": None, "weights_digest": None, "report": {}},
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(world: World, versions: Versions, change: dict) -> None:
    file = versions.folder / "first" / META_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError) as refused:
        versions.load("first", world.base)
    assert refused.value.hint
    assert versions.listed(world.base)[0].error is not None


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}'], ids=len)
def test_a_description_that_is_none_is_refused(world: World, versions: Versions, data: bytes) -> None:
    (versions.folder / "first" / META_FILE).write_bytes(data)
    with pytest.raises(ModelError, match="first"):
        versions.load("first", world.base)


@pytest.mark.parametrize("change", [{"temperature": "x" * 100_000}, {"format": "x" * 100_000}, None])
def test_what_is_damaged_is_not_printed_whole(world: World, versions: Versions, change: dict[str, Any] | None) -> None:
    file = versions.folder / "first" / META_FILE
    said = json.dumps({**json.loads(file.read_text()), **(change or {})}).encode()
    file.write_bytes(said if change else b" " * 100_000 + b"\xff")
    with pytest.raises(ModelError, match=r"damaged: (UnicodeDecode|Value)Error|is of format") as refused:
        versions.load("first", world.base)
    assert len(refused.value.message) < 1_000


def test_a_number_beyond_all_numbers_is_damage(world: World, versions: Versions) -> None:
    file = versions.folder / "first" / META_FILE
    file.write_text(file.read_text().replace('"report": {', '"report": {"more": 1e999, ', 1))
    with pytest.raises(ModelError, match="no finite number"):
        versions.load("first", world.base)


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(
    versions: Versions, personal: PersonalModel
) -> None:
    for entry in ("new", "old"):
        (versions.folder / f".second.{os.getpid()}.{entry}").mkdir(parents=True)
    versions.save(dataclasses.replace(personal, name="second"))
    assert "second" in versions.names()


def rewrite(versions: Versions, tensors: bytes) -> None:
    """Other tensors, with a checksum that fits them: what a person with bad intent would do."""
    import hashlib

    folder = versions.folder / "first"
    (folder / TENSOR_FILE).write_bytes(tensors)
    said = json.loads((folder / META_FILE).read_text())
    said["sha256"] = hashlib.sha256(tensors).hexdigest()
    (folder / META_FILE).write_text(json.dumps(said))


def test_damaged_tensors_are_refused(world: World, versions: Versions, personal: PersonalModel) -> None:
    file = versions.folder / "first" / TENSOR_FILE
    sound = file.read_bytes()
    for data in (sound[:-1], sound[:100] + bytes([sound[100] ^ 1]) + sound[101:], b""):
        file.write_bytes(data)
        with pytest.raises(ModelError, match="SHA-256"):
            versions.load("first", world.base)
    weights, bias = personal.weights, personal.bias
    for tensors in (
        {"weights": weights},
        {"weights": weights[:-1], "bias": bias},
        {"weights": weights, "bias": bias[:-1]},
        {"weights": weights[:, :-1], "bias": bias},
        {"weights": weights * np.nan, "bias": bias},
        {"weights": weights, "bias": bias + np.inf},
        {"weights": weights, "bias": bias + np.float32(1e30)},
        {"weights": weights * np.float32(1e30), "bias": bias},
    ):
        rewrite(versions, safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
        with pytest.raises(ModelError):
            versions.load("first", world.base)
    rewrite(versions, b"not safetensors")
    with pytest.raises(ModelError, match="damaged"):
        versions.load("first", world.base)
    file.unlink()
    with pytest.raises(ModelError, match="no such file"):
        versions.load("first", world.base)


@pytest.mark.parametrize("data", ["", "{}", '{"history": []}', '{"history": [1]}', '{"history": "first"}', "[null]"])
def test_a_damaged_pointer_is_said_and_mended_by_choosing(versions: Versions, world: World, data: str) -> None:
    versions.use("first")
    (versions.folder / ACTIVE_FILE).write_text(data)
    for attempt in (versions.active, lambda: versions.undo(world.base)):
        with pytest.raises(ModelError, match="damaged") as refused:
            attempt()
        assert "personal use" in refused.value.hint
    assert [(v.name, v.active) for v in versions.listed(world.base)] == [("(unknown)", True), ("first", False)]
    versions.use("first")
    assert versions.active() == "first"


@pytest.mark.parametrize("target", ["out.zip", "OUT.ZIP", "folder", "deep/er/folder"])
def test_out_and_in_again(
    world: World, versions: Versions, personal: PersonalModel, tmp_path: Path, target: str
) -> None:
    versions.export("first", tmp_path / target)
    with pytest.raises(ModelError, match="there already"):
        versions.export("first", tmp_path / target)
    other = Versions(tmp_path / "other")
    assert other.take(tmp_path / target) == "first"
    assert other.take(tmp_path / target, "renamed") == "renamed"
    with pytest.raises(ModelError, match="already"):
        other.take(tmp_path / target)
    assert other.active() is None
    songs = world.songs({4: 2}, first=50)
    again = other.load("renamed", world.base)
    assert world.answers(songs, again).tobytes() == world.answers(songs, personal).tobytes()
    left = [p.name for p in tmp_path.rglob(".*")]
    assert left == []


def test_bad_imports_are_refused_and_leave_nothing(versions: Versions, tmp_path: Path) -> None:
    versions.export("first", tmp_path / "sound.zip")
    with zipfile.ZipFile(tmp_path / "sound.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    made = {
        "half.zip": {META_FILE: parts[META_FILE]},
        "up.zip": {f"../{name}": data for name, data in parts.items()},
        "huge.zip": {**parts, META_FILE: b" " * (5 * 10**6)},
        "evil.zip": {**parts, META_FILE: parts[META_FILE].replace(b'"name": "first"', b'"name": "../../evil"')},
    }
    for name, content in made.items():
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in content.items():
                archive.writestr(member, data)
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        for member, data in parts.items():
            archive.writestr(member, data)
    packed = bytearray((tmp_path / "lzma.zip").read_bytes())
    packed[60:70] = bytes(10)
    (tmp_path / "lzma.zip").write_bytes(packed)
    (tmp_path / "text.zip").write_text("hello")
    whole = (tmp_path / "sound.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.zip").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    (tmp_path / "empty folder").mkdir()
    other = Versions(tmp_path / "deep" / "other")
    for source in (*made, "lzma.zip", "text.zip", "cut.zip", "flipped.zip", "empty folder", "not there"):
        with pytest.raises(ModelError) as refused:
            other.take(tmp_path / source)
        assert refused.value.hint, source
    assert other.names() == []
    assert not (tmp_path / "deep").exists()
    assert not list(tmp_path.rglob("evil*/*"))


def test_a_folder_without_versions_is_no_error(tmp_path: Path, world: World) -> None:
    nothing = Versions(tmp_path / "none")
    assert (nothing.names(), nothing.listed(world.base), nothing.active(), nothing.free_name()) == ([], [], None, "1")
    nothing.use(None)
    assert not (tmp_path / "none").exists()


def test_what_is_written_aside_is_no_version(versions: Versions, world: World) -> None:
    """A process that was killed half-way leaves a folder that nobody lists."""
    (versions.folder / ".second.123.new").mkdir()
    (versions.folder / ".second.123.new" / META_FILE).write_text("{")
    assert versions.names() == ["first"]
