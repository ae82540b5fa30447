"""mDPO: what is seen is compared, not only what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper, Trained

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.worlds.shapes_model import Row, VisionStart

Made = tuple["VisionStart", list["Row"]]


@dataclass(frozen=True)
class Shapes:
    """The world ``shapes``: pairs of a true and a false answer about a picture, for a start model that often
    answers by habit.

    Of ``questions`` about pictures without a habit: which are answered truly (``grounded``), and of which the
    true answer is the likeliest (``ranked``); the other metrics are those of
    :class:`prefero_lab.worlds.shapes.Grounding`.
    """

    pairs: int = 1024
    epochs: float = 4.0
    examples_per_step: int = 32
    questions: int = 1024

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        from prefero_lab.worlds.shapes import preference_rows, start_model

        return start_model(seed=seed), preference_rows(self.pairs, seed)

    def start(self, made: Made) -> nn.Module:
        return made[0].model

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero.models.loading import ModelSource
        from prefero.models.vision_language.kind import VisionLanguage
        from prefero_lab.papers.training import trained

        start, rows = made
        corruption = {"corruption": settings.get("corruption", "crop")}
        return trained(
            str(start.folder),
            rows,
            {name: value for name, value in settings.items() if name != "corruption"},
            seed=seed,
            kind=VisionLanguage.of(ModelSource(str(start.folder)), start.processor, corruption),
            num_train_epochs=self.epochs,
            examples_per_step=self.examples_per_step,
        )

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread
        from prefero_lab.worlds.shapes import measure

        with one_thread():
            return asdict(measure(model, made[0].processor, count=self.questions, seed=seed))  # type: ignore[arg-type]


STEP_SIZES = {"learning_rate": (1e-4, 3e-4, 1e-3)}

PAPER = Paper(
    id="p077",
    title="mDPO: Conditional Preference Optimization for Multimodal Large Language Models",
    citation="Wang et al., 2024, arXiv 2406.11839",
    adds="DPO on pictures may learn from the answers alone; the same answer is preferred under its own "
    "picture to one under a corrupted picture, and its reward is held above 0.",
    methods=("mdpo",),
    evidence=(
        Claim(
            statement="A vision-language model that half ignores the picture answers more questions truly "
            "after mDPO, and more than after DPO on the same pairs, half of which can be told apart by their "
            "wording.",
            experiment=Shapes(),
            arms=(
                START,
                Arm(
                    "mdpo", {"objective": {"method": "mdpo", "beta": 0.1}, "learning_rate": 1e-3}, STEP_SIZES
                ),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 3e-4}, STEP_SIZES),
                Arm(
                    "mdpo, other picture",
                    {
                        "objective": {"method": "mdpo", "beta": 0.1},
                        "learning_rate": 1e-3,
                        "corruption": "other",
                    },
                    STEP_SIZES,
                ),
            ),
            expected=(
                Expectation("mdpo", "start", "grounded", by=0.02),
                Expectation("mdpo", "dpo", "grounded", by=0.02),
                Expectation("mdpo", "dpo", "ranked", counts=False),
                Expectation("mdpo, other picture", "dpo", "grounded", counts=False),
                Expectation("mdpo, other picture", "start", "grounded", counts=False),
                Expectation("dpo", "start", "grounded", counts=False),
                Expectation("dpo", "start", "hallucinated", "lower", counts=False),
            ),
            refuted_by="a policy that answers no more questions truly than its start, or no more than DPO's "
            "with as many steps and a step size of its own",
            tuning_seeds=(0,),
            seconds=210,
            first_seconds=240,
        ),
    ),
    note="The corrupted picture is a crop of at most a fifth of the area, as in the paper, drawn once per "
    "pair; in pictures as plain as these a crop is recognised at once. The other arm shows the picture of "
    "another pair.",
)
