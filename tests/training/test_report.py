from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from acoustic.training import report
from acoustic.training.logbook import Logbook
from acoustic.training.report import HeldOutAnswers, class_table, reliability_figure, write_report
from tests.training.test_logbook import epoch
from tests.training.test_student import config

P = np.asarray([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
ANSWERS = HeldOutAnswers(("Low", "High", "<b>"), P, np.asarray([0, 1, 1, 0]))


def test_classes_are_counted_by_genre_and_by_answer() -> None:
    low, high, third = class_table(ANSWERS)
    assert (low["n"], low["n_answered"], low["precision"], low["recall"], low["f1"]) == (2, 2, 0.5, 0.5, 0.5)
    assert (high["precision"], high["recall"]) == (1.0, 0.5)
    assert (third["n"], third["recall"], third["precision"]) == (0, None, 0.0)


def test_the_diagram_shows_what_was_said_and_what_was_right() -> None:
    dots = reliability_figure(ANSWERS).data[1]
    assert list(dots.x) == pytest.approx([0.6, 0.7, 0.8]), "those of one confidence share a dot, as in the card"
    assert dict(zip(dots.x, dots.y, strict=True))[0.8] == 1.0
    assert dict(zip(dots.x, dots.y, strict=True))[0.6] == 0.0


def test_the_report_is_one_page_with_pictures_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(report.plotly.io, "write_images", lambda figures, paths, **_: drawn.extend(paths))
    book = Logbook(tmp_path, str)
    book.open(0)
    book.add(epoch(1))
    book.close()
    page, missing = write_report(dataclasses.replace(config(), name="tiny"), ANSWERS, tmp_path)
    text = page.read_text()
    assert missing == ""
    assert [path.name for path in drawn] == ["curves.png", "confusion.png", "reliability.png", "classes.png"]
    assert "Training report: tiny" in text
    assert "<td>&lt;b&gt;</td>" in text
    assert "https://cdn" not in text.split("</script>")[-1]
    numbers = json.loads((page.parent / "report.json").read_text())
    assert numbers["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert numbers["epochs"][0]["held_out"]["accuracy"] == 0.4


def test_without_a_browser_the_page_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser(*_: object, **__: object) -> None:
        raise RuntimeError("no Chrome was found")

    monkeypatch.setattr(report.plotly.io, "write_images", no_browser)
    page, missing = write_report(config(), ANSWERS, tmp_path)
    assert page.is_file()
    assert missing == "no PNGs: RuntimeError: no Chrome was found"
