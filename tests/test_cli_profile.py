"""`analyze --profile`: the command's songs as a Chrome trace, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acoustic.cli import app
from acoustic.settings import Settings
from tests.test_engine import song

runner = CliRunner()


@pytest.fixture
def env(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ACOUSTIC_MODEL", fresh.model)
    monkeypatch.setenv("ACOUSTIC_CACHE_DIR", fresh.cache_dir)
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", fresh.data_dir)
    return fresh


def test_the_trace_has_every_song_and_what_the_machine_did(env: Settings, tmp_path: Path) -> None:
    paths = [str(song(tmp_path / f"{name}.wav", seconds)) for name, seconds in (("long", 40), ("a", 11), ("b", 12))]
    target = tmp_path / "trace.json"
    done = runner.invoke(app, ["analyze", *paths, "--json", "--profile", str(target)])
    assert done.exit_code == 0, done.output
    said = {one["file"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert list(said) == paths
    events = json.loads(target.read_text(encoding="utf-8"))["traceEvents"]
    songs = {e["args"]["file"]: e for e in events if e.get("cat") == "song"}
    assert set(songs) == set(paths)
    for path in paths:
        assert songs[path]["dur"] == pytest.approx(1e3 * said[path]["timings_ms"]["total"], rel=0.05, abs=3000)
        stages = {e["name"] for e in events if e.get("cat") == "stage" and e["args"]["file"] == path}
        assert {"load_audio", "mel_spectrogram", "inference", "postprocess"} <= stages
    assert any(e["ph"] == "C" and e["name"] == "memory MB" and e["args"]["program"] > 10 for e in events)
    assert list(tmp_path.glob("*.part")) == []


def test_a_trace_that_cannot_be_written_is_said_before_any_work(env: Settings, tmp_path: Path) -> None:
    path = str(song(tmp_path / "a.wav", 11))
    done = runner.invoke(app, ["analyze", path, "--json", "--profile", str(tmp_path / "none" / "trace.json")])
    assert done.exit_code != 0
    assert done.stdout == ""
    folder = runner.invoke(app, ["analyze", path, "--profile", str(tmp_path)])
    assert folder.exit_code == 2


def test_a_file_that_fails_leaves_the_trace_of_the_others(env: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "text.mp3"
    bad.write_text("no music")
    good, target = str(song(tmp_path / "a.wav", 11)), tmp_path / "trace.json"
    target.write_text("an older trace")
    done = runner.invoke(app, ["analyze", str(bad), good, "--json", "--profile", str(target)])
    assert done.exit_code == 1
    events = json.loads(target.read_text(encoding="utf-8"))["traceEvents"]
    assert [e["args"]["file"] for e in events if e.get("cat") == "song"] == [good]
