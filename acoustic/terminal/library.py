"""What the library holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ..kept import Decision
from .console import output, safe


def print_library(status: Mapping[str, Any]) -> None:
    """What a library holds, a line each."""
    console = output()
    said = {
        "library": f"{status['path']} ({status['n_bytes'] / 2**20:.1f} MB)",
        "songs": f"{status['n_songs']}, of which {status['n_analysed']} analysed",
        "files": f"{status['n_files']}, of which {status['n_missing']} missing, {status['n_errors']} with an error",
        "decided": f"{status['n_decided']}; {status['n_skipped']} skipped; {status['n_waiting']} wait for you",
        "history": f"{status['n_history']} lines",
        "last scan": status["last_scan"] or "none yet",
        "form": f"{status['schema']}, SQLite {status['sqlite']}",
    }
    for name, text in said.items():
        console.print(Text(f"{name:10} {safe(text)}"), soft_wrap=True)


def print_history(decisions: Iterable[Decision], names: Mapping[int, str]) -> None:
    """A table of what was decided, a row a line of the history; `names` of songs by their ids."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "when", "who", "said", "the model said", "song"):
        table.add_column(name, overflow="fold")
    for line in decisions:
        words = {"skip": "(skipped)", "undo": f"takes back {line.undoes}"}.get(line.kind, line.genre or "")
        model = f"{line.said_genre} {line.said_confidence:.0%}" if line.said_genre else ""
        song = names.get(line.track_id, f"song {line.track_id}")
        texts = (str(line.id), line.made_at[:19].replace("T", " "), line.who, words, model, song)
        table.add_row(*(Text(safe(text)) for text in texts))
    output().print(table)
