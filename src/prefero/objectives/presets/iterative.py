"""Rounds of sampling, labelling and training: what the loss of a round adds to DPO, such as a term on samples
that explores or holds back.

The response ``sample`` is unlabelled: whose sample it is, every method says. It may be one of the pair's own
responses; its log-probability then gets both gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import OthersMean
from prefero.objectives.compare import Compare, Objective, negative_log_likelihood, penalty
from prefero.objectives.contrasts import Comparisons, EachOf, GapOf
from prefero.objectives.links import hinge, identity, logistic, smoothed
from prefero.objectives.quantities import Column, Logp, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import Equal, published
from prefero.objectives.slots import score_weight


@published(
    title="Iterative reasoning preference optimization",
    paper="p108",
    citation="Pang et al., 2024, arXiv 2404.19733, eq. 1",
    equation="−log σ(β h) − α log π(c_w, y_w)/(|c_w| + |y_w|)",
    settings={"llama-2-70b-chat": {"beta": 0.1, "alpha": 1.0, "learning_rate": 7e-7}},
    relatives=(
        "The likelihood is a mean over each response's own tokens, then over examples; TRL's mean over all "
        "tokens of the batch differs. The first preprint weighted the DPO term by α instead and counted the "
        "prompt. The reference is the policy at the start of the round."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls="Without the likelihood the chosen reasoning becomes less likely although it wins.",
)
def irpo(beta: Positive = 0.1, alpha: NonNegative = 1.0) -> Objective:
    """DPO plus the likelihood of the chosen reasoning and answer, on pairs that the answer decides."""
    return Compare(beta * log_ratio().sum()) + alpha * negative_log_likelihood("chosen", "mean")


@published(
    title="Pessimistic DPO (GSHF, offline)",
    paper="p076",
    citation="Xiong et al., 2023, arXiv 2312.11456",
    equation="−log σ(β h + κ [Γ(y_w) − Γ(y_l)])",
    feedback={"pairs", "scores"},
    relatives=(
        "Γ is the column `uncertainty`, for instance the spread of an ensemble of reward models; κ = 1 for "
        "values that are scaled already. The policy absorbs r − Γ: an uncertain chosen response pulls less."
    ),
    equals=(Equal("dpo", at={"scale": 0.0}),),
)
def pessimistic_dpo(beta: Positive = 0.1, scale: NonNegative = 1.0) -> Objective:
    """DPO that takes what a judge is unsure of off its reward."""
    return Compare(beta * log_ratio().sum(), target=GapOf(-scale * Column("uncertainty")))


@published(
    title="Weighted DPO (OPTune)",
    paper="p113",
    citation="Chen et al., 2024, arXiv 2406.07657",
    equation="−w log σ(β₁ h), w = σ(β₂ (s_w − s_l))",
    feedback={"pairs", "scores"},
    relatives=(
        "The weight stands outside −log σ and has no gradient: dpo with the weight score_gap. Whether it is "
        "a sigmoid or the bare gap (shape: linear) could not be confirmed. Weights are not normalised; β₂ → "
        "∞ is dpo, β₂ = 0 half of it."
    ),
    aliases=("wdpo",),
)
def optune_wdpo(
    beta: Positive = 0.1, beta2: NonNegative = 1.0, shape: Literal["sigmoid", "linear"] = "sigmoid"
) -> Objective:
    """DPO in which pairs with a wide gap of scores count more."""
    return Compare(beta * log_ratio().sum(), weight=score_weight(beta2, shape))


@published(
    title="Uncertainty-enhanced preference optimization",
    paper="p144",
    citation="Wang et al., 2024, arXiv 2409.11212",
    equation="−(1−α) log σ(β h) − α log σ(−β h) − λ log π(y_w)/|s_w|",
    feedback={"pairs", "scores"},
    relatives=(
        "α is the column `flip_rate`, from the disagreement of a classifier's dropout passes "
        "(prefero.feedback.uncertainty). As printed α is never below ½, which would learn the opposite "
        "preference; the released code trains with α = 0 (labels: trusted, the default). The likelihood's "
        "sign is reversed in print. λ has no published value. The reference is the previous round's policy."
    ),
    equals=(Equal("dpo", at={"lam": 0.0}),),
    pitfalls=(
        "With labels: flip_rate, rates above ½ reverse the preference. A score near 0 makes its likelihood "
        "count without bound: scale scores away from 0."
    ),
)
def upo(
    beta: Positive = 0.1, lam: NonNegative = 0.1, labels: Literal["trusted", "flip_rate"] = "trusted"
) -> Objective:
    """DPO on self-made pairs, trusted as far as an estimator is certain of them, plus the chosen's likelihood
    (a sum over its tokens, divided by the size of its score)."""
    flip_rate = Column("flip_rate")

    def wrong(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return flip_rate(comparisons.batch)

    link = smoothed(wrong) if labels == "flip_rate" else logistic
    size = Column("score").map(lambda score: score.abs().clamp(min=1e-6))
    return Compare(beta * log_ratio().sum(), link=link) + lam * penalty(-Logp().sum() / size, "chosen")


@published(
    title="Statistical rejection sampling optimization",
    paper="p130",
    citation="Liu et al., 2023, arXiv 2309.06657, eqs. 8–10",
    equation="sigmoid_norm: −log σ(γ h); hinge_norm: max(0, 1 − γ h); hinge: max(0, 1 − γ log π(y_w)/π(y_l))",
    settings={"t5-large": {"gamma": 0.05, "learning_rate": 1e-5}},
    relatives=(
        "What is the method's own is where the pairs come from (prefero.feedback.rejection): β there is the "
        "sampling temperature, γ here the loss's. sigmoid_norm is dpo with β = γ, hinge is SLiC without its "
        "regulariser and without a reference. Elsewhere hinge means hinge_norm."
    ),
    equals=(Equal("dpo", at={"loss": "sigmoid_norm", "gamma": 0.05}, given={"beta": 0.05}),),
    pitfalls="The hinges have no gradient beyond their margin.",
)
def rso(
    gamma: Positive = 0.05, loss: Literal["sigmoid_norm", "hinge_norm", "hinge"] = "sigmoid_norm"
) -> Objective:
    """Pairs sampled from an estimate of the optimal policy, by a logistic or a hinge loss."""
    reward = Logp().sum() if loss == "hinge" else log_ratio().sum()
    return Compare(gamma * reward, link=logistic if loss == "sigmoid_norm" else hinge)


SIGN = "Plus: the term is minimised, so the sample gets less likely. It is a sum and unbounded below."


@published(
    title="Exploratory preference optimization",
    paper="p154",
    citation="Xie et al., 2024, arXiv 2405.21046, algorithm 1",
    equation="−log σ(β h) + α log π(ỹ), ỹ ~ π_ref",
    feedback={"pairs", "samples"},
    relatives=(
        "`sample` is a response of the fixed reference. α multiplies a bare log-probability; selm's and "
        "vpo's α multiply β times a log-ratio, whose gradient is that of xpo with α β. The default α is "
        "TRL's."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls=SIGN + " Keep α tiny next to the length of responses.",
)
def xpo(beta: Positive = 0.1, alpha: NonNegative = 1e-5) -> Objective:
    """Online DPO that makes the reference's responses less likely, and so explores others."""
    return Compare(beta * log_ratio().sum()) + alpha * penalty(Logp().sum(), "sample")


@published(
    title="Self-exploring language models",
    paper="p162",
    citation="Zhang et al., 2024, arXiv 2405.19332",
    equation="−log σ(β h) + α β log π(y_r)/π_t(y_r), y_r ~ π_t",
    feedback={"pairs", "samples"},
    settings={
        "zephyr-7b": {"beta": 0.01, "alpha": 1e-3, "learning_rate": 5e-7},
        "phi-3-mini": {"beta": 0.01, "alpha": 1e-3, "learning_rate": 5e-7},
        "llama-3-8b-instruct": {"beta": 0.01, "alpha": 1e-4, "learning_rate": 5e-7},
    },
    relatives=(
        "`sample` is the greedy response of the reference, which is the policy at the start of the round. "
        "Equal to vpo with optimism on the same samples."
    ),
    equals=(
        Equal("dpo", at={"alpha": 0.0}),
        Equal("vpo", given={"sign": "optimism", "calibration": "sample"}),
    ),
    pitfalls=SIGN,
)
def selm(beta: Positive = 0.01, alpha: NonNegative = 1e-3) -> Objective:
    """Iterative DPO that is optimistic about what the previous policy would not have answered."""
    return with_value(beta, alpha, "sample")


@published(
    title="Value-incentivised preference optimization",
    paper="p163",
    citation="Cen et al., 2024, arXiv 2405.19320",
    equation=(
        "−log σ(β h) ± α β log π(y_c)/π_ref(y_c), y_c ~ π_cal; + online (optimism), − offline (pessimism)"
    ),
    relatives=(
        "Offline, pessimism with the chosen responses for calibration is DPO + α β times the chosen's "
        "log-ratio, which must rise; online, optimism with `sample`, a response of the calibration policy. "
        "Other methods for reasoning and vision are called VPO too. α is tuned between 0.01 and 10."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0, "calibration": "chosen"}),),
    pitfalls=(
        "The sign: pessimism raises the calibration responses, optimism lowers them. The log-ratio is a sum, "
        "so long chosen responses dominate offline."
    ),
)
def vpo(
    beta: Positive = 0.1,
    alpha: NonNegative = 0.01,
    sign: Literal["optimism", "pessimism"] = "pessimism",
    calibration: Literal["sample", "chosen"] = "chosen",
) -> Objective:
    """DPO whose reward is inclined towards a high (optimism) or low (pessimism) optimal value."""
    return with_value(beta, alpha if sign == "optimism" else -alpha, calibration)


def with_value(beta: float, alpha: float, address: str) -> Objective:
    """DPO plus α times the reward of the responses at an address."""
    reward = beta * log_ratio().sum()
    return Compare(reward) + alpha * penalty(reward, address)


SAMPLES = {1: ("sample",), **{k: tuple(f"sample_{i + 1}" for i in range(k)) for k in (2, 3, 4, 8)}}
"""The roles of that many samples of one prompt."""


@published(
    title="HyPO: offline preferences, online KL",
    paper="p105",
    citation="Song et al., 2024, arXiv 2406.01462, algorithm 1",
    equation="−log σ(β h) + λ log π(y) sg[log π(y)/π_ref(y)], y ~ π",
    feedback={"pairs", "samples"},
    relatives=(
        "`sample` is a fresh response of the policy itself, unlabelled; with several (sample_1, sample_2, …) "
        "leave_one_out subtracts the mean log-ratio of a prompt's other samples. λ is tuned between 1e-4 and "
        "1e-2. Two other methods are called HyPO."
    ),
    aliases=("hypo_online_kl",),
    equals=(Equal("dpo", at={"lam": 0.0}),),
    pitfalls=(
        "The log-ratio is stopped: differentiating through it gives a gradient whose expectation is zero. "
        "Stale samples make it biased."
    ),
)
def hypo(
    beta: Positive = 0.05,
    lam: NonNegative = 1e-3,
    samples: Literal[1, 2, 3, 4, 8] = 1,
    baseline: Literal["none", "leave_one_out"] = "none",
) -> Objective:
    """DPO on pairs with the reverse KL to the reference held down on the policy's own samples."""
    return Compare(beta * log_ratio().sum()) + lam * online_kl(SAMPLES[samples], baseline)


def online_kl(roles: Sequence[str], baseline: Literal["none", "leave_one_out"]) -> Compare:
    """A loss whose gradient estimates that of KL(π ‖ π_ref) on samples of the policy, averaged over them."""
    return Compare(Logp().sum() * drift(roles, baseline), EachOf(*roles), identity, reduce=mean_of_all)


def drift(roles: Sequence[str], baseline: Literal["none", "leave_one_out"]) -> Quantity:
    """The log-ratio to the reference without a gradient, perhaps less the mean of the other samples'."""
    ratio = log_ratio().sum().detach()
    return ratio - OthersMean(ratio, roles) if baseline == "leave_one_out" else ratio
