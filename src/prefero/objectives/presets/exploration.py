"""Optimism and coverage: a term on samples beside the preference loss, which explores or holds back.

The response ``sample`` is unlabelled: whose sample it is, every method says. It may be one of the pair's own
responses; its log-probability then gets both gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prefero.objectives.among import OthersMean
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import EachOf
from prefero.objectives.links import identity
from prefero.objectives.quantities import Logp, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_all
from prefero.objectives.registry import Equal, published

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
    feedback={"pairs", "samples"},
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
