"""The page as it is served, with the embedded model: a folder is scanned, a song decided by key, what was decided is
there, and the songs' own files are as they were."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import IN_CHROMIUM, leave, listen, new_context, reload

from acoustic import ui
from acoustic.settings import Settings
from acoustic.workstation import Workstation
from acoustic.workstation.settling import settle
from tests.makers import music, noise, write

pytestmark = IN_CHROMIUM


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workstation]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    settings = Settings(cache_dir=str(tmp_path / "cache"), data_dir=str(tmp_path / "data"), decode_workers=1)
    with Workstation(settings) as made:
        yield made


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    write(folder / "one.wav", music(14, seed=1))
    write(folder / "two.wav", music(12, seed=2))
    write(folder / "hiss.wav", noise(12))
    (folder / "bad.mp3").write_text("<html>not a song</html>")
    return folder


def test_scan_review_and_find_again(browser: Any, station: Workstation, songs: Path) -> None:
    before = {path: path.read_bytes() for path in songs.iterdir()}
    page = ui.build(station)
    _, url, _ = page.launch(**ui.launch_arguments(Settings(port=0, open_browser=False)), prevent_thread_lock=True)
    complaints: list[str] = []
    context = new_context(browser)
    view = context.new_page()
    listen(view, url, complaints)
    view.goto(url)
    view.get_by_role("tab", name="Library").click()
    view.locator("#library-folder input, #library-folder textarea").first.fill(str(songs))
    view.locator("#library-scan").click()
    view.wait_for_function("document.querySelector('#library-tiles').innerText.match(/3\\s*songs/)")
    view.get_by_role("tab", name="Review").click()
    view.wait_for_function(
        "document.querySelectorAll('#review-main .rv-top button').length == 3 "
        "|| document.querySelector('#review-main').innerText.includes('hiss')"
    )
    view.route("**/component_server/**", lambda route: route.abort())  # nothing arrives any more
    view.keyboard.press("n")
    view.wait_for_selector(".rv-saved.rv-late")
    view.unroute("**/component_server/**")
    reload(view, complaints)  # what was left unsent opens its tab and is sent, though nobody asks for it
    complaints[:] = [said for said in complaints if not said.endswith("net::ERR_FAILED")]
    until = time.monotonic() + 60
    while not station.library.decisions.history() and time.monotonic() < until:
        view.wait_for_timeout(200)
    said = leave([context], complaints)
    page.close()
    [decision] = station.library.decisions.history()
    assert decision.kind == "not_music"
    stats = station.library.catalogue.stats()
    assert (stats.n_tracks, stats.n_errors, stats.n_decided) == (3, 1, 1)
    assert {path: path.read_bytes() for path in songs.iterdir()} == before
    assert said == []


def test_what_is_left_half_done_never_stops_the_page(station: Workstation, monkeypatch: pytest.MonkeyPatch) -> None:
    from acoustic.errors import TagError

    assert settle(station) is None

    def busy() -> None:
        raise TagError("another program writes tags")

    monkeypatch.setattr(station.library.tagging, "recover", busy)
    problem = settle(station)
    assert problem is not None
    assert problem.code == "TAGS"
