"""Held-out numbers: one value an example, whatever the rows and the number of processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prefero.objectives.batch import Signal
from prefero.objectives.compare import Objective
from prefero.training.joining import joined, taken
from prefero.training.metrics import measure, with_differences
from prefero.training.scoring import Scorer
from prefero.training.updates import Ranks, to_device


@dataclass(frozen=True)
class Evaluated:
    """``values`` and ``weights`` by metric, one number an example in the order of the data set; an example
    that does not have a metric has weight 0. ``loss`` is the objective's."""

    loss: float
    values: Mapping[str, NDArray[np.float64]]
    weights: Mapping[str, NDArray[np.float64]]
    examples: int

    def means(self) -> dict[str, float]:
        means = {
            name: float(np.average(values, weights=self.weights[name]))
            for name, values in self.values.items()
            if self.weights[name].sum() > 0
        }
        return {"loss": self.loss, **with_differences(means)}


@torch.no_grad()
def evaluate(
    policy: nn.Module,
    rows: Iterable[Mapping[str, Any]],
    objective: Objective,
    scorer: Scorer,
    ranks: Ranks,
    *,
    rows_per_step: int,
    exact: bool,
    extra: frozenset[Signal] = frozenset(),
    progress: float = 0.0,
) -> Evaluated:
    """Measure the rows of all ranks.

    An objective that is a sum over examples is averaged over all of them; any other is evaluated on groups as
    large as an optimizer step, and averaged over these by their number of examples. ``extra`` signals of the
    policy are measured besides those that the objective needs.
    """
    training = policy.training, objective.training
    policy.eval(), objective.eval()
    found: list[dict[str, Any]] = []
    totals, counts = torch.zeros(0), torch.zeros(0)
    steps: list[tuple[float, int]] = []
    iterator = iter(rows)
    while group := list(islice(iterator, rows_per_step)):
        scored = []
        for row in group:
            row = to_device(row, ranks.device)
            batch = scorer(policy, row, extra=extra, progress=progress)
            scored.append((batch, row))
            if row["weight"] > 0:
                found.append(
                    {"example": row["example"].cpu(), "measured": to_device(measure(batch, objective), "cpu")}
                )
            if exact:
                terms = objective(batch)
                weight = row["weight"].cpu()
                total = torch.stack([term.total for term in terms]).double().cpu() * weight
                count = torch.stack([term.count for term in terms]).double().cpu() * weight
                totals, counts = (totals + total, counts + count) if len(totals) else (total, count)
        if not exact:
            steps.append(_step_loss(scored, objective, ranks))
    policy.train(training[0]), objective.train(training[1])
    if exact:
        totals, counts = ranks.sum(torch.stack([totals, counts]).to(ranks.device))
        loss = float((totals / counts.clamp(min=1)).sum())
    else:
        loss = sum(value * size for value, size in steps) / sum(size for _, size in steps)
    return _in_order(loss, ranks.gather(found))


def _step_loss(scored: Sequence[tuple[Any, Any]], objective: Objective, ranks: Ranks) -> tuple[float, int]:
    mine = [to_device((batch, row["example"], row["weight"]), "cpu") for batch, row in scored]
    everyone = [part for part in ranks.gather(mine) if part[2] > 0]
    order = torch.cat([example for _, example, _ in everyone]).argsort(stable=True)
    whole = taken(joined([batch for batch, _, _ in everyone]), order)
    return float(objective.loss(to_device(whole, ranks.device))), len(order)


def _in_order(loss: float, found: Sequence[Mapping[str, Any]]) -> Evaluated:
    examples = torch.cat([part["example"] for part in found]).numpy()
    names = dict.fromkeys(name for part in found for name in part["measured"])
    values, weights = {}, {}
    for name in names:
        both = np.zeros((2, len(examples)))
        start = 0
        for part in found:
            stop = start + len(part["example"])
            if name in part["measured"]:
                both[:, start:stop] = np.stack([side.double().numpy() for side in part["measured"][name]])
            start = stop
        order = np.argsort(examples, kind="stable")
        values[name], weights[name] = both[:, order]
    return Evaluated(loss, values, weights, len(examples))
