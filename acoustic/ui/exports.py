"""Results as CSV and JSON, safe to open in a spreadsheet. Pure: text in memory; the tab writes it to files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from typing import Any

from ..records import Analysis, Failure, neutral, printable

COLUMNS = (
    "file",
    "status",
    "top_genre",
    "top_confidence",
    "second_genre",
    "second_confidence",
    "uncertainty",
    "agreement",
    "prediction_set",
    "needs_review",
    "review_reasons",
    "duration_s",
    "analyzed_s",
    "tempo_bpm",
    "beat_strength",
    "low_freq_ratio",
    "vocal_presence",
    "warnings",
    "model",
    "cached",
    "total_ms",
    "error_code",
    "error_message",
    "hint",
)


def renamed(result: Analysis | Failure, name: str) -> Analysis | Failure:
    """The same result under the name that the person gave the file (the page works on a copy with another path)."""
    return dataclasses.replace(result, path=name)


def to_json(results: Iterable[Analysis | Failure]) -> str:
    """All results as one JSON array of the contract's objects."""
    return json.dumps([result.to_dict() for result in results], ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def to_csv(results: Iterable[Analysis | Failure]) -> str:
    """All results as CSV (RFC 4180), one row a file, with a byte order mark so that spreadsheets read UTF-8."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for result in results:
        writer.writerow({key: neutral(value) for key, value in _row(result).items() if value is not None})
    return "\ufeff" + out.getvalue()


def _row(result: Analysis | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        error = {key: printable(value) for key, value in result.error.items()}
        return {
            "file": printable(result.path),
            "status": "error",
            "error_code": error.get("code"),
            "error_message": error.get("message"),
            "hint": error.get("hint"),
        }
    verdict = result.verdict
    ranked = [*verdict.ranked(), ("", None)]
    return {
        "file": printable(result.path),
        "status": "ok",
        "top_genre": verdict.top_genre,
        "top_confidence": round(verdict.top_confidence, 6),
        "second_genre": ranked[1][0],
        "second_confidence": None if ranked[1][1] is None else round(ranked[1][1], 6),
        "uncertainty": round(verdict.uncertainty, 6),
        "agreement": round(verdict.agreement, 6),
        "prediction_set": "; ".join(verdict.prediction_set),
        "needs_review": "yes" if verdict.needs_review else "no",
        "review_reasons": "; ".join(verdict.review_reasons),
        "duration_s": round(result.duration_s, 3),
        "analyzed_s": round(result.analyzed_s, 3),
        "warnings": "; ".join(warning.code for warning in result.warnings),
        "model": result.model,
        "cached": "yes" if result.cached else "no",
        "total_ms": round(result.timings_ms.get("total", 0.0), 3),
        **(result.descriptors.to_dict() if result.descriptors else {}),
    }
