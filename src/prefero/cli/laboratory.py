"""Commands and worlds of the laboratory (the distribution ``prefero-lab``), which the library never imports.

A distribution adds commands in the entry-point group ``prefero.commands`` (name → a function that typer
reads), and worlds in ``prefero.worlds``: name → a function that takes the rest of the command line, writes a
start model and rows, and returns their folder. The first line of its docstring describes the world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, show, work
from prefero.errors import PreferoError, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

INSTALL = 'pip install "prefero[lab]"'

COMMANDS = {
    "discover": "Search for a preference loss on a small world.",
    "reproduce": "Measure what papers claim, in small worlds.",
}
"""Commands of the laboratory, which are listed whether it is installed or not."""

ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_commands(app: typer.Typer) -> None:
    """Register the commands of other distributions; one that cannot be loaded says how to install it."""
    installed = _entries("prefero.commands")
    for name in sorted({*COMMANDS, *installed}):
        try:
            app.command(name)(installed[name].load())
        except (KeyError, ImportError) as error:
            reason = "" if name not in installed else f"; what is installed cannot be loaded: {error}"
            about = COMMANDS.get(name, "A command of another distribution.")
            about += " Part of the laboratory, which is not installed."
            app.command(name, help=about, context_settings=ANY_ARGUMENTS)(_missing(name, reason))


def _entries(group: str) -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def _missing(name: str, reason: str = "") -> Callable[[], None]:
    def command() -> None:
        raise PreferoError(f"prefero {name} is part of the laboratory: {INSTALL}{reason}")

    return command


def world(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A world.", show_default="list all")
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER OPTIONS",
            help="Folder to write to, and options of the world: prefero world NAME --help.",
        ),
    ] = None,
    help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message, or the options of NAME.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the start model and rows of a small world, whose gold reward is known; without NAME list them.

    Recipes such as recipes/diffusion.yaml train on a world: prefero world digits runs/digits writes it.
    """
    if help and name is None:
        print(context.get_help())
        return
    worlds = _entries("prefero.worlds")
    if not worlds:
        _missing("world")()
    if name is None:
        with work():
            described = {entry.name: _summary(entry.load()) for entry in worlds.values()}
        listed = [{"name": one, "summary": summary} for one, summary in described.items()]
        show(listed, lambda: _listing(described), as_json=as_json)
        return
    if name not in worlds:
        raise PreferoError(
            f"no world is called {name!r}{nearest(name, worlds)} (`prefero world` lists all of them)"
        )
    if help:
        worlds[name].load()(["--help"])
        return
    with work():
        write: Callable[[Sequence[str]], Path] = worlds[name].load()
        folder = write(arguments or [])
    payload: dict[str, Any] = {
        "world": name,
        "folder": str(folder),
        "files": sorted(file.name for file in folder.iterdir()),
    }
    show(payload, lambda: f"{folder}: {', '.join(payload['files'])}", as_json=as_json)


def _summary(write: Callable[..., Path]) -> str:
    return (write.__doc__ or "").strip().partition("\n")[0]


def _listing(described: Mapping[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, summary in described.items():
        grid.add_row(name, Text(summary))
    return grid
