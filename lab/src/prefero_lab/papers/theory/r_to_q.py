"""From r to Q*: the log-ratio of each token is its credit, and likelihood is a value to search by."""

from __future__ import annotations

from collections.abc import Sequence

from prefero_lab.papers.experiments.decoding import Decoding
from prefero_lab.papers.experiments.token_credit import TokenCredit
from prefero_lab.papers.experiments.two_stages import TwoStages
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper

BETA = 0.7
DPO = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 5e-4}
SFT = {"objective": {"method": "nll"}, "learning_rate": 2e-3}


def soft_values(seed: int) -> Sequence[Number]:
    """A tree of three tokens, each one of two, with a random reference and random rewards."""
    import torch

    from prefero.theory.optima import reward_optimum
    from prefero.theory.token_trees import ROOT, TokenTree, response_logps, soft_optimum

    numbers = torch.Generator().manual_seed(seed)
    parent = [ROOT, ROOT, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    split = torch.randn(7, 2, generator=numbers, dtype=torch.float64).softmax(-1)
    leaf = torch.tensor([node not in parent for node in range(14)])
    reward = torch.where(leaf, torch.randn(14, generator=numbers, dtype=torch.float64), 0)
    tree = TokenTree(parent, split.flatten(), reward)
    best = soft_optimum(tree, BETA)
    reference = response_logps(tree, tree.reference).exp()
    whole = reward_optimum(reference, reward[leaf], BETA)
    credits = torch.stack([best.token_reward[path].sum() for path in tree.responses()])
    # a potential of every prefix, 0 at the ends: shaping that changes what tokens are paid, not what is best
    potential = torch.where(leaf, 0, torch.randn(14, generator=numbers, dtype=torch.float64))
    above = torch.stack([potential[one] if one != ROOT else potential.new_zeros(()) for one in parent])
    shaped = soft_optimum(TokenTree(parent, tree.reference, reward + potential - above), BETA)
    moved, changed = (
        (one - other).abs().max().item() for one, other in ((shaped.policy, best.policy), (shaped.q, best.q))
    )
    return [
        Number.near(
            "distance of the token by token optimum to that over responses",
            (response_logps(tree, best.policy).exp() - whole).abs().max().item(),
            0,
        ),
        Number.near(
            "distance of summed credits to the reward less the prompt's value",
            (credits - (reward[leaf] - best.root_value)).abs().max().item(),
            0,
        ),
        Number.near("what a potential changes in the policy", moved, 0),
        Number("what it changes in the values", changed, low=0.01),
    ]


PAPER = Paper(
    id="p103",
    title="From r to Q*: Your Language Model is Secretly a Q-Function",
    citation="Rafailov et al., 2024, arXiv 2404.12358",
    adds="DPO in the decision process of tokens: logits are soft-optimal values, so that log-ratios give "
    "credit to tokens, search by likelihood is search by value, and a reference fitted on chosen responses "
    "explains why their rewards fall.",
    methods=("dpo",),
    evidence=(
        Check(
            statement="In a token tree the soft-optimal policy is the optimum over whole responses; its "
            "token rewards add up to the response's, and shaping by a potential changes values alone.",
            run=soft_values,
            refuted_by="another policy or sum, or a potential that changes the policy",
            seconds=2,
        ),
        Claim(
            statement="After DPO on pairs that differ in one word, the log-ratio is lowest at that word.",
            experiment=TokenCredit(),
            arms=(
                START,
                Arm("dpo", DPO),
                Arm("chance", {"guess": "chance"}),
                Arm("least likely token", {"guess": "likelihood"}),
            ),
            expected=(
                Expectation("dpo", "chance", "found", by=0.45),
                Expectation("dpo", "least likely token", "found", by=0.1),
                Expectation("dpo", "start", "credit", "lower", by=0.1),
                Expectation("dpo", "chance", "near", counts=False),
            ),
            refuted_by="a lowest log-ratio that is not at the word in about half of the responses, or no "
            "more often than the start model's least likely token is",
            seconds=30,
            first_seconds=90,
        ),
        Claim(
            statement="Beam search by the likelihood of DPO's policy gives more of the true reward than "
            "sampling from it or taking the likeliest token.",
            experiment=Decoding(pairs=1024, epochs=2.0, prompts=256),
            arms=(
                Arm("sampling", {"beams": 0}),
                Arm("greedy", {"beams": 1}),
                Arm("5 beams", {"beams": 5}),
                Arm("5 beams, total likelihood", {"beams": 5, "length_penalty": 0.0}),
                Arm("5 beams of the start", {"beams": 5, "of": "start"}),
            ),
            expected=(
                Expectation("5 beams", "sampling", "gold_reward", by=0.05),
                Expectation("5 beams", "greedy", "gold_reward", by=0.05),
                Expectation("5 beams", "5 beams of the start", "gold_reward", counts=False),
                Expectation("5 beams", "5 beams, total likelihood", "gold_reward", counts=False),
                Expectation("5 beams, total likelihood", "sampling", "length", "lower", counts=False),
            ),
            refuted_by="texts of five beams that are worth no more than samples, or than greedy ones",
            seconds=60,
        ),
        Claim(
            statement="The reward of chosen responses falls if the reference was fitted on them, and rises "
            "if it was not.",
            experiment=TwoStages(pairs=512, prompts=128, chosen_demonstrated=True),
            arms=(
                START,
                Arm("not fitted", {"first": None, "second": DPO}),
                Arm("fitted", {"first": SFT, "second": DPO}),
            ),
            expected=(
                Expectation("fitted", "start", "chosen_reward", "lower", by=0.1),
                Expectation("not fitted", "start", "chosen_reward", by=0.1),
                Expectation("fitted", "not fitted", "rejected_reward", "lower", counts=False),
            ),
            refuted_by="chosen responses whose log-ratio moves the same way whatever the reference "
            "was fitted on",
            seconds=60,
        ),
    ),
    note="Beams that have ended are compared by their mean log-probability; by the total the empty text "
    "wins, which the start model writes now and then. What five beams find in DPO's policy is worth "
    "more than samples in one seed of three, and they gain as much in the start model. Rewards of "
    "chosen responses move as the paper says, of those that the reference was not fitted on by "
    "little.",
)
