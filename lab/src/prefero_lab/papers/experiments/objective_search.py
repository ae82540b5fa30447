"""The experiment on searches for a loss: what is found on one bandit, on data of its own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefero_lab.discovery import BanditFitness, Entry, Proposal
    from prefero_lab.papers.paper import Trained

DISCOVERED = ("discopop", "cell", "padll", "aql", "aqfl", "dbaql", "pfl")
"""The losses that the paper's search found, as a proposer's script."""

BROKEN = ("0 * z", "log(z)", "softplus(z)")
"""A loss without a gradient, one that is no number where training starts, and one of the wrong sign."""


@dataclass(frozen=True)
class Scripted:
    """A proposer with a list to go through, once."""

    proposals: Sequence[Proposal]
    after: int

    @property
    def origin(self) -> str:
        return "script"

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal:
        return self.proposals[len(entries) - self.after]


@dataclass(frozen=True)
class Searched:
    """A search's entries, in the order of their trial, and what scored them."""

    entries: Sequence[Entry]
    fitness: BanditFitness


@dataclass(frozen=True)
class ObjectiveSearch:
    """An :class:`~prefero_lab.papers.paper.Experiment` on ``worlds`` bandits, on each of which losses that
    people know and those of the paper are tried. Models are one configuration of an objective a world.

    Arms ``pick`` the ``best`` of the archive or the entry of the name given, such as ``logistic``, which is
    DPO. Measured, one number a world: the ``gain`` in gold reward on the search's own pairs and prompts, and
    the ``fresh_gain`` on others.
    """

    worlds: int = 3
    prompts: int = 64
    pairs: int = 512
    steps: int = 100

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> list[Searched]:
        return [self._searched(10 * seed + world) for world in range(self.worlds)]

    def _searched(self, seed: int) -> Searched:
        from pathlib import Path

        from prefero.demo.start import one_thread
        from prefero_lab.discovery import BanditFitness, Proposal, discover
        from prefero_lab.discovery.search import KNOWN

        fitness = BanditFitness(prompts=self.prompts, pairs=self.pairs, steps=self.steps, seed=seed)
        proposals = [Proposal(name, {"method": name}) for name in DISCOVERED]
        proposals += [Proposal(loss, {"method": "expression", "loss": loss}) for loss in BROKEN]
        script = Scripted(proposals, after=len(KNOWN))
        with TemporaryDirectory(prefix="prefero-") as folder, one_thread():
            archive = discover(Path(folder) / "search", script, fitness, rounds=len(proposals), seed=seed)
        return Searched(archive.entries, fitness)

    def start(self, made: list[Searched]) -> list[Mapping[str, Any]]:
        return self.train(made, {"pick": "logistic"}, 0).model

    def train(
        self, made: list[Searched], settings: Mapping[str, Any], seed: int
    ) -> Trained[list[Mapping[str, Any]]]:
        from prefero_lab.discovery.archive import ranked
        from prefero_lab.papers.paper import Trained

        pick = settings["pick"]
        if pick == "best":
            return Trained([ranked(one.entries)[0].objective for one in made])
        return Trained([next(e.objective for e in one.entries if e.name == pick) for one in made])

    def measure(
        self, made: list[Searched], model: list[Mapping[str, Any]], seed: int
    ) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread

        with one_thread():
            both = [
                [
                    one.fitness(objective, draw=draw).fitness
                    for one, objective in zip(made, model, strict=True)
                ]
                for draw in (0, 1)
            ]
        return dict(zip(("gain", "fresh_gain"), both, strict=True))
