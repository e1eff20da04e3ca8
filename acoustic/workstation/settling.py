"""What a program that died left half done, brought to its end when the next one starts."""

from __future__ import annotations

from ..errors import AcousticError
from . import learning
from .station import Workstation


def settle(workstation: Workstation) -> AcousticError | None:
    """Settle tag writes that were cut short, and read songs anew that are not yet read as what is in use reads them.

    Returns why it could not be done (another program is writing tags, the library cannot be opened), None where it
    could: the page works in either case.
    """
    problem: AcousticError | None = None
    for step in (lambda: workstation.library.tagging.recover(), lambda: learning.catch_up(workstation)):
        try:
            step()
        except AcousticError as error:
            problem = problem or error
    return problem
