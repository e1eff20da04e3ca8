"""The page as a person uses it, in headless Chromium: nothing asked of any other machine, nothing on the console."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from chromium import DESKTOP, IN_CHROMIUM, PATIENCE_MS, PHONE, leave, listen, new_context, reload
from workstation_double import HELD_S, WorkstationDouble, clip

from acoustic.settings import PROJECT_ROOT, Settings

NAMES = ("Night train.ogg", "review =SUM(1)<img src=x onerror=alert(1)>.ogg", "bad <b>notes.ogg")

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page served in this process over the double, with an upload folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    from acoustic import ui

    workstation = WorkstationDouble(folder)
    page = ui.build(workstation)
    _, url, _ = page.launch(**ui.launch_arguments(Settings(port=0)), prevent_thread_lock=True)
    yield SimpleNamespace(url=url, workstation=workstation, uploads=folder / "uploads")
    page.close()
    patch.undo()


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    return [str(clip(folder / name, 40.0 + 10 * i)) for i, name in enumerate(NAMES)]


class Visitor:
    """Opens pages and notes whatever they ask of others or complain about."""

    def __init__(self, browser, url: str) -> None:
        self.browser, self.url = browser, url
        self.complaints: list[str] = []
        self.contexts = []

    def __call__(self, viewport=DESKTOP, scheme="light", prepare=lambda page: None):
        context = new_context(self.browser, viewport, scheme)
        self.contexts.append(context)
        page = context.new_page()
        listen(page, self.url, self.complaints)
        prepare(page)
        page.goto(self.url)
        page.wait_for_selector("#drop input[type=file]", state="attached")
        return page

    def close(self) -> list[str]:
        return leave(self.contexts, self.complaints)


@pytest.fixture
def visit(browser, site):
    visitor = Visitor(browser, site.url)
    yield visitor
    assert visitor.close() == []


@pytest.fixture(scope="module")
def answered_visitor(browser, site, songs):
    """One page with three answered files, shared by tests that only look around on it."""
    visitor = Visitor(browser, site.url)
    page = visitor()
    drop_and_wait(page, songs)
    wait_for_pictures(page, 40.0)
    wait_for_descriptors(page)
    yield SimpleNamespace(page=page, complaints=visitor.complaints)
    visitor.close()


@pytest.fixture
def answered(answered_visitor):
    """The shared page with its first file chosen and drawn."""
    page = answered_visitor.page
    page.locator("tr[data-index='0'] button").click()
    page.wait_for_function("(name) => document.querySelector('.as-eyebrow')?.textContent === name", arg=NAMES[0])
    wait_for_pictures(page, 40.0)
    yield page
    assert answered_visitor.complaints == []


def drop(page, files) -> None:
    page.set_input_files("#drop input[type=file]", files)


def drop_and_wait(page, songs) -> None:
    drop(page, songs)
    page.wait_for_function(f"document.querySelector('.as-summary')?.textContent.startsWith('{len(songs)} of')")
    page.wait_for_selector(".as-verdict")


def wait_for_pictures(page, duration_s: float) -> None:
    """Until the spectrogram of the track of this length is drawn, and the timings."""
    page.wait_for_function(
        """(duration) => {
             const track = document.querySelector('#track-plot .js-plotly-plot[data-dressed]');
             return track && Math.abs(track.layout?.meta.duration_s - duration) < 0.1
               && track.querySelector('.heatmaplayer image') && document.querySelector('#timings-plot .bars path');
           }""",
        arg=duration_s,
    )


def wait_for_descriptors(page) -> None:
    page.wait_for_function("document.querySelector('#descriptors').innerText.includes('118 BPM')")


def test_every_file_gets_its_row_and_the_first_its_verdict(answered):
    rows = answered.locator("table.as-files tbody tr")
    assert [rows.nth(i).locator(".as-pick").inner_text() for i in range(3)] == list(NAMES)
    assert "Jazz" in rows.nth(0).inner_text()
    assert "Needs review" in rows.nth(1).inner_text()
    assert "This is not an audio file" in rows.nth(2).inner_text()
    assert "Choose a music file" in rows.nth(2).inner_text()
    verdict = answered.locator(".as-verdict").inner_text()
    for words in (NAMES[0], "Jazz", "81 %", "No review needed", "Only Jazz is plausible."):
        assert words in verdict
    assert answered.locator(".as-verdict .as-ranking li").count() == 5
    assert answered.locator("#tags li").first.inner_text().split() == ["Music", "97", "%"]


def test_the_segments_lie_exactly_under_their_place_in_the_spectrogram(answered):
    boxes = answered.evaluate(
        """() => ['.heatmaplayer image', '.point:first-of-type path', '.point:last-of-type path'].map((s) => {
             const box = document.querySelector('#track-plot ' + s).getBoundingClientRect();
             return [box.left, box.right];
           })"""
    )
    (left, right), first, last = boxes
    assert first[0] == pytest.approx(left, abs=2)
    assert last[1] == pytest.approx(right, abs=2)
    assert (first[1] - first[0]) / (right - left) == pytest.approx(10.4 / 40.0, abs=0.01)


def test_a_segment_button_plays_the_track_from_there(answered):
    second = answered.locator(".as-segment").nth(1)
    start = float(second.get_attribute("data-start"))
    # so slowly that the segment lasts minutes: on a busy machine seconds pass between two steps of this test
    answered.evaluate(
        """() => {
             const player = document.querySelector('#player audio');
             player.defaultPlaybackRate = player.playbackRate = 0.1;
           }"""
    )
    second.click()
    answered.wait_for_function("(s) => document.querySelector('#player audio').currentTime > s", arg=start)
    answered.wait_for_function("document.querySelectorAll('.as-segment')[1].getAttribute('aria-pressed') === 'true'")
    answered.wait_for_selector("#track-plot .as-playhead")
    second.click()
    answered.wait_for_function("document.querySelector('#player audio').paused")
    assert start < answered.evaluate("document.querySelector('#player audio').currentTime") < start + 10.4


def test_a_click_into_the_spectrogram_plays_from_there(answered):
    answered.evaluate("document.querySelector('#player audio').pause()")
    image = answered.locator("#track-plot .heatmaplayer image")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    answered.mouse.move(box["x"] + box["width"] * 0.84, box["y"] + 100)
    answered.mouse.click(box["x"] + box["width"] * 0.85, box["y"] + 100)
    answered.wait_for_function("document.querySelector('#player audio').currentTime > 33.5")
    answered.evaluate("document.querySelector('#player audio').pause()")


def test_a_row_is_chosen_by_mouse_or_keyboard_and_keeps_the_focus(answered):
    answered.locator("tr[data-index='1'] .as-took").click()
    answered.wait_for_function("document.querySelector('.as-verdict .as-eyebrow')?.textContent.startsWith('review')")
    words = answered.locator(".as-verdict").inner_text()
    assert "Jazz is only 7 points ahead of Blues." in words
    assert "3 % of the samples are at full scale." in words
    answered.locator("tr[data-index='2'] button").focus()
    answered.keyboard.press("Enter")
    answered.wait_for_selector(".as-problem")
    assert "The file begins like <b>HTML</b>" in answered.locator(".as-problem").inner_text()
    answered.wait_for_selector("#track", state="hidden")
    answered.wait_for_selector("tr[aria-current][data-index='2']")
    answered.wait_for_function("document.activeElement.dataset.index === '2'")


@pytest.mark.parametrize("hasty", [[1, 0, 2], [2, 1], [1, 2, 1]])
def test_of_clicks_in_one_breath_the_last_one_counts(answered, hasty):
    """Gradio drops an event that comes while the one before it is under way."""
    answered.evaluate(
        "(rows) => rows.forEach((i) => document.querySelector(`tr[data-index='${i}'] .as-pick`).click())", hasty
    )
    answered.wait_for_selector(f"tr[aria-current][data-index='{hasty[-1]}']")
    answered.wait_for_function(
        "(name) => document.querySelector('.as-verdict .as-eyebrow, .as-problem')?.textContent.includes(name)",
        arg=NAMES[hasty[-1]],
    )


def test_the_review_filter_shows_only_what_needs_review(answered):
    answered.get_by_label("Needs review", exact=True).check()
    answered.wait_for_function("document.querySelectorAll('table.as-files tbody tr').length === 1")
    assert answered.locator(".as-pick").inner_text() == NAMES[1]
    answered.get_by_label("All files").check()
    answered.wait_for_function("document.querySelectorAll('table.as-files tbody tr').length === 3")


def test_csv_and_json_hold_all_results_under_their_own_names(answered):
    with answered.expect_download() as download:
        answered.locator("#csv").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file"] for row in rows] == list(NAMES)
    assert [row["error_code"] for row in rows] == ["", "", "NOT_AUDIO"]
    with answered.expect_download() as download:
        answered.locator("#json").click()
    items = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [item["file"] for item in items] == list(NAMES)
    assert items[0]["top_genre"] == "Jazz"


def test_every_control_has_a_name(answered):
    nameless = answered.evaluate(
        """() => [...document.querySelectorAll('button, audio, [role=img], [role=progressbar], input:not([type=file])')]
             .filter((e) => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText || e.labels?.length))
             .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_runs_out_of_the_window(answered, viewport):
    try:
        answered.set_viewport_size(viewport)
        finder = """(width) =>
          [...document.querySelectorAll('html, h1, h2, h3, td, audio, button, .as-card, .main-svg')]
          .filter((e) => e.getClientRects().length)
          .filter((e) => Math.max(e.getBoundingClientRect().right, e.matches('html') && e.scrollWidth) > width + 0.5)
          .map((e) => e.outerHTML.slice(0, 200))"""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while (cut_off := answered.evaluate(finder, viewport["width"])) and time.monotonic() < deadline:
            answered.wait_for_timeout(200)  # plotly redraws after a pause
        assert cut_off == []
    finally:
        answered.set_viewport_size(DESKTOP)


def test_what_is_dropped_while_others_are_analysed_follows_them(visit, site, songs, monkeypatch):
    page = visit()
    monkeypatch.setattr(site.workstation, "pause_s", 0.6)
    drop(page, songs[:2])
    page.wait_for_function("document.querySelector('.as-summary')?.textContent.startsWith('0 of 2')")
    drop(page, songs[2:])
    page.wait_for_function("document.querySelector('.as-summary')?.textContent.startsWith('3 of 3')")
    assert [one.inner_text() for one in page.locator("table.as-files .as-pick").all()] == list(NAMES)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_long_name_leaves_the_verdict_its_place(visit, tmp_path, viewport):
    page = visit(viewport)
    drop(page, [str(clip(tmp_path / f"{'Shine on you crazy diamond, ' * 7}.ogg", 20.0))])
    page.wait_for_selector(".as-verdict")
    right = page.evaluate(
        "[...document.querySelectorAll('.as-verdict, .as-verdict *')].map((e) => e.getBoundingClientRect().right)"
    )
    verdict, track = (page.locator(place).bounding_box() for place in ("#verdict", "#track"))
    assert max(right) <= verdict["x"] + verdict["width"] + 0.5 <= viewport["width"] + 0.5
    assert verdict["x"] + verdict["width"] <= track["x"] + 0.5 or verdict["y"] + verdict["height"] <= track["y"] + 0.5


def test_what_was_uploaded_lies_in_the_sites_own_folder_with_nothing_torn_beside_it(answered, site):
    kept = [path for path in site.uploads.rglob("*") if path.is_file()]
    assert len(kept) >= len(NAMES)
    assert not [path for path in kept if path.parent == site.uploads]


def test_the_verdict_waits_for_neither_spectrogram_nor_descriptors(visit, site, songs):
    page = visit()
    site.workstation.hold.clear()
    try:
        drop(page, songs[:1])
        page.wait_for_selector(".as-verdict")
        page.wait_for_function("document.querySelector('#descriptors').innerText.includes('measuring')")
        page.wait_for_selector("#track-plot .annotation-text", state="attached")
        page.wait_for_selector("#timings-plot .bars path", state="attached")
        assert page.locator("#track-plot .heatmaplayer image").count() == 0
    finally:
        site.workstation.hold.set()
    wait_for_pictures(page, 40.0)
    wait_for_descriptors(page)


def test_a_chosen_file_is_sketched_while_the_work_for_another_goes_on(visit, site, songs):
    page = visit()
    site.workstation.hold.clear()
    try:
        drop_and_wait(page, songs[:2])
        page.wait_for_selector("#track-plot .annotation-text", state="attached")
        page.locator("tr[data-index='1'] button").click()
        page.wait_for_function(
            "Math.abs(document.querySelector('#track-plot .js-plotly-plot')?.layout?.meta.duration_s - 50) < 0.1"
        )
    finally:
        site.workstation.hold.set()
    wait_for_pictures(page, 50.0)
    wait_for_descriptors(page)


# The stream of messages runs beside the answers to requests, and a busy browser may read it first. Here it always does:
# while a stream is open, the answer to a request waits until the stream has brought all that comes of that request, or
# the first part of what comes in parts: a batch's last part may be long in coming.
OVERTAKEN = """(() => {
  const send = window.fetch;
  let streams = 0, received = '';
  async function listen(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    streams += 1;
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) received += part.value;
    } catch { /* the page has closed the stream */ }
    streams -= 1;
  }
  const tells = (line) => line.includes('process_completed') || line.includes('process_generating');
  const told = (id) => received.split('\\n').filter(tells).some((line) => line.includes(id));
  window.fetch = async (request, ...more) => {
    const url = String(request.url ?? request), answer = await send(request, ...more);
    if (url.includes('/queue/data')) {
      const [ours, theirs] = answer.body.tee();
      listen(ours);
      return new Response(theirs, answer);
    }
    if (url.includes('/queue/join')) {
      const { event_id } = await answer.clone().json();
      while (streams && !told(event_id)) await new Promise((soon) => setTimeout(soon, 20));
    }
    return answer;
  };
})();"""


def test_pictures_are_drawn_though_their_messages_overtake_the_answer_to_the_request(visit, site, songs, monkeypatch):
    analyze, go_on = site.workstation.analyze, threading.Event()

    def hesitant(paths, **how):
        """The first answer at once and the others later, so that the stream stays open."""
        for answer in analyze(paths, **how):
            yield answer
            go_on.wait(HELD_S)

    monkeypatch.setattr(site.workstation, "analyze", hesitant)
    page = visit(prepare=lambda page: page.add_init_script(OVERTAKEN))
    try:
        drop(page, songs)
        page.wait_for_selector(".as-verdict")
        wait_for_descriptors(page)
        wait_for_pictures(page, 40.0)
    finally:
        go_on.set()


@pytest.mark.parametrize("code", ["Plot-*.js", "PlotlyPlot-*.js"])
def test_pictures_are_drawn_though_they_come_before_the_code_that_draws_them(visit, songs, code):
    held, go_on = [], threading.Event()

    def hold(route):
        if go_on.is_set():
            route.continue_()
        else:
            held.append(route)

    page = visit(prepare=lambda page: page.route(f"**/assets/{code}", hold))
    drop_and_wait(page, songs[:1])
    wait_for_descriptors(page)  # the last message: by now all have come
    assert held
    go_on.set()
    for route in held:
        route.continue_()
    wait_for_pictures(page, 40.0)


def test_the_demo_clip_is_one_click_away_and_labelled_synthetic(visit):
    page = visit()
    page.get_by_role("button", name="Try the demo clip (synthetic)").click()
    page.wait_for_selector(".as-verdict")
    assert page.locator(".as-pick").inner_text() == "Demo clip (synthetic)"
    page.wait_for_function("document.querySelector('#player audio')?.duration > 19")


def test_an_error_that_comes_first_gives_way_to_the_first_answer(visit, songs):
    page = visit()
    drop_and_wait(page, [songs[2], songs[0]])
    assert page.locator(".as-eyebrow").inner_text() == NAMES[0]


def test_two_people_do_not_see_each_others_files_and_each_can_add_and_clear(visit, songs):
    one, other = visit(), visit()
    drop_and_wait(one, songs[:1])
    drop_and_wait(other, songs[1:2])
    assert one.locator(".as-pick").all_inner_texts() == [NAMES[0]]
    assert other.locator(".as-pick").all_inner_texts() == [NAMES[1]]
    drop(one, songs[1:2])
    one.wait_for_function("document.querySelector('.as-summary').textContent.startsWith('2 of 2')")
    one.wait_for_function("document.querySelector('.as-verdict .as-eyebrow')?.textContent.startsWith('review')")
    one.locator("#clear").click()
    one.wait_for_selector(".as-empty")
    one.wait_for_selector("#detail", state="hidden")
    drop_and_wait(one, songs[:1])
    assert one.locator(".as-pick").all_inner_texts() == [NAMES[0]]
    assert other.locator(".as-pick").all_inner_texts() == [NAMES[1]]


def wait_for_background(page, *, dark: bool) -> None:
    page.wait_for_function(
        """(dark) => {
             const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number);
             return (r + g + b < 200) === dark;
           }""",
        arg=dark,
    )


def test_the_head_tells_what_answers_when_the_page_is_opened(visit, site, monkeypatch):
    """The backend that is fastest takes over seconds after the start."""
    visit().wait_for_selector(".as-chip-precision:has-text('float32')")
    told = {**site.workstation.status(), "precision": "bfloat16"}
    monkeypatch.setattr(site.workstation, "status", lambda: told)
    visit().wait_for_selector(".as-chip-precision:has-text('bfloat16')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_toggle_is_remembered(visit, scheme):
    page = visit(scheme=scheme)
    dark = scheme == "dark"
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(dark).lower()}")
    wait_for_background(page, dark=dark)
    page.locator("#as-theme").click()
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(not dark).lower()}")
    reload(page, visit.complaints)
    page.wait_for_selector("#as-theme")
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(not dark).lower()}")


def test_the_real_page_answers_the_demo_clip(browser, tmp_path):
    """The whole product: app_gradio.py with the embedded model."""
    if not any((PROJECT_ROOT / "models").glob("*/card.json")):
        pytest.skip("no model in models/")
    environment = {
        **os.environ,
        "ACOUSTIC_PORT": "0",
        "ACOUSTIC_CACHE_DIR": str(tmp_path / "cache"),
        "GRADIO_TEMP_DIR": str(tmp_path / "uploads"),
    }
    command = [sys.executable, str(PROJECT_ROOT / "app_gradio.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as app:
        try:
            url = next(line for line in app.stdout if "http" in line).split()[-1]
            visitor = Visitor(browser, url)
            page = visitor()
            page.locator("#demo").click()
            page.wait_for_selector(".as-verdict")
            page.wait_for_selector("#track-plot .heatmaplayer image", state="attached")
            page.wait_for_function("document.querySelector('#timings-plot').innerText.includes('Read audio')")
            page.wait_for_function("!document.querySelector('#descriptors').innerText.includes('measuring')")
            assert "BPM" in page.locator("#descriptors").inner_text()
            assert visitor.close() == []
        finally:
            app.terminate()
