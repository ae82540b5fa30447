"""Small seeded tasks with a known gold reward, on which methods can be judged in minutes on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prefero.errors import PreferoError, nearest

if TYPE_CHECKING:
    from prefero.demo.text import TextWorld


def text_world(name: str) -> TextWorld:
    """The text world of that name: ``reviews``, which the demonstration has too, ``instructions`` or
    ``safety``.

    Raises:
        PreferoError: no text world has the name.
    """
    from prefero.demo.reviews import REVIEWS
    from prefero_lab.worlds.instructions import INSTRUCTIONS
    from prefero_lab.worlds.safety import SAFETY

    worlds = {"reviews": REVIEWS, "instructions": INSTRUCTIONS, "safety": SAFETY}
    if name not in worlds:
        raise PreferoError(
            f"no text world is called {name!r}{nearest(name, worlds)} (known: {', '.join(worlds)})"
        )
    return worlds[name]


class WorldParser(argparse.ArgumentParser):
    """The arguments of ``prefero world NAME``: a folder, and the options that the world adds.

    Raises:
        PreferoError: the arguments are not valid.
    """

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(prog=f"prefero world {name}", description=description)
        self.add_argument("folder", type=Path, help="folder to write to")
        self.add_argument("--seed", type=int, default=0)

    def error(self, message: str) -> NoReturn:
        raise PreferoError(f"{message} (`{self.prog} --help` lists the options)")
