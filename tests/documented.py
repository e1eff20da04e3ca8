"""What docs/formats.md says that a command's `--json` holds: the tests of that command compare."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FORMATS = Path(__file__).parent.parent / "docs" / "formats.md"


@cache
def keys_of(command: str) -> frozenset[str]:
    """The keys of the row of `command`: "tag undo". KeyError where the document has no such row."""
    for line in FORMATS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if cells[0] == f"`{command}`" and len(cells) > 2:
            return frozenset(re.findall(r"`(\w+)`", cells[2]))
    raise KeyError(command)
