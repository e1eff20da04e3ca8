"""The Library tab as a person uses it, in headless Chromium: nothing asked of others, nothing on the console."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from chromium import DESKTOP, IN_CHROMIUM, PHONE, listen, new_context
from library_site import NASTY, MadeScan, Workstation, build, songs_in

from acoustic.kept import TrackFilter
from acoustic.library.store import Library
from acoustic.settings import Settings
from tests.made_library import decide, fill

pytestmark = IN_CHROMIUM
N_SONGS = 160
TEXT, FOLDER = "#library-text input", "#library-folder input"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    from acoustic import ui

    library = Library(folder / "library.db")
    fill(library, songs_in(folder / "music", N_SONGS), [(b"/x/bad <b>notes.mp3", "NOT_AUDIO", "it is <i>text</i>")])
    decide(library, 20, "Forró")
    scan = MadeScan(library, n=12)
    page = build(Workstation(folder, library), folder / "uploads", scan)
    _, url, _ = page.launch(**ui.launch_arguments(Settings(port=0)), prevent_thread_lock=True)
    yield SimpleNamespace(url=url, library=library, scan=scan, folder=folder)
    page.close()
    library.close()
    patch.undo()


@pytest.fixture(scope="module")
def opened(browser, site):
    complaints = []

    def open_page(viewport=DESKTOP, scheme="light"):
        page = new_context(browser, viewport, scheme).new_page()
        listen(page, site.url, complaints)
        page.on("dialog", lambda d: (complaints.append(f"dialog: {d.message}"), d.dismiss()))
        page.goto(site.url)
        page.locator("button[role=tab]:visible", has_text="Library").first.click()
        page.wait_for_selector("tr[data-id]")
        page.wait_for_selector("canvas[data-drawn]:not([data-drawn='0'])")
        return page

    opened = SimpleNamespace(page=open_page(), open=open_page, complaints=complaints)
    yield opened
    for context in browser.contexts:
        context.close()


@pytest.fixture
def page(opened):
    """The shared page with nothing filtered, selected or chosen."""
    page = opened.page
    page.set_viewport_size(DESKTOP)
    for what in ("reset", "drop", "forget", "close"):
        for control in page.locator(f"[data-do={what}]:visible").all():
            control.click()
            control.wait_for(state="detached")
    n = n_songs(page)
    shown(page, f"{n} songs")
    yield page
    assert opened.complaints == []


def n_songs(page) -> int:
    return int(page.locator(".as-tile[data-value=all] strong").inner_text())


def shown(page, words: str) -> None:
    page.wait_for_function("(w) => document.querySelector('#library-summary').innerText.includes(w)", arg=words)


def names(page) -> list[str]:
    return page.locator("tr[data-id] .as-pick").all_inner_texts()


def place_of(page, track_id: int) -> tuple[float, float]:
    canvas = page.locator("#library-map canvas")
    canvas.scroll_into_view_if_needed()
    x, y = page.evaluate("(id) => document.querySelector('#library-map canvas').placeOf(id)", track_id)
    box = canvas.bounding_box()
    return box["x"] + x, box["y"] + y


def id_of(site, text: str) -> int:
    return site.library.catalogue.ids(TrackFilter(text=text))[0]


def test_the_table_sorts_and_turns_its_pages(page):
    page.locator("[data-do=sort][data-value=title]").click()
    page.wait_for_selector("th.as-c-song[aria-sort=ascending]")
    first = names(page)
    assert first == sorted(first, key=str.casefold)
    page.get_by_label("Next page").click()
    page.wait_for_function("document.querySelector('.as-pager').innerText.includes('Page 2')")
    assert names(page)[0].casefold() >= first[-1].casefold()
    page.locator("[data-do=sort][data-value=added]").click()
    page.wait_for_function("document.querySelector('.as-pager').innerText.includes('Page 1')")


def test_hostile_names_stand_there_as_text(page, site):
    page.fill(TEXT, "nasty")
    shown(page, f"{len(NASTY)} songs match")
    assert "<img src=x onerror=alert(1)>" in names(page)
    assert "\ufffdexe.gnp\ufffd" in names(page)
    assert page.locator("#library img, #library script").count() == 0
    page.mouse.move(*place_of(page, id_of(site, "script")))
    page.wait_for_selector(".as-map-tip:not([hidden])")
    assert page.locator(".as-map-tip-artist").inner_text() == "<script>alert(2)</script>"
    page.mouse.move(5, 5)
    page.wait_for_selector(".as-map-tip", state="hidden")


def test_a_genre_and_a_confidence_are_filters_at_a_click(page, site):
    page.locator(".as-genre-bar[data-value='Forró']").click()
    shown(page, "1 song match")
    page.wait_for_function("document.querySelector('#library-genre input').value === 'Forró'")
    page.wait_for_function("document.querySelectorAll('.as-genre-bar').length === 1")
    page.locator(".as-genre-bar[data-value='Forró']").click()
    shown(page, f"{n_songs(page)} songs")
    page.wait_for_function("document.querySelectorAll('.as-genre-bar').length > 10")
    page.locator(".as-bin[data-value='8']").click()
    n = site.library.catalogue.stats(TrackFilter(min_confidence=0.8, max_confidence=0.9)).n_tracks
    shown(page, f"{n} songs match")
    assert page.locator("#library-low input").input_value() == "80"


def test_every_tick_counts_though_the_server_is_slower_than_the_hand(page, site, monkeypatch):
    catalogue = site.library.catalogue
    look = catalogue.page

    def slow(*args, **more):
        time.sleep(0.4)
        return look(*args, **more)

    monkeypatch.setattr(catalogue, "page", slow)
    page.evaluate(
        """async () => { for (const i of [0, 1, 2, 3, 4]) {
             document.querySelectorAll('tr[data-id] input')[i].click();
             await new Promise((soon) => setTimeout(soon, 80)); } }"""
    )
    shown(page, "5 selected")
    page.wait_for_function("document.querySelectorAll('tr[data-id] input:checked').length === 5")


def test_a_number_out_of_bounds_is_taken_as_the_nearest(page):
    for control, value in (("low", "-20"), ("high", "300")):
        page.fill(f"#library-{control} input", value)
        page.keyboard.press("Tab")
    page.fill("#library-low input", "140")
    shown(page, "match")
    assert page.locator(".toast-wrap .toast-body").count() == 0
    page.fill("#library-low input", "0")
    shown(page, f"{n_songs(page)} songs")


def test_failed_files_say_why(page):
    page.locator(".as-tile[data-value=errors]").click()
    page.wait_for_selector("tr.as-failed")
    words = page.locator("tr.as-failed").inner_text()
    assert "bad <b>notes.mp3" in words
    assert "This is not an audio file. It is <i>text</i>. Choose a music file." in words


def test_a_point_of_the_map_plays_its_song(page, site):
    page.mouse.click(*place_of(page, 1))
    page.wait_for_selector(".as-now-playing[data-id='1']")
    page.wait_for_function("document.querySelector('#library-player audio').currentTime > 0.1")
    bar = page.locator(".as-now-playing").bounding_box()
    assert 0 <= bar["y"] <= bar["y"] + bar["height"] <= DESKTOP["height"]  # wherever the page is scrolled to
    before = page.evaluate("document.querySelector('#library-player audio').currentTime")
    page.locator("tr[data-id] input").first.click()  # the song goes on while other things are done
    shown(page, "1 selected")
    assert page.evaluate("document.querySelector('#library-player audio').currentTime") >= before
    page.mouse.click(*place_of(page, 2))
    page.wait_for_selector(".as-now-playing[data-id='2']")
    page.wait_for_function("!document.querySelector('#library-player audio').paused")


def test_a_lasso_selects_and_the_selection_can_be_taken_along(page, site):
    target = place_of(page, 30)
    page.mouse.move(target[0] - 12, target[1] - 12)
    page.mouse.down()
    for dx, dy in ((12, -12), (12, 12), (-12, 12), (-12, -11)):
        page.mouse.move(target[0] + dx, target[1] + dy, steps=3)
    page.mouse.up()
    page.wait_for_selector(".as-n-selected")
    n = int(page.locator(".as-n-selected").inner_text().split()[0])
    page.locator("[data-do=only]").click()
    shown(page, "of the selection")
    ids = [int(row.get_attribute("data-id")) for row in page.locator("tr[data-id]").all()]
    assert 30 in ids
    assert len(ids) == n
    assert page.locator("tr[data-id] input:checked").count() == n
    with page.expect_download() as download:
        page.locator("#library-playlist").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename == "playlist.m3u8"
    assert text.count("#EXTINF") == n
    with page.expect_download() as download:
        page.locator("#library-csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"), newline="")))
    assert len(rows) == n
    page.locator("#library-alike").click()
    page.wait_for_function("document.querySelectorAll('.as-similar li').length === 12")


def test_more_like_this_finds_the_same_genre(page, site):
    page.locator("tr[data-id] [data-do=choose]").first.click()
    page.wait_for_selector(".as-now-playing")
    chosen = int(page.locator(".as-now-playing").get_attribute("data-id"))
    page.locator(".as-now-more").click()
    page.wait_for_function("document.querySelectorAll('.as-similar li').length === 12")
    expected = [site.library.catalogue.track(i).name for i, _ in site.library.neighbours.nearest([chosen], 12)]
    assert page.locator(".as-similar-words strong").all_inner_texts() == expected


def test_two_pages_see_one_scan_which_can_be_stopped(opened, page, site):
    other = opened.open()
    n = n_songs(page)
    site.scan.go.clear()
    page.fill(FOLDER, "/new/<b>music")
    page.locator("#library-scan").click()
    for one in (page, other):
        one.wait_for_function("document.querySelector('#library-scan-status').innerText.includes('/new/<b>music')")
    other.locator("#library-stop").click()
    other.wait_for_function("document.querySelector('#library-stop').disabled")
    site.scan.go.set()
    for one in (page, other):
        one.wait_for_function("document.querySelector('#library-scan-status').innerText.includes('Stopped')")
    page.fill(FOLDER, "/newer")
    page.locator("#library-scan").click()
    for one in (page, other):
        one.wait_for_function("document.querySelector('#library-scan-status').innerText.includes('12 analysed')")
        one.wait_for_function("(n) => Number(document.querySelector('.as-tile strong').innerText) === n", arg=n + 12)
    assert site.scan.folders[-2:] == ["/new/<b>music", "/newer"]
    other.context.close()


def test_tags_are_written_after_a_dry_run_and_taken_back(page):
    page.locator("#library-tags > button").click()
    page.locator("#tags-plan").click()
    page.wait_for_selector("#tags-told .as-plan")
    assert "would be written" in page.locator("#tags-told .as-summary").inner_text()
    page.wait_for_selector("#tags-write:enabled")
    page.fill("#tags-percent input", "130")
    page.wait_for_selector("#tags-write:disabled")  # that is no longer what was tried
    page.locator("#tags-plan").click()
    page.wait_for_function("document.querySelector('#tags-told').innerText.includes('it is a share from 0 to 1')")
    page.fill("#tags-percent input", "70")
    page.locator("#tags-plan").click()
    page.wait_for_selector("#tags-write:enabled")
    words = page.locator("#tags-write").inner_text()
    page.locator("#tags-write").click()
    page.wait_for_function("document.querySelector('#tags-told').innerText.includes(' written')")
    page.locator("#tags-undo").click()
    page.wait_for_function("document.querySelector('#tags-told').innerText.includes('put back')")
    assert words.removeprefix("Write ") in page.locator("#tags-told").inner_text()
    page.locator("#library-tags > button").click()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_runs_out_of_the_window(page, viewport):
    page.set_viewport_size(viewport)
    finder = """(width) => [...document.querySelectorAll('html, h1, h3, #library button, audio, canvas, .as-card')]
        .filter((e) => e.getClientRects().length && !e.closest('thead'))
        .filter((e) => Math.max(e.getBoundingClientRect().right, e.matches('html') && e.scrollWidth) > width + 0.5)
        .map((e) => e.outerHTML.slice(0, 200))"""
    deadline = time.monotonic() + 20
    while (cut_off := page.evaluate(finder, viewport["width"])) and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    assert cut_off == []


def test_every_control_has_a_name(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('#library :is(button, audio, [role=img], [role=progressbar], input)')]
             .filter((e) => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText || e.labels?.length))
             .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
