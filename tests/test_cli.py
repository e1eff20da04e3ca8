"""The command line as a person meets it: answers on stdout, exit status 0, 1 or 2, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError
from typer.testing import CliRunner

from acoustic import cli
from acoustic.cli import app
from acoustic.cli.training import _told
from acoustic.errors import AcousticError, ManifestError, StorageError
from acoustic.settings import Settings
from acoustic.training.evaluate import read_manifest
from tests.documented import keys_of
from tests.test_engine import song

ROOT = Path(__file__).resolve().parent.parent
runner = CliRunner()


@pytest.fixture
def env(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The small model and folders of their own, as a person would set them."""
    monkeypatch.setenv("ACOUSTIC_MODEL", fresh.model)
    monkeypatch.setenv("ACOUSTIC_CACHE_DIR", fresh.cache_dir)
    monkeypatch.setenv("ACOUSTIC_DATA_DIR", fresh.data_dir)
    return fresh


def objects(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_analyze_prints_one_object_a_line_in_the_order_asked(env: Settings, tmp_path: Path) -> None:
    paths = [str(song(tmp_path / f"{name}.wav", seconds)) for name, seconds in (("long", 40), ("a", 11), ("b", 12))]
    done = runner.invoke(app, ["analyze", *paths, "--json", "--top-k", "3"])
    assert done.exit_code == 0, done.output
    said = objects(done.stdout)
    assert [one["file"] for one in said] == paths
    assert all(one["status"] == "ok" and len(one["predictions"]) == 3 for one in said)


def test_one_song_shows_each_stage_with_its_share(env: Settings, tmp_path: Path) -> None:
    shown = runner.invoke(app, ["analyze", str(song(tmp_path / "a.wav", 12))]).stdout
    shares = [int(share) for share in re.findall(r"ms \((\d+)%\)", shown)]
    assert "inference" in shown
    assert 50 <= sum(shares) <= 103  # rounded; on a busy machine some time passes between two stages


def test_folders_are_searched(env: Settings, tmp_path: Path) -> None:
    (tmp_path / "x" / "deep").mkdir(parents=True)
    song(tmp_path / "x" / "one.wav", 11)
    song(tmp_path / "x" / "deep" / "two.flac", 11)
    (tmp_path / "x" / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    done = runner.invoke(app, ["analyze", str(tmp_path / "x"), "--json"])
    assert done.exit_code == 0, done.output
    assert sorted(Path(one["file"]).name for one in objects(done.stdout)) == ["one.wav", "two.flac"]


def test_a_folder_without_audio_is_a_typed_error(env: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").mkdir()
    done = runner.invoke(app, ["analyze", str(tmp_path / "empty.mp3"), "--json"])
    assert done.exit_code == 1
    assert objects(done.stdout)[0]["error"]["code"] == "NOT_AUDIO"


def test_bad_files_give_status_1_and_their_typed_error(env: Settings, tmp_path: Path) -> None:
    good, text = song(tmp_path / "good.wav", 11), tmp_path / "text.mp3"
    text.write_text("hello\n")
    done = runner.invoke(app, ["analyze", str(text), str(good), "--json"])
    assert done.exit_code == 1
    assert [one["status"] for one in objects(done.stdout)] == ["error", "ok"]
    assert objects(done.stdout)[0]["error"]["code"] == "NOT_AUDIO"
    table = runner.invoke(app, ["analyze", str(text), str(good)])
    assert table.exit_code == 1
    assert "NOT_AUDIO" in table.stdout
    assert "Traceback" not in table.output


def test_names_that_could_play_tricks_are_shown_as_text(env: Settings, tmp_path: Path) -> None:
    name = "new\nline \x1b[31mred [bold]markup.wav"
    song(tmp_path / name, 11)
    table = runner.invoke(app, ["analyze", str(tmp_path / name)])
    assert table.exit_code == 0, table.output
    assert "\x1b[31m" not in table.stdout
    assert "[bold]markup" in "".join(table.stdout.split())  # a long name is folded


def test_a_name_that_is_not_utf8_keeps_its_bytes(env: Settings, tmp_path: Path) -> None:
    import base64

    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    os.rename(song(tmp_path / "plain.wav", 11), path)
    done = runner.invoke(app, ["analyze", os.fsdecode(path), "--json"])
    assert done.exit_code == 0, done.output
    said = objects(done.stdout)[0]
    assert said["file"].endswith("caf\ufffd.wav")
    assert base64.b64decode(said["file_bytes"]) == path


def test_a_run_looks_for_its_data_beside_its_configuration(env: Settings, tmp_path: Path) -> None:
    text = (ROOT / "configs" / "embedded.toml").read_text(encoding="utf-8")
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    said = runner.invoke(app, ["train", str(tmp_path / "run.toml"), "--work", str(tmp_path / "work")])
    assert isinstance(said.exception, ManifestError)
    assert str(tmp_path / "music.csv") in str(said.exception)


def test_what_a_disk_refuses_on_the_way_is_told_and_all_else_is_seen(tmp_path: Path) -> None:
    for code, told in ((errno.ENOSPC, True), (errno.EROFS, True), (errno.ECONNREFUSED, False), (errno.ENOMEM, False)):
        with pytest.raises(OSError if not told else StorageError), _told(tmp_path / "work"):
            raise OSError(code, os.strerror(code))
    with pytest.raises(StorageError), _told(tmp_path / "work"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_run_that_could_not_be_found_or_written_is_refused_before_the_work(
    env: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "configs" / "embedded.toml").read_text(encoding="utf-8")
    monkeypatch.setenv("ACOUSTIC_DEVICE", "cpu")
    run, file = tmp_path / "run.toml", tmp_path / "file"
    file.touch()

    def refused(*more: str) -> AcousticError:
        said = runner.invoke(app, ["train", str(run), *more])
        assert isinstance(said.exception, AcousticError), said.output
        assert said.exception.hint
        return said.exception

    run.write_text(text, encoding="utf-8")
    for option in ("--work", "--output"):
        places = {"--work": str(tmp_path / "work"), "--output": str(tmp_path / "out"), option: str(file / "below")}
        error = refused(*(word for pair in places.items() for word in pair))
        assert (error.code, str(file) in error.message) == ("STORAGE", True)
    run.write_text(text.replace('name = "mel-vit-first"', 'name = "mel-vit-small"'), encoding="utf-8")
    assert "ships with the program" in refused("--work", str(tmp_path / "work")).message
    elsewhere = refused("--work", str(tmp_path / "work"), "--output", str(tmp_path / "out"))
    assert isinstance(elsewhere, ManifestError)  # so far that the songs are missed
    run.write_text(text.replace("seed = 7", 'seed = 7\nprecision = "float16"'), encoding="utf-8")
    assert "CUDA" in refused("--work", str(tmp_path / "work")).message


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "x.wav", "--segments", "0"],
        ["analyze", "x.wav", "--device", "abacus"],
        ["analyze", "x.wav", "--no-such-option"],
        ["nonsense"],
        ["train", "none.toml", "--data", "."],
        ["evaluate", "none.csv"],
        ["models", "show", "none"],
        ["analyze", "x.wav", "--model", "none"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_without_a_traceback(env: Settings, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "acoustic", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_what_the_system_refuses_is_a_message_and_what_else_breaks_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended_by(error: BaseException) -> int:
        def broken() -> None:
            raise error

        monkeypatch.setattr(cli, "app", broken)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code))

    for number in (errno.EACCES, errno.ENOTDIR, errno.ENAMETOOLONG):
        assert ended_by(OSError(number, os.strerror(number), os.fsdecode(b"/x/\xff\n.db"))) == 2
        said = capsys.readouterr().err
        assert os.strerror(number) in said
        assert "Check the path and its permissions" in said
    assert ended_by(KeyboardInterrupt()) == 130
    with pytest.raises(BrokenPipeError):
        ended_by(BrokenPipeError(errno.EPIPE, "closed"))
    with pytest.raises(OSError, match="no name"):
        ended_by(OSError(errno.EACCES, "no name"))


def test_a_bad_setting_of_the_environment_is_named(env: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACOUSTIC_BATCH_SIZE", "many")
    done = runner.invoke(app, ["doctor"])
    assert isinstance(done.exception, AcousticError)
    assert "batch_size" in done.exception.message


def test_evaluate_measures_and_refuses(env: Settings, tmp_path: Path) -> None:
    for i, genre in enumerate(("Blues", "Jazz", "Jazz")):
        song(tmp_path / f"{i}.wav", 11, i)
        with open(tmp_path / "m.csv", "a") as manifest:
            manifest.write(("file,genre\n" if i == 0 else "") + f"{i}.wav,{genre}\n")
    song(tmp_path / "noise.wav", 3, 9)
    (tmp_path / "noises").mkdir()
    os.rename(tmp_path / "noise.wav", tmp_path / "noises" / "noise.wav")
    plain = runner.invoke(app, ["evaluate", str(tmp_path / "m.csv"), "--json"])
    assert plain.exit_code == 0, plain.output
    result = json.loads(plain.stdout)
    assert set(result) == keys_of("evaluate")
    assert result["n"] == 3
    assert sum(map(sum, result["confusion"])) == 3
    low, high = result["accuracy_interval_95"]
    assert low <= result["accuracy"] <= high
    among = json.loads(
        runner.invoke(app, ["evaluate", str(tmp_path / "m.csv"), "--json", "--among", "Jazz,Folk"]).stdout
    )
    assert (among["n"], among["labels"]) == (2, ["Jazz", "Folk"])
    noisy = runner.invoke(
        app, ["evaluate", str(tmp_path / "m.csv"), "--json", "--noise", str(tmp_path / "noises"), "--snr-db", "0"]
    )
    assert noisy.exit_code == 0, noisy.output
    assert json.loads(noisy.stdout)["nll"] != result["nll"]
    assert runner.invoke(app, ["evaluate", str(tmp_path / "m.csv")]).exit_code == 0
    again = "file,genre,group\n" + "".join(f"{i % 3}.wav,{('Blues', 'Jazz', 'Jazz')[i % 3]},all\n" for i in range(30))
    (tmp_path / "m.csv").write_text(again)
    repeated = json.loads(runner.invoke(app, ["evaluate", str(tmp_path / "m.csv"), "--json"]).stdout)
    assert (repeated["n"], repeated["accuracy"]) == (30, pytest.approx(result["accuracy"]))
    low, high = repeated["accuracy_interval_95"]
    assert high - low > 0.7  # one group tells as much as one song, however often it is listed
    (tmp_path / "m.csv").write_text("file,genre,group\n0.wav,Blues,a\n./0.wav,Blues,b\n1.wav,Jazz,c\n")
    assert [row.group for row in read_manifest(tmp_path / "m.csv", None)] == ["a", "a", "c"]
    (tmp_path / "m.csv").write_text("file,genre\n0.wav,hip hop\n./0.wav,Hip-Hop\n")
    assert len(read_manifest(tmp_path / "m.csv", None)) == 2
    (tmp_path / "m.csv").write_text("file,genre\n0.wav,Blues\n./0.wav,Jazz\n")
    assert "'Jazz' here and 'Blues' in line 2" in str(
        runner.invoke(app, ["evaluate", str(tmp_path / "m.csv")]).exception
    )
    (tmp_path / "m.csv").write_text("file,genre\n0.wav,Polka\n")
    refused = runner.invoke(app, ["evaluate", str(tmp_path / "m.csv")])
    assert "line 2" in str(refused.exception)


def test_models_list_show_and_doctor(env: Settings) -> None:
    shown = runner.invoke(app, ["models", "show", env.model, "--json"])
    card = json.loads(shown.stdout)
    assert card["name"] == "small"
    assert set(card) == keys_of("models show")
    assert runner.invoke(app, ["models", "show", env.model]).exit_code == 0
    listed = json.loads(runner.invoke(app, ["models", "list", "--json"]).stdout)
    assert listed["broken"] == {}
    assert set(listed) == keys_of("models list")
    checks = json.loads(runner.invoke(app, ["doctor", "--json"]).stdout)
    assert {"python", "torch", "device", "model", "cache"} <= {check["name"] for check in checks}
    assert all(check["fix"] for check in checks if not check["ok"])
    assert {frozenset(check) for check in checks} == {keys_of("doctor")}


def test_version_and_help() -> None:
    from acoustic import __version__

    assert runner.invoke(app, ["--version"]).stdout.strip() == __version__
    shown = runner.invoke(app, ["analyze", "--help"], env={"COLUMNS": "200"}).stdout
    for option in ("--json", "--top-k", "--segments", "--device", "--model", "--no-cache", "--denoise", "--rules"):
        assert option in shown


def test_doctor_survives_a_missing_library(env: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from acoustic.doctor import examine; from acoustic.settings import Settings\n"
        "checks = list(examine(Settings()))\n"
        "print([c.name for c in checks if not c.ok], all(c.fix for c in checks if not c.ok))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "['imports'] True", done.stderr


def test_a_command_loads_its_own_family_alone() -> None:
    code = (
        "import sys; from acoustic.cli import app\n"
        "app(['library', '--help'], standalone_mode=False)\n"
        "print(*(name for name in sys.modules if name.startswith('acoustic.cli.')), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.splitlines()[-1].split()) == {
        *("acoustic.cli.leaving", "acoustic.cli.library", "acoustic.cli.arguments", "False")
    }


def test_all_commands_are_listed_and_the_nearest_is_named() -> None:
    wide = {"COLUMNS": "200"}
    shown = runner.invoke(app, ["--help"], env=wide).stdout
    for command in ("analyze", "evaluate", "scan", "library", "tag", "train", "personal", "models", "doctor"):
        assert f" {command} " in shown
        of_its_own = runner.invoke(app, [command, "--help"], env=wide)
        assert of_its_own.exit_code == 0
        assert f" {command} [OPTIONS]" in of_its_own.stdout
    assert "'personal'" in runner.invoke(app, ["personl"], env=wide).stderr


def test_what_is_printed_last_reaches_a_pipe_and_a_pipe_that_is_closed_is_no_traceback() -> None:
    from acoustic import __version__

    args = [sys.executable, "-m", "acoustic", "--version"]
    done = subprocess.run(args, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"{__version__}\n"
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
