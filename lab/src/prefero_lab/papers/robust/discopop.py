"""DiscoPOP: a loss that a search found, and the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from prefero_lab.papers.experiments.objective_search import ObjectiveSearch
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper
from prefero_lab.papers.text import TextExperiment

if TYPE_CHECKING:
    from torch import Tensor

BETA = 0.05


def curve(method: str, places: Tensor, **settings: float) -> tuple[Tensor, Tensor]:
    """The loss of single pairs and its slope in z = β h, at these z."""
    import torch

    from prefero.objectives import PreferenceBatch, TokenLogps, method as built

    objective, z = built(method, beta=BETA, **settings).double(), places.clone().requires_grad_()
    # the chosen response's log-ratio is all of the gap; log-probabilities stay negative
    reference = torch.full((len(z), 2, 1), -1e4, dtype=z.dtype)
    policy = reference + torch.stack([z / BETA, torch.zeros_like(z)], -1)[..., None]
    mask = torch.ones_like(reference, dtype=torch.bool)
    losses = torch.stack(
        [
            objective.loss(
                PreferenceBatch(
                    {
                        name: TokenLogps(logps[one : one + 1], mask[one : one + 1])
                        for name, logps in (("policy", policy), ("reference", reference))
                    }
                )
            )
            for one in range(len(z))
        ]
    )
    (slope,) = torch.autograd.grad(losses.sum(), z)
    return losses.detach(), slope


def shape(seed: int) -> Sequence[Number]:
    """Values, slopes and turning points of the loss; nothing in it is random but where it is held against
    its ends."""
    import torch

    from prefero.demo.start import one_thread

    numbers = torch.Generator().manual_seed(seed)
    far = 2 + 3 * torch.rand(20, generator=numbers, dtype=torch.float64)
    grid = torch.linspace(-0.5, 0.5, 201, dtype=torch.float64)
    with one_thread():
        loss, slope = curve("discopop", grid)
        right, wrong = (curve("discopop", places)[0] for places in (far, -far))
        _, smooth = curve("discopop", grid, tau=1.0)
    rises = grid[slope > 0]
    return [
        Number.near("loss at z = 0, where training starts", loss[100].item(), (1 + math.log(2)) / 2),
        Number.near(
            "slope there: margins shrink at first",
            slope[100].item(),
            -0.75 + (1 - math.log(2)) / (4 * 0.05),
        ),
        Number.near("slope there with τ = 1", smooth[100].item(), -0.75 + (1 - math.log(2)) / 4),
        Number("steepest slope anywhere with τ = 1", smooth.max().item(), high=0.0),
        Number.near("z of the local minimum", rises.min().item(), -0.12, 0.01),
        Number.near("z of the local maximum", rises.max().item(), 0.07, 0.01),
        Number.near("far on the right side: loss over exp(−z)", (right * far.exp()).max().item(), 1),
        Number.near(
            "far on the wrong side: distance to the logistic loss",
            (wrong - far.exp().log1p()).abs().max().item(),
            0,
        ),
    ]


def searched(seed: int) -> Sequence[Number]:
    """One search: its order, its best entry, and what it refused."""
    from prefero_lab.discovery.archive import ranked
    from prefero_lab.papers.experiments.objective_search import BROKEN

    (search,) = ObjectiveSearch(worlds=1).make(seed)
    order = ranked(search.entries)
    fitness = [one.fitness or 0.0 for one in order]
    dpo = next(one.fitness or 0.0 for one in order if one.name == "logistic")
    refused = {one.name for one in search.entries if one.reason}
    return [
        Number("best entry's gain less DPO's", fitness[0] - dpo, low=0.0),
        Number("entries that stand behind a worse one", sum(a < b for a, b in pairwise(fitness)), high=0.0),
        Number.near("broken losses that were refused", len(refused & set(BROKEN)), len(BROKEN)),
        Number.near("others", len(refused - set(BROKEN)), 0),
    ]


STEP_SIZES = {"learning_rate": (5e-4, 2e-3)}

PAPER = Paper(
    id="p100",
    title="Discovering Preference Optimization Algorithms with and for Large Language Models",
    citation="Lu et al., 2024, arXiv 2406.08414",
    adds="A language model proposes losses, which are trained, scored, and shown to it again; the best one "
    "found, DiscoPOP, blends the logistic and the exponential loss by the margin itself.",
    methods=("discopop",),
    evidence=(
        Check(
            statement="DiscoPOP is not convex: between z = −0.12 and z = 0.07, where training starts, it "
            "lowers margins; beyond, it is the exponential loss, and the logistic one on the wrong side.",
            run=shape,
            refuted_by="a slope of another sign where training starts, or other turning points or ends",
            seconds=5,
        ),
        Check(
            statement="A search over known and proposed losses ends no lower than DPO, which it began with, "
            "keeps its entries in order, and refuses broken ones.",
            run=searched,
            refuted_by="a best entry below one that the search had from the beginning, or a broken loss that "
            "is trained",
            seconds=10,
        ),
        Claim(
            statement="What a search finds gains as much as DPO on other pairs and prompts too than those it "
            "was scored on.",
            experiment=ObjectiveSearch(),
            arms=(
                Arm("best found", {"pick": "best"}),
                Arm("dpo", {"pick": "logistic"}),
                Arm("discopop", {"pick": "discopop"}),
            ),
            expected=(
                Expectation("best found", "dpo", "fresh_gain", by=-0.05),
                Expectation("best found", "dpo", "gain", counts=False),
                Expectation("discopop", "dpo", "fresh_gain", counts=False),
            ),
            refuted_by="a best entry that loses a twentieth of reward to DPO on other data",
            seconds=60,
        ),
        Claim(
            statement="DiscoPOP, as it was found, gives about as much of the true reward as DPO or more.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm(
                    "discopop",
                    {
                        "objective": {"method": "discopop", "beta": BETA, "tau": 0.05},
                        "learning_rate": 5e-4,
                    },
                    STEP_SIZES,
                ),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}),
            ),
            expected=(
                Expectation("discopop", "dpo", "gold_reward", by=-0.05),
                Expectation("discopop", "start", "gold_reward", by=0.05),
                Expectation("discopop", "dpo", "kl", "lower", counts=False),
                Expectation("discopop", "start", "valid", by=-0.1, counts=False),
            ),
            refuted_by="a policy that loses a twentieth of reward to DPO's, or that scores no higher than "
            "its start",
            seconds=150,
            first_seconds=90,
            tuning_seeds=(0,),
        ),
    ),
    note="The search's proposer is a list of the paper's own losses and three that must be refused. With "
    "the published β and τ, DiscoPOP's slope lowers margins where training starts: small models, "
    "whose log-ratios are a few nats, are not carried across, and learn the opposite of the "
    "preferences, on the bandit as on reviews.",
)
