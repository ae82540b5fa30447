"""The logic of preference losses: each is a statement about what a model accepts, and can be compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper
from prefero_lab.papers.text import TextExperiment

if TYPE_CHECKING:
    from prefero.logic import Proposition

LINK = {"method": "logic", "beta": 2.0, "formula": "M(y_l) -> M(y_w)"}
"""All compiled losses of the claim say: who accepts the rejected response accepts the chosen one."""

CONDITIONS = {
    "cpo": {"condition": "M(y_w) | M(y_l)", "both": "M(y_w) & M(y_l)"},
    "orpo": {"condition": "M(y_w) ^ M(y_l)", "both": "false"},
    "ccpo": {"condition": "M(y_w) | M(y_l)", "both": "false"},
}
"""Assignments that count, and those that count on both sides: ORPO leaves out that both responses are
accepted, CPO counts it on both sides, and cCPO for the preference."""


def compiled(seed: int) -> Sequence[Number]:
    """Compiled losses beside the catalogue's, and the order that entailment gives them."""
    import random

    import torch

    from prefero.logic import PUBLISHED, every_structure, parse
    from prefero.logic.structures import from_assignments, weighted_count
    from prefero.objectives import Objective, PreferenceBatch, TokenLogps, from_config, method

    numbers = torch.Generator().manual_seed(seed)
    logps = -3 * torch.rand(2, 32, 2, 5, generator=numbers, dtype=torch.float64)
    lengths = torch.randint(1, 6, (32, 2, 1), generator=numbers)
    mask = torch.arange(5) < lengths

    def slopes(objective: Objective) -> torch.Tensor:
        policy = logps[0].clone().requires_grad_()
        models = {"policy": TokenLogps(policy, mask), "reference": TokenLogps(logps[1], mask)}
        loss = objective.double().loss(PreferenceBatch(models))
        return torch.cat([torch.autograd.grad(loss, policy)[0].flatten(), loss.detach()[None]])

    def apart(name: str, like: Objective, **settings: object) -> Number:
        own = method("logic", **PUBLISHED[name].structure.formulas, **settings)
        difference = (slopes(own) - slopes(like)).abs().max().item()
        return Number.near(f"{name}, compiled: distance of loss and gradient", difference, 0)

    both = [cast("Proposition", parse(text).head) for text in ("M(y_w)", "M(y_l)")]
    structures = list(every_structure(both))
    of_finite_loss = [sides for sides in structures if all(sides)]
    finite = [from_assignments(*sides, both) for sides in of_finite_loss]
    same = sum(one.over(both) == sides for one, sides in zip(finite, of_finite_loss, strict=True))

    rng, wrong, entailed = random.Random(seed), 0, 0
    for _ in range(3000):
        first, second = rng.sample(finite, 2)
        if not first.entails(second):
            continue
        entailed += 1
        point = [rng.uniform(0.01, 0.99) for _ in both]
        odds = []
        for one in (first, second):
            preferred, dispreferred = one.over(both)
            odds.append(weighted_count(preferred, point) / weighted_count(dispreferred, point))
        wrong += odds[0] > odds[1] * (1 + 1e-12)
    orpo, ccpo = (slopes(from_config({**LINK, **CONDITIONS[name]}))[-1] for name in ("orpo", "ccpo"))
    return [
        apart("dpo", method("dpo", beta=0.1), beta=0.1, tokens="sum"),
        apart("simpo", method("simpo", beta=2.0, gamma=1.0), beta=2.0, gamma=1.0),
        apart("cpo", method("cpo", beta=0.1, lam=0.0), beta=0.1, tokens="sum"),
        Number.near("structures over two propositions", len(structures), 256),
        Number.near("with a finite loss, that come back from their formulas", same, 225),
        Number("pairs of them looked at, of which one entails the other", entailed, low=20),
        Number.near("entailed losses that are higher", wrong, 0),
        Number("cCPO's loss less ORPO's", float(ccpo - orpo), high=0.0),
    ]


STEP = 1e-3

PAPER = Paper(
    id="p149",
    title="Understanding the Logic of Direct Preference Alignment through Logic",
    citation="Richardson et al., 2024, arXiv 2412.17696",
    adds="Preference losses as statements of propositional logic about what a model accepts, so that they "
    "can be read, ordered by entailment, and new ones compiled.",
    methods=("logic",),
    evidence=(
        Check(
            statement="Losses that are compiled from statements are those of the catalogue; of two "
            "statements, that which entails the other has nowhere the lower loss.",
            run=compiled,
            refuted_by="a compiled loss with another value or gradient, a structure that does not come back, "
            "or an entailed loss that is higher",
            seconds=15,
        ),
        Claim(
            statement="What a statement is conditioned on changes what is learnt: cCPO, a new loss, keeps "
            "chosen responses likelier than CPO and ORPO do, and gives about as much of the true reward.",
            experiment=TextExperiment("reviews", pairs=1024, epochs=2.0, prompts=256),
            arms=(
                START,
                *(
                    Arm(name, {"objective": {**LINK, **conditions}, "learning_rate": STEP})
                    for name, conditions in CONDITIONS.items()
                ),
            ),
            expected=(
                Expectation("ccpo", "cpo", "gold_reward", by=-0.05),
                Expectation("ccpo", "orpo", "gold_reward", by=-0.05),
                Expectation("ccpo", "cpo", "chosen_log_ratio", by=0.1),
                Expectation("ccpo", "orpo", "chosen_log_ratio", by=0.1),
                Expectation("ccpo", "start", "gold_reward", counts=False),
                Expectation("ccpo", "cpo", "kl", "lower", counts=False),
                Expectation("orpo", "cpo", "kl", "lower", counts=False),
            ),
            refuted_by="chosen responses that cCPO leaves no likelier than CPO or ORPO, or a loss of a "
            "twentieth of reward against one of them",
            seconds=90,
            first_seconds=90,
        ),
    ),
    note="Means over tokens, one link, strength and step size for all, and no likelihood term. That cCPO "
    "keeps chosen responses likelier is read off its gradient, not a sentence of the paper's, which says "
    "that the condition matters and that cCPO is competitive.",
)
