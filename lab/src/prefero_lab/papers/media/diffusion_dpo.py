"""Diffusion-DPO: denoising errors in the place of log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained

Made = tuple["nn.Module", list[dict[str, Any]]]
"""The start model, and rows of pairs."""


@dataclass(frozen=True)
class Digits:
    """The world ``digits``: pairs of two images of one digit by the start model, which there is one of.

    Arms are settings of :func:`prefero_lab.papers.training.trained`; ``options`` are those of the kind of
    model. Of ``images`` fresh samples, from the same noise for all models: their ``slant`` (gold: how far
    they lean to the right), and whether a classifier reads the digit that was asked for (``fidelity``).
    """

    pairs: int = 256
    steps: int = 200
    images: int = 250

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        import torch

        from prefero.demo.start import one_thread
        from prefero_lab.worlds.digits import labelled_pairs, start_model

        start = start_model()
        with one_thread():
            return start, labelled_pairs(start, self.pairs, torch.Generator().manual_seed(seed))

    def start(self, made: Made) -> nn.Module:
        return made[0]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        import copy

        from prefero.models.diffusion.kind import Diffusion
        from prefero_lab.papers.training import trained
        from prefero_lab.worlds.digits import schedule

        start, rows = made
        own = {name: value for name, value in settings.items() if name != "options"}
        budget = {"max_steps": self.steps, "examples_per_step": 16, "lr_scheduler_type": "constant"}
        kind = Diffusion.of(start, schedule(), settings.get("options"))
        return trained(copy.deepcopy(start), rows, own, seed=seed, kind=kind, **budget)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread
        from prefero_lab.worlds.digits import measure

        with one_thread():
            found = measure(model, count=self.images, seed=2_000_000 + seed)
        return {"slant": found.slant, "fidelity": found.fidelity}


PAPER = Paper(
    id="p104",
    title="Diffusion Model Alignment Using Direct Preference Optimization",
    citation="Wallace et al., 2023, arXiv 2311.12908",
    adds="DPO for diffusion models: by how much noise is told from an image better than by the reference is "
    "the reward.",
    methods=("diffusion_dpo",),
    evidence=(
        Claim(
            statement="Diffusion-DPO on pairs of a model's own images makes fresh images what is preferred, "
            "and they still show what was asked for.",
            experiment=Digits(),
            arms=(
                START,
                Arm(
                    "diffusion-dpo",
                    {"objective": {"method": "diffusion_dpo", "beta": 500.0}, "learning_rate": 2e-4},
                    {"learning_rate": (5e-5, 1e-4, 2e-4)},
                ),
                Arm(
                    "likelihood of the chosen",
                    {"objective": {"method": "nll"}, "learning_rate": 2e-4},
                    {"learning_rate": (5e-5, 1e-4, 2e-4)},
                ),
            ),
            expected=(
                Expectation("diffusion-dpo", "start", "slant", by=0.05),
                Expectation("diffusion-dpo", "start", "fidelity", by=-0.1),
                Expectation("diffusion-dpo", "likelihood of the chosen", "slant"),
            ),
            refuted_by="fresh images that lean no further to the right than the start model's, or than those "
            "of a model fitted to the chosen images alone; or one in ten no longer read as its digit",
            seconds=170,
            first_seconds=120,
        ),
    ),
    note="Wallace et al. are the base of p104 (Zhao et al., 2025, rich preferences), which edits images to "
    "get its pairs and trains with this loss.",
)
