"""What a card and an evaluation both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def selective(curve: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="when the least certain are set aside", box=None, header_style="bold")
    for name in ("kept", "n", "confidence from", "accuracy (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in curve:
        low, high = row["accuracy_interval_95"]
        table.add_row(
            f"{row['coverage']:.0%}",
            str(row["n"]),
            f"{row['from_confidence']:.2f}",
            f"{row['accuracy']:.2f} ({low:.2f} to {high:.2f})",
        )
    return table
