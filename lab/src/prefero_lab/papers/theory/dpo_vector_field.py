"""Limitations of DPO: its gradient as a field over two likelihood ratios."""

from __future__ import annotations

from collections.abc import Sequence

from prefero_lab.papers.experiments.unseen import ON_POLICY, UnseenExperiment
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper

DPO = {"method": "dpo", "beta": 0.5}


def field(seed: int) -> Sequence[Number]:
    """Gradients of the library's DPO at random points, and along a path of small steps."""
    import torch

    from prefero.demo.text import stream
    from prefero.objectives import from_config
    from prefero.theory.vector_field import descent, dpo_field, field_of

    chosen, rejected = torch.randn(2, 200, generator=stream("field", "points", seed), dtype=torch.float64)
    found = field_of(from_config(DPO), chosen, rejected)
    closed = dpo_field(chosen, rejected, 0.5)
    ordered = chosen > rejected
    steps = descent(1.0, 1.0, 0.5, 1e-3, 20000)
    gained, lost = steps[:, 0] - 1, 1 - steps[:, 1]
    return [
        Number.near(
            "largest relative error of the closed form's slopes",
            float((found.slope_chosen / closed.slope_chosen - 1).abs().max())
            + float((found.slope_rejected / closed.slope_rejected - 1).abs().max()),
            0.0,
        ),
        Number.near(
            "largest relative error of x₂/x₁ as the ratio of speeds",
            float((found.speed_ratio * (chosen - rejected).exp() - 1).abs().max()),
            0.0,
        ),
        Number(
            "ratio of speeds where the pair is in order, largest",
            float(found.speed_ratio[ordered].max()),
            high=1.0,
        ),
        Number.near(
            "largest change of x₁² + x₂² on a path from (1, 1)",
            float((steps.square().sum(-1) - 2).abs().max()),
            0.0,
            0.01,
        ),
        Number("least of what x₂ lost less what x₁ gained", float((lost - gained).min()), low=-1e-9),
        Number("largest x₁", float(steps[:, 0].max()), high=2**0.5 + 0.01),
        Number("last x₂", float(steps[-1, 1]), high=0.05),
    ]


PAPER = Paper(
    id="p048",
    title="Towards Analyzing and Understanding the Limitations of DPO: A Theoretical Perspective",
    citation="Feng et al., 2024, arXiv 2404.04626",
    adds="DPO's gradient as a field over the likelihood ratios of both responses: it lowers the rejected one "
    "faster than it raises the chosen one, and what it reaches depends on where fine-tuning left the model.",
    methods=("dpo",),
    evidence=(
        Check(
            statement="In the space of the two ratios a step lowers the rejected one by more than it raises "
            "the chosen one, as x₂/x₁, and the chosen one never gets beyond √2.",
            run=field,
            refuted_by="other slopes of the library's own loss, or a path that lifts the chosen ratio by "
            "more than it lowers the rejected one",
            seconds=10,
        ),
        Claim(
            statement="In a network whose probabilities add up to 1, too, the rejected response halves "
            "before the chosen one doubles, wherever it starts; and the chosen one comes out the less "
            "probable, the less it was so at the start.",
            experiment=UnseenExperiment(),
            arms=(
                START,
                Arm("both likely", {"objective": DPO, "from": [*ON_POLICY]}),
                Arm("both unlikely", {"objective": DPO, "from": [0.03, 0.03, 0.85]}),
                Arm("chosen likely", {"objective": DPO, "from": [0.4, 0.05, 0.45]}),
                Arm("rejected likely", {"objective": DPO, "from": [0.03, 0.5, 0.4]}),
            ),
            expected=(
                Expectation("both likely", "start", "lag", by=1.0),
                Expectation("both unlikely", "start", "lag", by=1.0),
                Expectation("chosen likely", "start", "lag", by=1.0),
                Expectation("rejected likely", "start", "lag", by=1.0),
                Expectation("both likely", "both unlikely", "chosen", by=0.2),
                Expectation("chosen likely", "rejected likely", "chosen", by=0.2),
                Expectation("both unlikely", "both likely", "unseen", counts=False),
            ),
            refuted_by="chosen responses that double no later than rejected ones halve, from any of the "
            "starts, or that come out as probable from an unlikely start as from a likely one",
            seconds=35,
            seeds=5,
        ),
    ),
    note="The field takes the two ratios for independent. In a softmax they are not: probability that a "
    "likely rejected response loses goes to all others, so that from there an unlikely chosen one "
    "doubles first.",
)
