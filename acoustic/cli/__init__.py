"""The command line: `acoustic analyze`, `scan`, `personal`, `models` ... (also `python -m acoustic`, `./start.sh ...`).

Answers go to stdout, progress and errors to stderr. Exit status: 0 all ok, 1 some files failed, 2 wrong usage. Each
module holds one family of commands; torch is loaded once a command's arguments are known to be good.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import __version__, terminal
from ..errors import AcousticError
from . import library, models, personal, scan, songs, tag, training

app = typer.Typer(
    name="acoustic",
    help="AcousticSense: what genre a song is, how sure that is, and where the milliseconds went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(songs.app)
app.add_typer(scan.app)
app.add_typer(library.app, name="library")
app.add_typer(tag.app, name="tag")
app.add_typer(training.app)
app.add_typer(personal.app, name="personal")
app.add_typer(models.app, name="models")
app.add_typer(models.doctor_app)


def main() -> None:
    """Entry of the `acoustic` command: AcousticError becomes a plain message and exit status 2."""
    try:
        app()
    except AcousticError as error:
        terminal.print_error(error)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _about(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        terminal.out(__version__)
        raise typer.Exit
