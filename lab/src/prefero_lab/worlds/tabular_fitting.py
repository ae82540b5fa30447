"""Tabular policies fitted to all rows at once: to rounding, where a gradient method is not the question, or
by a number of steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.data.examples import Examples
from prefero.data.formats import load_examples
from prefero.data.schema import SCHEMA
from prefero.errors import PreferoError
from prefero.models.tabular.policy import TabularPolicy, arrange, score
from prefero.models.tabular.table import Table, look_up
from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.needs import dry_run
from prefero.training.batches import collated

Row = Mapping[str, Any]

Policy = TypeVar("Policy", bound=nn.Module)
"""Whatever gives logits of all responses to the prompts that it is asked for."""


class WholeBatch:
    """All rows as the batch that an objective reads: a function of the models alone."""

    def __init__(self, objective: Objective, rows: Sequence[Row] | Examples, table: Table) -> None:
        """Raises :class:`PreferoError` for an objective that reads views or noise."""
        needs = dry_run(objective)
        if needs.views or any(SCHEMA[name].drawn for name in needs.columns):
            raise PreferoError(
                f"{objective.key or type(objective).__name__} reads more than log-probabilities, signals and "
                "annotations of the rows; PreferenceTrainer gives it all"
            )
        self.signals = needs.models
        examples = rows if isinstance(rows, Examples) else load_examples(rows)
        items = look_up(examples, table, roles=needs.roles, columns=needs.columns)
        self.objective, self.roles, self.row = objective.double(), needs.roles, arrange(list(items), table)
        self.columns = {
            name: collated([item.columns[name] for item in items], SCHEMA[name]) for name in needs.columns
        }

    def loss(self, policy: nn.Module, **others: nn.Module) -> Float[Tensor, ""]:
        """``others`` are the other models that the objective reads, by name; they get no gradient."""
        with torch.no_grad():
            logits = {name: other(prompts=self.row.prompts).logits for name, other in others.items()}

        def scored(name: str, model: nn.Module) -> TokenLogps:
            return score(model, self.row, self.signals.get(name, frozenset()), logits)[""]

        models = {"policy": scored("policy", policy)}
        with torch.no_grad():
            models |= {name: scored(name, other) for name, other in others.items()}
        return self.objective.loss(PreferenceBatch(models, self.columns, self.roles))


def fitted(
    objective: Objective, rows: Sequence[Row] | Examples, policy: TabularPolicy, **others: TabularPolicy
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


def descended(
    batch: WholeBatch,
    policy: Policy,
    steps: int,
    learning_rate: float,
    *,
    redraw: Callable[[Policy], None] = lambda policy: None,
    **others: nn.Module,
) -> Policy:
    """A copy of the policy after as many steps of Adam on the batch, whose rate falls to 0 in a line: where
    the loss has no smallest value, or where ``redraw`` changes the batch before each step, by the policy
    then."""
    found = copy.deepcopy(policy)
    optimizer = torch.optim.Adam(found.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        redraw(found)
        optimizer.zero_grad()
        batch.loss(found, **others).backward()
        optimizer.step()
        schedule.step()
    return found
