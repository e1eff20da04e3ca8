"""The scan through Ray Data, on a cluster of this machine; left out where Ray is not installed."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acoustic.errors import BackendError
from acoustic.settings import Settings
from acoustic.workstation import Workstation
from acoustic.workstation.cluster import check_installed
from acoustic.workstation.scanning import scan
from tests.test_engine import song
from tests.test_scanning import UNTRUSTED


def answers(settings: Settings) -> list[tuple]:
    sql = """
        SELECT path, state, error_code, error_message, title, digest, top_genre, confidence, probabilities, logits
        FROM files LEFT JOIN tracks t ON t.id = track_id LEFT JOIN analyses a USING (track_id)
        LEFT JOIN verdicts ON analysis_id = a.id ORDER BY path"""
    with sqlite3.connect(f"file:{settings.library_file()}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_gives_the_local_answers(cluster: None, fresh: Settings, tmp_path: Path) -> None:
    music = tmp_path / "music"
    (music / "deep").mkdir(parents=True)
    for i in range(10):
        song(music / ("deep" if i % 2 else ".") / f"{i}.{'flac' if i % 3 else 'wav'}", 9.0 + i / 2, seed=i)
    shutil.copy(music / "0.wav", music / "copy.wav")
    song(music / "kill.wav", 9, seed=40)
    (music / "text.mp3").write_text("this is no music at all")
    here = dataclasses.replace(fresh, data_dir=str(tmp_path / "here"), cache_dir=str(tmp_path / "cache-here"))
    with Workstation(here) as station:
        scan(station, music, functions=UNTRUSTED)
    with Workstation(fresh) as station:
        done = scan(station, music, engine="ray", functions=UNTRUSTED)
        assert (done.state, done.n_found, done.n_ok, done.n_errors) == ("done", 13, 11, 2)
        assert scan(station, music, engine="ray").n_unchanged == 13
    expected, found = answers(here), answers(fresh)
    assert [row[:7] for row in found] == [row[:7] for row in expected]
    assert [row[7] for row in found] == pytest.approx([row[7] for row in expected], abs=1e-5)
    with sqlite3.connect(fresh.library_file()) as connection:
        assert connection.execute("SELECT engine, state FROM scans").fetchall() == [("ray", "done")] * 2


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError) as caught:
        check_installed()
    assert "pip install" in caught.value.hint
