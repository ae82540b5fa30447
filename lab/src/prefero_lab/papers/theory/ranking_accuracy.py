"""Ranking accuracy: what DPO's reward orders right, the policy itself often does not."""

from __future__ import annotations

from collections.abc import Sequence

from prefero_lab.papers.experiments.policy_rankings import PolicyRankings
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper

DPO = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}
FREE = {"objective": {"method": "dpo_gamma", "beta": 0.1, "gamma": 0.0}, "learning_rate": 2e-3}


def threshold(seed: int) -> Sequence[Number]:
    """The loss below which the policy orders a pair, and the accuracy of a perfect optimiser."""
    import torch

    from prefero.evaluate.ranking import ideal_margin, loss_that_orders, ordered, share
    from prefero.objectives import PreferenceBatch, TokenLogps, method

    numbers = torch.Generator().manual_seed(seed)
    policy, reference = -20 * torch.rand(2, 2000, 2, 1, generator=numbers, dtype=torch.float64)
    mask = torch.ones_like(policy, dtype=torch.bool)
    objective = method("dpo", beta=0.1).double()

    def loss(one: int) -> float:
        place = slice(one, one + 1)
        models = {"policy": TokenLogps(policy[place], mask[place])}
        models["reference"] = TokenLogps(reference[place], mask[place])
        return float(objective.loss(PreferenceBatch(models)))

    margin, before = ((side[:, 0] - side[:, 1])[:, 0] for side in (policy, reference))
    enough = torch.tensor([loss(one) for one in range(len(margin))]) <= loss_that_orders(before, 0.1)
    even, sure = torch.full_like(before, 0.5), torch.full_like(before, 0.75)
    needed = loss_that_orders(torch.tensor([-5.0, -30.0], dtype=torch.float64), 0.1)
    return [
        Number.near(
            "pairs ordered although the loss is above, or not although below",
            float((enough != ordered(margin)).sum()),
            0,
        ),
        Number.near("loss that orders a pair that is wrong by 5 nats", float(needed[0]), 0.4741, 5e-5),
        Number.near("by 30 nats", float(needed[1]), 0.0486, 5e-5),
        Number.near(
            "ideal accuracy less the reference's, annotators divided",
            share(ordered(ideal_margin(before, even, 0.1))) - share(ordered(before)),
            0,
        ),
        Number.near(
            "ideal accuracy, three of four annotators, β = 0.01",
            share(ordered(ideal_margin(before, sure, 0.01))),
            1,
        ),
        Number(
            "ideal accuracy, three of four annotators, β = 1",
            share(ordered(ideal_margin(before, sure, 1.0))),
            high=0.65,
        ),
    ]


PAPER = Paper(
    id="p143",
    title="Preference Learning Algorithms Do Not Learn Preference Rankings",
    citation="Chen et al., 2024, arXiv 2405.19534",
    adds="Whether the policy itself finds the chosen response likelier: how far that is from what a "
    "perfect optimiser would reach, and which pairs are flipped.",
    methods=("dpo", "dpo_gamma"),
    evidence=(
        Check(
            statement="The policy orders a pair just where DPO's loss is below a threshold that falls with "
            "how wrong the reference is; a perfect optimiser orders all pairs if β is small.",
            run=threshold,
            refuted_by="a pair that is ordered above the threshold, or not below it",
            seconds=10,
        ),
        Claim(
            statement="After DPO the policy's likelihood orders far fewer new pairs than that of a perfect "
            "optimiser would. Of the pairs that the reference has wrong, those that it has less wrong are "
            "flipped first; without a reference in the loss more are in order.",
            experiment=PolicyRankings(pairs=1024, epochs=2.0),
            arms=(
                START,
                Arm("dpo", DPO),
                Arm("dpo, 10 steps", {**DPO, "max_steps": 10}),
                Arm("γ = 0", FREE),
                Arm("ideal, β = 0.1", {"ideal": 0.1}),
            ),
            expected=(
                Expectation("dpo", "ideal, β = 0.1", "held_out", "lower", by=0.1),
                Expectation("dpo", "start", "easy_flipped", by=0.05),
                Expectation("dpo, 10 steps", "start", "easy_flipped", by=0.05),
                Expectation("γ = 0", "dpo", "trained", by=0.03),
                Expectation("dpo", "start", "trained", counts=False),
                Expectation("dpo", "start", "held_out", counts=False),
            ),
            refuted_by="a policy within a tenth of the ideal accuracy, hard pairs that are flipped as often "
            "as easy ones, or a loss without a reference that leaves as many pairs in the wrong order",
            seconds=80,
            first_seconds=90,
        ),
    ),
    note="The ideal is that of annotators as sure as those who labelled the pairs. How many pairs the reward "
    "orders right (trained_reward) is shown beside how many the policy does (trained).",
)
