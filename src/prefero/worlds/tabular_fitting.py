"""Tabular policies fitted to all rows at once, to rounding: where a gradient method is not the question."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.data.formats import load_examples
from prefero.data.schema import SCHEMA
from prefero.data.table import Table, look_up
from prefero.errors import PreferoError
from prefero.models.tabular import TabularPolicy, arrange, score
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Objective
from prefero.objectives.needs import dry_run
from prefero.training.collate import collated

Row = Mapping[str, Any]


class WholeBatch:
    """All rows as the batch that an objective reads: a function of the models alone."""

    def __init__(self, objective: Objective, rows: Sequence[Row], table: Table) -> None:
        """Raises :class:`PreferoError` for an objective that reads views, signals or noise."""
        needs = dry_run(objective)
        if needs.views or any(needs.models.values()) or any(SCHEMA[name].drawn for name in needs.columns):
            raise PreferoError(
                f"{objective.key or type(objective).__name__} reads more than log-probabilities and "
                "annotations of the rows; PreferenceTrainer gives it all"
            )
        items = look_up(load_examples(rows), table, roles=needs.roles, columns=needs.columns)
        self.objective, self.roles, self.row = objective.double(), needs.roles, arrange(list(items), table)
        self.columns = {
            name: collated([item.columns[name] for item in items], SCHEMA[name]) for name in needs.columns
        }

    def loss(self, policy: TabularPolicy, **others: TabularPolicy) -> Float[Tensor, ""]:
        """``others`` are the other models that the objective reads, by name; they get no gradient."""
        models = {"policy": score(policy, self.row)[""]}
        with torch.no_grad():
            models |= {name: score(other, self.row)[""] for name, other in others.items()}
        return self.objective.loss(PreferenceBatch(models, self.columns, self.roles))


def fitted(
    objective: Objective, rows: Sequence[Row], policy: TabularPolicy, **others: TabularPolicy
) -> TabularPolicy:
    """A copy of the policy with the smallest loss on these rows, near where it was."""
    return minimised(WholeBatch(objective, rows, policy.table), policy, **others)


def minimised(batch: WholeBatch, policy: TabularPolicy, **others: TabularPolicy) -> TabularPolicy:
    """A copy of the policy with the smallest loss of the batch, near where it was, by L-BFGS."""
    found = copy.deepcopy(policy)
    optimizer = torch.optim.LBFGS(
        [found.theta], max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = batch.loss(found, **others)
        loss.backward()
        return loss

    optimizer.step(closure)
    return found
