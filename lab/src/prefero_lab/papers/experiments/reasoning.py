"""The experiment on calculations whose steps are checked: one round of pairs from a model's own samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.start import StartModel
    from prefero.generate.sampling import Sample
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.arithmetic import ArithmeticWorld

Data = Literal["outcome", "marked outcome", "steps", "corrected", "right"]
"""What arms learn from: pairs of a right and a wrong sample (with their steps marked); a wrong sample and the
start model's own way on from its first wrong step; a wrong sample of such a pair against itself, corrected by
rule; right samples alone, for likelihood training."""


@dataclass(frozen=True)
class Made:
    """One seed's start model, its samples to the training problems, and pairs of them by outcome."""

    start: StartModel
    samples: list[Sample]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class ReasoningExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on :mod:`prefero_lab.worlds.arithmetic`; a seed has a
    start model of its own.

    The start model answers ``problems`` training problems ``samples`` times each, once: one round, before
    accuracy is so high that all arms are alike. Arms are settings of
    :func:`prefero_lab.papers.training.trained` and ``data``, of which each makes at most ``rows`` rows (None:
    as many as there are).

    Measured on ``test_problems`` others, one number a problem: ``greedy``, whether the likeliest answer is
    right; of ``attempts`` samples at temperature 1 ``pass@1``, ``pass@4`` and so on, the share of ``valid``,
    of ``lucky`` ones (a right answer with a wrong step) and of ``distinct`` ones, and their ``entropy`` in
    nats a response; in all, ``kl`` to the start model. Of pairs by outcome, the same for every arm:
    ``chosen_log_ratio`` and ``rejected_log_ratio``, log π/π_start.

    Raises:
        PreferoError: a start model whose likeliest answers are right more or less often than from 0.35 to
            0.65, with which claims would say little.
    """

    worded: bool = False
    problems: int = 300
    samples: int = 8
    rows: int | None = None
    epochs: float = 2.0
    examples_per_step: int = 32
    test_problems: int = 1000
    attempts: int = 4

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    @property
    def world(self) -> ArithmeticWorld:
        from prefero_lab.worlds.arithmetic import ARITHMETIC, ARITHMETIC_WORDED

        return ARITHMETIC_WORDED if self.worded else ARITHMETIC

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread
        from prefero.errors import PreferoError
        from prefero_lab.worlds.arithmetic import outcome_pairs

        with one_thread():
            start = self.world.start_model(seed=seed)
            greedy = sum(self._greedy(start, start.model, seed)) / self.test_problems
            if not 0.35 <= greedy <= 0.65:
                raise PreferoError(
                    f"the start model of seed {seed} is right in {greedy:.0%} of problems; expected 35 to "
                    "65 %. Arms would be told apart badly: take another seed."
                )
            samples = self.world.samples(start, self.problems, seed, count=self.samples)
            return Made(start, samples, outcome_pairs(samples, seed))

    def start(self, made: Made) -> nn.Module:
        return made.start.model

    def data(self, made: Made, kind: Data, seed: int) -> list[dict[str, Any]]:
        """The rows that an arm learns from."""
        from prefero.demo.start import one_thread
        from prefero_lab.worlds import arithmetic

        if kind == "right":
            rows = arithmetic.right_samples(made.samples)
        elif kind == "steps":
            with one_thread():
                rows = self.world.step_pairs(made.start, made.samples, seed)
        elif kind == "marked outcome":
            rows = [arithmetic.marked(row) for row in made.rows]
        else:
            rows = made.rows
            if kind == "corrected":
                better = (arithmetic.corrected(row["prompt"], row["rejected"]) for row in rows)
                rows = [
                    {**row, "chosen": text}
                    for row, text in zip(rows, better, strict=True)
                    if text is not None
                ]
        return rows[: self.rows]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero_lab.papers.training import trained

        own = {name: value for name, value in settings.items() if name != "data"}
        rows = self.data(made, settings.get("data", "outcome"), seed)
        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        return trained(str(made.start.folder), rows, own, seed=seed, **budget)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from statistics import fmean

        from prefero.demo.start import one_thread
        from prefero.evaluate.divergence import divergence
        from prefero.evaluate.programs import pass_at_k
        from prefero_lab.papers.text import log_ratios
        from prefero_lab.worlds.arithmetic import check, grouped

        with one_thread():
            greedy = self._greedy(made.start, model, seed)
            samples = self._drawn(made.start, model, seed, count=self.attempts)
            firsts = samples[:: self.attempts]
            found: dict[str, list[float]] = {
                "greedy": greedy,
                "kl": [divergence(model, made.start.model, [one.cell for one in firsts]).value],
                **log_ratios(cast(Any, made), model, len(made.rows)),
            }
        groups = grouped(samples)
        checked = [[check(prompt, one.text) for one in own] for prompt, own in groups.items()]
        for k in sorted({1, 4, self.attempts}):
            found[f"pass@{k}"] = [pass_at_k(len(own), sum(one.right for one in own), k) for own in checked]
        for name in ("valid", "lucky"):
            found[name] = [fmean(float(getattr(one, name)) for one in own) for own in checked]
        found["entropy"] = [-fmean(float(one.logps.sum()) for one in own) for own in groups.values()]
        found["distinct"] = [len({one.text for one in own}) / len(own) for own in groups.values()]
        return found

    def _greedy(self, start: StartModel, model: nn.Module, seed: int) -> list[float]:
        likeliest = self._drawn(start, model, seed, count=1, temperature=0.0)
        return [self.world.gold(str(one.prompt), one.text) for one in likeliest]

    def _drawn(
        self, start: StartModel, model: nn.Module, seed: int, *, count: int, temperature: float = 1.0
    ) -> list[Sample]:
        """Answers to the test problems, under the same noise for every model."""
        from prefero.demo.text import stream
        from prefero.generate.sampling import sample

        world = self.world
        draw = partial(
            sample, model, start.tokenizer, world.draw_prompts("held-out", self.test_problems, seed)
        )
        return draw(
            count=count,
            temperature=temperature,
            max_new_tokens=world.max_new_tokens,
            generator=stream(world.name, "held-out", seed),
            batch_size=1024,
        )
