"""The Profiler tab beside another one, on a page of its own, over a small model and songs that are real sounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from acoustic.settings import Settings
from acoustic.ui import cards, launch_arguments, profiler, theme
from acoustic.workstation import Workstation
from tests.conftest import small_model
from tests.test_engine import song

NASTY = 'bad <img src=x onerror=alert(1)> & "name".wav'


def station(folder: Path) -> Workstation:
    """A workstation whose model, data and cache lie in `folder`."""
    small_model(folder / "models")
    model = str(folder / "models" / "small")
    return Workstation(Settings(model=model, cache_dir=str(folder / "cache"), data_dir=str(folder / "data")))


def songs_in(folder: Path, n: int) -> list[Path]:
    folder.mkdir(parents=True)
    return [song(folder / f"song {i}.wav", 40.0, i) for i in range(n)] + [song(folder / NASTY, 40.0, n)]


class Work:
    """Songs analysed one after another until it is told to stop; each time with other bytes, so that none is known."""

    def __init__(self, workstation: Workstation, songs: Sequence[Path]) -> None:
        self._workstation, self._songs = workstation, songs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Work:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        i = 0
        while not self._stop.is_set():
            path = self._songs[i % len(self._songs)]
            song(path, 40.0, 1000 + i)
            self._workstation.classifier.analyze(path)
            i += 1
            time.sleep(0.1)


def page(workstation: Workstation) -> gr.Blocks:
    with gr.Blocks(title="Profiler", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(cards.header(workstation.status(), theme.icon_svg()), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Profiler", id="profiler"):
                profiler.build(workstation)
            with gr.Tab("Other", id="other"):
                gr.Textbox(label="Notes", elem_id="notes")
    blocks.queue(api_open=False)
    return blocks


def launch(blocks: gr.Blocks) -> str:
    settings: Any = Settings(port=0, open_browser=False)
    _, url, _ = blocks.launch(**launch_arguments(settings), prevent_thread_lock=True)
    return url
