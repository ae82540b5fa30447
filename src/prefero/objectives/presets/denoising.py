"""Denoisers: minus a denoising error stands for a log-probability.

A token is a sampled time step, or a masked patch of a masked-autoregressive model; its "log-probability" is
minus the error of the prediction there, a mean over elements. Tokens are averaged, and half of β multiplies
the difference of errors, as in the released code of Diffusion-DPO.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.among import ListPosition, Rank
from prefero.objectives.compare import Compare, Objective, negative_log_likelihood
from prefero.objectives.contrasts import Comparisons, EveryPair
from prefero.objectives.quantities import Column, Logp, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.registry import Equal, published
from prefero.objectives.slots import discounted_gain


def improvement(beta: float) -> Quantity:
    """(β/2) (error of the reference − error of the policy), averaged over tokens."""
    return 0.5 * beta * log_ratio().mean()


@published(
    title="Diffusion-DPO",
    paper="p104",
    citation="Wallace et al., 2023, arXiv 2311.12908, eq. 14",
    equation="−log σ(−(β/2) [(e_θ(x_w) − e_ref(x_w)) − (e_θ(x_l) − e_ref(x_l))]), e: mean squared error",
    settings={
        "stable-diffusion-1.5": {"beta": 2000.0, "learning_rate": 1e-8},
        "stable-diffusion-xl": {"beta": 5000.0, "learning_rate": 1e-8},
        "lightgen": {"beta": 5000.0, "learning_rate": 1e-8},
    },
    relatives=(
        "Noise and time step are one draw for both sides and both models. Errors are means over elements; "
        "with the paper's sums and T ω(λ) written out β differs by their size. LightGen has it on masked "
        "patches (the mean over them), NCP on errors in the feature space of the frozen encoder, RPO on "
        "edited pairs (rich preferences). With one token its margin is that of dpo at β/2."
    ),
    pitfalls=(
        "β must be large: errors of two fine-tuned models differ little. Both errors may grow, the rejected "
        "one faster: watch the chosen error, or add it (flow_dpo)."
    ),
    states="forward noise",
)
def diffusion_dpo(beta: Positive = 2000.0) -> Objective:
    """The chosen image is denoised better than by the reference, compared with the rejected one."""
    return Compare(improvement(beta))


@published(
    title="DPO for rectified flows, with a flow-matching anchor",
    paper="p011",
    citation=(
        "Hung et al., 2024, arXiv 2412.21037 (TangoFlux, CRPO); for songs Liu et al., 2025, arXiv 2507.20880"
    ),
    equation="−log σ(−(β/2) [(e_θ(x_w) − e_ref(x_w)) − (e_θ(x_l) − e_ref(x_l))]) + λ e_θ(x_w)",
    settings={"default": {"beta": 2000.0, "anchor": 1.0}},
    relatives=(
        "Errors are those of the velocity. anchor 0 is diffusion_dpo; the released code has 1. The authors "
        "sample new pairs for every round and restart the reference there."
    ),
    pitfalls=(
        "The velocity's target contains the data: reusing the chosen side's for the rejected is a silent "
        "bug. Without the anchor the chosen error grows as well."
    ),
    equals=(Equal("diffusion_dpo", at={"anchor": 0.0}),),
    states="flow",
)
def flow_dpo(beta: Positive = 2000.0, anchor: NonNegative = 1.0) -> Objective:
    """Diffusion-DPO on velocities, plus the flow-matching loss of the chosen side."""
    return Compare(improvement(beta)) + anchor * negative_log_likelihood("chosen")


@published(
    title="SmPO: smoothed preference optimization for diffusion models",
    paper="p031",
    citation="Lu et al., 2025, arXiv 2506.02698",
    equation="−log σ(−(β/2) γ (2p − 1) [Δe(x_w) − Δe(x_l)]), p = σ((s_w − s_l) / (s_max − s_min))",
    feedback={"pairs", "scores"},
    settings={
        "stable-diffusion-1.5": {"beta": 2000.0, "gamma": 10.0},
        "stable-diffusion-xl": {"beta": 5000.0, "gamma": 10.0},
    },
    relatives=(
        "lowest and highest are the scores' range in the whole data set. The factor is γ tanh of half the "
        "scaled gap, inside the sigmoid, where weights of pairs stand outside. The paper's noisy states come "
        "from inverting the images, not from fresh noise. SimPO has nothing to do with it."
    ),
    pitfalls="A chosen image with the lower score turns its pair around, smoothly: that is meant.",
    states="inversion",
)
def smpo(
    beta: Positive = 2000.0, gamma: Positive = 10.0, lowest: Real = 0.0, highest: Real = 1.0
) -> Objective:
    """Diffusion-DPO whose margin counts by how sure the scores are of the label; ties teach nothing."""
    if highest <= lowest:
        raise PreferoError(f"highest of smpo is above lowest; {highest!r} is not above {lowest!r}")

    def scale(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return gamma * (2 * label_probability(comparisons, lowest, highest) - 1)

    return Compare(improvement(beta), scale=scale)


def label_probability(
    comparisons: Comparisons, lowest: float, highest: float
) -> Float[Tensor, "row comparison"]:
    """The probability that the label is right, from scores brought to [0, 1]."""
    return comparisons.gap(Column("score") / (highest - lowest)).sigmoid()


@published(
    title="RankDPO: ranked lists of images",
    paper="p062",
    citation="Karthik et al., 2024, arXiv 2410.18013, eqs. 4 to 7",
    equation=(
        "−Σ_{i better than j} |G_i − G_j| |1/D_i − 1/D_j| log σ(−(β/2) (Δe_i − Δe_j)), "
        "G = 2^φ − 1, D = ln(1+τ)"
    ),
    feedback={"lists", "scores"},
    settings={"default": {"beta": 5000.0}},
    relatives=(
        "φ is the share of comparisons that an image wins, over all judges: the column win_rate. τ is its "
        "place by φ, ties by their order in the data; tpo_tree takes places by the model's own rewards. Two "
        "images are diffusion_dpo times a constant."
    ),
    pitfalls="A sum over pairs: gradients grow with the length of the lists.",
    states="forward noise",
)
def rankdpo(beta: Positive = 5000.0) -> Objective:
    """Every image of a list against every worse one, by what exchanging them would cost the ranking."""
    return Compare(improvement(beta), EveryPair("win_rate"), weight=discounted_gain(*ranked()))


def ranked() -> tuple[Quantity, Quantity]:
    """The share of wins, and the place that it gives."""
    wins = Column("win_rate")
    return wins, Rank(wins, ties=-ListPosition())


@published(
    title="Consistency-DPO",
    paper="p088",
    citation="Croitoru et al., 2024, arXiv 2405.13637",
    equation="−log σ(−β [(h_θ(x_w) − h_ref(x_w)) − (h_θ(x_l) − h_ref(x_l))]), h: pseudo-Huber error",
    settings={"default": {"beta": 200.0, "learning_rate": 1e-4}},
    relatives=(
        "No half. h measures both models against the frozen reference's own target at the earlier time step; "
        "consistency distillation would take an average of the policy instead."
    ),
    pitfalls="The target has no gradient, and both models of both sides share noise, step and guidance.",
    equals=(Equal("diffusion_dpo", at={"beta": 200.0}, given={"beta": 400.0}),),
    states="consistency",
)
def consistency_dpo(beta: Positive = 200.0) -> Objective:
    """Diffusion-DPO for consistency models: errors of the jump to the data, with a robust distance."""
    return Compare(improvement(2 * beta))


@published(
    title="CPO for diffusion models",
    paper="p140",
    citation="Gambashidze et al., 2024, arXiv 2406.17636",
    equation="−log σ(−(β/2) [e_θ(x_w) − e_θ(x_l)]) + λ e_θ(x_w)",
    relatives=(
        "diffusion_dpo without a reference, plus the chosen error. The paper measures errors in the features "
        "of the frozen encoder one time step earlier (noise-conditioned perception). λ is a suggestion."
    ),
    pitfalls="Features of neighbouring time steps differ little: β must be scaled to the size of the errors.",
    states="forward noise",
)
def diffusion_cpo(beta: Positive = 2000.0, lam: NonNegative = 0.1) -> Objective:
    """The chosen image is denoised better than the rejected one, and well."""
    return Compare(0.5 * beta * Logp().mean()) + lam * negative_log_likelihood("chosen")


@published(
    title="D2-DPO: preferences for discrete diffusion",
    paper="p075",
    citation="Borso et al., 2025, arXiv 2503.08295 (first named D3PO)",
    equation="−log σ(β [D(x_w) − D(x_l)]), D = Σ_j [q_j log(R_θ/R_ref)(j) + R_ref(j) − R_θ(j)]",
    relatives=(
        "DPO, where minus a chain's rates and what they explain of the data's stand for log-probabilities: "
        "prefero.models.discrete_diffusion.scoring has them for masking and uniform noise. A sum over "
        "positions, where diffusion_dpo has a mean and half of β. Not d3po, on denoising steps. The "
        "paper's β is not known; with 8 bits, 0.05 to 1 work and 5 does not."
    ),
    pitfalls=(
        "Terms are divided by 1 − t, which saturates the comparison at late times if β is large. Dividing by "
        "the number of masked tokens, or adding those that are not masked, is another objective."
    ),
    equals=(Equal("dpo", {}),),
    states="corrupted tokens",
)
def d2_dpo(beta: Positive = 0.5) -> Objective:
    """The rates explain the chosen sequence better than the reference's, compared with the rejected one."""
    return Compare(beta * log_ratio().sum())
