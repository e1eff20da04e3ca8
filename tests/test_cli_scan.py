from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acoustic.cli import app
from acoustic.cli.scan import _duration, _words
from acoustic.errors import SettingsError, StorageError
from acoustic.kept import ScanProgress
from acoustic.settings import Settings
from tests.documented import keys_of

runner = CliRunner()


@pytest.fixture
def env(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ACOUSTIC_MODEL", fresh.model)
    monkeypatch.setenv("ACOUSTIC_CACHE_DIR", fresh.cache_dir)
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", fresh.data_dir)
    return fresh


def test_scan_tells_what_became_of_the_files(env: Settings, tmp_path: Path) -> None:
    music = tmp_path / "music"
    (music / "deep").mkdir(parents=True)
    (music / "deep" / "evil \x1b[31m.mp3").write_text("this is no music at all")
    (music / "empty.wav").touch()
    library = tmp_path / "elsewhere" / "mine.db"
    first = runner.invoke(app, ["scan", str(music), "--json", "--library", str(library)])
    assert first.exit_code == 1, first.output
    said = json.loads(first.stdout)
    assert (said["state"], said["n_found"], said["n_errors"], said["folder"]) == ("done", 2, 2, str(music))
    assert said["errors"] == {"NOT_AUDIO": 1, "EMPTY": 1}
    assert set(said) == keys_of("scan")
    assert library.is_file()
    assert not env.library_file().exists()

    again = runner.invoke(app, ["scan", str(music), "--library", str(library)])
    assert again.exit_code == 1
    assert "2 files: 0 analysed, 2 unchanged, 0 failed" in again.stdout
    assert "EMPTY 1" in again.stderr
    assert "\x1b[31m" not in again.stderr

    (music / "empty.wav").unlink()
    (music / "deep" / "evil \x1b[31m.mp3").unlink()
    gone = runner.invoke(app, ["scan", str(music), "--library", str(library)])
    assert gone.exit_code == 0
    assert "2 no longer there" in gone.stdout


def test_what_cannot_be_scanned_is_a_plain_error(env: Settings, tmp_path: Path) -> None:
    assert isinstance(runner.invoke(app, ["scan", str(tmp_path / "none")]).exception, StorageError)
    odd = runner.invoke(app, ["scan", str(tmp_path), "--watch", "--engine", "ray"])
    assert isinstance(odd.exception, SettingsError)
    assert runner.invoke(app, ["scan", str(tmp_path), "--engine", "abacus"]).exit_code == 2


def test_the_words_beside_the_bar() -> None:
    def words(**changes: object) -> str:
        plain = {"state": "running", "n_found": 100, "n_unchanged": 0, "n_ok": 0, "n_errors": 0, "walking": False}
        return _words(ScanProgress(**{**plain, "files_per_s": 0.0, "eta_s": None, "elapsed_s": 1.0, **changes}))

    assert words() == "getting ready"
    assert words(n_ok=5, walking=True, files_per_s=2.5) == "2.5 files/s, still searching"
    assert words(n_ok=5, files_per_s=2.5, eta_s=3_725.0) == "2.5 files/s, 1 h 02 min left"
    assert (_duration(59.6), _duration(12)) == ("1 min 00 s", "12 s")
