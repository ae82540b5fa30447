"""The experiment on text worlds: a small language model, pairs of its own samples, held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.start import StartModel
    from prefero.demo.text import HeldOut, TextWorld
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.noisy import Labels


@dataclass(frozen=True)
class Made:
    """One seed's start model, pairs, and the yardstick of all arms."""

    start: StartModel
    rows: list[dict[str, Any]]
    held_out: HeldOut


@dataclass(frozen=True)
class TextExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on a :class:`~prefero.demo.text.TextWorld`.

    ``world`` is its name (:func:`prefero_lab.worlds.text_world`); a seed has a start model of its own.
    ``pairs`` training prompts are answered twice by the start model and labelled by the world's annotators,
    with sureness ``label_scale`` and, if one of the world's is named, of that ``taste``; ``labels``
    (:mod:`prefero_lab.worlds.noisy`) relabel them, one after the other, and may give them columns that
    methods read. Arms are settings of :func:`prefero_lab.papers.training.trained`: an ``objective``, a
    ``learning_rate``.

    Measured on ``prompts`` held-out prompts, one number a prompt: ``gold_reward``; ``win_rate`` against an
    independent sample of the start model (1, ½ or 0); ``length`` in tokens; the world's own measures, such as
    ``valid``, and its tastes; and, one number in all, ``kl`` to the start model in nats a response. Of as
    many training pairs, if they are pairs, one number each: ``chosen_log_ratio`` and ``rejected_log_ratio``,
    log π/π_start of the response.
    """

    world: str = "reviews"
    pairs: int = 2048
    epochs: float = 3.0
    examples_per_step: int = 32
    prompts: int = 512
    label_scale: float | None = None
    taste: str | None = None
    labels: tuple[Labels, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        names = {"labels": [[type(one).__name__, asdict(one)] for one in self.labels]}  # type: ignore[call-overload]
        return {**asdict(self), **names}

    @property
    def text_world(self) -> TextWorld:
        from prefero_lab.worlds import text_world

        return text_world(self.world)

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread
        from prefero.demo.text import HeldOut

        world = self.text_world
        with one_thread():
            start = world.start_model(seed=seed)
            rows = world.preference_pairs(start, self.pairs, seed, scale=self.label_scale, taste=self.taste)
            # a start model may end before its first word, which is nothing to train on
            rows = [row for row in rows if row["chosen"] and row["rejected"]]
            for labels in self.labels:
                rows = labels(world, rows, seed)
            return Made(start, rows, HeldOut(world, start, prompts=self.prompts, seed=seed))

    def start(self, made: Made) -> nn.Module:
        return made.start.model

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero_lab.papers.training import trained

        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        return trained(str(made.start.folder), made.rows, settings, seed=seed, **budget)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread
        from prefero.feedback.judges import ByScore

        with one_thread():
            outcome = made.held_out.measure(model)
            ratios = log_ratios(made, model, self.prompts)
        world, judge = made.held_out.world, ByScore(made.held_out.world.gold)
        pairs = zip(outcome.samples, made.held_out.opponent, strict=True)
        return {
            "gold_reward": [made.held_out.gold(one) for one in outcome.samples],
            "win_rate": [judge(ours.prompt, ours.text, theirs.text) for ours, theirs in pairs],
            "kl": [outcome.kl.value],
            "length": [float(len(one.tokens)) for one in outcome.samples],
            **{
                name: [of(str(one.prompt), one.text) for one in outcome.samples]
                for name, of in {**world.measures, **world.tastes}.items()
            },
            **ratios,
        }


def log_ratios(made: Made, model: nn.Module, count: int) -> dict[str, list[float]]:
    """log π/π_start of the chosen and of the rejected responses of the first ``count`` pairs, by the names of
    the metrics; nothing where rows are not pairs."""
    import numpy as np

    from prefero.data.trie import Cell
    from prefero.evaluate.ranking import pair_logps

    tokenizer, sides = made.start.tokenizer, ("chosen", "rejected")

    def cell(row: Mapping[str, Any], side: str) -> Cell:
        response = tokenizer(row[side], add_special_tokens=False).input_ids
        ids = tokenizer(row["prompt"]).input_ids, [*response, tokenizer.eos_token_id]
        return Cell(*(np.array(one) for one in ids))

    pairs = [
        (cell(row, "chosen"), cell(row, "rejected")) for row in made.rows[:count] if row.keys() >= {*sides}
    ]
    if not pairs:
        return {}
    ours, start = (pair_logps(one, pairs) for one in (model, made.start.model))
    return {f"{side}_log_ratio": (getattr(ours, side) - getattr(start, side)).tolist() for side in sides}
