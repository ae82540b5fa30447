"""The experiment on text worlds where the reference may be another model than the start."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.text import TextWorld
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class References(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that starts from the world's model after
    ``base_steps`` steps of its training. An arm's ``reference`` is its start if none is named, ``stronger``,
    the world's model of the same seed trained in full, or ``unrelated``, one of another seed trained as long
    as the start on responses to other prompts."""

    base_steps: int = 300

    @property
    def text_world(self) -> TextWorld:
        world = super().text_world
        return replace(world, recipe=replace(world.recipe, steps=self.base_steps))

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        name = settings.get("reference")
        if name is None:
            return super().train(made, settings, seed)
        other = (
            TextExperiment(self.world).text_world.start_model(seed=seed)
            if name == "stronger"
            else astray(self.text_world).start_model(seed=seed + 1000)
        )
        return super().train(made, {**settings, "reference": str(other.folder)}, seed)


def astray(world: TextWorld) -> TextWorld:
    """The world with a corpus where every response is to another prompt."""
    prompts = world.prompts(held_out=False)

    def write(prompt: str, rng: random.Random) -> str:
        return world.write(rng.choice(prompts), rng)

    return replace(world, write=write)
