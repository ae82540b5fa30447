"""Commands that are killed at random moments and given again, until they have ended.

``python -m tests.kills`` imports what the commands need once and forks for every command that it reads from
stdin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import torch

from prefero.cli.main import run
from tests.forks import Forks, serve

Shown = Mapping[str, Any]
"""What a command leaves behind, by name, without times and speeds."""


@dataclass(frozen=True)
class Command:
    """A command line that is run in a folder of its own, and what is compared of its results. ``again`` are
    arguments to go on with, where these are others."""

    arguments: tuple[str, ...]
    results: Callable[[Path], Shown]
    again: tuple[str, ...] = ()
    processes: int = 1


@dataclass
class Series:
    """Kills of one command: each chain starts anew, is killed up to ``longest`` times, and then runs to its
    end, where it has to have left what a run without a kill leaves."""

    forks: Forks
    folder: Path
    command: Command
    numbers: Random
    longest: int = 3
    kills: int = 0
    chains: int = 0
    differences: list[str] = field(default_factory=list)

    def run(self, kills: int) -> None:
        """Go on until so many kills have hit."""
        whole = self.folder / "whole"
        seconds = self._run(whole, again=False)
        assert seconds is not None
        expected = self.command.results(whole)
        assert expected, "nothing to compare"
        while self.kills < kills:
            folder = self.folder / f"chain-{self.chains}"
            self.chains += 1
            moments = [self.numbers.uniform(0, seconds) for _ in range(min(self.longest, kills - self.kills))]
            again = False
            for moment in moments:
                if self._run(folder, again=again, kill_after=moment) is not None:
                    break
                self.kills += 1
                again = True
            else:
                self._run(folder, again=again)
            found = self.command.results(folder)
            self.differences += [
                f"{folder.name}, killed after {', '.join(f'{moment:.2f}' for moment in moments)} s: {name}"
                for name in sorted(expected.keys() | found.keys())
                if expected.get(name) != found.get(name)
            ]

    def _run(self, folder: Path, *, again: bool, kill_after: float | None = None) -> float | None:
        """Run the command; returns the seconds that it took, or None where the kill has hit."""
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [*self.command.arguments, *(self.command.again if again else ())]
        ended = self.forks(
            f"{self.folder.name}-{folder.name}",
            {"folder": str(folder), "arguments": arguments},
            processes=self.command.processes,
            environment={"PREFERO_CACHE": str(folder / "cache")},
            kill_after=kill_after,
            victim=self.numbers.randrange(self.command.processes),
        )
        if kill_after is not None and ended.status < 0:
            return None
        assert ended.status == 0, f"{' '.join(arguments)} in {folder}: {ended.status}\n{ended.text[-4000:]}"
        return ended.seconds


IMPORTED = (
    "prefero.cli.runs",
    "prefero.doctor.inspection",
    "prefero.training.run",
    "prefero_lab.cli.discover",
    "prefero_lab.cli.reproduce",
    "prefero_lab.discovery",
    "prefero_lab.papers.runner",
)
"""What the commands need, so that their seconds are those of their work."""


def work(job: Mapping[str, Any]) -> None:
    os.chdir(job["folder"])
    sys.argv = ["prefero", *job["arguments"]]
    run()


if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    torch.set_num_threads(1)
    serve(work)
