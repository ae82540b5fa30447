"""D2-DPO: preferences for discrete diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero.papers.paper import START, Arm, Claim, Expectation, Paper, Trained

if TYPE_CHECKING:
    from transformers import BertForMaskedLM

    from prefero.models.discrete_diffusion import Sequences


@dataclass(frozen=True)
class BinaryStrings:
    """The world ``binary_strings``: pairs of an odd and an even string of the start model.

    Of ``strings`` samples of a model, under the same noise for all: which are ``odd``, which ``valid`` (the
    second half repeats the first), and which both (``gold``).
    """

    pairs: int = 1000
    steps: int = 300
    strings: int = 2048

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> tuple[BertForMaskedLM, Sequences]:
        from prefero.worlds.binary_strings import preference_pairs, start_model

        start = start_model(seed=seed)
        return start, preference_pairs(start, self.pairs, seed)

    def start(self, made: tuple[BertForMaskedLM, Sequences]) -> BertForMaskedLM:
        return made[0]

    def train(
        self, made: tuple[BertForMaskedLM, Sequences], settings: Mapping[str, Any], seed: int
    ) -> Trained[BertForMaskedLM]:
        from prefero.objectives import from_config
        from prefero.worlds.binary_strings import Alignment, align
        from prefero.worlds.start import one_thread

        recipe = Alignment(steps=self.steps, lr=settings["learning_rate"])
        with one_thread():
            return Trained(align(*made, from_config(settings["objective"]), recipe, seed=seed))

    def measure(
        self, made: tuple[BertForMaskedLM, Sequences], model: BertForMaskedLM, seed: int
    ) -> Mapping[str, Sequence[float]]:
        from prefero.worlds.binary_strings import draw_strings, odd, valid
        from prefero.worlds.start import one_thread
        from prefero.worlds.text import stream

        with one_thread():
            drawn = draw_strings(model, self.strings, stream("binary_strings", "held-out", seed))
        found = {"gold": odd(drawn) & valid(drawn), "odd": odd(drawn), "valid": valid(drawn)}
        return {name: values.double().tolist() for name, values in found.items()}


STEP_SIZES = {"learning_rate": (2e-4, 5e-4, 1e-3)}

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
            experiment=BinaryStrings(),
            arms=(
                START,
                Arm(
                    "d2-dpo",
                    {"objective": {"method": "d2_dpo", "beta": 0.5}, "learning_rate": 2e-4},
                    STEP_SIZES,
                ),
                Arm(
                    "ipo",
                    {"objective": {"method": "ipo", "tokens": "sum"}, "learning_rate": 2e-4},
                    STEP_SIZES,
                ),
            ),
            expected=(
                Expectation("d2-dpo", "start", "gold", by=0.2),
                Expectation("d2-dpo", "start", "valid", by=-0.03),
                Expectation("ipo", "start", "gold", by=0.2, counts=False),
                Expectation("d2-dpo", "ipo", "gold", counts=False),
            ),
            refuted_by="strings that are odd no more often than the start model's, or odd at the price of "
            "more than three in a hundred that were valid",
            seconds=60,
            first_seconds=60,
        ),
    ),
)
