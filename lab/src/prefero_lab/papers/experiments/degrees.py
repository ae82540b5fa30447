"""The experiment on degrees of preference: responses with part of their content taken out, told by a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.experiments.ranking import Ranked, RankingExperiment, cells, margins
from prefero_lab.papers.text import Made

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prefero.objectives import Objective
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Aware:
    """A policy, and the objective that it was trained by, whose head tells degrees if it has one."""

    model: nn.Module
    objective: Objective | None = None


@dataclass(frozen=True)
class DegreesExperiment(RankingExperiment):
    """A :class:`.RankingExperiment` on pairs with variants of both responses, of which
    key phrases are taken out (:func:`~prefero.feedback.degrading.with_degraded_responses`): one of
    ``degrees`` for each, drawn once.

    Measured beside what that experiment measures, on all variants of the better answers to held-out prompts:
    ``degree``, 1 where the arm's own head tells how much was taken out; an arm that has none guesses the
    commonest degree. ``probe`` is the same of a linear head that is fitted to half of the prompts for any
    arm, on the other half. ``graded`` is 1 where, of two variants of one answer, the one that lacks less has
    the higher log-ratio, ½ where both have the same.
    """

    degrees: int = 3

    def start(self, made: Made) -> Aware:  # type: ignore[override]
        return Aware(made.start.model)

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Aware]:  # type: ignore[override]
        import numpy as np

        from prefero.data.formats import load_examples
        from prefero.feedback.degrading import with_degraded_responses
        from prefero.objectives.configurations import from_config
        from prefero_lab.papers.paper import Trained

        numbers, examples = np.random.default_rng(seed), load_examples(made.rows)
        items = [with_degraded_responses(one, numbers, degrees=self.degrees) for one in examples]
        objective = from_config(settings["objective"])
        varied: Any = replace(examples, items=items)
        given = {**settings, "objective": objective}
        found = super().train(replace(made, rows=varied), given, seed)
        return Trained(Aware(found.model, objective), found.curves)

    def measure(self, made: Made, model: Aware, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        import torch

        from prefero.demo.start import one_thread

        assert isinstance(made, Ranked)
        measured = super().measure(made, model.model, seed)
        rows, degree, whose = self.variants(made)
        pairs = cells(made, rows)
        with one_thread(), torch.no_grad():
            found = states(model.model, pairs)
            own = head(model.objective)
            guessed = own(found).argmax(-1) if own else torch.full_like(degree, int(degree.mode().values))
            moved = margins(model.model, pairs) - margins(made.start.model, pairs)
        return {
            **measured,
            "degree": (guessed == degree).double().tolist(),
            "probe": probed(found, degree, whose % 2 == 0, self.degrees),
            "graded": list(graded(moved.tolist(), degree.tolist(), whose.tolist())),
        }

    def variants(self, made: Ranked) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
        """Rows with a variant in place of the better answer; the variants' degrees; and which answer they are
        of."""
        import torch

        from prefero.feedback.degrading import degraded

        rows, degree, whose = [], [], []
        for number, row in enumerate(made.texts):
            for variant in degraded(row["chosen"], self.degrees):
                rows.append({**row, "chosen": variant.text})
                degree.append(variant.degree)
                whose.append(number)
        return rows, torch.tensor(degree), torch.tensor(whose)


def states(model: nn.Module, pairs: Sequence[Any]) -> Tensor:
    """The state of the last token of the first text of each pair."""
    import torch

    from prefero.data.trie import TokenExample
    from prefero.models.scoring import scored_rows
    from prefero.objectives.signals import STATE

    examples = [TokenExample(pair, {}, i) for i, pair in enumerate(pairs)]
    found: list[Tensor] = [torch.empty(0)] * len(pairs)
    for row, scored in scored_rows(model, examples, frozenset({STATE})):
        for place, i in enumerate(row):
            found[i] = scored.signals[STATE][place, 0].float()
    return torch.stack(found)


def head(objective: Objective | None) -> nn.Module | None:
    """The module that tells degrees, of an objective that has one."""
    from prefero.objectives.heads import VectorHead

    modules = objective.modules() if objective is not None else ()
    return next((one.module for one in modules if isinstance(one, VectorHead)), None)


def probed(found: Tensor, degree: Tensor, fitting: Tensor, degrees: int) -> list[float]:
    """1 where a linear head tells the degree right, of states that it was not fitted to."""
    import torch
    import torch.nn.functional as F

    with torch.enable_grad():
        linear = torch.nn.Linear(found.shape[-1], degrees)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(linear(found[fitting]), degree[fitting])
            loss = loss + 1e-3 * linear.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        told = linear(found[~fitting]).argmax(-1)
    return (told == degree[~fitting]).double().tolist()


def graded(moved: Sequence[float], degree: Sequence[int], whose: Sequence[int]) -> Iterator[float]:
    """For each two variants of one answer, which come in the order of their degrees, whether the first has
    the higher log-ratio. ``moved`` may have anything in common for all variants of an answer."""
    for first in range(len(moved)):
        for second in range(first + 1, len(moved)):
            if whose[first] != whose[second]:
                break
            assert degree[first] < degree[second]
            yield 0.5 if moved[first] == moved[second] else float(moved[first] > moved[second])
