"""The page's entry: what a person gets on the terminal when it ends early."""

from __future__ import annotations

import pytest

import app_gradio
from acoustic import workstation
from acoustic.errors import ModelError
from acoustic.settings import Settings


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [(KeyboardInterrupt(), 0, ""), (ModelError("no weights", "Get some."), 2, "error: no weights\nGet some.\n")],
)
def test_an_early_end_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ends: BaseException, status: int, said: str
) -> None:
    def stopped(settings: Settings) -> None:
        raise ends

    monkeypatch.setattr(workstation, "Workstation", stopped)
    monkeypatch.setattr(app_gradio, "prepare_process", lambda settings: None)
    assert app_gradio.main() == status
    assert capsys.readouterr().err == said
