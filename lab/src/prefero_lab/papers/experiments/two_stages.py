"""The experiment on two stages: a few good demonstrations first, then preferences, whose reference is what
the first stage made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment, log_ratios

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Demonstrated(Made):
    """Start and data that all arms share, and demonstrations: rows whose chosen response is one."""

    demonstrations: list[dict[str, Any]]


@dataclass(frozen=True)
class Stages:
    """The reference of the second stage, which is the model that the first left, and the policy."""

    reference: nn.Module
    policy: nn.Module


@dataclass(frozen=True)
class TwoStages(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` with a stage of fine-tuning before that on
    preferences.

    A demonstration is the best by gold of ``best_of`` texts of the world's corpus, on a training prompt.
    With ``chosen_demonstrated`` every pair's chosen response is one, its rejected one a sample of the start
    model, and these are the demonstrations.

    Arms have ``first``: settings of the first stage, or None for none; and ``second``, those of the other.
    Measured besides: ``gold_after_first``, one number a held-out prompt, and of training pairs
    ``chosen_reward`` and ``rejected_reward``, log-ratios of the policy over its own reference. Everything
    else, as ``kl``, is measured against the start model.
    """

    demonstrations: int = 512
    best_of: int = 4
    first_epochs: float = 3.0
    chosen_demonstrated: bool = False

    def make(self, seed: int) -> Demonstrated:
        import random

        made, world = super().make(seed), self.text_world
        rng = random.Random(f"demonstrations {seed}")

        def demonstrated(prompt: str) -> str:
            texts = [world.write(prompt, rng) for _ in range(self.best_of)]
            return max(texts, key=lambda text: world.gold(prompt, text))

        if self.chosen_demonstrated:
            rows = [
                {
                    "prompt": row["prompt"],
                    "chosen": demonstrated(row["prompt"]),
                    "rejected": row[rng.choice(("chosen", "rejected"))],
                }
                for row in made.rows
            ]
            return Demonstrated(made.start, rows, made.held_out, rows)
        prompts = rng.sample(world.prompts(held_out=False), self.demonstrations)
        shown = [{"prompt": prompt, "chosen": demonstrated(prompt), "rejected": "."} for prompt in prompts]
        return Demonstrated(made.start, made.rows, made.held_out, shown)

    def start(self, made: Made) -> Stages:  # type: ignore[override]
        return Stages(made.start.model, made.start.model)

    def train(self, made: Demonstrated, settings: Mapping[str, Any], seed: int) -> Trained[Stages]:  # type: ignore[override]
        from prefero.demo.start import quiet
        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained

        budget = {"examples_per_step": self.examples_per_step}
        reference, folder = made.start.model, str(made.start.folder)
        with TemporaryDirectory(prefix="prefero-") as between:
            if settings["first"] is not None:
                first = {"num_train_epochs": self.first_epochs, **budget}
                shown = made.demonstrations
                reference = trained(folder, shown, settings["first"], seed=seed, **first).model  # type: ignore[assignment]
                with quiet():
                    reference.save_pretrained(between)
                    made.start.tokenizer.save_pretrained(between)
                folder = between
            second = {"num_train_epochs": self.epochs, **budget}
            found = trained(folder, made.rows, settings["second"], seed=seed, **second)
        return Trained(Stages(reference, found.model), found.curves)

    def measure(self, made: Demonstrated, model: Stages, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        from prefero.demo.start import one_thread

        found = dict(super().measure(made, model.policy, seed))
        from_first = replace(made, start=replace(made.start, model=model.reference))  # type: ignore[arg-type]
        with one_thread():
            first = made.held_out.measure(model.reference)
            ratios = log_ratios(from_first, model.policy, self.prompts)
        found["gold_after_first"] = [made.held_out.gold(one) for one in first.samples]
        for side in ("chosen", "rejected"):
            found[f"{side}_reward"] = ratios[f"{side}_log_ratio"]
        return found
