"""`acoustic personal ...` as a person meets it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acoustic.cli import app
from acoustic.doctor import examine
from acoustic.errors import AcousticError
from acoustic.library.store import Library
from acoustic.settings import Settings
from tests.documented import keys_of
from tests.test_cli import env, objects
from tests.test_engine import song

__all__ = ["env"]  # the fixture, used here by its name
runner = CliRunner()


def run(*arguments: str, status: int = 0) -> str:
    """What the command said, in all; stdout alone is what `out` gives."""
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == status, done.output
    return done.output


def out(*arguments: str, status: int = 0) -> str:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == status, done.output
    return done.stdout


def refused(*arguments: str) -> AcousticError:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, AcousticError), done.output
    assert done.exception.hint
    return done.exception


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = ["file,genre"]
    for i in range(3):
        song(tmp_path / f"f{i}.wav", 11.0 + i, i)
        song(tmp_path / f"j{i}.wav", 11.0 + i, 50 + i)
        rows += [f"f{i}.wav,{('Forró', 'forro', 'Forró')[i]}", f"j{i}.wav,jazz"]
    (tmp_path / "songs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "songs.csv"


def test_the_library_is_read_as_what_is_in_use(env: Settings, manifest: Path, tmp_path: Path) -> None:
    """Whatever puts it to use: what tags are written by is what is answered."""

    def read_with() -> set[str]:
        with Library(Path(env.data_dir) / "library.db") as library:
            rows = library.database.read(lambda c: c.execute("SELECT personal FROM verdicts").fetchall())
        return {row[0] for row in rows}

    out("scan", tmp_path)
    assert read_with() == {""}
    run("personal", "fit", manifest, "--yes")
    assert read_with() == {"1"}
    run("personal", "use", "none")
    assert read_with() == {""}
    run("personal", "undo")
    assert read_with() == {"1"}
    (Path(env.data_dir) / "personal" / "active.json").write_text('{"history": [null]}')  # by a process that died then
    out("tag", "--json")
    assert read_with() == {""}


def test_teach_accept_evaluate_undo(env: Settings, manifest: Path, tmp_path: Path) -> None:
    said = run("personal", "fit", manifest, "--yes")
    assert "6 songs: Jazz 3, Forró 3" in said
    assert "the model alone" in said
    assert "version 1 is in use" in said
    path = str(tmp_path / "f0.wav")
    [answer] = objects(out("analyze", path, "--json"))
    assert answer["personal"] == "1"
    assert answer["model"] == "small"
    assert "Forró" in answer["probabilities"]
    [alone] = objects(out("analyze", path, "--json", "--no-personal"))
    assert "personal" not in alone
    assert "Forró" not in alone["probabilities"]
    compared = json.loads(out("personal", "evaluate", manifest, "--json"))
    assert compared["n"] == 6
    assert set(compared) == keys_of("personal evaluate")
    (tmp_path / "own.csv").write_text("file,genre\nf0.wav,Forró\nj0.wav,Jazz\n", encoding="utf-8")
    measured = json.loads(out("evaluate", tmp_path / "own.csv", "--json"))
    assert "Forró" in measured["labels"]
    unknown = refused("evaluate", tmp_path / "own.csv", "--no-personal")
    assert "Forró" in unknown.message
    assert "the model answers alone" in run("personal", "undo")
    assert "personal" not in objects(out("analyze", path, "--json"))[0]
    assert "nothing to undo" in refused("personal", "undo").message


def test_the_taught_model_is_what_evaluate_measures(env: Settings, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "jazz.csv").write_text("file,genre\n" + "".join(f"j{i}.wav,Jazz\n" for i in range(3)))
    before = json.loads(out("evaluate", tmp_path / "jazz.csv", "--json", "--among", "Jazz,Blues"))
    run("personal", "fit", manifest, "--yes")
    after = json.loads(out("evaluate", tmp_path / "jazz.csv", "--json", "--among", "Jazz,Blues"))
    aside = json.loads(out("evaluate", tmp_path / "jazz.csv", "--json", "--among", "Jazz,Blues", "--no-personal"))
    assert after["nll"] < before["nll"]
    # the precision is measured at each start, and on a busy machine it is not the same twice
    assert aside["nll"] == pytest.approx(before["nll"], abs=5e-3)
    assert aside["accuracy"] == before["accuracy"]


def test_without_yes_and_without_a_person_nothing_is_put_to_use(env: Settings, manifest: Path) -> None:
    said = run("personal", "fit", manifest, "--name", "dance")
    assert "`acoustic personal use dance`" in said
    listed = json.loads(out("personal", "list", "--json"))
    assert set(listed) == keys_of("personal list")
    versions = listed["versions"]
    assert [(v["name"], v["active"], v["own"], v["n_songs"]) for v in versions] == [("dance", False, ["Forró"], 6)]
    assert "dance" in run("personal", "list")
    assert "dance is in use" in run("personal", "use", "dance")
    assert json.loads(out("personal", "list", "--json"))["versions"][0]["active"]
    assert "answers alone" in run("personal", "use", "none")
    assert "there already" in refused("personal", "fit", manifest, "--name", "dance").message


def test_doctor_says_what_is_in_use_and_why_it_cannot_be(env: Settings, manifest: Path) -> None:
    def checked() -> tuple[bool, str]:
        [check] = [c for c in examine(env) if c.name == "personal genres"]
        return check.ok, check.detail

    assert checked() == (True, "none taught")
    run("personal", "fit", manifest, "--name", "dance", "--yes")
    ok, detail = checked()
    assert ok
    assert "dance" in detail
    [weights] = (env.data_folder() / "personal" / "dance").glob("*.safetensors")
    weights.write_bytes(b"torn")
    ok, detail = checked()
    assert not ok
    assert "dance" in detail


@pytest.mark.parametrize(("said", "active"), [("y\n", True), ("n\n", False), ("\n", True)])
def test_a_person_is_asked(
    env: Settings, manifest: Path, monkeypatch: pytest.MonkeyPatch, said: str, active: bool
) -> None:
    monkeypatch.setattr("acoustic.cli.personal._someone_answers", lambda: True)
    done = runner.invoke(app, ["personal", "fit", str(manifest)], input=said)
    assert done.exit_code == 0, done.output
    assert "Use it from now on?" in done.output
    assert json.loads(out("personal", "list", "--json"))["versions"][0]["active"] is active


def test_fit_as_json_is_one_object_and_asks_nothing(env: Settings, manifest: Path) -> None:
    said = json.loads(out("personal", "fit", manifest, "--json"))
    assert (said["name"], said["active"]) == ("1", False)
    assert said["songs"] == {"Jazz": 3, "Forró": 3}
    assert set(said) == keys_of("personal fit")
    low, high = said["left_out"]["accuracy_after"]["interval_95"]
    assert low <= said["left_out"]["accuracy_after"]["value"] <= high
    assert said["failures"] == []


def test_a_bad_file_is_reported_and_the_rest_is_learned(env: Settings, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    with open(manifest, "a", encoding="utf-8") as stream:
        stream.write("text.wav,Jazz\n")
    said = run("personal", "fit", manifest, "--yes", status=1)
    assert "NOT_AUDIO" in said
    assert "version 1 is in use" in said
    assert "NOT_AUDIO" in run("personal", "evaluate", manifest, status=1)


def test_what_cannot_be_taught_is_refused(env: Settings, manifest: Path, tmp_path: Path) -> None:
    for rows, said in (
        ("f0.wav,\x1b[31m\n", "genre's name"),
        (f"f0.wav,{'x' * 61}\n", "genre's name"),
        ("nowhere.wav,Jazz\n", "line 2"),
        ("f0.wav,\n", "line 2"),
        ("", "no rows"),
        ("f0.wav,Forró\n", "background"),
    ):
        (tmp_path / "bad.csv").write_text("file,genre\n" + rows, encoding="utf-8")
        assert said in refused("personal", "fit", tmp_path / "bad.csv").message
    assert json.loads(out("personal", "list", "--json")) == {"versions": []}
    assert "no version" in refused("personal", "use", "1").message
    assert "no version is in use" in refused("personal", "evaluate", manifest).message


def test_out_and_in(env: Settings, manifest: Path, tmp_path: Path) -> None:
    run("personal", "fit", manifest, "--yes")
    run("personal", "export", "1", tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        assert sorted(archive.namelist()) == ["personal.json", "personal.safetensors"]
        text = archive.read("personal.json").decode()
    assert str(tmp_path) not in text
    assert "f0.wav" not in text
    assert "taken as version again" in run("personal", "import", tmp_path / "mine.zip", "--name", "again")
    run("personal", "use", "again")
    [answer] = objects(out("analyze", tmp_path / "f0.wav", "--json"))
    assert answer["personal"] == "again"
    assert "there already" in refused("personal", "import", tmp_path / "mine.zip").message


def test_a_damaged_version_is_said_and_the_model_answers_alone(env: Settings, manifest: Path, tmp_path: Path) -> None:
    run("personal", "fit", manifest, "--yes")
    (Path(env.data_dir) / "personal" / "1" / "personal.safetensors").write_bytes(b"")
    said = run("analyze", tmp_path / "f0.wav")
    assert "SHA-256" in said
    assert "the model answers alone" in said
    assert "SHA-256" in run("personal", "list", status=1)
    run("personal", "use", "none")
    assert "SHA-256" not in run("analyze", tmp_path / "f0.wav")


def test_a_genre_that_looks_like_markup_is_shown_as_it_is(env: Settings, manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text(encoding="utf-8").replace("Forró", "[red]<b>").replace("forro", "[red]<b>")
    manifest.write_text(text, encoding="utf-8")
    assert "[red]<b> 3" in run("personal", "fit", manifest, "--yes")
    assert "[red]<b>" in run("analyze", tmp_path / "f0.wav", "--top-k", "3") + run("analyze", tmp_path / "f1.wav")
    (tmp_path / "own.csv").write_text("file,genre\nf0.wav,[red]<b>\nj0.wav,Jazz\n", encoding="utf-8")
    assert "[red]<b>" in run("evaluate", tmp_path / "own.csv")
    assert "[red]<b>" in run("personal", "evaluate", tmp_path / "own.csv")
    assert "[red]<b>" in run("personal", "list")
