from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acoustic.errors import SettingsError
from acoustic.settings import Settings, available_cores, prepare_process


def test_caller_beats_environment_beats_default() -> None:
    env = {"ACOUSTIC_PORT": "1234", "ACOUSTIC_BATCH_SIZE": "4"}
    settings = Settings.load(env, port=99, batch_size=None)
    assert (settings.port, settings.batch_size, settings.decode_workers) == (99, 4, Settings().decode_workers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "x"),
        ("port", "70000"),
        ("batch_size", "0"),
        ("denoise", "perhaps"),
        ("min_duration_s", "-1"),
        ("cache_mb", "nan"),
        ("cache_mb", "inf"),
        ("max_duration_s", "inf"),
        ("decode_timeout_s", "1e10"),
        ("decode_memory_mb", "1e10"),
        ("segment_mode", "sprad"),
        ("device", "abacus"),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.load({"ACOUSTIC_" + name.upper(): value})


def test_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({}, prot=1)
    assert "port" in caught.value.hint


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("False", False), ("no", False)])
def test_switches_read_the_usual_words(text: str, value: bool) -> None:
    assert Settings.load({"ACOUSTIC_RULES": text}).rules is value


def test_every_setting_has_unit_and_help() -> None:
    for field in dataclasses.fields(Settings):
        assert field.metadata["unit"], field.name
        assert field.metadata["help"].endswith("."), field.name


def test_readme_lists_every_setting_with_its_default() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Settings):
        row = next((line for line in text.splitlines() if line.startswith(f"| `{field.name}` ")), None)
        assert row, f"docs/settings.md does not list {field.name}"
        assert f"| {field.default!r} |" in row, f"docs/settings.md has another default for {field.name}"


def test_cores_respect_the_affinity() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("n_cores", [1, 2, 8])
def test_neither_workers_nor_threads_are_more_than_cores(monkeypatch: pytest.MonkeyPatch, n_cores: int) -> None:
    monkeypatch.setattr("acoustic.settings.available_cores", lambda: n_cores)
    assert (Settings().n_workers(), Settings().n_threads()) == (min(2, n_cores), n_cores)
    many = Settings(decode_workers=64, torch_threads=512)
    assert (many.n_workers(), many.n_threads()) == (n_cores, n_cores)
    assert (Settings(decode_workers=1).n_workers(), Settings(torch_threads=1).n_threads()) == (1, 1)


def test_a_home_that_is_nobodys_is_refused_by_name() -> None:
    somewhere = "~nobody-by-that-name/x"
    settings = Settings(cache_dir=somewhere, data_dir=somewhere, library=somewhere)
    for name, folder in (
        ("cache_dir", settings.cache_folder),
        ("data_dir", settings.data_folder),
        ("library", settings.library_file),
    ):
        with pytest.raises(SettingsError, match=name):
            folder()


def test_where_no_cache_can_be_libraries_keep_theirs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch does not start where it cannot make its folder."""
    variables = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "file").write_text("no folder")
    for cache, there in ((tmp_path / "cache", True), (tmp_path / "file", False), (tmp_path / "file" / "x", False)):
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
        prepare_process(Settings(cache_dir=str(cache)))
        for variable in variables:
            assert Path(os.environ[variable]).is_relative_to(cache) == there
            if not there:
                Path(os.environ[variable]).mkdir(parents=True, exist_ok=True)


def test_importing_settings_touches_no_environment() -> None:
    code = "import os; a = dict(os.environ); import acoustic.settings; print(a == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
