"""Rules that the wiring of the page keeps."""

from __future__ import annotations

import inspect

import gradio as gr
from workstation_double import WorkstationDouble

from acoustic import ui


def test_plots_are_returned_and_never_yielded(tmp_path, monkeypatch):
    """Gradio patches each yielded object into the one before, in place: a plot that waits to be shown would be lost."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = ui.build(WorkstationDouble(tmp_path))
    yielded = [out for f in page.fns.values() if inspect.isgeneratorfunction(f.fn) for out in f.outputs]
    returned = [out for f in page.fns.values() if not inspect.isgeneratorfunction(f.fn) for out in f.outputs]
    assert any(isinstance(output, gr.HTML) for output in yielded)
    assert not any(isinstance(output, gr.Plot) for output in yielded)
    assert len({output._id for output in returned if isinstance(output, gr.Plot)}) == 2
