"""The compiler of preference structures: a statement about what a model should accept in, its loss out."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.logic.formulas import Decision, Proposition, diagram
from prefero.logic.structures import PUBLISHED, PreferenceStructure, structure
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Pairwise, Sides, cell, cell_exists
from prefero.objectives.links import hinge, logistic, squared
from prefero.objectives.quantities import Logp, Quantity, log_complement
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published


class Counts(Pairwise):
    """What speaks for and against a preference: the logarithms of the weighted counts of f and f̄.

    The quantity is the log-probability with which the policy accepts a response, at most 0; ``accepted``
    makes the same of any model. Propositions are independent.
    """

    def __init__(self, preference: PreferenceStructure, accepted: Callable[[str], Quantity]) -> None:
        super().__init__()
        self.propositions = preference.propositions
        number = len(self.propositions)
        self.preferred = diagram(preference.preferred, number)
        self.dispreferred = diagram(preference.dispreferred, number)
        others = {one.model for one in self.propositions} - {"policy"}
        self.others = nn.ModuleDict({model: accepted(model) for model in sorted(others)})

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        exists = self.exists(batch)

        def log_probability(one: Proposition) -> Tensor:
            of = quantity if one.model == "policy" else cast("Quantity", self.others[one.model])
            # an absent response would have probability 1, whose complement has no logarithm
            return torch.where(exists, cell(of, batch, one.address), -1.0)

        logps = [log_probability(one) for one in self.propositions]
        return log_count(self.preferred, logps), log_count(self.dispreferred, logps)

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "example 1"]:
        return reduce(torch.logical_and, (cell_exists(batch, address) for address in self.addresses()))

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        return torch.stack([cell(quantity, batch, address) for address in self.addresses()]).sum(0)

    def addresses(self) -> list[str]:
        """The responses that the propositions speak of."""
        return sorted({one.address for one in self.propositions})


def log_count(
    decision: Decision | bool, logps: list[Float[Tensor, "example 1"]]
) -> Float[Tensor, "example 1"]:
    """log of a set of assignments' probability, by its diagram and the propositions' log-probabilities."""
    known: dict[int, Tensor] = {}

    def count(at: Decision | bool) -> Tensor | None:
        """None for the count 0."""
        if isinstance(at, bool):
            return torch.zeros_like(logps[0]) if at else None
        if id(at) not in known:
            branches = [
                below + weight
                for below, weight in (
                    (count(at.if_true), logps[at.index]),
                    (count(at.if_false), log_complement(logps[at.index])),
                )
                if below is not None
            ]
            known[id(at)] = reduce(torch.logaddexp, branches)
        return known[id(at)]

    found = count(decision)
    assert found is not None, "a structure's f and f̄ hold somewhere"
    return found


LINKS = {"logistic": logistic, "hinge": hinge, "squared": squared}
DPO, CPO = (PUBLISHED[name].structure.formulas for name in ("dpo", "cpo"))


@published(
    title="Semantic loss of a preference structure",
    paper="p149",
    citation="Richardson et al., 2024, arXiv 2412.17696",
    equation="−log σ(β log[WMC((P ∨ P_A) ∧ P_C) / WMC((¬P ∨ P_A) ∧ P_C)] − γ)",
    relatives=(
        "`formula`, `condition` and `both` are P, P_C and P_A. By default the paper's new loss cCPO: of what "
        "the policy accepts at least one of, the rejected response implies the chosen one. M(y_w) says that "
        "the policy accepts the chosen response, Ref(y_l) that the reference accepts the rejected one; "
        "prefero.logic reads known losses as such structures. The hinge and the square act on βρ − γ."
    ),
    equals=(
        Equal("dpo", at={**DPO, "tokens": "sum"}),
        Equal("simpo", at={**CPO, "gamma": 1.5}),
        Equal("cpo", at={**CPO, "tokens": "sum"}, given={"lam": 0.0}),
        Equal("slic", at={**CPO, "tokens": "sum", "link": "hinge"}, given={"lam": 0.0, "delta": 1.0}),
        Equal(
            "ipo",
            at={**DPO, "tokens": "sum", "link": "squared", "beta": 1.0, "gamma": 5.0},
            given={"tau": 0.1},
        ),
    ),
    pitfalls=(
        "A response is accepted with the probability e^(mean log-probability). With tokens=sum that is "
        "nearly 0 and its complement nearly 1, so only structures whose counts are products without 1 − p "
        "stay sensible, as DPO's."
    ),
)
def logic(
    formula: str = "M(y_l) -> M(y_w)",
    condition: str = "M(y_w) | M(y_l)",
    both: str = "false",
    beta: Positive = 1.0,
    gamma: NonNegative = 0.0,
    tokens: Literal["mean", "sum"] = "mean",
    link: Literal["logistic", "hinge", "squared"] = "logistic",
) -> Objective:
    """A statement of propositional logic about which responses models accept, as its loss.

    The margin is the log-ratio of the weighted counts of the assignments that speak for and against it.
    """

    def accepted(model: str) -> Quantity:
        return Logp(model).mean() if tokens == "mean" else Logp(model).sum()

    contrast = Counts(structure(formula, condition, both), accepted)
    return Compare(accepted("policy"), contrast, LINKS[link], target=gamma / beta, scale=beta)
