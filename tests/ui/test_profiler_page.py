"""The Profiler tab as a person uses it, in headless Chromium, while real songs are analysed."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from chromium import DESKTOP, IN_CHROMIUM, PHONE, listen, new_context
from profiler_site import NASTY, Work, launch, page, songs_in, station

from acoustic.workstation.scanning import scan
from tests.test_engine import song

pytestmark = IN_CHROMIUM
POLLS = "Number(document.querySelector('.pf').dataset.polls || 0)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiler")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    workstation = station(folder)
    songs = songs_in(folder / "music", 3)
    list(workstation.analyze(songs))
    blocks = page(workstation)
    yield SimpleNamespace(url=launch(blocks), workstation=workstation, songs=songs)
    blocks.close()
    workstation.close()
    patch.undo()


@pytest.fixture(scope="module")
def opened(browser, site):
    complaints = []

    def open_page(viewport=DESKTOP, scheme="light"):
        context = new_context(browser, viewport, scheme)
        view = context.new_page()
        listen(view, site.url, complaints)
        view.on("dialog", lambda d: (complaints.append(f"dialog: {d.message}"), d.dismiss()))
        view.goto(site.url)
        view.wait_for_selector(".pf-bar")
        return view

    opened = SimpleNamespace(view=open_page(), open=open_page, complaints=complaints)
    yield opened
    for context in browser.contexts:
        context.close()


@pytest.fixture
def view(opened):
    opened.view.set_viewport_size(DESKTOP)
    yield opened.view
    assert opened.complaints == []


def n_songs(view) -> int:
    return int(
        view.evaluate("document.querySelector('.pf-told').textContent.match(/([\\d,]+) song/)[1].replace(',', '')")
    )


def test_it_is_live_while_work_runs(view, site):
    before = n_songs(view)
    with Work(site.workstation, site.songs):
        view.wait_for_function(
            "(n) => Number(document.querySelector('.pf-told').textContent.match(/([\\d,]+) song/)[1]) > n + 2",
            arg=before,
        )
        view.wait_for_selector(".pf-busy")
        polls, began = view.evaluate(POLLS), time.monotonic()
        view.wait_for_function(f"(n) => {POLLS} >= n + 4", arg=polls)
        assert time.monotonic() - began > 2.5  # each second, not as fast as the program can
    assert view.locator(".pf-bar").count() > 4
    assert view.locator("[data-tile=throughput]").inner_text() != "0.0"
    assert re.search(r"\d (MB|GB)", view.locator("[data-now=memory]").inner_text())
    assert re.search(r"core 0 \d+ %|All cores \d+ %", view.locator("[data-now=cpu]").inner_text())
    assert view.locator("[data-chart=memory] path.pf-curve").count() >= 1


def test_a_scan_shows_its_songs_and_its_workers(view, site, tmp_path):
    folder = tmp_path / "scanned"
    songs_in(folder, 5)
    before = n_songs(view)
    failed = []

    def scanned():
        try:
            scan(site.workstation, folder)
        except Exception as error:  # a thread's error would only be printed
            failed.append(error)

    thread = threading.Thread(target=scanned)
    thread.start()
    view.wait_for_function("document.querySelector('[data-now=memory]').textContent.includes('of its own')")
    view.wait_for_function(
        "(n) => Number(document.querySelector('.pf-told').textContent.match(/([\\d,]+) song/)[1]) > n", arg=before
    )
    thread.join(300)
    assert (thread.is_alive(), failed) == (False, [])


def steady_polls(view):
    """The count once it has stood still for longer than the page ever waits: what was under way has come."""
    until, count = time.monotonic() + 60, -1
    while count != (count := view.evaluate(POLLS)):
        assert time.monotonic() < until
        view.wait_for_timeout(4000)
    return count


def test_nothing_is_asked_while_it_is_not_seen(view, site):
    view.get_by_role("tab", name="Other").click()
    view.wait_for_selector("#notes textarea, #notes input")
    polls = steady_polls(view)
    with Work(site.workstation, site.songs):
        view.wait_for_timeout(6000)
    assert view.evaluate(POLLS) == polls
    view.get_by_role("tab", name="Profiler").click()
    view.wait_for_function(f"(n) => {POLLS} > n", arg=polls)


def test_nobody_reads_the_machine_when_all_have_left(opened, site):
    view = opened.open()
    view.wait_for_selector("[data-chart=cpu] path.pf-curve", state="attached")  # a flat line has no height
    view.context.close()
    opened.view.get_by_role("tab", name="Other").click()
    until = time.monotonic() + 60
    while any(thread.name == "resources" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.2)
    opened.view.get_by_role("tab", name="Profiler").click()
    opened.view.wait_for_selector(".pf-bar")


def test_a_hostile_name_is_text(view, site):
    site.workstation.classifier.analyze(site.songs[-1])
    view.wait_for_function(
        "(name) => [...document.querySelectorAll('.pf-bar title')].some((t) => t.textContent.includes(name))", arg=NASTY
    )
    assert view.locator("#profiler img, #profiler script").count() == 0
    option = view.locator(".pf-run option", has_text="onerror").first
    view.locator(".pf-run").select_option(option.get_attribute("value"))
    view.wait_for_function(
        "(name) => document.querySelector('[data-chart=waterfall] svg').getAttribute('aria-label').includes(name)",
        arg=NASTY,
    )
    assert view.locator("#profiler img").count() == 0


def test_a_bar_chooses_the_song_of_the_waterfall(view, site):
    bar = view.locator(".pf-bar").first
    number = bar.get_attribute("data-run")
    bar.locator(".pf-hit").click()
    view.wait_for_selector(f".pf-bar.pf-chosen-bar[data-run='{number}']")
    assert view.locator(".pf-run").input_value() == number
    run = next(run for run in site.workstation.classifier.profiler.runs() if run.number == int(number))
    view.wait_for_function(
        "(n) => document.querySelectorAll('[data-chart=waterfall] rect').length === n", arg=len(run.spans)
    )
    view.locator(".pf-run").select_option("0")


def test_the_downloads_open(view, site):
    with view.expect_download() as download:
        view.locator("[data-export=trace]").click()
    said = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert download.value.suggested_filename == "acousticsense-trace.json"
    songs = {e["args"]["file"] for e in said["traceEvents"] if e.get("cat") == "song"}
    assert str(site.songs[-1]) in songs
    assert {e["ph"] for e in said["traceEvents"]} == {"M", "X", "C"}
    with view.expect_download() as download:
        view.locator("[data-export=csv]").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert str(site.songs[-1]) in [row["file"] for row in csv.DictReader(io.StringIO(text, newline=""))]


def wait_polls(view, n=2):
    view.wait_for_function(f"(n) => {POLLS} >= n", arg=view.evaluate(POLLS) + n)


def test_what_is_compiled_is_shown_where_there_is_any(view, site, monkeypatch):
    wait_polls(view)
    assert view.locator(".pf-compile").is_hidden()
    assert view.locator(".pf-made").is_hidden()
    measured = {"first_ms": 21000.0, "eager_ms": 30.52, "compiled_ms": 20.2, "cosine": 0.99999}
    sizes = {
        "1": {"state": "ready", "n_calls": 1234, **measured},
        "3": {"state": "failed", "n_calls": 0},
        "8": {"state": "<i>", "n_calls": 0},
    }
    told = {
        "name": "compiled",
        "device": "cpu",
        "precision": "bfloat16",
        "chosen": "as it was asked for",
        "state": "compiling",
        "measured_at": "2026-03-07T22:15:00",
        "compiled": {"sizes": sizes, "error": NASTY},
        "graphs": {"sizes": [1, 4], "error": None},
    }
    with monkeypatch.context() as patch:
        patch.setattr(site.workstation.classifier.backend, "describe", lambda: told)
        view.wait_for_selector(".pf-compile:visible")
        assert view.locator(".pf-backend .pf-badge").inner_text() == "still compiling"
        assert view.locator(".pf-chosen").inner_text() == "As it was asked for. Measured on 2026-03-07."
        rows = [row.split("\t") for row in view.locator(".pf-compiled tbody").inner_text().split("\n")]
        assert rows == [
            ["1 segment", "ready", "21000.0", "30.5", "20.2", "0.99999", "1,234"],
            ["up to 3 segments", "failed", "–", "–", "–", "–", "0"],
            ["up to 8 segments", "<i>", "–", "–", "–", "–", "0"],
        ]
        said = view.locator(".pf-made").inner_text()
        recorded, failed = "CUDA graphs are recorded for batches of 1, 4.", "A compiled graph failed, and eager answers"
        assert said == f"{recorded} {failed} instead: {NASTY}."
        assert view.locator("#profiler :is(img, i)").count() == 0
    view.wait_for_selector(".pf-compile", state="hidden")


def of_request(name, request):
    return json.loads(request.post_data)["fn_name"] == f"profiler_{name}"


def lose(page, *names):
    """Answers to these requests do not arrive until the function that is returned is called."""

    def handle(route):
        if any(of_request(name, route.request) for name in names):
            route.abort()
        else:
            route.fallback()

    page.route("**/component_server/**", handle)
    return lambda: page.unroute("**/component_server/**", handle)


@pytest.fixture
def alone(browser, site):
    """A page of its own whose console may tell of lost requests, though not of errors in the script."""
    context = new_context(browser)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda e: errors.append(e.stack))
    yield page
    context.close()
    assert errors == []


WATERFALL = "document.querySelector('[data-chart=waterfall]')"


def test_a_waterfall_is_of_its_own_song_or_of_none(alone, site):
    alone.goto(site.url)
    alone.wait_for_selector("[data-chart=waterfall] svg")
    shown = site.workstation.classifier.profiler.runs()[-40:]
    (before, its_number), (name, number) = list({Path(run.label).name: run.number for run in shown}.items())[:2]
    alone.locator(".pf-run").select_option(str(its_number))
    alone.wait_for_function(
        f"(name) => {WATERFALL}.querySelector('svg').getAttribute('aria-label').includes(name)", arg=before
    )
    found = lose(alone, "spans")
    alone.locator(".pf-run").select_option(str(number))
    alone.wait_for_function(f"{WATERFALL}.textContent.includes('Asking again')")
    for _ in range(2):  # what is drawn with new numbers is not the song before under this one's name
        wait_polls(alone, 1)
        assert alone.locator("[data-chart=waterfall] svg").count() == 0
    found()
    alone.wait_for_function(
        f"(name) => {WATERFALL}.querySelector('svg')?.getAttribute('aria-label').includes(name)", arg=name
    )
    assert not alone.evaluate(f"{WATERFALL}.classList.contains('pf-before')")


def test_a_request_that_is_lost_is_told_and_may_be_tried_again(alone, site):
    found = lose(alone, "state", "compare", "stop")
    alone.goto(site.url)
    alone.wait_for_selector(".pf[data-polls]")
    alone.locator(".pf-go").click()  # before the first numbers have come
    alone.wait_for_function("document.querySelector('.pf-progress.pf-failed')?.textContent.includes('No answer')")
    assert alone.locator(".pf-go").is_enabled()
    alone.evaluate("document.querySelector('[data-do=stop]').click()")
    alone.wait_for_timeout(500)
    found()
    alone.wait_for_selector(".pf-bar")
    assert "No answer" in alone.locator(".pf-progress").inner_text()
    found = lose(alone, "export")
    alone.locator("[data-export=csv]").click()
    alone.wait_for_function("document.querySelector('.pf-notice').textContent.includes('No answer')")
    found()
    alone.locator("[data-way=second] [name=n_segments]").fill("2")
    alone.locator("[data-way=first] [name=backend]").select_option("eager")
    alone.locator(".pf-go").click()
    alone.wait_for_selector(".pf-verdict")
    assert alone.locator(".pf-progress").inner_text() == ""


@pytest.fixture
def albums(tmp_path, site):
    """Two songs of one name, just analysed."""
    paths = [tmp_path / "music" / album / "01.wav" for album in ("Album A", "Album B")]
    for path in paths:
        path.parent.mkdir(parents=True)
        site.workstation.classifier.analyze(song(path, 12.0, seed=paths.index(path) + 70))
    return paths


def test_the_chosen_song_stays_chosen_while_others_come(view, site, albums):
    view.wait_for_function("document.querySelector('.pf-song').textContent.includes('01.wav – Album A')")
    options = view.locator(".pf-song option").all_inner_texts()
    assert {"01.wav – Album A", "01.wav – Album B", "the demo clip"} < set(options)
    assert len(options) == len(set(options))
    choose = view.locator(".pf-song select")
    choose.select_option(label="01.wav – Album A")
    choose.evaluate("(select) => select.blur()")
    numbers = [run.number for run in site.workstation.classifier.profiler.runs()]
    others = [song(albums[0].with_name(f"other {i}.wav"), 12.0, seed=90) for i in range(14)]  # one sound: quickly known
    list(site.workstation.analyze(others))
    view.wait_for_function(
        "(name) => document.querySelector('.pf-song').textContent.includes(name)", arg=others[-1].name
    )
    assert choose.input_value() == str(albums[0])  # though it is no longer among the newest
    with view.expect_request(lambda r: "component_server" in r.url and of_request("compare", r)) as asked:
        view.locator(".pf-go").click()
    number = json.loads(asked.value.post_data)["data"]["song"]
    assert number in numbers
    assert site.workstation.classifier.profiler.runs(number - 1)[0].label == str(albums[0])
    view.locator("[data-do=stop]").click()
    view.wait_for_selector("[data-do=stop]", state="hidden")
    choose.select_option(label="the demo clip")


def test_what_if(view, site):
    view.locator(".pf-song select").select_option(label="the demo clip")
    view.locator("[data-way=first] [name=n_segments]").fill("3")
    view.locator("[data-way=second] [name=n_segments]").fill("1")
    view.locator("[data-way=second] [name=denoise]").check()
    view.locator(".pf-go").click()
    view.wait_for_function("document.querySelector('.pf-progress').textContent.startsWith('Comparing')")
    view.wait_for_selector(".pf-verdict")
    words = view.locator(".pf-result").inner_text()
    assert "The second way" in words
    assert "1 segment, denoised" in words
    assert "demo.ogg" in words
    assert view.locator(".pf-compared tr.pf-total").count() == 1
    assert view.locator(".pf-go").is_enabled()


def test_a_way_that_is_not_here_is_said_in_words(view):
    view.locator("[data-way=second] [name=backend]").select_option("tensorrt")
    view.locator(".pf-go").click()
    view.wait_for_selector(".pf-progress.pf-failed:not(:empty)")
    view.locator("[data-way=second] [name=backend]").select_option("auto")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_runs_out_of_the_window(view, viewport):
    view.set_viewport_size(viewport)
    finder = """(width) => [...document.querySelectorAll(
            'html, h3, #profiler :is(button, select, input, svg, .as-card, .pf-tile)')]
        .filter((e) => e.getClientRects().length)
        .filter((e) => Math.max(e.getBoundingClientRect().right, e.matches('html') && e.scrollWidth) > width + 0.5)
        .map((e) => e.outerHTML.slice(0, 200))"""
    until = time.monotonic() + 20
    while (cut_off := view.evaluate(finder, viewport["width"])) and time.monotonic() < until:
        view.wait_for_timeout(200)
    assert cut_off == []


def test_every_control_and_picture_has_a_name(view):
    nameless = view.evaluate(
        """() => [...document.querySelectorAll('#profiler :is(button, [role=img], [role=region], input, select)')]
             .filter((e) => e.getClientRects().length)
             .filter((e) => !(e.getAttribute('aria-label') || e.innerText || e.labels?.length))
             .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_stages_have_one_colour_each_in_both_themes(view, dark):
    view.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    colours = view.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.pf-line .pf-legend .pf-key')]
             .map((e) => [e.className.match(/pf-c-(\\w+)/)[1], getComputedStyle(e).backgroundColor]))"""
    )
    bars = view.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('[data-chart=stacked] rect[class^=pf-c-]')]
             .map((e) => [e.getAttribute('class').slice(5), getComputedStyle(e).fill]))"""
    )
    view.evaluate("document.body.classList.remove('dark')")
    assert len(set(colours.values())) == len(colours) >= 8
    assert {"load_audio", "inference"} <= set(bars)
    assert all(colours[stage] == colour for stage, colour in bars.items())
