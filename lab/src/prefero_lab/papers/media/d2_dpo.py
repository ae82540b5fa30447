"""D2-DPO: preferences for discrete diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper, Trained

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.worlds.binary_strings import Row, Start

    Made = tuple[Start, list[Row]]


@dataclass(frozen=True)
class BinaryStrings:
    """The world ``binary_strings``: pairs of an odd and an even string of the start model.

    Of ``strings`` samples of a model, under the same noise for all: which are ``odd``, which ``valid`` (the
    second half repeats the first), and which both (``gold``).
    """

    noise: Literal["masking", "uniform"] = "masking"
    pairs: int = 1000
    steps: int = 800
    examples_per_step: int = 32
    strings: int = 1024

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        from prefero_lab.worlds.binary_strings import StringsRecipe, preference_pairs, start_model

        start = start_model(recipe=StringsRecipe(noise=self.noise), seed=seed)
        return start, preference_pairs(start, self.pairs, seed)

    def start(self, made: Made) -> nn.Module:
        return made[0].model

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero_lab.papers.training import trained

        start, rows = made
        # Gradients are as large as 1/(1 − t): to clip them is to look away from nearly whole strings.
        budget = {"max_steps": self.steps, "examples_per_step": self.examples_per_step, "max_grad_norm": 0.0}
        return trained(str(start.folder), rows, settings, seed=seed, kind=start.kind, **budget)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.text import stream
        from prefero_lab.worlds.binary_strings import draw_strings, odd, valid

        noise = stream("binary_strings", "held-out", seed).initial_seed()
        drawn = draw_strings(made[0], self.strings, noise, model)
        return {
            "gold": [float(odd(one) and valid(one)) for one in drawn],
            "odd": [float(odd(one)) for one in drawn],
            "valid": [float(valid(one)) for one in drawn],
        }


D2_DPO = Arm(
    "d2-dpo",
    {"objective": {"method": "d2_dpo", "beta": 0.5}, "learning_rate": 1e-3},
    {"learning_rate": (5e-4, 1e-3, 2e-3)},
)
EXPECTED = (
    Expectation("d2-dpo", "start", "gold", by=0.2),
    Expectation("d2-dpo", "start", "odd", by=0.3),
    Expectation("d2-dpo", "start", "valid", by=-0.03),
)
REFUTED_BY = (
    "strings that are odd and valid hardly more often than the start model's, or more than three in a "
    "hundred that were valid and are not any more"
)

PAPER = Paper(
    id="p075",
    title="Preference-Based Alignment of Discrete Diffusion Models",
    citation="Borso et al., 2025, arXiv 2503.08295",
    adds="DPO for discrete diffusion: what the rates of a Markov chain explain stands for log-probabilities, "
    "and has a closed form for masking.",
    methods=("d2_dpo",),
    evidence=(
        Claim(
            statement="D2-DPO makes a masked diffusion model write odd binary strings, as preferred, and "
            "leaves the structure of the strings in place.",
            experiment=BinaryStrings("masking"),
            arms=(START, D2_DPO),
            expected=EXPECTED,
            refuted_by=REFUTED_BY,
            seconds=80,
            first_seconds=60,
            judged_from=200,
        ),
        Claim(
            statement="So does D2-DPO with uniform noise, where the rates out of a state differ between "
            "models and nothing cancels.",
            experiment=BinaryStrings("uniform"),
            arms=(START, D2_DPO),
            expected=EXPECTED,
            refuted_by=REFUTED_BY,
            seconds=95,
            first_seconds=80,
            judged_from=200,
        ),
    ),
)
