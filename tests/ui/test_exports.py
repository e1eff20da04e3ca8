"""Exports hold every result under the person's name for it, and a spreadsheet can open them safely."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workstation_double import analysis

from acoustic.errors import NotAudioError
from acoustic.records import FORMULA_STARTS, Descriptors, Failure, neutral
from acoustic.ui import exports


def rows(results):
    text = exports.to_csv(results)
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "  ="])
def test_a_name_that_a_spreadsheet_would_run_is_neutralised(start):
    name = f"{start}HYPERLINK(1).mp3"
    assert rows([exports.renamed(analysis(), name)])[0]["file"] == "'" + name


@given(st.text())
def test_no_text_cell_ever_begins_as_a_formula(name):
    cell = neutral(name)
    assert not cell.lstrip(" ").startswith(FORMULA_STARTS)
    assert cell in (name, "'" + name)


def test_numbers_are_left_alone():
    assert neutral(-0.5) == -0.5


@pytest.mark.parametrize("name", ['a,"b"\nc;.mp3', "ünï – 音楽 🎺.flac", "plain.wav"])
def test_names_survive_the_round_trip(name):
    results = [exports.renamed(analysis(), name), exports.renamed(Failure("x", NotAudioError("m").to_dict()), name)]
    assert [row["file"] for row in rows(results)] == [name, name]
    assert [item["file"] for item in json.loads(exports.to_json(results))] == [name, name]


def test_a_row_says_what_the_analysis_says():
    row = rows([analysis(review=True, descriptors=Descriptors(118.2, 0.41, None, 0.1))])[0]
    assert row["status"] == "ok"
    assert (row["top_genre"], row["second_genre"]) == ("Jazz", "Blues")
    assert float(row["top_confidence"]) == pytest.approx(0.38)
    assert row["needs_review"] == "yes"
    assert row["review_reasons"] == "LOW_CONFIDENCE; SMALL_MARGIN"
    assert row["prediction_set"] == "Jazz; Blues; Folk"
    assert row["warnings"] == "CLIPPED"
    assert (row["tempo_bpm"], row["low_freq_ratio"]) == ("118.2", "")
    assert row["error_code"] == ""


def test_a_failure_has_its_row_with_code_message_and_hint():
    row = rows([Failure("x.mp3", NotAudioError("it is a picture").to_dict())])[0]
    assert (row["status"], row["error_code"], row["error_message"]) == ("error", "NOT_AUDIO", "it is a picture")
    assert row["hint"]
    assert row["top_genre"] == ""


def test_json_is_the_contract_of_the_command_line():
    heard = analysis()
    assert json.loads(exports.to_json([heard])) == [json.loads(json.dumps(heard.to_dict()))]
    assert json.loads(exports.to_json([])) == []
