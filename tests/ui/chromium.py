"""How the tests drive headless Chromium, and what no page may do: ask another machine, or complain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000  # a slow machine is not a fault of the page

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (on Debian: apt install chromium)"),
]
"""the marks of a file of browser tests: `pytestmark = IN_CHROMIUM`"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def new_context(browser: Any, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Any:
    """A browser as one person has it, with stores of its own, patient with slow machines."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
    context.set_default_timeout(PATIENCE_MS)
    return context


BROKEN_OFF = ("console: AbortError: signal is aborted", "console: Unexpected error Connection errored out")


def reload(page: Any, complaints: list[str]) -> None:
    """Load the page anew; what Gradio says of the requests that this breaks off is no complaint."""
    before = len(complaints)
    page.reload()
    complaints[before:] = [said for said in complaints[before:] if not said.startswith(BROKEN_OFF)]


def leave(contexts: list[Any], complaints: list[str]) -> list[str]:
    """Close the contexts; returns what was complained of before: the requests that this breaks off are no fault."""
    said = list(complaints)
    for context in contexts:
        context.close()
    return said


def listen(page: Any, url: str, complaints: list[str]) -> None:
    """Note whatever `page`, which is served at `url`, asks of others or complains about."""
    note = complaints.append
    local = (url.rstrip("/"), "data:", "blob:")
    page.on("console", lambda m: note(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda e: note(f"page error: {e.stack}"))
    page.on("request", lambda r: None if r.url.startswith(local) else note(f"external: {r.url}"))
    page.on("response", lambda r: note(f"{r.status}: {r.url}") if r.status >= 400 else None)
