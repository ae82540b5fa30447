"""The experiment on self-refinement: a policy that writes better behind a word that asks for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.experiments.ranking import Ranked, RankingExperiment, cells, margins
from prefero_lab.papers.text import Made

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prefero.demo.start import StartModel
    from prefero.demo.text import TextWorld
    from prefero_lab.papers.paper import Trained

ASK = "excellent"
"""The word before a prompt that asks for quality."""


@dataclass(frozen=True)
class Refined(Ranked):
    """``asked`` are the held-out pairs behind the word that asks for quality, and ``asked_before`` how much
    likelier the start model finds the better of them there."""

    asked: list[Any]
    asked_before: Tensor


@dataclass(frozen=True)
class RefinedExperiment(RankingExperiment):
    """A :class:`.RankingExperiment` whose start model has learnt, in ``taught`` steps
    from the world's, that behind a certain word there are reviews of the best third.

    Measured beside what that experiment measures: ``asked_gold``, the gold reward behind that word, one
    number a prompt; and, one number in all, ``asked_correlation``, that of gold with the log-ratios behind
    it, which is what Sr-DPO's margins are made of.
    """

    taught: int = 150

    def make(self, seed: int) -> Refined:
        from prefero.demo.start import one_thread
        from prefero.demo.text import HeldOut

        world = self.text_world
        with one_thread():
            start = self.taught_start(world.start_model(seed=seed), seed)
            rows = world.preference_pairs(start, self.pairs, seed, scale=self.label_scale, taste=self.taste)
            rows = [asking(row) for row in rows if row["chosen"] and row["rejected"]]
            held_out = HeldOut(world, start, prompts=self.prompts, seed=seed)
            texts = self.held_out(Made(start, rows, held_out), seed)
            made = Made(start, rows, held_out)
            pairs = cells(made, texts)
            asked = cells(made, [{**row, "prompt": asking(row)["prompt_refined"]} for row in texts])
            before, asked_before = (margins(start.model, some) for some in (pairs, asked))
        gaps = [row["chosen_score"] - row["rejected_score"] for row in texts]
        return Refined(start, rows, held_out, texts, pairs, gaps, before, asked, asked_before)

    def taught_start(self, start: StartModel, seed: int) -> StartModel:
        """The start model after more of the corpus, half of it of the best third and behind the word."""
        from prefero.data.examples import Example, Examples, Response
        from prefero_lab.papers.training import trained

        world, size = self.text_world, 32 * self.taught
        corpus = world.corpus(3 * size, seed)
        plain, good = corpus[: size // 2], sorted(corpus[size // 2 :], key=lambda one: -world.gold(*one))
        asked = [(f"{ASK} {prompt}", text) for prompt, text in good[: size // 2]]
        items = [Example(prompt, (Response(text, "chosen"),)) for prompt, text in [*plain, *asked]]
        budget = {"num_train_epochs": 1.0, "examples_per_step": 32, "processing_class": start.tokenizer}
        settings = {"objective": "nll", "learning_rate": 6e-3}
        model = trained(copy.deepcopy(start.model), Examples(items), settings, seed=seed, **budget).model
        return replace(start, model=model)  # type: ignore[arg-type]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero_lab.papers.training import trained

        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        own = {**budget, "processing_class": made.start.tokenizer}
        return trained(copy.deepcopy(made.start.model), made.rows, settings, seed=seed, **own)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread
        from prefero_lab.papers.experiments.ranking import orders

        assert isinstance(made, Refined)
        measured = super().measure(made, model, seed)
        with one_thread():
            moved = (margins(model, made.asked) - made.asked_before).tolist()
            gold = asked_gold(made, model, self.text_world, seed)
        found = orders(moved, made.gaps, self.equal)["correlation"]
        return {**measured, "asked_gold": gold, "asked_correlation": found}


def asking(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its prompt behind the word that asks for quality."""
    return {**row, "prompt_refined": f"{ASK} {row['prompt']}"}


def asked_gold(made: Refined, model: nn.Module, world: TextWorld, seed: int) -> list[float]:
    """The gold reward of a sample to each held-out prompt behind the word."""
    from prefero.demo.text import stream
    from prefero.generate.sampling import sample

    prompts = made.held_out.prompts
    samples = sample(
        model,
        made.start.tokenizer,
        [f"{ASK} {prompt}" for prompt in prompts],
        max_new_tokens=world.max_new_tokens,
        generator=stream(world.name, "asked", seed),
        batch_size=1024,
    )
    return [world.gold(str(prompt), one.text) for prompt, one in zip(prompts, samples, strict=True)]
