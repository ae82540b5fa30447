"""Pairs: the logistic loss of DPO, other links on the same margin, and the likelihood of the chosen
response."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood
from prefero.objectives.links import debiased, hinge, logistic, reverse_kl_to, smoothed, squared, with_ties
from prefero.objectives.quantities import Logp, log_ratio
from prefero.objectives.ranges import FlipRate, NonNegative, NonZeroFlipRate, Positive
from prefero.objectives.registry import Equal, published

LINKS = {"logistic": logistic, "hinge": hinge}


@published(
    title="Direct Preference Optimization",
    paper="p053",
    citation="Rafailov et al., 2023, arXiv 2305.18290, eq. 7",
    equation="−log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])",
    settings={"default": {"beta": 0.1, "learning_rate": 1e-6}, "tl;dr": {"beta": 0.5}},
    relatives=(
        "Sums over tokens. With another model as reference it is Pre-DPO, TR-DPO or sDPO: see references."
    ),
    pitfalls=(
        "On deterministic preferences its minimum has no regularisation left, whatever β; the chosen "
        "likelihood often falls with the rejected one's. A prompt's end, end tokens and truncation must be "
        "the same for policy and reference."
    ),
)
def dpo(beta: Positive = 0.1) -> Objective:
    """The policy's log-ratio to the reference is its reward, fitted by Bradley and Terry's likelihood."""
    return Compare(beta * log_ratio().sum())


@published(
    title="Conservative DPO",
    paper="p053",
    citation=(
        "Mitchell, 2023, A note on DPO with noisy preferences; code of Rafailov et al., 2023, arXiv "
        "2305.18290"
    ),
    equation="(1−ε) ℓ(h) + ε ℓ(−h), ℓ(h) = −log σ(β h)",
    relatives=(
        "Biased, but bounded below, with its minimum at β h = logit(1−ε); rdpo is unbiased and unbounded."
    ),
    pitfalls="Pairs beyond logit(1−ε) are pushed back together, those with right labels too.",
    equals=(Equal("dpo", at={"smoothing": 0.0}),),
)
def cdpo(beta: Positive = 0.1, smoothing: FlipRate = 0.1) -> Objective:
    """DPO with smoothed labels: each label is wrong with probability ``smoothing``."""
    return Compare(beta * log_ratio().sum(), link=smoothed(smoothing))


@published(
    title="Provably robust DPO",
    paper="p049",
    citation="Ray Chowdhury et al., 2024, arXiv 2403.00409",
    equation="((1−ε) ℓ(h) − ε ℓ(−h)) / (1−2ε), ℓ(h) = −log σ(β h)",
    relatives=(
        "Unbounded below: do not select models by this loss. The sign of the second term tells it from cdpo. "
        "r_dpo is another method (length)."
    ),
    pitfalls=(
        "Its slope never falls below ε/(1−2ε), so that few or noisy data drive it away: stop early or decay "
        "weights. Flips that are symmetric hardly change which response ranks first, so measure margins."
    ),
    equals=(Equal("dpo", at={"flip_rate": 0.0}),),
)
def rdpo(beta: Positive = 0.1, flip_rate: FlipRate = 0.1) -> Objective:
    """DPO whose expectation under random label flips of a known rate is the loss on clean labels."""
    return Compare(beta * log_ratio().sum(), link=debiased(flip_rate))


@published(
    title="Identity preference optimization (ΨPO with Ψ = identity)",
    paper="p035",
    citation="Azar et al., 2023, arXiv 2310.12036, eq. 17",
    equation="(h − 1/(2τ))², h = log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)",
    relatives=(
        "The paper sums over tokens, practice (TRL, and reportedly the authors) averages over each "
        "response's own tokens; values of tau are not comparable between the two. τ plays the part of DPO's "
        "β. theory.optima.psi_optimum has the optimum for any Ψ."
    ),
    pitfalls=(
        "The target is 1/(2τ), not 1/τ. Margins beyond it are pushed back: accuracy can stay at 1 while the "
        "loss grows. At the start the loss is 1/(4τ²), 25 at τ = 0.1."
    ),
)
def ipo(tau: Positive = 0.1, tokens: Literal["mean", "sum"] = "mean") -> Objective:
    """The margin is regressed on 1/(2τ), so that even deterministic preferences stay regularised."""
    reward = log_ratio().mean() if tokens == "mean" else log_ratio().sum()
    return Compare(reward, link=squared, target=1 / (2 * tau))


@published(
    title="FSPO: few-shot preference optimization",
    paper="p129",
    citation="Singh et al., 2025, arXiv 2502.19312; code Asap7772/fewshot-preference-optimization",
    equation="(h − 1/(2τ))², prompts hold some labelled pairs of the same user",
    settings={"default": {"tau": 0.01, "learning_rate": 1e-6}},
    relatives="IPO summed over tokens on prompts with a user's few shots: it is the data that are new.",
    pitfalls=(
        "The target prompt must not stand among the shots, and data are split by user, not by row. At the "
        "start the loss is 1/(4τ²), 2500 at τ = 0.01."
    ),
    equals=(Equal("ipo", given={"tokens": "sum"}),),
)
def fspo(tau: Positive = 0.01) -> Objective:
    """Every user is a task: IPO on a pair whose prompt shows what else that user preferred."""
    return ipo(tau=tau, tokens="sum")


@published(
    title="Simple Preference Optimization",
    paper="p018",
    citation="Meng et al., 2024, arXiv 2405.14734, eq. 6",
    equation="−log σ(β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ)",
    settings={
        "mistral-7b-base": {"beta": 2.0, "gamma": 1.6, "learning_rate": 3e-7},
        "llama-3-8b-instruct": {"beta": 2.5, "gamma": 1.375, "learning_rate": 1e-6},
        "llama-3-8b-instruct-v2": {"beta": 10.0, "gamma": 3.0, "learning_rate": 1e-6},
        "gemma-2-9b-it": {"beta": 10.0, "gamma": 5.0, "learning_rate": 8e-7},
    },
    relatives=(
        "No reference. γ is not multiplied by β; the authors' code stores gamma_beta_ratio = γ/β. β is 10 to "
        "100 times DPO's. The optional likelihood of the authors' code is `plus: {nll: …}`; gamma_simpo has "
        "a margin of every pair's own."
    ),
    pitfalls=(
        "Nothing holds the policy near its start: the learning rate must be small (3e-7 to 1e-6). The mean "
        "is over a response's own tokens, end token included, never over the padded length."
    ),
)
def simpo(
    beta: Positive = 2.0,
    gamma: NonNegative = 1.0,
    smoothing: FlipRate = 0.0,
    link: Literal["logistic", "hinge"] = "logistic",
) -> Objective:
    """The mean log-probability per token is the reward, and it must win by a margin γ.

    ``smoothing`` and the hinge act on the margin less γ, as in the authors' code.
    """
    cost = smoothed(smoothing, LINKS[link]) if smoothing else LINKS[link]
    return Compare(beta * Logp().mean(), link=cost, target=gamma)


@published(
    title="Efficient exact optimization, pairs",
    paper="p013",
    citation="Ji et al., 2024, arXiv 2402.00856",
    equation="KL((q, 1−q) ‖ (1−ε, ε)), q = σ(β h)",
    settings={"hh": {"beta": 0.5}, "tl;dr": {"beta": 0.5}, "imdb": {"beta": 0.1}},
    relatives=(
        "Reverse KL, mode seeking, where DPO's is forward; its gradient reverses beyond q = 1−ε. "
        "ε = 1e-3 is common practice, and TRL's exo_pair is the same form. The authors' code leaves the "
        "target at log-probabilities (0, −10), which is `normalised: false` with smoothing = e⁻¹⁰, and "
        "divides logits by the sampling temperature, 0.8, which is done to the models."
    ),
    pitfalls=(
        "With a small ε a pair that starts far on the wrong side has next to no gradient. Unnormalised, the "
        "loss is not a divergence and may fall below 0."
    ),
    aliases=("exo",),
)
def exo_pref(beta: Positive = 0.5, smoothing: NonZeroFlipRate = 1e-3, normalised: bool = True) -> Objective:
    """The policy's preference distribution matched to the (smoothed) label in reverse KL."""
    return Compare(beta * log_ratio().sum(), link=reverse_kl_to(smoothing, normalised))


@published(
    title="TODO: ternary preferences",
    paper="p148",
    citation="Guo et al., 2024, arXiv 2411.02442",
    equation="win: −log σ(μ−α); tie: −log[(e^{2α}−1) / ((1+e^{μ+α})(1+e^{α−μ}))]; μ = β h",
    feedback={"pairs", "ties"},
    settings={"mistral-7b": {"learning_rate": 5e-7}, "llama-3-8b": {"learning_rate": 1e-6}},
    relatives=(
        "A tie pulls the margin to 0 and its two responses may stand in either order. Without ties it is DPO "
        "with a margin α, and DPO itself as α goes to 0."
    ),
    pitfalls=(
        "As α goes to 0 a tie costs without bound. At β = 0.01 margins are small and the probability of a "
        "tie is nearly constant. Reward accuracy says nothing about tied pairs."
    ),
    equals=(Equal("dpo", at={"alpha": 1e-9}),),
)
def todo(beta: Positive = 0.01, alpha: Positive = 0.5) -> Objective:
    """Bradley and Terry's model with ties: wins must pass a threshold α, tied pairs are kept together."""
    return Compare(beta * log_ratio().sum(), link=with_ties(alpha))


@published(
    title="Negative log-likelihood",
    equation="−1/|y_w| log π(y_w)",
    relatives=(
        "Three normalisations are in use and are not multiples of each other: per response (mean), summed "
        "(sum), over all chosen tokens of the step (batch). Meant for `plus`; alone it is supervised "
        "fine-tuning."
    ),
    pitfalls="`sum` grows with the length of responses, so its coefficients are much smaller than `mean`'s.",
    aliases=("sft",),
)
def nll(tokens: Literal["mean", "sum", "batch"] = "mean") -> Objective:
    """Likelihood of the chosen response: an anchor beside a preference loss."""
    return negative_log_likelihood("chosen", tokens)
