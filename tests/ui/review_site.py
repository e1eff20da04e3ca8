"""The Review tab on a page of its own, over a small model and a library of made-up votes with real audio files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from acoustic.settings import Settings
from acoustic.ui import launch_arguments, review
from acoustic.workstation import Workstation
from tests import made_reviews as made
from tests.conftest import small_model


def station(folder: Path) -> Workstation:
    """A workstation whose model, data and cache lie in `folder`."""
    if not (folder / "models" / "small").exists():
        small_model(folder / "models")
    model = str(folder / "models" / "small")
    settings = Settings(model=model, cache_dir=str(folder / "cache"), data_dir=str(folder / "data"))
    return Workstation(settings, cache=False)


def fill(workstation: Workstation, songs: Sequence[made.Heard]) -> list[int]:
    card = workstation.card()
    return made.fill(
        workstation.library, songs, weights_digest=card.weights_digest, calibration=card.calibration, model=card.name
    )


def page(workstation: Workstation) -> gr.Blocks:
    """The tab beside another one."""
    folder = Path(get_upload_folder())
    with gr.Blocks(analytics_enabled=False, fill_width=True) as blocks, gr.Tabs():
        with gr.Tab("Review", id="review"):
            review.build(workstation, folder)
        with gr.Tab("Other", id="other"):
            gr.Textbox(label="Notes", elem_id="notes")
    blocks.queue(api_open=False)
    return blocks


def launch(blocks: gr.Blocks) -> str:
    settings: Any = Settings(port=0, open_browser=False)
    _, url, _ = blocks.launch(**launch_arguments(settings), prevent_thread_lock=True)
    return url
