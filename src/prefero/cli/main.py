"""The ``prefero`` command: its subcommands, and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from prefero.cli.compare import compare
from prefero.cli.console import complain
from prefero.cli.demo import demo
from prefero.cli.evaluate import evaluate
from prefero.cli.inspect import inspect
from prefero.cli.laboratory import ANY_ARGUMENTS, add_commands, world
from prefero.cli.methods import methods
from prefero.cli.preview import preview
from prefero.cli.report import report
from prefero.cli.train import train
from prefero.errors import PreferoError

USER_MISTAKE = 2

app = typer.Typer(
    name="prefero",
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from prefero import __version__

        print(f"prefero {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def prefero(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn from preferences: every method by name, on any Hugging Face model.

    Start with `prefero demo` (minutes on a laptop), then `prefero train --help`.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command()(preview)
app.command()(inspect)
app.command()(train)
app.command()(compare)
app.command()(methods)
app.command()(demo)
app.command()(evaluate)
app.command()(report)
app.command(context_settings={**ANY_ARGUMENTS, "help_option_names": []})(world)
add_commands(app)


def run() -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the user's, 130 interrupted."""
    try:
        code = app(standalone_mode=False, prog_name="prefero")
    except (PreferoError, typer.TyperException) as error:
        if os.environ.get("PREFERO_TRACEBACK") == "1":
            raise
        complain(error.format_message() if isinstance(error, typer.TyperException) else str(error))
        sys.exit(USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)
