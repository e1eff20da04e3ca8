"""The page: one file a tab. `build` lays it out over a Workstation, `launch_arguments` are how it is served.

colours, wording    meaning -> colour and plain words
figures             records -> plotly figures, pure
cards               records -> HTML, escaped
exports             results -> CSV and JSON
answering           what a tab's own script may ask, and how errors reach it
uploads, desk       what a browser sends; what one session has on its desk
theme               look, style sheet, script
analyze, library, review, profiler
                    the tabs, each with its script and desk beside it
serving             how the page is built and served
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

    from ..settings import Settings
    from ..workstation import Workstation


def build(workstation: Workstation) -> gr.Blocks:
    """The whole page over `workstation`, ready to be launched."""
    from . import serving  # gradio costs seconds to import, and the pure modules beside it do not need it

    return serving.build(workstation)


def launch_arguments(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `Blocks.launch`: look, address, next free port, and nothing that phones home."""
    from . import serving

    return serving.launch_arguments(settings)


def is_open(settings: Settings) -> bool:
    """Whether other machines can reach the page."""
    from . import serving

    return serving.is_open(settings)
