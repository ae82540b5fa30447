"""Which update rule an objective is served by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective
from prefero.training.fast_slow import FastSlowStep
from prefero.training.oracle import ComparisonOracleStep
from prefero.training.scoring import Scorer
from prefero.training.updates import BackwardAndStep, Ranks, UpdateRule, WholeStep

RULES: Mapping[str, Callable[[Any, Scorer, Ranks], UpdateRule]] = {
    "comparison_oracle": ComparisonOracleStep,
    "fast_slow": FastSlowStep,
}
"""The rules of objectives that name one."""


def update_rule(objective: Objective, exact: bool, scorer: Scorer, ranks: Ranks) -> UpdateRule:
    """The rule that the objective names; else its gradient, row by row or, unless it is ``exact``, of the
    whole step.

    Raises :class:`PreferoError` for a sum with a part that names a rule: a sum steps by its gradient.
    """
    if objective.update is not None:
        return RULES[objective.update](objective, scorer, ranks)
    for part in objective.modules():
        if isinstance(part, Objective) and part.update is not None:
            raise PreferoError(
                f"{part.key or type(part).__name__} steps by a rule of its own ({part.update}), so it "
                "cannot be added to another objective"
            )
    return (BackwardAndStep if exact else WholeStep)(objective, scorer, ranks)
