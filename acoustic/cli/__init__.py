"""The command line: `acoustic analyze`, `scan`, `personal`, `models` ... (also `python -m acoustic`, `./start.sh ...`).

Answers go to stdout, progress and errors to stderr. Exit status: 0 all ok, 1 some files failed, 2 the command could not
be done. Each module holds one family of commands, and is loaded when one of them is asked for; torch is loaded once a
command's arguments are known to be good.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, terminal
from ..errors import REFUSALS, AcousticError, StorageError
from ..kept import shown_path
from .leaving import STOPPED, leave

_HOMES = {
    "analyze": "songs:app",
    "evaluate": "songs:app",
    "scan": "scan:app",
    "library": "library:app",
    "tag": "tag:app",
    "train": "training:app",
    "personal": "personal:app",
    "models": "models:app",
    "doctor": "models:doctor_app",
}
"""command -> where its family stands, in the order in which `--help` lists them"""


class _Families(TyperGroup):
    """All commands by name, each made at first need: to make all of them costs every command tens of milliseconds."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_HOMES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        wanted = [cmd_name] if cmd_name in _HOMES else _HOMES  # of an unknown one all, so that the nearest is named
        for name in wanted:
            if name not in self.commands:
                self.commands.update(_family(name))
        return self.commands.get(cmd_name)


def _family(name: str) -> dict[str, Any]:
    """The commands that come with this one: itself with what stands below it, or those of its module."""
    module, attribute = _HOMES[name].split(":")
    family = getattr(importlib.import_module(f".{module}", __name__), attribute)
    parent = typer.Typer()
    parent.add_typer(family, name=name if len(family.registered_commands) > 1 and module == name else None)
    return dict(typer.main.get_group(parent).commands)


app = typer.Typer(
    name="acoustic",
    cls=_Families,
    help="AcousticSense: what genre a song is, how sure that is, and where the milliseconds went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry of the `acoustic` command: AcousticError becomes a plain message and exit status 2."""
    try:
        app()
    except AcousticError as error:
        terminal.print_error(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in REFUSALS or error.filename is None:
            raise
        place = terminal.safe(shown_path(os.fsencode(error.filename)))
        terminal.print_error(StorageError(f"{place}: {error.strerror}", "Check the path and its permissions."))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except SystemExit as ended:
        if isinstance(ended.code, int) and "torch" not in sys.modules and threading.active_count() == 1:
            with suppress(OSError):  # nobody reads any more: let Python say so as it always does
                leave(ended.code)  # all is closed: only that Python takes itself apart is left out
        raise


@app.callback(invoke_without_command=True)
def _about(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        terminal.out(__version__)
        raise typer.Exit
