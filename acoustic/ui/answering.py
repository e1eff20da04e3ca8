"""How a tab's own script is answered: the border between the browser and the functions that it may call."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import AcousticError, InternalError

Ask = Mapping[str, Any]
Answer = dict[str, Any]
STALE = {"code": "STALE", "message": "the page is older than the program", "hint": "Load the page again."}
"""to a page that was opened before the program was started anew"""


def served(name: str, work: Callable[[Ask], Answer], token: str | None) -> Callable[[Ask], Answer]:
    """`work` as the page calls it: errors are answers. Without the right token, where there is one, nothing is done."""

    def answer(ask: Ask) -> Answer:
        try:
            if token is not None and not secrets.compare_digest(str(ask.get("token", "")), token):
                return {"ok": False, "error": STALE}
            return {"ok": True, **work(ask)}
        except AcousticError as error:
            return {"ok": False, "error": error.to_dict()}
        except Exception as error:  # the border to the browser: a page must not wait for an answer that never comes
            return {"ok": False, "error": InternalError(f"{type(error).__name__}: {error}").to_dict()}

    answer.__name__ = name
    return answer
