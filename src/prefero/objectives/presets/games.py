"""Self-play and games: win rates against the sampling policy as targets, opponents as references.

The models are named by their part in a round. ``reference`` is the denominator that the equation has; where
that is π_t, the policy at the start of the round, the loop makes it the reference. ``previous`` is π_t where
an equation has the fixed reference too.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, Sum
from prefero.objectives.contrasts import Comparisons, EachOf, GapOf, Pair, TotalOf
from prefero.objectives.links import identity, logistic, smoothed, squared
from prefero.objectives.quantities import Column, Logp, Quantity, Sides, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Share
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published

PREVIOUS = (
    "The reference is the policy at the start of the round (π_t), which the loop has to set: with the "
    "initial model in every round it is another method."
)


@published(
    title="Self-play preference optimization",
    paper="p165",
    citation="Wu et al., 2024, arXiv 2405.00675, eq. 4.7",
    equation="½ Σ_{y ∈ {y_w, y_l}} (log π(y)/π_t(y) − (P(y ≻ π_t) − ½)/β)²",
    feedback={"pairs", "scores", "samples"},
    settings={"mistral-7b": {"beta": 0.001, "learning_rate": 5e-7}},
    relatives=(
        "No difference of rewards: either response has its own target. β is the paper's 1/η. TRL's sppo_hard "
        "is labels: hard without the ½. gpo takes scores (log-odds) for P − ½. " + PREVIOUS
    ),
    pitfalls=(
        "Targets are hundreds of nats at β = 0.001, so gradients are large: the authors use RMSprop and a "
        "tiny learning rate."
    ),
)
def sppo(beta: Positive = 0.001, labels: Literal["win_rate", "hard"] = "win_rate") -> Objective:
    """The log-ratio of each response regressed on its centred win rate against the sampling policy.

    ``labels: hard`` takes 1 and 0 for the win rates of the chosen and the rejected response.
    """
    win_rate = Column("win_rate") if labels == "win_rate" else Sides(chosen=1.0, rejected=0.0)
    return regressed_on((win_rate - 0.5) / beta)


def regressed_on(target: Quantity) -> Compare:
    """The squared difference of each response's log-ratio from its own target, a mean over the pair."""
    sides = EachOf("chosen", "rejected")
    return Compare(log_ratio().sum(), sides, squared, target=TotalOf(target), reduce=mean_of_means)


@published(
    title="Direct Nash optimization",
    paper="p081",
    citation="Rosset et al., 2024, arXiv 2404.03715, algorithm 1, line 4",
    equation="−z log σ(d) − (1−z) log σ(−d), z = σ(P(y₁ ≻ π_t) − P(y₂ ≻ π_t)), d = η [u(y₁) − u(y₂)]",
    feedback={"pairs", "scores", "samples"},
    settings={"orca-2.5-7b": {"eta": 0.1, "learning_rate": 5e-5}},
    relatives=(
        "η multiplies the log-ratio u = log π/π_t: it is DPO's β. z is the sigmoid of a difference of "
        "probabilities, so it lies in [0.27, 0.73]. labels: hard is the practical DNO-Prct: DPO on filtered "
        "pairs. " + PREVIOUS
    ),
    equals=(Equal("dpo", at={"labels": "hard", "eta": 0.1}, given={"beta": 0.1}),),
)
def dno(eta: Positive = 0.1, labels: Literal["win_rate", "hard"] = "win_rate") -> Objective:
    """The margin classified with soft labels made of win rates; which of the two is called chosen does not
    matter."""
    reward = eta * log_ratio().sum()
    if labels == "hard":
        return Compare(reward)
    win_rate = Column("win_rate")

    def wrong(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (-comparisons.gap(win_rate)).sigmoid()

    return Compare(reward, link=smoothed(wrong))


@published(
    title="Iterative Nash policy optimization",
    paper="p160",
    citation="Zhang et al., 2024, arXiv 2407.00617, eq. 9",
    equation=(
        "(H − 1/(2η))², H = log π(y_w)/π(y_l) − (τ/η) log π_ref(y_w)/π_ref(y_l) "
        "− (1−τ/η) log π_t(y_w)/π_t(y_l)"
    ),
    feedback={"pairs", "samples"},
    settings={"llama-3-8b-sft": {"eta": 0.0075, "mixture": 1 / 3, "learning_rate": 5e-7}},
    relatives=(
        "mixture is τ/η. Two models beside the policy: the fixed reference and `previous`, the policy at the "
        "start of the round. In the first round, when they are the same, it is ipo with τ = η. InPO (of "
        "diffusion models) is another method."
    ),
    equals=(Equal("ipo", at={"mixture": 1.0, "eta": 0.1}, given={"tau": 0.1, "tokens": "sum"}),),
    pitfalls="The target 1/(2η) is about 67 nats at η = 0.0075: sums over tokens, never means.",
)
def inpo_nash(eta: Positive = 0.0075, mixture: Share = 1 / 3) -> Objective:
    """Mirror descent on the regularised game as a square loss on pairs: no win rates are needed."""
    anchor = mixture * Logp("reference") + (1 - mixture) * Logp("previous")
    return Compare((Logp() - anchor).sum(), link=squared, target=1 / (2 * eta))


@published(
    title="Online IPO, the step of extragradient preference optimization",
    paper="p120",
    citation="Zhou et al., 2025, arXiv 2503.08942",
    equation="(log π(y)/π(y′) − log π_ref(y)/π_ref(y′) − [P(y ≻ μ) − P(y′ ≻ μ)]/β)²",
    feedback={"pairs", "scores", "samples"},
    settings={"gemma-2-2b": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "The opponent μ is in the win rates: the policy itself (online mirror descent), or the half step's "
        "model (extragradient: the gradient is taken at the point before the half step, which is the "
        "update's business). Equal win rates ask for the reference's own ratio. The released trainer "
        "averages over tokens (tokens: mean), the paper's π is the whole response's."
    ),
    aliases=("egpo",),
)
def online_ipo(beta: Positive = 0.1, tokens: Literal["sum", "mean"] = "sum") -> Objective:
    """The margin regressed on the difference of two win rates against an opponent; no order of the two
    responses is meant."""
    reward = log_ratio().sum() if tokens == "sum" else log_ratio().mean()
    return Compare(reward, link=squared, target=GapOf(Column("win_rate") / beta))


@published(
    title="Self-play with an adversarial critic",
    paper="p133",
    citation="Ji et al., 2024, arXiv 2406.04274, algorithm 2",
    equation="−λ log σ(β [u(y_w) − u(y_l)]) + u(y′), u = log π/π_t, y′ ~ π_t",
    feedback={"pairs", "samples"},
    relatives=(
        "The response `sample` is the policy's own at the start of the round, unlabelled. The paper's "
        "practical form could not be verified: relative subtracts u(y_w), as in self-play fine-tuning; "
        "smooth passes the critic's term through −log σ(−·), which is bounded below. λ has no published "
        "value; the theory asks for the order of √n. " + PREVIOUS
    ),
    pitfalls="The linear term is unbounded below: a small learning rate and few steps, or smooth.",
)
def spac(
    beta: Positive = 0.1, lam: NonNegative = 1.0, relative: bool = False, smooth: bool = False
) -> Objective:
    """The policy wins under a reward that fits the preferences and is pessimistic about its own samples."""
    ratio = log_ratio().sum()
    lost = Pair("sample", "chosen") if relative else EachOf("sample")
    return lam * Compare(beta * ratio) + Compare(ratio, lost, opposed if smooth else identity)


def opposed(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """−log σ(−z): what it costs to win."""
    return logistic(-margins, comparisons)


@published(
    title="Fast–slow chasing (OFS-DPO)",
    paper="p064",
    citation="Qi et al., 2024, arXiv 2406.05534, eqs. 3–6",
    equation=(
        "fast: ℓ(m_F − m_ref) + α ℓ(m_F − sg m_S); slow: ℓ(m_S − m_ref) − α ℓ(sg m_F − m_S); "
        "ℓ(h) = −log σ(β h), m = log π(y_w)/π(y_l)"
    ),
    relatives=(
        "The model `slow` is trained too, with a lower learning rate (models.slow.learning_rate); every "
        "models.slow.every steps the one with the lower DPO loss becomes the fast one, the policy. Both "
        "terms push the chosen response up. α, the ratio of learning rates (here a half) and the interval "
        "have no published values; α = 0 is two runs of DPO. Without the stopped gradients the coupling "
        "would cancel."
    ),
    pitfalls=(
        "−α ℓ is unbounded below for the slow model: keep α below 1. clamp bounds β (m_F − m_S) from below "
        "in the slow model's term, as a re-implementation does. With equal learning rates the two models, "
        "which start as one, get the same gradients and stay the same."
    ),
)
def ofs_dpo(beta: Positive = 0.1, alpha: Share = 0.5, clamp: Positive | None = 10.0) -> Objective:
    """Two adapters of one model learn by DPO; the fast one is pushed ahead, and the slow one chases it."""
    fast, slow = Logp().sum(), Logp("slow").sum()
    reference = Logp("reference").sum()

    def chased(margins: Tensor, comparisons: Comparisons) -> Tensor:
        return logistic(margins if clamp is None else margins.clamp(min=-clamp), comparisons)

    def against(model: Quantity, other: Quantity) -> Quantity:
        return beta * (model - other)

    return FastSlow(
        (1.0, Compare(against(fast, reference))),
        (alpha, Compare(against(fast, slow.detach()))),
        (1.0, Compare(against(slow, reference))),
        (-alpha, Compare(against(fast.detach(), slow), link=chased)),
    )


class FastSlow(Sum):
    """What :class:`prefero.training.auxiliary.FastSlowStep` makes of two models that take turns."""

    update = "fast_slow"
    trains = MappingProxyType({"slow": 0.5})
    own_terms = MappingProxyType({"policy": 0, "slow": 2})
    """Which term is whose DPO loss."""
