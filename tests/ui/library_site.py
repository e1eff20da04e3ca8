"""The Library tab on a page of its own, as a second tab, over a made-up library whose songs can be heard."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from workstation_double import LABELS, WorkstationDouble, clip

from acoustic.kept import ScanProgress
from acoustic.library.store import Library
from acoustic.ui import cards, library, theme
from tests.made_library import Song, fill, made_songs

NASTY = (
    Song(b"", "<img src=x onerror=alert(1)>", "<script>alert(2)</script>", '"><b>', "Jazz", 0.9),
    Song(b"", "\u202eexe.gnp\u202c", "שלום עולם", "\u2067x", "Rock", 0.8),
    Song(b"", "line\nbreak\x07bell", "مرحبا", "", "Pop", 0.7),
    Song(b"", "=SUM(1)", "@cmd", "-1", "World", 0.6),
)


def songs_in(folder: Path, n: int, with_sound: int = 3) -> list[Song]:
    """`n` songs and then NASTY ones, below `folder`; the files of the first `with_sound` are there."""
    made = made_songs(n, os.fsencode(folder))
    nasty = [dataclasses.replace(s, path=os.fsencode(folder / f"nasty {i} <b>.ogg")) for i, s in enumerate(NASTY)]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(with_sound):
        heard = clip(folder / f"{i}.ogg", 20.0 + i)
        made[i] = dataclasses.replace(made[i], path=os.fsencode(heard))
    return made + nasty


class Workstation(WorkstationDouble):
    """The double with a library."""

    def __init__(self, folder: Path, library: Library) -> None:
        super().__init__(folder)
        self.library = library

    def status(self) -> dict[str, Any]:
        return {**super().status(), "labels": list(LABELS)}


class MadeScan:
    """A scan that finds one song after another, as quickly as it is let."""

    def __init__(self, library: Library, n: int = 40, pause_s: float = 0.05) -> None:
        self.library, self.n, self.pause_s = library, n, pause_s
        self.go = threading.Event()
        self.go.set()
        self.folders: list[str] = []

    def __call__(
        self, folder: str, on_progress: Callable[[ScanProgress], object], cancel: threading.Event
    ) -> ScanProgress:
        self.folders.append(folder)
        began = time.monotonic()
        progress = ScanProgress("running", self.n, 0, 0, 0, True, 0.0, None, 0.0)
        made = made_songs(self.n, os.fsencode(folder), seed=7)
        for i, song in enumerate(made):
            self.go.wait(60)
            took = time.monotonic() - began
            if cancel.is_set():
                return dataclasses.replace(progress, state="cancelled", walking=False, elapsed_s=took, eta_s=None)
            fill(self.library, [song], seed=i)
            rate = (i + 1) / max(took, 1e-3)
            progress = ScanProgress(
                "running", self.n, 0, i + 1, 0, i < 10, rate, (self.n - i) / rate if i >= 10 else None, took
            )
            on_progress(progress)
            time.sleep(self.pause_s)
        return dataclasses.replace(progress, state="done", walking=False, eta_s=None)


def build(workstation: Workstation, uploads: Path, scan: Any = None) -> gr.Blocks:
    uploads.mkdir(parents=True, exist_ok=True)
    with gr.Blocks(title="Library", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(cards.header(workstation.status(), theme.icon_svg()), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Analyze"):
                gr.HTML("<p>the other tab</p>")
            with gr.Tab("Library") as tab:
                library.build(workstation, uploads, tab.select, scan)
    page.queue(api_open=False, default_concurrency_limit=4)
    return page
