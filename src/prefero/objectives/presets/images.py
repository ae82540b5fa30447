"""Images and clips: stored denoising steps, inverted states, moving references and rare pairs.

``denoising`` has the losses on errors of denoisers. Where a token is a stored denoising step, its
log-probability is that of a Gaussian, as a mean over the elements of the image, and an example is one step of
two trajectories.
"""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.presets.denoising import improvement
from prefero.objectives.quantities import Column, Measured, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, OpenShare, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import NOISE_LEVEL, prediction_distance
from prefero.objectives.slots import given


def clipped_log_ratio(clip: float) -> Quantity:
    """log of π/π_ref held within 1 ± ``clip``, without a gradient beyond."""
    return log_ratio().map(lambda ratio: ratio.clamp(math.log1p(-clip), math.log1p(clip)))


def undecided_is_nothing(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
    """0 for ties, 1 for the other pairs."""
    return (Column("tie")(comparisons.batch) <= 0).to(comparisons.margins.dtype)


@published(
    title="D3PO: direct preference for denoising diffusion policy optimization",
    paper="p072",
    citation="Yang et al., 2023, arXiv 2311.13231; code yk7333/d3po",
    equation="−log σ(β log clip(ρ_w) − β log clip(ρ_l)), ρ = p_θ(x_{t−1} | x_t) / p_ref(x_{t−1} | x_t)",
    feedback={"pairs", "ties"},
    settings={"stable-diffusion-1.5": {"beta": 0.1, "clip": 0.1, "learning_rate": 3e-5}},
    relatives=(
        "An example is one step of two whole trajectories, whose images were compared; the released code "
        "updates once a step. Ties cost log 2 and teach nothing. tailorpo and spo_step_aware compare steps "
        "from one state. D2-DPO, on discrete diffusion, was first called D3PO too."
    ),
    pitfalls=(
        "A ratio beyond the clip has no gradient in either direction. Log-probabilities are means over "
        "elements: with sums every ratio is clipped. Steps without noise have no probability."
    ),
    states="trajectory",
)
def d3po(beta: Positive = 0.1, clip: OpenShare = 0.1) -> Objective:
    """Every denoising step of the preferred trajectory becomes likelier than those of the other."""
    return Compare(beta * clipped_log_ratio(clip).sum(), scale=undecided_is_nothing)


@published(
    title="SPO: step-aware preference optimization",
    paper="p127",
    citation="Liang et al., 2024, arXiv 2406.04314; code RockeyCoss/SPO",
    equation="−log σ(β log clip(ρ_w) − β log clip(ρ_l)), both steps from one state x_t",
    feedback={"pairs", "samples"},
    settings={
        "stable-diffusion-1.5": {"beta": 10.0, "clip": 0.1, "learning_rate": 6e-5},
        "stable-diffusion-xl": {"beta": 10.0, "clip": 0.1, "learning_rate": 1e-5},
    },
    relatives=(
        "The formula of d3po; the pairs differ: best and worst of several candidates of one state, by a "
        "preference model that knows the time step, and a random one of them is continued. tailorpo "
        "continues with the best and does not clip. spo_self_supervised is another method."
    ),
    pitfalls=(
        "The scores of candidates belong to the step before the one at which they are known. If no pair of a "
        "batch is clear enough, the update must be skipped on all processes."
    ),
    states="trajectory",
)
def spo_step_aware(beta: Positive = 10.0, clip: OpenShare = 0.1) -> Objective:
    """At every step the better of the states that one state may lead to becomes likelier."""
    return Compare(beta * clipped_log_ratio(clip).sum())


@published(
    title="TailorPO: preferences of intermediate denoising steps",
    paper="p024",
    citation="Ren et al., 2025, arXiv 2502.01667",
    equation="−log σ(β log ρ(x^w_{t−1} | x_t) − β log ρ(x^l_{t−1} | x_t)), both steps from one state x_t",
    feedback={"pairs", "samples"},
    settings={"default": {"beta": 10.0}},
    relatives=(
        "dpo on single steps. Candidates are ranked by the reward of the data they predict, and the better "
        "is continued; TailorPO-G first pushes it up that reward (diffusion_steps.guided). β is a suggestion."
    ),
    pitfalls=(
        "Data is predicted from a candidate at its own noise level, not at that of the state it came from. "
        "The two sides must come from one state, or their gradients act on different inputs."
    ),
    equals=(Equal("dpo"),),
    states="trajectory",
)
def tailorpo(beta: Positive = 10.0) -> Objective:
    """The mean of a denoising step moves from its worse to its better outcome."""
    return Compare(beta * log_ratio().sum())


@published(
    title="InPO: inversion preference optimization",
    paper="p080",
    citation="Lu et al., 2025, arXiv 2503.18454; code JaydenLyh/InPO",
    equation="−log σ(−(β/2) [Δe(x_w) − Δe(x_l)]), e: error of predicting the noise that inversion implies",
    settings={"stable-diffusion-1.5": {"beta": 2000.0}, "stable-diffusion-xl": {"beta": 5000.0}},
    relatives=(
        "diffusion_dpo on other states: those that DDIM inversion with the current policy reaches "
        "(diffusion_inversion.inverted), with a target of every side's own. inpo_nash is another method."
    ),
    pitfalls=(
        "The inversion has no gradient and must end exactly at the time step. It costs some ten more calls "
        "of the model."
    ),
    aliases=("inpo_inversion",),
    equals=(Equal("diffusion_dpo"),),
    states="inversion",
)
def inpo_diffusion(beta: Positive = 2000.0) -> Objective:
    """Diffusion-DPO at the noise that each image itself implies."""
    return Compare(improvement(beta))


@published(
    title="Diffusion-DPO with a moving reference, aware of time steps",
    paper="p084",
    citation="Kang et al., 2025, arXiv 2505.18736 (by its abstract)",
    equation="w(t) ℓ_DPO(θ; ψ) + λ mean (ε_θ(x_w) − ε_ψ₀(x_w))², w = (1 − ᾱ_t)^p, ψ a moving reference",
    settings={"default": {"beta": 2000.0, "power": 1.0, "lam": 0.5}},
    relatives=(
        "A concretisation: the paper's abstract leaves its constants and the form of w open. `weighted` says "
        "whether w multiplies the loss, or the margin inside it. The moving reference is the provider's "
        "(reference.providers.Moving); the model `initial` stays as it was."
    ),
    pitfalls=(
        "After a hard update of the reference every margin is 0 again. A moving reference without the "
        "penalty drifts."
    ),
    equals=(Equal("diffusion_dpo", at={"power": 0.0, "lam": 0.0}),),
    states="forward noise",
)
def timestep_aware_dpo(
    beta: Positive = 2000.0,
    power: NonNegative = 1.0,
    lam: NonNegative = 0.5,
    weighted: Literal["loss", "margin"] = "loss",
) -> Objective:
    """Noisy steps, where the image is decided, count more; the policy is held to its start on the chosen
    image."""
    level = Measured(NOISE_LEVEL).mean()

    def weight(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return (comparisons.total(level) / 2) ** power

    reward, distance = improvement(beta), Measured(prediction_distance("initial")).mean()
    preference = Compare(reward, weight=weight) if weighted == "loss" else Compare(reward, scale=weight)
    return preference + lam * penalty(distance, "chosen")


@published(
    title="VideoDPO: rare pairs count more",
    paper="p122",
    citation="Liu et al., 2024, arXiv 2412.14167; code CIntellifusion/VideoDPO",
    equation="−ω log σ(−(β/2) [Δe(x_w) − Δe(x_l)]), e: mean squared error over channels, frames and pixels",
    settings={"videocrafter-2": {"beta": 5000.0, "learning_rate": 6e-6}},
    relatives=(
        "ω, the column weight, is how rare the pair's scores are (media_pairs.rarity_weights). The released "
        "code averages over all axes but the last one and draws noise for each side; this does neither."
    ),
    pitfalls="Weights are at least 1 and are not normalised: they raise the learning rate.",
    states="forward noise",
)
def video_dpo(beta: Positive = 5000.0) -> Objective:
    """Diffusion-DPO with a weight for every pair."""
    return Compare(improvement(beta), weight=given())
