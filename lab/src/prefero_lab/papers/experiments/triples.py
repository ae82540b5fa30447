"""The experiment on text worlds with three scored answers a prompt, from a base model that hardly writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.text import TextWorld
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Triples(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that starts from the world's model after
    ``base_steps`` steps of its training. Rows have the world's start model's samples, three a prompt, ordered
    by gold: the best is ``gold``, the second ``chosen`` and the worst ``rejected``; prompts whose best is no
    better than the worst are left out. An arm with ``pairs`` gets the best and the worst as a pair."""

    base_steps: int = 300

    @property
    def base_of(self) -> TextWorld:
        return replace(self.text_world, recipe=replace(self.text_world.recipe, steps=self.base_steps))

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread
        from prefero.demo.text import HeldOut, stream
        from prefero.generate.sampling import sample

        world = self.text_world
        with one_thread():
            writer, base = world.start_model(seed=seed), self.base_of.start_model(seed=seed)
            samples = sample(
                writer.model,
                writer.tokenizer,
                world.draw_prompts("train", self.pairs, seed),
                count=3,
                max_new_tokens=world.max_new_tokens,
                generator=stream(world.name, "triples", seed),
                batch_size=1024,
            )
            rows = [row for i in range(0, len(samples), 3) for row in triple(world, samples[i : i + 3])]
            return Made(base, rows, HeldOut(world, base, prompts=self.prompts, seed=seed))

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        own = {name: value for name, value in settings.items() if name != "pairs"}
        if settings.get("pairs"):
            rows = [
                {"prompt": r["prompt"], "chosen": r["gold"], "rejected": r["rejected"]} for r in made.rows
            ]
            made = replace(made, rows=rows)
        return super().train(made, own, seed)


def triple(world: TextWorld, samples: Any) -> list[dict[str, Any]]:
    """A row of three samples of one prompt; none where there is nothing to prefer."""
    scores = [world.gold(str(one.prompt), one.text) for one in samples]
    best, second, worst = sorted(range(3), key=lambda i: -scores[i])
    texts = [samples[i].text for i in (best, second, worst)]
    if scores[best] <= scores[worst] or not all(texts):
        return []
    return [{"prompt": samples[0].prompt, **dict(zip(("gold", "chosen", "rejected"), texts, strict=True))}]
