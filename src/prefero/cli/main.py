"""The ``prefero`` command: its subcommands, the short ones in full, and how errors end it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prefero.cli.console import Json, complain, console, in_one_line, show, work
from prefero.cli.evaluate import evaluate
from prefero.cli.inspect import inspect
from prefero.cli.laboratory import ANY_ARGUMENTS, add_commands, world
from prefero.cli.merge import merge
from prefero.cli.preview import convert, preview
from prefero.cli.sweep import sweep
from prefero.cli.train import compare, train
from prefero.errors import PreferoError
from prefero.storage import check_output

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
    """Align a Hugging Face model with preference data, by one of many methods.

    Start with `prefero demo` (minutes on a laptop), then `prefero train --help`.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def methods(
    name: Annotated[str | None, typer.Argument(help="Key of the method to describe.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Only methods that need no more than such data: pairs, lists, unpaired, ties, scores, "
            "steps, spans, or the name of a column or field. Repeat it for several kinds."
        ),
    ] = None,
    paper: Annotated[
        str, typer.Option(help="Only methods of one paper, by author, year, arXiv number, title or key.")
    ] = "",
    no_reference: Annotated[
        bool, typer.Option("--no-reference", help="Only methods that need no reference model.")
    ] = False,
    no_generation: Annotated[
        bool, typer.Option("--no-generation", help="Only methods that generate no responses in training.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the methods; with NAME, show the equation, paper, arguments and data of one."""
    from prefero.cli.catalogue import describe, overview, page, table, why_none

    if name is None:
        given: dict[str, tuple[str, Any]] = {
            argument: (option, value)
            for argument, option, value, asked in (
                ("data", f"--data {' --data '.join(data or ())}", data, data),
                ("paper", f"--paper {paper!r}", paper, paper),
                ("reference", "--no-reference", False, no_reference),
                ("generation", "--no-generation", False, no_generation),
            )
            if asked
        }
        entries = overview(**{name: value for name, (_, value) in given.items()})
        if not entries:
            complain(why_none(given))
        show(entries, lambda: table(entries, console().width), as_json=as_json)
    else:
        entry = describe(name)
        show(entry, lambda: page(entry), as_json=as_json)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for models, data and the report.")
    ] = Path("demo"),
    as_json: Json = False,
) -> None:
    """Align a small model with DPO, IPO and SimPO on synthetic reviews, and compare the results."""
    from prefero.demo.demonstration import run

    check_output(output, "folder")
    with work() as progress:
        demonstration = run(output, console=progress)
    show(demonstration.as_dict(), demonstration.table, as_json=as_json)


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of a comparison.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML file to write.", show_default="RUN/report.html"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about RUN: settings, data, curves, monitors, samples."""
    from prefero.report.page import render

    if output is not None:
        check_output(output)
    with work():
        page = render(run, output)
    show({"report": str(page)}, lambda: f"[bold]Report[/bold]  {page}", as_json=as_json)


for command in (preview, convert, inspect, train, compare, sweep, methods, demo, evaluate, report, merge):
    app.command()(command)
app.command(context_settings={**ANY_ARGUMENTS, "help_option_names": []})(world)
add_commands(app)


def _unknown(error: typer.TyperException) -> str:
    """The message of an error of the command line; of an option that is a setting of a recipe, also which."""
    message = error.format_message()
    name = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    if not name or command not in ("train", "compare", "sweep"):
        return message
    from prefero.training.config import home_of

    home = home_of(name)
    return f"{message}{home}; settings follow the command as key=value" if home else message


def run() -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the user's, 130 interrupted."""
    try:
        code = app(standalone_mode=False, prog_name="prefero")
    except (PreferoError, typer.TyperException) as error:
        if os.environ.get("PREFERO_TRACEBACK") == "1":
            raise
        complain(_unknown(error) if isinstance(error, typer.TyperException) else str(error))
        sys.exit(USER_MISTAKE)
    except Exception as error:
        message = in_one_line(error)
        if message is None or os.environ.get("PREFERO_TRACEBACK") == "1":
            raise
        complain(f"{' '.join(message.split())} (PREFERO_TRACEBACK=1 shows where it was raised)")
        sys.exit(USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)
